//! Upstream verification: without it nothing is opened and nothing is sent.

use super::{ACME, Stage, get};
use crate::upstream::{Answer, Defect, Leaf, Rule};

fn unopened(stage: &Stage) {
    assert!(stage.upstream.seen().is_empty(), "{:#?}", stage.upstream.seen());
    let (_, metrics) = stage.daemon.admin_get("/metrics");
    let opened = metrics.lines().filter(|line| line.starts_with("keyferry_vault_decryptions_total"));
    for line in opened {
        assert!(line.ends_with(" 0"), "a secret was opened: {line}");
    }
}

#[test]
fn a_certificate_that_does_not_verify_gets_nothing() {
    // TL-01 to TL-05
    for leaf in [Leaf::Expired, Leaf::NotYetValid, Leaf::WrongHost, Leaf::UnknownRoot, Leaf::SelfSigned] {
        let stage = Stage::new();
        stage.upstream.defect(ACME, Defect::Certificate(leaf));
        let answered = stage.get(ACME, "/");
        answered.assert_refused(502, "upstream_tls_failed");
        assert_eq!(answered.value("x-should-retry"), Some("false"));
        unopened(&stage);
    }
}

#[test]
fn a_server_without_tls_gets_nothing() {
    for defect in [Defect::PlainText, Defect::Closes] {
        let stage = Stage::new();
        stage.upstream.defect(ACME, defect);
        let answered = stage.get(ACME, "/");
        assert_eq!(answered.status, 502, "{answered:?}");
        unopened(&stage);
    }
}

#[test]
fn a_stalled_handshake_ends_in_time() {
    // TL-20: the limit is ten seconds, or the configured one.
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::StallsInHandshake);
    let answered = stage.get(ACME, "/");
    assert!(matches!(answered.status, 502 | 504), "{answered:?}");
    unopened(&stage);
}

#[test]
fn an_upstream_that_is_not_there_is_said() {
    let config = super::CONFIG;
    let upstream = crate::upstream::TestUpstream::start();
    let home = crate::harness::Home::empty();
    std::fs::copy(upstream.root_file(), home.path().join("provider-root.pem")).unwrap();
    // A port that was free a moment ago and that nothing listens on.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let section =
        format!("upstream:\n  extra_roots: [provider-root.pem]\n  resolve: {{\"{ACME}:443\": \"{closed}\"}}\n");
    home.write_config(&format!("{}{section}{config}", crate::harness::LISTEN));
    home.set("acme:work", &crate::harness::Canary::plain(), &[]);
    let token = home.agent("coder");
    let daemon = home.serve();
    let wire = crate::harness::Wire::connect(&home, daemon.proxy);
    let mut wire = wire;
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "coder", &token).as_bytes());
    let head = wire.head_only();
    if head.status == 200 {
        let ca = home.path().join("ca/ca.pem");
        let mut wire = wire.tls(&ca, ACME, crate::harness::HTTP1).unwrap();
        wire.ask(&get(ACME, "/")).assert_refused(502, "upstream_unreachable");
    } else {
        assert_eq!(head.status, 502, "{head:?}");
    }
}

#[test]
fn a_reset_before_the_answer_is_said() {
    // FA-01
    let stage = Stage::new();
    stage.upstream.script(Rule::always(Answer::Reset).path("/reset"));
    let mut wire = stage.open(ACME);
    let request = format!("POST /reset HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 2\r\n\r\nhi");
    let answered = wire.ask(&request);
    assert_eq!(answered.status, 502, "{answered:?}");
    assert_eq!(stage.upstream.seen_at(ACME).len(), 1, "what may have been processed is not sent twice");
}

#[test]
fn an_answer_that_is_no_http_is_said() {
    // PX-47
    let stage = Stage::new();
    for raw in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 099 Odd\r\n\r\n", "HTTP/1.1 200 OK\r\nX-Test : 1\r\n\r\n"] {
        stage.upstream.defect(ACME, Defect::Raw(raw.into()));
        let answered = stage.get(ACME, "/");
        assert_eq!(answered.status, 502, "{raw}: {answered:?}");
    }
}

#[test]
fn conflicting_framing_of_an_answer_never_reaches_the_agent() {
    // PX-40
    let stage = Stage::new();
    for raw in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\nhello",
    ] {
        stage.upstream.defect(ACME, Defect::Raw(raw.into()));
        let answered = stage.get(ACME, "/");
        let lengths = answered.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).count();
        let codings = answered.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")).count();
        assert!(lengths + codings <= 1, "{raw}: {answered:?}");
    }
}

#[test]
fn a_secret_in_a_reason_phrase_is_not_passed_on() {
    // PX-44, EX-03
    let stage = Stage::new();
    let raw = format!("HTTP/1.1 200 {}\r\ncontent-length: 0\r\n\r\n", stage.acme.as_str());
    stage.upstream.defect(ACME, Defect::Raw(raw.into()));
    let answered = stage.get(ACME, "/");
    answered.assert_status(200);
    assert_eq!(answered.reason, "OK");
}

#[test]
fn a_slow_answer_has_a_limit() {
    // FA-04: the configured response time of the harness is 20 s.
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::StallsAfterHead);
    let answered = stage.get(ACME, "/");
    answered.assert_refused(504, "upstream_timeout");
}
