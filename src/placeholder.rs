//! The harmless stand-in that an agent holds where it would hold a key.
//!
//! A placeholder has the form that a provider's own SDK accepts, and a mark in it: the word `keyferry` followed by
//! eight characters that depend on agent and credential and eight that are a keyed check of those. The mark is found
//! inside any longer text and without a list of what was handed out.
//!
//! Invariant: a placeholder is computed from the names of an agent and a credential and a key of this installation,
//! never from a value.

mod shape;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use memchr::memmem;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub use shape::{Shape, ShapeError};

use self::shape::{Alphabet, Piece};
use crate::id::AgentName;
use crate::secret::Secret;

/// Makes placeholders and recognises its own.
pub struct Minter {
    key: Zeroizing<[u8; BLOCK]>,
}

impl Minter {
    /// One that works with `key`, which should be a key of this installation and of nothing else.
    #[must_use]
    pub fn new(key: &Arc<Secret>) -> Self {
        // RFC 2104 section 2: a key longer than a block is hashed, a shorter one is padded with zeros.
        let mut block = Zeroizing::new([0u8; BLOCK]);
        if key.len() > BLOCK {
            let digest = Sha256::digest(key.expose());
            block.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        } else {
            block.iter_mut().zip(key.expose()).for_each(|(to, from)| *to = *from);
        }
        Self { key: block }
    }

    /// The placeholder of `agent` for `credential`: the same at every call, another one for every other pair.
    #[must_use]
    pub fn mint(&self, shape: &Shape, agent: &AgentName, credential: &str) -> String {
        let mut stream = Stream::new(self, shape, agent, credential);
        let mut text = String::new();
        for (at, piece) in shape.pieces.iter().enumerate() {
            let marked = at == shape.marked;
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Slot { alphabet, count } => {
                    let end = text.len().saturating_add(*count);
                    if marked {
                        self.mark(*alphabet, &mut stream, &mut text);
                    } else if *alphabet == Alphabet::Digit && *count > 0 {
                        // Identifiers made of digits do not begin with a zero.
                        text.push(stream.pick(b"123456789"));
                    }
                    while text.len() < end {
                        text.push(stream.pick(alphabet.filler()));
                    }
                }
                Piece::Uuid => text.push_str(&self.uuid(&mut stream)),
            }
        }
        text
    }

    /// Whether `text` is, or holds, a placeholder that was minted with this key, for whichever agent and credential.
    #[must_use]
    pub fn looks_like_ours(&self, text: &str) -> bool {
        self.find(text.as_bytes()).is_some() || self.has_hex_mark(text)
    }

    /// Where in `bytes` the first mark stands. Marks in hexadecimal, which have no word to search for, are not
    /// found here; see [`Minter::looks_like_ours`].
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<Range<usize>> {
        self.marks(bytes).min_by_key(|range| range.start)
    }

    /// Where in `bytes` marks stand, in no particular order; the ones that [`Minter::find`] would find.
    pub fn marks(&self, bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
        let lower = memmem::find_iter(bytes, WORD.as_bytes()).map(|at| (at, Case::Lower));
        let upper = memmem::find_iter(bytes, WORD_UPPER.as_bytes()).map(|at| (at, Case::Upper));
        lower.chain(upper).filter_map(|(at, case)| self.verify(bytes, at, case))
    }

    fn verify(&self, bytes: &[u8], at: usize, case: Case) -> Option<Range<usize>> {
        let after = at.saturating_add(WORD.len());
        let start = if bytes.get(after) == Some(&b'-') { after.saturating_add(1) } else { after };
        let middle = start.saturating_add(HALF);
        let end = middle.saturating_add(HALF);
        let (who, check) = (bytes.get(start..middle)?, bytes.get(middle..end)?);
        let fits = |byte: &u8| match case {
            Case::Lower => BASE32.contains(byte),
            Case::Upper => BASE32.contains(&byte.to_ascii_lowercase()) && !byte.is_ascii_lowercase(),
        };
        if !who.iter().chain(check).all(fits) {
            return None;
        }
        let expected = self.check(&who.to_ascii_lowercase(), BASE32, HALF);
        expected.as_bytes().eq_ignore_ascii_case(check).then_some(at..end)
    }

    fn mark(&self, alphabet: Alphabet, stream: &mut Stream<'_>, text: &mut String) {
        if alphabet == Alphabet::Hex {
            let who = stream.take(HEX, HEX_HALF);
            let check = self.check(who.as_bytes(), HEX, HEX_HALF);
            text.push_str(&who);
            text.push_str(&check);
            return;
        }
        let who = stream.take(BASE32, HALF);
        let check = self.check(who.as_bytes(), BASE32, HALF);
        let separator = if alphabet == Alphabet::Word { "-" } else { "" };
        let mark = format!("{WORD}{separator}{who}{check}");
        text.push_str(&if alphabet == Alphabet::Upper { mark.to_ascii_uppercase() } else { mark });
    }

    /// A version 4 UUID whose free digits begin with the mark.
    fn uuid(&self, stream: &mut Stream<'_>) -> String {
        let mut digits = String::new();
        self.mark(Alphabet::Hex, stream, &mut digits);
        digits.push_str(&stream.take(HEX, 6));
        let mut free = digits.chars();
        UUID_FORM.chars().map(|c| if c == 'x' { free.next().unwrap_or('0') } else { c }).collect()
    }

    fn has_hex_mark(&self, text: &str) -> bool {
        let in_uuid = |digits: Vec<u8>| self.hex_mark_in(&digits);
        text.as_bytes().windows(UUID_FORM.len()).filter_map(uuid_digits).any(in_uuid)
            || text.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).any(|run| self.hex_mark_in(run.as_bytes()))
    }

    fn hex_mark_in(&self, run: &[u8]) -> bool {
        // A literal in front of the slot may happen to be hexadecimal too, so a few more places than the first are
        // tried; the bound keeps a long hexadecimal text cheap.
        run.windows(2 * HEX_HALF).take(16).any(|window| {
            let (who, check) = window.split_at(HEX_HALF);
            self.check(who, HEX, HEX_HALF).as_bytes() == check
        })
    }

    fn check(&self, who: &[u8], alphabet: &[u8], length: usize) -> String {
        let digest = self.mac(&[b"keyferry placeholder check v1", who]);
        digest.iter().take(length).map(|byte| letter(alphabet, *byte)).collect()
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new((&*self.key).into());
        for part in parts {
            // Every part is preceded by its length, so that no two lists of parts give the same input.
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Minter(..)")
    }
}

/// The longest mark that [`Minter::marks`] finds.
pub const LONGEST_MARK: usize = WORD.len() + 1 + 2 * HALF;

const WORD: &str = "keyferry";
const WORD_UPPER: &str = "KEYFERRY";
/// 40 bits that differ between agents and credentials, and 40 bits that nobody without the key can make.
const HALF: usize = 8;
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
const HEX: &[u8] = b"0123456789abcdef";
const HEX_HALF: usize = 12;
const BLOCK: usize = 64;
const UUID_FORM: &str = "xxxxxxxx-xxxx-4xxx-axxx-xxxxxxxxxxxx";

#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

/// The free digits of a text in the form of [`UUID_FORM`].
fn uuid_digits(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::new();
    for (form, byte) in UUID_FORM.bytes().zip(text) {
        match form {
            b'x' if HEX.contains(byte) => digits.push(*byte),
            literal if literal == *byte => {}
            _ => return None,
        }
    }
    Some(digits)
}

fn letter(alphabet: &[u8], byte: u8) -> char {
    // A slight bias is no matter: these characters distinguish, they keep no secret.
    alphabet.get(usize::from(byte).checked_rem(alphabet.len()).unwrap_or(0)).copied().map_or('0', char::from)
}

/// As many characters as are asked for, all determined by key, shape, agent and credential.
struct Stream<'a> {
    minter: &'a Minter,
    seed: [u8; 32],
    counter: u32,
    block: std::array::IntoIter<u8, 32>,
}

impl<'a> Stream<'a> {
    fn new(minter: &'a Minter, shape: &Shape, agent: &AgentName, credential: &str) -> Self {
        let seed = minter.mac(&[
            b"keyferry placeholder v1",
            agent.as_str().as_bytes(),
            credential.as_bytes(),
            shape.text.as_bytes(),
        ]);
        let mut block = [0u8; 32].into_iter();
        block.by_ref().for_each(drop);
        Self { minter, seed, counter: 0, block }
    }

    fn byte(&mut self) -> u8 {
        if let Some(byte) = self.block.next() {
            return byte;
        }
        let block = self.minter.mac(&[b"keyferry placeholder stream v1", &self.seed, &self.counter.to_be_bytes()]);
        self.counter = self.counter.wrapping_add(1);
        self.block = block.into_iter();
        self.block.next().unwrap_or(0)
    }

    fn pick(&mut self, alphabet: &[u8]) -> char {
        letter(alphabet, self.byte())
    }

    fn take(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| self.pick(alphabet)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn minter(seed: u8) -> Minter {
        Minter::new(&Arc::new(Secret::new(vec![seed; 32])))
    }

    fn agent(name: &str) -> AgentName {
        AgentName::parse(name).unwrap()
    }

    #[test]
    fn has_the_form_that_the_providers_sdk_accepts() {
        for (shape, form) in [
            ("sk-ant-api03-{word:93}AA", r"^sk-ant-api03-keyferry-[\w-]{84}AA$"),
            ("sk-proj-{word:74}T3BlbkFJ{word:74}", r"^sk-proj-keyferry-[\w-]{65}T3BlbkFJ[\w-]{74}$"),
            ("ghp_{alnum:36}", r"^ghp_keyferry[A-Za-z0-9]{28}$"),
            ("AIza{word:35}", r"^AIzakeyferry-[\w-]{26}$"),
            ("{digit:10}:{word:35}", r"^[1-9][0-9]{9}:keyferry-[\w-]{26}$"),
            ("xoxb-{digit:12}-{digit:13}-{alnum:24}", r"^xoxb-[0-9]{12}-[0-9]{13}-keyferry[A-Za-z0-9]{16}$"),
            ("{hex:32}-us21", r"^[0-9a-f]{32}-us21$"),
            ("fc-{hex:32}", r"^fc-[0-9a-f]{32}$"),
            ("xoxp-{digit:12}-{digit:13}-{hex:32}", r"^xoxp-[0-9]{12}-[0-9]{13}-[0-9a-f]{32}$"),
            ("sk-lf-{uuid}", r"^sk-lf-[0-9a-f-]{36}$"),
            ("{uuid}", r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$"),
            ("AKIA{upper:24}", r"^AKIAKEYFERRY[A-Z2-7]{16}$"),
        ] {
            let shape = Shape::parse(shape).unwrap();
            let text = minter(1).mint(&shape, &agent("coder"), "anthropic:work");
            assert!(Regex::new(form).unwrap().is_match(&text), "{text} is not {form}");
            assert!(minter(1).looks_like_ours(&text), "{text}");
            assert!(!minter(2).looks_like_ours(&text), "another installation's {text}");
        }
        let text = minter(1).mint(&Shape::generic(), &agent("coder"), "pagerduty.token");
        assert!(text.starts_with("kf-keyferry-") && text.len() == 43, "{text}");
    }

    #[test]
    fn is_found_inside_a_longer_text() {
        let text = minter(1).mint(&Shape::parse("ghp_{alnum:36}").unwrap(), &agent("a"), "github:bot");
        let body = format!("{{\"token\": \"keyferry {text}\"}}");
        let range = minter(1).find(body.as_bytes()).unwrap();
        assert_eq!(&body[range], &text[4..28]);
        assert_eq!(minter(1).find(b"keyferry carries the keys, so that keyferry-agents need not"), None);
    }

    #[test]
    fn debug_shows_nothing_of_the_key() {
        assert_eq!(format!("{:?}", minter(1)), "Minter(..)");
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just("sk-ant-api03-{word:93}AA"),
            Just("ghp_{alnum:36}"),
            Just("{digit:10}:{word:35}"),
            Just("sk_{hex:48}"),
            Just("{uuid}"),
            Just("{hex:32}.{alnum:16}"),
            Just("k{upper:40}"),
        ]
        .prop_map(|text| Shape::parse(text).unwrap())
    }

    proptest! {
        #[test]
        fn differs_for_every_agent_and_credential_and_stays_the_same(
            shape in shapes(),
            names in proptest::collection::hash_set(("[a-z]{1,6}", "[a-z]{1,6}:[a-z]{1,6}"), 1..40),
        ) {
            let minter = minter(7);
            let mut seen = HashSet::new();
            for (name, credential) in &names {
                let text = minter.mint(&shape, &agent(name), credential);
                prop_assert_eq!(&text, &minter.mint(&shape, &agent(name), credential));
                prop_assert!(minter.looks_like_ours(&text));
                prop_assert!(seen.insert(text));
            }
        }

        #[test]
        fn a_changed_mark_is_not_ours(shape in shapes(), at in 0usize..24, name in "[a-z]{1,8}") {
            let minter = minter(7);
            let text = minter.mint(&shape, &agent(&name), "p:c");
            if let Some(range) = minter.find(text.as_bytes()) {
                let mut bytes = text.clone().into_bytes();
                let place = range.start + at;
                prop_assume!(bytes[place] != b'-');
                bytes[place] = if bytes[place] == b'x' { b'z' } else { b'x' };
                prop_assert!(!minter.looks_like_ours(&String::from_utf8(bytes).unwrap()), "{}", text);
            }
        }

        #[test]
        fn other_texts_are_not_ours(text in "\\PC{0,200}", hex in "[0-9a-f]{0,80}") {
            prop_assert!(!minter(7).looks_like_ours(&text));
            prop_assert!(!minter(7).looks_like_ours(&hex));
            let almost = format!("keyferry{hex}");
            prop_assert!(!minter(7).looks_like_ours(&almost));
        }
    }
}
