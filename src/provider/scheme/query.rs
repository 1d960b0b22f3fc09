//! A credential in a parameter of the query: `?key={secret}`.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use zeroize::Zeroizing;

use super::{Head, InjectError, Template, Values, remember};
use crate::secret::Secret;

/// A parameter and the template of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryCarrier {
    /// The parameter's name.
    pub name: String,
    /// Its value, before it is percent-encoded.
    pub value: Template,
}

impl QueryCarrier {
    pub(super) fn read(&self, head: &Head) -> Option<String> {
        let query = head.query.as_deref()?;
        parameters(query).find_map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            if decoded(name) != self.name {
                return None;
            }
            self.value.read(&decoded(value)).map(str::to_owned)
        })
    }

    pub(super) fn put(
        &self,
        head: &mut Head,
        values: &Values<'_>,
        derived: &mut Vec<Arc<Secret>>,
    ) -> Result<(), InjectError> {
        let plain = self.value.fill(values, |bytes, into| into.extend_from_slice(bytes))?;
        // A line break would be escaped and harmless, but no key has one: what was stored is not what was meant.
        if plain.iter().any(u8::is_ascii_control) {
            return Err(InjectError::Unusable("a query"));
        }
        let encoded = Zeroizing::new(percent_encode(&plain, UNRESERVED).to_string());
        remember(derived, encoded.as_bytes(), &plain);
        let name = percent_encode(self.name.as_bytes(), UNRESERVED);
        let query = Zeroizing::new(head.query.take().unwrap_or_default());
        let separator = if query.is_empty() { "" } else { "&" };
        head.query = Some(format!("{}{separator}{name}={}", *query, *encoded));
        Ok(())
    }
}

/// What `query` is without the parameters called by one of `names`; the others keep every byte and their order.
pub(in crate::provider) fn remove(query: &str, names: &[String]) -> Option<String> {
    let mut kept = String::new();
    let mut rest = query;
    let mut separator = None;
    loop {
        let end = rest.find(SEPARATORS).unwrap_or(rest.len());
        let (piece, after) = rest.split_at_checked(end)?;
        let name = decoded(piece.split_once('=').map_or(piece, |(name, _)| name));
        // Some servers read parameter names without case, so a slot is emptied in every case.
        if !names.iter().any(|slot| slot.eq_ignore_ascii_case(name.trim())) {
            if let Some(separator) = separator.filter(|_| !kept.is_empty()) {
                kept.push(separator);
            }
            kept.push_str(piece);
        }
        let mut chars = after.chars();
        match chars.next() {
            None => break,
            next => separator = next,
        }
        rest = chars.as_str();
    }
    (!kept.is_empty()).then_some(kept)
}

/// Some servers still separate by semicolons (HTML 4.01 appendix B.2.2), so a slot behind one is a slot.
const SEPARATORS: [char; 2] = ['&', ';'];

/// RFC 3986 section 2.3: everything but the unreserved characters is escaped.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split(SEPARATORS)
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_a_slot_in_every_spelling_and_keeps_the_rest_as_it_was() {
        let names = ["key".to_owned()];
        for (query, left) in [
            ("key=x", None),
            ("key", None),
            ("a=1&key=x&b=%2F", Some("a=1&b=%2F")),
            ("key=x&a=1", Some("a=1")),
            ("a=1&%6bey=x", Some("a=1")),
            ("a=1&KEY=x", Some("a=1")),
            ("a=1;key=x;b=2", Some("a=1;b=2")),
            ("a=1&key=x&key=y", Some("a=1")),
            ("monkey=1&keys=2&a=key", Some("monkey=1&keys=2&a=key")),
            ("a=1&+key=x", Some("a=1")),
        ] {
            assert_eq!(remove(query, &names).as_deref(), left, "{query}");
        }
    }
}
