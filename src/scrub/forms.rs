//! The encodings in which a secret is looked for.
//!
//! Invariant: every text made here is wiped when it is dropped.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

/// One encoded spelling of a secret.
pub(super) type Form = Zeroizing<Vec<u8>>;

/// Every listed encoding of `secret` that differs from the raw value, each once.
pub(super) fn encoded(secret: &[u8]) -> Vec<Form> {
    let mut forms = Vec::new();
    base64_cores(secret, &mut forms);
    hex(secret, &mut forms);
    percent(secret, &mut forms);
    json(secret, &mut forms);
    let mut distinct: Vec<Form> = Vec::with_capacity(forms.len());
    for form in forms {
        if form.as_slice() != secret && !distinct.contains(&form) {
            distinct.push(form);
        }
    }
    distinct
}

/// The characters that the secret alone determines when it stands 0, 1 or 2 bytes behind a multiple of three: what
/// comes before or after it in the encoded text changes only the characters that are left off.
fn base64_cores(secret: &[u8], forms: &mut Vec<Form>) {
    for engine in [GeneralPurpose::new(&alphabet::STANDARD, NO_PAD), GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD)] {
        for (offset, foreign) in [(0usize, 0usize), (1, 2), (2, 3)] {
            let mut shifted = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(offset)));
            shifted.resize(offset, 0);
            shifted.extend_from_slice(secret);
            let text = Zeroizing::new(engine.encode(shifted.as_slice()));
            let whole = shifted.len().saturating_mul(8) / 6;
            if let Some(core) = text.as_bytes().get(foreign..whole) {
                forms.push(Zeroizing::new(core.to_vec()));
            }
        }
    }
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn digits(byte: u8, case: &[u8; 16]) -> [u8; 2] {
    let digit = |value: u8| case.get(usize::from(value)).copied().unwrap_or(b'0');
    [digit(byte >> 4), digit(byte & 15)]
}

fn hex(secret: &[u8], forms: &mut Vec<Form>) {
    for case in [LOWER, UPPER] {
        forms.push(Zeroizing::new(secret.iter().flat_map(|byte| digits(*byte, case)).collect()));
    }
}

/// Full, and minimal by each of the sets that are in use: encoders disagree about which characters need it.
fn percent(secret: &[u8], forms: &mut Vec<Form>) {
    const KEPT: [&[u8]; 6] = [
        b"-._~",                 // RFC 3986 section 2.3: unreserved
        b"-_.!~*'()",            // encodeURIComponent
        b"-_.!~*'();/?:@&=+$,#", // encodeURI
        b"-._~!$&'()*+,;=:@",    // RFC 3986 section 3.3: pchar
        b"-._~!$&'()*+,;=:@/?",  // RFC 3986 section 3.4: query
        b"*-._",                 // application/x-www-form-urlencoded
    ];
    for case in [LOWER, UPPER] {
        let escape = |out: &mut Vec<u8>, byte: u8| {
            out.push(b'%');
            out.extend_from_slice(&digits(byte, case));
        };
        // Three bytes for each is the most there can be, so the vector never moves and leaves no copy behind.
        let room = secret.len().saturating_mul(3);
        let mut full = Zeroizing::new(Vec::with_capacity(room));
        secret.iter().for_each(|byte| escape(&mut full, *byte));
        forms.push(full);
        for kept in KEPT {
            for space in [None, Some(b'+')] {
                let mut text = Zeroizing::new(Vec::with_capacity(room));
                for byte in secret {
                    match (byte, space) {
                        (b' ', Some(plus)) => text.push(plus),
                        _ if byte.is_ascii_alphanumeric() || kept.contains(byte) => text.push(*byte),
                        _ => escape(&mut text, *byte),
                    }
                }
                forms.push(text);
            }
        }
    }
}

/// Which characters a JSON writer escapes beyond those that RFC 8259 section 7 demands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Json {
    Least,
    Slash,
    Html,
    Careful,
    Ascii,
    All,
}

fn json(secret: &[u8], forms: &mut Vec<Form>) {
    for case in [LOWER, UPPER] {
        for style in [Json::Least, Json::Slash, Json::Html, Json::Careful, Json::Ascii, Json::All] {
            for short in [true, false] {
                // A UTF-16 unit takes six bytes and stands for at least one byte.
                let mut text = Zeroizing::new(Vec::with_capacity(secret.len().saturating_mul(6)));
                match std::str::from_utf8(secret) {
                    Ok(valid) => valid.chars().for_each(|c| json_char(&mut text, c, style, short, case)),
                    Err(_) => {
                        secret.iter().for_each(|byte| json_char(&mut text, char::from(*byte), style, short, case))
                    }
                }
                forms.push(text);
            }
        }
    }
}

fn json_char(out: &mut Vec<u8>, c: char, style: Json, short: bool, case: &[u8; 16]) {
    let demanded = matches!(c, '"' | '\\') || c < ' ';
    let by_style = match style {
        Json::Least => false,
        Json::Slash => c == '/',
        Json::Html => matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
        Json::Careful => matches!(c, '<' | '>' | '&' | '\'' | '+' | '`' | '\u{7f}') || !c.is_ascii(),
        Json::Ascii => !c.is_ascii(),
        Json::All => true,
    };
    let letter = match c {
        '"' | '\\' | '/' => u8::try_from(c).ok(),
        '\u{8}' => Some(b'b'),
        '\u{c}' => Some(b'f'),
        '\n' => Some(b'n'),
        '\r' => Some(b'r'),
        '\t' => Some(b't'),
        _ => None,
    };
    let mut buffer = [0u8; 4];
    match letter {
        _ if !demanded && !by_style => out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
        Some(letter) if short && style != Json::All => out.extend_from_slice(&[b'\\', letter]),
        _ => {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let [high, low] = unit.to_be_bytes();
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(&digits(high, case));
                out.extend_from_slice(&digits(low, case));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(secret: &[u8]) -> Vec<String> {
        encoded(secret).iter().map(|form| String::from_utf8_lossy(form).into_owned()).collect()
    }

    #[test]
    fn a_core_stands_in_the_encoding_of_every_surrounding() {
        let secret = b"an-opaque-value/with+signs??>>~~";
        let forms = encoded(secret);
        for engine in [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::URL_SAFE] {
            for before in 0..7usize {
                for after in 0..5usize {
                    let text = [&vec![0xa7; before][..], secret, &vec![0x5b; after][..]].concat();
                    let encoded = engine.encode(text);
                    let found = forms.iter().any(|form| encoded.as_bytes().windows(form.len()).any(|w| w == &form[..]));
                    assert!(found, "{before} before, {after} after");
                }
            }
        }
    }

    #[test]
    fn each_spelling_stands_once_and_is_never_the_raw_value() {
        let plain = texts(b"abcdefgh12");
        assert!(!plain.contains(&"abcdefgh12".to_owned()));
        assert!(plain.contains(&"61626364656667683132".to_owned()));
        assert!(plain.contains(&"%61%62%63%64%65%66%67%68%31%32".to_owned()));
        assert!(plain.iter().any(|form| form.starts_with("\\u0061\\u0062")));
        let mut sorted = plain.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), plain.len());
    }

    #[test]
    fn knows_the_writers_that_escape_more() {
        let forms = texts(b"a/b+c d\"e<f~g");
        for expected in [
            "a/b+c d\\\"e<f~g",
            "a\\/b+c d\\\"e<f~g",
            "a/b+c d\\\"e\\u003cf~g",
            "a/b\\u002Bc d\\u0022e\\u003Cf~g",
            "a%2Fb%2Bc%20d%22e%3Cf~g",
            "a%2fb%2bc%20d%22e%3cf~g",
            "a%2Fb%2Bc+d%22e%3Cf%7Eg",
            "a/b+c%20d%22e%3Cf~g",
        ] {
            assert!(forms.iter().any(|form| form == expected), "{expected}");
        }
    }

    #[test]
    fn no_form_is_shorter_than_an_anchor() {
        for secret in [&b"abcdefgh"[..], b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8", "äöüß".as_bytes()] {
            assert!(encoded(secret).iter().all(|form| form.len() >= super::super::anchor::LEN), "{secret:?}");
        }
    }
}
