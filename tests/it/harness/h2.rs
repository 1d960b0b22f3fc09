//! An HTTP/2 agent that sees every frame of an answer, and can send its own body as it goes.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::home::{Home, Received};
use super::process::PATIENCE;
use super::wire::{HTTP2, client_config, connect_request};

type Body = BoxBody<Bytes, std::io::Error>;
type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;

/// One connection through a tunnel.
pub struct H2 {
    pub sender: http2::SendRequest<Body>,
    host: String,
    received: Received,
}

/// An answer whose body is still to be read.
pub struct Reply {
    pub head: http::response::Parts,
    pub body: Incoming,
    received: Received,
}

/// What became of a body.
#[derive(Debug)]
pub struct Ended {
    pub bytes: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The reason of the reset, or the words of another error.
    pub broken: Option<String>,
}

impl H2 {
    /// Opens a tunnel to `host` and HTTP/2 in it.
    pub async fn open(home: &Home, proxy: std::net::SocketAddr, token: &str, host: &str) -> Self {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(connect_request(&format!("{host}:443"), "coder", token).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0);
        }
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
        let config = client_config(&home.path().join("ca/ca.pem"), HTTP2);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, host: host.to_owned(), received: home.received() }
    }

    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.host))
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Reply, hyper::Error> {
        self.sender.ready().await?;
        let response: Response<Incoming> =
            tokio::time::timeout(PATIENCE, self.sender.send_request(request)).await.expect("an answer in time")?;
        let (head, body) = response.into_parts();
        let shown = format!("{:?}", head.headers).into_bytes();
        self.received.lock().unwrap().push(("the fields of an HTTP/2 answer".to_owned(), shown));
        Ok(Reply { head, body, received: self.received.clone() })
    }

    pub async fn get(&mut self, path: &str) -> Result<Reply, hyper::Error> {
        let request = self.request(Method::GET, path).body(whole("")).unwrap();
        self.send(request).await
    }
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body.
    pub async fn next(&mut self) -> Option<Bytes> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("a frame in time")?;
        let data = frame.unwrap().into_data().unwrap();
        self.received.lock().unwrap().push(("a piece of an HTTP/2 answer".to_owned(), data.to_vec()));
        Some(data)
    }

    /// Reads to the end, whatever that is. hyper takes a reset with CANCEL for an end, so the end is looked at too.
    pub async fn end(mut self) -> Ended {
        let mut ended = Ended { bytes: Vec::new(), trailers: None, broken: None };
        loop {
            match tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("a frame in time") {
                None => {
                    if !hyper::body::Body::is_end_stream(&self.body) {
                        ended.broken = Some("reset without an error".to_owned());
                    }
                    break;
                }
                Some(Err(error)) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    ended.broken = Some(format!("{error}: {}", source.unwrap_or_default()));
                    break;
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => ended.bytes.extend_from_slice(&data),
                    Err(frame) => ended.trailers = frame.into_trailers().ok(),
                },
            }
        }
        let shown = format!("{:?}", ended.trailers).into_bytes();
        let mut received = self.received.lock().unwrap();
        received.push(("an HTTP/2 body".to_owned(), ended.bytes.clone()));
        received.push(("HTTP/2 trailers".to_owned(), shown));
        drop(received);
        ended
    }
}

/// A body that is all there.
pub fn whole(body: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(body.into()).map_err(|never| match never {}).boxed()
}

/// A body that is sent frame by frame.
pub fn flowing() -> (Frames, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver: mpsc::UnboundedReceiver<_>| {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}
