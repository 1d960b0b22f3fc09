//! HTTP/2 upstreams that misbehave, frame by frame.

use std::time::{Duration, Instant};

use super::hostile::answer_or_end;
use super::{ACME, Stage, get};
use crate::harness::H2;
use crate::upstream::play::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, STATUS_200,
    Scene, WINDOW_UPDATE, h2_frame, hpack,
};
use crate::upstream::{Defect, Play, runtime};

type Boxed = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;
type Make = std::sync::Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// An upstream that answers each request with what the test wants just then: its connections are used again.
struct Playing {
    stage: Stage,
    make: std::sync::Arc<std::sync::Mutex<Make>>,
}

impl Playing {
    fn new() -> Self {
        let stage = Stage::new();
        let first: Make = std::sync::Arc::new(|_| Vec::new());
        let make = std::sync::Arc::new(std::sync::Mutex::new(first));
        let now = std::sync::Arc::clone(&make);
        stage.upstream.defect(
            ACME,
            Defect::Plays(Play::http2(move |mut scene: Scene| {
                let make = std::sync::Arc::clone(&now);
                async move {
                    let mut stream = scene.greet().await;
                    while stream != 0 {
                        let make = std::sync::Arc::clone(&make.lock().unwrap());
                        scene.send(make(stream)).await;
                        stream = scene.next_stream().await;
                    }
                }
            })),
        );
        Self { stage, make }
    }

    fn sends(&self, make: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) {
        *self.make.lock().unwrap() = std::sync::Arc::new(make);
    }
}

/// Whether the exchange ended as broken or refused, through HTTP/1.1 and through HTTP/2.
fn assert_broken(stage: &Stage, name: &str) {
    let begun = Instant::now();
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/").as_bytes());
    let over1 = answer_or_end(&mut wire, false);
    assert!(over1.status == 502 || !over1.complete, "{name} over HTTP/1.1: {over1:?}");
    runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let Ok(reply) = h2.get("/").await else { return };
        let status = reply.status();
        let ended = reply.end().await;
        assert!(status == 502 || ended.broken.is_some(), "{name} over HTTP/2: {status} {ended:?}");
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{name}: {:?}", begun.elapsed());
}

#[test]
fn a_reset_in_a_body_is_passed_on_whatever_its_reason() {
    // PX-46: NO_ERROR and CANCEL look like an end to many.
    let playing = Playing::new();
    let stage = &playing.stage;
    for (fields, name) in [
        (hpack("x-a", "1"), "no length"),
        (hpack("content-length", "100"), "short"),
        (hpack("content-length", "100000"), "long"),
    ] {
        for reason in [0u8, 1, 2, 7, 8] {
            let fields = fields.clone();
            playing.sends(move |stream| {
                let mut all = h2_frame(HEADERS, END_HEADERS, stream, &[STATUS_200, &fields].concat());
                all.extend(h2_frame(DATA, 0, stream, b"half of it"));
                all.extend(h2_frame(RST_STREAM, 0, stream, &[0, 0, 0, reason]));
                all
            });
            assert_broken(stage, &format!("reason {reason}, {name}"));
        }
    }
}

#[test]
fn an_error_or_event_body_that_is_reset_stays_broken() {
    // PX-46: these are read before they are passed on.
    let playing = Playing::new();
    let stage = &playing.stage;
    // `:status: 500` and `:status: 404` in the static table.
    for (status, kind) in [(0x8eu8, "text/plain"), (0x8d, "application/json"), (0x88, "text/event-stream")] {
        for reason in [0u8, 8] {
            playing.sends(move |stream| {
                let head = [&[status][..], &hpack("content-type", kind)].concat();
                let mut all = h2_frame(HEADERS, END_HEADERS, stream, &head);
                all.extend(h2_frame(DATA, 0, stream, b"data: half"));
                all.extend(h2_frame(RST_STREAM, 0, stream, &[0, 0, 0, reason]));
                all
            });
            assert_broken(stage, &format!("{kind} with reason {reason}"));
        }
    }
}

#[test]
fn a_goaway_or_the_end_of_the_connection_breaks_a_body_off() {
    // PX-46, PX-49
    let stage = Stage::new();
    for goaway in [true, false] {
        stage.upstream.defect(
            ACME,
            Defect::Plays(Play::http2(move |mut scene: Scene| async move {
                let stream = scene.greet().await;
                scene.send(h2_frame(HEADERS, END_HEADERS, stream, STATUS_200)).await;
                scene.send(h2_frame(DATA, 0, stream, b"half of it")).await;
                if goaway {
                    scene.send(h2_frame(GOAWAY, 0, 0, &[0; 8])).await;
                }
                scene.close().await;
            })),
        );
        assert_broken(&stage, if goaway { "GOAWAY" } else { "the end" });
    }
}

#[test]
fn interim_answers_have_an_end() {
    // PX-42: hyper's HTTP/2 keeps each one in memory until the response comes.
    let playing = Playing::new();
    let stage = &playing.stage;
    // The status 103 as a literal with the static table's name.
    let interim = [&[0x08u8, 3][..], b"103", &hpack("link", "</?k=POISON>")].concat();
    let few = interim.clone();
    playing.sends(move |stream| {
        let mut all = h2_frame(HEADERS, END_HEADERS, stream, &few).repeat(8);
        all.extend(h2_frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200));
        all
    });
    stage.get(ACME, "/").assert_status(200);
    playing.sends(move |stream| {
        let mut all = h2_frame(HEADERS, END_HEADERS, stream, &interim).repeat(100);
        all.extend(h2_frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200));
        all
    });
    stage.get(ACME, "/").assert_refused(502, "upstream_protocol_error");
}

#[test]
fn floods_and_frames_that_must_not_be_end_the_connection() {
    // PX-49
    let playing = Playing::new();
    let stage = &playing.stage;
    let begin = |stream| h2_frame(HEADERS, END_HEADERS, stream, STATUS_200);
    let cases: Vec<(&str, Boxed)> = vec![
        (
            "PUSH_PROMISE",
            Box::new(move |stream| {
                let promised = [&[0u8, 0, 0, 2][..], &[0x82, 0x87, 0x84]].concat();
                [h2_frame(PUSH_PROMISE, END_HEADERS, stream, &promised), begin(stream)].concat()
            }),
        ),
        (
            "WINDOW_UPDATE of nothing",
            Box::new(move |stream| [begin(stream), h2_frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat()),
        ),
        (
            "WINDOW_UPDATE beyond the limit",
            Box::new(move |stream| [begin(stream), h2_frame(WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255])].concat()),
        ),
        (
            "CONTINUATION flood",
            Box::new(move |stream| {
                let piece = hpack("x-flood", &"x".repeat(120)).repeat(100);
                let mut all = h2_frame(HEADERS, 0, stream, STATUS_200);
                all.extend(h2_frame(CONTINUATION, 0, stream, &piece).repeat(2000));
                all
            }),
        ),
        ("DATA without HEADERS", Box::new(|stream| h2_frame(DATA, 0, stream, b"data"))),
        ("HEADERS on no stream of ours", Box::new(move |_| begin(99))),
        ("a broken compression", Box::new(|stream| h2_frame(HEADERS, END_HEADERS, stream, &[0xff; 20]))),
        ("no status", Box::new(|stream| h2_frame(HEADERS, END_HEADERS, stream, &hpack("x-a", "1")))),
        (
            "an upper-case name",
            Box::new(|stream| h2_frame(HEADERS, END_HEADERS, stream, &[STATUS_200, &hpack("X-A", "1")].concat())),
        ),
        (
            "more DATA than announced",
            Box::new(|stream| {
                let head = [STATUS_200, &hpack("content-length", "1")].concat();
                let mut all = h2_frame(HEADERS, END_HEADERS, stream, &head);
                all.extend(h2_frame(DATA, END_STREAM, stream, b"two"));
                all
            }),
        ),
        (
            "less DATA than announced",
            Box::new(|stream| {
                let head = [STATUS_200, &hpack("content-length", "100000")].concat();
                let mut all = h2_frame(HEADERS, END_HEADERS, stream, &head);
                all.extend(h2_frame(DATA, END_STREAM, stream, b"two"));
                all
            }),
        ),
    ];
    for (name, make) in cases {
        playing.sends(make);
        assert_broken(stage, name);
    }
    // Floods that are legal frame by frame: memory stays where it was, and the next exchange goes well.
    let before = resident(stage);
    for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[0; 8][..]), (DATA, &[][..])] {
        let payload = payload.to_vec();
        playing.sends(move |stream| {
            let of = if kind == DATA { stream } else { 0 };
            let mut all = begin(stream);
            all.extend(h2_frame(kind, 0, of, &payload).repeat(200_000));
            all.extend(h2_frame(DATA, END_STREAM, stream, b"end"));
            all
        });
        let mut wire = stage.open(ACME);
        wire.send(get(ACME, "/").as_bytes());
        let answered = answer_or_end(&mut wire, false);
        assert!(matches!(answered.status, 0 | 200 | 502), "{answered:?}");
    }
    let grown = resident(stage).saturating_sub(before);
    println!("floods of 600,000 frames: {grown} KiB more");
    assert!(grown < 48 * 1024, "{grown} KiB");
    stage.upstream.mend(ACME);
    stage.open(ACME).ask(&get(ACME, "/")).assert_status(200);
}

/// Resident memory of the daemon in KiB.
pub fn resident(stage: &Stage) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
