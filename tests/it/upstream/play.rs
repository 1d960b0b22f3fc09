//! Servers of a test's own: they have the bytes under TLS to themselves, and do with them what no server should.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::ca::Offer;
use super::serve;

type Act = dyn Fn(Scene) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What is played on every connection to a host.
#[derive(Clone)]
pub struct Play {
    offer: Offer,
    act: Arc<Act>,
}

impl fmt::Debug for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Play")
    }
}

impl Play {
    pub fn new<F>(offer: Offer, act: impl Fn(Scene) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { offer, act: Arc::new(move |scene| Box::pin(act(scene))) }
    }

    pub fn http1<F>(act: impl Fn(Scene) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::new(Offer::Http1, act)
    }

    pub fn http2<F>(act: impl Fn(Scene) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::new(Offer::Http2, act)
    }

    pub fn offer(&self) -> Offer {
        self.offer
    }

    pub async fn act(&self, stream: TlsStream<TcpStream>) {
        (self.act)(Scene { stream }).await;
    }
}

/// One connection of a play.
pub struct Scene {
    pub stream: TlsStream<TcpStream>,
}

impl Scene {
    /// The next request's head, as text; empty at the end.
    pub async fn head(&mut self) -> String {
        String::from_utf8_lossy(&serve::read_head(&mut self.stream).await).into_owned()
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        match self.stream.read_exact(&mut bytes).await {
            Ok(_) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Sends; `false` when the peer is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Ends TLS cleanly.
    pub async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads and forgets until the peer is gone.
    pub async fn drain(&mut self) {
        let mut buffer = [0u8; 16 * 1024];
        while self.stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    }

    /// HTTP/2: the preface and settings, then the stream of the first request.
    pub async fn greet(&mut self) -> u32 {
        assert_eq!(self.exactly(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        self.send(h2_frame(SETTINGS, 0, 0, b"")).await;
        self.next_stream().await
    }

    /// HTTP/2: waits for the HEADERS of a request and gives its stream; 0 when the peer is gone.
    pub async fn next_stream(&mut self) -> u32 {
        loop {
            let (kind, flags, stream) = self.h2_read().await;
            match kind {
                HEADERS => return stream,
                SETTINGS if flags & 1 == 0 => {
                    self.send(h2_frame(SETTINGS, 1, 0, b"")).await;
                }
                GONE => return 0,
                _ => {}
            }
        }
    }

    /// HTTP/2: the kind, flags and stream of the next frame, whose payload is dropped.
    pub async fn h2_read(&mut self) -> (u8, u8, u32) {
        let head = self.exactly(9).await;
        let Ok([a, b, c, kind, flags, s @ ..]) = <[u8; 9]>::try_from(head) else { return (GONE, 0, 0) };
        self.exactly(usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()).await;
        (kind, flags, u32::from_be_bytes(s) & 0x7fff_ffff)
    }
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// No kind of frame: the connection ended.
pub const GONE: u8 = 255;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK's static table.
pub const STATUS_200: &[u8] = &[0x88];

pub fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![size[1], size[2], size[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A literal field without indexing and without Huffman coding; `name` is at most 126 bytes long, as is `value`.
pub fn hpack(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, u8::try_from(name.len()).unwrap()];
    out.extend_from_slice(name.as_bytes());
    out.push(u8::try_from(value.len()).unwrap());
    out.extend_from_slice(value.as_bytes());
    out
}
