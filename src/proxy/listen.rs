//! Accepts connections and serves the requests that come straight on them.
//!
//! Invariant: a permit is held before a connection is accepted, and every wait for a peer has a limit.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::OwnedSemaphorePermit;

use crate::code::Code;
use crate::home;
use crate::id::AgentName;
use crate::message::origin::Host;
use crate::proxy::account::Account;
use crate::proxy::arrival::Arrival;
use crate::proxy::delivery::Delivery;
use crate::proxy::exchange::{self, Caller, Entrance};
use crate::proxy::heads::{self, Served};
use crate::proxy::limits::{HEAD_BYTES, HEAD_FIELDS, KEEP_ALIVE};
use crate::proxy::malformed::{self, Sender};
use crate::proxy::peer::{Door, Peer, Resident, door_of_user};
use crate::proxy::respond::{Answer, Manner};
use crate::proxy::state::Shared;
use crate::proxy::stream::ClientStream;
use crate::proxy::{transparent, tunnel};
use crate::tls;

/// Which kind of request a listener takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerKind {
    /// CONNECT and absolute-form.
    Proxy,
    /// The same behind TLS, with a certificate for this host.
    ProxyTls(Host),
    /// `/provider/path` for clients that ignore `HTTPS_PROXY`.
    BaseUrl,
    /// TLS that was meant for somebody else and was redirected.
    Transparent,
}

impl ListenerKind {
    /// As logs and metrics name it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::ProxyTls(_) => "proxy_tls",
            Self::BaseUrl => "base_url",
            Self::Transparent => "transparent",
        }
    }
}

/// A bound socket with its kind.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    kind: ListenerKind,
    resident: Option<Resident>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// With the agents that users are.
    Unix(UnixListener, BTreeMap<u32, AgentName>),
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// The operating system's, a taken port above all.
    pub async fn bind(address: SocketAddr, kind: ListenerKind) -> io::Result<Self> {
        Ok(Self { socket: Socket::Tcp(TcpListener::bind(address).await?), kind, resident: None })
    }

    /// Binds a Unix socket at `path`, for `agents` by their users' numbers; others authenticate. Only our own user can
    /// connect, unless `agents` names another: then the kernel's word on who connects decides alone.
    ///
    /// # Errors
    /// The operating system's; `AddrInUse` when somebody listens there.
    pub async fn bind_unix(path: &Path, agents: BTreeMap<u32, AgentName>) -> io::Result<Self> {
        let own = rustix::process::geteuid().as_raw();
        let mode = if agents.keys().all(|uid| *uid == own || *uid == 0) { 0o600 } else { 0o666 };
        let listener = home::bind_socket(path, mode).await?;
        Ok(Self { socket: Socket::Unix(listener, agents), kind: ListenerKind::Proxy, resident: None })
    }

    /// Gives it an agent of its own, for connections of one user over loopback.
    #[must_use]
    pub fn with_resident(mut self, resident: Option<Resident>) -> Self {
        self.resident = resident;
        self
    }

    /// Where it listens, if that is an address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }
}

/// Serves `listener` until the process stops.
pub async fn serve(shared: Arc<Shared>, listener: Listener) {
    let Listener { socket, kind, resident } = listener;
    let (kind, resident) = (Arc::new(kind), resident.map(Arc::new));
    loop {
        let permit = tokio::select! {
            () = shared.spawner.stopping() => return,
            permit = Arc::clone(&shared.connections).acquire_owned() => permit,
        };
        let Ok(place) = permit.map(Arc::new) else { return };
        let accepted = tokio::select! {
            () = shared.spawner.stopping() => return,
            accepted = accept(&socket, &place) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (shared, kind, resident) = (Arc::clone(&shared), Arc::clone(&kind), resident.clone());
                let spawner = shared.spawner.clone();
                spawner.spawn(async move {
                    match accepted {
                        Accepted::Tcp(stream, client) => {
                            tcp(shared, stream, client, &kind, resident.as_deref(), place).await;
                        }
                        Accepted::Unix(stream, arrival) => http(shared, stream, arrival, &ListenerKind::Proxy).await,
                    }
                });
            }
            // Out of file descriptors, or a peer that left already: a short rest, then on.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(ClientStream, Arrival),
}

async fn accept(socket: &Socket, place: &Arc<OwnedSemaphorePermit>) -> io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => listener.accept().await.map(|(stream, client)| Accepted::Tcp(stream, client)),
        Socket::Unix(listener, agents) => {
            let (stream, _) = listener.accept().await?;
            let uid = stream.peer_cred()?.uid();
            let door = door_of_user(uid, agents);
            let place = Arc::clone(place);
            let arrival = Arrival { client: Peer::User(uid), listener: "unix", local: true, door, place };
            Ok(Accepted::Unix(ClientStream::Unix(stream), arrival))
        }
    }
}

async fn tcp(
    shared: Arc<Shared>,
    stream: TcpStream,
    client: SocketAddr,
    kind: &ListenerKind,
    resident: Option<&Resident>,
    place: Arc<OwnedSemaphorePermit>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    let target = if *kind == ListenerKind::Transparent { transparent::target(&stream, local) } else { local };
    let door = match resident {
        None => Door::Open,
        Some(resident) => resident.door(client, target).await,
    };
    let (listener, local) = (kind.as_str(), local.ip().is_loopback());
    let arrival = Arrival { client: Peer::Address(client), listener, local, door, place };
    let stream = match kind {
        ListenerKind::Proxy | ListenerKind::BaseUrl => ClientStream::Tcp(stream),
        ListenerKind::Transparent => {
            let open = shared.books.recorder.metrics().connection(kind.as_str());
            transparent::serve(shared, stream, target, arrival).await;
            drop(open);
            return;
        }
        ListenerKind::ProxyTls(host) => {
            let now = shared.clock.now();
            let Ok(config) = shared.leaves.load_full().config_for(host, now).await else {
                tracing::error!(%host, "no certificate for listen.proxy_tls");
                return;
            };
            match tls::accept(stream, host, tls::http1_only(&config)).await {
                Ok(stream) => ClientStream::Tls(Box::new(stream)),
                Err(failure) => {
                    tracing::info!(%client, %failure, "no TLS with a client of listen.proxy_tls; it must name it {host} and trust the CA: keyferry ca path");
                    return;
                }
            }
        }
    };
    http(shared, stream, arrival, kind).await;
}

async fn http(shared: Arc<Shared>, stream: ClientStream, arrival: Arrival, kind: &ListenerKind) {
    let open = shared.books.recorder.metrics().connection(arrival.listener);
    let stopping = shared.spawner.clone();
    let base_url = *kind == ListenerKind::BaseUrl;
    let (service_shared, arrival) = (Arc::clone(&shared), Arc::new(arrival));
    let manner = if base_url { Manner::Origin } else { Manner::Proxy };
    let sender = Sender { client: arrival.client, listener: arrival.listener, manner, tunnel: None };
    let (stream, turn) = heads::watch(stream, malformed::refusal(&shared, sender));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, arrival) = (Arc::clone(&service_shared), Arc::clone(&arrival));
        let taken = turn.take(&request);
        async move {
            let answer = Box::pin(answer(shared, request, &arrival, base_url));
            Ok::<Response<Served<Delivery>>, Infallible>(taken.serve(answer).await)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .max_headers(HEAD_FIELDS)
        .max_buf_size(HEAD_BYTES)
        .half_close(true);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopping.stopping() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(open);
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    arrival: &Arrival,
    base_url: bool,
) -> Response<Delivery> {
    let manner = if base_url { Manner::Origin } else { Manner::Proxy };
    // No program of an agent's sends `Origin` to a proxy that knows it without credentials; a browser's page does.
    let page = arrival.door.resident().is_some() && request.headers().contains_key(ORIGIN);
    let closed = match arrival.door {
        Door::Closed(code) => Some(code),
        Door::Open | Door::Known(_) => page.then_some(Code::PolicyDenied),
    };
    if let Some(code) = closed {
        let answer = Answer::saying(code, "this listener serves the programs of one user only")
            .hint("use a listener without an agent of its own, and a token: keyferry env --agent NAME");
        let mut account = Account::open(&shared.books, shared.clock.now(), arrival.listener, arrival.client);
        account.head(request.method(), request.version());
        let response = answer.response(account.id(), manner);
        account.answered(answer.code, Some(response.status().as_u16()));
        return response;
    }
    if request.method() == Method::CONNECT && !base_url {
        return tunnel::connect(shared, request, arrival).await;
    }
    let door = arrival.door.clone();
    let entrance =
        if base_url { Entrance::BaseUrl { door } } else { Entrance::Absolute { local: arrival.local, door } };
    let caller = Caller { client: arrival.client, listener: arrival.listener, entrance, tls: None };
    exchange::run(&shared, &caller, request).await
}
