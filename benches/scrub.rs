//! How fast responses are searched, and how fast they are decoded before that.
//!
//! `cargo bench --bench scrub`, or with `--profile ci` for a build that takes a minute less.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use keyferry::scrub::{Codings, Decoder, Item, Patterns, Scrubber};
use keyferry::secret::Secret;

/// A read of hyper's, at most.
const CHUNK: usize = 16 * 1024;

fn secret(length: usize) -> Arc<Secret> {
    let mut random = vec![0u8; length];
    getrandom::fill(&mut random).unwrap();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    Arc::new(Secret::new(random.iter().filter_map(|byte| letters.get(usize::from(byte & 63))).copied().collect()))
}

fn patterns(count: usize) -> Arc<Patterns> {
    let item = |_| Item { secret: secret(100), replacement: "sk-keyferry-stand-in".to_owned() };
    Patterns::new(&(0..count).map(item).collect::<Vec<_>>())
}

/// Model output as it streams: small events.
fn events() -> Vec<Bytes> {
    let event = |n: usize| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{n},\"delta\":{{\"type\":\"text_delta\",\"text\":\" word\"}}}}\n\n"
        )
    };
    (0..2000).map(|n| Bytes::from(event(n))).collect()
}

/// A long answer in JSON, and random bytes in base64, which look most like what is searched for.
fn whole(kind: &str) -> Vec<Bytes> {
    let text: String = match kind {
        "json" => {
            (0..20_000).map(|n| format!("{{\"id\": {n}, \"name\": \"item {}\", \"ok\": true}},\n", n * 7)).collect()
        }
        _ => {
            use base64::Engine as _;
            let mut random = vec![0u8; 750_000];
            getrandom::fill(&mut random).unwrap();
            base64::engine::general_purpose::STANDARD.encode(random)
        }
    };
    text.into_bytes().chunks(CHUNK).map(Bytes::copy_from_slice).collect()
}

fn run(patterns: &Arc<Patterns>, chunks: &[Bytes]) -> usize {
    let mut scrubber = Scrubber::new(Arc::clone(patterns));
    let mut size = 0;
    for chunk in chunks {
        size += scrubber.push(chunk.clone()).len();
    }
    size + scrubber.finish().len()
}

fn scrubbing(c: &mut Criterion) {
    let mut group = c.benchmark_group("scrub");
    for (name, chunks) in [("events", events()), ("json", whole("json")), ("base64", whole("base64"))] {
        let size = chunks.iter().map(Bytes::len).sum::<usize>();
        group.throughput(Throughput::Bytes(size as u64));
        for count in [1, 3] {
            let patterns = patterns(count);
            group.bench_function(format!("{name}, {count} secrets"), |b| b.iter(|| run(&patterns, black_box(&chunks))));
        }
    }
    group.finish();
    c.bench_function("patterns of one secret", |b| b.iter(|| patterns(1)));
}

fn decoding(c: &mut Criterion) {
    let plain: Vec<u8> = whole("json").concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).unwrap();
    let mut br = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 5, ..Default::default() };
    brotli::BrotliCompress(&mut plain.as_slice(), &mut br, &params).unwrap();
    let zstd = zstd::stream::encode_all(plain.as_slice(), 3).unwrap();
    let patterns = patterns(1);
    let mut group = c.benchmark_group("decode and scrub");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    for (name, coded) in [("gzip", gzip.finish().unwrap()), ("br", br), ("zstd", zstd)] {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        let codings = Codings::read(&fields).unwrap().unwrap();
        let chunks: Vec<Bytes> = coded.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                let (mut decoder, mut scrubber) = (Decoder::new(&codings), Scrubber::new(Arc::clone(&patterns)));
                let mut size = 0;
                for chunk in &chunks {
                    decoder.feed(chunk.clone());
                    while let Some(piece) = decoder.next().unwrap() {
                        size += scrubber.push(piece).len();
                    }
                }
                decoder.finish().unwrap();
                size
            })
        });
    }
    group.finish();
}

criterion_group!(benches, scrubbing, decoding);
criterion_main!(benches);
