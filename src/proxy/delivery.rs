//! The response body on its way to the agent, and everything that is owed when it ends.
//!
//! Invariant: the body owns the account and the upstream connection; its end or its drop settles both. An upstream
//! that breaks off is passed on as an error, never as a clean end.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::code::Code;
use crate::proxy::account::Account;
use crate::proxy::watch::Watch;
use crate::scrub::{DecodeError, Decoder, Framing, Patterns, Scrubber, scrub_fields};
use crate::upstream::Kept;
use crate::upstream::body::{Upload, was_reset};

/// Why a response body ended early.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The upstream's body broke off.
    #[error("the upstream's response broke off")]
    Upstream(#[source] hyper::Error),
    /// The same, and nobody said how.
    #[error("the upstream's response was reset")]
    Reset,
    /// The upstream fell silent.
    #[error("the upstream was silent for too long")]
    Idle,
    /// The content coding cannot be taken off.
    #[error(transparent)]
    Coding(#[from] DecodeError),
}

impl DeliveryError {
    /// What it is in the record, and in an answer where none was given yet.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Upstream(_) | Self::Reset => Code::UpstreamUnreachable,
            Self::Idle => Code::UpstreamTimeout,
            Self::Coding(_) => Code::ResponseUnscannable,
        }
    }
}

/// What goes to the agent.
pub struct Delivery(Kind);

enum Kind {
    Own(Option<Bytes>),
    Stream(Box<Stream>),
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Own(_) => "Own",
            Kind::Stream(_) => "Stream",
        })
    }
}

/// What a streamed response is made of.
pub struct Parts {
    /// Read already, and scrubbed later than here: error bodies that were looked at.
    pub prefix: Option<Bytes>,
    /// The upstream's body.
    pub source: Incoming,
    /// What takes its content codings off, where it has any.
    pub decoder: Option<Decoder>,
    /// What it is searched for; `None` passes it through untouched.
    pub patterns: Option<Arc<Patterns>>,
    /// What looks at it on its way.
    pub watch: Option<Watch>,
    /// The exchange's account.
    pub account: Account,
    /// The upstream's connection.
    pub kept: Kept,
    /// The request's body, whose bytes are counted until the exchange ends.
    pub upload: Upload,
    /// Silence that ends it.
    pub idle: Duration,
    /// How it came.
    pub flow: Flow,
}

/// How a response's body came.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// What the upstream spoke.
    pub version: Version,
    /// Whether it broke off while the prefix was read.
    pub broken: bool,
    /// The messages in it.
    pub framing: Framing,
}

struct Stream {
    /// Made ready before the head went to the agent.
    primed: VecDeque<Frame<Bytes>>,
    prefix: Option<Bytes>,
    source: Incoming,
    decoder: Option<Decoder>,
    scrub: Option<(Arc<Patterns>, Scrubber)>,
    watch: Option<Watch>,
    trailers: Option<http::HeaderMap>,
    /// Why it ends early, said when what came before is on its way.
    failure: Option<DeliveryError>,
    stage: Stage,
    account: Account,
    kept: Kept,
    upload: Upload,
    idle: Duration,
    flow: Flow,
    progress: Instant,
    /// Whether the upstream is being waited for, and not the agent.
    waiting: bool,
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Body,
    Trailers,
    Done,
}

impl Delivery {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Kind::Own(None))
    }

    /// A body that is all there.
    #[must_use]
    pub fn own(body: Bytes) -> Self {
        Self(Kind::Own(Some(body).filter(|body| !body.is_empty())))
    }

    /// The upstream's body, streamed.
    #[must_use]
    pub fn stream(parts: Parts) -> Self {
        let Parts { prefix, source, decoder, patterns, watch, account, kept, upload, idle, flow } = parts;
        let mut stream = Stream {
            primed: VecDeque::new(),
            prefix: prefix.filter(|prefix| !prefix.is_empty()),
            source,
            decoder,
            scrub: patterns.map(|patterns| (Arc::clone(&patterns), Scrubber::framed(patterns, flow.framing))),
            watch,
            trailers: None,
            failure: None,
            stage: Stage::Body,
            account,
            kept,
            upload,
            idle,
            flow,
            progress: Instant::now(),
            waiting: false,
            alarm: None,
        };
        if stream.prefix.is_none() && !flow.broken && stream.source.is_end_stream() {
            stream.settle();
            return Self::empty();
        }
        Self(Kind::Stream(Box::new(stream)))
    }

    /// Makes `enough` bytes ready before anything is sent, so that what cannot be delivered is known until then. Gives
    /// the length too where that was all of it.
    ///
    /// # Errors
    /// When it broke off, with the account for an answer in its place.
    pub async fn prime(self, enough: usize) -> Result<(Self, Option<usize>), (DeliveryError, Account)> {
        let Kind::Stream(mut stream) = self.0 else { return Ok((self, None)) };
        let mut size = 0usize;
        while size < enough {
            match poll_fn(|cx| stream.advance(cx)).await {
                Some(Ok(frame)) => {
                    size = size.saturating_add(frame.data_ref().map_or(0, Bytes::len));
                    stream.primed.push_back(frame);
                }
                None if stream.primed.iter().all(Frame::is_data) => {
                    let mut whole = BytesMut::with_capacity(size);
                    let pieces = stream.primed.iter().filter_map(Frame::data_ref);
                    pieces.for_each(|piece| whole.extend_from_slice(piece));
                    return Ok((Self::own(whole.freeze()), Some(size)));
                }
                None => break,
                Some(Err(error)) => {
                    stream.note();
                    stream.account.record().bytes_out = 0;
                    return Err((error, stream.account.take()));
                }
            }
        }
        Ok((Self(Kind::Stream(stream)), None))
    }
}

impl Body for Delivery {
    type Data = Bytes;
    type Error = DeliveryError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
        match &mut self.0 {
            Kind::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Kind::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own(body) => body.is_none(),
            Kind::Stream(stream) => stream.stage == Stage::Done && stream.primed.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| u64::try_from(body.len()).unwrap_or(0)))
            }
            Kind::Stream(stream) if stream.is_untouched() => stream.source.size_hint(),
            Kind::Stream(_) => SizeHint::new(),
        }
    }
}

type Next = Poll<Option<Result<Frame<Bytes>, DeliveryError>>>;

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Next {
        match self.primed.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.advance(cx),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Next {
        if let Some(failure) = self.failure.take() {
            self.stage = Stage::Done;
            return Poll::Ready(Some(Err(failure)));
        }
        loop {
            if self.stage == Stage::Done {
                return Poll::Ready(None);
            }
            if self.stage == Stage::Trailers {
                let trailers = self.trailers.take();
                self.settle();
                return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
            }
            let next = std::task::ready!(self.readable(cx));
            match next {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(watch) = &mut self.watch {
                            watch.see(&data);
                        }
                        let ready = match &mut self.scrub {
                            None => data,
                            Some((_, scrubber)) => scrubber.push(data),
                        };
                        if !ready.is_empty() {
                            // The agent's side must learn of the end with the last byte where the length is known.
                            self.count(&ready);
                            if self.scrub.is_none() && !self.flow.broken && self.source.is_end_stream() {
                                self.settle();
                            }
                            return Poll::Ready(Some(Ok(Frame::data(ready))));
                        }
                    }
                    Err(frame) => {
                        let mut fields = frame.into_trailers().unwrap_or_default();
                        let _ = crate::message::field::strip_hop_by_hop(&mut fields);
                        fields.remove(http::header::CONTENT_LENGTH);
                        if let Some((patterns, _)) = &self.scrub {
                            let hits = scrub_fields(patterns, &mut fields);
                            let record = self.account.record();
                            record.redactions = record.redactions.saturating_add(hits);
                        }
                        self.trailers = Some(fields);
                    }
                },
                Some(Err(error)) => {
                    self.account.record().error = Some(error.code());
                    self.failure = Some(error);
                    // hyper writes out what it has when there is nothing more to be had, and drops it on an error.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {
                    self.stage = Stage::Trailers;
                    let rest = self.scrub.as_mut().map(|(_, scrubber)| scrubber.finish()).unwrap_or_default();
                    if !rest.is_empty() {
                        self.count(&rest);
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                }
            }
        }
    }

    /// The upstream's next frame, with its content codings taken off.
    fn readable(&mut self, cx: &mut Context<'_>) -> Next {
        loop {
            if let Some(piece) = self.decoder.as_mut().and_then(|decoder| decoder.next().transpose()) {
                return Poll::Ready(Some(piece.map(Frame::data).map_err(DeliveryError::Coding)));
            }
            let next = match self.prefix.take() {
                Some(prefix) => Some(Ok(Frame::data(prefix))),
                None if self.flow.broken => return Poll::Ready(Some(Err(DeliveryError::Reset))),
                None => match Pin::new(&mut self.source).poll_frame(cx) {
                    // To hyper a stream that was reset with CANCEL or NO_ERROR has ended (PX-46).
                    Poll::Ready(None) if was_reset(&self.source, self.flow.version) => {
                        return Poll::Ready(Some(Err(DeliveryError::Reset)));
                    }
                    Poll::Ready(next) => next,
                    Poll::Pending => return self.wait(cx),
                },
            };
            self.progress = Instant::now();
            self.waiting = false;
            let frame = match (next, &mut self.decoder) {
                (None, Some(decoder)) => return Poll::Ready(decoder.finish().err().map(|error| Err(error.into()))),
                (None, None) => return Poll::Ready(None),
                (Some(Err(error)), _) => return Poll::Ready(Some(Err(DeliveryError::Upstream(error)))),
                (Some(Ok(frame)), _) => frame,
            };
            match (frame.into_data(), &mut self.decoder) {
                (Ok(data), Some(decoder)) => decoder.feed(data),
                (Ok(data), None) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                (Err(frame), _) => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Next {
        // The upstream is silent from when it is asked: before that the agent may have taken its time.
        if !std::mem::replace(&mut self.waiting, true) {
            self.progress = Instant::now();
        }
        // One timer for the whole stream, set anew only when it fires: a token that arrives costs no timer work.
        loop {
            let idle = self.idle;
            let progress = self.progress;
            let alarm = self.alarm.get_or_insert_with(|| {
                Box::pin(tokio::time::sleep_until(tokio::time::Instant::from_std(progress + idle)))
            });
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.alarm = None;
            if self.progress.elapsed() >= self.idle {
                return Poll::Ready(Some(Err(DeliveryError::Idle)));
            }
        }
    }

    fn count(&mut self, data: &Bytes) {
        let record = self.account.record();
        record.bytes_out = record.bytes_out.saturating_add(u64::try_from(data.len()).unwrap_or(0));
    }

    /// The clean end.
    fn settle(&mut self) {
        self.stage = Stage::Done;
        if let Some(watch) = &mut self.watch {
            watch.end();
        }
        self.kept.give_back();
    }

    /// Whether the source's bytes go on as they are, all of them still to come.
    fn is_untouched(&self) -> bool {
        self.scrub.is_none() && self.prefix.is_none() && self.primed.is_empty()
    }

    /// What is known of the exchange only when it has ended.
    fn note(&mut self) {
        self.account.record().bytes_in = self.upload.received();
        if let Some(watch) = &self.watch {
            watch.note(self.account.record());
        }
        if let Some((_, scrubber)) = self.scrub.take() {
            let record = self.account.record();
            record.redactions = record.redactions.saturating_add(scrubber.hits());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.note();
    }
}
