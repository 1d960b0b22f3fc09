//! An upstream's answer becomes the agent's response: filtered, scrubbed, streamed.
//!
//! Invariant: on an exchange with a credential nothing of the answer goes on unscrubbed; what cannot be searched is
//! refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, SET_COOKIE,
    TRANSFER_ENCODING, WWW_AUTHENTICATE,
};
use http::{Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;

use crate::code::Code;
use crate::message::field::{strip_hop_by_hop, strip_response};
use crate::policy::SetCookie;
use crate::proxy::account::Account;
use crate::proxy::delivery::{Delivery, Flow, Parts};
use crate::proxy::limits::{DECODE_AHEAD, SCRUB_WHOLE};
use crate::proxy::received::Received;
use crate::proxy::respond::Answer;
use crate::proxy::watch::Watch;
use crate::scrub::{Codings, Decoder, Framing, Patterns, scrub_fields};
use crate::upstream::body::{Upload, was_reset};

/// Whether a credential went out with the request.
pub enum Credentialed {
    /// None did.
    No,
    /// One did; `None` where the operator switched scrubbing off for the route.
    Yes(Option<Arc<Patterns>>, SetCookie),
}

/// How an answer goes on.
pub struct Way {
    /// Whether a credential went out.
    pub credentialed: Credentialed,
    /// What looks at it on its way.
    pub watch: Option<Watch>,
}

/// Makes the response.
///
/// # Errors
/// An [`Answer`] in its place, when the upstream's must not be passed on.
pub async fn deliver(
    received: Received,
    method: &Method,
    way: Way,
    upload: Upload,
    idle: Duration,
    mut account: Account,
) -> Result<Response<Delivery>, (Answer, Account)> {
    let Way { credentialed, watch } = way;
    let Received { mut head, prefix, broken, body, kept } = received;
    let flow = Flow { version: head.version, broken, framing: Framing::of(&head.headers) };
    // A 407 would have the agent send its proxy token onward; a 101 was never asked for (PX-43, PX-48).
    if head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED || head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err((Answer::of(Code::UpstreamProtocolError), account));
    }
    // hyper takes `chunked` off and no other; what is left would go on without its name (RFC 9112 section 7).
    if is_transfer_coded(&head.headers) {
        return Err((Answer::of(Code::UpstreamProtocolError), account));
    }
    account.record().status = Some(head.status.as_u16());
    // Read before `Connection` has its way with the fields: it may nominate this one.
    let codings = Codings::read(&head.headers);
    // Only the parsed head goes on: the reason phrase travels in an extension and may hold anything (PX-44).
    head.extensions = http::Extensions::new();
    head.version = http::Version::HTTP_11;
    if strip_hop_by_hop(&mut head.headers).is_err() {
        head.headers.clear();
    }
    strip_response(&mut head.headers);
    let patterns = match credentialed {
        Credentialed::No => None,
        Credentialed::Yes(patterns, cookies) => {
            strip_credentialed(&mut head.headers, cookies);
            patterns.filter(|patterns| !patterns.is_empty())
        }
    };
    let contentless = has_no_content(method, head.status);
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(CONTENT_LENGTH);
    }
    let bodiless = contentless || (prefix.is_empty() && body.is_end_stream());
    if let Some(patterns) = &patterns {
        let hits = scrub_fields(patterns, &mut head.headers);
        account.record().redactions = account.record().redactions.saturating_add(hits);
        head.headers.remove(ACCEPT_RANGES);
    }
    let mut is_coded_head = false;
    let decoder = match codings {
        _ if patterns.is_none() => None,
        _ if !bodiless && has_compressed_messages(&head.headers) => {
            return Err((Answer::of(Code::ResponseUnscannable), account));
        }
        Ok(None) => None,
        Err(_) if bodiless => None,
        Err(error) => {
            account.record().detail = Some(error.to_string());
            return Err((Answer::of(Code::ResponseUnscannable), account));
        }
        Ok(Some(codings)) => {
            // Also from the answer to HEAD, which says what GET would be answered.
            head.headers.remove(CONTENT_ENCODING);
            strip_validators(&mut head.headers);
            if bodiless {
                is_coded_head = true;
                head.headers.remove(CONTENT_LENGTH);
            }
            Some(Decoder::new(&codings)).filter(|_| !bodiless)
        }
    };
    account.first_byte();
    match patterns {
        // What stands there nevertheless goes nowhere, and its connection is not used again (PX-26).
        _ if contentless && !body.is_end_stream() => {
            account.record().bytes_in = upload.received();
            Ok(Response::from_parts(head, Delivery::empty()))
        }
        Some(patterns) if !bodiless => {
            let (prefix, patterns, coded) = (Some(prefix), Some(patterns), decoder.is_some());
            let parts = Parts { prefix, source: body, decoder, patterns, watch, account, kept, upload, idle, flow };
            if coded {
                return decoded(head, parts).await;
            }
            scrubbed(head, parts).await
        }
        _ => {
            if !broken && body.is_end_stream() && *method != Method::HEAD && !prefix.is_empty() {
                // The whole body was read for judging: its length is known however it came.
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(prefix.len()));
            }
            // The length of what is coded is not that of what GET would bring: the body must not say it either.
            let (prefix, patterns) = (Some(prefix), patterns.filter(|_| is_coded_head));
            let parts = Parts { prefix, source: body, decoder, patterns, watch, account, kept, upload, idle, flow };
            Ok(Response::from_parts(head, Delivery::stream(parts)))
        }
    }
}

async fn scrubbed(mut head: http::response::Parts, mut parts: Parts) -> Result<Response<Delivery>, (Answer, Account)> {
    let length = head.headers.remove(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let Some(patterns) =
        parts.patterns.clone().filter(|_| !parts.flow.broken && length.is_some_and(|length| length <= SCRUB_WHOLE))
    else {
        return Ok(Response::from_parts(head, Delivery::stream(parts)));
    };
    // Short and of known length: scrubbed whole, so that the agent gets an exact length again.
    let mut whole = match whole(&mut parts).await {
        Ok(whole) => whole,
        Err(code) => return Err((Answer::of(code), parts.account)),
    };
    let Parts { mut account, mut kept, upload, watch, .. } = parts;
    kept.give_back();
    if let Some(mut watch) = watch {
        watch.see(&whole);
        watch.end();
        watch.note(account.record());
    }
    if let Some((clean, hits)) = patterns.scrub(&whole) {
        whole = clean;
        account.record().redactions = account.record().redactions.saturating_add(hits);
        strip_validators(&mut head.headers);
    }
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    account.record().bytes_out = u64::try_from(whole.len()).unwrap_or(u64::MAX);
    account.record().bytes_in = upload.received();
    Ok(Response::from_parts(head, Delivery::own(whole)))
}

/// Reads a body to its end; it was announced to be short.
async fn whole(parts: &mut Parts) -> Result<Bytes, Code> {
    let mut whole = BytesMut::from(parts.prefix.take().unwrap_or_default().as_ref());
    loop {
        match tokio::time::timeout(parts.idle, parts.source.frame()).await {
            Err(_) => return Err(Code::UpstreamTimeout),
            Ok(Some(Err(_))) => return Err(Code::UpstreamUnreachable),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    whole.extend_from_slice(&data);
                }
            }
            Ok(None) if was_reset(&parts.source, parts.flow.version) => return Err(Code::UpstreamUnreachable),
            Ok(None) => return Ok(whole.freeze()),
        }
    }
}

/// A response in a content coding, passed on without it. As much as can wait is read ahead, so that one that cannot be
/// read is answered as that and does not merely break off.
async fn decoded(mut head: http::response::Parts, parts: Parts) -> Result<Response<Delivery>, (Answer, Account)> {
    let is_live =
        head.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let enough = match head.headers.remove(CONTENT_LENGTH) {
        Some(_) => DECODE_AHEAD,
        // The agent waits for the head of a stream of events: the first of them may be long in coming.
        None if is_live => 0,
        None => 1,
    };
    match Delivery::stream(parts).prime(enough).await {
        Ok((delivery, length)) => {
            if let Some(length) = length {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            Ok(Response::from_parts(head, delivery))
        }
        Err((error, mut account)) => {
            account.record().detail = Some(error.to_string());
            Err((Answer::of(error.code()), account))
        }
    }
}

/// What would give the agent a session of the credential's own, or send it into a login (EX-29, EX-30).
pub(super) fn strip_credentialed(fields: &mut HeaderMap, cookies: SetCookie) {
    if cookies == SetCookie::Strip {
        fields.remove(SET_COOKIE);
    }
    fields.remove(WWW_AUTHENTICATE);
    fields.remove("authentication-info");
}

/// What was made over the bytes that the upstream sent, where others are passed on.
fn strip_validators(fields: &mut HeaderMap) {
    for name in ["etag", "content-md5", "digest", "content-digest", "repr-digest"] {
        fields.remove(name);
    }
}

/// RFC 9110 section 6.4.1.
fn has_no_content(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// gRPC compresses message by message, which is asked not to be done.
fn has_compressed_messages(fields: &HeaderMap) -> bool {
    fields.get("grpc-encoding").is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_transfer_coded(fields: &HeaderMap) -> bool {
    let words = fields.get_all(TRANSFER_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.map(<[u8]>::trim_ascii).any(|word| !word.is_empty() && !word.eq_ignore_ascii_case(b"chunked"))
}
