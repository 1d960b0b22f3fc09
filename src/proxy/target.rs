//! Where a request is for, and whether its head is one that a proxy may pass on at all.
//!
//! Invariant: hyper accepts heads that RFC 9110 and 9112 forbid a proxy to forward; each such head is refused here,
//! before anything else looks at the request.

use http::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use http::{Method, Uri, Version};

use crate::code::Code;
use crate::message::origin::{Origin, Scheme};
use crate::message::path::Path;
use crate::proxy::limits::{HEAD_BYTES, LINE_BYTES};
use crate::proxy::respond::Answer;

/// How a request names its target.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// Inside a tunnel, whose authority it must repeat.
    Tunnel(&'a Origin),
    /// On the proxy port, as an absolute URI.
    Absolute,
    /// On the base-URL listener: `/provider/path`, for the origin that the provider's name stands for.
    BaseUrl(&'a Origin),
}

/// Checks method and framing, and reads the target.
///
/// # Errors
/// An [`Answer`] with 400, 421 or 501.
pub fn read(
    method: &Method,
    uri: &Uri,
    version: Version,
    fields: &HeaderMap,
    way: Way<'_>,
) -> Result<(Origin, Path), Answer> {
    check_method(method)?;
    check_size(uri, fields)?;
    check_framing(version, fields)?;
    let origin = match way {
        Way::Tunnel(tunnel) => {
            let named = named(uri, version, fields, Scheme::Https)?;
            if named.as_ref().is_some_and(|named| named != tunnel) {
                return Err(Answer::of(Code::AuthorityMismatch));
            }
            tunnel.clone()
        }
        Way::Absolute => {
            let scheme = match uri.scheme_str() {
                Some("http") => Scheme::Http,
                Some("https") => Scheme::Https,
                _ => {
                    return Err(Answer::saying(
                        Code::BadRequest,
                        "this is a proxy: send CONNECT, or a request with an absolute URI",
                    ));
                }
            };
            named(uri, version, fields, scheme)?.ok_or_else(|| Answer::of(Code::BadRequest))?
        }
        Way::BaseUrl(origin) => origin.clone(),
    };
    let text = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let path = Path::parse(text).map_err(|error| Answer::saying(Code::BadRequest, error.to_string()))?;
    Ok((origin, path))
}

/// Whether a method is never passed on.
#[must_use]
pub fn method_is_refused(method: &Method) -> bool {
    // TRACE and its like would echo the injected field (PX-23); CONNECT inside a tunnel leads anywhere (PX-06).
    let refused = ["TRACE", "TRACK", "DEBUG", "CONNECT", "PRI"];
    refused.iter().any(|name| method.as_str().eq_ignore_ascii_case(name)) || method.as_str().len() > 32
}

/// hyper's buffer grows a read beyond its limit where the head then ends: this is where the limits are exact.
pub fn check_size(uri: &Uri, fields: &HeaderMap) -> Result<(), Answer> {
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let line = uri.path_and_query().map_or(0, |rest| rest.as_str().len()).saturating_add(authority);
    // A field's line has a colon, a space and an end beside its name and value.
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + 4;
    let all = fields.iter().map(field).fold(line, usize::saturating_add);
    if line > LINE_BYTES || all > HEAD_BYTES { Err(Answer::of(Code::HeadTooLarge)) } else { Ok(()) }
}

fn check_method(method: &Method) -> Result<(), Answer> {
    if method_is_refused(method) { Err(Answer::of(Code::MethodNotAllowed)) } else { Ok(()) }
}

fn check_framing(version: Version, fields: &HeaderMap) -> Result<(), Answer> {
    let bad = |message: &str| Err(Answer::saying(Code::BadRequest, message));
    let mut encodings = fields.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next() {
        // RFC 9112 section 6.1: both together, or with HTTP/1.0, are how requests are smuggled.
        if fields.contains_key(CONTENT_LENGTH) || version != Version::HTTP_11 || encodings.next().is_some() {
            return bad("the message's framing is ambiguous");
        }
        if !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return bad("the only transfer coding that is passed on is chunked");
        }
    }
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return bad("the Content-Length field is malformed");
    }
    // A look-alike of a framing or credential field means one thing to us and another to a CGI (PX-18).
    if fields.keys().any(|name| name.as_str().contains('_') && is_look_alike(name.as_str())) {
        return bad("a field name imitates another with an underscore");
    }
    Ok(())
}

fn is_look_alike(name: &str) -> bool {
    matches!(
        name.replace('_', "-").trim_matches('-'),
        "content-length"
            | "transfer-encoding"
            | "authorization"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "host"
            | "proxy-authorization"
            | "cookie"
    )
}

/// The origin that the request itself names, in its target and its Host field, which must agree.
fn named(uri: &Uri, version: Version, fields: &HeaderMap, scheme: Scheme) -> Result<Option<Origin>, Answer> {
    let refuse = |error: crate::message::origin::OriginError| Answer::saying(error.code(), error.to_string());
    let from_target = match uri.authority() {
        None => None,
        Some(authority) => Some(Origin::from_authority(scheme, authority.as_str()).map_err(refuse)?),
    };
    let mut hosts = fields.get_all(HOST).iter();
    let from_host = match hosts.next() {
        None => None,
        Some(host) => {
            let text = host.to_str().map_err(|_| Answer::saying(Code::BadRequest, "the Host field is malformed"))?;
            // RFC 9112 section 3.2: more than one Host field is answered with 400.
            if hosts.next().is_some() {
                return Err(Answer::saying(Code::BadRequest, "there is more than one Host field"));
            }
            Some(Origin::from_authority(scheme, text).map_err(refuse)?)
        }
    };
    match (&from_target, &from_host) {
        (Some(target), Some(host)) if target != host => Err(Answer::of(Code::AuthorityMismatch)),
        (None, None) if version == Version::HTTP_11 => Err(Answer::saying(Code::BadRequest, "there is no Host field")),
        (None, None) if version == Version::HTTP_2 => Err(Answer::saying(Code::BadRequest, "there is no authority")),
        _ => Ok(from_target.or(from_host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ask(method: &str, target: &str, fields: &[(&'static str, &'static str)]) -> Result<Origin, Code> {
        let tunnel = Origin::from_connect_target("api.openai.com:443").unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        read(&method, &target.parse().unwrap(), Version::HTTP_11, &map, Way::Tunnel(&tunnel))
            .map(|(origin, _)| origin)
            .map_err(|answer| answer.code)
    }

    #[test]
    fn the_three_names_agree_or_the_request_is_refused() {
        // TL-31, TL-32, PX-09, PX-19
        for (target, hosts, expected) in [
            ("/v1", vec![("host", "api.openai.com")], None),
            ("/v1", vec![("host", "API.OpenAI.com:443")], None),
            ("https://api.openai.com/v1", vec![("host", "api.openai.com")], None),
            ("/v1", vec![("host", "api.stripe.com")], Some(Code::AuthorityMismatch)),
            ("/v1", vec![("host", "api.openai.com:8443")], Some(Code::AuthorityMismatch)),
            ("https://api.stripe.com/v1", vec![("host", "api.openai.com")], Some(Code::AuthorityMismatch)),
            ("https://api.openai.com/v1", vec![("host", "api.stripe.com")], Some(Code::AuthorityMismatch)),
            ("/v1", vec![("host", "api.openai.com"), ("host", "api.openai.com")], Some(Code::BadRequest)),
            ("/v1", vec![("host", "api.openai.com, api.stripe.com")], Some(Code::BadRequest)),
            ("/v1", vec![("host", "user@api.openai.com")], Some(Code::BadRequest)),
            ("/v1", vec![("host", "")], Some(Code::BadRequest)),
            ("/v1", vec![], Some(Code::BadRequest)),
        ] {
            assert_eq!(ask("GET", target, &hosts).err(), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn refuses_methods_that_echo_or_tunnel() {
        // PX-06, PX-23, PX-24
        for method in ["TRACE", "trace", "TRACK", "DEBUG", "CONNECT", "PRI"] {
            assert_eq!(ask(method, "/", &[("host", "api.openai.com")]).err(), Some(Code::MethodNotAllowed), "{method}");
        }
    }

    #[test]
    fn refuses_ambiguous_framing() {
        // PX-11, PX-12, PX-13, PX-18
        for fields in [
            vec![("content-length", "5"), ("transfer-encoding", "chunked")],
            vec![("content-length", "5"), ("content-length", "5")],
            vec![("content-length", "+5")],
            vec![("content-length", "")],
            vec![("transfer-encoding", "gzip, chunked")],
            vec![("transfer-encoding", "xchunked")],
            vec![("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            vec![("content_length", "5")],
            vec![("x_api_key", "k")],
            vec![("authorization_", "k")],
        ] {
            let mut all = vec![("host", "api.openai.com")];
            all.extend(fields.clone());
            assert_eq!(ask("POST", "/", &all).err(), Some(Code::BadRequest), "{fields:?}");
        }
    }
}
