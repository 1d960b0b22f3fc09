//! Requests: their framing, their fields, their targets and methods, inside a tunnel and in absolute form.

use super::{ACME, OTHER, Stage, get};
use crate::harness::Answered;

/// Sends bytes in a tunnel of their own; the answer, or nothing where the connection was closed.
fn inside(stage: &Stage, request: &str) -> Option<Answered> {
    let mut wire = stage.open(ACME);
    wire.send(request.as_bytes());
    let answered = wire.rest_or_answer();
    if let Some(answered) = &answered {
        assert!(answered.status >= 400, "{request:?} was answered with {}", answered.status);
    }
    answered
}

#[test]
fn refuses_ambiguous_framing() {
    // PX-11 to PX-13
    let stage = Stage::new();
    let head = format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\n");
    for framing in [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: 3, 3\r\n\r\nabc",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 0x3\r\n\r\nabc",
        "Content-Length:\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ] {
        inside(&stage, &format!("{head}{framing}"));
    }
    assert!(stage.upstream.seen().is_empty(), "{:#?}", stage.upstream.seen());
}

#[test]
fn a_length_beside_a_transfer_coding_counts_for_nothing() {
    // PX-11; RFC 9112 section 6.3: the coding overrides the length, which is not forwarded, and the connection ends.
    let stage = Stage::new();
    for framing in
        ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    {
        stage.upstream.forget();
        let mut wire = stage.open(ACME);
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: api.acme.example\r\n\r\n";
        let head = format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\n{framing}\r\n\r\n");
        wire.send(format!("{head}5\r\nhello\r\n0\r\n\r\n{smuggled}").as_bytes());
        let all = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
        for seen in stage.upstream.seen() {
            assert_eq!((seen.path(), seen.body.as_ref()), ("/echo/body", &b"hello"[..]));
            assert!(seen.value("content-length").is_none_or(|length| length == "5"), "{seen:#?}");
        }
    }
}

#[test]
fn refuses_malformed_hosts_and_fields() {
    // PX-17 to PX-19
    let stage = Stage::new();
    for head in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nHost: {ACME}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nHost: {OTHER}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}, {OTHER}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: user@{ACME}\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Test : 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\n: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Test\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Test: a\0b\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Test: a\r\n folded\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Test: a\rb\r\n\r\n"),
        format!("GET  / HTTP/1.1\r\nHost: {ACME}\r\n\r\n"),
        format!("GET /\0 HTTP/1.1\r\nHost: {ACME}\r\n\r\n"),
    ] {
        inside(&stage, &head);
    }
    assert!(stage.upstream.seen().is_empty(), "{:#?}", stage.upstream.seen());
}

#[test]
fn refuses_methods_that_would_show_the_request() {
    // PX-23: TRACE answers with what it was sent.
    let stage = Stage::new();
    for method in ["TRACE", "TRACK", "DEBUG"] {
        let answered = inside(&stage, &format!("{method} / HTTP/1.1\r\nHost: {ACME}\r\n\r\n"));
        answered.expect("an answer").assert_refused(501, "method_not_allowed");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn serves_the_absolute_form_for_https_as_a_tunnel_would() {
    // PX-08: older axios never sends CONNECT.
    let stage = Stage::new();
    let authorization = stage.authorization();
    let ask = |head: &str| stage.wire().ask(&format!("{head}{authorization}\r\n"));
    ask(&format!("GET https://{ACME}/echo/fields HTTP/1.1\r\nHost: {ACME}\r\n")).assert_status(200);
    let seen = stage.upstream.only(ACME);
    assert!(seen.tls);
    assert_eq!(seen.target, "/echo/fields");
    assert!(seen.values("proxy-authorization").is_empty());
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    let refused = ask("GET https://nowhere.example/ HTTP/1.1\r\nHost: nowhere.example\r\n");
    refused.assert_refused(403, "policy_denied");
    let unnamed = stage.wire().ask(&format!("GET https://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\n\r\n"));
    unnamed.assert_refused(407, "agent_unauthenticated");
}

#[test]
fn an_absolute_target_and_another_host_field_do_not_agree() {
    // PX-09; RFC 9112 section 3.2.2.
    let stage = Stage::new();
    let authorization = stage.authorization();
    let request = format!("GET https://{ACME}/ HTTP/1.1\r\nHost: {OTHER}\r\n{authorization}\r\n");
    let answered = stage.wire().ask(&request);
    assert!(matches!(answered.status, 400 | 421), "{answered:?}");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn a_credential_is_never_sent_in_cleartext() {
    // PX-07
    let stage = Stage::new();
    let authorization = stage.authorization();
    let request = format!("GET http://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\n{authorization}\r\n");
    stage.wire().ask(&request).assert_refused(403, "cleartext_refused");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn plain_http_works_for_hosts_without_a_credential() {
    let stage = Stage::new();
    let authorization = stage.authorization();
    let mut wire = stage.wire();
    for _ in 0..2 {
        let request = format!(
            "GET http://plain.example/echo/fields?a=1 HTTP/1.1\r\nHost: plain.example\r\n{authorization}X-Mark: 1\r\n\r\n"
        );
        wire.ask(&request).assert_status(200);
    }
    for seen in stage.upstream.seen_at("plain.example") {
        assert!(!seen.tls);
        assert_eq!(seen.target, "/echo/fields?a=1");
        assert_eq!(seen.value("x-mark").as_deref(), Some("1"));
        assert!(seen.values("proxy-authorization").is_empty());
    }
    assert_eq!(stage.upstream.seen_at("plain.example").len(), 2);
}

#[test]
fn an_origin_form_request_at_the_proxy_is_refused() {
    let stage = Stage::new();
    let authorization = stage.authorization();
    let answered = stage.wire().ask(&format!("GET / HTTP/1.1\r\nHost: {ACME}\r\n{authorization}\r\n"));
    assert!(matches!(answered.status, 400 | 403 | 421), "{answered:?}");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn pipelined_requests_are_answered_in_order_and_judged_one_by_one() {
    // PX-27
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let all: String = (0..20).map(|number| get(ACME, &format!("/n/{number}"))).collect();
    wire.send(all.as_bytes());
    for number in 0..20 {
        let answered = wire.answer();
        answered.assert_status(200);
        assert!(answered.text().contains(&format!("/n/{number} ")), "{}", answered.text());
    }
    let paths: Vec<String> = stage.upstream.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, (0..20).map(|number| format!("/n/{number}")).collect::<Vec<_>>());
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let stage = Stage::new();
    let large = "x".repeat(200 * 1024);
    let answered = inside(&stage, &format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nX-Large: {large}\r\n\r\n"));
    if let Some(answered) = answered {
        assert_eq!(answered.status, 431);
    }
    assert!(stage.upstream.seen().is_empty());
}
