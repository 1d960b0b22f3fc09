//! Where secrets stand in a stream: for those who look for leaks and change nothing.
//!
//! Invariant: what is found does not depend on how the stream was cut, and no byte of it is kept beyond the next piece.

use std::sync::Arc;

use super::patterns::Patterns;
use super::redact;

/// More than any token that is worth the name.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where it begins, in bytes from the start of the stream.
    pub offset: u64,
    /// In which line, counted from one.
    pub line: u64,
    /// What it is.
    pub what: What,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A known value, whole and as it is: the number of the item.
    Value(usize),
    /// A known value in an encoded form, or a part of one.
    Form,
    /// A token of a known shape, by what it begins with.
    Token(&'static str),
}

/// Looks for known values and tokens of known shapes in one stream.
pub struct Hunter {
    patterns: Arc<Patterns>,
    held: Vec<u8>,
    /// How much of the stream has left `held`.
    passed: u64,
    lines: u64,
    margin: usize,
}

impl Hunter {
    /// For a new stream.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        let margin = patterns.longest().saturating_mul(2).max(LONGEST_TOKEN);
        Self { patterns, held: Vec::new(), passed: 0, lines: 1, margin }
    }

    /// How large pieces should be for this to be quick.
    #[must_use]
    pub fn piece(&self) -> usize {
        self.margin.max(64 * 1024)
    }

    /// Takes the next piece, and gives what was found for good.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Finding> {
        self.held.extend_from_slice(piece);
        let until = self.held.len().saturating_sub(self.margin);
        if until == 0 { Vec::new() } else { self.settle(until) }
    }

    /// Ends the stream.
    pub fn finish(&mut self) -> Vec<Finding> {
        self.settle(self.held.len())
    }

    /// Gives what begins before `until`, and lets go of it.
    fn settle(&mut self, until: usize) -> Vec<Finding> {
        let mut spans = Vec::new();
        self.patterns.find(&self.held, &mut spans);
        let mut all: Vec<(usize, usize, What)> =
            spans.iter().map(|span| (span.start, span.end, span.whole.map_or(What::Form, What::Value))).collect();
        for (start, end, prefix) in redact::tokens(&self.held) {
            if !all.iter().any(|(other, past, _)| *other < end && start < *past) {
                all.push((start, end, What::Token(prefix)));
            }
        }
        all.retain(|(start, ..)| *start < until);
        all.sort_unstable_by_key(|(start, end, _)| (*start, *end));
        // What reaches beyond is done with too: its rest is not found again as something of its own.
        let until = all.iter().map(|(_, end, _)| *end).max().map_or(until, |end| until.max(end)).min(self.held.len());
        let mut found = Vec::with_capacity(all.len());
        let (mut counted, mut line) = (0usize, self.lines);
        for (start, _, what) in all {
            line = line.saturating_add(newlines(self.held.get(counted..start)));
            counted = start;
            found.push(Finding { offset: self.passed.saturating_add(start as u64), line, what });
        }
        self.lines = line.saturating_add(newlines(self.held.get(counted..until)));
        self.passed = self.passed.saturating_add(until as u64);
        self.held.drain(..until);
        found
    }
}

fn newlines(text: Option<&[u8]>) -> u64 {
    memchr::memchr_iter(b'\n', text.unwrap_or_default()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::Item;
    use super::*;
    use crate::secret::Secret;

    fn random(length: usize) -> String {
        let mut bytes = vec![0u8; length];
        getrandom::fill(&mut bytes).unwrap();
        bytes.iter().map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[usize::from(byte & 31)])).collect()
    }

    fn hunt(patterns: &Arc<Patterns>, text: &[u8], piece: usize) -> Vec<Finding> {
        let mut hunter = Hunter::new(Arc::clone(patterns));
        let mut found: Vec<Finding> = text.chunks(piece).flat_map(|chunk| hunter.push(chunk)).collect();
        found.extend(hunter.finish());
        found
    }

    #[test]
    fn finds_values_forms_and_tokens_with_their_places_however_the_stream_is_cut() {
        let value = random(40);
        let item = Item { secret: Arc::new(Secret::from(value.clone())), replacement: String::new() };
        let patterns = Patterns::new(&[item]);
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("ghp_{}", random(36));
        let mut text = vec![b'.'; 9_000];
        text.extend_from_slice(format!("\n{value}\n\u{1F980} {hex} ").as_bytes());
        text.extend_from_slice(b"\xff\xfe\0");
        text.extend_from_slice(&vec![b'x'; 30_000]);
        text.extend_from_slice(format!("\n {token}\nBasic authentication is documented\n").as_bytes());
        let expected = [(9_001, 2, What::Value(0)), (9_047, 3, What::Form), (39_133, 4, What::Token("ghp_"))];
        for piece in [1, 7, 1000, 8192, 100_000] {
            let found = hunt(&patterns, &text, piece);
            let found: Vec<_> = found.into_iter().map(|one| (one.offset, one.line, one.what)).collect();
            assert_eq!(found, expected, "{piece}");
        }
    }

    #[test]
    fn a_placeholder_is_no_finding() {
        let text = format!("sk-ant-api03-keyferry{}", random(60));
        assert_eq!(hunt(&Patterns::none(), text.as_bytes(), 100), []);
    }
}
