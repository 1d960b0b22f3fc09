//! Runs of a long secret's bytes, of which any [`WINDOW`] count.
//!
//! Invariant: what is skipped here would have covered nothing new.

use memchr::memmem;

use super::WINDOW;
use super::patterns::Span;

/// The runs found last. A run is met once for each of its anchors, and it is measured only the first time: else a
/// long secret, or one that repeats itself, would cost the square of its length.
#[derive(Default)]
pub(super) struct Recent {
    /// As many as there are places searched in turns.
    runs: [Option<Run>; 4],
    next: usize,
}

#[derive(Clone, Copy)]
struct Run {
    /// The run itself.
    start: usize,
    end: usize,
    /// The run and those before it that it overlaps.
    group: (usize, usize),
    item: usize,
    /// How far the text's place is from the secret's; wrapping, as it is only compared.
    shift: usize,
}

impl Recent {
    /// Whether a run around this anchor, however long it is, would cover nothing new.
    pub(super) fn covers(&self, anchor: usize, item: usize, offset: usize, len: usize) -> bool {
        let shift = anchor.wrapping_sub(offset);
        let most = anchor.saturating_sub(offset)..shift.wrapping_add(len);
        self.runs.iter().flatten().any(|run| {
            let same = run.item == item && run.shift == shift && run.start <= anchor && anchor < run.end;
            // A run that is just as long may be the whole value, which matters for its replacement.
            let inside = run.group.0 <= most.start && most.end <= run.group.1 && run.group.1 - run.group.0 > len;
            same || inside
        })
    }

    pub(super) fn note(&mut self, span: Span, anchor: usize, item: usize, offset: usize) {
        let mut run = Run {
            start: span.start,
            end: span.end,
            group: (span.start, span.end),
            item,
            shift: anchor.wrapping_sub(offset),
        };
        let overlaps = |known: &Run| known.group.0 < span.end && span.start < known.group.1;
        if let Some(known) = self.runs.iter_mut().flatten().find(|known| overlaps(known)) {
            run.group = (span.start.min(known.group.0), span.end.max(known.group.1));
            *known = run;
        } else if let Some(slot) = self.runs.get_mut(self.next) {
            *slot = Some(run);
            self.next = self.next.saturating_add(1) % 4;
        }
    }
}

/// Where the longest end of `text` begins that could grow into a window of `secret`.
pub(super) fn live_window(text: &[u8], secret: &[u8]) -> usize {
    let mut live = text.len();
    for len in 1..WINDOW {
        let Some(start) = text.len().checked_sub(len) else { break };
        let rest = text.get(start..).unwrap_or_default();
        // What a longer end needs is that this one occurs at all; what makes this one live is that a whole window
        // follows from where it begins.
        let Some(at) = memmem::find(secret, rest) else { break };
        if at.saturating_add(WINDOW) <= secret.len() {
            live = start;
        }
    }
    live
}
