//! Recognises text that looks like a secret, so that one in the configuration is refused and never shown.
//!
//! Why not only the shapes that logs mask: a mask may err on the side of too much, a refusal may not.
//!
//! Invariant: answers yes or no and positions; what was found is never returned.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::fault::{At, Report};
use crate::scrub::Redactor;

/// Shapes of well-known tokens. Each has a literal beginning, so ordinary words and host names do not match.
const SHAPES: &[&str] = &[
    r"\bsk-[A-Za-z0-9_-]{20,}",
    r"\b(?:sk|rk|pk|whsec)_(?:live|test)?_?[A-Za-z0-9]{20,}",
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    r"\bgithub_pat_[A-Za-z0-9_]{30,}",
    r"\bgl(?:pat|ptt|dt|rt|cbt)-[A-Za-z0-9_-]{20,}",
    r"\bxox[a-z]-[A-Za-z0-9-]{10,}",
    r"\bxapp-[A-Za-z0-9-]{10,}",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bAIza[A-Za-z0-9_-]{35}",
    r"\bya29\.[A-Za-z0-9_-]{20,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bgsk_[A-Za-z0-9]{30,}",
    r"\bxai-[A-Za-z0-9]{30,}",
    r"\bpplx-[A-Za-z0-9]{30,}",
    r"\br8_[A-Za-z0-9]{30,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bpypi-[A-Za-z0-9_-]{40,}",
    r"\bdop_v1_[a-f0-9]{40,}",
    r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{30,}",
    r"\blin_api_[A-Za-z0-9]{30,}",
    r"\b(?:ntn|secret)_[A-Za-z0-9]{30,}",
    r"\btvly-[A-Za-z0-9-]{20,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\bkfa_[A-Za-z0-9_-]{30,}",
    r"\bAGE-SECRET-KEY-1[0-9A-Z]{30,}",
    r"\bhvs\.[A-Za-z0-9_-]{20,}",
    r"\bdp\.(?:pt|st|ct)\.[A-Za-z0-9._-]{20,}",
    r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}",
    r"\b[0-9]{8,10}:[A-Za-z0-9_-]{35}\b",
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\b(?:Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{20,}",
    // A password in a URL.
    r"[a-z]://[^\s/:@{}]*:[^\s/@{}]+@",
];

static KNOWN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(&SHAPES.join("|")).ok());

/// What logs would mask.
static MASKED: LazyLock<Redactor> = LazyLock::new(Redactor::new);

/// Reports every place of `text` that holds something in the shape of a well-known token, comments included.
pub(super) fn search(text: &str, report: &mut Report) {
    let Some(known) = KNOWN.as_ref() else { return };
    for (index, line) in text.lines().enumerate() {
        for found in known.find_iter(line) {
            let before = line.get(..found.start()).unwrap_or_default();
            let at = At {
                line: u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1),
                column: u32::try_from(before.chars().count()).unwrap_or(u32::MAX).saturating_add(1),
            };
            let hint = "secrets never stand in this file: store it with `keyferry secret set NAME`, and replace it at its \
                        provider, since it may have been seen";
            report.fault(at, "something in the shape of a secret stands here", hint);
        }
    }
}

/// Whether a message should rather not show `text`: a well-known shape, or a long run of letters and digits.
pub(super) fn may_be_secret(text: &str) -> bool {
    let known = KNOWN.as_ref().is_none_or(|known| known.is_match(text));
    known || matches!(MASKED.redact(text), Cow::Owned(_)) || text.split(is_separator).any(is_opaque)
}

fn is_separator(char: char) -> bool {
    matches!(char, '.' | '/' | ':' | '*' | ',' | '{' | '}' | '[' | ']' | '"' | '\'') || char.is_whitespace()
}

/// Words are made of letters of one case; a run of this length with digits or both cases in it is more like a key.
fn is_opaque(word: &str) -> bool {
    let any = |class: fn(&u8) -> bool| word.bytes().any(|b| class(&b));
    let (digits, small, large) = (any(u8::is_ascii_digit), any(u8::is_ascii_lowercase), any(u8::is_ascii_uppercase));
    word.len() >= 20 && ((digits && (small || large)) || (small && large))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens are put together here, so that the repository holds none.
    fn samples() -> Vec<String> {
        let long = "Ab3dEf6hIj9lMn2pQr5tUv8xYz1bCd4fGh7jKl0n";
        [
            "sk-ant-api03-",
            "sk-proj-",
            "sk-",
            "sk_live_",
            "ghp_",
            "github_pat_",
            "glpat-",
            "xoxb-",
            "hf_",
            "gsk_",
            "xai-",
            "npm_",
            "kfa_",
            "Bearer ",
            "hvs.",
            "postgres://user:",
        ]
        .into_iter()
        .map(|prefix| if prefix.contains("://") { format!("{prefix}{long}@host") } else { format!("{prefix}{long}") })
        .chain([
            format!("AKIA{}", "ABCDEFGH12345678"),
            format!("eyJ{long}.eyJ{long}.x"),
            format!("-----BEGIN {} KEY-----", "PRIVATE"),
            format!("12345678:{}", &long[..35]),
        ])
        .collect()
    }

    #[test]
    fn finds_well_known_shapes_and_says_only_where() {
        for sample in samples() {
            let mut report = Report::new("k.yaml");
            search(&format!("a: 1\nb: \"\u{e4} {sample}\"\n"), &mut report);
            let faults = report.finish().unwrap_err();
            assert_eq!((faults.0[0].line, faults.0[0].column > 4), (2, true), "{sample}");
            let word = sample.trim_start_matches("Bearer ");
            assert!(!faults.to_string().contains(word) && !faults.to_string().contains(&word[..8]), "{sample}");
            assert!(may_be_secret(&sample), "{sample}");
        }
    }

    #[test]
    fn leaves_ordinary_configuration_alone() {
        let mut report = Report::new("k.yaml");
        for plain in [
            "Bearer {secret}",
            "api.anthropic.com:443",
            "https://proxy.example:3128/",
            "http://127.0.0.1:7879/",
            "sqlite:vault.db",
            "anthropic-beta",
            "/repos/acme/*/issues/**",
            "sk-model-fast",
            "claude-sonnet-4-20250514",
            "environment-of-the-organisation",
            "{user}:{secret}@",
        ] {
            search(plain, &mut report);
        }
        assert_eq!(report.finish().unwrap(), []);
    }
}
