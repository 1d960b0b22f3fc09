//! Verified channels to upstreams.
//!
//! Invariant: the TLS handshake is done and verified before a channel is handed out, so that a secret is opened
//! only after it; nothing but an [`Injected`](crate::provider::Injected) is ever sent on one.

pub mod body;
pub mod chain;
mod channel;
pub mod dial;
mod hop;
mod interim;
mod reuse;
pub mod screen;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub use channel::{Channel, Kept, SendError};
pub use hop::Hop;
pub use reuse::{Key, Reuse};

use crate::code::Code;
use crate::message::origin::{Origin, Scheme};
use crate::spawn::Spawner;
use crate::tls::{Alpn, Protocol, TlsFailure, TlsFailureKind, Trust, Verified};
use crate::upstream::body::RequestBody;
use crate::upstream::channel::{Line, Sender};
use crate::upstream::dial::{DialError, Dialer};
use crate::upstream::interim::{Counted, Interim};

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not connected.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Connected, but not verified.
    #[error(transparent)]
    Tls(#[from] TlsFailure),
    /// Verified, but it would not speak HTTP.
    #[error("the upstream would not begin HTTP")]
    Http(#[source] hyper::Error),
    /// It took too long.
    #[error("the upstream did not begin HTTP in time")]
    Timeout,
}

impl ConnectError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Dial(error) => error.code(),
            Self::Tls(error) => error.code(),
            Self::Http(_) => Code::UpstreamProtocolError,
            Self::Timeout => Code::UpstreamTimeout,
        }
    }
}

impl ConnectError {
    /// What the agent is told, in words that name nothing of the operator's.
    #[must_use]
    pub fn explanation(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.explanation(),
            other => other.code().explanation(),
        }
    }
}

/// Whether a waiting connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// A waiting one is welcome.
    Any,
    /// Only a new one: the last waiting one turned out to be closed.
    New,
    /// Only a new one that speaks HTTP/1.1: it becomes something else.
    NewHttp1,
}

/// Makes and keeps connections to upstreams.
pub struct Upstream {
    dialer: Dialer,
    trust: Arc<Trust>,
    reuse: Arc<Reuse>,
    spawner: Spawner,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}

impl Upstream {
    /// Puts the parts together.
    #[must_use]
    pub fn new(dialer: Dialer, trust: Arc<Trust>, spawner: Spawner) -> Self {
        Self { dialer, trust, reuse: Arc::default(), spawner }
    }

    /// Connections that wait, for the occasional sweep.
    #[must_use]
    pub fn reuse(&self) -> &Arc<Reuse> {
        &self.reuse
    }

    /// The other proxies on the way, host and port.
    #[must_use]
    pub fn proxies(&self) -> Vec<String> {
        self.dialer.proxies()
    }

    /// A connected and, for `https`, verified channel.
    ///
    /// # Errors
    /// [`ConnectError`]. Every step has its own time limit.
    pub async fn channel(&self, key: &Key, freshness: Freshness) -> Result<Channel, ConnectError> {
        if freshness == Freshness::Any
            && let Some((sender, proof)) = self.reuse.take(key)
        {
            return Ok(self.wrap(key, sender, proof, true));
        }
        let origin = &key.origin;
        let (sender, proof) = match origin.scheme() {
            Scheme::Http => (self.begin_http1(self.dialer.dial_cleartext(origin).await?).await?, None),
            Scheme::Https => {
                let (stream, verified) = self.secured(key, freshness).await?;
                let protocol = verified.negotiated();
                let proof = Some(Arc::new(verified));
                match protocol {
                    Protocol::Http1 => (self.begin_http1(stream).await?, proof),
                    Protocol::Http2 => (self.begin_http2(key, stream, proof.clone()).await?, proof),
                }
            }
        };
        Ok(self.wrap(key, sender, proof, false))
    }

    /// A verified connection that speaks what the agent speaks where the upstream can: one that goes through us costs
    /// neither side another protocol than it would have had, and HTTP/1.1 on both sides is the cheapest of all.
    async fn secured(&self, key: &Key, freshness: Freshness) -> Result<(TlsStream<TcpStream>, Verified), ConnectError> {
        let origin = &key.origin;
        let must = freshness == Freshness::NewHttp1;
        let alpn = if must || key.spoken == Protocol::Http1 { Alpn::Http1 } else { Alpn::Both };
        let stream = self.dialer.dial(origin).await?;
        match self.trust.handshake(stream, origin, alpn).await {
            Err(failure) if alpn == Alpn::Http1 && !must && failure.kind() == TlsFailureKind::Application => {
                let stream = self.dialer.dial(origin).await?;
                Ok(self.trust.handshake(stream, origin, Alpn::Both).await?)
            }
            made => Ok(made?),
        }
    }

    /// A raw connection for a blind tunnel, screened like any other.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn raw(&self, origin: &Origin) -> Result<TcpStream, DialError> {
        self.dialer.dial(origin).await
    }

    fn wrap(&self, key: &Key, sender: Sender, proof: Option<Arc<Verified>>, reused: bool) -> Channel {
        let origin = key.origin.clone();
        // What is not encrypted is handed to another proxy whole, not tunnelled: many allow CONNECT to 443 only.
        let proxy = self.dialer.proxy_to(&origin).filter(|_| origin.scheme() == Scheme::Http).cloned();
        Channel { sender, origin, proof, key: key.clone(), reuse: Arc::clone(&self.reuse), reused, proxy }
    }

    async fn begin_http1<S>(&self, stream: S) -> Result<Sender, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        builder.max_headers(MOST_RESPONSE_FIELDS);
        let interim = Arc::<Interim>::default();
        let handshake = builder.handshake::<_, RequestBody>(TokioIo::new(Counted::http1(stream, &interim)));
        let (sender, connection) =
            timeout(BEGIN_LIMIT, handshake).await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Http)?;
        self.spawner.spawn(async move {
            // Its error reaches the exchange that used the connection; an idle one that ends has no one to tell.
            let _ = connection.with_upgrades().await;
        });
        Ok(Sender::Http1(Line { sender, interim }))
    }

    async fn begin_http2<S>(&self, key: &Key, stream: S, proof: Option<Arc<Verified>>) -> Result<Sender, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(self.spawner.clone());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(10));
        let interim = Arc::<Interim>::default();
        let handshake = builder.handshake::<_, RequestBody>(TokioIo::new(Counted::http2(stream, &interim)));
        let (sender, connection) =
            timeout(BEGIN_LIMIT, handshake).await.map_err(|_| ConnectError::Timeout)?.map_err(ConnectError::Http)?;
        self.spawner.spawn(async move {
            let _ = connection.await;
        });
        let line = Line { sender, interim };
        self.reuse.share(key.clone(), line.clone(), proof);
        Ok(Sender::Http2(line))
    }
}

/// hyper refuses a response with more fields than this.
const MOST_RESPONSE_FIELDS: usize = 200;
/// The HTTP/2 preface goes out at once; ten seconds is the TLS limit's twin.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);
