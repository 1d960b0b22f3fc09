//! The request body on its way to an upstream, kept for another attempt while that is cheap enough.
//!
//! Invariant: a byte is read from the agent once. Only the newest attempt reads; what was held for a replay is
//! dropped as soon as the limit is passed, and then there is no further attempt.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;

/// Memory that all held bodies share, in bytes.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// `total` bytes for all exchanges together.
    #[must_use]
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(total) })
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The agent's side broke.
    #[error("the agent's request body broke off")]
    Agent(#[source] hyper::Error),
    /// A newer attempt reads the body now.
    #[error("superseded by a newer attempt")]
    Superseded,
}

struct Shared {
    source: Option<Incoming>,
    held: Vec<Held>,
    held_bytes: usize,
    limit: usize,
    replayable: bool,
    attempt: u32,
    received: u64,
    budget: Arc<Budget>,
}

/// A frame that can be sent again.
#[derive(Clone)]
enum Held {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Shared {
    fn hold(&mut self, frame: &Held) {
        if !self.replayable {
            return;
        }
        let size = match frame {
            Held::Data(data) => data.len(),
            Held::Trailers(_) => 0,
        };
        let fits = self.held_bytes.saturating_add(size) <= self.limit && self.budget.take(size);
        if fits {
            self.held_bytes = self.held_bytes.saturating_add(size);
            self.held.push(frame.clone());
        } else {
            self.replayable = false;
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.held = Vec::new();
        self.budget.give_back(std::mem::take(&mut self.held_bytes));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The body of one exchange, from which attempts are made.
pub struct Upload {
    shared: Option<Arc<Mutex<Shared>>>,
    hint: SizeHint,
}

impl Upload {
    /// Wraps the agent's body; up to `limit` bytes of it are held for a replay.
    #[must_use]
    pub fn new(source: Incoming, limit: usize, budget: &Arc<Budget>) -> Self {
        if source.is_end_stream() {
            return Self { shared: None, hint: SizeHint::with_exact(0) };
        }
        let hint = source.size_hint();
        let shared = Shared {
            source: Some(source),
            held: Vec::new(),
            held_bytes: 0,
            limit,
            replayable: limit > 0,
            attempt: 0,
            received: 0,
            budget: Arc::clone(budget),
        };
        Self { shared: Some(Arc::new(Mutex::new(shared))), hint }
    }

    /// A request without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, hint: SizeHint::with_exact(0) }
    }

    /// Whether everything that was read so far can be sent again.
    #[must_use]
    pub fn replayable(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.lock().replayable)
    }

    /// Bytes read from the agent so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.lock().received)
    }

    /// The body for one more attempt; earlier ones read no further.
    #[must_use]
    pub fn attempt(&self) -> RequestBody {
        let Some(shared) = &self.shared else {
            return RequestBody { shared: None, attempt: 0, next: 0, hint: self.hint.clone(), ended: true };
        };
        let mut inner = shared.lock();
        inner.attempt = inner.attempt.saturating_add(1);
        RequestBody {
            shared: Some(Arc::clone(shared)),
            attempt: inner.attempt,
            next: 0,
            hint: self.hint.clone(),
            ended: false,
        }
    }

    /// An answer goes to the agent: there will be no further attempt, and what was held is let go.
    pub fn commit(&self) {
        if let Some(shared) = &self.shared {
            let mut shared = shared.lock();
            shared.replayable = false;
            shared.let_go();
        }
    }

    /// What was held, joined: for rules that look into a request's body. `None` when nothing is held.
    #[must_use]
    pub fn held_prefix(&self) -> Option<Bytes> {
        let shared = self.shared.as_ref()?.lock();
        match shared.held.first() {
            Some(Held::Data(data)) => Some(data.clone()),
            _ => None,
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upload")
    }
}

/// What one attempt sends.
pub struct RequestBody {
    shared: Option<Arc<Mutex<Shared>>>,
    attempt: u32,
    next: usize,
    hint: SizeHint,
    ended: bool,
}

impl RequestBody {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, attempt: 0, next: 0, hint: SizeHint::with_exact(0), ended: true }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody")
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let Some(shared) = &this.shared else { return Poll::Ready(None) };
        let mut shared = shared.lock();
        if shared.attempt != this.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if let Some(frame) = shared.held.get(this.next) {
            this.next = this.next.saturating_add(1);
            return Poll::Ready(Some(Ok(whole(frame.clone()))));
        }
        let Some(source) = shared.source.as_mut() else {
            this.ended = true;
            return Poll::Ready(None);
        };
        match std::task::ready!(Pin::new(source).poll_frame(cx)) {
            None => {
                shared.source = None;
                this.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                shared.source = None;
                shared.replayable = false;
                Poll::Ready(Some(Err(UploadError::Agent(error))))
            }
            Some(Ok(frame)) => {
                let frame = match frame.into_data() {
                    Ok(data) => {
                        shared.received = shared.received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                        Held::Data(data)
                    }
                    Err(frame) => Held::Trailers(clean(frame.into_trailers().unwrap_or_default())),
                };
                shared.hold(&frame);
                this.next = this.next.saturating_add(1);
                // A known length is fully read with its last byte; hyper need not ask again.
                if shared.source.as_ref().is_some_and(Body::is_end_stream) {
                    shared.source = None;
                    this.ended = shared.held.len() <= this.next;
                }
                Poll::Ready(Some(Ok(whole(frame))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint.clone()
    }
}

fn whole(frame: Held) -> Frame<Bytes> {
    match frame {
        Held::Data(data) => Frame::data(data),
        Held::Trailers(fields) => Frame::trailers(fields),
    }
}

/// RFC 9110 section 6.5.1: trailers must not frame, route or authenticate (PX-16).
fn clean(mut fields: http::HeaderMap) -> http::HeaderMap {
    for name in [
        "authorization",
        "host",
        "content-length",
        "transfer-encoding",
        "cookie",
        "connection",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "proxy-authorization",
        "te",
        "trailer",
        "content-encoding",
        "content-type",
    ] {
        fields.remove(name);
    }
    fields
}
