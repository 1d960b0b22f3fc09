//! CONNECT: the tunnel is either intercepted, with a leaf for its authority, or blind, or refused.
//!
//! Invariant: what comes inside an intercepted tunnel is TLS whose server name agrees with the CONNECT authority,
//! or the connection is closed; unknown bytes are never relayed blindly.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::agent::Agent;
use crate::code::Code;
use crate::message::origin::Origin;
use crate::policy::{Rule, TunnelDecision};
use crate::proxy::account::Account;
use crate::proxy::arrival::Arrival;
use crate::proxy::delivery::Delivery;
use crate::proxy::exchange::{self, Caller, Entrance};
use crate::proxy::heads::{self, Acknowledge, Heads, Served};
use crate::proxy::limits::{HEAD_BYTES, HEAD_FIELDS, KEEP_ALIVE};
use crate::proxy::malformed::{self, Sender};
use crate::proxy::peer::{Door, Peer};
use crate::proxy::program::Program;
use crate::proxy::respond::{Answer, Manner};
use crate::proxy::state::Shared;
use crate::proxy::stream::ClientStream;
use crate::proxy::target;
use crate::telemetry::{Decision, Protocol};
use crate::tls::{self, AcceptFailure};

/// Answers a CONNECT.
pub async fn connect(shared: Arc<Shared>, mut request: Request<Incoming>, arrival: &Arrival) -> Response<Delivery> {
    let via = Via { client: arrival.client, listener: arrival.listener, program: Program::of(&request) };
    let mut account = Account::open(&shared.books, shared.clock.now(), via.listener, via.client);
    account.head(request.method(), request.version());
    match decide(&shared, &request, arrival.client, &arrival.door, &mut account).await {
        Err(answer) => {
            let mut response = answer.response(account.id(), Manner::Proxy);
            if answer.code == Code::BadRequest {
                // What follows such a head may be anything.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            account.answered(answer.code, Some(response.status().as_u16()));
            account.record().bytes_out = http_body::Body::size_hint(response.body()).lower();
            response
        }
        Ok(Open::Intercept { agent, origin, config }) => {
            account.forget();
            let upgrade = hyper::upgrade::on(&mut request);
            let (spawner, place) = (shared.spawner.clone(), Arc::clone(&arrival.place));
            spawner.spawn(async move {
                let _place = place;
                if let Ok(upgraded) = upgrade.await {
                    let Ok(parts) = upgraded.downcast::<TokioIo<Heads<ClientStream>>>() else { return };
                    let stream = Replayed { first: parts.read_buf, inner: parts.io.into_inner().into_inner() };
                    intercept(shared, stream, agent, origin, config, via).await;
                }
            });
            Response::new(Delivery::empty())
        }
        Ok(Open::Blind { upstream }) => {
            account.record().decision = Decision::Tunnelled;
            account.record().protocol = Protocol::Tunnel;
            account.record().status = Some(200);
            let upgrade = hyper::upgrade::on(&mut request);
            let (spawner, idle) = (shared.spawner.clone(), shared.limits.idle);
            let (stop, place) = (spawner.clone(), Arc::clone(&arrival.place));
            spawner.spawn(async move {
                let _place = place;
                if let Ok(upgraded) = upgrade.await {
                    tokio::select! {
                        () = relay(TokioIo::new(upgraded), upstream, idle, &mut account) => {}
                        () = stop.stopping() => {}
                    }
                }
            });
            Response::new(Delivery::empty())
        }
    }
}

/// How a tunnel came to us.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// Who is at the other end.
    pub client: Peer,
    /// The listener, as logs name it.
    pub listener: &'static str,
    /// What opened it.
    pub program: Program,
}

/// What a permitted CONNECT becomes.
pub enum Open {
    /// We answer as the origin.
    Intercept {
        /// For whom.
        agent: Agent,
        /// As whom.
        origin: Origin,
        /// With this leaf.
        config: Arc<ServerConfig>,
    },
    /// Bytes are passed on.
    Blind {
        /// To here.
        upstream: TcpStream,
    },
}

async fn decide(
    shared: &Shared,
    request: &Request<Incoming>,
    client: Peer,
    door: &Door,
    account: &mut Account,
) -> Result<Open, Answer> {
    let now = shared.clock.now();
    let view = shared.view.load_full();
    target::check_size(request.uri(), request.headers())?;
    // RFC 9112 section 3.2.3: host and port, no scheme before them and no path behind.
    let uri = request.uri();
    let bare = uri.scheme().is_none() && uri.path_and_query().is_none_or(|rest| rest.as_str().is_empty());
    let target = uri.authority().filter(|_| bare).map_or("", http::uri::Authority::as_str);
    let origin = Origin::from_connect_target(target);
    if let Ok(origin) = &origin {
        account.origin(origin);
    }
    let agent = view
        .agents
        .identify_at(request.headers(), door.resident(), now)
        .map_err(|error| shared.guesses.answer(client, error))?;
    account.agent(agent.name());
    // RFC 9110 section 9.3.6: a CONNECT request has no content (PX-02).
    if request.headers().contains_key(TRANSFER_ENCODING)
        || request.headers().get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
    {
        return Err(Answer::saying(Code::BadRequest, "a CONNECT request has no content"));
    }
    let origin = origin.map_err(|error| Answer::saying(error.code(), error.to_string()))?;
    open(shared, agent, origin, account).await
}

/// Decides what becomes of a tunnel to `origin`, and gets ready for it.
pub async fn open(shared: &Shared, agent: Agent, origin: Origin, account: &mut Account) -> Result<Open, Answer> {
    let now = shared.clock.now();
    let view = shared.view.load_full();
    match view.policy.connect(agent.name(), &origin) {
        TunnelDecision::Refuse(refusal) => {
            account.record().rule = Some(refusal.rule().to_string());
            Err(exchange::refusal_answer(&refusal, agent.name(), "CONNECT", &origin, None))
        }
        TunnelDecision::Observed(rule) => {
            account.record().would_deny = true;
            blind(shared, &agent, &rule, &origin, account).await
        }
        TunnelDecision::Tunnel(rule) => blind(shared, &agent, &rule, &origin, account).await,
        TunnelDecision::Intercept => {
            let leaves = shared.leaves.load_full();
            if !leaves.has(origin.host(), now) {
                mint_slot(shared, &agent).await?;
            }
            let (config, new) = leaves.config_or_new(origin.host(), now).await.map_err(|error| {
                tracing::warn!(host = %origin.host(), %error, "no leaf certificate");
                Answer::saying(Code::Internal, "no certificate could be made for this host")
                    .hint("ask the operator to run: keyferry ca show")
            })?;
            if new {
                shared.books.recorder.metrics().leaf_minted();
            }
            Ok(Open::Intercept { agent, origin, config })
        }
    }
}

/// Waits for its turn to have a certificate made: a program that names thousands of hosts must not cost others the
/// processor.
async fn mint_slot(shared: &Shared, agent: &Agent) -> Result<(), Answer> {
    const LONGEST: Duration = Duration::from_secs(2);
    match shared.mints.take(agent.name().clone(), std::time::Instant::now()) {
        None => Ok(()),
        Some(wait) if wait <= LONGEST => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
        Some(wait) => Err(Answer::saying(Code::AgentRateLimited, "too many new hosts at once").after(Some(wait))),
    }
}

async fn blind(
    shared: &Shared,
    agent: &Agent,
    rule: &Rule,
    origin: &Origin,
    account: &mut Account,
) -> Result<Open, Answer> {
    account.record().rule = Some(rule.to_string());
    account.hold_share(exchange::enter(shared, agent, None, shared.clock.now())?);
    let upstream = shared.upstream.raw(origin).await.map_err(|error| {
        account.record().detail = Some(error.to_string());
        Answer::saying(error.code(), error.explanation())
    })?;
    Ok(Open::Blind { upstream })
}

/// Terminates TLS and serves the exchanges inside.
pub async fn intercept(
    shared: Arc<Shared>,
    stream: Replayed,
    agent: Agent,
    origin: Origin,
    config: Arc<ServerConfig>,
    via: Via,
) {
    match tls::accept(stream, origin.host(), config).await {
        Ok(stream) => serve_tls(shared, stream, agent, origin, via).await,
        Err(failure) => {
            let mut account = Account::open(&shared.books, shared.clock.now(), via.listener, via.client);
            account.agent(agent.name());
            account.origin(&origin);
            account.head(&http::Method::CONNECT, http::Version::HTTP_11);
            account.record().detail = Some(failure.to_string());
            let code = match failure {
                AcceptFailure::OtherName => Code::AuthorityMismatch,
                AcceptFailure::Timeout | AcceptFailure::Distrusted | AcceptFailure::Failed(_) => Code::BadRequest,
            };
            account.answered(code, None);
            match failure {
                AcceptFailure::Distrusted => tracing::warn!(agent = %agent.name(), host = %origin.host(),
                    program = via.program.name, hint = via.program.hint, "the agent's program does not trust the CA"),
                // Some break off without an alert.
                _ => tracing::info!(agent = %agent.name(), host = %origin.host(), program = via.program.name,
                    hint = via.program.hint, %failure, "no TLS with the agent; it may not trust the CA"),
            }
        }
    }
}

async fn serve_tls(shared: Arc<Shared>, stream: TlsStream<Replayed>, agent: Agent, origin: Origin, via: Via) {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let (stopping, host) = (shared.spawner.clone(), origin.host().clone());
    let tunnel = Some((agent.name().clone(), origin.clone()));
    let sender = Sender { client: via.client, listener: via.listener, manner: Manner::Origin, tunnel };
    let words = Some(tls::tls_words(stream.get_ref().1));
    let entrance = Entrance::Tunnel { agent, origin };
    let caller = Arc::new(Caller { client: via.client, listener: via.listener, entrance, tls: words });
    let asked = Arc::new(AtomicBool::new(false));
    let service_shared = Arc::clone(&shared);
    let service_asked = Arc::clone(&asked);
    let (stream, turn) =
        if h2 { heads::pass(stream) } else { heads::watch(stream, malformed::refusal(&shared, sender)) };
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, caller) = (Arc::clone(&service_shared), Arc::clone(&caller));
        let taken = turn.take(&request);
        service_asked.store(true, Ordering::Relaxed);
        async move {
            // Its state is large, and a connection that waits for its next request should not hold room for it.
            let exchange = Box::pin(exchange::run(&shared, &caller, request));
            Ok::<Response<Served<Delivery>>, Infallible>(taken.serve(exchange).await)
        }
    });
    if h2 {
        let mut builder = http2::Builder::new(shared.spawner.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_header_list_size(32 * 1024)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(128)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(10))
            .enable_connect_protocol();
        // Boxed each: held in place, both would take the room of the larger one for as long as the connection lasts.
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stopping.stopping() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE)
            .max_headers(HEAD_FIELDS)
            .max_buf_size(HEAD_BYTES)
            .half_close(true);
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
        tokio::select! {
            _ = connection.as_mut() => {}
            () = stopping.stopping() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
    if !asked.load(Ordering::Relaxed) {
        // GnuTLS has its caller check the certificate after the handshake, and no alert comes then.
        tracing::info!(%host, program = via.program.name, hint = via.program.hint,
            "the agent's program left after the handshake without a request; it may not trust the CA");
    }
}

/// Copies bytes both ways until both ends are done or nothing moved for `idle`.
pub async fn relay<S>(agent: S, mut upstream: TcpStream, idle: Duration, account: &mut Account)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut agent = Watched::new(agent);
    let moved = agent.moved.clone();
    let copy = tokio::io::copy_bidirectional(&mut agent, &mut upstream);
    let silence = async {
        let mut last = moved.load(std::sync::atomic::Ordering::Relaxed);
        loop {
            tokio::time::sleep(idle).await;
            let now = moved.load(std::sync::atomic::Ordering::Relaxed);
            if now == last {
                return;
            }
            last = now;
        }
    };
    tokio::select! {
        copied = copy => {
            if let Ok((sent, received)) = copied {
                account.record().bytes_in = sent;
                account.record().bytes_out = received;
            }
        }
        () = silence => account.record().error = Some(Code::UpstreamTimeout),
    }
}

/// A stream whose first bytes were read already: together with the CONNECT (PX-03), or to learn the server's name.
pub struct Replayed {
    /// What was read.
    pub first: Bytes,
    /// What comes after it.
    pub inner: ClientStream,
}

impl Acknowledge for Replayed {
    fn acknowledge(&self) {
        self.inner.acknowledge();
    }
}

impl Acknowledge for TlsStream<Replayed> {
    fn acknowledge(&self) {
        self.get_ref().0.acknowledge();
    }
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.has_remaining() {
            let take = self.first.len().min(buf.remaining());
            let head = self.first.split_to(take);
            buf.put_slice(&head);
            return Poll::Ready(Ok(()));
        }
        // Even with nothing in it, it holds the whole buffer that it was read into.
        self.first = Bytes::new();
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Counts the bytes that move, so that silence can be told from a busy tunnel.
struct Watched<S> {
    inner: S,
    moved: Arc<std::sync::atomic::AtomicU64>,
}

impl<S> Watched<S> {
    fn new(inner: S) -> Self {
        Self { inner, moved: Arc::default() }
    }

    fn add(&self, bytes: usize) {
        self.moved.fetch_add(u64::try_from(bytes).unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.add(buf.filled().len().saturating_sub(before));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.add(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
