//! A credential in one cookie: `Cookie: session={secret}`.

use http::header::COOKIE;
use zeroize::Zeroizing;

use super::{Head, InjectError, Template, Values, set_field, verbatim};

/// A cookie and the template of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieCarrier {
    /// The cookie's name.
    pub name: String,
    /// Its value.
    pub value: Template,
}

impl CookieCarrier {
    pub(super) fn read(&self, head: &Head) -> Option<String> {
        let mut cookies = head.fields.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        cookies.find_map(|text| {
            text.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                if name.trim() != self.name {
                    return None;
                }
                self.value.read(value.trim()).map(str::to_owned)
            })
        })
    }

    /// Adds the cookie behind those that other carriers of the same request put there.
    pub(super) fn put(&self, head: &mut Head, values: &Values<'_>) -> Result<(), InjectError> {
        let value = self.value.fill(values, verbatim)?;
        if !value.iter().all(|byte| is_cookie_octet(*byte)) {
            return Err(InjectError::Unusable("a cookie"));
        }
        let before = head.fields.get(COOKIE).map(|value| Zeroizing::new(value.as_bytes().to_vec()));
        let mut whole = Zeroizing::new(Vec::with_capacity(
            before
                .as_ref()
                .map_or(0, |before| before.len())
                .saturating_add(self.name.len())
                .saturating_add(value.len())
                .saturating_add(3),
        ));
        if let Some(before) = before {
            whole.extend_from_slice(&before);
            whole.extend_from_slice(b"; ");
        }
        whole.extend_from_slice(self.name.as_bytes());
        whole.push(b'=');
        whole.extend_from_slice(&value);
        set_field(head, &COOKIE, &whole)
    }
}

/// RFC 6265 section 4.1.1: a value with a semicolon would be two cookies.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}
