//! Secrets made at run time, in the shapes of real ones, and the search for them.
//!
//! Nothing that looks like a real key stands in the repository: only prefixes do.

use std::path::Path;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// A run of the secret's own bytes this long counts as the secret.
const WINDOW: usize = 24;

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const URL_LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX_LETTERS: &[u8] = b"0123456789abcdef";

/// One secret of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary(String);

impl Canary {
    pub fn anthropic() -> Self {
        Self(format!("sk-ant-{}-{}AA", "api03", random(93, URL_LETTERS)))
    }

    pub fn setup_token() -> Self {
        Self(format!("sk-ant-{}-{}AA", "oat01", random(93, URL_LETTERS)))
    }

    pub fn openai() -> Self {
        Self(format!("sk-{}-{}T3BlbkFJ{}", "proj", random(74, URL_LETTERS), random(74, URL_LETTERS)))
    }

    pub fn openrouter() -> Self {
        Self(format!("sk-{}-v1-{}", "or", random(64, HEX_LETTERS)))
    }

    pub fn gemini() -> Self {
        Self(format!("AI{}{}", "za", random(35, URL_LETTERS)))
    }

    pub fn github() -> Self {
        Self(format!("gh{}_{}", "p", random(36, LETTERS)))
    }

    pub fn telegram() -> Self {
        Self(format!("{}:AA{}", random(10, b"123456789"), random(33, URL_LETTERS)))
    }

    pub fn slack() -> Self {
        let digits = || random(12, b"123456789");
        Self(format!("xox{}-{}-{}-{}", "b", digits(), digits(), random(24, LETTERS)))
    }

    pub fn stripe() -> Self {
        Self(format!("sk_{}_{}", "test", random(99, LETTERS)))
    }

    pub fn bedrock() -> Self {
        Self(format!("AB{}{}", "SK", random(128, LETTERS)))
    }

    /// A secret of no known shape, with characters that need escapes in JSON, URLs and headers' quoted strings.
    pub fn awkward() -> Self {
        Self(format!("p@ss/{}+&=%\"\\{}", random(20, LETTERS), random(12, LETTERS)))
    }

    pub fn plain() -> Self {
        Self(random(40, LETTERS))
    }

    /// Any other text that must not be found.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn random(length: usize, alphabet: &[u8]) -> String {
    let mut bytes = vec![0u8; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

/// Where a secret was found, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    pub place: String,
    pub form: &'static str,
    pub offset: usize,
}

/// Looks for secrets in any bytes, in every listed form.
pub struct Search {
    exact: AhoCorasick,
    forms: Vec<&'static str>,
}

impl Search {
    pub fn new<'a>(canaries: impl IntoIterator<Item = &'a Canary>) -> Self {
        let mut needles: Vec<Vec<u8>> = Vec::new();
        let mut forms = Vec::new();
        for canary in canaries {
            for (form, needle) in encodings(canary.0.as_bytes()) {
                needles.push(needle);
                forms.push(form);
            }
        }
        // Letter case matters to base64 only; finding more than that is no harm here.
        let builder =
            AhoCorasick::builder().match_kind(MatchKind::Standard).ascii_case_insensitive(false).build(needles);
        Self { exact: builder.unwrap(), forms }
    }

    pub fn bytes(&self, place: &str, bytes: &[u8]) -> Vec<Hit> {
        let found = self.exact.find_overlapping_iter(bytes);
        let hit = |m: aho_corasick::Match| Hit {
            place: place.to_owned(),
            form: self.forms[m.pattern().as_usize()],
            offset: m.start(),
        };
        found.map(hit).collect()
    }

    /// Every regular file under `dir`, and the file names themselves.
    pub fn directory(&self, dir: &Path) -> Vec<Hit> {
        let mut hits = Vec::new();
        let Ok(entries) = std::fs::read_dir(dir) else { return hits };
        for entry in entries.flatten() {
            let path = entry.path();
            hits.extend(self.bytes("a file name", path.as_os_str().as_encoded_bytes()));
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                hits.extend(self.directory(&path));
            } else if kind.is_file() {
                // A file may go away between the listing and the reading (SQLite's own do).
                if let Ok(bytes) = std::fs::read(&path) {
                    hits.extend(self.bytes(&path.display().to_string(), &bytes));
                }
            }
        }
        hits
    }
}

/// The forms of a secret that must not be found; each stands for the whole value or for 24 bytes of it.
fn encodings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![("raw", secret.to_vec())];
    all.extend(secret.windows(WINDOW).map(|window| ("24 raw bytes", window.to_vec())));
    for shift in 0..3 {
        let padded = [&vec![b'x'; shift][..], secret].concat();
        for (form, engine) in [("base64", &STANDARD), ("base64url", &URL_SAFE)] {
            let text = engine.encode(&padded).into_bytes();
            // The first and last characters also depend on the neighbours; the core does not.
            let start = if shift == 0 { 0 } else { 4 };
            let end = if padded.len() % 3 == 0 { text.len() } else { text.len() - 4 };
            all.push((form, text[start..end].to_vec()));
        }
    }
    let lower: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    all.push(("hex", lower.to_ascii_uppercase().into_bytes()));
    all.push(("hex", lower.into_bytes()));
    for upper in [true, false] {
        let digits = |b: u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
        let every = secret.iter().map(|b| format!("%{}", digits(*b))).collect::<String>();
        let kept = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        let needed =
            secret.iter().map(|b| if kept(*b) { char::from(*b).to_string() } else { format!("%{}", digits(*b)) });
        all.push(("percent", needed.collect::<String>().into_bytes()));
        all.push(("percent", every.into_bytes()));
        all.push((
            "JSON escapes",
            secret.iter().map(|b| format!("\\u00{}", digits(*b))).collect::<String>().into_bytes(),
        ));
    }
    let quoted = serde_json::to_string(&String::from_utf8_lossy(secret)).unwrap();
    let quoted = quoted.trim_matches('"').to_owned();
    all.push(("JSON", quoted.replace('/', "\\/").into_bytes()));
    all.push(("JSON", quoted.into_bytes()));
    all.push(("UTF-16", secret.iter().flat_map(|b| [*b, 0]).collect()));
    all.push(("UTF-16BE", secret.iter().flat_map(|b| [0, *b]).collect()));
    all.extend(rare(secret));
    all
}

/// Forms that no promise names, in which our own sinks would be as bad; the whole value each.
fn rare(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |form: &dyn Fn(u8) -> String| secret.iter().map(|b| form(*b)).collect::<String>().into_bytes();
    let bytes = secret.iter().map(u8::to_string).collect::<Vec<_>>();
    let mut all = vec![
        ("reversed", secret.iter().rev().copied().collect()),
        ("HTML decimal", each(&|b| format!("&#{b};"))),
        ("HTML hexadecimal", each(&|b| format!("&#x{b:x};"))),
        ("quoted-printable", each(&|b| format!("={b:02X}"))),
        ("percent twice", each(&|b| format!("%25{b:02X}"))),
        ("hex with colons", secret.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":").into_bytes()),
        ("hex with spaces", secret.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ").into_bytes()),
        ("C escapes", each(&|b| format!("\\x{b:02x}"))),
        ("octal escapes", each(&|b| format!("\\{b:03o}"))),
        ("a list of numbers", bytes.join(", ").into_bytes()),
        ("a tight list of numbers", bytes.join(",").into_bytes()),
        ("ROT13", secret.iter().map(|b| rot13(*b)).collect()),
    ];
    for (form, width) in [("base64 in lines of 64", 64), ("base64 in lines of 76", 76)] {
        let text = STANDARD.encode(secret);
        let lines: Vec<&str> = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        all.push((form, lines.join("\n").into_bytes()));
        all.push((form, lines.join("\r\n").into_bytes()));
    }
    let basic = STANDARD.encode([b"x-access-token:", secret].concat());
    all.push(("Basic pair", basic.trim_end_matches('=').as_bytes()[20..].to_vec()));
    all
}

fn rot13(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        other => other,
    }
}

/// The names of the forms that are looked for.
pub fn form_names() -> std::collections::BTreeSet<&'static str> {
    encodings(b"0123456789abcdefghijklmnopqrstuvwxyz-ABCDEFGH").into_iter().map(|(form, _)| form).collect()
}

/// Every form as bytes, for a test of the search itself.
pub fn forms_of(canary: &Canary) -> Vec<(&'static str, Vec<u8>)> {
    encodings(canary.as_str().as_bytes())
}
