//! `why` and `config test`: the rules as a person reads and tests them.

use serde_json::Value;

use crate::harness::{Canary, Home};

const RULES: &str = "\
agents:
  coder:
    allow: [{provider: github, methods: [GET]}]
routes:
  - {host: secret.example, action: deny}
  - {name: docs, host: docs.example, action: tunnel}
";

fn home() -> (Home, Canary) {
    let home = Home::empty();
    home.write_config(RULES);
    let canary = Canary::github();
    home.set("github:bot", &canary, &[]);
    (home, canary)
}

fn why(home: &Home, arguments: &[&str]) -> Value {
    let finished = home.command(&[&["why", "--json"], arguments].concat());
    finished.assert_code(0);
    finished.json()
}

#[test]
fn why_names_rule_place_profile_and_masked_injection() {
    let (home, canary) = home();
    let answer = why(&home, &["coder", "GET", "https://api.github.com/repos/a/b?q=1"]);
    assert_eq!(answer["decision"], "injected", "{answer}");
    assert!(answer["rule"].as_str().unwrap().starts_with("agents.coder.allow[0] ("), "{answer}");
    assert!(answer["rule"].as_str().unwrap().ends_with("keyferry.yaml:3)"), "{answer}");
    assert_eq!(answer["profile"], "github:bot");
    let end = &canary.as_str()[canary.as_str().len() - 4..];
    let inject = answer["inject"].as_str().unwrap();
    assert!(inject.to_ascii_lowercase().starts_with("authorization: ") && inject.contains("***"), "{inject}");
    assert!(inject.ends_with(end), "{inject}");
    assert_eq!(answer["live"], false);
    for (arguments, decision, rule) in [
        (["coder", "POST", "https://api.github.com/x"], "denied", "agents.coder.allow"),
        (["coder", "GET", "https://secret.example/"], "denied", "routes[0]"),
        (["coder", "CONNECT", "https://docs.example"], "tunnelled", "routes[1] \"docs\""),
        (["coder", "GET", "https://nowhere.example/"], "denied", "default"),
        (["coder", "GET", "http://api.github.com/"], "denied", "provider github"),
    ] {
        let answer = why(&home, &arguments);
        assert_eq!(answer["decision"], decision, "{arguments:?} {answer}");
        assert!(answer["rule"].as_str().unwrap().starts_with(rule), "{arguments:?} {answer}");
        for field in ["profile", "inject"] {
            assert_eq!(answer[field], Value::Null, "{answer}");
        }
    }
    let text = home.command(&["why", "coder", "DELETE", "https://api.github.com/x"]);
    text.assert_code(0);
    assert!(text.stdout().contains("policy_denied") && text.stdout().contains("keyferry.yaml:3"), "{text:?}");
}

#[test]
fn a_slip_in_the_question_is_a_usage_error_with_a_hint() {
    let (home, _) = home();
    for arguments in [
        ["coder", "get", "https://a.example/"],
        ["coder", "GET", "a.example"],
        ["coder", "GET", "ftp://a.example/"],
        ["co der", "GET", "https://a.example/"],
        ["coder", "GET", "https://user@a.example/"],
    ] {
        let finished = home.command(&[&["why"], &arguments[..]].concat());
        finished.assert_code(2);
        assert!(finished.stderr().contains("hint:"), "{finished:?}");
    }
}

#[test]
fn rules_are_held_against_a_file_of_tests() {
    let (home, _) = home();
    let file = home.path().join("keyferry.test.yaml");
    let good = "credentials: [github]\ntests:\n  \
                - {agent: coder, url: \"https://api.github.com/x\", expect: injected, provider: github}\n  \
                - {agent: coder, method: POST, url: \"https://api.github.com/x\", expect: denied, rule: agents.coder.allow}\n  \
                - {agent: coder, url: \"https://docs.example/\", expect: tunnelled, rule: docs}\n";
    std::fs::write(&file, good).unwrap();
    let finished = home.command(&["config", "test"]);
    finished.assert_code(0);
    assert!(finished.stderr().contains("3 tests as expected"), "{finished:?}");
    std::fs::write(&file, good.replace("expect: denied", "expect: injected")).unwrap();
    let finished = home.command(&["config", "test"]);
    finished.assert_code(1);
    let text = finished.stdout();
    for expected in ["keyferry.test.yaml:4: coder POST", "- decision: injected", "+ decision: denied"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let report = home.command(&["config", "test", "--json"]);
    report.assert_code(1);
    let report = report.json();
    assert_eq!(report["ok"], false);
    assert_eq!(report["tests"][1]["ok"], false);
    assert_eq!(report["tests"][1]["decision"], "denied");
    // Nothing is stored in the tests' world but what they name.
    std::fs::write(&file, good.replace("[github]", "[]")).unwrap();
    home.command(&["config", "test"]).assert_code(1);
    std::fs::write(&file, good.replace("[github]", "[gihub]")).unwrap();
    let finished = home.command(&["config", "test"]);
    finished.assert_code(78);
    assert!(finished.stderr().contains("github"), "{finished:?}");
    std::fs::remove_file(&file).unwrap();
    home.command(&["config", "test"]).assert_code(78);
}
