//! Agents with small writes: Nagle's algorithm at their end and delayed acknowledgements here would cost 40 ms each time.
//!
//! What is compared is one and the same message in several writes and in one, on the same machine at the same moment.

use std::time::{Duration, Instant};

use super::websocket::{ask, frame, masked};
use super::{ACME, Stage};
use crate::harness::{HTTP1, HTTP2, Wire};
use crate::upstream::play::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, h2_frame, hpack};

const ROUNDS: usize = 60;

/// A connection as it is, Nagle's algorithm included.
fn open(stage: &Stage, offers: &[&[u8]]) -> Wire {
    let stream = std::net::TcpStream::connect(stage.daemon.proxy).unwrap();
    let mut wire = Wire::over(&stage.home, stream);
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes());
    wire.head_only().assert_status(200);
    wire.tls(&stage.ca(), ACME, offers).unwrap()
}

/// Sends the pieces of each round one by one and all at once, and compares the medians.
fn compare(wire: &mut Wire, mut pieces: impl FnMut(usize) -> Vec<Vec<u8>>, mut answer: impl FnMut(&mut Wire)) {
    let (mut small, mut whole) = (Vec::new(), Vec::new());
    let mut timed = |times: &mut Vec<Duration>, pieces: &[Vec<u8>]| {
        let begun = Instant::now();
        for piece in pieces {
            wire.send(piece);
        }
        answer(wire);
        times.push(begun.elapsed());
    };
    for round in 0..ROUNDS {
        timed(&mut small, &pieces(2 * round));
        timed(&mut whole, &[pieces(2 * round + 1).concat()]);
    }
    small.sort_unstable();
    whole.sort_unstable();
    println!("median of small writes {:?}, of one write {:?}", small[ROUNDS / 2], whole[ROUNDS / 2]);
    assert!(small[ROUNDS / 2] < whole[ROUNDS / 2] * 12, "{small:?} {whole:?}");
}

#[test]
fn requests_are_not_kept_waiting() {
    let stage = Stage::new();
    let head = format!("POST /upload HTTP/1.1\r\nHost: {ACME}\r\nContent-Length: 600\r\n\r\n");
    let pieces = |_| vec![head.clone().into_bytes(), vec![b'.'; 300], vec![b'.'; 300]];
    compare(&mut open(&stage, HTTP1), pieces, |wire| {
        wire.answer().assert_status(200);
    });
}

#[test]
fn frames_of_http_2_are_not_kept_waiting() {
    let stage = Stage::new();
    let mut wire = open(&stage, HTTP2);
    wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(&h2_frame(SETTINGS, 0, 0, b""));
    let fields = [(":method", "POST"), (":scheme", "https"), (":authority", ACME), (":path", "/upload")];
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| hpack(name, value)).collect();
    let pieces = |round| {
        let stream = 2 * u32::try_from(round).unwrap() + 1;
        vec![
            h2_frame(HEADERS, END_HEADERS, stream, &head),
            h2_frame(DATA, 0, stream, &[b'.'; 300]),
            h2_frame(DATA, END_STREAM, stream, &[b'.'; 300]),
        ]
    };
    compare(&mut wire, pieces, |wire| drop(wire.until(b"\"bytes\":600")));
}

#[test]
fn frames_of_a_websocket_are_not_kept_waiting() {
    let stage = Stage::new();
    let mut wire = open(&stage, HTTP1);
    wire.send(ask(ACME, "").as_bytes());
    wire.head_only().assert_status(101);
    let message = masked(0x81, b"hello");
    let pieces = |_| vec![message[..2].to_vec(), message[2..6].to_vec(), message[6..].to_vec()];
    compare(&mut wire, pieces, |wire| drop(wire.until(&frame(0x81, b"hello"))));
}
