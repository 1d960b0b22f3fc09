use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

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

fn codings(text: &'static str) -> Codings {
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_ENCODING, http::HeaderValue::from_static(text));
    Codings::read(&fields).unwrap().unwrap()
}

fn drain(decoder: &mut Decoder, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    while let Some(piece) = decoder.next()? {
        assert!(!piece.is_empty() && piece.len() <= layer::PIECE);
        out.extend_from_slice(&piece);
    }
    Ok(())
}

fn through<'a>(name: &'static str, chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), DecodeError>) {
    let mut decoder = Decoder::new(&codings(name));
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.feed(Bytes::copy_from_slice(chunk));
        if let Err(error) = drain(&mut decoder, &mut out) {
            return (out, Err(error));
        }
    }
    let end = decoder.finish();
    (out, end)
}

type Encode = fn(&[u8]) -> Vec<u8>;

const ALL: [(&str, Encode); 7] = [
    ("gzip", gzip),
    ("X-GZip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("br", brotli),
    ("zstd", zstd),
    ("gzip, gzip", |text| gzip(&gzip(text))),
];

fn text(length: usize) -> Vec<u8> {
    let line = |n: usize| format!("{{\"n\": {n}, \"square\": {}}}\n", n * n);
    (0..).flat_map(|n| line(n).into_bytes()).take(length).collect()
}

#[test]
fn takes_every_coding_off_at_every_cut() {
    // EX-05
    let plain = text(700);
    for (name, encode) in ALL {
        let coded = encode(&plain);
        for cut in 0..=coded.len() {
            let (head, tail) = coded.split_at(cut);
            let (out, end) = through(name, [head, tail]);
            assert_eq!((out, end), (plain.clone(), Ok(())), "{name} cut at {cut}");
        }
        let (out, end) = through(name, coded.chunks(1));
        assert_eq!((out, end), (plain.clone(), Ok(())), "{name} in single bytes");
    }
}

#[test]
fn an_end_in_the_middle_is_never_a_clean_one() {
    // EX-05
    let plain = text(700);
    for (name, encode) in ALL {
        let coded = encode(&plain);
        for cut in 1..coded.len() {
            let (out, end) = through(name, [&coded[..cut]]);
            assert_eq!(end, Err(DecodeError::Truncated), "{name} cut at {cut}");
            assert!(plain.starts_with(&out), "{name} cut at {cut}");
        }
        assert_eq!(through(name, []), (Vec::new(), Ok(())), "{name} without a byte");
        assert_eq!(through(name, [&encode(b"")[..]]), (Vec::new(), Ok(())), "{name} of nothing");
    }
}

#[test]
fn several_members_are_one_content_and_anything_else_behind_the_end_is_refused() {
    // EX-05
    let (one, two) = (text(100), text(300));
    for (name, encode) in ALL {
        let coded = [encode(&one), encode(&two)].concat();
        for chunk in [1, 7, coded.len()] {
            let (out, end) = through(name, coded.chunks(chunk));
            match name {
                "deflate" | "br" => assert_eq!((out, end), (one.clone(), Err(DecodeError::Leftover)), "{name}"),
                _ => assert_eq!((out, end), ([&one[..], &two].concat(), Ok(())), "{name} by {chunk}"),
            }
        }
        for garbage in [&b"garbage"[..], &[0; 20]] {
            let coded = [encode(&one), garbage.to_vec()].concat();
            let (out, end) = through(name, [&coded[..]]);
            assert!(matches!(end, Err(DecodeError::Leftover | DecodeError::Malformed)), "{name}: {end:?}");
            assert!(one.starts_with(&out), "{name}");
        }
    }
}

#[test]
fn what_is_not_coded_as_it_says_is_malformed() {
    for (name, _) in ALL {
        let (_, end) = through(name, [&b"{\"plain\": \"text, however long it may be, and longer still\"}"[..]]);
        assert!(end.is_err(), "{name}");
    }
    // A changed byte is seen where the coding has a sum of its own.
    let mut coded = gzip(&text(700));
    let at = coded.len() - 6;
    coded[at] ^= 1;
    assert_eq!(through("gzip", [&coded[..]]).1, Err(DecodeError::Malformed));
}

#[test]
fn a_flushed_event_comes_out_at_once() {
    // EX-05: an event's bytes are there as soon as its compressed bytes are.
    fn check(name: &'static str, mut encode: impl FnMut(&str) -> Vec<u8>) {
        let mut decoder = Decoder::new(&codings(name));
        for number in 0..50 {
            let event = format!("data: token-{number}\n\n");
            decoder.feed(encode(&event).into());
            let mut out = Vec::new();
            drain(&mut decoder, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), event, "{name}");
        }
    }
    let mut gz = GzEncoder::new(Vec::new(), Compression::default());
    check("gzip", |event| {
        gz.write_all(event.as_bytes()).unwrap();
        gz.flush().unwrap();
        std::mem::take(gz.get_mut())
    });
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    check("deflate", |event| {
        raw.write_all(event.as_bytes()).unwrap();
        raw.flush().unwrap();
        std::mem::take(raw.get_mut())
    });
    let mut zs = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    check("zstd", |event| {
        zs.write_all(event.as_bytes()).unwrap();
        zs.flush().unwrap();
        std::mem::take(zs.get_mut())
    });
    let mut br = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    check("br", |event| {
        br.write_all(event.as_bytes()).unwrap();
        br.flush().unwrap();
        std::mem::take(br.get_mut())
    });
}

#[test]
fn a_bomb_is_given_up_before_it_has_unfolded() {
    // DO-11
    let nothing = vec![0u8; 32 * 1024 * 1024];
    for (name, encode) in ALL {
        let bomb = encode(&nothing);
        let (out, end) = through(name, bomb.chunks(1024));
        assert_eq!(end, Err(DecodeError::Ratio), "{name} of {} bytes", bomb.len());
        let most = 1024 * 1024 + 200 * bomb.len().max(1024);
        assert!(out.len() <= most && out.len() < nothing.len(), "{name}: {} bytes", out.len());
    }
    // What unfolds a lot and is small all the same passes.
    let (out, end) = through("gzip", [&gzip(&nothing[..1024 * 1024])[..]]);
    assert_eq!((out.len(), end), (1024 * 1024, Ok(())));
}

#[test]
fn refuses_windows_that_would_take_more_memory_than_the_formats_ask_for() {
    // DO-11
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(24).unwrap();
    encoder.write_all(&text(40 * 1024)).unwrap();
    encoder.flush().unwrap();
    let wide = encoder.finish().unwrap();
    assert_eq!(through("zstd", [&wide[..]]), (Vec::new(), Err(DecodeError::Malformed)));
    let params = brotli::enc::BrotliEncoderParams { large_window: true, lgwin: 28, ..Default::default() };
    let mut wide = Vec::new();
    brotli::BrotliCompress(&mut &text(40 * 1024)[..], &mut wide, &params).unwrap();
    assert_eq!(through("br", [&wide[..]]), (Vec::new(), Err(DecodeError::Malformed)));
}

#[test]
fn reads_the_field_as_rfc_9110_has_it() {
    // EX-06
    let read = |values: &[&'static str]| {
        let mut fields = HeaderMap::new();
        for value in values {
            fields.append(CONTENT_ENCODING, http::HeaderValue::from_static(value));
        }
        Codings::read(&fields)
    };
    let some = |list: &[Coding]| Ok(Some(Codings(list.to_vec())));
    for (values, expected) in [
        (&[][..], Ok(None)),
        (&["identity"], Ok(None)),
        (&[" , Identity,"], Ok(None)),
        (&["GZIP"], some(&[Coding::Gzip])),
        (&["br", "x-gzip"], some(&[Coding::Brotli, Coding::Gzip])),
        (&["deflate ,\tzstd"], some(&[Coding::Deflate, Coding::Zstd])),
        (&["gzip, gzip, gzip"], Err(DecodeError::Unknown)),
        (&["gzip;q=1"], Err(DecodeError::Unknown)),
        (&["gzip", "x-foo"], Err(DecodeError::Unknown)),
        (&["dcb"], Err(DecodeError::Unknown)),
        (&["dcz"], Err(DecodeError::Unknown)),
        (&["compress"], Err(DecodeError::Unknown)),
        (&["aes128gcm"], Err(DecodeError::Unknown)),
    ] {
        assert_eq!(read(values), expected, "{values:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_cut_does_not_matter(
        plain in proptest::collection::vec(0u8..6, 0..70_000),
        which in 0usize..ALL.len(),
        size in 1usize..3000,
    ) {
        let (name, encode) = ALL[which];
        let coded = encode(&plain);
        prop_assert_eq!(through(name, coded.chunks(size)), (plain, Ok(())));
    }

    #[test]
    fn no_input_makes_it_run_on(noise in proptest::collection::vec(any::<u8>(), 0..4000), which in 0usize..ALL.len(),
        flip in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (name, encode) = ALL[which];
        let _ = through(name, noise.chunks(100));
        let mut coded = encode(&noise);
        let at = flip.index(coded.len());
        coded[at] ^= 1 << bit;
        let (out, _) = through(name, coded.chunks(100));
        prop_assert!(out.len() <= 1024 * 1024 + 200 * coded.len());
    }
}
