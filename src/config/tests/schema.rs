//! The schema held against the reader.

use serde_json::Value;

use super::*;

/// The mapping at a path of the grammar.
fn at<'v>(schema: &'v Value, path: &str) -> &'v Value {
    let mut schema = schema;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, items) = part.strip_suffix("[]").map_or((part, false), |key| (key, true));
        schema = if key == "*" { &schema["additionalProperties"] } else { &schema["properties"][key] };
        if items {
            schema = &schema["items"];
        }
        if let Some(forms) = schema["anyOf"].as_array() {
            schema = forms.iter().find(|form| form["properties"].is_object()).unwrap_or(schema);
        }
    }
    schema
}

#[test]
fn it_knows_the_keys_of_the_reader_that_do_something() {
    let schema = schema();
    for (path, keys) in read::KEYS {
        let mapping = at(&schema, path);
        assert_eq!(mapping["additionalProperties"], Value::Bool(false), "{path}");
        let mut known: Vec<&str> = mapping["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let pattern = path.trim_end_matches("[]");
        let mut expected: Vec<&str> =
            keys.iter().copied().filter(|key| unbuilt::is_available(&format!("{pattern}.{key}"))).collect();
        known.sort_unstable();
        expected.sort_unstable();
        assert_eq!(known, expected, "{path}");
    }
}

#[test]
fn it_accepts_what_the_reader_accepts() {
    let schema = schema();
    for text in ["", EXAMPLE, &example_with_everything(), EVERY_FORM] {
        read(text);
        let value = to_json(text);
        let wrong = validate(&schema, &value, "$");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn it_refuses_slips() {
    let schema = schema();
    for text in [
        "lisen: {}",
        "listen: {prxy: 127.0.0.1:1}",
        "listen: {proxy: 7878}",
        "listen: {admin: {addr: 127.0.0.1:1, agent: coder}}",
        "listen: {proxy: {addr: 127.0.0.1:1, uid: 1000}}",
        "vault: {url: \"postgres://x\"}",
        "vault: {master_key: keyring}",
        "upstream: {timeouts: {connect: soon}}",
        "providers: {Acme: {}}",
        "providers: {acme: {inject: {header: A}}}",
        "pools: {openai: {strategy: turns}}",
        "pools: {openai: {rotate: never}}",
        "pools: {openai: {attempts: {total: 9}}}",
        "pools: {openai: {cooldown: {money: [1h]}}}",
        "providers: {openai: {rules: [{on: 429, means: rate-limt}]}}",
        "providers: {openai: {status: {429: rate-limit@grup}}}",
        "pools: {openai: {fallback: [{provider: groq, models: {}}]}}",
        "pools: {openai: {fallback: [{provider: groq}]}}",
        "agents: {coder: {limits: {request: 1/s}}}",
        "agents: {coder: {allow: [{methods: [GET]}]}}",
        "routes: [{host: a.test, action: alow}]",
        "routes: [{action: deny}]",
        "routes: [{host: a.test, action: deny, ports: [0]}]",
        "default: refuse",
        "audit: {durability: flushed}",
    ] {
        assert!(parse(text, "k").is_err(), "{text}");
        assert!(!validate(&schema, &to_json(text), "$").is_empty(), "{text}");
    }
}

/// The file as a YAML reader of the core schema sees it.
fn to_json(text: &str) -> Value {
    let mut report = Report::new("k.yaml");
    to_value(&yaml::read(text, &mut report).unwrap(), text)
}

fn to_value(node: &yaml::Node, text: &str) -> Value {
    match &node.kind {
        yaml::Kind::Null => Value::Null,
        yaml::Kind::Scalar(scalar) => {
            let line = text.lines().nth(node.at.line as usize - 1).unwrap();
            let quoted = line.chars().nth(node.at.column as usize - 1) == Some('"');
            match scalar.parse::<u64>() {
                Ok(number) if !quoted => number.into(),
                _ => scalar.as_str().into(),
            }
        }
        yaml::Kind::List(items) => items.iter().map(|item| to_value(item, text)).collect(),
        yaml::Kind::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), to_value(&entry.value, text))).collect()
        }
    }
}

/// As much of JSON Schema as is used; a keyword that is not known here fails the test.
fn validate(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |text: String| wrong.push(format!("{path}: {text}"));
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "title" | "description" => {}
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                if !rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is)) {
                    say(format!("{value} is not {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    say(format!("{value} is none of {rule}"));
                }
            }
            "const" => {
                if rule != value {
                    say(format!("{value} is not {rule}"));
                }
            }
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    say(format!("{value} does not match {rule}"));
                }
            }
            "minLength" => {
                if value.as_str().is_some_and(|text| (text.len() as u64) < rule.as_u64().unwrap()) {
                    say("too short".to_owned());
                }
            }
            "minItems" => {
                if value.as_array().is_some_and(|items| (items.len() as u64) < rule.as_u64().unwrap()) {
                    say("too few".to_owned());
                }
            }
            "minProperties" => {
                if value.as_object().is_some_and(|members| (members.len() as u64) < rule.as_u64().unwrap()) {
                    say("too few".to_owned());
                }
            }
            "minimum" => {
                if value.as_u64().is_some_and(|number| number < rule.as_u64().unwrap()) {
                    say("too small".to_owned());
                }
            }
            "maximum" => {
                if value.as_u64().is_some_and(|number| number > rule.as_u64().unwrap()) {
                    say("too large".to_owned());
                }
            }
            "anyOf" => {
                let forms: Vec<_> = rule.as_array().unwrap().iter().map(|form| validate(form, value, path)).collect();
                if !forms.iter().any(Vec::is_empty) {
                    say(format!("fits no form: {forms:?}"));
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        say(format!("has no {key}"));
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(rule, item, &format!("{path}[{index}]")).into_iter().for_each(&mut say);
                }
            }
            "propertyNames" => {
                for key in value.as_object().into_iter().flatten().map(|(key, _)| key) {
                    validate(rule, &Value::from(key.as_str()), path).into_iter().for_each(&mut say);
                }
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(key) {
                        validate(rule, value, &format!("{path}.{key}")).into_iter().for_each(&mut say);
                    }
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties");
                for (key, value) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.get(key).is_some()) {
                        continue;
                    }
                    match rule {
                        Value::Bool(false) => say(format!("{key} is not known")),
                        rule => {
                            validate(rule, value, &format!("{path}.{key}")).into_iter().for_each(&mut say);
                        }
                    }
                }
            }
            other => panic!("the keyword {other} is not known here"),
        }
    }
    wrong
}
