//! Byte-exact requests that a proxy must not pass on: each gets an answer of ours, with code, body and a line in the
//! log, and the provider sees none of them.

use super::{ACME, Stage, get};
use crate::harness::Wire;

/// What may stand where a request should: a name, and the bytes with `{host}` for the host's name.
fn heads() -> Vec<(&'static str, String)> {
    let plain = [
        // PX-12
        ("two lengths", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        (
            "the same length twice",
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        ),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5, 5\r\n\r\nhello"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: +5\r\n\r\nhello"),
        ("a negative length", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: -5\r\n\r\nhello"),
        ("a hexadecimal length", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0x5\r\n\r\nhello"),
        ("a length with an underscore", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0_5\r\n\r\nhello"),
        ("a length too large", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
        ("an empty length", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length:\r\n\r\nhello"),
        // PX-11
        (
            "length and chunks",
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks and length",
            "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        ),
        // PX-13
        (
            "a coding that looks like chunked",
            "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        ("chunked behind a comma", "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked before identity",
            "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        ("gzip before chunked", "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("a vertical tab", "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
        (
            "two codings",
            "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        ),
        // PX-17
        ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n"),
        ("a NUL in a value", "GET / HTTP/1.1\r\nHost: {host}\r\nX: a\0b\r\n\r\n"),
        ("a NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nHost: {host}\r\nX: a\r\n b\r\n\r\n"),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        // PX-18
        ("a space before the colon", "GET / HTTP/1.1\r\nHost: {host}\r\nX : a\r\n\r\n"),
        ("a tab before the colon", "GET / HTTP/1.1\r\nHost: {host}\r\nX\t: a\r\n\r\n"),
        ("no name", "GET / HTTP/1.1\r\nHost: {host}\r\n: a\r\n\r\n"),
        ("no colon", "GET / HTTP/1.1\r\nHost: {host}\r\nX\r\n\r\n"),
        ("a length with an underscore in its name", "POST / HTTP/1.1\r\nHost: {host}\r\nContent_Length: 5\r\n\r\n"),
        ("a key's name with an underscore", "GET / HTTP/1.1\r\nHost: {host}\r\nX_Api_Key: a\r\n\r\n"),
        ("a credential's name with one at its end", "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization_: a\r\n\r\n"),
        // PX-19
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        ("a list of Hosts", "GET / HTTP/1.1\r\nHost: {host}, other.example\r\n\r\n"),
        ("a user in Host", "GET / HTTP/1.1\r\nHost: user@{host}\r\n\r\n"),
        ("a path in Host", "GET / HTTP/1.1\r\nHost: {host}/x\r\n\r\n"),
        ("a NUL in Host", "GET / HTTP/1.1\r\nHost: {host}\0\r\n\r\n"),
        // PX-32
        ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // The request line.
        ("no version", "GET /\r\nHost: {host}\r\n\r\n"),
        ("another version", "GET / HTTP/3.0\r\nHost: {host}\r\n\r\n"),
        ("no method", " / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ("a method with a slash", "G/ET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        ("garbage", "\x16\x03\x01\x02\r\n\r\n"),
    ];
    plain.into_iter().map(|(name, text)| (name, text.replace("{host}", ACME))).collect()
}

fn refused(wire: &mut Wire, name: &str, bytes: &str) {
    wire.try_send(bytes.as_bytes()).unwrap();
    let answered = wire.rest_or_answer().unwrap_or_else(|| panic!("{name}: no answer"));
    assert!((400..=431).contains(&answered.status), "{name}: {answered:?}");
    let code = answered.value("x-keyferry-error").unwrap_or_else(|| panic!("{name}: {answered:?}")).to_owned();
    assert!(["bad_request", "method_not_allowed", "authority_mismatch"].contains(&&*code), "{name}: {answered:?}");
    answered.assert_refused(answered.status, &code);
}

#[test]
fn requests_that_could_be_read_in_two_ways_never_leave() {
    // PX-10, PX-11, PX-12, PX-13, PX-17, PX-18, PX-19, PX-32
    let mut stage = Stage::new();
    let all = heads();
    for (name, bytes) in &all {
        refused(&mut stage.open(ACME), name, bytes);
    }
    assert_eq!(stage.upstream.seen_at(ACME).len(), 0, "the provider saw one");
    stage.get(ACME, "/fine").assert_status(200);
    stage.stop();
    let lines = stage.home.access_log();
    let denied: Vec<_> = lines.iter().filter(|line| line["decision"] == "denied").collect();
    assert_eq!(denied.len(), all.len(), "each has its line");
    assert!(denied.iter().all(|line| line["agent"] == "coder" && line["host"] == ACME), "{denied:#?}");
}

#[test]
fn the_same_holds_on_the_proxy_port_itself() {
    // PX-10, PX-19
    let mut stage = Stage::new();
    let authorization = stage.authorization();
    let all = heads();
    for (name, bytes) in &all {
        // In absolute form, with credentials.
        let bytes = bytes.replacen(" / HTTP", &format!(" http://{ACME}/ HTTP"), 1);
        let bytes = bytes.replacen("\r\n", &format!("\r\n{authorization}"), 1);
        let mut wire = stage.wire();
        wire.try_send(bytes.as_bytes()).unwrap();
        let answered = wire.rest_or_answer().unwrap_or_else(|| panic!("{name}: no answer"));
        assert!((400..=431).contains(&answered.status), "{name}: {answered:?}");
        let code = answered.value("x-keyferry-error").unwrap_or_else(|| panic!("{name}: {answered:?}")).to_owned();
        answered.assert_refused(answered.status, &code);
    }
    assert_eq!(stage.upstream.seen_at(ACME).len(), 0, "the provider saw one");
    stage.stop();
    assert!(stage.home.access_log().len() >= all.len());
}

#[test]
fn what_follows_a_bad_request_on_its_connection_is_not_served() {
    // PX-11
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let bad = format!(
        "POST /bad HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    wire.try_send(format!("{}{bad}{}", get(ACME, "/first"), get(ACME, "/smuggled")).as_bytes()).unwrap();
    let first = wire.answer();
    first.assert_status(200);
    // Behind another request it is read in the one way that RFC 9112 section 6.3 names, and its connection ends.
    let second = wire.answer();
    assert!(second.status == 400 || second.value("connection") == Some("close"), "{second:?}");
    assert!(wire.is_closed());
    assert!(stage.upstream.seen_at(ACME).iter().all(|seen| seen.path() != "/smuggled"));
}

#[test]
fn heads_that_are_too_large_are_told_so() {
    // DO-05, PX-45's mirror on the agent's side
    let mut stage = Stage::new();
    let long = "x".repeat(100 * 1024);
    let many = "X: y\r\n".repeat(200);
    for fields in [format!("X: {long}\r\n"), many] {
        let mut wire = stage.open(ACME);
        let _ = wire.try_send(format!("GET / HTTP/1.1\r\nHost: {ACME}\r\n{fields}\r\n").as_bytes());
        let answered = wire.rest_or_answer().expect("an answer");
        answered.assert_refused(431, "head_too_large");
    }
    let mut wire = stage.open(ACME);
    let _ = wire.try_send(format!("GET /{long} HTTP/1.1\r\nHost: {ACME}\r\n\r\n").as_bytes());
    wire.rest_or_answer().expect("an answer").assert_refused(431, "head_too_large");
    stage.stop();
    assert_eq!(stage.home.access_log().iter().filter(|line| line["error"] == "head_too_large").count(), 3);
}

#[test]
fn chunks_that_do_not_read_end_the_exchange() {
    // PX-14
    let stage = Stage::new();
    for size in ["0x5", "+5", "-5", "0_5", "g", ""] {
        let mut wire = stage.open(ACME);
        let bytes = format!(
            "POST /chunks HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n"
        );
        wire.try_send(bytes.as_bytes()).unwrap();
        if let Some(answered) = wire.rest_or_answer() {
            assert!(answered.status >= 400, "{size:?}: {answered:?}");
        }
    }
    for seen in stage.upstream.seen_at(ACME) {
        assert_ne!(seen.body.len(), 5, "half a message was passed on as a whole: {}", seen.path());
    }
}
