//! `secret`: what can be done with one once it is stored, its value never shown.

use serde_json::Value;

use crate::harness::{Canary, Home};

fn stocked() -> (Home, Canary) {
    let (home, canary) = (Home::empty(), Canary::anthropic());
    home.set("anthropic:work", &canary, &[]);
    (home, canary)
}

fn show(home: &Home, name: &str) -> Value {
    let shown = home.command(&["secret", "show", name, "--json"]);
    shown.assert_code(0);
    shown.json()
}

fn last_four(canary: &Canary) -> &str {
    &canary.as_str()[canary.as_str().len() - 4..]
}

fn masked(shown: &Value) -> String {
    shown["masked"].as_str().unwrap().to_owned()
}

#[test]
fn options_without_a_value_change_what_they_say_and_keep_the_value() {
    let (home, canary) = stocked();
    let before = show(&home, "anthropic:work");
    let changes = ["--description", "the team's", "--label", "team", "--env", "TEAM_KEY", "--no-install"];
    home.command(&[&["secret", "set", "anthropic:work"][..], &changes].concat()).assert_code(0);
    let after = show(&home, "anthropic:work");
    assert_eq!((&after["description"], &after["label"]), (&"the team's".into(), &"team".into()));
    assert_eq!((&after["env"], &after["install"]), (&"TEAM_KEY".into(), &false.into()));
    assert_eq!((&after["masked"], &after["version"]), (&before["masked"], &before["version"]));
    assert!(masked(&after).ends_with(last_four(&canary)));
    let cleared = ["secret", "set", "anthropic:work", "--label", "", "--install", "--no-input"];
    home.command(&cleared).assert_code(0);
    let after = show(&home, "anthropic:work");
    assert_eq!(
        (&after["label"], &after["install"], &after["description"]),
        (&Value::Null, &true.into(), &"the team's".into())
    );
}

#[test]
fn another_host_is_sealed_with_the_value_as_a_new_version() {
    let (home, canary) = stocked();
    home.command(&["secret", "set", "anthropic:work", "--host", "gateway.example"]).assert_code(0);
    let after = show(&home, "anthropic:work");
    assert_eq!(after["hosts"], serde_json::json!(["gateway.example"]));
    assert_eq!(after["version"], 2);
    assert!(masked(&after).ends_with(last_four(&canary)));
    home.command(&["secret", "rollback", "anthropic:work"]).assert_code(0).assert_says(&["api.anthropic.com"]);
    assert_eq!(show(&home, "anthropic:work")["hosts"], serde_json::json!(["api.anthropic.com"]));
}

#[test]
fn another_scope_takes_the_secret_and_its_history_with_it() {
    let (home, _) = stocked();
    home.set("anthropic:work", &Canary::anthropic(), &[]);
    home.command(&["secret", "set", "anthropic:work", "--scope", "agent:coder"]).assert_code(0);
    let all = home.command(&["secret", "list", "--json"]).json();
    assert_eq!(all.as_array().unwrap().len(), 1);
    assert_eq!(all[0]["scope"], "agent:coder");
    assert_eq!(home.command(&["secret", "history", "anthropic:work", "--json"]).json().as_array().unwrap().len(), 2);
    home.command(&["secret", "rollback", "anthropic:work", "--to", "1"]).assert_code(0);
    // Which of two is meant is not guessed.
    home.set("anthropic:work", &Canary::anthropic(), &["--scope", "shared"]);
    home.command(&["secret", "set", "anthropic:work", "--scope", "agent:other"]).assert_code(2);
    assert_eq!(home.command(&["secret", "list", "--json"]).json().as_array().unwrap().len(), 2);
}

#[test]
fn options_with_a_value_rotate() {
    let (home, _) = stocked();
    let second = Canary::anthropic();
    home.set("anthropic:work", &second, &["--label", "new"]);
    let after = show(&home, "anthropic:work");
    assert_eq!((&after["version"], &after["label"]), (&2.into(), &"new".into()));
    assert!(masked(&after).ends_with(last_four(&second)));
}

#[test]
fn a_rollback_brings_an_earlier_value_back_as_a_new_version() {
    let (home, first) = stocked();
    home.command(&["secret", "rollback", "anthropic:work"]).assert_code(1).assert_says(&["no version before"]);
    let (second, third) = (Canary::anthropic(), Canary::anthropic());
    home.set("anthropic:work", &second, &[]);
    home.set("anthropic:work", &third, &[]);
    home.command(&["secret", "rollback", "anthropic:work"]).assert_code(0);
    let after = show(&home, "anthropic:work");
    assert_eq!(after["version"], 4);
    assert!(masked(&after).ends_with(last_four(&second)));
    home.command(&["secret", "rollback", "anthropic:work", "--to", "1"]).assert_code(0);
    assert!(masked(&show(&home, "anthropic:work")).ends_with(last_four(&first)));
    home.command(&["secret", "rollback", "anthropic:work", "--to", "9"])
        .assert_code(1)
        .assert_says(&["version 9", "history"]);
    home.command(&["secret", "rollback", "anthropic:work", "--to", "5"]).assert_code(2);
    let actions: Vec<String> =
        home.audit_log().iter().filter_map(|line| line["action"].as_str().map(str::to_owned)).collect();
    assert_eq!(actions.iter().filter(|action| *action == "secret.rolled_back").count(), 2, "{actions:?}");
}

#[test]
fn a_search_looks_at_everything_but_the_value() {
    let (home, canary) = stocked();
    home.set("openai:team", &Canary::openai(), &["--description", "Billing of the Team", "--scope", "agent:coder"]);
    let found = |words: &[&str]| {
        let finished = home.command(&[&["secret", "search", "--json"], words].concat());
        finished.assert_code(0);
        let names = finished.json();
        names.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(&["billing"]), ["openai:team"]);
    assert_eq!(found(&["CODER", "openai"]), ["openai:team"]);
    assert_eq!(found(&["api."]), ["anthropic:work", "openai:team"]);
    assert_eq!(found(&["billing", "anthropic"]), Vec::<String>::new());
    assert_eq!(found(&[&canary.as_str()[20..32]]), Vec::<String>::new());
}

#[test]
fn a_value_of_another_shape_needs_force() {
    let home = Home::empty();
    let canary = Canary::plain();
    home.guard(&canary);
    let input = canary.as_str().as_bytes();
    let refused = home.finish(home.keyferry(&["secret", "set", "anthropic:work"]), input);
    refused.assert_code(2).assert_says(&["does not look like", "--force"]);
    assert!(!home.path().join("vault.db").exists(), "nothing was made");
    let forced = home.finish(home.keyferry(&["secret", "set", "anthropic:work", "--force"]), input);
    forced.assert_code(0).assert_says(&["warning", "does not look like"]);
}
