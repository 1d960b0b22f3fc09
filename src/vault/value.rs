//! What may be stored as a value, and how much of it is ever shown.
//!
//! Invariant: a preview holds at most a well-known prefix and the last four characters, and only of a value that is
//! long enough to keep the rest secret.

use crate::secret::Secret;

/// The longest value in bytes. With its binding it still fits into a record's payload of 64 KiB.
pub const VALUE_LIMIT: usize = 44 * 1024;

/// Kinds whose value is a document: PEM, or one JSON object, which have lines.
const DOCUMENTS: &[&str] = &["aws-sigv4", "github-app", "google-service-account", "hmac", "mtls", "oauth2"];

/// The beginnings that the issuers give to their keys. They say whose key it is and nothing else.
const PREFIXES: &[&str] = &[
    "AIza",
    "AKIA",
    "ASIA",
    "SG.",
    "dop_v1_",
    "fc-",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gsk_",
    "hf_",
    "key-",
    "lin_api_",
    "npm_",
    "ntn_",
    "nvapi-",
    "pcsk_",
    "pk_live_",
    "pk_test_",
    "pplx-",
    "pypi-",
    "r8_",
    "re_",
    "rk_live_",
    "rk_test_",
    "rnd_",
    "sbp_",
    "secret_",
    "shpat_",
    "sk-",
    "sk-ant-",
    "sk-or-",
    "sk-proj-",
    "sk_live_",
    "sk_test_",
    "tvly-",
    "whsec_",
    "xai-",
    "xapp-",
    "xoxb-",
    "xoxp-",
];

/// What a stored reference begins with: bytes that no value can hold.
const REFERENCE: &[u8] = b"\0ref\0";

/// What is sealed in the place of a value that stands elsewhere.
pub(super) fn sealed_reference(reference: &str) -> Secret {
    let mut bytes = REFERENCE.to_vec();
    bytes.extend_from_slice(reference.as_bytes());
    Secret::new(bytes)
}

/// The reference that is stored in the place of a value, if it is one.
#[must_use]
pub fn reference(value: &Secret) -> Option<&str> {
    std::str::from_utf8(value.expose().strip_prefix(REFERENCE)?).ok()
}

/// The parts of a value that can stand by themselves: the texts of one that is a JSON object, long enough to tell.
#[must_use]
pub fn parts(value: &Secret) -> Vec<Secret> {
    const TELLING: usize = 16;
    let fields = serde_json::from_slice::<std::collections::BTreeMap<String, serde_json::Value>>(value.expose());
    let texts = fields.unwrap_or_default().into_values().filter_map(|field| match field {
        serde_json::Value::String(text) if text.len() >= TELLING => Some(Secret::from(text)),
        _ => None,
    });
    texts.collect()
}

/// Why a value was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing in it.
    #[error("the value is empty")]
    Empty,
    /// Longer than [`VALUE_LIMIT`].
    #[error("the value has {found} bytes, more than the limit of {VALUE_LIMIT}")]
    TooLarge {
        /// How long it is.
        found: usize,
    },
    /// More than one line, in a kind that goes into one field of a request.
    #[error("the value has more than one line, which a field of a request cannot hold")]
    Newline,
    /// A control character.
    #[error("the value has a control character (byte 0x{byte:02x} at position {position})")]
    Control {
        /// Which.
        byte: u8,
        /// Where, counted from one.
        position: usize,
    },
}

impl ValueError {
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Empty => "give it at the prompt, on stdin, with --from-env VAR or --from-file F",
            Self::TooLarge { .. } => "is this the right file? Keys are far shorter",
            Self::Newline => "give only the key itself; a key in PEM or JSON needs its own --type",
            Self::Control { .. } => "copy the key again, without anything around it",
        }
    }
}

/// Cuts one trailing newline and checks the rest for what `kind` can hold.
///
/// # Errors
/// [`ValueError`], which shows no byte of the value but a control character.
pub fn clean(kind: &str, value: &Secret) -> Result<Secret, ValueError> {
    let bytes = value.expose();
    let bytes = bytes.strip_suffix(b"\n").map_or(bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
    if bytes.is_empty() {
        return Err(ValueError::Empty);
    }
    if bytes.len() > VALUE_LIMIT {
        return Err(ValueError::TooLarge { found: bytes.len() });
    }
    let document = DOCUMENTS.contains(&kind);
    for (position, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' | b'\r' | b'\t' if document => {}
            b'\n' | b'\r' => return Err(ValueError::Newline),
            0..=0x1f | 0x7f => return Err(ValueError::Control { byte, position: position + 1 }),
            _ => {}
        }
    }
    Ok(Secret::new(bytes.to_vec()))
}

/// The value with more fields, where it is one JSON object of texts; one that is not becomes the field `single`.
#[must_use]
pub fn with_fields(value: &Secret, single: Option<&str>, fields: &[(String, String)]) -> Option<Secret> {
    let mut object: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(value.expose()) {
        Ok(object) => object,
        Err(_) => {
            let text = String::from_utf8(value.expose().to_vec()).ok()?;
            serde_json::Map::from_iter([(single?.to_owned(), text.into())])
        }
    };
    object.extend(fields.iter().map(|(name, text)| (name.clone(), text.as_str().into())));
    Some(Secret::from(serde_json::Value::Object(object).to_string()))
}

/// How the value is shown: `sk-ant-***...1234`, or `***` where that would say too much. A reference is shown behind a
/// zero byte, which tells it from every value.
#[must_use]
pub fn preview(value: &Secret) -> String {
    if let Some(reference) = reference(value) {
        return format!("\0{reference}");
    }
    // At least this many bytes stay unseen between the prefix and the last four.
    const UNSEEN: usize = 8;
    let bytes = value.expose();
    let plain = bytes.iter().all(|byte| byte.is_ascii_graphic()) && !bytes.starts_with(b"{");
    let (Some((rest, last)), true) = (bytes.split_last_chunk::<4>(), bytes.len() >= 20 && plain) else {
        return "***".to_owned();
    };
    let prefix = PREFIXES
        .iter()
        .filter(|prefix| rest.starts_with(prefix.as_bytes()) && rest.len() - prefix.len() >= UNSEEN)
        .max_by_key(|prefix| prefix.len())
        .unwrap_or(&"");
    format!("{prefix}***...{}", String::from_utf8_lossy(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(kind: &str, value: &[u8]) -> Result<Vec<u8>, ValueError> {
        clean(kind, &Secret::new(value.to_vec())).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn cuts_one_newline_and_only_one() {
        for (given, kept) in [
            (b"abc".as_slice(), b"abc".as_slice()),
            (b"abc\n", b"abc"),
            (b"abc\r\n", b"abc"),
            (b" abc ", b" abc "),
            ("käse".as_bytes(), "käse".as_bytes()),
        ] {
            assert_eq!(cleaned("api-key", given).unwrap(), kept);
        }
        assert_eq!(cleaned("api-key", b"abc\n\n"), Err(ValueError::Newline));
        assert_eq!(cleaned("github-app", b"abc\n\n").unwrap(), b"abc\n");
    }

    #[test]
    fn refuses_what_a_field_cannot_hold() {
        for (given, error) in [
            (b"".as_slice(), ValueError::Empty),
            (b"\n", ValueError::Empty),
            (b"\r\n", ValueError::Empty),
            (b"a\nb", ValueError::Newline),
            (b"a\rb", ValueError::Newline),
            (b"abc\r", ValueError::Newline),
            (b"a\0b", ValueError::Control { byte: 0, position: 2 }),
            (b"a\tb", ValueError::Control { byte: 9, position: 2 }),
            (b"a\x7f", ValueError::Control { byte: 0x7f, position: 2 }),
            (b"\x1b[200~a", ValueError::Control { byte: 0x1b, position: 1 }),
        ] {
            assert_eq!(cleaned("api-key", given), Err(error), "{given:?}");
            assert!(!error.hint().is_empty());
        }
        assert_eq!(cleaned("github-app", b"a\0b"), Err(ValueError::Control { byte: 0, position: 2 }));
        let megabyte = vec![b'x'; 1 << 20];
        assert_eq!(cleaned("api-key", &megabyte), Err(ValueError::TooLarge { found: 1 << 20 }));
        assert!(cleaned("api-key", &megabyte[..VALUE_LIMIT]).is_ok());
    }

    #[test]
    fn shows_the_issuers_prefix_and_the_last_four() {
        let shown = |value: &str| preview(&Secret::from(value.to_owned()));
        let body = "Q".repeat(30);
        for (value, expected) in [
            (format!("sk-ant-api03-{body}1234"), "sk-ant-***...1234"),
            (format!("sk-proj-{body}abcd"), "sk-proj-***...abcd"),
            (format!("sk-{body}abcd"), "sk-***...abcd"),
            (format!("ghp_{body}abcd"), "ghp_***...abcd"),
            (format!("{body}abcd"), "***...abcd"),
            ("Q".repeat(19), "***"),
            ("Q".repeat(16) + "abcd", "***...abcd"),
            ("github_pat_QQQQQabcde".to_owned(), "***...bcde"),
            ("short".to_owned(), "***"),
            (format!("{{\"key\": \"{body}\"}}"), "***"),
            (format!("-----BEGIN KEY-----\n{body}\n"), "***"),
            (format!("{body}äöüß"), "***"),
        ] {
            assert_eq!(shown(&value), expected, "{value}");
        }
    }
}
