//! Listening: the TLS hello decides the certificate and the defect, ALPN decides the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use super::ca::{Leaf, Offer};
use super::record::Connection;
use super::script::Defect;
use super::{State, answer, runtime};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Tls,
    Cleartext,
}

/// Listens on a free loopback port until stopped.
pub fn listen(state: Arc<State>, stop: CancellationToken, speaks: Speaks) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let _ = stream.set_nodelay(true);
            let (state, stop) = (Arc::clone(&state), stop.clone());
            tokio::spawn(async move {
                let work = async {
                    match speaks {
                        Speaks::Tls => encrypted(state, stream).await,
                        Speaks::Cleartext => {
                            let connection = state.connected(None, Vec::new(), false);
                            exchange(state, connection, stream, Offer::Http1).await;
                        }
                    }
                };
                tokio::select! { () = stop.cancelled() => {}, () = work => {} }
            });
        }
    });
    address
}

async fn encrypted(state: Arc<State>, stream: TcpStream) {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let Ok(Ok(mut start)) = tokio::time::timeout(Duration::from_secs(30), acceptor).await else { return };
    let (sni, offered) = {
        let hello = start.client_hello();
        let offered = hello.alpn().into_iter().flatten();
        let offered: Vec<String> = offered.map(|p| String::from_utf8_lossy(p).into_owned()).collect();
        (hello.server_name().map(str::to_owned), offered)
    };
    let connection = state.connected(sni.clone(), offered, true);
    let name = sni.unwrap_or_else(|| "no-sni.example".to_owned());
    let defect = state.defects.lock().unwrap().get(&name).cloned();
    let (mut leaf, mut offer) = (Leaf::Good, Offer::Both);
    match &defect {
        Some(Defect::PlainText) => {
            let _ = start.io.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            return;
        }
        Some(Defect::Closes) => return,
        Some(Defect::StallsInHandshake) => {
            drain(&mut start.io).await;
            return;
        }
        Some(Defect::Certificate(bad)) => leaf = *bad,
        Some(Defect::Offers(only)) => offer = *only,
        Some(Defect::StallsAfterHead | Defect::Raw(_)) => offer = Offer::Http1,
        Some(Defect::Plays(play)) => offer = play.offer(),
        None => {}
    }
    let config = state.ca.server_config(&name, leaf, offer);
    let Ok(mut tls) = start.into_stream(config).await else { return };
    state.established(connection.id);
    match defect {
        Some(Defect::StallsAfterHead) => {
            read_head(&mut tls).await;
            drain(&mut tls).await;
        }
        Some(Defect::Raw(bytes)) => {
            read_head(&mut tls).await;
            let _ = tls.write_all(&bytes).await;
            let _ = tls.shutdown().await;
        }
        Some(Defect::Plays(play)) => play.act(tls).await,
        _ => {
            let chosen = if tls.get_ref().1.alpn_protocol() == Some(b"h2") { Offer::Http2 } else { Offer::Http1 };
            exchange(state, connection, tls, chosen).await;
        }
    }
}

async fn exchange<S>(state: Arc<State>, connection: Connection, stream: S, speaks: Offer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: http::Request<Incoming>| {
        answer::answer(Arc::clone(&state), connection.clone(), request)
    });
    let io = TokioIo::new(stream);
    if speaks == Offer::Http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.timer(TokioTimer::new()).serve_connection(io, service).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.timer(TokioTimer::new()).serve_connection(io, service).with_upgrades().await;
    }
}

pub async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Bytes {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    Bytes::from(head)
}

async fn drain<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = [0u8; 1024];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
    }
}
