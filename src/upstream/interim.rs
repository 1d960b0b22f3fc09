//! A limit on interim (1xx) responses, which hyper reads without end.
//!
//! Invariant: a connection on which an upstream sent more of them than [`MOST`] for one request is read no further.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// PX-42: real servers send one 100 and perhaps one 103.
pub const MOST: u32 = 16;

/// The count of one connection. HTTP/1.1 has one request at a time; HTTP/2 counts by stream, and only the verdict
/// is here.
#[derive(Debug, Default)]
pub struct Interim(AtomicU32);

impl Interim {
    /// A new request begins.
    pub fn begin(&self) {
        // A connection that was over the limit stays so.
        if !self.is_over() {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    /// One more arrived.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there were too many.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) > MOST
    }

    fn end(&self) {
        self.0.store(MOST.saturating_add(1), Ordering::Relaxed);
    }
}

/// A connection that ends when there were too many.
pub struct Counted<S> {
    inner: S,
    interim: Arc<Interim>,
    frames: Option<Heads>,
}

impl<S> Counted<S> {
    /// For HTTP/1.1, where hyper tells each one.
    pub fn http1(inner: S, interim: &Arc<Interim>) -> Self {
        Self { inner, interim: Arc::clone(interim), frames: None }
    }

    /// For HTTP/2, where they are counted by what the frames' heads say.
    pub fn http2(inner: S, interim: &Arc<Interim>) -> Self {
        Self { inner, interim: Arc::clone(interim), frames: Some(Heads::default()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.interim.is_over() {
            std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        }
        if let (Some(frames), Some(new)) = (&mut this.frames, buf.filled().get(before..))
            && frames.take(new) > MOST
        {
            this.interim.end();
        }
        if this.interim.is_over() {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too many interim responses")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
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

/// Reads the nine bytes that each HTTP/2 frame begins with (RFC 9113 section 4.1), and counts by stream the HEADERS
/// frames that do not end it: one is the response's own, every other is an interim one's.
#[derive(Debug, Default)]
struct Heads {
    head: [u8; 9],
    have: usize,
    skip: usize,
    open: HashMap<u32, u32>,
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
/// Streams that we reset are forgotten when there are this many; more are never open at once.
const MOST_STREAMS: usize = 4096;

impl Heads {
    /// Takes the next bytes; gives the most interim responses of a stream that began in them.
    fn take(&mut self, mut bytes: &[u8]) -> u32 {
        let mut most = 0;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip = self.skip.saturating_sub(skipped);
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some((first, rest)) = bytes.split_first() else { break };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have = self.have.saturating_add(1);
            bytes = rest;
            if self.have == self.head.len() {
                self.have = 0;
                most = most.max(self.frame());
            }
        }
        most
    }

    fn frame(&mut self) -> u32 {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        self.skip = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        match kind {
            HEADERS if flags & END_STREAM == 0 => {
                if self.open.len() >= MOST_STREAMS {
                    self.open.clear();
                }
                let count = self.open.entry(stream).or_default();
                *count = count.saturating_add(1);
                count.saturating_sub(1)
            }
            HEADERS | RST_STREAM => {
                self.open.remove(&stream);
                0
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut out = vec![size[1], size[2], size[3], kind, flags];
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend(vec![1u8; length]);
        out
    }

    #[test]
    fn counts_heads_by_stream_however_they_are_cut() {
        // PX-42
        let mut bytes = frame(4, 0, 0, 18);
        for _ in 0..=MOST {
            bytes.extend(frame(HEADERS, 4, 1, 5));
            bytes.extend(frame(HEADERS, 4, 3, 0));
            bytes.extend(frame(0, 0, 3, 70_000));
        }
        for size in [1, 7, 9, 100_000] {
            let mut heads = Heads::default();
            let most = bytes.chunks(size).map(|piece| heads.take(piece)).max();
            assert_eq!(most, Some(MOST), "in pieces of {size}");
            assert_eq!(heads.take(&frame(HEADERS, 4, 3, 1)), MOST + 1);
        }
    }

    #[test]
    fn streams_that_ended_are_forgotten() {
        let mut heads = Heads::default();
        for stream in (1..20_001).step_by(2) {
            heads.take(&frame(HEADERS, 4, stream, 3));
            heads.take(&frame(HEADERS, 5, stream, 3));
        }
        assert!(heads.open.is_empty());
        for stream in (20_001..60_001).step_by(2) {
            heads.take(&frame(HEADERS, 4, stream, 3));
        }
        assert!(heads.open.len() <= MOST_STREAMS);
    }
}
