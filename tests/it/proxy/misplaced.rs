//! Placeholders outside of their slot: nothing of a request goes to a host that a placeholder in it is not for.

use super::{ACME, CONFIG, Stage};
use crate::harness::{Answered, Canary, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const CODE: &str = "placeholder_misdirected";

fn placeholders(stage: &Stage, agent: &str) -> (String, String) {
    let exported = stage.home.command(&["env", "--agent", agent, "--format", "json"]).json();
    let text = |name: &str| exported[name].as_str().unwrap_or_else(|| panic!("no {name}: {exported}")).to_owned();
    (text("ACME_API_KEY"), text("OTHER_API_KEY"))
}

fn with_field(stage: &Stage, host: &str, field: &str) -> Answered {
    stage.open(host).ask(&format!("GET /v1/things HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n"))
}

fn post(stage: &Stage, host: &str, body: &str) -> Answered {
    let head = format!("POST /upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
    stage.open(host).ask(&format!("{head}{body}"))
}

#[test]
fn a_foreign_placeholder_in_a_head_is_refused_before_anything_is_sent() {
    // EX-16
    let mut stage = Stage::new();
    let (_, foreign) = placeholders(&stage, "coder");
    let basic = STANDARD.encode(format!("user:{foreign}"));
    for field in [
        format!("Authorization: Bearer {foreign}"),
        format!("Authorization: Basic {basic}"),
        format!("X-Other-Key: {foreign}"),
        format!("X-Note: see {foreign}."),
        format!("Cookie: a={foreign}"),
    ] {
        with_field(&stage, ACME, &field).assert_refused(403, CODE);
    }
    let escaped: String = foreign.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for path in [format!("/v1/{foreign}"), format!("/v1?key={foreign}"), format!("/v1?key={escaped}")] {
        stage.get(ACME, &path).assert_refused(403, CODE);
    }
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
    stage.stop();
    let audit = stage.home.audit_log();
    let refused = audit.iter().filter(|line| line["code"] == CODE);
    assert_eq!(refused.count(), 8, "one line each: {audit:#?}");
    assert!(audit.iter().all(|line| line["event"] != "use"), "no credential was used: {audit:#?}");
    for line in stage.home.access_log().iter().filter(|line| line["method"] == "GET") {
        assert_eq!((&line["error"], &line["decision"]), (&CODE.into(), &"denied".into()), "{line}");
    }
}

#[test]
fn a_foreign_placeholder_in_a_body_is_refused_before_anything_is_sent() {
    // EX-14, EX-16
    let mut stage = Stage::new();
    let (_, foreign) = placeholders(&stage, "coder");
    post(&stage, ACME, &format!("{{\"token\": \"{foreign}\"}}")).assert_refused(403, CODE);
    // Wherever it stands in a body that takes several reads.
    let long = format!("{}{foreign}{}", "x".repeat(200_000), "y".repeat(200_000));
    post(&stage, ACME, &long).assert_refused(403, CODE);
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
    stage.stop();
    assert!(stage.home.audit_log().iter().any(|line| line["code"] == CODE));
}

#[test]
fn a_streamed_body_is_cut_off_before_a_foreign_placeholder_is_complete() {
    // EX-16
    let mut stage = Stage::new();
    let (_, foreign) = placeholders(&stage, "coder");
    for cut in [1, 3, 8, 12, 17, 24, 30] {
        let (head, tail) = foreign.split_at(cut);
        let mut wire = stage.open(ACME);
        wire.send(format!("POST /upload HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
        for piece in ["before ", head, tail, " after"] {
            // The agent may be answered and cut off before it has sent everything.
            let _ = wire.try_send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        }
        let _ = wire.try_send(b"0\r\n\r\n");
        wire.answer().assert_refused(403, CODE);
    }
    for seen in stage.upstream.seen() {
        assert!(!seen.body.windows(foreign.len()).any(|window| window == foreign.as_bytes()), "{seen:?}");
    }
    assert!(stage.upstream.seen().is_empty(), "no body arrived whole: {:?}", stage.upstream.seen());
    stage.stop();
    assert_eq!(stage.home.audit_log().iter().filter(|line| line["code"] == CODE).count(), 7);
}

#[test]
fn a_placeholder_at_a_host_without_a_credential_is_refused() {
    // EX-16
    // github.com has pages that no credential of it is for.
    let key = Canary::github();
    let stage = Stage::with(CONFIG, |upstream, home| home.stock(upstream, "github:work", &key, &[]));
    let (own, _) = placeholders(&stage, "coder");
    let host = "github.com";
    with_field(&stage, host, &format!("Authorization: Bearer {own}")).assert_refused(403, CODE);
    post(&stage, host, &own).assert_refused(403, CODE);
    let mut wire = stage.wire();
    let authorization = stage.authorization();
    let request = format!("GET http://plain.example/?{own} HTTP/1.1\r\nHost: plain.example\r\n{authorization}\r\n");
    wire.ask(&request).assert_refused(403, CODE);
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}

#[test]
fn at_its_own_host_it_is_replaced_in_its_slot_and_is_only_text_elsewhere() {
    // EX-14
    let stage = Stage::new();
    let (own, _) = placeholders(&stage, "coder");
    let head = format!("POST /echo/body?note={own} HTTP/1.1\r\nHost: {ACME}\r\nAuthorization: Bearer {own}\r\n");
    let request = format!("{head}X-Note: {own}\r\nContent-Length: {}\r\n\r\n{own}", own.len());
    let answered = stage.open(ACME).ask(&request);
    answered.assert_status(200);
    assert_eq!(answered.text(), own);
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", stage.acme.as_str())));
    assert_eq!(seen.value("x-note"), Some(own.clone()));
    assert_eq!(seen.query("note"), Some(own));
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn another_agents_placeholder_in_the_slot_is_replaced_by_what_the_sender_may_use() {
    // EX-16: it names nobody's credential but the sender's own.
    let stage = Stage::new();
    stage.home.agent("intruder");
    let (others, elsewhere) = placeholders(&stage, "intruder");
    with_field(&stage, ACME, &format!("Authorization: Bearer {others}")).assert_status(200);
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", stage.acme.as_str())));
    // Outside of the slot it is no less foreign than the sender's own would be.
    with_field(&stage, ACME, &format!("X-Note: {elsewhere}")).assert_refused(403, CODE);
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[test]
fn a_placeholder_whose_credential_is_gone_still_marks_its_slot_and_goes_nowhere_else() {
    let stage = Stage::new();
    let (_, gone) = placeholders(&stage, "coder");
    stage.home.command(&["secret", "delete", "other:work", "--yes"]).assert_code(0);
    stage.daemon.signal(rustix::process::Signal::HUP);
    let field = format!("Authorization: Bearer {gone}");
    until("the credential is gone", || (with_field(&stage, ACME, &field).status == 200).then_some(()));
    with_field(&stage, ACME, &format!("X-Note: {gone}")).assert_refused(403, CODE);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn text_that_only_speaks_of_keyferry_passes() {
    let stage = Stage::new();
    let body =
        "keyferry carries the keys; keyferry-abcdefghijklmnop is no placeholder, nor is KEYFERRYABCDEFGHIJKLMNOP";
    let answered = stage.open(ACME).ask(&format!(
        "POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\nX-Note: {body}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    answered.assert_status(200);
    assert_eq!(answered.text(), body);
}
