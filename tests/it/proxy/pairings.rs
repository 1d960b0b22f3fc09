//! HTTP/1.1 and HTTP/2 on either side, in every pairing: bodies, trailers, early answers, half-closed connections.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use hyper::body::Frame;

use super::{ACME, Stage, get};
use crate::harness::{H2, Wire, flowing, whole};
use crate::upstream::play::Scene;
use crate::upstream::{Answer, Defect, Offer, Play, Rule, pattern, runtime};

const BOTH: [Offer; 2] = [Offer::Http1, Offer::Http2];

fn version(offer: Offer) -> http::Version {
    if offer == Offer::Http2 { http::Version::HTTP_2 } else { http::Version::HTTP_11 }
}

/// A stage whose upstream speaks one protocol only.
fn speaking(offer: Offer) -> Stage {
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Offers(offer));
    stage
}

async fn h2(stage: &Stage) -> H2 {
    H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await
}

#[test]
fn uploads_and_downloads_arrive_whole_in_every_pairing() {
    for offer in BOTH {
        let stage = speaking(offer);
        let body = pattern(700_000);
        let mut wire = stage.open(ACME);
        wire.send(
            format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        );
        wire.send(&body);
        let answered = wire.answer();
        assert!(answered.complete && answered.body == body, "h1 to {offer:?}");
        let head = wire.ask(&format!("HEAD /download?bytes=5000 HTTP/1.1\r\nHost: {ACME}\r\n\r\n"));
        head.assert_status(200);
        wire.ask(&get(ACME, "/status/204")).assert_status(204);
        runtime().block_on(async {
            let mut h2 = h2(&stage).await;
            let request = h2.request(Method::POST, "/echo/body").body(whole(body.clone())).unwrap();
            let ended = h2.send(request).await.unwrap().end().await;
            assert!(ended.broken.is_none() && ended.bytes == body, "h2 to {offer:?}");
            let request = h2.request(Method::HEAD, "/download?bytes=5000").body(whole("")).unwrap();
            let reply = h2.send(request).await.unwrap();
            assert_eq!((reply.status(), reply.value("content-length")), (200, Some("5000")));
            let ended = reply.end().await;
            assert!(ended.broken.is_none() && ended.bytes.is_empty());
            assert_eq!(h2.get("/status/304").await.unwrap().status(), 304);
        });
        for seen in stage.upstream.seen_at(ACME) {
            assert_eq!(seen.version, version(offer), "{seen:?}");
        }
        stage.upstream.assert_carried(ACME, stage.acme.as_str());
    }
}

#[test]
fn an_upstream_that_speaks_both_is_spoken_to_as_the_agent_speaks() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    runtime().block_on(async {
        let mut h2 = h2(&stage).await;
        // The connection that one of them left is not taken by the other.
        for _ in 0..2 {
            wire.ask(&get(ACME, "/echo/1")).assert_status(200);
            assert_eq!(h2.get("/echo/2").await.unwrap().status(), 200);
        }
    });
    let seen: Vec<_> = stage.upstream.seen_at(ACME).iter().map(|seen| (seen.version, seen.path().to_owned())).collect();
    let expected = [(http::Version::HTTP_11, "/echo/1".to_owned()), (http::Version::HTTP_2, "/echo/2".to_owned())];
    assert_eq!(seen, [expected.clone(), expected].concat());
}

#[test]
fn trailers_pass_both_ways_in_every_pairing() {
    // EX-03, PX-16: what authenticates or frames does not pass, and a secret in them is covered.
    for offer in BOTH {
        let stage = speaking(offer);
        let secret = stage.acme.as_str().to_owned();
        let answer = Answer::Trailed {
            body: "body".into(),
            trailers: vec![
                ("x-checksum".to_owned(), "42".to_owned()),
                ("grpc-message".to_owned(), format!("no such key: {secret}")),
            ],
        };
        stage.upstream.script(Rule::always(answer).path("/trailed"));
        let mut wire = stage.open(ACME);
        let head = format!(
            "POST /trailed HTTP/1.1\r\nHost: {ACME}\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-up, authorization\r\n\r\n"
        );
        wire.send(format!("{head}2\r\nhi\r\n0\r\nx-up: 1\r\nauthorization: Bearer own\r\n\r\n").as_bytes());
        let mut text = Vec::new();
        while memchr::memmem::find(&text, b"\r\n0\r\n").is_none_or(|_| !text.ends_with(b"\r\n\r\n")) {
            text.extend(wire.until(b"\r\n"));
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let trailers = text.split("\r\n0\r\n").nth(1).unwrap();
        assert!(trailers.contains("x-checksum: 42") && trailers.contains("keyferry"), "h1 to {offer:?}: {text}");
        runtime().block_on(async {
            let mut h2 = h2(&stage).await;
            let (frames, body) = flowing();
            frames.send(Ok(Frame::data(Bytes::from_static(b"hi")))).unwrap();
            let mut up = HeaderMap::new();
            up.insert("x-up", HeaderValue::from_static("1"));
            up.insert("authorization", HeaderValue::from_static("Bearer own"));
            frames.send(Ok(Frame::trailers(up))).unwrap();
            drop(frames);
            let request = h2.request(Method::POST, "/trailed").header("te", "trailers").body(body).unwrap();
            let ended = h2.send(request).await.unwrap().end().await;
            let trailers = ended.trailers.unwrap();
            assert_eq!(trailers["x-checksum"], "42", "h2 to {offer:?}");
            assert!(trailers["grpc-message"].to_str().unwrap().contains("keyferry"));
        });
        for seen in stage.upstream.seen_at(ACME) {
            assert_eq!(seen.value("te").as_deref(), Some("trailers"), "{seen:?}");
            // HTTP/1.1 passes on only what `Trailer` announced, which an HTTP/2 agent need not do.
            if seen.version == http::Version::HTTP_2 || seen.first("trailer").is_some() {
                assert_eq!(seen.trailers, [("x-up".to_owned(), b"1".to_vec())], "{seen:?}");
            }
        }
        stage.upstream.assert_carried(ACME, stage.acme.as_str());
    }
}

#[test]
fn a_dialogue_flows_while_the_request_is_still_open() {
    // Each side says its next word only when it has heard the other's: nothing may be held back or waited for.
    let mut fungible = None;
    let stage = Stage::with("default: deny\n", |provider, home| {
        let secret = crate::harness::Canary::openai();
        home.stock(provider, "openai:work", &secret, &[]);
        fungible = Some(secret);
    });
    let host = "api.openai.com";
    for offer in BOTH {
        let play = move |mut scene: Scene| async move {
            use crate::upstream::play::{DATA, END_HEADERS, END_STREAM, HEADERS, STATUS_200, h2_frame, hpack};
            let h2 = offer == Offer::Http2;
            let mut stream = 0;
            if h2 {
                stream = scene.greet().await;
                let head = [STATUS_200, &hpack("content-type", "application/grpc")].concat();
                scene.send(h2_frame(HEADERS, END_HEADERS, stream, &head)).await;
            } else {
                scene.head().await;
                scene
                    .send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await;
            }
            for number in 0..20u8 {
                // "s" may be how the secret begins.
                let word = [0, 0, 0, 0, 4, b's', b'k', b'-', b'0' + number % 10];
                if h2 {
                    while scene.h2_read().await.0 != DATA {}
                    scene.send(h2_frame(DATA, 0, stream, &word)).await;
                } else {
                    scene.exactly(3 + 9 + 2).await;
                    scene.send([b"9\r\n", &word[..], b"\r\n"].concat()).await;
                }
            }
            if h2 {
                scene.send(h2_frame(DATA, END_STREAM, stream, b"")).await;
            } else {
                scene.send("0\r\n\r\n").await;
                return scene.close().await;
            }
            scene.drain().await;
        };
        stage.upstream.defect(host, Defect::Plays(Play::new(offer, play)));
        runtime().block_on(async {
            let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, host).await;
            let (frames, body) = flowing();
            let word = Bytes::from_static(&[0, 0, 0, 0, 4, b'w', b'o', b'r', b'd']);
            let request = h2.request(Method::POST, "/talk").header("te", "trailers").body(body).unwrap();
            let sending = h2.send(request);
            frames.send(Ok(Frame::data(word.clone()))).unwrap();
            let mut reply = sending.await.unwrap();
            for number in 0..20u8 {
                let mut heard = Vec::new();
                while heard.len() < 9 {
                    heard.extend_from_slice(&reply.next().await.unwrap());
                }
                assert_eq!(heard, [0, 0, 0, 0, 4, b's', b'k', b'-', b'0' + number % 10], "{offer:?}");
                if number < 19 {
                    frames.send(Ok(Frame::data(word.clone()))).unwrap();
                }
            }
            drop(frames);
            assert!(reply.end().await.broken.is_none());
        });
    }
}

#[test]
fn half_of_an_upload_is_never_a_whole_one() {
    // PX-46, toward the upstream: an agent that takes its request back, with whatever reason.
    use crate::upstream::play::{DATA, END_STREAM, GONE, RST_STREAM};
    for offer in BOTH {
        let stage = Stage::new();
        let (tell, told) = std::sync::mpsc::channel();
        let play = move |mut scene: Scene| {
            let tell = tell.clone();
            async move {
                if offer == Offer::Http1 {
                    scene.head().await;
                    let mut all = Vec::new();
                    while let Some(byte) = scene.exactly(1).await.first() {
                        all.push(*byte);
                    }
                    tell.send(if all.ends_with(b"0\r\n\r\n") { "whole" } else { "broken" }).unwrap();
                    return;
                }
                scene.greet().await;
                loop {
                    match scene.h2_read().await {
                        (DATA, flags, _) if flags & END_STREAM != 0 => tell.send("whole").unwrap(),
                        (RST_STREAM | GONE, ..) => break tell.send("broken").unwrap(),
                        _ => {}
                    }
                }
            }
        };
        stage.upstream.defect(ACME, Defect::Plays(Play::new(offer, play)));
        let kept = runtime().block_on(async {
            let mut h2 = h2(&stage).await;
            let (frames, body) = flowing();
            frames.send(Ok(Frame::data(Bytes::from_static(b"half of it")))).unwrap();
            let request = h2.request(Method::POST, "/upload").body(body).unwrap();
            // Dropping the request resets its stream with CANCEL.
            let given_up = tokio::time::timeout(std::time::Duration::from_millis(300), h2.send(request)).await;
            assert!(given_up.is_err());
            // Its end would be an end of the body.
            (frames, h2)
        });
        let patience = std::time::Duration::from_secs(20);
        assert_eq!(told.recv_timeout(patience), Ok("broken"), "h2 to {offer:?}");
        drop(kept);
        let mut wire = stage.open(ACME);
        let head = format!("POST /upload HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n");
        wire.send(format!("{head}4\r\nhalf\r\n").as_bytes());
        drop(wire);
        if offer == Offer::Http1 {
            assert_eq!(told.recv_timeout(patience), Ok("broken"), "h1 to {offer:?}");
        }
    }
}

#[test]
fn an_agent_that_closed_its_side_still_gets_its_answer() {
    for offer in BOTH {
        let stage = speaking(offer);
        let mut wire: Wire = stage.open(ACME);
        wire.send(get(ACME, "/slow?ms=300").as_bytes());
        wire.half_close();
        let answered = wire.answer();
        assert!(answered.status == 200 && answered.complete && answered.text() == "late", "{offer:?}: {answered:?}");
    }
}

#[test]
fn expectations_end_with_us() {
    // PX-25
    for offer in BOTH {
        let stage = speaking(offer);
        let mut wire = stage.open(ACME);
        let post =
            |expect: &str| format!("POST /echo/body HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 5\r\n{expect}\r\n");
        wire.send(post("Expect: 100-continue\r\n").as_bytes());
        wire.head_only().assert_status(100);
        wire.send(b"hello");
        assert_eq!(wire.answer().text(), "hello");
        // The body at once, and an expectation that nobody knows.
        for expect in ["Expect: 100-continue\r\n", "Expect: y 100-continue\r\n", "Expect: \r\n"] {
            wire.send(format!("{}hello", post(expect)).as_bytes());
            let answered = wire.answer();
            assert!(answered.status == 417 || answered.text() == "hello", "{expect:?}: {answered:?}");
            if answered.status == 417 {
                wire = stage.open(ACME);
            }
        }
        for seen in stage.upstream.seen_at(ACME) {
            assert!(seen.values("expect").is_empty() && &seen.body[..] == b"hello", "{seen:?}");
        }
    }
}

#[test]
fn an_early_answer_does_not_leave_a_body_behind() {
    // PX-25: what is left of a body must not be read as the next request.
    let stage = Stage::new();
    let smuggled = get(ACME, "/smuggled");
    let body = format!("{smuggled}{}", "x".repeat(200_000));
    let mut wire = stage.open(ACME);
    let head = format!("POST /../x HTTP/1.1\r\nHost: api.other.example\r\nContent-Length: {}\r\n\r\n", body.len());
    wire.send(head.as_bytes());
    let _ = wire.try_send(body.as_bytes());
    let first = wire.rest_or_answer();
    assert!(first.is_none_or(|answered| matches!(answered.status, 400 | 421)));
    assert!(stage.upstream.seen().is_empty(), "{:?}", stage.upstream.seen());
}
