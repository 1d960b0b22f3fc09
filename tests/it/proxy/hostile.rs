//! HTTP/1.1 upstreams that misbehave: what they send is refused or passed on in one framing of our own, and nothing
//! of it reaches another exchange.

use std::time::{Duration, Instant};

use super::{ACME, Stage, get};
use crate::harness::{Answered, H2, Wire};
use crate::upstream::play::Scene;
use crate::upstream::{Defect, Play, runtime};

/// One answer to every request on a connection, as raw bytes; what stands behind it is sent with it.
fn answers(bytes: &str) -> Defect {
    let bytes = bytes.to_owned();
    Defect::Plays(Play::http1(move |mut scene: Scene| {
        let bytes = bytes.clone();
        async move { while !scene.head().await.is_empty() && scene.send(&bytes).await {} }
    }))
}

/// One answer, and the end of the connection.
fn once(bytes: impl Into<String>) -> Defect {
    Defect::Raw(bytes.into().into())
}

/// The answer through HTTP/1.1, or nothing where the connection ended before one, and the status and end through HTTP/2.
fn both(stage: &Stage, request: &str) -> (Answered, u16, Vec<u8>, bool) {
    let mut wire = stage.open(ACME);
    wire.send(request.as_bytes());
    let over1 = answer_or_end(&mut wire, request.starts_with("HEAD"));
    let (method, path) = (request.split(' ').next().unwrap(), request.split(' ').nth(1).unwrap());
    let (status, bytes, broken) = runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let request = h2.request(method.parse().unwrap(), path).body(crate::harness::whole("")).unwrap();
        let Ok(reply) = h2.send(request).await else { return (502, Vec::new(), true) };
        let status = reply.status();
        let ended = reply.end().await;
        (status, ended.bytes, ended.broken.is_some())
    });
    (over1, status, bytes, broken)
}

/// The next answer. A connection that ends before its head is as broken as one that ends in its body.
pub fn answer_or_end(wire: &mut Wire, head: bool) -> Answered {
    if head {
        return wire.head_only();
    }
    let broken = Answered { status: 0, reason: String::new(), fields: Vec::new(), body: Vec::new(), complete: false };
    wire.rest_or_answer().unwrap_or(broken)
}

#[test]
fn bodies_that_must_not_be_are_dropped_with_their_connection() {
    // PX-26
    let stage = Stage::new();
    for (request, status, answer) in [
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nPOISON"),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nPOISON"),
    ] {
        stage.upstream.forget();
        stage.upstream.defect(ACME, answers(answer));
        let request = format!("{request} /a HTTP/1.1\r\nHost: {ACME}\r\n\r\n");
        let mut wire = stage.open(ACME);
        for _ in 0..2 {
            wire.send(request.as_bytes());
            wire.head_only().assert_status(status);
        }
        let (_, over2, bytes, broken) = both(&stage, &request);
        assert_eq!((over2, bytes, broken), (status, Vec::new(), false), "{request}");
        assert_eq!(stage.upstream.connections_for(ACME).len(), 4, "each connection was used once");
    }
}

#[test]
fn framing_that_can_be_read_in_two_ways_is_refused_or_made_one() {
    // PX-40
    let stage = Stage::new();
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5, 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
    ] {
        let body = if framing.contains("hunked") { "5\r\nhello\r\n0\r\n\r\n" } else { "hello" };
        stage.upstream.defect(ACME, Defect::Raw(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}").into()));
        let (over1, over2, bytes, broken) = both(&stage, &get(ACME, "/"));
        for (status, body) in [(over1.status, over1.body.clone()), (over2, bytes)] {
            assert!(matches!(status, 0 | 200 | 502), "{framing:?}: {status}");
            // Whatever is delivered is what the wire held, in one reading, and never half of it as a whole.
            let whole = body == b"hello" || body == b"5\r\nhello\r\n0\r\n\r\n";
            assert!(
                status == 502 || whole || broken || !over1.complete,
                "{framing:?}: {:?}",
                String::from_utf8_lossy(&body)
            );
        }
        let framings = over1.fields.iter().filter(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        assert!(framings.count() <= 1, "{framing:?}: {over1:?}");
    }
}

#[test]
fn bytes_behind_an_answer_reach_nobody() {
    // PX-41
    let stage = Stage::new();
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";
    for answer in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{poison}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{poison}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood\r\n\r\n".to_owned(),
    ] {
        stage.upstream.defect(ACME, answers(&answer));
        let mut wire = stage.open(ACME);
        for _ in 0..5 {
            let answered = wire.ask(&get(ACME, "/"));
            assert_eq!((answered.status, answered.text().as_str()), (200, "good"), "{answer:?}");
        }
    }
}

#[test]
fn interim_answers_are_few_and_stay_here() {
    // PX-42
    let stage = Stage::new();
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </?k=POISON>\r\n\r\n";
    stage.upstream.defect(ACME, once(format!("{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", hint.repeat(8))));
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/").as_bytes());
    let head = wire.head_only();
    head.assert_status(200);
    assert_eq!(wire.body_of(head).text(), "good");
    for count in [17, 100_000] {
        stage
            .upstream
            .defect(ACME, once(format!("{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", hint.repeat(count))));
        let answered = stage.get(ACME, "/");
        assert!(count == 17 || answered.status == 502, "{count}: {answered:?}");
    }
    // Without end, slowly enough that no buffer is ever full of them.
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(async |mut scene: Scene| {
            scene.head().await;
            while scene.send("HTTP/1.1 100 Continue\r\n\r\n").await {
                tokio::task::yield_now().await;
            }
        })),
    );
    let begun = Instant::now();
    stage.get(ACME, "/").assert_refused(502, "upstream_protocol_error");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn the_reason_is_our_own() {
    // PX-44, EX-03
    let stage = Stage::new();
    let secret = stage.acme.as_str().to_owned();
    for reason in [secret.as_str(), "OK\rSet-Cookie: a=b", "\u{e9}\u{e9}", ""] {
        stage.upstream.defect(ACME, once(format!("HTTP/1.1 200 {reason}\r\nContent-Length: 2\r\n\r\nok")));
        let answered = stage.get(ACME, "/");
        assert!(answered.status == 502 || answered.reason == "OK", "{answered:?}");
        assert_eq!(answered.value("set-cookie"), None);
    }
}

#[test]
fn heads_that_are_too_much_or_no_heads_are_refused() {
    // PX-45, PX-47
    let stage = Stage::new();
    let many: String = (0..250).map(|n| format!("X-{n}: 1\r\n")).collect();
    let line = |text: &str| format!("HTTP/1.1 200 OK\r\n{text}\r\nContent-Length: 2\r\n\r\nok");
    for (name, answer) in [
        ("250 fields", line(many.trim_end())),
        ("1 MB field", line(&format!("X: {}", "x".repeat(1 << 20)))),
        ("1 MB status line", format!("HTTP/1.1 200 {}\r\nContent-Length: 2\r\n\r\nok", "x".repeat(1 << 20))),
        ("folded field", line("X-A: 1\r\n folded: 2")),
        ("CR in a value", line("X-A: 1\r2")),
        ("NUL in a value", line("X-A: 1\x002")),
        ("space before the colon", line("X-A : 1")),
        ("no colon", line("X-A")),
        ("HTTP/0.9", "just text, and no head at all\r\n".to_owned()),
        ("HTTP/3.0", "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()),
        ("status 099", "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()),
        ("status 1000", "HTTP/1.1 1000 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()),
        ("nothing", String::new()),
    ] {
        stage.upstream.defect(ACME, Defect::Raw(answer.into()));
        let answered = stage.get(ACME, "/");
        assert_eq!(answered.status, 502, "{name}: {answered:?}");
    }
}

#[test]
fn what_would_lead_an_agent_around_the_proxy_is_taken_out() {
    // PX-48, EX-30
    let stage = Stage::new();
    let fields = "Alt-Svc: h3=\":443\"\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
                  Refresh: 0; url=https://evil.example/\r\nClear-Site-Data: \"*\"\r\nProxy-Status: x\r\nX-Kept: 1";
    stage.upstream.defect(ACME, once(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 2\r\n\r\nok")));
    let answered = stage.get(ACME, "/");
    answered.assert_status(200);
    assert_eq!(answered.value("x-kept"), Some("1"));
    for line in fields.lines().filter(|line| !line.starts_with("X-Kept")) {
        let name = line.split(':').next().unwrap().trim();
        assert_eq!(answered.value(name), None, "{answered:?}");
    }
    stage.upstream.defect(ACME, once("HTTP/1.1 407 X\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n"));
    let answered = stage.get(ACME, "/");
    answered.assert_refused(502, "upstream_protocol_error");
    assert_eq!(answered.value("proxy-authenticate"), None);
}

#[test]
fn a_body_that_breaks_off_never_ends_well() {
    // PX-46: through both protocols; a short error body is looked at before, and stays as broken as it was.
    let stage = Stage::new();
    let long = "x".repeat(200_000);
    for (name, answer) in [
        ("short length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it".to_owned()),
        ("long length", format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{long}")),
        ("chunk cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf of it".to_owned()),
        ("no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n".to_owned()),
        ("no end of the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n0\r\n".to_owned()),
        ("bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\nxyz\r\n".to_owned()),
        ("error, chunked", "HTTP/1.1 429 X\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf of it\r\n".to_owned()),
        ("error, length", "HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf of it".to_owned()),
        ("events", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\na\r\ndata: half\r\n".to_owned()),
    ] {
        stage.upstream.defect(ACME, Defect::Raw(answer.into()));
        let (over1, over2, _, broken) = both(&stage, &get(ACME, "/"));
        assert!(over1.status == 502 || !over1.complete, "{name} over HTTP/1.1: {over1:?}");
        assert!(over2 == 502 || broken, "{name} over HTTP/2: {over2}");
    }
}

#[test]
fn a_body_that_ends_with_the_connection_ends_only_with_tls() {
    // PX-46: without TLS's own goodbye the end of the bytes may be anybody's.
    let stage = Stage::new();
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(async |mut scene: Scene| {
            scene.head().await;
            scene.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it").await;
        })),
    );
    let (over1, over2, _, broken) = both(&stage, &get(ACME, "/"));
    assert!(over1.status == 502 || !over1.complete, "{over1:?}");
    assert!(over2 == 502 || broken);
}
