//! `mode: observe`, and what a running daemon says to `why`.

use super::{ACME, CONFIG, Stage};
use crate::harness::until;

#[test]
fn what_would_be_refused_goes_on_and_is_noted() {
    let config = format!("{CONFIG}mode: observe\nagents: {{coder: {{allow: [{{provider: acme, methods: [GET]}}]}}}}\n");
    let mut stage = Stage::with(&config, |_, _| {});
    let posted = format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 2\r\n\r\nhi");
    stage.open(ACME).ask(&posted).assert_status(200);
    stage.get(ACME, "/plain").assert_status(200);
    let status = stage.home.command(&["status", "--json"]).json();
    assert_eq!(status["mode"], "observe", "{status}");
    let answer = stage.home.command(&["why", "coder", "POST", &format!("https://{ACME}/x"), "--json"]).json();
    assert_eq!((&answer["decision"], &answer["would_deny"]), (&"injected".into(), &true.into()), "{answer}");
    let counted = "keyferry_would_deny_total{agent=\"coder\"} 1";
    until("the count", || stage.daemon.admin_get("/metrics").1.lines().any(|line| line == counted).then_some(()));
    stage.stop();
    let lines = stage.home.access_log();
    let line = |method: &str| lines.iter().find(|line| line["method"] == method).unwrap();
    assert_eq!(line("POST")["would_deny"], true, "{lines:#?}");
    assert_eq!(line("POST")["decision"], "injected");
    let rule = line("POST")["rule"].as_str().unwrap();
    assert!(rule.starts_with("agents.coder.allow (") && rule.contains("keyferry.yaml:"), "{rule}");
    assert_eq!(line("GET").get("would_deny"), None);
}

#[test]
fn a_running_daemon_names_the_profile_that_comes_next() {
    let stage = Stage::new();
    let url = format!("https://{ACME}/v1?key=x");
    let ask = || stage.home.command(&["why", "coder", "GET", &url, "--json"]).json();
    let answer = ask();
    assert_eq!((&answer["profile"], &answer["live"]), (&"acme:work".into(), &true.into()), "{answer}");
    assert!(answer["inject"].as_str().unwrap().to_ascii_lowercase().starts_with("authorization: bearer "), "{answer}");
    stage.home.command(&["profile", "disable", "acme:work"]).assert_code(0);
    let answer = ask();
    assert!(answer["reason"].as_str().unwrap().contains("disabled"), "{answer}");
    assert_eq!(answer["code"], "profiles_cooling", "{answer}");
}
