//! Short pieces of the patterns, found fast, after which the whole pattern is compared.
//!
//! Invariant: every pattern holds at least one anchor, and every run of [`WINDOW`] bytes of a long secret holds one
//! of that secret's anchors whole. The search structures hold no more than [`LEN`] bytes of a secret in one piece.

use std::collections::HashMap;

use aho_corasick::{Span, packed};

use super::WINDOW;

/// Length of an anchor: the shortest pattern there is.
pub(super) const LEN: usize = super::SHORTEST_SECRET;

/// How far apart the anchors of a long secret may stand so that no window slips through between two.
const STRIDE: usize = WINDOW - LEN + 1;

/// Where an anchor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// In a form that counts only as a whole.
    Form { form: usize, offset: usize },
    /// In an item's raw secret, any window of which counts.
    Piece { item: usize, offset: usize },
}

/// Collects anchors.
#[derive(Default)]
pub(super) struct Builder {
    index: HashMap<[u8; LEN], usize>,
    anchors: Vec<[u8; LEN]>,
    sites: Vec<Vec<Site>>,
}

impl Builder {
    /// Adds a form that counts only as a whole.
    pub(super) fn form(&mut self, form: usize, bytes: &[u8]) {
        let mut best: Option<(u32, usize, [u8; LEN])> = None;
        for (offset, window) in windows(bytes) {
            if self.index.contains_key(&window) {
                // One anchor for several forms makes the search cheaper.
                best = Some((u32::MAX, offset, window));
                break;
            }
            let score = rarity(&window);
            if best.is_none_or(|(least, _, _)| score >= least) {
                best = Some((score, offset, window));
            }
        }
        if let Some((_, offset, window)) = best {
            self.add(window, Site::Form { form, offset });
        }
    }

    /// Adds a raw secret, any [`WINDOW`] bytes of which count.
    pub(super) fn pieces(&mut self, item: usize, secret: &[u8]) {
        // A window begins at i; the STRIDE places i..=i+16 are where an anchor may begin to be whole inside it, and
        // one of the places shift, shift+17, .. is among them. The shift is ours to choose: the rarest anchors make
        // the fewest false candidates, and a public prefix such as `sk-ant-api03-` is no good anchor.
        let candidates = |shift: usize| windows(secret).skip(shift).step_by(STRIDE);
        let worst = |shift: usize| candidates(shift).map(|(_, window)| rarity(&window)).min().unwrap_or(0);
        let shift = (0..STRIDE).max_by_key(|shift| worst(*shift)).unwrap_or(0);
        for (offset, window) in candidates(shift) {
            self.add(window, Site::Piece { item, offset });
        }
    }

    fn add(&mut self, window: [u8; LEN], site: Site) {
        let id = *self.index.entry(window).or_insert_with(|| {
            self.anchors.push(window);
            self.sites.push(Vec::new());
            self.anchors.len().saturating_sub(1)
        });
        if let Some(sites) = self.sites.get_mut(id) {
            sites.push(site);
        }
    }

    /// Compiles what was added.
    pub(super) fn build(self) -> Finder {
        Finder { engine: Engine::over(&self.anchors), sites: self.sites }
    }
}

fn windows(bytes: &[u8]) -> impl Iterator<Item = (usize, [u8; LEN])> {
    bytes.windows(LEN).filter_map(|window| window.try_into().ok()).enumerate()
}

/// How seldom a text holds this: the vector search looks at the first four bytes first.
fn rarity(window: &[u8; LEN]) -> u32 {
    let of = |byte: u8| -> u32 {
        match byte {
            b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b'h' | b'l' | b'd' | b'c' | b'u' | b'p' => 1,
            b' ' | b'"' | b',' | b':' | b'-' | b'_' | b'/' | b'+' | b'.' | b'0' => 1,
            b'a'..=b'z' => 3,
            _ => 4,
        }
    };
    // A run of one byte is common in any text, however rare the byte.
    let fresh = |at: usize, byte: &u8| !window.iter().take(at).any(|earlier| earlier == byte);
    let weight = |at: usize| if at < 4 { 3 } else { 1 };
    window.iter().enumerate().filter(|(at, byte)| fresh(*at, byte)).map(|(at, byte)| weight(at) * of(*byte)).sum()
}

/// Finds every place of every anchor.
pub(super) struct Finder {
    engine: Engine,
    sites: Vec<Vec<Site>>,
}

enum Engine {
    /// A vector search: the fastest while there are few anchors.
    Packed(packed::Searcher),
    /// A search that skips: for any number of anchors, on any machine.
    Skipping(Skipping),
    /// Nothing to find.
    Empty,
}

impl Engine {
    /// With more anchors than this the vector search has so many false candidates that skipping is faster.
    const PACKED: usize = 48;

    fn over(anchors: &[[u8; LEN]]) -> Self {
        if anchors.is_empty() {
            return Self::Empty;
        }
        if anchors.len() <= Self::PACKED
            && let Some(searcher) = packed::Config::new().builder().extend(anchors).build()
        {
            return Self::Packed(searcher);
        }
        Self::Skipping(Skipping::over(anchors))
    }
}

impl Finder {
    /// Calls `visit` with each anchor's start in `text`, in no particular order, and the sites of that anchor.
    pub(super) fn each(&self, text: &[u8], mut visit: impl FnMut(usize, &[Site])) {
        let mut report = |id: usize, start: usize| {
            if let Some(sites) = self.sites.get(id) {
                visit(start, sites);
            }
        };
        match &self.engine {
            Engine::Empty => {}
            Engine::Packed(searcher) => {
                let mut from = 0;
                while let Some(found) = searcher.find_in(text, Span { start: from, end: text.len() }) {
                    report(found.pattern().as_usize(), found.start());
                    // All anchors have one length, so no other one begins at the same place.
                    from = found.start().saturating_add(1);
                }
            }
            Engine::Skipping(skipping) => skipping.each(text, report),
        }
    }
}

/// The search of Wu and Manber (1994) for patterns of one length: the last bytes of a place say how far the next
/// place can be, and only where they say "here" is the place itself looked up. Linear in the text whatever it holds.
struct Skipping {
    /// How far to go, by the hash of the last [`BLOCK`] bytes.
    skips: Vec<u8>,
    /// Anchors in buckets by their own hash, each with its number.
    buckets: Vec<Vec<([u8; LEN], usize)>>,
}

/// Three bytes are seldom the same by chance, and leave six places to skip.
const BLOCK: usize = 3;
const FURTHEST: usize = LEN - BLOCK + 1;
/// 32 KiB: fits the first-level cache, with few collisions up to thousands of anchors.
const SKIP_BITS: u32 = 15;
const BUCKET_BITS: u32 = 12;

impl Skipping {
    fn over(anchors: &[[u8; LEN]]) -> Self {
        let mut skips = vec![u8::try_from(FURTHEST).unwrap_or(1); 1 << SKIP_BITS];
        let mut buckets = vec![Vec::new(); 1 << BUCKET_BITS];
        for (id, anchor) in anchors.iter().enumerate() {
            for (at, block) in anchor.windows(BLOCK).enumerate() {
                let skip = u8::try_from(FURTHEST.saturating_sub(at).saturating_sub(1)).unwrap_or(0);
                if let Some(entry) = skips.get_mut(block_hash(block)) {
                    *entry = skip.min(*entry);
                }
            }
            if let Some(bucket) = buckets.get_mut(anchor_hash(*anchor)) {
                bucket.push((*anchor, id));
            }
        }
        Self { skips, buckets }
    }

    fn each(&self, text: &[u8], mut report: impl FnMut(usize, usize)) {
        // Each step waits for the one before it; several places searched in turns keep the machine busy meanwhile.
        let part = text.len() / LANES;
        let mut lanes: [Lane<'_>; LANES] = std::array::from_fn(|lane| {
            let from = part.saturating_mul(lane);
            let last = lane.saturating_add(1) == LANES;
            let to = if last { text.len() } else { text.len().min(from.saturating_add(part).saturating_add(LEN - 1)) };
            Lane { text: text.get(from..to).unwrap_or_default(), base: from, at: 0 }
        });
        loop {
            let mut going = true;
            for lane in &mut lanes {
                going &= self.step(lane, &mut report);
            }
            if !going {
                break;
            }
        }
        for lane in &mut lanes {
            while self.step(lane, &mut report) {}
        }
    }

    /// Looks at one place and moves on; false at the end.
    #[inline(always)]
    fn step(&self, lane: &mut Lane<'_>, report: &mut impl FnMut(usize, usize)) -> bool {
        let Some(place) = lane.text.get(lane.at..).and_then(<[u8]>::first_chunk::<LEN>) else { return false };
        let [.., a, b, c] = *place;
        let skip = self.skips.get(block_hash(&[a, b, c])).copied().unwrap_or(0);
        if skip == 0 {
            let bucket = self.buckets.get(anchor_hash(*place)).map_or(&[][..], Vec::as_slice);
            if let Some((_, id)) = bucket.iter().find(|(anchor, _)| anchor == place) {
                report(*id, lane.base.saturating_add(lane.at));
            }
        }
        lane.at = lane.at.saturating_add(usize::from(skip.max(1)));
        true
    }
}

/// How many places are searched in turns.
const LANES: usize = 4;

/// A part of the text, long enough at its end for an anchor that begins in it.
struct Lane<'t> {
    text: &'t [u8],
    base: usize,
    at: usize,
}

/// The high bits of a product depend on all bytes of its factor.
fn block_hash(block: &[u8]) -> usize {
    let value = block.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
    usize::try_from(value.wrapping_mul(0x9e37_79b1) >> (32 - SKIP_BITS)).unwrap_or(0)
}

fn anchor_hash(anchor: [u8; LEN]) -> usize {
    let value = u64::from_le_bytes(anchor).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(value >> (64 - BUCKET_BITS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_a_long_secret_holds_an_anchor() {
        for len in (WINDOW + 1)..200 {
            let secret: Vec<u8> = (0..len).map(|i| u8::try_from((i * 7919) % 251).unwrap()).collect();
            let mut builder = Builder::default();
            builder.pieces(0, &secret);
            let finder = builder.build();
            for window in secret.windows(WINDOW) {
                let mut found = 0;
                finder.each(window, |_, _| found += 1);
                assert!(found > 0, "length {len}");
            }
        }
    }

    #[test]
    fn many_anchors_are_found_as_few_are() {
        let anchors: Vec<[u8; LEN]> =
            (0u32..2000).map(|i| format!("{i:08}").into_bytes().try_into().unwrap()).collect();
        for count in [1, 2, 63, 64, 65, 128, 129, 383, 384, 385, 2000] {
            let mut builder = Builder::default();
            for (id, anchor) in anchors.iter().take(count).enumerate() {
                builder.form(id, anchor);
            }
            let finder = builder.build();
            let text = anchors.concat();
            let mut seen = vec![false; count];
            finder.each(&text, |start, sites| {
                for site in sites {
                    let Site::Form { form, .. } = site else { panic!("no piece was added") };
                    assert_eq!(&text[start..start + LEN], &anchors[*form]);
                    seen[*form] = true;
                }
            });
            assert!(seen.iter().all(|seen| *seen), "{count}");
        }
    }
}
