//! Short pieces of the patterns, found fast, after which the whole pattern is compared.
//!
//! Invariant: every pattern holds at least one anchor, and every run of [`WINDOW`] bytes of a long secret holds one
//! of that secret's anchors whole. The search structures hold no more than [`LEN`] bytes of a secret in one piece.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, Input, packed};

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
    let (head, tail) = window.split_at(4);
    let sum = |part: &[u8]| part.iter().map(|byte| of(*byte)).sum::<u32>();
    sum(head).saturating_mul(3).saturating_add(sum(tail))
}

/// Finds every place of every anchor.
pub(super) struct Finder {
    engine: Engine,
    sites: Vec<Vec<Site>>,
}

enum Engine {
    /// Vector searches over a few anchors each, one after the other.
    Packed(Vec<(usize, packed::Searcher)>),
    /// One automaton, where there are too many anchors or the machine has no vector instructions.
    Automaton(Box<AhoCorasick>),
    /// Nothing to find.
    Empty,
}

impl Engine {
    /// More anchors than this per vector search give so many false candidates that a second pass is cheaper.
    const GROUP: usize = 64;
    /// Above this many passes the automaton is faster.
    const GROUPS: usize = 6;

    fn over(anchors: &[[u8; LEN]]) -> Self {
        if anchors.is_empty() {
            return Self::Empty;
        }
        if anchors.len() <= Self::GROUP.saturating_mul(Self::GROUPS) {
            let searchers: Option<Vec<_>> = anchors
                .chunks(Self::GROUP)
                .enumerate()
                .map(|(group, chunk)| {
                    let searcher = packed::Config::new().builder().extend(chunk).build()?;
                    Some((group.saturating_mul(Self::GROUP), searcher))
                })
                .collect();
            if let Some(searchers) = searchers {
                return Self::Packed(searchers);
            }
        }
        AhoCorasick::new(anchors).map_or(Self::Empty, |automaton| Self::Automaton(Box::new(automaton)))
    }
}

impl Finder {
    /// Calls `visit` with each anchor's start in `text` and the sites of that anchor. The starts come in no
    /// particular order.
    pub(super) fn each(&self, text: &[u8], mut visit: impl FnMut(usize, &[Site])) {
        let mut report = |id: usize, start: usize| {
            if let Some(sites) = self.sites.get(id) {
                visit(start, sites);
            }
            // All anchors have one length, so no other one begins at the same place.
            start.saturating_add(1)
        };
        match &self.engine {
            Engine::Empty => {}
            Engine::Packed(searchers) => {
                for (base, searcher) in searchers {
                    let mut from = 0;
                    while let Some(found) = searcher.find_in(text, aho_corasick::Span { start: from, end: text.len() })
                    {
                        from = report(base.saturating_add(found.pattern().as_usize()), found.start());
                    }
                }
            }
            Engine::Automaton(automaton) => {
                let mut from = 0;
                while let Some(found) = automaton.find(Input::new(text).span(from..text.len())) {
                    from = report(found.pattern().as_usize(), found.start());
                }
            }
        }
    }
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
