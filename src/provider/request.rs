//! What of a request goes on.
//!
//! [`strip`] empties every slot that a credential could stand in, whatever the client put there (PX-20, PX-21,
//! PX-22), and remembers which one the client used.
//!
//! Invariant: what [`strip`] leaves of a request that a credential is to come into holds no credential.

use std::fmt;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use super::kind::{Provider, Slots, TestCall};
use super::scheme::{Head, PathSlot, Template, remove_query};
use crate::code::Code;
use crate::message::field::{FieldError, strip_forwarding, strip_hop_by_hop};
use crate::policy::Permit;

/// Why a request was refused before any credential was looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripError {
    /// The `Connection` field is malformed or nominates framing.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A name that some servers read as the name of a credential's slot: `X_Api_Key`.
    #[error("the field name '{0}' can be taken for a credential's")]
    LookAlike(HeaderName),
    /// No path.
    #[error("the target has no path")]
    Target,
}

impl StripError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::BadRequest
    }
}

/// A request without anything that could be, or compete with, a credential.
#[derive(Clone)]
pub struct Stripped {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) head: Head,
    pub(super) used: Arc<[Used]>,
}

/// A way that the client used: which kind, which of its placements, which of its ways.
pub(super) type Used = (usize, usize, usize);

impl Stripped {
    /// Path without query, with the credential's slot in the path left blank: fit for a log.
    #[must_use]
    pub fn shown_path(&self) -> String {
        self.head.path.shown()
    }

    /// The fields that go on.
    #[must_use]
    pub fn fields(&self) -> &HeaderMap {
        &self.head.fields
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }
}

/// Shows names, and no value.
impl fmt::Debug for Stripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripped")
            .field("method", &self.method)
            .field("path", &self.head.path)
            .field("fields", &self.head.fields.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Takes out of a request what must not go on: connection-level and forwarding fields always; where a credential of
/// `provider` is to come in, every slot of it, of whichever kind, and every field that is known to hold one.
///
/// # Errors
/// [`StripError`] when a field makes the request ambiguous.
pub fn strip(parts: Parts, permit: &Permit, provider: Option<&Provider>) -> Result<Stripped, StripError> {
    strip_for(parts, provider, permit.scrub())
}

/// A provider's own test call, ready for [`inject`](super::inject()).
///
/// # Errors
/// [`StripError::Target`] when its target is none.
pub fn errand(provider: &Provider, call: &TestCall) -> Result<Stripped, StripError> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = call.method.clone();
    parts.uri = call.target.parse().map_err(|_| StripError::Target)?;
    parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("keyferry/", env!("CARGO_PKG_VERSION"))));
    strip_for(parts, Some(provider), true)
}

/// A call to a token endpoint, ready for [`forward`](super::forward): what is secret in it stands in its body.
///
/// # Errors
/// [`StripError::Target`] when its target is none.
pub fn token_call(target: &str, media: &'static str) -> Result<Stripped, StripError> {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::POST;
    parts.uri = target.parse().map_err(|_| StripError::Target)?;
    parts.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    parts.headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("keyferry/", env!("CARGO_PKG_VERSION"))));
    strip_for(parts, None, true)
}

/// What the client put where its key would stand, without scheme words and decoded: its placeholder, or its token
/// on the base-URL listener. The text may be a real key, so it is compared and never shown.
#[must_use]
pub fn presented(parts: &Parts, provider: &Provider) -> Option<String> {
    let head = head(parts.clone(), &provider.slots.paths)?;
    let ways = provider.kinds.iter().flat_map(|kind| &kind.placements).flat_map(|place| &place.ways);
    let slotted = ways.flat_map(|way| &way.0).find_map(|carrier| carrier.read(&head));
    slotted.or_else(|| subprotocol(&head.fields, &provider.slots)).or_else(|| anywhere(&head.fields))
}

/// Asks an upstream for a response that can be searched for secrets as it passes: not compressed, and whole.
///
/// Codings that come all the same are taken off. They are not asked for, although gzip would save bytes: a server that
/// compresses a stream of events holds them together, and a decoder on every answer is work and attack surface.
fn ask_for_readable(fields: &mut HeaderMap) {
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // EX-08: a secret that comes in pieces, a few bytes per request, is in none of them.
    fields.remove(header::RANGE);
    fields.remove(header::IF_RANGE);
    // RFC 7692: compressed frames cannot be searched.
    fields.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    // Compressed messages cannot be searched either; without the field a gRPC server sends plain ones.
    fields.remove(&GRPC_ACCEPT_ENCODING);
    // RFC 3229: a delta against an earlier response.
    fields.remove(&A_IM);
}

static GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
static A_IM: HeaderName = HeaderName::from_static("a-im");

/// Fields that hold credentials at one service or another. All are emptied before one is filled (PX-21).
pub(super) fn known_fields() -> impl Iterator<Item = HeaderName> {
    KNOWN.into_iter().map(HeaderName::from_static)
}

const KNOWN: [&str; 18] = [
    "authorization",
    "cookie",
    "cookie2",
    "api-key",
    "apikey",
    "x-api-key",
    "x-apikey",
    "x-api-token",
    "x-access-token",
    "x-auth-key",
    "x-auth-token",
    "x-token",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-amz-security-token",
    "private-token",
    "job-token",
    "x-vault-token",
];

/// Whether a field routes or frames a message or ends at a proxy, so that no credential can stand in it.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    let text = name.as_str();
    FRAMING.contains(&text)
        || text.starts_with("proxy-")
        || text.starts_with("x-forwarded-")
        || text.starts_with("sec-websocket-")
        || RESERVED.contains(&text)
}

const RESERVED: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-type",
    "expect",
    "forwarded",
    "if-range",
    "keep-alive",
    "proxy",
    "range",
    "te",
    "trailer",
    "upgrade",
    "via",
    "x-real-ip",
];

const FRAMING: [&str; 3] = ["host", "content-length", "transfer-encoding"];

pub(super) fn strip_for(parts: Parts, provider: Option<&Provider>, scrub: bool) -> Result<Stripped, StripError> {
    let no_slots = Slots::default();
    let slots = provider.map_or(&no_slots, |provider| &provider.slots);
    let (method, version) = (parts.method.clone(), parts.version);
    let mut head = head(parts, &slots.paths).ok_or(StripError::Target)?;
    refuse_look_alikes(&head.fields, slots)?;
    strip_hop_by_hop(&mut head.fields)?;
    let used = provider.map(|provider| used(provider, &head)).unwrap_or_default();
    strip_forwarding(&mut head.fields);
    for name in &slots.fields {
        head.fields.remove(name);
    }
    strip_subprotocols(&mut head.fields, slots);
    if provider.is_some() && scrub {
        ask_for_readable(&mut head.fields);
    }
    head.query = head.query.and_then(|query| remove_query(&query, &slots.queries));
    Ok(Stripped { method, version, head, used: used.into() })
}

fn head(parts: Parts, templates: &[Template]) -> Option<Head> {
    let path = Some(parts.uri.path()).filter(|path| path.starts_with('/'))?;
    let path = PathSlot::find(path, templates);
    let query = parts.uri.query().map(str::to_owned);
    Some(Head { fields: parts.headers, path, query })
}

fn used(provider: &Provider, head: &Head) -> Vec<Used> {
    let mut used = Vec::new();
    for (kind_at, kind) in provider.kinds.iter().enumerate() {
        for (place_at, place) in kind.placements.iter().enumerate() {
            for (way_at, way) in place.ways.iter().enumerate() {
                if way.0.iter().any(|carrier| carrier.read(head).is_some()) {
                    used.push((kind_at, place_at, way_at));
                }
            }
        }
    }
    used
}

/// PX-18: a CGI-like server reads `X_Api_Key` and `X-Api-Key` as the same variable, so the one would overrule the
/// other.
fn refuse_look_alikes(fields: &HeaderMap, slots: &Slots) -> Result<(), StripError> {
    for name in fields.keys() {
        let odd = |b: u8| !b.is_ascii_alphanumeric() && b != b'-';
        let text = name.as_str();
        if !text.bytes().any(odd) && !text.ends_with('-') && !text.starts_with('-') {
            continue;
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let read: String = text.chars().map(plain).collect();
        let read = read.trim_matches('-');
        let is_slot = HeaderName::from_bytes(read.as_bytes()).is_ok_and(|read| slots.fields.contains(&read));
        if is_slot || FRAMING.contains(&read) {
            return Err(StripError::LookAlike(name.clone()));
        }
    }
    Ok(())
}

/// Takes the elements out of `Sec-WebSocket-Protocol` that hold a key, as browsers send it.
fn strip_subprotocols(fields: &mut HeaderMap, slots: &Slots) {
    if slots.protocols.is_empty() {
        return;
    }
    let holds_key = |element: &str| slots.protocols.iter().any(|prefix| element.starts_with(&**prefix));
    let kept: Vec<String> = elements(fields, &header::SEC_WEBSOCKET_PROTOCOL).filter(|e| !holds_key(e)).collect();
    replace_list(fields, &header::SEC_WEBSOCKET_PROTOCOL, &kept);
}

fn subprotocol(fields: &HeaderMap, slots: &Slots) -> Option<String> {
    elements(fields, &header::SEC_WEBSOCKET_PROTOCOL).find_map(|element| {
        slots.protocols.iter().find_map(|prefix| element.strip_prefix(&**prefix).map(str::to_owned))
    })
}

/// A key in a field that the provider itself does not use: clients that were only told another base URL send
/// whatever their own provider takes.
fn anywhere(fields: &HeaderMap) -> Option<String> {
    let value = |name: &str| fields.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let authorization = value("authorization").and_then(|text| match text.split_once(' ') {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("basic") => super::scheme::basic_secret(text),
        Some((_, rest)) => Some(rest.trim().to_owned()),
        None => Some(text.to_owned()),
    });
    let plain = ["x-api-key", "api-key", "x-goog-api-key"].into_iter().find_map(value).map(str::to_owned);
    authorization.or(plain).filter(|text| !text.is_empty())
}

/// RFC 9110 section 5.6.1: a list may be spread over several lines of the same name.
pub(super) fn elements<'f>(fields: &'f HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'f {
    let texts = fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|e| e.trim().to_owned()).filter(|e| !e.is_empty())
}

pub(super) fn replace_list(fields: &mut HeaderMap, name: &HeaderName, list: &[String]) {
    match HeaderValue::from_str(&list.join(",")) {
        Ok(value) if !list.is_empty() => {
            fields.insert(name.clone(), value);
        }
        _ => {
            fields.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderId;
    use crate::provider::Catalogue;

    fn provider(id: &str) -> Arc<Provider> {
        Arc::clone(Catalogue::embedded().provider(&ProviderId::parse(id).unwrap()).unwrap())
    }

    fn parts(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = http::Request::builder().uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn left(stripped: &Stripped) -> Vec<&str> {
        let mut names: Vec<_> = stripped.fields().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn nominated_fields_go_before_a_credential_comes() {
        // PX-20
        let openai = provider("openai");
        let nominated = [
            ("connection", "close, Authorization, x-api-key, proxy-status, x-own"),
            ("authorization", "Bearer p"),
            ("x-own", "1"),
            ("accept", "*/*"),
        ];
        let stripped = strip_for(parts("/v1/models", &nominated), Some(&openai), false).unwrap();
        assert_eq!(left(&stripped), ["accept"]);
        for framing in ["host", "content-length", "Transfer-Encoding"] {
            let refused = strip_for(parts("/v1/models", &[("connection", framing)]), Some(&openai), false);
            assert_eq!(refused.unwrap_err(), StripError::Field(FieldError::NominatesFraming), "{framing}");
        }
    }

    #[test]
    fn every_authenticating_field_goes_in_every_case() {
        // PX-21
        let openai = provider("openai");
        let fields = [
            ("AUTHORIZATION", "Bearer one"),
            ("Authorization", "Basic dHdvOnR3bw=="),
            ("X-Api-Key", "three"),
            ("API-KEY", "four"),
            ("x-goog-api-key", "five"),
            ("Cookie", "session=six"),
            ("Cookie", "other=seven"),
            ("Proxy-Authorization", "Bearer eight"),
            ("X-Auth-Token", "nine"),
            ("PRIVATE-TOKEN", "ten"),
            ("openai-organization", "kept"),
        ];
        let stripped = strip_for(parts("/v1/models", &fields), Some(&openai), false).unwrap();
        assert_eq!(left(&stripped), ["openai-organization"]);
    }

    #[test]
    fn nothing_of_the_agents_side_goes_on() {
        // PX-22
        let fields = [
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("proxy", "http://evil.test"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "evil.test"),
            ("via", "1.1 inner"),
            ("x-real-ip", "10.0.0.1"),
            ("x-http-method-override", "DELETE"),
            ("authorization", "Bearer own"),
            ("cookie", "session=own"),
        ];
        // Without a credential of ours the agent's own login is the agent's own business.
        let stripped = strip_for(parts("/", &fields), None, true).unwrap();
        assert_eq!(left(&stripped), ["authorization", "cookie"]);
        assert_eq!(left(&strip_for(parts("/", &fields), Some(&provider("openai")), false).unwrap()), [""; 0]);
    }

    #[test]
    fn refuses_names_that_a_server_may_take_for_a_slot() {
        // PX-18, PX-21
        let anthropic = provider("anthropic");
        for name in
            ["X_Api_Key", "x_api-key", "Authorization_", "x.api.key", "_authorization", "Content_Length", "-cookie"]
        {
            let refused = strip_for(parts("/", &[(name, "x")]), Some(&anthropic), false).unwrap_err();
            assert!(matches!(refused, StripError::LookAlike(_)), "{name}");
            assert_eq!(refused.code(), Code::BadRequest);
        }
        for name in ["x_request_id", "sec-fetch-mode", "x-stainless-lang"] {
            assert!(strip_for(parts("/", &[(name, "x")]), Some(&anthropic), false).is_ok(), "{name}");
        }
    }

    #[test]
    fn asks_for_a_response_that_can_be_searched() {
        // EX-08
        let fields = [
            ("accept-encoding", "gzip, br"),
            ("range", "bytes=0-9"),
            ("if-range", "\"x\""),
            ("sec-websocket-extensions", "permessage-deflate"),
        ];
        let openai = provider("openai");
        let searched = strip_for(parts("/", &fields), Some(&openai), true).unwrap();
        assert_eq!(left(&searched), ["accept-encoding"]);
        assert_eq!(searched.fields()["accept-encoding"], "identity");
        let plain = strip_for(parts("/", &fields), Some(&openai), false).unwrap();
        assert_eq!(plain.fields()["accept-encoding"], "gzip, br");
        assert_eq!(left(&plain).len(), 4);
    }

    #[test]
    fn a_key_among_the_subprotocols_goes_and_the_others_stay() {
        let openai = provider("openai");
        let offered = [("sec-websocket-protocol", "realtime, openai-insecure-api-key.sk-p, openai-beta.realtime-v1")];
        let request = parts("/v1/realtime", &offered);
        assert_eq!(presented(&request, &openai).as_deref(), Some("sk-p"));
        let stripped = strip_for(request, Some(&openai), false).unwrap();
        assert_eq!(stripped.fields()["sec-websocket-protocol"], "realtime,openai-beta.realtime-v1");
    }

    #[test]
    fn presents_what_a_client_of_another_provider_sends() {
        let anthropic = provider("anthropic");
        let github = provider("github");
        for (provider, fields, expected) in [
            (&anthropic, vec![("x-api-key", "p")], Some("p")),
            (&anthropic, vec![("authorization", "bearer  p ")], Some("p")),
            (&anthropic, vec![("x-goog-api-key", "p")], Some("p")),
            (&anthropic, vec![("authorization", "Basic eDpw")], Some("p")),
            (&github, vec![("authorization", "Basic eC1hY2Nlc3MtdG9rZW46cA==")], Some("p")),
            (&github, vec![("authorization", "Basic cDo=")], Some("p")),
            (&github, vec![("authorization", "Basic !!")], None),
            (&github, vec![("authorization", "token p")], Some("p")),
            (&github, vec![], None),
        ] {
            assert_eq!(presented(&parts("/", &fields), provider).as_deref(), expected, "{fields:?}");
        }
        let gemini = provider("gemini");
        assert_eq!(presented(&parts("/v1?alt=sse&key=p%2F", &[]), &gemini).as_deref(), Some("p/"));
        assert_eq!(presented(&parts("/bot1:p/getMe", &[]), &provider("telegram")).as_deref(), Some("1:p"));
    }

    #[test]
    fn debug_shows_names_and_no_value() {
        let telegram = provider("telegram");
        let request = parts("/bot1:canary/getMe?x=canary", &[("x-other", "canary"), ("authorization", "canary")]);
        let stripped = strip_for(request, Some(&telegram), false).unwrap();
        assert!(!format!("{stripped:?}").contains("canary"), "{stripped:?}");
        assert_eq!(stripped.shown_path(), "/bot{secret}/getMe");
    }
}
