//! Peers that speak another protocol than the one that was agreed upon, or agree upon none.

use super::websocket::ask;
use super::{ACME, Stage, get};
use crate::harness::{H2, HTTP1};
use crate::upstream::play::Scene;
use crate::upstream::{Defect, Offer, Play, runtime};

/// No secret was opened for a peer that was not agreed with.
fn nothing_was_sent(stage: &Stage) {
    assert!(stage.upstream.seen().is_empty());
    assert!(stage.upstream.connections_for(ACME).iter().all(|connection| !connection.established));
}

#[test]
fn an_upstream_without_a_protocol_in_common_gets_nothing() {
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Offers(Offer::Mail));
    let answered = stage.get(ACME, "/");
    answered.assert_refused(502, "upstream_tls_failed");
    assert_eq!(answered.value("x-should-retry"), Some("false"));
    runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let reply = h2.get("/").await.unwrap();
        assert_eq!((reply.status(), reply.value("x-keyferry-error")), (502, Some("upstream_tls_failed")));
    });
    nothing_was_sent(&stage);
}

#[test]
fn an_upstream_that_agrees_upon_nothing_is_spoken_to_in_http_1() {
    // RFC 7301 section 3.1: a server that does not know the extension goes on without it.
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Offers(Offer::Nothing));
    stage.get(ACME, "/").assert_status(200);
    runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        assert_eq!(h2.get("/").await.unwrap().status(), 200);
    });
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    assert!(stage.upstream.seen_at(ACME).iter().all(|seen| seen.version == http::Version::HTTP_11));
}

#[test]
fn an_upstream_that_speaks_another_protocol_than_it_agreed_to_is_said() {
    let greetings: [&'static [u8]; 3] =
        [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example\r\n"];
    for greeting in greetings {
        for offer in [Offer::Http1, Offer::Http2] {
            if offer == Offer::Http1 && greeting.starts_with(b"HTTP") {
                continue;
            }
            let stage = Stage::new();
            let play = Play::new(offer, move |mut scene: Scene| async move {
                scene.send(greeting).await;
                scene.drain().await;
            });
            stage.upstream.defect(ACME, Defect::Plays(play));
            let shown = String::from_utf8_lossy(greeting);
            runtime().block_on(async {
                let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
                let reply = h2.get("/").await.unwrap();
                let code = reply.value("x-keyferry-error").map(ToOwned::to_owned);
                assert_eq!(reply.status(), 502, "{offer:?} {shown}: {code:?}");
                assert!(code.is_some_and(|code| code.starts_with("upstream_")), "{offer:?} {shown}");
            });
        }
    }
}

#[test]
fn a_websocket_needs_an_upstream_with_http_1() {
    // RFC 8441's way to an upstream is not taken: the answer says what is wrong, and nothing was sent.
    let stage = Stage::new();
    stage.upstream.defect(ACME, Defect::Offers(Offer::Http2));
    let mut wire = stage.open(ACME);
    let answered = wire.ask(&ask(ACME, ""));
    answered.assert_refused(502, "upstream_tls_failed");
    nothing_was_sent(&stage);
    stage.get(ACME, "/").assert_status(200);
}

#[test]
fn an_agent_without_a_protocol_in_common_is_refused_in_the_handshake() {
    let stage = Stage::new();
    let refused = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, &[b"smtp"]);
    let error = refused.err().expect("nothing in common").to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    stage.daemon.stderr.line_with("no TLS with the agent");
    // One that offers nothing speaks HTTP/1.1, as curl without ALPN does.
    let mut wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, &[]).unwrap();
    wire.ask(&get(ACME, "/")).assert_status(200);
    let mut wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, HTTP1).unwrap();
    wire.ask(&get(ACME, "/")).assert_status(200);
}

#[test]
fn an_agent_that_dribbles_an_http_2_head_is_cut_off() {
    // Nothing but CONTINUATION may follow (RFC 9113 section 6.10), not even the answer to a ping.
    use std::sync::mpsc::RecvTimeoutError;

    use crate::upstream::play::{CONTINUATION, HEADERS, SETTINGS, h2_frame};
    let stage = Stage::new();
    let mut wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, crate::harness::HTTP2).unwrap();
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(&h2_frame(SETTINGS, 0, 0, b""));
    // `:method: GET`, and no end.
    wire.send(&h2_frame(HEADERS, 1, 1, &[0x82]));
    let (sender, ended) = std::sync::mpsc::channel::<()>();
    let dribbling = std::thread::spawn(move || {
        // A byte now and then keeps a timer going that counts from the last byte.
        while ended.recv_timeout(std::time::Duration::from_millis(500)) == Err(RecvTimeoutError::Timeout) {
            if wire.try_send(&h2_frame(CONTINUATION, 0, 1, &[0x84])).is_err() {
                return true;
            }
        }
        false
    });
    // Others are served meanwhile.
    stage.get(ACME, "/").assert_status(200);
    crate::harness::until_for(crate::harness::PATIENCE * 3, "the end of the connection", || {
        dribbling.is_finished().then_some(())
    });
    drop(sender);
    assert!(dribbling.join().unwrap());
}
