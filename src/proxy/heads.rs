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
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::proxy::gate::Gate;
use crate::proxy::malformed::{self, Refuse};

/// How long and how much is read behind a refused head.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;

/// SECURITY DO-01; a client on this machine sends its head in one write.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);

const WAITING: u8 = 0;
const READING: u8 = 1;
/// A request that was whole with its head.
const SERVING: u8 = 2;
/// A request whose body may be still on its way.
const RECEIVING: u8 = 3;
const HANDED_ON: u8 = 4;
/// The answer is made, and its end is not written yet: what goes out is still part of it.
const ANSWERED: u8 = 5;
/// The same, and of the request's body something may still come.
const DRAINING: u8 = 6;

/// A connection whose peer can be told at once that its bytes arrived.
pub trait Acknowledge {
    /// Tells it. Without it the next bytes still come, only later.
    fn acknowledge(&self);
}

/// Watches the HTTP/1.1 heads that arrive on `stream`; `refuse` answers one that does not read.
pub fn watch<S>(stream: S, refuse: Refuse) -> (Heads<S>, Turn) {
    begin(stream, WAITING, Some(refuse))
}

/// For HTTP/2, where the heads of many requests stand among other frames: a peer that stalls in one cannot answer our
/// pings, since no other frame may stand inside a header block (RFC 9113 section 4.3).
pub fn pass<S>(stream: S) -> (Heads<S>, Turn) {
    begin(stream, HANDED_ON, None)
}

fn begin<S>(stream: S, state: u8, refuse: Option<Refuse>) -> (Heads<S>, Turn) {
    let turn = Turn(Arc::new(AtomicU8::new(state)));
    let mut gate = Gate::default();
    if refuse.is_none() {
        gate.lose();
    }
    (
        Heads {
            inner: stream,
            turn: turn.clone(),
            alarm: None,
            owed: true,
            refuse,
            refusal: Bytes::new(),
            gate,
            linger: None,
        },
        turn,
    )
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

    /// The answer is in hyper's buffer. hyper flushes the connection only when that is empty, and then the answer is out.
    fn answered(&self) {
        let step = |now| match now {
            HANDED_ON => None,
            RECEIVING => Some(DRAINING),
            _ => Some(ANSWERED),
        };
        let _ = self.0.try_update(Ordering::AcqRel, Ordering::Acquire, step);
    }

    /// Everything is written. Whether the request had a body.
    fn written(&self) -> bool {
        let step = |now| matches!(now, ANSWERED | DRAINING).then_some(WAITING);
        self.0.try_update(Ordering::AcqRel, Ordering::Acquire, step) == Ok(DRAINING)
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
        let mut response = answer.await;
        malformed::mark(&mut response);
        let status = response.status();
        // The bytes that follow are no heads any more.
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success()) {
            self.turn.pass_to(HANDED_ON);
        }
        response.map(|body| Served { body, turn: self.turn })
    }
}

/// A connection whose heads are watched.
pub struct Heads<S> {
    inner: S,
    turn: Turn,
    alarm: Option<Pin<Box<Sleep>>>,
    /// Whether bytes arrived since something was last sent, which acknowledges them as well.
    owed: bool,
    /// What takes the place of hyper's answer to a head that does not read.
    refuse: Option<Refuse>,
    /// What of that is still to be written.
    refusal: Bytes,
    gate: Gate,
    /// After a refusal: what still arrives is read for a while, for a peer that is told nothing while it sends.
    linger: Option<Linger>,
}

struct Linger {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> std::fmt::Debug for Heads<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heads")
    }
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
            this.look(buf, before);
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.owed = false;
        let this = &mut *self;
        let idle = matches!(this.turn.0.load(Ordering::Acquire), WAITING | READING);
        let found = if idle && this.refuse.is_some() { malformed::bare(buf) } else { None };
        match found {
            None => Pin::new(&mut this.inner).poll_write(cx, buf),
            Some((0, status)) => {
                if let Some(refuse) = this.refuse.take() {
                    this.refusal = refuse(status);
                    this.linger = Some(Linger { until: Box::pin(tokio::time::sleep(LINGER)), bytes: 0 });
                }
                Poll::Ready(Ok(buf.len()))
            }
            // The end of the answer before it goes first.
            Some((before, _)) => Pin::new(&mut this.inner).poll_write(cx, buf.get(..before).unwrap_or(buf)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer never stands beside a body.
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        self.owed = false;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        if self.turn.written() {
            self.gate.lose();
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> Heads<S> {
    /// A closed connection with unread bytes is reset, and a reset takes our answer with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        let mut scratch = [0; 4096];
        while linger.bytes < LINGER_BYTES && linger.until.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => linger.bytes = linger.bytes.saturating_add(buf.filled().len()),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// Spoils the end of a head that hyper would take and that must be refused.
    fn look(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let between = match self.turn.0.load(Ordering::Acquire) {
            WAITING | READING | ANSWERED => true,
            SERVING => false,
            _ => return self.gate.lose(),
        };
        let refused = self.gate.refuses(buf.filled().get(before..).unwrap_or_default(), between);
        if let (true, Some(arrived)) = (refused, buf.filled_mut().get_mut(before..)) {
            arrived.fill(0);
        }
    }
}

impl<S: AsyncWrite + Unpin> Heads<S> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.refusal.has_remaining() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.refusal))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.refusal.advance(written);
        }
        Poll::Ready(Ok(()))
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
        self.turn.answered();
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
mod tests;
