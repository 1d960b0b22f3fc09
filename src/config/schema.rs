//! The JSON Schema of the file, for editors and for checks in other tools.
//!
//! Invariant: it knows exactly the keys that the reader knows and that do something; a test compares them.

mod outcome;

use serde_json::{Map, Value, json};

use super::model::{Durability, Foreign, Level, LogFormat, Strategy};
use super::unbuilt::is_available;
use super::words::{ActionWord, Word};
use crate::policy::{Enforcement, Fallback, SetCookie};
use crate::provider::{Catalogue, Wire};

/// The JSON Schema (draft 2020-12) of `keyferry.yaml`.
#[must_use]
pub fn schema() -> Value {
    let mut root = object(
        "",
        vec![
            ("listen", listen()),
            ("vault", vault()),
            ("upstream", upstream()),
            ("providers", map_of(&name("a-z0-9-"), provider())),
            ("pools", map_of(&name("a-z0-9-"), pool())),
            ("agents", map_of(&name("A-Za-z0-9._~-"), agent())),
            ("routes", described(list(route()), "First match wins, before the agents' allowances.")),
            (
                "default",
                described(
                    words::<Fallback>(),
                    "What becomes of everything else. Unset: `run` tunnels, `serve` denies.",
                ),
            ),
            ("mode", described(words::<Enforcement>(), "observe: what would be refused is noted and goes on.")),
            ("scrub", scrub()),
            (
                "log",
                object(
                    "log",
                    vec![("format", words::<LogFormat>()), ("access", path()), ("level", words::<Level>())],
                    &[],
                ),
            ),
            ("audit", object("audit", vec![("durability", available("audit.durability", words::<Durability>()))], &[])),
        ],
        &[],
    );
    if let Value::Object(root) = &mut root {
        root.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        root.insert("title".to_owned(), "keyferry.yaml".into());
    }
    root
}

fn listen() -> Value {
    let address = json!({ "type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$" });
    let agent = || name("A-Za-z0-9._~-");
    let uid = || json!({ "type": "integer", "minimum": 0 });
    let listener = |more: Vec<(&'static str, Value)>| {
        let keys = std::iter::once(("addr", address.clone())).chain(more).collect();
        json!({ "anyOf": [address.clone(), object("listen.*", keys, &["addr"])] })
    };
    let own = || ("agent", described(agent(), "Who our own user's programs are that connect here. Loopback only."));
    let server = || ("name", described(host(), "The host of the certificate; localhost unless written."));
    let user = || ("uid", described(uid(), "The user whose connections are redirected; our own unless written."));
    let users = map_of(&json!({ "pattern": "^[0-9]+$" }), agent());
    let users = described(users, "Who the users are that connect here, by their numbers.");
    let unix =
        json!({ "anyOf": [path(), object("listen.unix", vec![("path", path()), ("agents", users)], &["path"])] });
    object(
        "listen",
        vec![
            ("proxy", described(listener(vec![own()]), "CONNECT and absolute-form, HTTP/1.1.")),
            ("proxy_tls", described(listener(vec![own(), server()]), "The same behind TLS.")),
            (
                "base_url",
                described(listener(vec![own()]), "http://ADDRESS/<provider>/... for clients that ignore a proxy."),
            ),
            (
                "transparent",
                described(listener(vec![own(), user()]), "Redirected TLS connections; the server name decides."),
            ),
            ("unix", described(unix, "CONNECT over a Unix socket.")),
            ("admin", described(listener(Vec::new()), "Health, metrics, admin API.")),
        ],
        &[],
    )
}

fn vault() -> Value {
    let file = if is_available("vault.url: elsewhere") { "sqlite:." } else { "sqlite:(//)?vault\\.db$" };
    let url = format!("^({file}{})", if is_available("vault.url: postgres") { "|postgres(ql)?://" } else { "" });
    let mut key = vec!["file:.+", "env:[A-Za-z_][A-Za-z0-9_]*", "passphrase", "command:.+", "credential:.+"];
    if is_available("vault.master_key: keyring") {
        key.push("keyring");
    }
    let key = json!({ "type": "string", "pattern": format!("^({})$", key.join("|")) });
    object("vault", vec![("url", json!({ "type": "string", "pattern": url })), ("master_key", key)], &[])
}

fn upstream() -> Value {
    let timeouts = vec![("connect", duration()), ("response", duration()), ("idle", duration())];
    object(
        "upstream",
        vec![
            ("extra_roots", described(list(path()), "Trusted beside the system's roots. Takes effect at start.")),
            (
                "resolve",
                described(
                    map_of(&json!({ "pattern": ":[0-9]+$" }), json!({ "type": "string", "pattern": ":[0-9]+$" })),
                    "\"host:port\": \"address:port\". Takes effect at start.",
                ),
            ),
            ("allow_networks", list(json!({ "type": "string", "pattern": "/[0-9]{1,3}$" }))),
            (
                "proxy",
                described(
                    json!({ "type": "string", "pattern": "^(http://[^@]+|env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$" }),
                    "Chain through another proxy; with a password, name a variable or file that holds the URL. \
                     Takes effect at start.",
                ),
            ),
            (
                "no_proxy",
                described(list(json!({ "type": "string", "minLength": 1 })), "Hosts that are reached without it."),
            ),
            ("timeouts", object("upstream.timeouts", timeouts, &[])),
        ],
        &[],
    )
}

fn provider() -> Value {
    let variable = json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" });
    let test = vec![("method", method()), ("path", json!({ "type": "string", "pattern": "^/" }))];
    let place = inject_place();
    let rule = outcome::rule;
    let speaks = Wire::ALL.iter().map(|wire| (wire.as_str(), json!({ "type": "string", "pattern": "^/" }))).collect();
    object(
        "providers.*",
        vec![
            ("hosts", nonempty(host())),
            ("inject", json!({ "anyOf": [place.clone(), nonempty(place)] })),
            ("env", json!({ "anyOf": [variable.clone(), nonempty(variable)] })),
            ("test", object("providers.*.test", test, &["path"])),
            ("speaks", described(object("providers.*.speaks", speaks, &[]), "Protocols of others, and their paths.")),
            ("rules", described(list(rule()), "What answers mean; tried before the built-in rules.")),
            ("stream", described(list(rule()), "The same for errors inside event streams.")),
            ("status", described(outcome::by_status(), "What a status means where no rule fits.")),
            ("until", outcome::ends()),
            ("inspect", json!({ "enum": ["hold", "aside"] })),
            ("events", switch()),
            ("faults", json!({ "enum": ["transient"] })),
        ],
        &[],
    )
}

fn inject_place() -> Value {
    let template = json!({ "type": "string", "minLength": 1 });
    let form = |keys: &[&str]| {
        let entries = keys.iter().map(|key| (*key, template.clone())).collect();
        object("", entries, keys)
    };
    let basic = object("", vec![("basic", form(&["user", "password"]))], &["basic"]);
    json!({ "anyOf": [form(&["header", "value"]), form(&["query", "value"]), form(&["path"]), basic, form(&["cookie", "value"])] })
}

fn pool() -> Value {
    let models = json!({
        "type": "object",
        "minProperties": 1,
        "additionalProperties": { "type": "string", "minLength": 1 },
        "description": "Names of models there, by their names here; * stands for anything.",
    });
    let fallback =
        object("pools.*.fallback", vec![("provider", name("a-z0-9-")), ("models", models)], &["provider", "models"]);
    let ladder = nonempty(duration());
    let lanes = ["rate_limit", "quota", "billing", "auth", "forbidden", "overload"];
    let lanes = object("pools.*.cooldown", lanes.map(|lane| (lane, ladder.clone())).to_vec(), &[]);
    let number = |least: u8| json!({ "type": "integer", "minimum": least, "maximum": 8 });
    let attempts = vec![
        ("total", described(number(1), "Sends in all.")),
        ("same_profile", described(number(0), "Sends again with the same profile.")),
        ("throttle_hops", described(number(0), "Profiles that a request may leave because of a rate limit.")),
        ("warm_throttle_hops", described(number(0), "The same for a conversation whose prompts are cached.")),
        ("overload_hops", described(number(0), "Profiles that it may leave because the upstream has no capacity.")),
        ("suspect_hops", described(number(0), "Profiles that it may leave because of a refusal without evidence.")),
        ("waits", described(number(0), "Waits for a profile.")),
    ];
    let wait = json!({ "anyOf": [{ "const": "off" }, duration()] });
    let member = name("A-Za-z0-9._~:-");
    object(
        "pools.*",
        vec![
            ("order", described(list(name("A-Za-z0-9._~:-")), "Profiles in their order.")),
            ("strategy", available("pools.*.strategy", words::<Strategy>())),
            ("rotate", described(switch(), "Off: a refused request never goes out with another profile.")),
            ("cooldown", json!({ "anyOf": [{ "enum": ["argentos", "short"] }, ladder, lanes] })),
            ("wait", described(wait.clone(), "How long a request waits for a profile; 60s at most.")),
            ("warm_wait", described(wait, "The same for a conversation whose prompts are cached.")),
            ("attempts", object("pools.*.attempts", attempts, &[])),
            ("groups", described(map_of(&name("A-Za-z0-9._~-"), list(member)), "Profiles that share one quota.")),
            ("learn_groups", described(switch(), "Whether a shared quota is found out from answers.")),
            ("fallback", described(list(fallback), "Other providers, when every profile rests.")),
            ("foreign", words::<Foreign>()),
            (
                "limits",
                described(object("pools.*.limits", limits(&["requests", "concurrency"]), &[]), "For each profile."),
            ),
        ],
        &[],
    )
}

fn agent() -> Value {
    let allowance = object(
        "agents.*.allow",
        vec![("provider", name("a-z0-9-")), ("methods", nonempty(method())), ("paths", nonempty(path_pattern()))],
        &["provider"],
    );
    let builtin: Vec<String> = Catalogue::embedded().iter().map(|provider| provider.id.to_string()).collect();
    let known = json!({ "anyOf": [{ "enum": builtin }, name("a-z0-9-")] });
    let variable = json!({ "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" });
    object(
        "agents.*",
        vec![
            (
                "allow",
                described(
                    list(json!({ "anyOf": [known, allowance] })),
                    "Unset: every provider with a credential in the agent's scope.",
                ),
            ),
            ("limits", object("agents.*.limits", limits(&["requests", "concurrency", "tokens"]), &[])),
            (
                "env",
                described(
                    map_of(&variable, json!({ "type": ["string", "number", "boolean"] })),
                    "Plain defaults for its process; no secrets.",
                ),
            ),
        ],
        &[],
    )
}

fn limits(keys: &[&'static str]) -> Vec<(&'static str, Value)> {
    let rate = || described(json!({ "type": "string", "pattern": "^[0-9]+[kKM]?/[a-z]+$" }), "60/min, 10k/h, 2M/day");
    let count = || json!({ "type": "integer", "minimum": 1 });
    keys.iter().map(|key| (*key, if *key == "concurrency" { count() } else { rate() })).collect()
}

fn route() -> Value {
    let port = json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
    object(
        "routes",
        vec![
            ("name", json!({ "type": ["string", "number"] })),
            ("agents", described(nonempty(name("A-Za-z0-9._~-")), "Unset: every agent.")),
            ("host", host()),
            ("ports", nonempty(port)),
            ("methods", nonempty(method())),
            ("paths", nonempty(path_pattern())),
            ("action", words::<ActionWord>()),
            ("provider", name("a-z0-9-")),
            ("profile", json!({ "type": "string", "pattern": "^[a-z0-9-]+:[A-Za-z0-9._~-]+$" })),
            ("scrub", scrub()),
            ("set_cookie", described(words::<SetCookie>(), "pass: cookies that the provider sets reach the agent.")),
        ],
        &["host", "action"],
    )
}

fn host() -> Value {
    json!({
        "type": "string",
        "pattern": r"^(\*\.)?[A-Za-z0-9_.:\[\]-]+$",
        "description": "One host, or *.example.com for one label; port 443 unless written host:port.",
    })
}

fn path_pattern() -> Value {
    json!({
        "type": "string",
        "pattern": "^/[^?#]*$",
        "description": "* is one segment, ** any number. Case-sensitive.",
    })
}

fn method() -> Value {
    json!({ "type": "string", "pattern": "^[A-Z-]+$" })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d))+$" })
}

fn path() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn switch() -> Value {
    json!({ "enum": ["on", "off", true, false, "true", "false"] })
}

fn scrub() -> Value {
    // What YAML 1.1 readers make of `on` is allowed beside the words.
    json!({ "enum": ["on", "off", true, false] })
}

fn words<W: Word>() -> Value {
    json!({ "enum": W::WORDS.iter().map(|(word, _)| *word).collect::<Vec<_>>() })
}

/// Takes out words that nothing acts on yet.
fn available(key: &str, mut schema: Value) -> Value {
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| is_available(&format!("{key}: {}", word.as_str().unwrap_or_default())));
    }
    schema
}

fn name(alphabet: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^[{alphabet}]{{1,128}}$") })
}

fn list(items: Value) -> Value {
    json!({ "type": ["array", "null"], "items": items })
}

fn nonempty(items: Value) -> Value {
    json!({ "type": "array", "minItems": 1, "items": items })
}

fn map_of(keys: &Value, values: Value) -> Value {
    json!({ "type": ["object", "null"], "propertyNames": keys, "additionalProperties": values })
}

/// A mapping with these keys and no others; those that nothing acts on yet are left out.
fn object(path: &str, entries: Vec<(&str, Value)>, required: &[&str]) -> Value {
    let available = entries.into_iter().filter(|(key, _)| is_available(&format!("{path}.{key}")));
    let properties: Map<String, Value> = available.map(|(key, value)| (key.to_owned(), value)).collect();
    let mut schema = json!({ "type": ["object", "null"], "additionalProperties": false, "properties": properties });
    if let (Value::Object(schema), false) = (&mut schema, required.is_empty()) {
        schema.insert("type".to_owned(), "object".into());
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn described(mut schema: Value, text: &str) -> Value {
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), text.into());
    }
    schema
}
