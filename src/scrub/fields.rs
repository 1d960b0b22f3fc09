//! Secrets in field sections: heads and trailers.
//!
//! Invariant: a field that cannot be written back without the secret is dropped.

use bytes::Bytes;
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
        let covered = if name.as_str().ends_with("-bin") { base64_again(&covered) } else { covered };
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

/// gRPC's binary metadata has to stay base64, or the client gives the whole call up: zero bits stand there for stars.
/// Where that is not enough, the field is left empty.
fn base64_again(covered: &[u8]) -> Bytes {
    let filled: Vec<u8> = covered.iter().map(|byte| if *byte == b'*' { b'A' } else { *byte }).collect();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=,".contains(byte);
    if filled.iter().all(is_base64) { filled.into() } else { Bytes::new() }
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
    fn binary_metadata_stays_base64() {
        // EX-03
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let secret = format!("Xk{:030}", std::process::id());
        let details = |text: &str| STANDARD.encode(format!("\x0a\x20bad key {text}."));
        let mut map = fields(&[
            ("grpc-status-details-bin", details(&secret)),
            ("x-raw-bin", secret.clone()),
            ("x-clean-bin", details("none")),
        ]);
        assert_eq!(scrub_fields(&patterns(&secret, "stand-in"), &mut map), 2);
        let decoded = STANDARD.decode(&map["grpc-status-details-bin"]).unwrap();
        assert_eq!(decoded.len(), secret.len() + 11);
        assert!(decoded.starts_with(b"\x0a\x20bad key") && decoded.ends_with(b"."), "{decoded:?}");
        assert!(memchr::memmem::find(&decoded, secret.as_bytes()).is_none());
        assert_eq!(map["x-raw-bin"], "");
        assert_eq!(map["x-clean-bin"], details("none"));
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
