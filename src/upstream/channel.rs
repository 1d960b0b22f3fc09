//! One connection to one origin, and what may be sent on it.
//!
//! Invariant: a channel to an `https` origin carries the proof of its verified handshake, and the only thing that
//! it sends is an [`Injected`].

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use crate::code::Code;
use crate::message::origin::Origin;
use crate::provider::Injected;
use crate::telemetry::Protocol;
use crate::tls::Verified;
use crate::upstream::body::RequestBody;
use crate::upstream::chain::ProxyUrl;
use crate::upstream::hop::Hop;
use crate::upstream::interim::Interim;
use crate::upstream::reuse::{Key, Reuse};

/// What the request could not be sent or answered for.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection was gone before a byte was sent: the same request may take another one.
    #[error("the connection was closed before the request was sent")]
    NotSent,
    /// The connection broke before an answer came.
    #[error("the upstream closed the connection before it answered")]
    Broken,
    /// The answer was no valid HTTP.
    #[error("the upstream's answer was not valid HTTP")]
    Malformed,
    /// The agent's own body broke off.
    #[error("the agent's request body broke off")]
    Agent,
    /// The upstream proxy wants other credentials: its 407 is not the agent's to answer.
    #[error("the upstream proxy wants other credentials (407)")]
    ProxyCredentials,
}

impl SendError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotSent | Self::Broken | Self::ProxyCredentials => Code::UpstreamUnreachable,
            Self::Malformed => Code::UpstreamProtocolError,
            Self::Agent => Code::BadRequest,
        }
    }
}

/// The hyper half that requests are handed to.
pub(super) enum Sender {
    Http1(Line<http1::SendRequest<RequestBody>>),
    Http2(Line<http2::SendRequest<RequestBody>>),
}

/// One of them, with the count of its connection's interim responses.
#[derive(Clone)]
pub(super) struct Line<S> {
    pub(super) sender: S,
    pub(super) interim: Arc<Interim>,
}

/// A connection, taken out of the pool or fresh.
pub struct Channel {
    pub(super) sender: Sender,
    pub(super) origin: Origin,
    pub(super) proof: Option<Arc<Verified>>,
    pub(super) key: Key,
    pub(super) reuse: Arc<Reuse>,
    pub(super) reused: bool,
    /// The other proxy at its end, which takes absolute-form.
    pub(super) proxy: Option<ProxyUrl>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.origin)
    }
}

impl Channel {
    /// The proof of the handshake; `None` on cleartext.
    #[must_use]
    pub fn verified(&self) -> Option<&Verified> {
        self.proof.as_deref()
    }

    /// Whether it served another exchange before.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// What is spoken on it.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self.sender {
            Sender::Http1(_) => Protocol::Http1,
            Sender::Http2(_) => Protocol::H2,
        }
    }

    /// Sends one request and waits for the head of its answer. Bound it with a timeout.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        mut self,
        request: Injected,
        body: RequestBody,
        hop: Hop,
    ) -> Result<(Response<Incoming>, Kept), SendError> {
        let mut request = self.frame(request, body, hop)?;
        let answer = match &mut self.sender {
            Sender::Http1(Line { sender, interim }) => {
                // Without this, a connection that is still finishing its last exchange refuses the next.
                sender.ready().await.map_err(|_| SendError::NotSent)?;
                interim.begin();
                let counted = Arc::clone(interim);
                hyper::ext::on_informational(&mut request, move |_| counted.count());
                sender.try_send_request(request).await.map_err(|mut error| {
                    let unsent = error.take_message().is_some();
                    classify(&error.into_error(), unsent, interim)
                })
            }
            Sender::Http2(Line { sender, interim }) => {
                sender.ready().await.map_err(|_| SendError::NotSent)?;
                sender.try_send_request(request).await.map_err(|mut error| {
                    let unsent = error.take_message().is_some();
                    classify(&error.into_error(), unsent, interim)
                })
            }
        }?;
        if self.proxy.is_some() && answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(SendError::ProxyCredentials);
        }
        Ok((answer, Kept(Some(self))))
    }

    fn frame(&self, request: Injected, body: RequestBody, hop: Hop) -> Result<Request<RequestBody>, SendError> {
        let mut parts = request.into_parts();
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let authority = self.origin.authority();
        parts.extensions = http::Extensions::new();
        match self.sender {
            Sender::Http1(_) => {
                parts.version = Version::HTTP_11;
                let host = HeaderValue::from_str(&authority).map_err(|_| SendError::Malformed)?;
                parts.headers.insert(HOST, host);
                parts.uri = match &self.proxy {
                    None => Uri::from(target),
                    Some(proxy) => {
                        if let Some(value) = proxy.authorization() {
                            let value = HeaderValue::from_bytes(value.expose()).map_err(|_| SendError::Malformed)?;
                            parts.headers.insert(PROXY_AUTHORIZATION, value);
                        }
                        absolute(UriScheme::HTTP, authority, target)?
                    }
                };
                hop.write_http1(&mut parts.headers);
            }
            Sender::Http2(_) => {
                parts.version = Version::HTTP_2;
                parts.headers.remove(HOST);
                parts.uri = absolute(UriScheme::HTTPS, authority, target)?;
                hop.write_http2(&mut parts.headers);
            }
        }
        Ok(Request::from_parts(parts, body))
    }
}

fn absolute(scheme: UriScheme, authority: String, target: PathAndQuery) -> Result<Uri, SendError> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(Authority::try_from(authority).map_err(|_| SendError::Malformed)?);
    uri.path_and_query = Some(target);
    Uri::from_parts(uri).map_err(|_| SendError::Malformed)
}

fn classify(error: &hyper::Error, unsent: bool, interim: &Interim) -> SendError {
    if interim.is_over() {
        SendError::Malformed
    } else if unsent || error.is_canceled() {
        SendError::NotSent
    } else if error.is_user() {
        SendError::Agent
    } else if error.is_parse() || error.is_parse_too_large() {
        SendError::Malformed
    } else {
        SendError::Broken
    }
}

/// A connection whose exchange is still running; it goes back when the response body has ended.
#[derive(Debug)]
pub struct Kept(Option<Channel>);

impl Kept {
    /// Nothing to give back.
    #[must_use]
    pub fn nothing() -> Self {
        Self(None)
    }

    /// Gives the connection back for the next exchange: call it only when the body ended cleanly.
    pub fn give_back(&mut self) {
        if let Some(channel) = self.0.take() {
            let Channel { sender, proof, key, reuse, .. } = channel;
            if let Sender::Http1(sender) = sender {
                reuse.put(key, sender, proof);
            }
        }
    }
}
