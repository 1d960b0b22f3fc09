//! The bytes of an open WebSocket, both ways, until one side ends it or it has to end.
//!
//! Invariant: toward the agent go whole frames that were searched, or, where nothing is to be searched, the bytes as
//! they are. Every second it is asked whether the agent is still one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::frames::{FrameError, Frames, close};
use crate::agent::Agent;
use crate::code::Code;
use crate::proxy::account::Account;
use crate::proxy::state::Shared;
use crate::scrub::Patterns;

/// One read; two buffers of it make up most of a connection's memory.
const READ: usize = 16 * 1024;
/// When one side has ended, the other has so long to do the same.
const FAREWELL: Duration = Duration::from_secs(5);
/// A revocation is obeyed within this time.
const WATCH: Duration = Duration::from_secs(1);

/// An open WebSocket.
pub struct Open {
    pub shared: Arc<Shared>,
    pub agent: Agent,
    /// What frames toward the agent are searched for; `None` passes the bytes as they are.
    pub patterns: Option<Arc<Patterns>>,
    pub account: Account,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// One side, cleanly.
    Closed,
    /// One side, without a word.
    Broken,
    /// The upstream sent what cannot be passed on.
    Refused(FrameError),
    /// Nothing moved for too long.
    Idle,
    /// The agent's token is no longer valid.
    Revoked,
    /// The process stops.
    Stopping,
}

impl Open {
    /// Relays until the end; the account is emitted with it.
    pub async fn run<A, U>(mut self, agent: A, upstream: U)
    where
        A: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut agent_read, agent_write) = tokio::io::split(agent);
        let (upstream_read, mut upstream_write) = tokio::io::split(upstream);
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut frames = self.patterns.take().map(Frames::new);
        let mut toward = Toward { write: agent_write, whole: true };
        let end = {
            let up = copy(&mut agent_read, &mut upstream_write, &sent);
            let down = down(upstream_read, &mut toward, frames.as_mut(), &received);
            tokio::select! {
                end = both(up, down) => end,
                end = watch(&self.shared, &self.agent, &sent, &received) => end,
            }
        };
        if frames.as_ref().is_some_and(|frames| !frames.is_closed()) {
            let _ = timeout(FAREWELL, toward.farewell(end)).await;
        } else if end != End::Broken {
            let _ = timeout(FAREWELL, toward.write.shutdown()).await;
        }
        let record = self.account.record();
        record.bytes_in = sent.into_inner();
        record.bytes_out = received.into_inner();
        record.redactions = record.redactions.saturating_add(frames.map_or(0, |frames| frames.redactions()));
        record.error = match end {
            End::Closed | End::Stopping => None,
            End::Broken => Some(Code::UpstreamUnreachable),
            End::Refused(error) => {
                record.detail = Some(error.to_string());
                Some(Code::UpstreamProtocolError)
            }
            End::Idle => Some(Code::UpstreamTimeout),
            End::Revoked => Some(Code::AgentUnauthenticated),
        };
    }
}

/// The agent's side, and whether the last write to it was finished.
struct Toward<W> {
    write: W,
    whole: bool,
}

impl<W: AsyncWrite + Unpin> Toward<W> {
    async fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole = false;
        self.write.write_all(bytes).await?;
        self.write.flush().await?;
        self.whole = true;
        Ok(())
    }

    /// Says why (RFC 6455 section 7.4.1), unless that would land in the middle of a frame.
    async fn farewell(&mut self, end: End) -> io::Result<()> {
        let words = match end {
            End::Closed | End::Broken => None,
            End::Refused(_) => Some((1002, "the upstream sent frames that cannot be passed on")),
            End::Idle => Some((1001, "nothing moved for too long")),
            End::Revoked => Some((1008, "the agent's access was revoked")),
            End::Stopping => Some((1001, "Keyferry is stopping")),
        };
        if let Some((code, reason)) = words.filter(|_| self.whole) {
            self.put(&close(code, reason)).await?;
        }
        // An upstream that broke off is not made to look as if it had ended.
        if end == End::Broken { Ok(()) } else { self.write.shutdown().await }
    }
}

/// How one direction ended.
enum Side {
    Ended,
    Broken,
    Refused(FrameError),
}

async fn both(up: impl Future<Output = Side>, down: impl Future<Output = Side>) -> End {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let (first, other) = tokio::select! {
        side = up.as_mut() => (side, timeout(FAREWELL, down).await),
        side = down.as_mut() => match side {
            Side::Ended => (side, timeout(FAREWELL, up).await),
            Side::Broken => return End::Broken,
            Side::Refused(error) => return End::Refused(error),
        },
    };
    match (first, other) {
        (_, Ok(Side::Refused(error))) => End::Refused(error),
        (Side::Broken, _) => End::Broken,
        _ => End::Closed,
    }
}

async fn copy<R, W>(from: &mut R, to: &mut W, moved: &AtomicU64) -> Side
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(READ);
    loop {
        buffer.clear();
        match from.read_buf(&mut buffer).await {
            Err(_) => return Side::Broken,
            Ok(0) => {
                let _ = to.shutdown().await;
                return Side::Ended;
            }
            Ok(_) => {
                if to.write_all(&buffer).await.is_err() || to.flush().await.is_err() {
                    return Side::Broken;
                }
                add(moved, buffer.len());
            }
        }
    }
}

async fn down<R, W>(mut from: R, toward: &mut Toward<W>, frames: Option<&mut Frames>, moved: &AtomicU64) -> Side
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Some(frames) = frames else { return copy(&mut from, &mut toward.write, moved).await };
    let (mut input, mut output) = (BytesMut::with_capacity(READ), BytesMut::new());
    loop {
        input.reserve(READ);
        let read = from.read_buf(&mut input).await;
        let passed = frames.pass(&mut input, &mut output);
        if !output.is_empty() {
            if toward.put(&output).await.is_err() {
                return Side::Broken;
            }
            add(moved, output.len());
            output.clear();
        }
        match (read, passed) {
            (_, Err(error)) => return Side::Refused(error),
            (Err(_), _) => return Side::Broken,
            // Bytes that end in the middle of a message are no end to pass on as one.
            (Ok(0), _) if !input.is_empty() || !frames.is_between() => return Side::Broken,
            (Ok(0), _) => {
                let _ = toward.write.shutdown().await;
                return Side::Ended;
            }
            (Ok(_), Ok(())) => {}
        }
    }
}

async fn watch(shared: &Shared, agent: &Agent, sent: &AtomicU64, received: &AtomicU64) -> End {
    let read = || (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    let (mut last, mut since) = (read(), Instant::now());
    loop {
        tokio::select! {
            () = shared.spawner.stopping() => return End::Stopping,
            () = tokio::time::sleep(WATCH) => {}
        }
        if !shared.view.load().agents.still_valid(agent, shared.clock.now()) {
            return End::Revoked;
        }
        let now = read();
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() >= shared.limits.idle {
            return End::Idle;
        }
    }
}

fn add(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
}
