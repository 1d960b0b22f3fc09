//! A request head has to arrive in ten seconds, while a connection may wait two minutes for its first byte.
//!
//! hyper's one timer covers both, so the shorter one is here, around the connection's bytes. Whoever knows whether more
//! of a request is to come also knows when an agent may be waiting for its last bytes to be acknowledged: an agent that
//! did not set `TCP_NODELAY` holds the end of what it has to say until then, and the kernel puts it off for 40 ms.
//!
//! Invariant: the timer runs only while a part of an HTTP/1.1 head has arrived and the service was not called with it
//! (DO-01). Nothing is waited for that arrived together with the rest.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// SECURITY DO-01; a client on this machine sends its head in one write.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);

const WAITING: u8 = 0;
const READING: u8 = 1;
/// A request that was whole with its head.
const SERVING: u8 = 2;
/// A request whose body may be still on its way.
const RECEIVING: u8 = 3;
const HANDED_ON: u8 = 4;

/// A connection whose peer can be told at once that its bytes arrived.
pub trait Acknowledge {
    /// Tells it. Without it the next bytes still come, only later.
    fn acknowledge(&self);
}

/// Watches the HTTP/1.1 heads that arrive on `stream`.
pub fn watch<S>(stream: S) -> (Heads<S>, Turn) {
    begin(stream, WAITING)
}

/// For HTTP/2, where the heads of many requests stand among other frames: a peer that stalls in one cannot answer our
/// pings, since no other frame may stand inside a header block (RFC 9113 section 4.3).
pub fn pass<S>(stream: S) -> (Heads<S>, Turn) {
    begin(stream, HANDED_ON)
}

fn begin<S>(stream: S, state: u8) -> (Heads<S>, Turn) {
    let turn = Turn(Arc::new(AtomicU8::new(state)));
    (Heads { inner: stream, turn: turn.clone(), alarm: None, owed: true }, turn)
}

/// Whose turn it is on one connection.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<AtomicU8>);

impl Turn {
    /// Takes one request, whose head has been read.
    pub fn take<B: Body>(&self, request: &Request<B>) -> Taken {
        let state = if request.body().is_end_stream() { SERVING } else { RECEIVING };
        self.pass_to(state);
        Taken { turn: self.clone(), connect: *request.method() == Method::CONNECT }
    }

    fn pass_to(&self, state: u8) {
        let step = |now| (now != HANDED_ON).then_some(state);
        let _ = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, step);
    }
}

/// A request that is being served.
#[derive(Debug)]
pub struct Taken {
    turn: Turn,
    connect: bool,
}

impl Taken {
    /// Waits for its answer.
    pub async fn serve<B>(self, answer: impl Future<Output = Response<B>>) -> Response<Served<B>> {
        let response = answer.await;
        let status = response.status();
        // The bytes that follow are no heads any more.
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success()) {
            self.turn.pass_to(HANDED_ON);
        }
        response.map(|body| Served { body, turn: self.turn })
    }
}

/// A connection whose heads are watched.
#[derive(Debug)]
pub struct Heads<S> {
    inner: S,
    turn: Turn,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether bytes arrived since something was last sent, which acknowledges them as well.
    owed: bool,
}

impl<S> Heads<S> {
    /// The connection, for what comes after a CONNECT.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Acknowledge + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.owed = true;
            let _ = this.turn.0.compare_exchange(WAITING, READING, Ordering::AcqRel, Ordering::Acquire);
        }
        if polled.is_ready() {
            return polled;
        }
        let state = this.turn.0.load(Ordering::Acquire);
        if this.owed && state != SERVING {
            this.owed = false;
            this.inner.acknowledge();
        }
        if state != READING {
            this.alarm = None;
            return polled;
        }
        let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(HEAD_WAIT)));
        match alarm.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request head took too long")))
            }
            Poll::Pending => polled,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.owed = false;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.owed = false;
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

/// A response body, after which the next head may begin.
#[derive(Debug)]
pub struct Served<B> {
    body: B,
    turn: Turn,
}

impl<B> Drop for Served<B> {
    fn drop(&mut self) {
        self.turn.pass_to(WAITING);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Served<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::AtomicU32;

    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioIo, TokioTimer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    use super::*;
    use crate::proxy::limits::KEEP_ALIVE;
    use crate::spawn::Spawner;

    /// One end of a connection that counts how often its peer was told that bytes arrived.
    struct Far(DuplexStream, Arc<AtomicU32>);

    impl Acknowledge for Far {
        fn acknowledge(&self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl AsyncRead for Far {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Far {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// A connection that is served as an agent's is; each answer is the request's body.
    fn served() -> DuplexStream {
        counted().0
    }

    fn counted() -> (DuplexStream, Arc<AtomicU32>) {
        let (near, far) = tokio::io::duplex(4096);
        let count = Arc::<AtomicU32>::default();
        let (stream, turn) = watch(Far(far, Arc::clone(&count)));
        let service = service_fn(move |request: Request<Incoming>| {
            let taken = turn.take(&request);
            async move {
                let answer =
                    async { Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes())) };
                Ok::<_, Infallible>(taken.serve(answer).await)
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
        Spawner::default().spawn(async move {
            let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
        (near, count)
    }

    /// How long until the peer closes.
    async fn closes(stream: &mut DuplexStream) -> Duration {
        let begun = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        begun.elapsed()
    }

    /// Sends a whole request and reads its answer.
    async fn ask(stream: &mut DuplexStream) {
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            stream.read_buf(&mut answer).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_dribbles_is_cut_off_after_ten_seconds() {
        // DO-01: one byte every two seconds, first on a fresh connection, then on one that has served.
        for before in 0..3 {
            let mut stream = served();
            for _ in 0..before {
                ask(&mut stream).await;
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let begun = Instant::now();
            for byte in b"GET / HTTP/1.1\r\nhost: a\r\n" {
                if stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let took = begun.elapsed();
            assert!(took >= HEAD_WAIT && took <= HEAD_WAIT + Duration::from_secs(4), "{before}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_stops_is_cut_off_too() {
        // DO-01
        let mut stream = served();
        stream.write_all(b"GET / HTTP/1.1\r\nhos").await.unwrap();
        assert_eq!(closes(&mut stream).await.as_secs(), HEAD_WAIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_may_wait_two_minutes() {
        let mut stream = served();
        ask(&mut stream).await;
        tokio::time::sleep(KEEP_ALIVE - Duration::from_secs(1)).await;
        ask(&mut stream).await;
        assert_eq!(closes(&mut stream).await.as_secs(), KEEP_ALIVE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_its_time() {
        let mut stream = served();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n").await.unwrap();
        for byte in b"slowok" {
            tokio::time::sleep(Duration::from_secs(30)).await;
            stream.write_all(&[*byte]).await.unwrap();
        }
        let mut answer = Vec::new();
        while !answer.ends_with(b"slowok") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
    }

    #[tokio::test]
    async fn only_an_agent_that_has_more_to_say_is_told_that_its_bytes_arrived() {
        let (mut stream, told) = counted();
        let mut answer = [0; 1024];
        let begun = told.load(Ordering::Relaxed);
        for _ in 0..5 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(stream.read(&mut answer).await.unwrap() > 0);
        }
        // Once for the connection's beginning.
        assert!(told.load(Ordering::Relaxed) <= begun + 1);
        let before = told.load(Ordering::Relaxed);
        for part in ["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n", "\r\n", "o", "k"] {
            let told_of = told.load(Ordering::Relaxed);
            stream.write_all(part.as_bytes()).await.unwrap();
            while part != "k" && told.load(Ordering::Relaxed) == told_of {
                tokio::task::yield_now().await;
            }
        }
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        assert!(told.load(Ordering::Relaxed) >= before + 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_http2_outlives_the_others_of_its_connection() {
        let (near, far) = tokio::io::duplex(4096);
        let (stream, turn) = pass(Far(far, Arc::default()));
        let service = service_fn(move |request: Request<Incoming>| {
            let taken = turn.take(&request);
            async move {
                let slow = async {
                    if request.uri().path() == "/slow" {
                        tokio::time::sleep(Duration::from_secs(300)).await;
                    }
                    Response::new(Full::new(Bytes::from_static(b"ok")))
                };
                Ok::<_, Infallible>(taken.serve(slow).await)
            }
        });
        let spawner = Spawner::default();
        let mut builder = hyper::server::conn::http2::Builder::new(spawner.clone());
        builder.timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
        spawner.spawn(async move {
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
        let client = hyper::client::conn::http2::Builder::new(spawner.clone());
        let (sender, connection) = client.handshake::<_, Full<Bytes>>(TokioIo::new(near)).await.unwrap();
        spawner.spawn(async move {
            let _ = connection.await;
        });
        let ask = |path: &str| {
            let request = Request::get(format!("https://a{path}")).body(Full::default()).unwrap();
            sender.clone().send_request(request)
        };
        let (slow, quick) = tokio::join!(ask("/slow"), ask("/quick"));
        assert_eq!(quick.unwrap().status(), StatusCode::OK);
        assert_eq!(slow.unwrap().status(), StatusCode::OK);
    }
}
