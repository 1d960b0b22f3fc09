//! Secrets in field sections: heads and trailers.
//!
//! Invariant: a field that cannot be written back without the secret is dropped.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::patterns::Patterns;

/// Covers secrets in the values of `fields`, and drops a field whose name holds one. Gives the number of places.
pub fn scrub_fields(patterns: &Patterns, fields: &mut HeaderMap) -> u64 {
    if patterns.is_empty() {
        return 0;
    }
    let mut hits = 0u64;
    let mut dropped: Vec<HeaderName> = Vec::new();
    for (name, value) in fields.iter_mut() {
        if patterns.in_name(name.as_str().as_bytes()) {
            dropped.push(name.clone());
            continue;
        }
        let Some((covered, found)) = patterns.scrub(value.as_bytes()) else { continue };
        hits = hits.saturating_add(found);
        match HeaderValue::from_maybe_shared(covered) {
            Ok(mut covered) => {
                covered.set_sensitive(value.is_sensitive());
                *value = covered;
            }
            // Only a replacement with characters that no field may hold leads here.
            Err(_) => dropped.push(name.clone()),
        }
    }
    for name in dropped {
        // Several fields of one name are dropped at once, and counted once.
        if fields.remove(&name).is_some() {
            hits = hits.saturating_add(1);
        }
    }
    hits
}
