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
use http::Version;
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
    /// The agent reset its stream before the body's end.
    #[error("the agent took its request back")]
    Reset,
    /// A newer attempt reads the body now.
    #[error("superseded by a newer attempt")]
    Superseded,
    /// It held something that must not go on.
    #[error("the request body holds what must not be sent")]
    Refused,
}

/// Looks at a body as it is read; true ends it there.
pub type Look = Box<dyn FnMut(&[u8]) -> bool + Send>;

struct Shared {
    source: Option<Incoming>,
    version: Version,
    /// Why the body broke off while it was read ahead; the next attempt says so.
    broken: Option<UploadError>,
    held: Vec<Held>,
    held_bytes: usize,
    limit: usize,
    replayable: bool,
    attempt: u32,
    /// How many of the held frames the newest attempt has sent.
    position: usize,
    received: u64,
    budget: Arc<Budget>,
    look: Option<Look>,
    refused: bool,
}

/// A frame that can be sent again.
#[derive(Clone)]
enum Held {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

impl Shared {
    /// Reads from the agent until its body has ended, has failed, or can no longer be held.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.replayable {
            let Some(source) = self.source.as_mut() else { return Poll::Ready(()) };
            if source.is_end_stream() {
                self.source = None;
                return Poll::Ready(());
            }
            match std::task::ready!(Pin::new(source).poll_frame(cx)) {
                None => self.broken = self.end(),
                Some(Err(error)) => {
                    self.source = None;
                    self.broken = Some(UploadError::Agent(error));
                }
                Some(Ok(frame)) => {
                    // Nobody has sent it yet, so it is kept whether or not the budget has room for it; without room
                    // no more is read ahead and there is one attempt.
                    let frame = self.take_in(frame);
                    if self.refused {
                        self.source = None;
                        return Poll::Ready(());
                    }
                    self.replayable = self.account(&frame);
                    self.held.push(frame);
                }
            }
        }
        Poll::Ready(())
    }

    /// There are no more frames. To hyper a stream that was reset with CANCEL has ended, too; half a request must not
    /// look like a whole one (PX-46).
    fn end(&mut self) -> Option<UploadError> {
        let source = self.source.take()?;
        was_reset(&source, self.version).then_some(UploadError::Reset)
    }

    /// Takes the frame's room out of the limit and the budget, if both have it.
    fn account(&mut self, frame: &Held) -> bool {
        let size = frame.len();
        let fits = self.held_bytes.saturating_add(size) <= self.limit && self.budget.take(size);
        if fits {
            self.held_bytes = self.held_bytes.saturating_add(size);
        }
        fits
    }

    fn take_in(&mut self, frame: Frame<Bytes>) -> Held {
        let mut look = |data: &[u8]| self.look.as_mut().is_some_and(|look| look(data));
        match frame.into_data() {
            Ok(data) => {
                self.refused = look(&data);
                self.received = self.received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
                Held::Data(data)
            }
            Err(frame) => {
                let fields = clean(frame.into_trailers().unwrap_or_default());
                self.refused = fields.values().any(|value| look(value.as_bytes()));
                Held::Trailers(fields)
            }
        }
    }

    fn hold(&mut self, frame: &Held) {
        if !self.replayable {
            return;
        }
        if self.account(frame) {
            self.held.push(frame.clone());
        } else {
            // Everything held was sent by the attempt that is reading now.
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
    pub fn new(source: Incoming, version: Version, limit: usize, budget: &Arc<Budget>) -> Self {
        if source.is_end_stream() {
            return Self { shared: None, hint: SizeHint::with_exact(0) };
        }
        let hint = source.size_hint();
        let shared = Shared {
            source: Some(source),
            version,
            broken: None,
            held: Vec::new(),
            held_bytes: 0,
            limit,
            replayable: limit > 0,
            attempt: 0,
            position: 0,
            received: 0,
            budget: Arc::clone(budget),
            look: None,
            refused: false,
        };
        Self { shared: Some(Arc::new(Mutex::new(shared))), hint }
    }

    /// A request without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, hint: SizeHint::with_exact(0) }
    }

    /// Has everything that is read from now on looked at before it is sent.
    pub fn watch(&self, look: Look) {
        if let Some(shared) = &self.shared {
            shared.lock().look = Some(look);
        }
    }

    /// Whether the body was ended for what it held.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.lock().refused)
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
            return RequestBody { shared: None, own: None, attempt: 0, next: 0, hint: self.hint, ended: true };
        };
        let mut inner = shared.lock();
        inner.attempt = inner.attempt.saturating_add(1);
        inner.position = 0;
        RequestBody {
            shared: Some(Arc::clone(shared)),
            own: None,
            attempt: inner.attempt,
            next: 0,
            hint: self.hint,
            ended: false,
        }
    }

    /// An answer goes to the agent: there will be no further attempt, and what was held is let go.
    pub fn commit(&self) {
        if let Some(shared) = &self.shared {
            let mut shared = shared.lock();
            shared.replayable = false;
            // An upstream may answer before it has the whole body: what it was not sent yet stays.
            let sent = shared.position;
            shared.held.iter_mut().take(sent).for_each(|frame| *frame = Held::Data(Bytes::new()));
        }
    }

    /// The whole body, read ahead and held, where its length is known to be at most `limit` and it can be held; else
    /// nothing is read.
    pub async fn gather(&self, limit: u64) -> Option<Bytes> {
        let shared = self.shared.as_ref()?;
        if self.hint.exact().is_none_or(|length| length > limit) {
            return None;
        }
        std::future::poll_fn(|cx| shared.lock().fill(cx)).await;
        let shared = shared.lock();
        if !shared.replayable {
            return None;
        }
        let mut data = shared.held.iter().filter_map(|frame| match frame {
            Held::Data(data) => Some(data),
            Held::Trailers(_) => None,
        });
        let first = data.next()?.clone();
        let mut rest = data.peekable();
        if rest.peek().is_none() {
            return Some(first);
        }
        let mut joined = bytes::BytesMut::from(&first[..]);
        rest.for_each(|data| joined.extend_from_slice(data));
        Some(joined.freeze())
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
    /// A body that is all there, in place of the agent's.
    own: Option<Bytes>,
    attempt: u32,
    next: usize,
    hint: SizeHint,
    ended: bool,
}

impl RequestBody {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self { shared: None, own: None, attempt: 0, next: 0, hint: SizeHint::with_exact(0), ended: true }
    }

    /// This, and nothing of the agent's.
    #[must_use]
    pub fn whole(body: Bytes) -> Self {
        let hint = SizeHint::with_exact(u64::try_from(body.len()).unwrap_or(u64::MAX));
        Self { shared: None, ended: body.is_empty(), own: Some(body), attempt: 0, next: 0, hint }
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
        let Some(shared) = &this.shared else {
            this.ended = true;
            return Poll::Ready(this.own.take().filter(|body| !body.is_empty()).map(|body| Ok(Frame::data(body))));
        };
        let mut shared = shared.lock();
        if shared.attempt != this.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if shared.refused {
            return Poll::Ready(Some(Err(UploadError::Refused)));
        }
        let replayable = shared.replayable;
        if let Some(frame) = shared.held.get_mut(this.next) {
            let frame = if replayable { frame.clone() } else { std::mem::replace(frame, Held::Data(Bytes::new())) };
            this.next = this.next.saturating_add(1);
            shared.position = this.next;
            this.ended = shared.source.is_none() && shared.broken.is_none() && this.next >= shared.held.len();
            return Poll::Ready(Some(Ok(whole(frame))));
        }
        if let Some(error) = shared.broken.take() {
            shared.replayable = false;
            return Poll::Ready(Some(Err(error)));
        }
        let Some(source) = shared.source.as_mut() else {
            this.ended = true;
            return Poll::Ready(None);
        };
        match std::task::ready!(Pin::new(source).poll_frame(cx)) {
            None => {
                if let Some(error) = shared.end() {
                    shared.replayable = false;
                    return Poll::Ready(Some(Err(error)));
                }
                this.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                shared.source = None;
                shared.replayable = false;
                Poll::Ready(Some(Err(UploadError::Agent(error))))
            }
            Some(Ok(frame)) => {
                let frame = shared.take_in(frame);
                if shared.refused {
                    // The frame that completes it is not sent, so it never leaves as a whole.
                    shared.source = None;
                    shared.replayable = false;
                    return Poll::Ready(Some(Err(UploadError::Refused)));
                }
                shared.hold(&frame);
                if shared.replayable {
                    this.next = shared.held.len();
                    shared.position = this.next;
                }
                // A known length is fully read with its last byte; hyper need not ask again.
                if shared.source.as_ref().is_some_and(Body::is_end_stream) {
                    shared.source = None;
                    this.ended = true;
                }
                Poll::Ready(Some(Ok(whole(frame))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Whether a body that has no more frames was reset and did not end. HTTP/1.1 has errors of its own for that.
#[must_use]
pub fn was_reset(body: &Incoming, version: Version) -> bool {
    version == Version::HTTP_2 && !body.is_end_stream()
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
