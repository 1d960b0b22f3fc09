//! Connections that were redirected to us: TLS whose server name says where it was going.
//!
//! Invariant: the server name decides and is resolved anew; the address that the connection was made to gives its
//! port and nothing else. Without a server name the connection is closed.

use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::code::Code;
use crate::message::origin::{Origin, Scheme};
use crate::proxy::account::Account;
use crate::proxy::arrival::Arrival;
use crate::proxy::peer::Door;
use crate::proxy::program::Program;
use crate::proxy::state::Shared;
use crate::proxy::stream::ClientStream;
use crate::proxy::tunnel::{self, Open, Replayed, Via};
use crate::telemetry::{Decision, Protocol};
use crate::tls;

/// Where a connection went before it was redirected: what the kernel's table of translated connections says, else our
/// own end.
pub fn target(stream: &TcpStream, local: SocketAddr) -> SocketAddr {
    let socket = SockRef::from(stream);
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    original.ok().and_then(|address| address.as_socket()).unwrap_or(local)
}

/// Serves one connection that went to `target`.
pub async fn serve(shared: Arc<Shared>, mut stream: TcpStream, target: SocketAddr, arrival: Arrival) {
    let via = Via { client: arrival.client, listener: arrival.listener, program: Program::UNKNOWN };
    let mut account = Account::open(&shared.books, shared.clock.now(), via.listener, via.client);
    account.record().protocol = Protocol::Tunnel;
    let agent = match arrival.door {
        Door::Known(agent) => agent,
        Door::Open => return refuse(stream, account, Code::AgentUnauthenticated, None).await,
        Door::Closed(code) => return refuse(stream, account, code, None).await,
    };
    account.agent(agent.name());
    let hello = match tls::server_name(&mut stream).await {
        Ok(hello) => hello,
        Err(failure) => return refuse(stream, account, Code::BadRequest, Some(failure.to_string())).await,
    };
    let Some(name) = hello.name else {
        return refuse(stream, account, Code::AuthorityMismatch, Some("no server name".to_owned())).await;
    };
    // Who connects to the listener itself says nothing of a port.
    let direct = stream.local_addr().is_ok_and(|local| local == target);
    let port = if direct { Scheme::Https.default_port() } else { target.port() };
    let origin = Origin::from_connect_target(&format!("{name}:{port}"));
    let Some(origin) = origin.ok().filter(|origin| origin.host().name().is_some()) else {
        return refuse(stream, account, Code::BadRequest, Some("no host's name".to_owned())).await;
    };
    account.origin(&origin);
    match tunnel::open(&shared, agent, origin, &mut account).await {
        Err(answer) => refuse(stream, account, answer.code, None).await,
        Ok(Open::Intercept { agent, origin, config }) => {
            account.forget();
            let stream = Replayed { first: hello.bytes, inner: ClientStream::Tcp(stream) };
            tunnel::intercept(shared, stream, agent, origin, config, via).await;
        }
        Ok(Open::Blind { upstream }) => {
            account.record().decision = Decision::Tunnelled;
            let stream = Replayed { first: hello.bytes, inner: ClientStream::Tcp(stream) };
            let stop = shared.spawner.clone();
            tokio::select! {
                () = tunnel::relay(stream, upstream, shared.limits.idle, &mut account) => {}
                () = stop.stopping() => {}
            }
        }
    }
}

/// An `access_denied` alert (RFC 8446 section 6.2) before any key is agreed upon.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Closes the connection; there is no HTTP to say why in, so the record does.
async fn refuse<S>(mut stream: S, mut account: Account, code: Code, detail: Option<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    account.record().detail = detail;
    account.answered(code, None);
    drop(account);
    let _ = stream.write_all(&ACCESS_DENIED).await;
    let _ = stream.shutdown().await;
}
