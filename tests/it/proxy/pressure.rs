//! Bodies of any length with a peer of any speed: what is in flight is bounded, and slow heads are cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use super::hostile_h2::resident;
use super::{ACME, Stage, get};
use crate::harness::{H2, flowing};
use crate::upstream::play::Scene;
use crate::upstream::{Defect, Offer, Play, runtime};

/// More than all buffers of a path hold together, by far.
const BLOCK: usize = 64 * 1024;
/// What may be on its way between two ends that do not read: sockets' buffers and windows.
const IN_FLIGHT: u64 = 24 * 1024 * 1024;
/// What that may cost in memory, in KiB.
const MEMORY: u64 = 24 * 1024;

/// Waits until a count stands still.
fn settled(count: &AtomicU64) -> u64 {
    let mut last = count.load(Ordering::Relaxed);
    crate::harness::until("a standstill", || {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(700) {
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let now = count.load(Ordering::Relaxed);
        let still = now == last && now > 0;
        last = now;
        still.then_some(now)
    })
}

#[test]
fn a_download_waits_for_an_agent_that_does_not_read() {
    let stage = Stage::new();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(move |mut scene: Scene| {
            let count = Arc::clone(&count);
            async move {
                scene.head().await;
                scene.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                let block = [format!("{BLOCK:x}\r\n").into_bytes(), vec![b'.'; BLOCK], b"\r\n".to_vec()].concat();
                while scene.send(&block).await {
                    count.fetch_add(BLOCK as u64, Ordering::Relaxed);
                }
            }
        })),
    );
    stage.get("api.other.example", "/").assert_status(200);
    let before = resident(&stage);
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/").as_bytes());
    let (over1, grown1) = (settled(&sent), resident(&stage).saturating_sub(before));
    drop(wire);
    sent.store(0, Ordering::Relaxed);
    let (over2, grown2) = runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let reply = h2.get("/").await.unwrap();
        let over2 = tokio::task::block_in_place(|| settled(&sent));
        let grown = resident(&stage).saturating_sub(before);
        drop(reply);
        (over2, grown)
    });
    println!(
        "download: {} KiB in flight over HTTP/1.1 and {} KiB over HTTP/2; {grown1} and {grown2} KiB more memory",
        over1 / 1024,
        over2 / 1024
    );
    assert!(over1 < IN_FLIGHT && over2 < IN_FLIGHT, "{over1} {over2}");
    assert!(grown1 < MEMORY && grown2 < MEMORY, "{grown1} {grown2}");
}

#[test]
fn an_upload_waits_for_an_upstream_that_does_not_read() {
    // DO-09
    let stage = Stage::new();
    for offer in [Offer::Http1, Offer::Http2] {
        stage.upstream.defect(
            ACME,
            Defect::Plays(Play::new(offer, move |mut scene: Scene| async move {
                if offer == Offer::Http2 {
                    scene.greet().await;
                } else {
                    scene.head().await;
                }
                std::future::pending::<()>().await;
            })),
        );
        let before = resident(&stage);
        let sent = Arc::new(AtomicU64::new(0));
        let (count, mut wire) = (Arc::clone(&sent), stage.open(ACME));
        let writer = std::thread::spawn(move || {
            wire.send(format!("POST / HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes());
            let block = [format!("{BLOCK:x}\r\n").into_bytes(), vec![b'.'; BLOCK], b"\r\n".to_vec()].concat();
            while wire.try_send(&block).is_ok() && count.load(Ordering::Relaxed) < 4 * IN_FLIGHT {
                count.fetch_add(BLOCK as u64, Ordering::Relaxed);
            }
        });
        let over1 = settled(&sent);
        let grown = resident(&stage).saturating_sub(before);
        println!("upload to {offer:?}: {} KiB in flight; {grown} KiB more memory", over1 / 1024);
        assert!(over1 < IN_FLIGHT && grown < MEMORY, "{over1} {grown}");
        drop(writer);
    }
}

#[test]
fn half_a_gigabyte_leaves_no_trace_in_memory() {
    // DO-13, EX-07
    let stage = Stage::new();
    let total = 512 * 1024 * 1024_u64;
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(move |mut scene: Scene| async move {
            scene.head().await;
            scene.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")).await;
            let block = vec![b'.'; BLOCK];
            for _ in 0..total / BLOCK as u64 {
                if !scene.send(&block).await {
                    return;
                }
            }
            scene.drain().await;
        })),
    );
    let before = resident(&stage);
    let begun = Instant::now();
    let got = runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let mut reply = h2.get("/").await.unwrap();
        let mut got = 0u64;
        while let Some(frame) = http_body_util::BodyExt::frame(&mut reply.body).await {
            got += frame.unwrap().into_data().unwrap().len() as u64;
        }
        got
    });
    let grown = resident(&stage).saturating_sub(before);
    println!("{} MiB in {:?}, {grown} KiB more memory", got >> 20, begun.elapsed());
    assert_eq!(got, total);
    assert!(grown < MEMORY, "{grown}");
}

#[test]
fn a_long_upload_leaves_no_trace_in_memory() {
    let stage = Stage::new();
    let total = 128 * 1024 * 1024_usize;
    stage.upstream.defect(
        ACME,
        Defect::Plays(Play::http1(move |mut scene: Scene| async move {
            scene.head().await;
            // Chunks are cut as they come, so what is counted are the bytes of the body alone.
            let mut got = 0;
            let mut buffer = vec![0; BLOCK];
            while got < total {
                let count = scene.stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the upload ended after {got} bytes");
                got += memchr::memchr_iter(b'.', &buffer[..count]).count();
            }
            scene.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            scene.drain().await;
        })),
    );
    let begun = Instant::now();
    let before = resident(&stage);
    runtime().block_on(async {
        let mut h2 = H2::open(&stage.home, stage.daemon.proxy, &stage.token, ACME).await;
        let (frames, body) = flowing();
        let block = bytes::Bytes::from(vec![b'.'; BLOCK]);
        for _ in 0..total / BLOCK {
            frames.send(Ok(Frame::data(block.clone()))).unwrap();
        }
        drop(frames);
        let request = h2.request(Method::POST, "/").body(body).unwrap();
        let ended = h2.send(request).await.unwrap().end().await;
        assert!(ended.broken.is_none() && ended.bytes == b"ok", "{ended:?}");
    });
    let grown = resident(&stage).saturating_sub(before);
    println!("{} MiB up in {:?}, {grown} KiB more memory", total >> 20, begun.elapsed());
    // Up to 16 MiB of a body are held for another attempt, until it turns out to be longer.
    assert!(grown < MEMORY + 16 * 1024, "{grown}");
}

#[test]
fn a_head_that_dribbles_is_cut_off() {
    // DO-01, on the listener and inside a tunnel; the times themselves are held by the unit's own tests.
    let stage = Stage::new();
    let begun = Instant::now();
    let (mut plain, mut inside) = (stage.wire(), stage.open(ACME));
    inside.ask(&get(ACME, "/")).assert_status(200);
    for wire in [&mut plain, &mut inside] {
        wire.send(b"GET / HTTP/1.1\r\nX-Slow: ");
    }
    assert!(plain.rest().is_empty() && inside.rest().is_empty());
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(9), "{took:?}");
    // A tunnel is no head, however long it is silent.
    let mut tunnel = stage.tunnel("tunnel.example:443");
    tunnel.send(b"\x16");
    stage.get(ACME, "/").assert_status(200);
}
