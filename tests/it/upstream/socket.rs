//! A WebSocket that says back what it hears, in frames of less than 126 bytes.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::{Body, whole};

const CLOSE: u8 = 8;

/// Whether the peer asks for one.
pub fn wanted(fields: &HeaderMap) -> bool {
    fields.get("upgrade").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Switches over, and goes on by itself.
pub fn accept(request: &mut Request<Incoming>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let _ = echo(TokioIo::new(upgraded)).await;
        }
    });
    let accept = tungstenite::handshake::derive_accept_key(&key);
    Response::builder()
        .status(101)
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-accept", accept)
        .body(whole(Bytes::new()))
        .unwrap()
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    loop {
        let mut head = [0u8; 6];
        stream.read_exact(&mut head).await?;
        let [first, length, mask @ ..] = head;
        assert!((0x80..0x80 + 126).contains(&length), "a short, masked frame");
        let mut payload = vec![0; usize::from(length & 0x7f)];
        stream.read_exact(&mut payload).await?;
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        stream.write_all(&[&[first, length & 0x7f][..], &payload].concat()).await?;
        stream.flush().await?;
        if first & 0x0f == CLOSE {
            return stream.shutdown().await;
        }
    }
}
