//! Accepts connections and serves the requests that come straight on them.
//!
//! Invariant: a permit is held before a connection is accepted, and every wait for a peer has a limit.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::delivery::Delivery;
use crate::proxy::exchange::{self, Caller, Entrance};
use crate::proxy::limits::{HEAD_BYTES, HEAD_FIELDS, KEEP_ALIVE};
use crate::proxy::state::Shared;
use crate::proxy::tunnel;

/// Which kind of request a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// CONNECT and absolute-form.
    Proxy,
    /// `/provider/path` for clients that ignore `HTTPS_PROXY`.
    BaseUrl,
}

impl ListenerKind {
    /// As logs and metrics name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::BaseUrl => "base_url",
        }
    }
}

/// A bound socket with its kind.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    kind: ListenerKind,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// The operating system's, a taken port above all.
    pub async fn bind(address: SocketAddr, kind: ListenerKind) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, kind })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Serves `listener` until the process stops.
pub async fn serve(shared: Arc<Shared>, listener: Listener) {
    let kind = listener.kind;
    loop {
        let permit = tokio::select! {
            () = shared.spawner.stopping() => return,
            permit = Arc::clone(&shared.connections).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            () = shared.spawner.stopping() => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let connection = connection(Arc::clone(&shared), stream, client, kind);
                shared.spawner.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of file descriptors, or a peer that left already: a short rest, then on.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, client: SocketAddr, kind: ListenerKind) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let local = stream.local_addr().ok();
    let open = shared.books.recorder.metrics().connection(kind.as_str());
    let stopping = shared.spawner.clone();
    let service_shared = Arc::clone(&shared);
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&service_shared);
        async move { Ok::<Response<Delivery>, Infallible>(answer(shared, request, client, local, kind).await) }
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
    client: SocketAddr,
    local: Option<SocketAddr>,
    kind: ListenerKind,
) -> Response<Delivery> {
    match kind {
        ListenerKind::Proxy if request.method() == Method::CONNECT => tunnel::connect(shared, request, client).await,
        ListenerKind::Proxy => {
            let loopback = local.is_some_and(|local| local.ip().is_loopback());
            let caller = Caller { client, listener: kind.as_str(), entrance: Entrance::Absolute { loopback } };
            exchange::run(&shared, &caller, request).await
        }
        ListenerKind::BaseUrl => {
            let caller = Caller { client, listener: kind.as_str(), entrance: Entrance::BaseUrl };
            exchange::run(&shared, &caller, request).await
        }
    }
}
