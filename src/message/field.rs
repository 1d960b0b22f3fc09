//! Fields that end at a proxy, and the ones that another field nominates.
//!
//! Invariant: what [`strip_hop_by_hop`] leaves holds no connection-level field and no proxy credential.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Why the fields of a message were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// `Connection` nominated a field that a proxy needs.
    #[error("the Connection field nominates a field that frames or routes the message")]
    NominatesFraming,
    /// A `Connection` option is no field name.
    #[error("the Connection field is malformed")]
    MalformedConnection,
}

/// RFC 9110 section 7.6.1, and the proxy fields that are between the agent and us only.
static CONNECTION_LEVEL: [HeaderName; 9] = [
    HeaderName::from_static("connection"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

/// What tells an upstream about the agent's side, or makes it act for a host that was not judged (PX-22, RT-18).
static FORWARDING: [HeaderName; 16] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("proxy"),
    HeaderName::from_static("via"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-original-host"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-http-method"),
];

/// What a response must not carry to an agent: proxy challenges and instructions to leave the proxy (PX-48, EX-30).
static RESPONSE_ONLY: [HeaderName; 4] = [
    HeaderName::from_static("alt-svc"),
    HeaderName::from_static("refresh"),
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("proxy-status"),
];

/// Removes connection-level fields and those that `Connection` nominates.
///
/// # Errors
/// [`FieldError`] when `Connection` nominates `Host` or a framing field, or is malformed (PX-20).
pub fn strip_hop_by_hop(fields: &mut HeaderMap) -> Result<(), FieldError> {
    if fields.contains_key(header::CONNECTION) {
        let mut nominated: Vec<HeaderName> = Vec::new();
        for value in fields.get_all(header::CONNECTION) {
            let text = value.to_str().map_err(|_| FieldError::MalformedConnection)?;
            for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
                let name = HeaderName::from_bytes(option.as_bytes()).map_err(|_| FieldError::MalformedConnection)?;
                if name == header::HOST || name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
                    return Err(FieldError::NominatesFraming);
                }
                nominated.push(name);
            }
        }
        for name in nominated {
            fields.remove(name);
        }
    }
    for name in &CONNECTION_LEVEL {
        fields.remove(name);
    }
    Ok(())
}

/// Removes what would tell the upstream about the agent's side (PX-22).
pub fn strip_forwarding(fields: &mut HeaderMap) {
    for name in &FORWARDING {
        fields.remove(name);
    }
}

/// Removes from a response what would lead the agent around the proxy.
pub fn strip_response(fields: &mut HeaderMap) {
    for name in &RESPONSE_ONLY {
        fields.remove(name);
    }
}

/// Whether the request asks to become a WebSocket (RFC 6455 section 4.1), the one upgrade that is passed on.
#[must_use]
pub fn asks_for_websocket(fields: &HeaderMap) -> bool {
    let wants = |token: &str| token.eq_ignore_ascii_case("websocket");
    asks_to_upgrade(fields) && tokens(fields, header::UPGRADE).any(wants)
}

/// Whether the request asks to become something that is not passed on. Other versions of HTTP and TLS are no such
/// thing: clients offer them on any request, and go on without.
#[must_use]
pub fn asks_for_another_protocol(fields: &HeaderMap) -> bool {
    let own = |token: &str| {
        let name = token.split('/').next().unwrap_or(token);
        ["websocket", "h2c", "h2", "http", "tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    asks_to_upgrade(fields) && tokens(fields, header::UPGRADE).any(|token| !own(token))
}

fn asks_to_upgrade(fields: &HeaderMap) -> bool {
    tokens(fields, header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn tokens(fields: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let texts = fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// A field value that is kept out of `Debug` output and out of HPACK's dynamic table.
#[must_use]
pub fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn removes_nominated_and_connection_level_fields() {
        // PX-20, PX-22
        let mut map = fields(&[
            ("connection", "close, authorization, X-Api-Key"),
            ("authorization", "x"),
            ("x-api-key", "y"),
            ("proxy-authorization", "z"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map).unwrap();
        assert_eq!(map, fields(&[("accept", "*/*")]));
    }

    #[test]
    fn refuses_a_connection_field_that_nominates_host_or_framing() {
        for bad in ["host", "Content-Length", "transfer-encoding", "close, host"] {
            let mut map = HeaderMap::new();
            map.insert(header::CONNECTION, HeaderValue::from_static(bad));
            assert_eq!(strip_hop_by_hop(&mut map), Err(FieldError::NominatesFraming));
        }
    }

    #[test]
    fn a_websocket_needs_both_fields() {
        assert!(asks_for_websocket(&fields(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])));
        assert!(!asks_for_websocket(&fields(&[("upgrade", "websocket")])));
        for (token, other) in
            [("websocket", false), ("h2c", false), ("TLS/1.3", false), ("foo", true), ("h2c, foo", true)]
        {
            assert_eq!(asks_for_another_protocol(&fields(&[("connection", "upgrade"), ("upgrade", token)])), other);
            assert!(!asks_for_another_protocol(&fields(&[("upgrade", token)])));
        }
    }
}
