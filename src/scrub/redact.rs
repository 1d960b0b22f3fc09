//! What our own sinks show in the place of a secret.
//!
//! Invariant: neither a known value in any listed encoding nor a token of a known shape passes.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwap;
use bytes::BytesMut;
use memchr::memmem;

use super::patterns::{Fill, Item, Patterns, Span, merge};
use crate::secret::Secret;

/// Stands for a secret, behind the public prefix of its kind where it has one.
pub(super) const MASK: &str = "***...***";

/// Masks secrets in text that we write: logs, errors, metrics, terminal.
#[derive(Debug)]
pub struct Redactor {
    known: ArcSwap<Patterns>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self { known: ArcSwap::new(Patterns::none()) }
    }
}

impl Redactor {
    /// Knows token shapes only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the set of known values.
    pub fn know(&self, secrets: &[Arc<Secret>]) {
        let item = |secret: &Arc<Secret>| Item { secret: secret.clone(), replacement: mask_of(secret) };
        self.known.store(Patterns::new(&secrets.iter().map(item).collect::<Vec<_>>()));
    }

    /// The text with every known value and every token of a known shape masked; borrowed when there is none.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        // No value that short is searched for, and tokens of the known shapes are longer, in whatever form.
        if text.len() < super::SHORTEST_SECRET {
            return Cow::Borrowed(text);
        }
        let known = self.known.load();
        let mut spans = Vec::new();
        known.find(text.as_bytes(), &mut spans);
        if let Some((once, places)) = with_single_backslashes(text.as_bytes()) {
            let mut more = Vec::new();
            known.find(&once, &mut more);
            let place = |at: usize| places.get(at).copied().unwrap_or(text.len());
            spans.extend(more.iter().map(|span| Span { start: place(span.start), end: place(span.end), ..*span }));
            merge(&mut spans);
        }
        if spans.is_empty() {
            return mask_shapes(text).map_or(Cow::Borrowed(text), Cow::Owned);
        }
        let mut out = BytesMut::with_capacity(text.len());
        known.write(text.as_bytes(), 0..text.len(), &spans, Fill::Mask, &mut out);
        // A value may begin or end inside a character only if it is no text itself.
        let covered = String::from_utf8_lossy(&out).into_owned();
        Cow::Owned(mask_shapes(&covered).unwrap_or(covered))
    }
}

/// What stands for a value in our own sinks.
pub(super) fn mask_of(secret: &Secret) -> String {
    format!("{}{MASK}", public_prefix(secret.expose()))
}

/// Any bytes with the tokens of known shapes masked.
pub(super) fn mask_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        match mask_shapes(chunk.valid()) {
            Some(masked) => out.extend_from_slice(masked.as_bytes()),
            None => out.extend_from_slice(chunk.valid().as_bytes()),
        }
        out.extend_from_slice(chunk.invalid());
    }
    out
}

/// The tokens of known shapes in any bytes: from where, to where, and what they begin with. What only follows a
/// scheme's name is left out, as it is a word as a rule; so are placeholders.
pub(super) fn tokens(bytes: &[u8]) -> Vec<(usize, usize, &'static str)> {
    let mut all = Vec::new();
    let mut base = 0usize;
    for chunk in bytes.utf8_chunks() {
        let mut from = 0;
        while let Some((start, end, shape)) = next_shape(chunk.valid(), &mut from) {
            let text = chunk.valid().get(start..end).unwrap_or_default();
            let ours = text.to_ascii_lowercase().contains("keyferry");
            if shape.rest != Rest::Credentials && !ours {
                all.push((base.saturating_add(start), base.saturating_add(end), shape.prefix));
            }
        }
        base = base.saturating_add(chunk.valid().len()).saturating_add(chunk.invalid().len());
    }
    all
}

/// Whether a byte can stand in a token.
pub(super) fn in_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// The text with each run of backslashes as one, and where each of its bytes stands: an escaped value that was
/// written into a JSON string, or by `{:?}`, has its backslashes doubled each time. `None` when there is no run.
fn with_single_backslashes(text: &[u8]) -> Option<(Vec<u8>, Vec<usize>)> {
    memmem::find(text, b"\\\\")?;
    let mut once = Vec::with_capacity(text.len());
    let mut places = Vec::with_capacity(text.len().saturating_add(1));
    for (at, byte) in text.iter().enumerate() {
        if *byte != b'\\' || once.last() != Some(byte) {
            once.push(*byte);
            places.push(at);
        }
    }
    places.push(text.len());
    Some((once, places))
}

/// How a kind of token begins, and how it goes on.
struct Shape {
    prefix: &'static str,
    /// How many more characters make it a token and not a word.
    least: usize,
    rest: Rest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Letters, digits, `_`, `-` and `.`.
    Token,
    /// `<digits>:<35 characters>`, the colon possibly escaped.
    Telegram,
    /// What RFC 7235 section 2.1 calls token68.
    Credentials,
}

const fn token(prefix: &'static str, least: usize) -> Shape {
    Shape { prefix, least, rest: Rest::Token }
}

const fn credentials(prefix: &'static str) -> Shape {
    Shape { prefix, least: 8, rest: Rest::Credentials }
}

const SHAPES: &[Shape] = &[
    token("sk-ant-", 16),
    token("sk-or-", 16),
    token("sk-proj-", 16),
    token("sk-", 20),
    token("sk_live_", 16),
    token("sk_test_", 16),
    token("rk_live_", 16),
    token("ghp_", 20),
    token("gho_", 20),
    token("ghu_", 20),
    token("ghs_", 20),
    token("ghr_", 20),
    token("github_pat_", 20),
    token("glpat-", 16),
    token("xoxa-", 10),
    token("xoxb-", 10),
    token("xoxc-", 10),
    token("xoxd-", 10),
    token("xoxe-", 10),
    token("xoxe.xoxp-", 10),
    token("xoxo-", 10),
    token("xoxp-", 10),
    token("xoxr-", 10),
    token("xoxs-", 10),
    token("xapp-", 10),
    token("AIza", 30),
    token("ya29.", 20),
    token("kfa_", 16),
    token("gsk_", 20),
    token("xai-", 20),
    token("hf_", 20),
    token("r8_", 20),
    token("npm_", 20),
    token("pypi-", 40),
    token("SG.", 40),
    token("eyJ", 40),
    Shape { prefix: "/bot", least: 35, rest: Rest::Telegram },
    credentials("Bearer "),
    credentials("bearer "),
    credentials("Bearer%20"),
    credentials("Basic "),
    credentials("basic "),
];

static PREFIXES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(SHAPES.iter().map(|shape| shape.prefix)).ok()
});

fn public_prefix(secret: &[u8]) -> &'static str {
    let tokens = SHAPES.iter().filter(|shape| shape.rest == Rest::Token && secret.starts_with(shape.prefix.as_bytes()));
    tokens.map(|shape| shape.prefix).max_by_key(|prefix| prefix.len()).unwrap_or_default()
}

fn mask_shapes(text: &str) -> Option<String> {
    let mut out: Option<String> = None;
    let (mut copied, mut from) = (0usize, 0usize);
    while let Some((start, end, shape)) = next_shape(text, &mut from) {
        let begun = start.saturating_add(shape.prefix.len());
        let rest = text.get(begun..).unwrap_or_default();
        let kept = if shape.rest == Rest::Credentials { public_prefix(rest.as_bytes()) } else { "" };
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(text.get(copied..begun).unwrap_or_default());
        out.push_str(kept);
        out.push_str(MASK);
        copied = end;
    }
    if let Some(out) = &mut out {
        out.push_str(text.get(copied..).unwrap_or_default());
    }
    out
}

/// The next token of a known shape at or behind `from`, which is moved past it.
fn next_shape(text: &str, from: &mut usize) -> Option<(usize, usize, &'static Shape)> {
    let prefixes = PREFIXES.as_ref()?;
    while let Some(found) = prefixes.find(aho_corasick::Input::new(text).span(*from..text.len())) {
        *from = found.end();
        let Some(shape) = SHAPES.get(found.pattern().as_usize()) else { continue };
        let before = found.start().checked_sub(1).and_then(|at| text.as_bytes().get(at));
        // `task-...` is a word, not a key. A path's slash, and a scheme's name after anything, need no such look.
        if shape.rest == Rest::Token && before.is_some_and(u8::is_ascii_alphanumeric) {
            *from = found.start().saturating_add(1);
            continue;
        }
        let len = token_length(shape, text.get(found.end()..).unwrap_or_default());
        if len > 0 {
            *from = found.end().saturating_add(len);
            return Some((found.start(), *from, shape));
        }
    }
    None
}

/// How many bytes of `rest` belong to the token; zero when it is none.
fn token_length(shape: &Shape, rest: &str) -> usize {
    let run = |text: &str, allowed: fn(u8) -> bool| text.bytes().take_while(|byte| allowed(*byte)).count();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match shape.rest {
        Rest::Token => {
            let len = run(rest, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
            if len >= shape.least { len } else { 0 }
        }
        Rest::Credentials => {
            let len = run(rest, |byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte));
            if len >= shape.least { len } else { 0 }
        }
        Rest::Telegram => {
            let digits = run(rest, |byte| byte.is_ascii_digit());
            let after = rest.get(digits..).unwrap_or_default();
            let colon = [":", "%3A", "%3a"].iter().find(|colon| after.starts_with(**colon)).map_or(0, |c| c.len());
            let len = run(after.get(colon..).unwrap_or_default(), word);
            if digits > 0 && colon > 0 && len >= shape.least {
                digits.saturating_add(colon).saturating_add(len)
            } else {
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize) -> String {
        let mut bytes = vec![0u8; len];
        getrandom::fill(&mut bytes).unwrap();
        bytes.iter().map(|byte| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[usize::from(byte & 31)])).collect()
    }

    #[test]
    fn masks_tokens_of_known_shapes_and_keeps_their_prefix() {
        let redactor = Redactor::new();
        let tail = random(35);
        let cases = [
            (format!("key sk-ant-api03-{tail}."), "key sk-ant-***...***"),
            (format!("(sk-proj-{tail})"), "(sk-proj-***...***)"),
            (format!("sk-{tail}"), "sk-***...***"),
            (format!("https://x:ghp_{tail}@github.com/"), "https://x:ghp_***...***@github.com/"),
            (format!("github_pat_11{tail}"), "github_pat_***...***"),
            (format!("xoxb-12-{tail}"), "xoxb-***...***"),
            (format!("?key=AIza{tail}&a=b"), "?key=AIza***...***&a=b"),
            (format!("kfa_{tail}"), "kfa_***...***"),
            (format!("/bot123456:{tail}/sendMessage"), "/bot***...***/sendMessage"),
            (format!("/bot123456%3A{tail}/sendMessage"), "/bot***...***/sendMessage"),
            (format!("authorization: Bearer {tail}=="), "authorization: Bearer ***...***"),
            (format!("Bearer sk-ant-oat01-{tail}"), "Bearer sk-ant-***...***"),
            (format!("Basic {tail}="), "Basic ***...***"),
            (format!("a sk-ant-{tail} b sk-ant-{tail} c"), "a sk-ant-***...*** b sk-ant-***...*** c"),
        ];
        for (text, expected) in cases {
            let masked = redactor.redact(&text);
            assert_eq!(masked, expected);
            assert_eq!(redactor.redact(&masked), expected, "a second pass changes nothing");
        }
    }

    #[test]
    fn leaves_ordinary_text_as_it_is() {
        let redactor = Redactor::new();
        for text in [
            "",
            "/v1/messages",
            "the risk-assessment-of-everything task-sk-short sk-1",
            "/bottles/12:30/x",
            "/bot/12",
            "Bearer of news",
            "Basic auth",
            "xoxb-",
            "sk-ant-***...***",
            "ä ö ü 🦀",
        ] {
            assert!(matches!(redactor.redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn masks_known_values_in_every_encoding() {
        use base64::Engine as _;
        let redactor = Redactor::new();
        let plain = random(40);
        let key = format!("sk-ant-api03-{}", random(40));
        redactor.know(&[Arc::new(Secret::from(plain.clone())), Arc::new(Secret::from(key.clone()))]);
        assert_eq!(redactor.redact(&format!("a {plain} b")), "a ***...*** b");
        assert_eq!(redactor.redact(&format!("a{key}b")), "ask-ant-***...***b");
        let hex: String = plain.bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let json: String = plain.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
        for form in [hex, percent, json.clone(), plain[5..35].to_owned()] {
            assert_eq!(redactor.redact(&format!("ä {form} ü")), "ä ***...*** ü");
        }
        let nested = json.replace('\\', "\\\\\\\\");
        assert_eq!(redactor.redact(&format!("C:\\\\ä {nested}\\\\ ü")), "C:\\\\ä ***...***\\\\ ü");
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{plain}"));
        assert!(redactor.redact(&format!("x {basic}")).contains("***...***"));
        redactor.know(&[]);
        assert_eq!(redactor.redact(&plain), plain);
    }
}
