//! What becomes of a running daemon's requests when a secret is changed.

use super::{ACME, CONFIG, Stage, get};
use crate::harness::{Canary, until};

#[test]
fn a_rotation_and_a_rollback_take_effect_at_once() {
    // VA-19: each request has exactly one version.
    let stage = Stage::new();
    let second = Canary::plain();
    let sent = |stage: &Stage| {
        stage.upstream.forget();
        stage.get(ACME, "/").assert_status(200);
        stage.upstream.only(ACME).value("authorization").unwrap().trim_start_matches("Bearer ").to_owned()
    };
    assert_eq!(sent(&stage), stage.acme.as_str());
    stage.home.stock(&stage.upstream, "acme:work", &second, &[]);
    // The daemon was told before the command ended.
    assert_eq!(sent(&stage), second.as_str());
    stage.home.command(&["secret", "rollback", "acme:work"]).assert_code(0);
    assert_eq!(sent(&stage), stage.acme.as_str());
}

#[test]
fn another_scope_and_other_hosts_take_effect_at_once() {
    let stage = Stage::new();
    stage.get(ACME, "/").assert_status(200);
    stage.home.command(&["secret", "set", "acme:work", "--host", "api.acme.example:8443"]).assert_code(0);
    assert_eq!(stage.open(ACME).ask(&get(ACME, "/")).status, 502, "sealed to another port now");
    stage.home.command(&["secret", "set", "acme:work", "--host", ACME]).assert_code(0);
    stage.get(ACME, "/").assert_status(200);
    stage.home.command(&["secret", "set", "acme:work", "--scope", "agent:somebody"]).assert_code(0);
    let refused = stage.connect(&format!("{ACME}:443"));
    assert_eq!(refused.status, 403, "out of scope it does not exist");
}

#[test]
fn a_deleted_secret_is_missed_by_those_who_were_promised_it_and_unknown_to_others() {
    let promised = format!("{CONFIG}agents:\n  coder: {{allow: [acme]}}\n");
    let stage = Stage::with(&promised, |_, _| {});
    stage.get(ACME, "/").assert_status(200);
    let other = stage.home.agent("other");
    stage.home.command(&["secret", "delete", "acme:work", "--yes"]).assert_code(0);
    until("the deletion", || {
        let answer = stage.get(ACME, "/");
        (answer.status == 502 && answer.value("x-keyferry-error") == Some("credentials_missing")).then_some(())
    });
    let mut wire = stage.wire();
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "other", &other).as_bytes());
    let head = wire.head_only();
    assert_eq!(head.status, 403);
    assert_eq!(head.value("x-keyferry-error"), Some("policy_denied"));
}
