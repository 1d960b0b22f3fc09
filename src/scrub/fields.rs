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
        match HeaderValue::from_maybe_shared(covered) {
            Ok(mut covered) => {
                covered.set_sensitive(value.is_sensitive());
                *value = covered;
                hits = hits.saturating_add(found);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Item;
    use super::*;
    use crate::secret::Secret;

    fn patterns(secret: &str, replacement: &str) -> Arc<Patterns> {
        let secret = Arc::new(Secret::from(secret.to_owned()));
        Patterns::new(&[Item { secret, replacement: replacement.to_owned() }])
    }

    fn fields(list: &[(&'static str, String)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn covers_values_and_leaves_the_others_alone() {
        // EX-02, EX-12
        let secret = format!("Xk{:030}", std::process::id());
        let mut map = fields(&[
            ("location", format!("https://evil.test/?k={secret}")),
            ("set-cookie", format!("a={secret}; Path=/")),
            ("set-cookie", "b=1".to_owned()),
            ("etag", format!("\"{}\"", secret.bytes().map(|b| format!("{b:02x}")).collect::<String>())),
            ("content-type", "text/plain".to_owned()),
        ]);
        assert_eq!(scrub_fields(&patterns(&secret, "stand-in"), &mut map), 3);
        let shown = format!("{map:?}");
        assert!(!shown.contains(&secret), "{shown}");
        assert_eq!(map["location"], "https://evil.test/?k=stand-in");
        assert_eq!(map.get_all("set-cookie").iter().count(), 2);
        assert_eq!(map["etag"], format!("\"{}\"", "*".repeat(64)));
        assert_eq!(map["content-type"], "text/plain");
    }

    #[test]
    fn drops_a_field_whose_name_holds_a_secret() {
        // EX-02: a name arrives in lower case whatever the upstream sent.
        let secret = format!("AbC{:040}", std::process::id());
        for name in [format!("x-{}", secret.to_lowercase()), format!("x-{}", secret[2..30].to_lowercase())] {
            let mut map = HeaderMap::new();
            map.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            map.insert("x-other", HeaderValue::from_static("2"));
            assert_eq!(scrub_fields(&patterns(&secret, "x"), &mut map), 1);
            assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
        }
    }

    #[test]
    fn drops_a_field_that_cannot_hold_the_replacement() {
        let mut map = fields(&[("x-echo", "abcdefgh".to_owned())]);
        assert_eq!(scrub_fields(&patterns("abcdefgh", "two\nlines"), &mut map), 1);
        assert!(map.is_empty());
    }

    #[test]
    fn a_sensitive_value_stays_sensitive() {
        let mut map = HeaderMap::new();
        let mut value = HeaderValue::from_static("abcdefgh");
        value.set_sensitive(true);
        map.insert("x-echo", value);
        scrub_fields(&patterns("abcdefgh", "ok"), &mut map);
        assert!(map["x-echo"].is_sensitive());
    }
}
