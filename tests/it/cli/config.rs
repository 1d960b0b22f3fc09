//! `init`, `config` and `ca`: what is read, and what is said about faults.

use crate::harness::Home;

fn check(home: &Home) -> serde_json::Value {
    let finished = home.command(&["config", "check", "--json"]);
    let report = finished.json();
    assert_eq!(finished.code(), if report["ok"] == true { 0 } else { 78 }, "{finished:?}");
    report
}

#[test]
fn all_faults_come_at_once_with_their_places() {
    let home = Home::empty();
    home.write_config(
        "listen:\n  proxy: not-an-address\nunknown_key: 1\nscrub: sometimes\nagents:\n  coder:\n    allow: [antropic]\n\
         routes:\n  - {host: \"exa mple\", action: allow}\n  - {host: x.example, action: permit}\n",
    );
    let report = check(&home);
    assert_eq!(report["ok"], false);
    let faults = report["faults"].as_array().unwrap();
    for fault in faults {
        for field in ["file", "line", "column", "message", "hint"] {
            assert!(fault.get(field).is_some(), "no {field} in {fault}");
        }
        assert!(fault["file"].as_str().unwrap().ends_with("keyferry.yaml"));
        assert!(fault["column"].as_u64().unwrap() >= 1);
    }
    let lines: Vec<u64> = faults.iter().map(|fault| fault["line"].as_u64().unwrap()).collect();
    for line in [2, 3, 4, 7, 9, 10] {
        assert!(lines.contains(&line), "no fault for line {line}: {faults:#?}");
    }
    let suggestion = faults.iter().find(|fault| fault["line"] == 7).unwrap();
    assert!(suggestion.to_string().contains("anthropic"), "did you mean: {suggestion}");
    let text = home.command(&["config", "check"]);
    text.assert_code(78);
    assert!(format!("{}{}", text.stdout(), text.stderr()).contains("keyferry.yaml:3:"), "{text:?}");
}

#[test]
fn duplicate_keys_and_broken_yaml_are_faults() {
    let home = Home::empty();
    for text in ["scrub: on\nscrub: off\n", "listen: [\n", "scrub: on\n---\nscrub: off\n", "- a\n- b\n"] {
        home.write_config(text);
        let report = check(&home);
        assert_eq!(report["ok"], false, "{text:?}");
        assert!(!report["faults"].as_array().unwrap().is_empty(), "{text:?}");
    }
}

#[test]
fn what_is_not_built_is_a_fault() {
    let home = Home::empty();
    for text in
        ["vault:\n  url: postgres://localhost/keyferry\n", "agents:\n  coder:\n    limits: {requests: 60/min}\n"]
    {
        home.write_config(text);
        let report = check(&home);
        if report["ok"] == false {
            assert!(report.to_string().contains("not available yet"), "{text:?}: {report}");
        }
    }
}

#[test]
fn an_empty_or_missing_file_is_fine() {
    let home = Home::empty();
    assert_eq!(check(&home)["ok"], true);
    for text in ["", "# nothing\n", "scrub: on\n"] {
        home.write_config(text);
        assert_eq!(check(&home)["ok"], true, "{text:?}");
    }
}

#[test]
fn a_secret_in_the_file_is_not_repeated() {
    let home = Home::empty();
    let canary = crate::harness::Canary::openai();
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("keyferry.yaml");
    home.guard(&canary);
    std::fs::write(&file, format!("providers:\n  mine:\n    secret: {}\n", canary.as_str())).unwrap();
    let finished = home.command(&["--config", file.to_str().unwrap(), "config", "check"]);
    finished.assert_code(78);
}

#[test]
fn show_is_a_configuration_again() {
    let home = Home::empty();
    home.write_config("default: deny\nagents:\n  coder:\n    allow: [anthropic]\n");
    let shown = home.command(&["config", "show"]);
    shown.assert_code(0);
    home.write_config(&shown.stdout());
    assert_eq!(check(&home)["ok"], true, "{}", shown.stdout());
    assert_eq!(home.command(&["config", "show"]).stdout(), shown.stdout());
}

#[test]
fn the_schema_is_json() {
    let home = Home::empty();
    let schema = home.command(&["config", "schema"]).json();
    for key in
        ["listen", "vault", "upstream", "providers", "pools", "agents", "routes", "default", "scrub", "log", "audit"]
    {
        assert!(schema["properties"].get(key).is_some(), "no {key} in the schema");
    }
}

#[test]
fn init_writes_a_commented_file_and_never_over_one() {
    let home = Home::empty();
    home.command(&["init"]).assert_code(0);
    let text = home.file("keyferry.yaml");
    assert!(text.lines().filter(|line| line.trim_start().starts_with('#')).count() > 10, "{text}");
    assert_eq!(check(&home)["ok"], true);
    let again = home.command(&["init"]);
    assert_ne!(again.code(), 0);
    assert_eq!(home.file("keyferry.yaml"), text);
}

#[test]
fn the_ca_is_shown_and_its_key_is_not() {
    let home = Home::empty();
    home.agent("coder");
    let path = home.command(&["ca", "path"]);
    path.assert_code(0);
    assert_eq!(path.stdout().trim(), home.path().join("ca/ca.pem").to_str().unwrap());
    let shown = home.command(&["ca", "show"]);
    shown.assert_code(0);
    let key = home.file("ca/ca.key");
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(!shown.stdout().contains(line));
    }
    let bundle = home.file("ca/bundle.pem");
    assert!(bundle.contains(home.file("ca/ca.pem").trim()), "the bundle holds the root");
    assert!(bundle.matches("BEGIN CERTIFICATE").count() > 1, "and the system's");
}
