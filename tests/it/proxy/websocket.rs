//! WebSocket through interception: the handshake, and the frames that follow it.

use http::Method;

use super::{ACME, OTHER, Stage, get};
use crate::harness::{H2, Wire, whole};
use crate::upstream::Play;
use crate::upstream::play::Scene;

/// RFC 6455 section 1.3's own example.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

pub fn ask(host: &str, more: &str) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// A frame of a server: first byte and payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[first, payload.len() as u8][..], payload].concat()
}

/// A frame of a client, masked.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7u8, 11, 13, 17];
    let hidden: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
    [&[first, 0x80 | payload.len() as u8][..], &mask, &hidden].concat()
}

pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

pub fn switched(head: &str, more: &str) -> String {
    let accept = tungstenite::handshake::derive_accept_key(field(head, "sec-websocket-key").unwrap().as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// The payload of a masked frame of less than 126 bytes.
pub async fn heard(scene: &mut Scene) -> (u8, Vec<u8>) {
    let head = scene.exactly(6).await;
    let Ok([first, length, mask @ ..]) = <[u8; 6]>::try_from(head) else { return (0, Vec::new()) };
    assert!(length & 0x80 != 0, "an agent's frames are masked");
    let hidden = scene.exactly(usize::from(length & 0x7f)).await;
    (first, hidden.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect())
}

/// Says back what it hears, then the credential it was given, in every kind of frame, and closes.
fn echo() -> Play {
    Play::http1(async |mut scene: Scene| {
        let head = scene.head().await;
        let secret = field(&head, "authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        scene.send(switched(&head, &format!("X-Echo: {secret}\r\nSet-Cookie: s={secret}\r\n"))).await;
        let (first, text) = heard(&mut scene).await;
        scene.send(frame(first, &text)).await;
        let (one, two) = secret.split_at(secret.len() / 2);
        scene.send(frame(0x01, format!("text {one}").as_bytes())).await;
        scene.send(frame(0x89, secret.as_bytes())).await;
        scene.send(frame(0x80, two.as_bytes())).await;
        scene.send(frame(0x82, format!("binary {secret}").as_bytes())).await;
        scene.send(frame(0x88, &[b"\x03\xe8", secret.as_bytes()].concat())).await;
        heard(&mut scene).await;
        scene.close().await;
    })
}

#[test]
fn frames_pass_both_ways_and_the_credential_goes_in_and_not_out() {
    // EX-11
    let mut stage = Stage::new();
    stage.upstream.defect(ACME, crate::upstream::Defect::Plays(echo()));
    let mut wire = stage.open(ACME);
    wire.send(ask(ACME, "Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer own\r\n").as_bytes());
    let head = wire.head_only();
    head.assert_status(101);
    assert_eq!(head.value("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.value("upgrade"), Some("websocket"));
    assert!(head.value("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    assert!(head.value("x-echo").is_some_and(|value| value.contains("keyferry")), "{head:?}");
    assert_eq!(head.value("set-cookie"), None);
    wire.send(&masked(0x81, b"hello"));
    let mut got = wire.until(b"hello");
    // The code's two bytes may come in two reads.
    while memchr::memmem::find(&got, b"\x03\xe8").is_none() {
        got.extend(wire.until(b"\xe8"));
    }
    wire.send(&masked(0x88, b"\x03\xe8"));
    got.extend(wire.rest());
    let text = String::from_utf8_lossy(&got).into_owned();
    assert!(text.starts_with("\u{fffd}\u{5}hello"), "{text:?}");
    for word in ["text ", "binary ", "keyferry"] {
        assert!(text.contains(word), "no {word} in {text:?}");
    }
    drop(wire);
    stage.stop();
    let line = stage.home.access_log().pop().unwrap();
    assert_eq!(line["protocol"], "websocket", "{line}");
    assert_eq!((&line["status"], &line["decision"]), (&101.into(), &"injected".into()), "{line}");
    assert_eq!(line["bytes_in"], 11 + 8, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() > 100, "{line}");
    assert_eq!(line["redactions"], 5, "the field, text, binary, ping and reason: {line}");
    assert!(line["error"].is_null(), "{line}");
}

#[test]
fn an_agent_with_http2_gets_its_websocket_too() {
    // RFC 8441
    let stage = Stage::new();
    stage.upstream.defect(ACME, crate::upstream::Defect::Plays(echo()));
    crate::upstream::runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        // The server's settings say that it may be asked.
        let _ = h2.get("/").await;
        let mut request = h2.request(Method::CONNECT, "/socket").header("sec-websocket-version", "13");
        request = request.extension(hyper::ext::Protocol::from_static("websocket"));
        let mut reply = h2.send(request.body(whole("")).unwrap()).await.unwrap();
        assert_eq!((reply.status(), reply.value("sec-websocket-accept")), (200, None));
        let on = reply.head.extensions.remove::<hyper::upgrade::OnUpgrade>().unwrap();
        let mut socket = hyper_util::rt::TokioIo::new(on.await.unwrap());
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        socket.write_all(&masked(0x81, b"hello")).await.unwrap();
        let mut got = Vec::new();
        while memchr::memmem::find(&got, b"\x03\xe8").is_none() {
            assert!(socket.read_buf(&mut got).await.unwrap() > 0);
        }
        socket.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
        let _ = socket.read_to_end(&mut got).await;
        stage.home.observe("frames over HTTP/2", &got);
        let text = String::from_utf8_lossy(&got).into_owned();
        assert!(text.contains("hello") && text.contains("binary ") && text.contains("keyferry"), "{text:?}");
        // PX-24: another protocol is none of ours.
        let request = h2.request(Method::CONNECT, "/").extension(hyper::ext::Protocol::from_static("connect-udp"));
        let reply = h2.send(request.body(whole("")).unwrap()).await.unwrap();
        assert_eq!(reply.status(), 501);
    });
}

/// Refuses every request for a WebSocket with `answer`, and answers every other.
fn refusing(answer: &'static str) -> Play {
    Play::http1(async move |mut scene: Scene| {
        loop {
            let head = scene.head().await;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let reply = match field(&head, "upgrade") {
                _ if head.is_empty() => return,
                Some(_) => answer.to_owned(),
                None => format!("HTTP/1.1 200 OK\r\nX-Path: {path}\r\nContent-Length: 2\r\n\r\nok"),
            };
            if !scene.send(reply).await {
                return;
            }
        }
    })
}

#[test]
fn bytes_after_the_head_wait_for_the_switch() {
    // PX-30: a request behind the head is a request of its own where nothing was switched.
    let stage = Stage::new();
    stage.upstream.defect(
        ACME,
        crate::upstream::Defect::Plays(Play::http1(async |mut scene: Scene| {
            let head = scene.head().await;
            if field(&head, "upgrade").is_none() {
                scene.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len())).await;
                return scene.drain().await;
            }
            // Nothing more may come before the answer, however long that takes.
            let more = tokio::time::timeout(std::time::Duration::from_millis(500), scene.exactly(1)).await;
            let status = if more.is_err() { "403 Forbidden" } else { "500 Smuggled" };
            scene.send(format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")).await;
        })),
    );
    let mut wire = stage.open(ACME);
    let behind = format!("GET /behind HTTP/1.1\r\nHost: {ACME}\r\nAuthorization: Bearer own\r\n\r\n");
    wire.send(format!("{}{behind}", ask(ACME, "")).as_bytes());
    wire.answer().assert_status(403);
    let second = wire.answer();
    second.assert_status(200);
    assert!(second.text().starts_with("GET /behind ") && !second.text().contains("Bearer own"), "{}", second.text());
    // One that policy does not allow is refused.
    let mut wire = stage.open(ACME);
    let behind = format!("GET /behind HTTP/1.1\r\nHost: {OTHER}\r\n\r\n");
    wire.send(format!("{}{behind}", ask(ACME, "")).as_bytes());
    wire.answer().assert_status(403);
    wire.answer().assert_refused(421, "authority_mismatch");
}

#[test]
fn any_other_answer_stays_http() {
    // PX-31
    let stage = Stage::new();
    for (status, answer) in [
        (200, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"),
        (426, "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 4\r\n\r\nbody"),
        (404, "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
    ] {
        stage.upstream.defect(ACME, crate::upstream::Defect::Plays(refusing(answer)));
        let mut wire = stage.open(ACME);
        wire.send(ask(ACME, "").as_bytes());
        let answered = wire.answer();
        assert_eq!((answered.status, answered.text().as_str()), (status, "body"), "{answered:?}");
        assert_eq!(answered.value("upgrade"), None);
        let next = wire.ask(&get(ACME, "/next"));
        assert_eq!(next.value("x-path"), Some("/next"), "{next:?}");
        // To an extended CONNECT a 2xx would mean a switch.
        crate::upstream::runtime().block_on(async {
            let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
            h2.get("/").await.unwrap().end().await;
            let request = h2.request(Method::CONNECT, "/").extension(hyper::ext::Protocol::from_static("websocket"));
            let reply = h2.send(request.body(whole("")).unwrap()).await.unwrap();
            let expected = if status == 200 { 502 } else { status };
            assert_eq!(reply.status(), expected);
            assert!(reply.end().await.broken.is_none());
        });
    }
}

#[test]
fn what_only_looks_like_a_websocket_is_not_switched() {
    // PX-29, PX-33
    let stage = Stage::new();
    let answer = "HTTP/1.1 500 Switched\r\nContent-Length: 0\r\n\r\n";
    stage.upstream.defect(ACME, crate::upstream::Defect::Plays(refusing(answer)));
    let plain = |from: &str, to: &str| {
        let text = ask(ACME, "");
        assert!(text.contains(from));
        text.replace(from, to)
    };
    for (request, status) in [
        (plain("GET /socket HTTP/1.1", "POST /socket HTTP/1.1"), 501),
        (plain("GET /socket HTTP/1.1", "GET /socket HTTP/1.0"), 501),
        (plain("keep-alive, Upgrade", "keep-alive"), 200),
        (plain("Connection: keep-alive, Upgrade\r\n", ""), 200),
        (plain("Upgrade: websocket", "Upgrade: h2c"), 200),
        (plain("Upgrade: websocket", "Upgrade: websocket2"), 501),
        (plain("Upgrade: websocket", "X-Upgrade: websocket"), 200),
        (plain(KEY, "short"), 400),
        (plain(&format!("Sec-WebSocket-Key: {KEY}\r\n"), ""), 400),
        (plain(&format!("Sec-WebSocket-Key: {KEY}"), &format!("Sec-WebSocket-Key: {KEY}\r\nContent-Length: 3")), 400),
    ] {
        let mut wire = stage.open(ACME);
        wire.send(request.as_bytes());
        assert_eq!(wire.answer().status, status, "{request}");
    }
}

#[test]
fn a_key_in_the_subprotocols_is_taken_out_and_another_way_is_used() {
    let upstream = |host: &str, stage: &Stage| {
        stage.upstream.defect(host, crate::upstream::Defect::Plays(refusing_with_head()));
    };
    let mut openai = None;
    let stage = Stage::with("default: deny\n", |provider, home| {
        let secret = crate::harness::Canary::openai();
        home.stock(provider, "openai:work", &secret, &[]);
        openai = Some(secret);
    });
    upstream("api.openai.com", &stage);
    let mut wire: Wire = stage.open("api.openai.com");
    let protocols = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-mine, openai-beta.realtime-v1\r\n";
    wire.send(ask("api.openai.com", protocols).as_bytes());
    let answered = wire.answer();
    answered.assert_status(426);
    let text = answered.text().to_lowercase();
    assert!(text.contains("authorization: bearer ") && text.contains("keyferry"), "{text}");
    assert!(text.contains("sec-websocket-protocol: realtime,openai-beta.realtime-v1"), "{text}");
    assert!(!text.contains("sk-mine"), "{text}");
}

/// Answers with the head that came.
fn refusing_with_head() -> Play {
    Play::http1(async |mut scene: Scene| {
        let head = scene.head().await;
        scene.send(format!("HTTP/1.1 426 X\r\nContent-Length: {}\r\n\r\n{head}", head.len())).await;
        scene.drain().await;
    })
}
