//! How a WebSocket ends: by what an upstream must not send, by a revocation, by a stop.

use std::time::Instant;

use super::websocket::{ask, frame, heard, masked, switched};
use super::{ACME, CONFIG, Stage, get};
use crate::harness::Wire;
use crate::upstream::play::Scene;
use crate::upstream::{Defect, Play};

/// Switches, sends `bytes`, and listens until the peer is gone.
fn sends(bytes: Vec<u8>) -> Defect {
    Defect::Plays(Play::http1(move |mut scene: Scene| {
        let bytes = bytes.clone();
        async move {
            let head = scene.head().await;
            scene.send(switched(&head, "")).await;
            scene.send(bytes).await;
            scene.drain().await;
        }
    }))
}

fn open(stage: &Stage) -> Wire {
    let mut wire = stage.open(ACME);
    wire.send(ask(ACME, "").as_bytes());
    wire.head_only().assert_status(101);
    wire
}

#[test]
fn handshakes_that_do_not_agree_are_no_switch() {
    // PX-43
    let stage = Stage::new();
    let other = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    for (name, answer) in [
        ("another key", format!("{other}AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")),
        ("no key", "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_owned()),
        ("another protocol", format!("{}s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", other.replace("websocket", "h2c"))),
        ("an extension", format!("{other}s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Extensions: x\r\n\r\n")),
    ] {
        stage.upstream.defect(ACME, Defect::Raw(answer.into()));
        let mut wire = stage.open(ACME);
        wire.send(ask(ACME, "").as_bytes());
        wire.answer().assert_refused(502, "upstream_protocol_error");
        println!("{name}");
    }
    // Nobody asked.
    stage.upstream.defect(ACME, Defect::Raw(format!("{other}s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").into()));
    stage.get(ACME, "/").assert_refused(502, "upstream_protocol_error");
}

#[test]
fn frames_that_cannot_be_searched_end_it() {
    // EX-11: compressed though nothing was agreed on; masked; in disorder.
    let mut stage = Stage::new();
    for bytes in [frame(0xc1, b"deflated"), masked(0x81, b"masked"), frame(0x80, b"continued"), frame(0x83, b"kind")] {
        stage.upstream.defect(ACME, sends([frame(0x81, b"first"), bytes.clone()].concat()));
        let mut wire = open(&stage);
        let got = wire.rest();
        let text = String::from_utf8_lossy(&got).into_owned();
        assert!(got.starts_with(&frame(0x81, b"first")), "{text:?}");
        assert!(memchr::memmem::find(&got, b"\x03\xea").is_some(), "no Close with 1002 in {text:?}");
        assert!(!text.contains("deflated") && !text.contains("masked") && !text.contains("continued"), "{text:?}");
    }
    stage.stop();
    for line in stage.home.access_log() {
        assert_eq!((&line["protocol"], &line["error"]), (&"websocket".into(), &"upstream_protocol_error".into()));
    }
}

#[test]
fn a_revocation_ends_it() {
    // AU: the agent's frames stop with its token.
    let mut stage = Stage::new();
    stage.upstream.defect(ACME, sends(frame(0x81, b"first")));
    let mut wire = open(&stage);
    wire.until(b"first");
    let revoked = Instant::now();
    stage.home.command(&["agent", "revoke", "coder", "--yes"]).assert_code(0);
    let got = wire.rest();
    let took = revoked.elapsed();
    assert!(memchr::memmem::find(&got, b"\x03\xf0").is_some(), "no Close with 1008 in {got:?}");
    println!("revoked after {took:?}");
    // The command's own time, one look at the vault and one second of the watch.
    assert!(took.as_secs() < 5, "{took:?}");
    stage.stop();
    let line = stage.home.access_log().pop().unwrap();
    assert_eq!((&line["protocol"], &line["error"]), (&"websocket".into(), &"agent_unauthenticated".into()), "{line}");
}

#[test]
fn a_stop_says_goodbye() {
    let mut stage = Stage::new();
    stage.upstream.defect(ACME, sends(frame(0x81, b"first")));
    let mut wire = open(&stage);
    wire.until(b"first");
    let asked = Instant::now();
    stage.stop();
    assert!(memchr::memmem::find(&wire.rest(), b"\x03\xe9").is_some(), "a Close with 1001");
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    assert_eq!(stage.home.access_log().pop().unwrap()["protocol"], "websocket");
}

#[test]
fn what_is_not_searched_passes_as_it_is() {
    // Where the operator wants no search, extensions are the two ends' own business.
    let stage = Stage::with(&format!("{CONFIG}scrub: off\n"), |_, _| {});
    let strange = [frame(0xc1, b"deflated"), frame(0x8f, b"own kind")].concat();
    let sent = strange.clone();
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(move |mut scene: Scene| {
            let sent = sent.clone();
            async move {
                let head = scene.head().await;
                assert!(head.to_lowercase().contains("sec-websocket-extensions: permessage-deflate"), "{head}");
                scene.send(switched(&head, "Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
                scene.send(sent).await;
                let (first, text) = heard(&mut scene).await;
                scene.send(frame(first & 0x8f, &text)).await;
                scene.close().await;
            }
        })),
    );
    let mut wire = stage.open(ACME);
    wire.send(ask(ACME, "Sec-WebSocket-Extensions: permessage-deflate\r\n").as_bytes());
    let head = wire.head_only();
    head.assert_status(101);
    assert_eq!(head.value("sec-websocket-extensions"), Some("permessage-deflate"));
    wire.send(&masked(0xc1, b"mine"));
    assert_eq!(wire.rest(), [strange, frame(0x81, b"mine")].concat());
}

#[test]
fn an_upstream_that_breaks_off_in_a_message_does_not_end_it_well() {
    // PX-46
    let mut stage = Stage::new();
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(async |mut scene: Scene| {
            let head = scene.head().await;
            scene.send(switched(&head, "")).await;
            scene.send(frame(0x01, b"half of it")).await;
        })),
    );
    let mut wire = open(&stage);
    let got = wire.rest();
    // The last letter may be how a secret begins.
    assert!(got.first() == Some(&0x01) && memchr::memmem::find(&got, b"half of i").is_some(), "{got:?}");
    assert!(memchr::memmem::find(&got, b"\x88").is_none(), "a Close of ours in {got:?}");
    // The connection serves nothing else any more.
    assert!(wire.try_send(get(ACME, "/").as_bytes()).is_err() || wire.is_closed());
    stage.stop();
    let line = stage.home.access_log().pop().unwrap();
    assert_eq!(line["error"], "upstream_unreachable", "{line}");
}
