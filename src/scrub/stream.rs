//! The search over a stream, in whatever pieces it arrives.
//!
//! Invariant: the output is the same for every cut of the same input, and no byte waits unless it could belong to a
//! secret.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::patterns::{Fill, Patterns, Span, merge};

/// Covers secrets in one stream.
#[derive(Debug)]
pub struct Scrubber {
    patterns: Arc<Patterns>,
    /// What has arrived and not left.
    held: Bytes,
    /// How much of `held` belongs to an occurrence whose beginning has left.
    carried: usize,
    hits: u64,
    spans: Vec<Span>,
}

impl Scrubber {
    /// For a new stream.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, held: Bytes::new(), carried: 0, hits: 0, spans: Vec::new() }
    }

    /// Takes the next piece and gives what is settled. Nothing is copied when nothing is found or held back.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.patterns.is_empty() || chunk.is_empty() {
            return chunk;
        }
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
        let across = spans.iter().find(|span| span.start < until && until < span.end);
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
        self.patterns.write(text, 0..until, spans, Fill::SameLength, &mut out);
        out.freeze()
    }
}
