//! Answers that come compressed although nothing of the kind was asked for: they are taken apart, searched, and passed
//! on plain; what cannot be taken apart is not passed on.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::{ACME, Stage, get};
use crate::upstream::{Answer, Defect, Gate, Rule};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let params = brotli::enc::BrotliEncoderParams { quality: 4, ..Default::default() };
    brotli::BrotliCompress(&mut &text[..], &mut out, &params).unwrap();
    out
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(text, 3).unwrap()
}

type Encode = fn(&[u8]) -> Vec<u8>;

const ALL: [(&str, Encode); 7] = [
    ("gzip", gzip),
    ("x-gzip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("br", brotli),
    ("zstd", zstd),
    ("gzip, gzip", |text| gzip(&gzip(text))),
];

/// Compresses a little, as text does.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from((state >> 33) % 20).unwrap()
    };
    (0..length).map(|_| next()).collect()
}

/// In pieces, so that the length is not known.
fn chunked(coding: &str, kind: &str, pieces: Vec<Bytes>) -> Answer {
    let fields = [("content-type", kind), ("content-encoding", coding)];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Answer::Pieces { status: 200, fields, pieces, gate: None }
}

fn whole(coding: &str, body: Vec<u8>) -> Answer {
    Answer::text(200, body).with("content-encoding", coding).with("etag", "\"of-the-coded-bytes\"")
}

#[test]
fn an_echo_is_found_in_every_content_coding() {
    // EX-05, EX-26
    let stage = Stage::new();
    let text = format!("{{\"you sent\": \"Bearer {}\", \"and\": \"more\"}}", stage.acme.as_str());
    let mut wire = stage.open(ACME);
    for (number, (coding, encode)) in ALL.iter().enumerate() {
        let coded = encode(text.as_bytes());
        let (known, streamed) = (format!("/known/{number}"), format!("/streamed/{number}"));
        stage.upstream.script(Rule::always(whole(coding, coded.clone())).path(&known));
        let pieces = coded.chunks(1).map(Bytes::copy_from_slice).collect();
        stage.upstream.script(Rule::always(chunked(coding, "application/json", pieces)).path(&streamed));
        for path in [&known, &streamed] {
            let answered = wire.ask(&get(ACME, path));
            answered.assert_status(200);
            assert!(answered.complete, "{coding} {path}");
            assert_eq!(answered.value("content-encoding"), None, "{coding} {path}");
            assert_eq!(answered.value("etag"), None, "{coding} {path}");
            let json = answered.json();
            let said = json["you sent"].as_str().unwrap();
            assert!(said.starts_with("Bearer ") && said.contains("keyferry"), "{coding} {path}: {said}");
            assert_eq!(json["and"], "more");
        }
    }
}

#[test]
fn an_echo_is_found_at_every_cut_of_a_coded_answer() {
    // EX-04, EX-05
    let stage = Stage::new();
    let coded = gzip(format!("[{}]", stage.acme.as_str()).as_bytes());
    let mut wire = stage.open(ACME);
    for cut in 1..coded.len() {
        let (head, tail) = coded.split_at(cut);
        let pieces = vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
        stage.upstream.clear_script();
        stage.upstream.script(Rule::always(chunked("gzip", "text/plain", pieces)).path("/cut"));
        let answered = wire.ask(&get(ACME, "/cut"));
        let text = answered.text();
        assert!(text.starts_with('[') && text.ends_with(']') && text.contains("keyferry"), "{cut}: {text}");
    }
}

#[test]
fn what_is_coded_arrives_as_it_was_before() {
    // EX-05
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let plain = noise(3_000_000);
    for (number, (coding, encode)) in ALL.iter().enumerate() {
        let path = format!("/large/{number}");
        stage.upstream.script(Rule::always(whole(coding, encode(&plain))).path(&path));
        let answered = wire.ask(&get(ACME, &path));
        answered.assert_status(200);
        assert!(answered.complete && answered.body == plain, "{coding}");
    }
    stage.upstream.script(Rule::always(whole("gzip", Vec::new())).path("/empty"));
    let answered = wire.ask(&get(ACME, "/empty"));
    assert_eq!((answered.status, answered.body.len()), (200, 0));
    let head = wire.ask(&format!("HEAD /large/0 HTTP/1.1\r\nHost: {ACME}\r\n\r\n"));
    head.assert_status(200);
    assert_eq!((head.value("content-encoding"), head.value("content-length")), (None, None), "as GET is answered");
    wire.ask(&get(ACME, "/")).assert_status(200);
}

#[test]
fn several_members_are_one_answer_and_garbage_behind_the_end_is_an_error() {
    // EX-05
    let stage = Stage::new();
    let (head, tail) = stage.acme.as_str().split_at(20);
    let members = [gzip(format!("[{head}").as_bytes()), gzip(format!("{tail}]").as_bytes())].concat();
    stage.upstream.script(Rule::always(whole("gzip", members)).path("/members"));
    let text = stage.get(ACME, "/members").text();
    assert!(text.starts_with('[') && text.ends_with(']') && text.contains("keyferry"), "{text}");
    for (number, (coding, encode)) in ALL.iter().enumerate() {
        let path = format!("/garbage/{number}");
        let coded = [encode(b"a text"), b"and something behind it".to_vec()].concat();
        stage.upstream.script(Rule::always(whole(coding, coded)).path(&path));
        stage.get(ACME, &path).assert_refused(502, "response_unscannable");
    }
}

#[test]
fn a_coding_that_cannot_be_taken_off_is_refused() {
    // EX-06
    let mut stage = Stage::new();
    for (number, coding) in
        ["dcb", "dcz", "compress", "aes128gcm", "x-foo", "gzip, x-foo", "gzip, gzip, gzip", "gzip;q=1"]
            .iter()
            .enumerate()
    {
        let path = format!("/unknown/{number}");
        stage.upstream.script(Rule::always(whole(coding, gzip(b"text"))).path(&path));
        stage.get(ACME, &path).assert_refused(502, "response_unscannable");
    }
    // What is not coded as it says is no better.
    for (number, (coding, _)) in ALL.iter().enumerate() {
        let path = format!("/false/{number}");
        stage.upstream.script(Rule::always(whole(coding, b"plain all the same".to_vec())).path(&path));
        stage.get(ACME, &path).assert_refused(502, "response_unscannable");
        let path = format!("/false/streamed/{number}");
        let answer = chunked(coding, "application/json", vec![Bytes::from_static(b"plain all the same")]);
        stage.upstream.script(Rule::always(answer).path(&path));
        stage.get(ACME, &path).assert_refused(502, "response_unscannable");
    }
    stage.stop();
    let line = &stage.home.access_log()[0];
    assert_eq!(line["error"], "response_unscannable", "{line}");
}

#[test]
fn a_coding_that_the_upstream_hides_is_taken_off_all_the_same() {
    // EX-05: `Connection` may nominate any field; the body is what it is.
    let stage = Stage::new();
    let coded = gzip(format!("[{}]", stage.acme.as_str()).as_bytes());
    for nominated in ["content-encoding", "content-encoding, content-length"] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close, {nominated}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            coded.len()
        );
        stage.upstream.defect(ACME, Defect::Raw([head.as_bytes(), &coded].concat().into()));
        let answered = stage.get(ACME, "/");
        assert!(answered.text().contains("keyferry"), "{nominated}: {answered:?}");
    }
    // A transfer coding other than chunked is nothing that HTTP/1.1 clients have to know.
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: gzip, chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n", coded.len());
    let raw = [head.as_bytes(), chunk.as_bytes(), &coded, b"\r\n0\r\n\r\n"].concat();
    stage.upstream.defect(ACME, Defect::Raw(raw.into()));
    stage.get(ACME, "/").assert_refused(502, "upstream_protocol_error");
}

#[test]
fn a_compressed_event_is_delivered_when_its_bytes_have_come() {
    // EX-05
    let stage = Stage::new();
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    let mut zs = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    let (mut gzips, mut zstds, mut brotlis) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..5 {
        let event = format!("data: token-{number}\n\n");
        gz.write_all(event.as_bytes()).unwrap();
        gz.flush().unwrap();
        gzips.push(Bytes::from(std::mem::take(gz.get_mut())));
        zs.write_all(event.as_bytes()).unwrap();
        zs.flush().unwrap();
        zstds.push(Bytes::from(std::mem::take(zs.get_mut())));
        br.write_all(event.as_bytes()).unwrap();
        br.flush().unwrap();
        brotlis.push(Bytes::from(std::mem::take(br.get_mut())));
    }
    for (coding, pieces) in [("gzip", gzips), ("zstd", zstds), ("br", brotlis)] {
        let path = format!("/events/{coding}");
        let gate = Gate::closed();
        let mut answer = chunked(coding, "text/event-stream; charset=utf-8", pieces);
        if let Answer::Pieces { gate: place, .. } = &mut answer {
            *place = Some(gate.clone());
        }
        stage.upstream.script(Rule::always(answer).path(&path));
        let mut wire = stage.open(ACME);
        wire.send(get(ACME, &path).as_bytes());
        for number in 0..5 {
            // The provider sends the next event only when this one has come: a held-back stream would never end.
            wire.until(format!("token-{number}\n\n").as_bytes());
            gate.open();
        }
        // The stream then ends without the end of its coding.
        let rest = wire.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{coding}: {:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn an_answer_that_breaks_off_within_its_coding_is_seen_as_broken() {
    // EX-05
    let stage = Stage::new();
    let plain = noise(300_000);
    for (number, (coding, encode)) in ALL.iter().enumerate() {
        let path = format!("/short/{number}");
        let mut coded = encode(&plain);
        coded.truncate(coded.len() - 3);
        let pieces = coded.chunks(1000).map(Bytes::copy_from_slice).collect();
        stage.upstream.script(Rule::always(chunked(coding, "text/plain", pieces)).path(&path));
        let answered = stage.get(ACME, &path);
        assert!(answered.status == 502 || !answered.complete, "{coding}: {} bytes", answered.body.len());
        if let Some(finished) = stage.curl(&["--http2", "-o", "/dev/null", &format!("https://{ACME}{path}")]) {
            assert!(finished.code() != 0 || answered.status == 502, "{coding}");
        }
    }
}

#[test]
fn a_bomb_is_answered_or_broken_off_and_never_unfolded() {
    // DO-11
    let mut stage = Stage::new();
    let nothing = vec![0u8; 64 * 1024 * 1024];
    for (number, (coding, encode)) in ALL.iter().enumerate() {
        let (known, streamed) = (format!("/bomb/{number}"), format!("/bomb/streamed/{number}"));
        let bomb = encode(&nothing);
        stage.upstream.script(Rule::always(whole(coding, bomb.clone())).path(&known));
        let pieces = bomb.chunks(64).map(Bytes::copy_from_slice).collect();
        stage.upstream.script(Rule::always(chunked(coding, "text/plain", pieces)).path(&streamed));
        let answered = stage.get(ACME, &known);
        answered.assert_refused(502, "response_unscannable");
        let answered = stage.get(ACME, &streamed);
        assert!(!answered.complete, "{coding}: {} bytes", answered.body.len());
        assert!(answered.body.len() <= 1024 * 1024 + 200 * bomb.len(), "{coding}: {} bytes", answered.body.len());
    }
    stage.stop();
}

#[test]
fn nothing_is_decoded_where_nothing_is_searched() {
    let config = super::CONFIG
        .replace("routes:\n", "routes:\n  - {host: api.acme.example, action: allow, provider: acme, scrub: off}\n");
    let stage = Stage::with(&config, |_, _| {});
    let coded = gzip(b"the same bytes");
    stage.upstream.script(Rule::always(whole("gzip", coded.clone())).path("/coded"));
    let answered = stage.get(ACME, "/coded");
    assert_eq!(answered.value("content-encoding"), Some("gzip"));
    assert_eq!(answered.value("etag"), Some("\"of-the-coded-bytes\""));
    assert_eq!(answered.body, coded);
}

#[test]
fn an_error_in_a_content_coding_is_judged_by_what_it_says() {
    // EX-05: the body decides whether a credential rests, and it is looked at plain.
    let stage = Stage::new();
    let text = format!("{{\"error\": \"no such thing for {}\"}}", stage.acme.as_str());
    let answer = Answer::text(404, gzip(text.as_bytes())).with("content-encoding", "gzip");
    stage.upstream.script(Rule::always(answer).path("/missing"));
    let answered = stage.get(ACME, "/missing");
    answered.assert_status(404);
    assert!(answered.json()["error"].as_str().unwrap().contains("keyferry"), "{}", answered.text());
}
