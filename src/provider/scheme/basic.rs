//! A credential as user name and password: `Authorization: Basic` (RFC 7617).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::{Head, InjectError, Template, Values, remember, set_field, verbatim};
use crate::secret::Secret;

/// The templates of user name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicCarrier {
    /// The user name.
    pub user: Template,
    /// The password.
    pub password: Template,
}

impl BasicCarrier {
    pub(super) fn read(&self, head: &Head) -> Option<String> {
        let (user, password) =
            head.fields.get_all(AUTHORIZATION).iter().find_map(|value| decode(value.to_str().ok()?))?;
        let secret_is_user = self.password.fields().next().is_none();
        let (first, second) = if secret_is_user { (user, password) } else { (password, user) };
        filled(first, second)
    }

    pub(super) fn put(
        &self,
        head: &mut Head,
        values: &Values<'_>,
        derived: &mut Vec<Arc<Secret>>,
    ) -> Result<(), InjectError> {
        let user = self.user.fill(values, verbatim)?;
        // RFC 7617 section 2: a colon in the user name would move into the password; control characters are excluded.
        if user.contains(&b':') || user.iter().any(u8::is_ascii_control) {
            return Err(InjectError::Unusable("a user name"));
        }
        let password = self.password.fill(values, verbatim)?;
        if password.iter().any(u8::is_ascii_control) {
            return Err(InjectError::Unusable("a password"));
        }
        let mut pair = Zeroizing::new(Vec::with_capacity(user.len().saturating_add(password.len()).saturating_add(1)));
        pair.extend_from_slice(&user);
        pair.push(b':');
        pair.extend_from_slice(&password);
        let encoded = Zeroizing::new(STANDARD.encode(&*pair));
        remember(derived, encoded.as_bytes(), &pair);
        let text = Zeroizing::new(format!("Basic {}", *encoded));
        set_field(head, &AUTHORIZATION, text.as_bytes())
    }
}

/// The password of a Basic field value, or its user name where there is no password.
pub(in crate::provider) fn secret(value: &str) -> Option<String> {
    decode(value).and_then(|(user, password)| filled(password, user))
}

fn filled(first: String, second: String) -> Option<String> {
    Some(if first.is_empty() { second } else { first }).filter(|text| !text.is_empty())
}

fn decode(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // Clients differ on padding, and nothing depends on it here.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let text = String::from_utf8(engine.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
