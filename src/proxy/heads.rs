//! A request head has to arrive in ten seconds, while a connection may wait two minutes for its first byte.
//!
//! hyper's one timer covers both, so the shorter one is here, around the connection's bytes.
//!
//! Invariant: the timer runs from the first byte of a head until the service is called with it, and at no other
//! time (DO-01).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// SECURITY DO-01; a client on this machine sends its head in one write.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);

const WAITING: u8 = 0;
const READING: u8 = 1;
const SERVING: u8 = 2;
const HANDED_ON: u8 = 3;

/// Watches the heads that arrive on `stream`.
pub fn watch<S>(stream: S) -> (Heads<S>, Turn) {
    let turn = Turn(Arc::new(AtomicU8::new(WAITING)));
    (Heads { inner: stream, turn: turn.clone(), alarm: None }, turn)
}

/// Whose turn it is on one connection.
#[derive(Debug, Clone, Default)]
pub struct Turn(Arc<AtomicU8>);

impl Turn {
    /// Serves one request: call it when its head has been read.
    pub fn serve<B, F>(&self, method: &Method, answer: F) -> impl Future<Output = Response<Served<B>>> + use<B, F>
    where
        F: Future<Output = Response<B>>,
    {
        self.0.store(SERVING, Ordering::Release);
        let (turn, connect) = (self.clone(), *method == Method::CONNECT);
        async move {
            let response = answer.await;
            let status = response.status();
            // The bytes that follow are no heads any more.
            if status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success()) {
                turn.0.store(HANDED_ON, Ordering::Release);
            }
            response.map(|body| Served { body, turn })
        }
    }

    fn ended(&self) {
        let _ = self.0.compare_exchange(SERVING, WAITING, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A connection whose heads are watched.
#[derive(Debug)]
pub struct Heads<S> {
    inner: S,
    turn: Turn,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> Heads<S> {
    /// The connection, for what comes after a CONNECT.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        let arrived = buf.filled().len() > before;
        let turn = &this.turn.0;
        if arrived && turn.compare_exchange(WAITING, READING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            this.alarm = Some(Box::pin(tokio::time::sleep(HEAD_WAIT)));
        } else if turn.load(Ordering::Acquire) != READING {
            this.alarm = None;
        }
        if let Some(alarm) = &mut this.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request head took too long")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
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

/// A response body, after which the next head may begin.
#[derive(Debug)]
pub struct Served<B> {
    body: B,
    turn: Turn,
}

impl<B> Drop for Served<B> {
    fn drop(&mut self) {
        self.turn.ended();
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

    use http::Request;
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

    /// A connection that is served as an agent's is; each answer is the request's body.
    fn served() -> DuplexStream {
        let (near, far) = tokio::io::duplex(4096);
        let (stream, turn) = watch(far);
        let service = service_fn(move |request: Request<Incoming>| {
            let method = request.method().clone();
            let answered = turn.serve(&method, async move {
                Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
            });
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
        Spawner::default().spawn(async move {
            let _ = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
        near
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
}
