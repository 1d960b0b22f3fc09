//! WebSocket through interception: a request that asks for one takes the same pipeline as every other, and becomes
//! one when the upstream has said 101.
//!
//! Invariant: no byte after the request's head goes to the upstream before its 101 was read and its accept key
//! agreed (PX-30); any other answer stays HTTP (PX-31). After the 101 there is no other attempt.

mod frames;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use self::relay::Open;
use crate::agent::Agent;
use crate::code::Code;
use crate::message::field::{asks_for_another_protocol, asks_for_websocket, strip_hop_by_hop, strip_response};
use crate::proxy::account::Account;
use crate::proxy::answer::{self, Credentialed, Way};
use crate::proxy::delivery::Delivery;
use crate::proxy::received::Received;
use crate::proxy::respond::Answer;
use crate::proxy::state::Shared;
use crate::scrub::{Patterns, scrub_fields};
use crate::telemetry::Protocol as Spoken;
use crate::upstream::body::Upload;

/// Both sides switch at once after the 101; longer than that is a peer that left.
const SWITCH_LIMIT: Duration = Duration::from_secs(10);

/// A request that asks to become a WebSocket.
pub struct Asked {
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    by: By,
    accept: String,
}

/// How the agent asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `Upgrade: websocket`, answered with 101.
    Http1,
    /// Extended CONNECT (RFC 8441), answered with 200.
    Http2,
}

/// Reads whether `request` asks for a WebSocket. An extended CONNECT becomes the GET that it stands for, with a key.
///
/// # Errors
/// An [`Answer`] when it asks in a way that is none (PX-33).
pub fn asked(shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Result<Option<Asked>, Answer> {
    let extended = request.extensions_mut().remove::<Protocol>();
    let by = match extended {
        Some(protocol) if protocol.as_str() == "websocket" && *request.method() == Method::CONNECT => By::Http2,
        // Another protocol stays a CONNECT, which is refused where methods are.
        Some(_) => return Ok(None),
        None if request.version() != Version::HTTP_2 && asks_for_another_protocol(request.headers()) => {
            return Err(Answer::saying(Code::MethodNotAllowed, "the one upgrade that is passed on is to a WebSocket"));
        }
        None if request.version() == Version::HTTP_2 || !asks_for_websocket(request.headers()) => return Ok(None),
        None => By::Http1,
    };
    match by {
        By::Http1 => check(request)?,
        By::Http2 => {
            let mut nonce = [0u8; 16];
            getrandom::fill(&mut nonce).map_err(|_| Answer::of(Code::Internal))?;
            let key = HeaderValue::try_from(STANDARD.encode(nonce)).map_err(|_| Answer::of(Code::Internal))?;
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
            *request.method_mut() = Method::GET;
        }
    }
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let accept = tungstenite::handshake::derive_accept_key(key);
    let upgrade = hyper::upgrade::on(request);
    Ok(Some(Asked { shared: Arc::clone(shared), upgrade, by, accept }))
}

/// RFC 6455 section 4.1.
fn check(request: &Request<Incoming>) -> Result<(), Answer> {
    if *request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Answer::saying(Code::MethodNotAllowed, "a WebSocket begins with GET and HTTP/1.1"));
    }
    let fields = request.headers();
    // A body would stand between the head and the frames, and two readers could disagree where it ends.
    if fields.contains_key(TRANSFER_ENCODING) || fields.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return Err(Answer::saying(Code::BadRequest, "a request for a WebSocket has no content"));
    }
    let mut keys = fields.get_all(SEC_WEBSOCKET_KEY).iter();
    let good = keys.next().is_some_and(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    if !good || keys.next().is_some() {
        return Err(Answer::saying(Code::BadRequest, "the Sec-WebSocket-Key field is malformed"));
    }
    Ok(())
}

impl Asked {
    /// Passes on what the upstream said to it: the switch, or its answer as HTTP.
    ///
    /// # Errors
    /// An [`Answer`] in its place, when the upstream's must not be passed on.
    pub async fn answer(
        self,
        agent: &Agent,
        received: Received,
        way: Way,
        account: Account,
    ) -> Result<Response<Delivery>, (Answer, Account)> {
        if received.head.status == StatusCode::SWITCHING_PROTOCOLS {
            let mut head = received.head;
            let patterns = match way.credentialed {
                Credentialed::No => None,
                Credentialed::Yes(patterns, cookies) => {
                    answer::strip_credentialed(&mut head.headers, cookies);
                    patterns.filter(|patterns| !patterns.is_empty())
                }
            };
            let upstream = head.extensions.remove::<OnUpgrade>();
            let agreed = self.agreed(&head.headers, patterns.as_ref()) && strip_hop_by_hop(&mut head.headers).is_ok();
            return match upstream.filter(|_| agreed) {
                Some(upstream) => Ok(self.switch(agent.clone(), head, upstream, patterns, account)),
                None => Err((Answer::of(Code::UpstreamProtocolError), account)),
            };
        }
        if self.by == By::Http2 && received.head.status.is_success() {
            // To a CONNECT any 2xx would mean that the frames may begin.
            return Err((Answer::saying(Code::UpstreamProtocolError, "the upstream did not switch"), account));
        }
        let idle = self.shared.limits.idle;
        answer::deliver(received, &Method::GET, way, Upload::empty(), idle, account).await
    }

    fn switch(
        self,
        agent: Agent,
        mut head: http::response::Parts,
        upstream: OnUpgrade,
        patterns: Option<Arc<Patterns>>,
        mut account: Account,
    ) -> Response<Delivery> {
        strip_response(&mut head.headers);
        head.headers.remove(CONTENT_LENGTH);
        let record = account.record();
        if let Some(patterns) = &patterns {
            record.redactions = record.redactions.saturating_add(scrub_fields(patterns, &mut head.headers));
        }
        head.extensions = http::Extensions::new();
        match self.by {
            By::Http1 => {
                head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
            By::Http2 => {
                head.status = StatusCode::OK;
                head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            }
        }
        record.status = Some(head.status.as_u16());
        record.protocol = Spoken::WebSocket;
        account.first_byte();
        let Self { shared, upgrade, .. } = self;
        let spawner = shared.spawner.clone();
        spawner.spawn(async move {
            let switched = async { tokio::try_join!(upgrade, upstream) };
            match tokio::time::timeout(SWITCH_LIMIT, switched).await {
                Ok(Ok((down, up))) => {
                    let open = Open { shared, agent, patterns, account };
                    open.run(TokioIo::new(down), TokioIo::new(up)).await;
                }
                Ok(Err(_)) | Err(_) => drop(account),
            }
        });
        Response::from_parts(head, Delivery::empty())
    }

    /// RFC 6455 section 4.1: what makes a 101 the answer to this very request.
    fn agreed(&self, fields: &HeaderMap, patterns: Option<&Arc<Patterns>>) -> bool {
        let accepted = fields.get(SEC_WEBSOCKET_ACCEPT).is_some_and(|accept| accept == self.accept.as_str());
        // With an extension that nobody asked for, frames could not be searched.
        let plain = patterns.is_none() || !fields.contains_key(SEC_WEBSOCKET_EXTENSIONS);
        asks_for_websocket(fields) && accepted && plain
    }
}
