//! A set of secrets, compiled for searching.
//!
//! Invariant: an occurrence is covered as a whole or not at all, and overlapping occurrences are covered as one.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::anchor::{self, Finder, Site};
use super::run::{Recent, live_window};
use super::{SHORTEST_SECRET, WINDOW, forms};
use crate::secret::Secret;

/// One secret to look for.
#[derive(Debug, Clone)]
pub struct Item {
    /// The value. Shorter than [`SHORTEST_SECRET`] bytes: not looked for.
    pub secret: Arc<Secret>,
    /// What stands in the place of the raw value: the agent's placeholder.
    pub replacement: String,
}

/// The compiled form of a set of [`Item`]s, to be made once per set and shared.
pub struct Patterns {
    items: Vec<Entry>,
    forms: Vec<Form>,
    finder: Finder,
    /// The numbers of the forms in the order of their bytes, and for each first byte where its own begin.
    ordered: Vec<usize>,
    begins: [usize; 257],
    /// The length of the longest form that a byte occurs in.
    reach: [usize; 256],
    longest: usize,
}

struct Entry {
    secret: Arc<Secret>,
    replacement: Bytes,
}

impl Entry {
    /// Whether any [`WINDOW`] bytes of the secret count, and not only all of it.
    fn has_windows(&self) -> bool {
        self.secret.len() > WINDOW
    }
}

struct Form {
    bytes: forms::Form,
    /// The item whose raw value this is.
    raw_of: Option<usize>,
}

/// A part of the text that is covered, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The item whose raw value this is, no more and no less.
    pub(super) whole: Option<usize>,
}

/// What takes the place of an encoded value or of a part of a raw one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// `*`, as many as there were bytes: toward agents, so that lengths inside of other formats stay right.
    SameLength,
    /// The same, and for a whole raw value too: where a length stands before the text and has left already.
    Everywhere,
    /// [`super::redact::MASK`]: in our own sinks.
    Mask,
}

impl Patterns {
    /// Compiles `items`. The first of several with the same value wins.
    #[must_use]
    pub fn new(items: &[Item]) -> Arc<Self> {
        let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
        let mut forms: Vec<Form> = Vec::new();
        let mut anchors = anchor::Builder::default();
        for item in items {
            let known = |entry: &Entry| entry.secret.matches(item.secret.expose());
            if item.secret.len() < SHORTEST_SECRET || entries.iter().any(known) {
                continue;
            }
            let raw_of = Some(entries.len());
            forms.push(Form { bytes: item.secret.expose().to_vec().into(), raw_of });
            forms.extend(forms::encoded(item.secret.expose()).into_iter().map(|bytes| Form { bytes, raw_of: None }));
            entries.push(Entry { secret: item.secret.clone(), replacement: item.replacement.clone().into() });
        }
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.has_windows()) {
            anchors.pieces(index, entry.secret.expose());
        }
        let mut reach = [0usize; 256];
        for (index, form) in forms.iter().enumerate() {
            if !form.raw_of.and_then(|item| entries.get(item)).is_some_and(Entry::has_windows) {
                anchors.form(index, &form.bytes);
            }
            for byte in form.bytes.iter() {
                if let Some(longest) = reach.get_mut(usize::from(*byte)) {
                    *longest = form.bytes.len().max(*longest);
                }
            }
        }
        let bytes = |index: &usize| forms.get(*index).map_or(&[][..], |form| form.bytes.as_slice());
        let mut ordered: Vec<usize> = (0..forms.len()).collect();
        ordered.sort_unstable_by(|a, b| bytes(a).cmp(bytes(b)));
        let before = |first: usize| {
            ordered.partition_point(|index| bytes(index).first().is_some_and(|byte| usize::from(*byte) < first))
        };
        let begins = std::array::from_fn(before);
        let longest = forms.iter().map(|form| form.bytes.len()).max().unwrap_or(0);
        Arc::new(Self { items: entries, forms, finder: anchors.build(), ordered, begins, reach, longest })
    }

    /// Nothing to look for.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Self::new(&[])
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The length in bytes of the longest pattern: less than twice this is ever held back.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Covers what is found in a text that is there as a whole. `None` when nothing was found.
    #[must_use]
    pub fn scrub(&self, text: &[u8]) -> Option<(Bytes, u64)> {
        let mut spans = Vec::new();
        self.find(text, &mut spans);
        if spans.is_empty() {
            return None;
        }
        let mut out = BytesMut::with_capacity(text.len());
        self.write(text, 0..text.len(), &spans, Fill::SameLength, &mut out);
        Some((out.freeze(), u64::try_from(spans.len()).unwrap_or(u64::MAX)))
    }

    /// Appends the occurrences in `text` to `spans` and leaves the list sorted and free of overlaps.
    pub(super) fn find(&self, text: &[u8], spans: &mut Vec<Span>) {
        let mut recent = Recent::default();
        self.finder.each(text, |start, sites| {
            for site in sites {
                match *site {
                    Site::Form { form, offset } => spans.extend(self.form_at(text, start, form, offset)),
                    Site::Piece { item, offset } => {
                        let len = self.items.get(item).map_or(0, |entry| entry.secret.len());
                        if !recent.covers(start, item, offset, len)
                            && let Some(span) = self.run_at(text, start, item, offset)
                        {
                            recent.note(span, start, item, offset);
                            spans.push(span);
                        }
                    }
                }
            }
        });
        merge(spans);
    }

    fn form_at(&self, text: &[u8], anchor: usize, form: usize, offset: usize) -> Option<Span> {
        let form = self.forms.get(form)?;
        let start = anchor.checked_sub(offset)?;
        let end = start.checked_add(form.bytes.len())?;
        (text.get(start..end)? == form.bytes.as_slice()).then_some(Span { start, end, whole: form.raw_of })
    }

    /// The longest run around an anchor that is equal in the text and in the secret, if it is long enough to count.
    fn run_at(&self, text: &[u8], anchor: usize, item: usize, offset: usize) -> Option<Span> {
        let secret = self.items.get(item)?.secret.expose();
        let before = text.get(..anchor)?.iter().rev().zip(secret.get(..offset)?.iter().rev());
        let left = before.take_while(|(a, b)| a == b).count();
        let after = text.get(anchor..)?.iter().zip(secret.get(offset..)?);
        let right = after.take_while(|(a, b)| a == b).count();
        let len = left.saturating_add(right);
        let span = Span {
            start: anchor.saturating_sub(left),
            end: anchor.saturating_add(right),
            whole: (len == secret.len()).then_some(item),
        };
        (len >= WINDOW).then_some(span)
    }

    /// Where the longest end of `text` begins that some pattern begins with, without being complete.
    pub(super) fn live_from(&self, text: &[u8]) -> usize {
        // An end is live in a form only if each of its bytes occurs in that form, which ends this walk at the first
        // space or line feed as a rule.
        let mut first = text.len();
        let mut limit = usize::MAX;
        for (before, byte) in text.iter().rev().enumerate() {
            limit = self.reach.get(usize::from(*byte)).map_or(0, |reach| limit.min(*reach));
            if before.saturating_add(1) >= limit {
                break;
            }
            first = first.saturating_sub(1);
        }
        if first == text.len() {
            return first;
        }
        let by_form = (first..text.len())
            .find(|start| self.begins_a_form(text.get(*start..).unwrap_or_default()))
            .unwrap_or(text.len());
        let windows = self.items.iter().filter(|item| item.has_windows());
        let by_window = windows.map(|item| live_window(text, item.secret.expose())).min().unwrap_or(text.len());
        by_form.min(by_window)
    }

    /// Whether some form is longer than `end` and begins with it.
    fn begins_a_form(&self, end: &[u8]) -> bool {
        let Some(first) = end.first().map(|byte| usize::from(*byte)) else { return false };
        let bounds = self.begins.get(first).zip(self.begins.get(first.saturating_add(1)));
        let Some(forms) = bounds.and_then(|(from, to)| self.ordered.get(*from..*to)) else { return false };
        // What begins with `end` stands directly behind it in the order.
        let bytes = |index: &usize| self.forms.get(*index).map_or(&[][..], |form| form.bytes.as_slice());
        let next = forms.partition_point(|index| bytes(index) <= end);
        forms.get(next).is_some_and(|index| bytes(index).starts_with(end))
    }

    /// Writes `range` of `text` with `spans` covered. A span that reaches beyond the range is covered up to its end.
    pub(super) fn write(&self, text: &[u8], range: Range<usize>, spans: &[Span], fill: Fill, out: &mut BytesMut) {
        let mut from = range.start;
        for span in spans {
            let (start, end) = (span.start.max(from), span.end.min(range.end));
            if start >= end {
                continue;
            }
            out.put_slice(text.get(from..start).unwrap_or_default());
            match (span.whole.and_then(|item| self.items.get(item)), fill) {
                (Some(item), Fill::SameLength | Fill::Mask) => out.put_slice(&item.replacement),
                (None, Fill::SameLength) | (_, Fill::Everywhere) => out.put_bytes(b'*', end.saturating_sub(start)),
                (None, Fill::Mask) => out.put_slice(super::redact::MASK.as_bytes()),
            }
            from = end;
        }
        out.put_slice(text.get(from..range.end).unwrap_or_default());
    }

    /// Whether a field name holds a secret. Names are compared without regard to case, as HTTP does.
    pub(super) fn in_name(&self, name: &[u8]) -> bool {
        let holds = |part: &[u8]| {
            name.len() >= part.len() && name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
        };
        self.forms.iter().any(|form| holds(&form.bytes))
            || name.len() >= WINDOW
                && self.items.iter().any(|item| item.has_windows() && item.secret.expose().windows(WINDOW).any(holds))
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patterns({} secrets, {} forms)", self.items.len(), self.forms.len())
    }
}

/// Sorts the spans and joins those that share a byte.
pub(super) fn merge(spans: &mut Vec<Span>) {
    if spans.len() < 2 {
        return;
    }
    // The first of a group then decides whether the group is one whole value.
    spans.sort_unstable_by_key(|span| (span.start, std::cmp::Reverse(span.end), span.whole.is_none(), span.whole));
    spans.dedup_by(|next, group| {
        if next.start >= group.end {
            return false;
        }
        if next.end > group.end {
            group.end = next.end;
            group.whole = None;
        }
        true
    });
}
