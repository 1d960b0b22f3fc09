//! Masks known values and tokens of known shapes in a stream that passes through.
//!
//! Invariant: a line is given when it is complete; memory stays bounded for a line without end, of which no token passes
//! in pieces.

use std::sync::Arc;

use bytes::Bytes;

use super::patterns::{Item, Patterns};
use super::redact::{self, MASK};
use super::stream::Scrubber;
use crate::secret::Secret;

/// A line that is longer leaves in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// Masks one stream.
pub struct Filter {
    values: Scrubber,
    line: Vec<u8>,
    /// The piece before ended within a token, whose rest is left out.
    within: bool,
}

impl Filter {
    /// For a new stream that may hold `secrets`.
    #[must_use]
    pub fn new(secrets: &[Arc<Secret>]) -> Self {
        let item = |secret: &Arc<Secret>| Item { secret: Arc::clone(secret), replacement: redact::mask_of(secret) };
        let patterns = Patterns::new(&secrets.iter().map(item).collect::<Vec<_>>());
        Self { values: Scrubber::new(patterns), line: Vec::new(), within: false }
    }

    /// Takes the next piece and gives what is settled.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let covered = self.values.push(Bytes::copy_from_slice(piece));
        self.line.extend_from_slice(&covered);
        let ended = memchr::memrchr(b'\n', &self.line).map(|at| at.saturating_add(1));
        let ready = match ended {
            Some(ready) => ready,
            None if self.line.len() >= LONGEST_LINE => self.line.len(),
            None => return Vec::new(),
        };
        self.give(ready)
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        let covered = self.values.finish();
        self.line.extend_from_slice(&covered);
        self.give(self.line.len())
    }

    fn give(&mut self, ready: usize) -> Vec<u8> {
        let mut ready: Vec<u8> = self.line.drain(..ready).collect();
        if self.within {
            let rest = ready.iter().take_while(|byte| redact::in_token(**byte)).count();
            ready.drain(..rest);
            if ready.is_empty() {
                return ready;
            }
        }
        let out = redact::mask_bytes(&ready);
        self.within = out.ends_with(MASK.as_bytes()) && ready.last().is_some_and(|byte| redact::in_token(*byte));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(length: usize) -> String {
        let mut bytes = vec![0u8; length];
        getrandom::fill(&mut bytes).unwrap();
        bytes.iter().map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[usize::from(byte & 31)])).collect()
    }

    fn through(secrets: &[&str], text: &[u8], piece: usize) -> Vec<u8> {
        let secrets: Vec<_> = secrets.iter().map(|text| Arc::new(Secret::from((*text).to_owned()))).collect();
        let mut filter = Filter::new(&secrets);
        let mut out: Vec<u8> = text.chunks(piece).flat_map(|piece| filter.push(piece)).collect();
        out.extend(filter.finish());
        out
    }

    #[test]
    fn masks_values_and_tokens_and_nothing_else() {
        let (value, token) = (random(40), format!("ghp_{}", random(36)));
        let text = [format!("a {value} b\nc {token}").as_bytes(), b" \xff\xfe\0 end"].concat();
        for piece in [1, 5, 64, 1000] {
            let out = through(&[&value], &text, piece);
            assert_eq!(out, [&b"a ***...*** b\nc ghp_***...***"[..], b" \xff\xfe\0 end"].concat(), "{piece}");
        }
    }

    #[test]
    fn a_token_without_end_does_not_pass() {
        let tail = random(200_000);
        let out = through(&[], format!("x ghp_{tail} y").as_bytes(), 10_000);
        assert_eq!(out, b"x ghp_***...*** y");
    }

    #[test]
    fn a_line_leaves_when_it_is_complete() {
        let mut filter = Filter::new(&[]);
        assert_eq!(filter.push(b"one\ntwo"), b"one\n");
        assert_eq!(filter.finish(), b"two");
    }
}
