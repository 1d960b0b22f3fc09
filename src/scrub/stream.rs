//! The search over a stream, in whatever pieces it arrives.
//!
//! Invariant: the output is the same for every cut of the same input, and no byte waits unless it could belong to a
//! secret.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::framing::{Framing, Messages};
use super::patterns::{Fill, Patterns, Span, merge};

/// Covers secrets in one stream.
pub struct Scrubber {
    patterns: Arc<Patterns>,
    /// What has arrived and not left.
    held: Bytes,
    /// How much of `held` belongs to an occurrence whose beginning has left.
    carried: usize,
    hits: u64,
    spans: Vec<Span>,
    messages: Option<Messages>,
    fill: Fill,
}

impl Scrubber {
    /// For a new stream.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self::framed(patterns, Framing::None)
    }

    /// For a new stream of messages: nothing waits beyond the end of one, as the peer may answer it first.
    #[must_use]
    pub fn framed(patterns: Arc<Patterns>, framing: Framing) -> Self {
        let messages = framing.messages();
        // The length of a message is ahead of what would change it.
        let fill = if messages.is_some() { Fill::Everywhere } else { Fill::SameLength };
        Self { patterns, held: Bytes::new(), carried: 0, hits: 0, spans: Vec::new(), messages, fill }
    }

    /// Takes the next piece and gives what is settled. Nothing is copied when nothing is found or held back.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.patterns.is_empty() || chunk.is_empty() {
            return chunk;
        }
        match self.messages.take() {
            None => self.piece(chunk),
            Some(mut messages) => {
                let out = self.by_message(chunk, &mut messages);
                self.messages = Some(messages);
                out
            }
        }
    }

    fn by_message(&mut self, mut chunk: Bytes, messages: &mut Messages) -> Bytes {
        let mut out = BytesMut::new();
        loop {
            let (length, ended) = messages.next(&chunk);
            let piece = chunk.split_to(length.min(chunk.len()));
            let ready = self.piece(piece);
            let rest = if ended { self.finish() } else { Bytes::new() };
            if out.is_empty() && rest.is_empty() && chunk.is_empty() {
                return ready;
            }
            out.extend_from_slice(&ready);
            out.extend_from_slice(&rest);
            if chunk.is_empty() {
                return out.freeze();
            }
        }
    }

    fn piece(&mut self, chunk: Bytes) -> Bytes {
        let text = self.join(chunk);
        let live = self.patterns.live_from(&text);
        self.settle(text, live)
    }

    /// Ends the stream and gives what was held back.
    pub fn finish(&mut self) -> Bytes {
        let text = std::mem::take(&mut self.held);
        if text.is_empty() {
            return text;
        }
        let end = text.len();
        self.settle(text, end)
    }

    /// How many places were covered so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    fn join(&mut self, chunk: Bytes) -> Bytes {
        if self.held.is_empty() {
            return chunk;
        }
        let held = std::mem::take(&mut self.held);
        let mut text = BytesMut::with_capacity(held.len().saturating_add(chunk.len()));
        text.extend_from_slice(&held);
        text.extend_from_slice(&chunk);
        text.freeze()
    }

    /// Gives the part of `text` before `live`, and keeps the rest.
    fn settle(&mut self, text: Bytes, live: usize) -> Bytes {
        let mut spans = std::mem::take(&mut self.spans);
        spans.clear();
        self.patterns.find(&text, &mut spans);
        if self.carried > 0 {
            spans.push(Span { start: 0, end: self.carried, whole: None });
            merge(&mut spans);
            // What begins before `text` is no whole value, even if one begins just here.
            if let Some(first) = spans.first_mut() {
                first.whole = None;
            }
        }
        let mut until = live;
        if let Some(across) = spans.iter().find(|span| span.start < live && live < span.end) {
            // A whole value that something may still overlap waits, as its replacement depends on it. What is only
            // masked can leave as far as it is settled.
            if across.whole.is_some() {
                until = across.start;
            }
        }
        let out = self.give(&text, until, &spans);
        self.held = if until < text.len() {
            // A copy, as a slice would keep the whole piece in memory until the next one comes.
            Bytes::copy_from_slice(text.get(until..).unwrap_or_default())
        } else {
            Bytes::new()
        };
        let left = |span: &&Span| span.start < until || span.start == 0 && self.carried > 0;
        let across = spans.iter().filter(left).find(|span| until < span.end);
        self.carried = across.map_or(0, |span| span.end.saturating_sub(until));
        self.spans = spans;
        out
    }

    fn give(&mut self, text: &Bytes, until: usize, spans: &[Span]) -> Bytes {
        let begun = spans.iter().filter(|span| span.start < until).count();
        if begun == 0 {
            return text.slice(..until);
        }
        // A span that was carried over was counted when it began.
        let counted = usize::from(self.carried > 0);
        self.hits = self.hits.saturating_add(u64::try_from(begun.saturating_sub(counted)).unwrap_or(0));
        let mut out = BytesMut::with_capacity(until);
        self.patterns.write(text, 0..until, spans, self.fill, &mut out);
        out.freeze()
    }
}

/// What is held back may be the beginning of a secret.
impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({:?}, {} held, {} hits)", self.patterns, self.held.len(), self.hits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::patterns::Item;
    use super::super::{SHORTEST_SECRET, WINDOW, forms};
    use super::*;
    use crate::secret::Secret;

    fn patterns(secrets: &[(&[u8], &str)]) -> Arc<Patterns> {
        let item = |(secret, replacement): &(&[u8], &str)| Item {
            secret: Arc::new(Secret::new(secret.to_vec())),
            replacement: (*replacement).to_owned(),
        };
        Patterns::new(&secrets.iter().map(item).collect::<Vec<_>>())
    }

    fn through(patterns: &Arc<Patterns>, chunks: &[&[u8]]) -> (Vec<u8>, u64) {
        let mut scrubber = Scrubber::new(patterns.clone());
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&scrubber.finish());
        (out, scrubber.hits())
    }

    /// A value of 51 characters that no text holds by chance, different in every run.
    fn canary() -> String {
        let mut random = [0u8; 30];
        getrandom::fill(&mut random).unwrap();
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let tail: String = random.iter().map(|byte| char::from(letters[usize::from(byte & 63)])).collect();
        format!("sk-ant-api03-{tail}{tail}").chars().take(51).collect()
    }

    /// The definition, word for word and as slow as that: every byte of every occurrence is covered; a group of
    /// overlapping occurrences that is one raw value becomes its replacement.
    fn by_definition(secrets: &[(&[u8], &str)], text: &[u8]) -> (Vec<u8>, u64) {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for (secret, _) in secrets.iter().filter(|(secret, _)| secret.len() >= SHORTEST_SECRET) {
            let mut parts: Vec<Vec<u8>> = forms::encoded(secret).iter().map(|form| form.to_vec()).collect();
            parts.push(secret.to_vec());
            if secret.len() > WINDOW {
                parts.extend(secret.windows(WINDOW).map(<[u8]>::to_vec));
            }
            for part in parts {
                for start in (0..text.len()).filter(|start| text[*start..].starts_with(&part)) {
                    found.push((start, start + part.len()));
                }
            }
        }
        found.sort_unstable();
        let mut groups: Vec<(usize, usize)> = Vec::new();
        for (start, end) in found {
            match groups.last_mut() {
                Some(group) if start < group.1 => group.1 = group.1.max(end),
                _ => groups.push((start, end)),
            }
        }
        let mut out = Vec::new();
        let mut from = 0;
        for (start, end) in &groups {
            out.extend_from_slice(&text[from..*start]);
            let whole = secrets.iter().find(|(secret, _)| secret == &&text[*start..*end]);
            match whole {
                Some((_, replacement)) => out.extend_from_slice(replacement.as_bytes()),
                None => out.extend(std::iter::repeat_n(b'*', end - start)),
            }
            from = *end;
        }
        out.extend_from_slice(&text[from..]);
        (out, groups.len() as u64)
    }

    #[test]
    fn passes_on_the_very_same_bytes_when_there_is_nothing() {
        let mut scrubber = Scrubber::new(patterns(&[(canary().as_bytes(), "x")]));
        let chunk = Bytes::from_static(b"data: {\"type\":\"content_block_delta\"}\n\n");
        let out = scrubber.push(chunk.clone());
        assert_eq!(out.as_ptr(), chunk.as_ptr());
        assert_eq!(out, chunk);
        assert!(scrubber.finish().is_empty());
        let none = Bytes::from_static(b"anything");
        assert_eq!(Scrubber::new(Patterns::none()).push(none.clone()).as_ptr(), none.as_ptr());
    }

    #[test]
    fn holds_back_no_more_than_a_secret_could_begin_with() {
        // EX-04
        let secret = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let cases: [(&[u8], usize); 9] = [
            (b"event\n\n", 0),
            (b"{\"a\":1}", 0),
            (b"....abc", 3),
            (b"....abcdefghijklmnopqrstuvwxyz01234567", 34),
            (b"....xyz", 0),
            (b"....nop", 0),
            (b"....mno", 3),
            (b"....%6", 2),
            (b"....\\u006", 5),
        ];
        for (text, held) in cases {
            let mut scrubber = Scrubber::new(patterns(&[(secret, "x")]));
            let out = scrubber.push(Bytes::copy_from_slice(text));
            assert_eq!(text.len() - out.len(), held, "{}", String::from_utf8_lossy(text));
            assert_eq!(scrubber.finish().len(), held);
        }
    }

    #[test]
    fn takes_out_every_encoding_at_every_cut() {
        // EX-01, EX-04
        use base64::Engine as _;
        let secret = canary();
        let patterns = patterns(&[(secret.as_bytes(), "sk-ant-api03-keyferry-stand-in")]);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut spellings = vec![
            secret.clone(),
            format!("Bearer {secret}"),
            hex.to_uppercase(),
            hex,
            secret.bytes().map(|byte| format!("%{byte:02X}")).collect(),
            secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect(),
            secret[7..31].to_owned(),
            secret[27..].to_owned(),
        ];
        for before in ["", "u", "us", "user:"] {
            spellings.push(base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}")));
            spellings.push(base64::engine::general_purpose::URL_SAFE.encode(format!("{before}{secret}~?>")));
        }
        for spelling in &spellings {
            let text = format!("{{\"echo\": \"{spelling}\", \"more\": 1}}");
            let whole = through(&patterns, &[text.as_bytes()]);
            assert_eq!(whole.1, 1, "{spelling}");
            assert!(whole.0.ends_with(b"\", \"more\": 1}"));
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                assert_eq!(through(&patterns, &[head, tail]), whole, "{spelling} cut at {cut}");
            }
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(through(&patterns, &single), whole, "{spelling} in single bytes");
        }
    }

    #[test]
    fn a_raw_value_becomes_its_stand_in_and_a_part_of_it_stars() {
        let secret = canary();
        let patterns = patterns(&[(secret.as_bytes(), "stand-in")]);
        let text = format!("{secret}{secret} {}", &secret[10..40]);
        let (out, hits) = through(&patterns, &[text.as_bytes()]);
        assert_eq!(String::from_utf8(out).unwrap(), format!("stand-instand-in {}", "*".repeat(30)));
        assert_eq!(hits, 3);
    }

    #[test]
    fn an_occurrence_that_overlaps_one_already_passed_on_is_still_one_with_it() {
        // The last byte of the first percent-escaped form is the first byte of the second; the cut is in between.
        let secret = b"~\n~\\ \"\"\"a/%a \\~\n/ ~";
        let form = b"~%0a~%5c%20%22%22%22a%2f%25a%20%5c~%0a%2f%20~";
        let patterns = patterns(&[(secret, "x")]);
        let text = [&form[..], &form[1..], b"!"].concat();
        let whole = through(&patterns, &[&text]);
        assert_eq!(whole, (format!("{}!", "*".repeat(text.len() - 1)).into_bytes(), 1));
        for cut in 0..text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(through(&patterns, &[head, tail]), whole, "{cut}");
            let (middle, end) = tail.split_at(tail.len().min(7));
            assert_eq!(through(&patterns, &[head, middle, end]), whole, "{cut}");
        }
    }

    #[test]
    fn short_secrets_are_left_alone_and_long_ones_are_found() {
        let long: String =
            (0u32..4000).map(|i| char::from(b'!' + u8::try_from((i * i + i / 7) % 90).unwrap())).collect();
        let patterns = patterns(&[(b"short12", "x"), (long.as_bytes(), "long")]);
        assert_eq!(through(&patterns, &[b"short12"]).0, b"short12");
        assert_eq!(through(&patterns, &[b"<", long.as_bytes(), b">"]).0, b"<long>");
    }

    #[test]
    fn what_waits_stays_bounded_however_secrets_overlap() {
        let secret: Vec<u8> = b"ab".repeat(40);
        let patterns = patterns(&[(&secret, "x")]);
        let mut scrubber = Scrubber::new(patterns.clone());
        let mut given = 0;
        for round in 1..2000usize {
            given += scrubber.push(Bytes::from_static(b"abababab")).len();
            assert!(round * 8 - given <= 2 * patterns.longest());
        }
        assert_eq!(scrubber.hits(), 1);
    }

    fn text_of(alphabet: &'static [u8], len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(alphabet), len)
    }

    /// Parts of the secrets and their encodings in a row: near misses, overlaps and hits.
    fn bodies(secrets: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for secret in &secrets {
            pieces.push(secret.clone());
            pieces.extend(forms::encoded(secret).iter().map(|form| form.to_vec()));
        }
        let part = (proptest::sample::select(pieces), any::<(prop::sample::Index, prop::sample::Index, u8)>());
        let part = part.prop_map(|(piece, (a, b, how))| {
            let (a, b) = (a.index(piece.len() + 1), b.index(piece.len() + 1));
            match how % 4 {
                0 => piece,
                1 => piece[..a].to_vec(),
                2 => piece[a..].to_vec(),
                _ => piece[a.min(b)..a.max(b)].to_vec(),
            }
        });
        proptest::collection::vec(prop_oneof![3 => part, 1 => text_of(b"ab%\\ ", 0..3)], 0..8).prop_map(|p| p.concat())
    }

    fn secrets() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let secret = prop_oneof![
            text_of(b"ab", 6..60),
            text_of(b"abcdefghijklmnopqrstuvwxyz-_0123456789", 8..80),
            text_of(b"a/+\"\\<&\n ~%", 8..40),
            proptest::collection::vec(any::<u8>(), 8..40),
        ];
        let related = (proptest::collection::vec(secret, 1..4), any::<(bool, prop::sample::Index)>());
        related.prop_map(|(mut secrets, (related, at))| {
            // One secret may be a part of another, as a password is of `user:password`.
            let part = secrets.first().filter(|first| related && first.len() > 16).map(|first| {
                let from = at.index(first.len() - 8);
                first[from..first.len().min(from + 30)].to_vec()
            });
            secrets.extend(part);
            secrets
        })
    }

    /// Secrets that no text holds, enough of them to make the search use its other engine.
    fn crowd() -> Vec<Vec<u8>> {
        (0u8..12)
            .map(|i| (0u8..40).map(|j| 0x80 | i.wrapping_mul(41).wrapping_add(j.wrapping_mul(29))).collect())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn any_cut_gives_what_the_definition_gives(
            (secrets, body) in secrets().prop_flat_map(|s| (Just(s.clone()), bodies(s))),
            cuts in proptest::collection::vec(1usize..40, 1..50),
            crowded in any::<bool>(),
        ) {
            let pairs: Vec<(&[u8], &str)> = secrets.iter().map(|secret| (secret.as_slice(), "[#]")).collect();
            let crowd = if crowded { crowd() } else { Vec::new() };
            let all: Vec<(&[u8], &str)> = crowd.iter().map(|s| (s.as_slice(), "")).chain(pairs.clone()).collect();
            let patterns = patterns(&all);
            let expected = by_definition(&pairs, &body);
            prop_assert_eq!(&through(&patterns, &[&body]), &expected);
            let mut chunks = Vec::new();
            let mut rest = body.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (chunk, next) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = next;
            }
            prop_assert_eq!(&through(&patterns, &chunks), &expected);
            let buffered = patterns.scrub(&body).map_or((body.clone(), 0), |(out, hits)| (out.to_vec(), hits));
            prop_assert_eq!(&buffered, &expected);
        }
    }
}
