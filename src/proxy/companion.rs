//! A way to a proxy for connections that cannot come to it themselves: from the network of a locked command, and from
//! programs that cannot authenticate.
//!
//! Invariant: credentials are added only where who is there was established: by the network that nobody else is in, or by
//! the kernel's word on the user at the other end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::proxy::limits::HEAD_BYTES;
use crate::proxy::peer::{Door, Resident};
use crate::spawn::Spawner;

/// Connections at once; a command that has more waits.
const MOST_CONNECTIONS: usize = 1024;
/// How long a program has for the head that the credentials are added to.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Where connections are led, and what is added to them.
#[derive(Debug, Clone)]
pub struct Way {
    /// The proxy, or a local service.
    pub target: SocketAddr,
    /// The value of `Proxy-Authorization`, for programs that have none.
    pub authorization: Option<String>,
    /// Who may come, where others could.
    pub resident: Option<Resident>,
}

/// Leads the connections of `listener` until `spawner` stops or the runtime ends.
pub async fn lead(listener: TcpListener, way: Way, spawner: Spawner) {
    let (way, places) = (Arc::new(way), Arc::new(Semaphore::new(MOST_CONNECTIONS)));
    let Ok(local) = listener.local_addr() else { return };
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = spawner.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, client)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (way, stop) = (Arc::clone(&way), spawner.clone());
        spawner.spawn(async move {
            let work = async {
                if let Some(resident) = &way.resident
                    && !matches!(resident.door(client, local).await, Door::Known(_))
                {
                    return;
                }
                // Either end may break off; the other learns it by the end of its own connection.
                let _ = pass(stream, &way).await;
            };
            tokio::select! { () = stop.stopping() => {}, () = work => {} }
            drop(place);
        });
    }
}

async fn pass(mut agent: TcpStream, way: &Way) -> io::Result<()> {
    agent.set_nodelay(true)?;
    let head = match &way.authorization {
        None => Vec::new(),
        Some(authorization) => {
            let head = tokio::time::timeout(HEAD_TIME, read_head(&mut agent)).await??;
            with_authorization(&head, authorization)?
        }
    };
    let mut target = TcpStream::connect(way.target).await?;
    target.set_nodelay(true)?;
    target.write_all(&head).await?;
    copy_bidirectional(&mut agent, &mut target).await.map(drop)
}

/// A head, and what came with it.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1024);
    while memchr::memmem::find(&bytes, b"\r\n\r\n").is_none() {
        if bytes.len() > HEAD_BYTES || stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(bytes)
}

/// The head with the field. Whatever follows a request that opens no tunnel would come without it, so such a connection
/// ends with its answer and the next request has a connection of its own.
fn with_authorization(bytes: &[u8], authorization: &str) -> io::Result<Vec<u8>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").ok_or_else(invalid)?;
    let (head, rest) = bytes.split_at_checked(end).ok_or_else(invalid)?;
    let close = if head.starts_with(b"CONNECT ") { "" } else { "\r\nConnection: close" };
    let field = format!("\r\nProxy-Authorization: {authorization}{close}");
    Ok([head, field.as_bytes(), rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_stands_last_in_the_head_and_the_rest_is_as_it_was() {
        let cases = [
            (
                "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\nrest",
                "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic x\r\n\r\nrest",
            ),
            (
                "GET http://a/ HTTP/1.1\r\nConnection: keep-alive\r\n\r\n",
                "GET http://a/ HTTP/1.1\r\nConnection: keep-alive\r\nProxy-Authorization: Basic x\r\nConnection: close\r\n\r\n",
            ),
        ];
        for (came, goes) in cases {
            let made = with_authorization(came.as_bytes(), "Basic x").unwrap();
            assert_eq!(String::from_utf8(made).unwrap(), goes);
        }
    }

    #[tokio::test]
    async fn a_program_without_credentials_reaches_the_proxy_with_them() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way =
            Way { target: proxy.local_addr().unwrap(), authorization: Some("Basic x".to_owned()), resident: None };
        let spawner = Spawner::default();
        spawner.spawn(lead(listener, way, spawner.clone()));
        let mut program = TcpStream::connect(address).await.unwrap();
        program.write_all(b"CONNECT a:443 HTTP/1.1\r\n").await.unwrap();
        program.write_all(b"Host: a\r\n\r\nmore").await.unwrap();
        program.shutdown().await.unwrap();
        let (mut came, _) = proxy.accept().await.unwrap();
        let mut text = String::new();
        came.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic x\r\n\r\nmore");
        came.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        drop(came);
        let mut answer = String::new();
        program.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
        spawner.stop();
    }
}
