//! HTTP/2 from an agent, frame by frame: what RFC 9113 forbids ends the stream or the connection, and nothing of it
//! reaches a provider.

use super::{ACME, Stage};
use crate::harness::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, parse,
};
use crate::harness::{HTTP1, HTTP2, Wire};

fn open(stage: &Stage) -> Wire {
    let mut wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, HTTP2).unwrap();
    wire.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
    wire
}

fn request(more: &[(&str, &[u8])]) -> Vec<u8> {
    let usual: &[(&str, &[u8])] =
        &[(":method", b"GET"), (":scheme", b"https"), (":authority", ACME.as_bytes()), (":path", b"/never")];
    block(&[usual, more].concat())
}

fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

/// How the peer took it: the status of a stream, its reset, or the end of the connection.
#[derive(Debug, PartialEq, Eq)]
enum Took {
    Answered(u16),
    Reset(u32),
    Ended(Option<u32>),
}

/// Sends `bytes` and reads until the peer has taken them in one way.
fn took(wire: &mut Wire, bytes: &[u8]) -> Took {
    let _ = wire.try_send(bytes);
    loop {
        for one in &parse(wire.seen()) {
            let number = |at: usize| u32::from_be_bytes(one.payload[at..at + 4].try_into().unwrap());
            match one.kind {
                GOAWAY if number(4) != 0 => return Took::Ended(Some(number(4))),
                RST_STREAM => return Took::Reset(number(0)),
                HEADERS => return Took::Answered(status(&one.payload)),
                _ => {}
            }
        }
        if !wire.more() {
            return Took::Ended(None);
        }
    }
}

/// The indexed or literal `:status` at the beginning of a field block.
fn status(block: &[u8]) -> u16 {
    match block.first() {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        // A literal with the name of entry 8; three digits, plain or in Huffman's form.
        Some(_) => 1,
        None => 0,
    }
}

#[test]
fn frames_that_must_not_be_end_the_connection() {
    // PX-28, RFC 9113 sections 4 to 6
    let stage = Stage::new();
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x")),
        ("HEADERS on stream 0", headers(0, &request(&[]))),
        ("HEADERS on an even stream", headers(2, &request(&[]))),
        ("HEADERS with more padding than payload", frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[200, 1, 2])),
        ("a field block that does not read", headers(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("an index beyond the table", headers(1, &[0xfe])),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("RST_STREAM of another length", [headers(1, &request(&[])), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat()),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0, 0, 0, 8])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of another length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &setting(4, 1))),
        ("ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &setting(2, 2))),
        ("a window beyond its limit", frame(SETTINGS, 0, 0, &setting(4, 1 << 31))),
        ("a frame size below its limit", frame(SETTINGS, 0, 0, &setting(5, 100))),
        ("PUSH_PROMISE from a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("PING of another length", frame(PING, 0, 0, &[0; 7])),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("WINDOW_UPDATE of another length", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
        ("WINDOW_UPDATE of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &request(&[]))),
        (
            "another frame inside a field block",
            [frame(HEADERS, END_STREAM, 1, &request(&[])), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])].concat(),
        ),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, END_STREAM, 1, &request(&[])), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
        ),
        ("a frame beyond the size", frame(DATA, 0, 1, &vec![0; 20_000])),
    ];
    // What is allowed ends nothing, so that the rest proves something.
    let good = [frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]), headers(1, &request(&[]))].concat();
    assert_eq!(took(&mut open(&stage), &good), Took::Answered(200));
    for (name, bytes) in &cases {
        let took = took(&mut open(&stage), bytes);
        assert!(matches!(took, Took::Ended(_) | Took::Reset(_)), "{name}: {took:?}");
    }
    stage.get(ACME, "/fine").assert_status(200);
}

#[test]
fn requests_that_must_not_be_go_nowhere() {
    // PX-28, RFC 9113 section 8
    let stage = Stage::new();
    let with = |fields: &[(&str, &[u8])]| headers(1, &block(fields));
    let (method, scheme, path) = ((":method", &b"GET"[..]), (":scheme", &b"https"[..]), (":path", &b"/never"[..]));
    let authority = (":authority", ACME.as_bytes());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a name in capitals", headers(1, &request(&[("X-Up", b"1")]))),
        ("a name with a space", headers(1, &request(&[("x y", b"1")]))),
        ("a name with a colon", headers(1, &request(&[("x:y", b"1")]))),
        ("an empty name", headers(1, &request(&[("", b"1")]))),
        ("a line break in a value", headers(1, &request(&[("x", b"a\r\nhost: b")]))),
        ("a line feed in a value", headers(1, &request(&[("x", b"a\nb")]))),
        ("a NUL in a value", headers(1, &request(&[("x", b"a\0b")]))),
        ("no method", with(&[scheme, authority, path])),
        ("no scheme", with(&[method, authority, path])),
        ("no path", with(&[method, scheme, authority])),
        ("an empty path", with(&[method, scheme, authority, (":path", b"")])),
        ("a path without a slash", with(&[method, scheme, authority, (":path", b"never")])),
        ("a path with a space", with(&[method, scheme, authority, (":path", b"/ne ver")])),
        ("an absolute path", with(&[method, scheme, authority, (":path", b"https://api.other.example/never")])),
        ("two paths", with(&[method, scheme, authority, path, path])),
        ("two methods", with(&[method, method, scheme, authority, path])),
        ("a pseudo-field behind a field", with(&[method, scheme, path, ("x", b"1"), authority])),
        ("a pseudo-field that is none", with(&[method, scheme, authority, path, (":other", b"1")])),
        ("a status in a request", with(&[method, scheme, authority, path, (":status", b"200")])),
        ("Connection", headers(1, &request(&[("connection", b"keep-alive")]))),
        ("Transfer-Encoding", headers(1, &request(&[("transfer-encoding", b"chunked")]))),
        ("Upgrade", headers(1, &request(&[("upgrade", b"h2c")]))),
        ("TE other than trailers", headers(1, &request(&[("te", b"gzip")]))),
        ("no authority", with(&[method, scheme, path])),
        ("another authority", with(&[method, scheme, (":authority", b"api.other.example"), path])),
        ("a user in the authority", with(&[method, scheme, (":authority", b"u@api.acme.example"), path])),
        ("authority and host that differ", headers(1, &request(&[("host", b"api.other.example")]))),
        ("CONNECT", with(&[(":method", b"CONNECT"), authority])),
        ("TRACE", with(&[(":method", b"TRACE"), scheme, authority, path])),
        ("a length without a body", headers(1, &request(&[("content-length", b"5")]))),
        (
            "a length that is not the body's",
            [
                frame(HEADERS, END_HEADERS, 1, &request(&[("content-length", b"5")])),
                frame(DATA, END_STREAM, 1, b"hello, world"),
            ]
            .concat(),
        ),
        ("two lengths", headers(1, &request(&[("content-length", b"0"), ("content-length", b"5")]))),
    ];
    // What is right is answered, so that the rest proves something.
    let good = with(&[method, scheme, authority, (":path", b"/plain")]);
    assert_eq!(took(&mut open(&stage), &good), Took::Answered(200));
    for (name, bytes) in &cases {
        let took = took(&mut open(&stage), bytes);
        assert!(!matches!(took, Took::Answered(200 | 204)), "{name}: {took:?}");
    }
    let seen = stage.upstream.seen();
    let whole = seen.iter().filter(|seen| seen.path() == "/never").count();
    assert_eq!(whole, 0, "{seen:#?}");
    stage.get(ACME, "/fine").assert_status(200);
}

#[test]
fn floods_end_their_connection_and_hurt_nobody_else() {
    // DO-06, DO-07, DO-08
    let stage = Stage::new();
    let empty: Vec<u8> = request(&[]);
    let rapid = |n: u32| [headers(2 * n + 1, &empty), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    // A stream that we make the peer reset: a window update of nothing.
    let made =
        |n: u32| [frame(HEADERS, END_HEADERS, 2 * n + 1, &empty), frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])].concat();
    let continued = |n: u32| match n {
        0 => frame(HEADERS, END_STREAM, 1, &empty),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x-more", &[b'x'; 500])])),
    };
    type Flood<'f> = (&'static str, &'f dyn Fn(u32) -> Vec<u8>);
    let floods: [Flood<'_>; 3] =
        [("reset streams", &rapid), ("streams that we must reset", &made), ("continuations", &continued)];
    for (name, flood) in floods {
        let before = stage.upstream.seen_at(ACME).len();
        let mut wire = open(&stage);
        let mut ended = false;
        for batch in 0..100_u32 {
            let bytes: Vec<u8> = (0..100).flat_map(|n| flood(batch * 100 + n)).collect();
            if wire.try_send(&bytes).is_err() {
                ended = true;
                break;
            }
        }
        // It may have been told to go while it was still sending.
        while !ended {
            let gone = parse(wire.seen()).iter().any(|one| one.kind == GOAWAY);
            ended = gone || !wire.more();
        }
        let reached = stage.upstream.seen_at(ACME).len() - before;
        assert!(reached <= 300, "{name}: {reached} requests of 10,000 reached the provider");
        stage.get(ACME, "/fine").assert_status(200);
    }
}

#[test]
fn the_protocol_is_what_was_agreed_upon() {
    // TL-37
    let stage = Stage::new();
    let tls = |offers: &[&[u8]]| stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, offers);
    let text = format!("GET /never HTTP/1.1\r\nHost: {ACME}\r\n\r\n");
    // HTTP/1.1 where HTTP/2 was agreed upon, and the reverse.
    let mut wire = tls(HTTP2).unwrap();
    wire.try_send(text.as_bytes()).unwrap();
    assert!(!String::from_utf8_lossy(&wire.rest()).contains("200"));
    let mut wire = tls(HTTP1).unwrap();
    wire.try_send(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers(1, &request(&[]))].concat()).unwrap();
    assert!(parse(&wire.rest()).iter().all(|one| one.kind != HEADERS || one.stream != 1));
    // Nothing offered is HTTP/1.1; something else alone is refused.
    tls(&[]).unwrap().ask(&text.replace("/never", "/plain")).assert_status(200);
    assert!(tls(&[b"h3"]).is_err() || stage.upstream.seen_at(ACME).iter().all(|seen| seen.path() != "/never"));
    assert!(stage.upstream.seen_at(ACME).iter().all(|seen| seen.path() != "/never"));
}
