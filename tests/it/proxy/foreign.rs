//! Real credentials that a program sends itself.

use super::Stage;
use crate::harness::{Canary, Home, Tool, need};

const HOST: &str = "api.anthropic.com";

fn stage(foreign: &str) -> (Stage, Canary) {
    let key = Canary::anthropic();
    let stored = key.clone();
    let config = format!("pools: {{anthropic: {{foreign: {foreign}}}}}\ndefault: deny\n");
    (Stage::with(&config, move |upstream, home| home.stock(upstream, "anthropic:work", &stored, &[])), key)
}

fn ask(stage: &Stage, value: &str) -> crate::harness::Answered {
    stage.open(HOST).ask(&format!("GET /v1/models HTTP/1.1\r\nHost: {HOST}\r\nx-api-key: {value}\r\n\r\n"))
}

/// A placeholder, and words that fill a field.
fn harmless(stage: &Stage) -> Vec<String> {
    let exports = stage.home.command(&["env", "--agent", "coder", "--format", "json"]).json();
    vec![
        exports["ANTHROPIC_API_KEY"].as_str().unwrap().to_owned(),
        "x".to_owned(),
        "not-needed-by-this-proxy".to_owned(),
    ]
}

#[test]
fn one_is_replaced_unless_the_operator_says_otherwise() {
    let (mut stage, key) = stage("replace");
    let own = Canary::anthropic();
    for _ in 0..2 {
        ask(&stage, own.as_str()).assert_status(200);
    }
    stage.upstream.assert_carried(HOST, key.as_str());
    stage.upstream.assert_never_carried(own.as_str());
    stage.stop();
    let said = stage.daemon.stderr.text().matches("agent's own was replaced").count();
    assert_eq!(said, 1, "{}", stage.daemon.stderr.text());
    assert!(!stage.daemon.stderr.text().contains(own.as_str()));
}

#[test]
fn one_that_is_passed_on_goes_alone_and_stands_in_no_line() {
    let (mut stage, key) = stage("pass");
    let own = Canary::anthropic();
    stage.upstream.knows(own.as_str());
    ask(&stage, own.as_str()).assert_status(200);
    stage.upstream.assert_carried(HOST, own.as_str());
    stage.upstream.assert_never_carried(key.as_str());
    stage.upstream.forget();
    for value in harmless(&stage) {
        ask(&stage, &value).assert_status(200);
    }
    stage.upstream.assert_carried(HOST, key.as_str());
    stage.stop();
    let lines = stage.home.access_log();
    assert_eq!(lines[0]["decision"], "forwarded", "{}", lines[0]);
    assert!(!stage.home.file("logs/access.jsonl").contains(own.as_str()));
}

#[test]
fn one_that_is_passed_on_in_a_path_stands_in_no_line() {
    let key = Canary::telegram();
    let stored = key.clone();
    let mut stage = Stage::with("pools: {telegram: {foreign: pass}}\ndefault: deny\n", move |upstream, home| {
        home.stock(upstream, "telegram:bot", &stored, &[]);
    });
    let own = Canary::telegram();
    stage.upstream.knows(own.as_str());
    stage.get("api.telegram.org", &format!("/bot{}/getMe", own.as_str())).assert_status(200);
    stage.stop();
    assert!(!stage.home.file("logs/access.jsonl").contains(own.as_str()));
}

#[test]
fn one_is_refused_where_the_operator_wants_that() {
    let (stage, key) = stage("refuse");
    ask(&stage, Canary::anthropic().as_str()).assert_refused(403, "policy_denied");
    assert!(stage.upstream.seen().is_empty());
    for value in harmless(&stage) {
        ask(&stage, &value).assert_status(200);
    }
    stage.upstream.assert_carried(HOST, key.as_str());
}

#[test]
fn run_says_once_that_one_was_replaced() {
    let Some(curl) = need("foreign", Tool::Curl) else { return };
    let (mut stage, key) = stage("replace");
    stage.stop();
    let own = Canary::anthropic();
    let home: &Home = &stage.home;
    let mut command = home.keyferry(&["run", "--", "sh", "-c"]);
    let field = format!("x-api-key: {}", own.as_str());
    command.arg(r#""$0" -sS -o /dev/null -H "$1" "$2" && "$0" -sS -o /dev/null -H "$1" "$2""#);
    command.arg(curl).arg(field).arg(format!("https://{HOST}/v1/models"));
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    let said = finished.stderr();
    assert_eq!(said.matches("command's own for anthropic was replaced").count(), 1, "{said}");
    stage.upstream.assert_carried(HOST, key.as_str());
}
