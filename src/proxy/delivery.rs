//! The response body on its way to the agent, and everything that is owed when it ends.
//!
//! Invariant: the body owns the account and the upstream connection; its end or its drop settles both. An upstream
//! that breaks off is passed on as an error, never as a clean end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::code::Code;
use crate::proxy::account::Account;
use crate::proxy::watch::Watch;
use crate::scrub::{Patterns, Scrubber, scrub_fields};
use crate::upstream::Kept;
use crate::upstream::body::Upload;

/// Why a response body ended early.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The upstream's body broke off.
    #[error("the upstream's response broke off")]
    Upstream(#[source] hyper::Error),
    /// The upstream fell silent.
    #[error("the upstream was silent for too long")]
    Idle,
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
}

struct Stream {
    prefix: Option<Bytes>,
    source: Incoming,
    scrub: Option<(Arc<Patterns>, Scrubber)>,
    watch: Option<Watch>,
    trailers: Option<http::HeaderMap>,
    stage: Stage,
    account: Account,
    kept: Kept,
    upload: Upload,
    idle: Duration,
    progress: Instant,
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
        let Parts { prefix, source, patterns, watch, account, kept, upload, idle } = parts;
        let mut stream = Stream {
            prefix: prefix.filter(|prefix| !prefix.is_empty()),
            source,
            scrub: patterns.map(|patterns| (Arc::clone(&patterns), Scrubber::new(patterns))),
            watch,
            trailers: None,
            stage: Stage::Body,
            account,
            kept,
            upload,
            idle,
            progress: Instant::now(),
            alarm: None,
        };
        if stream.prefix.is_none() && stream.source.is_end_stream() {
            stream.settle();
            return Self::empty();
        }
        Self(Kind::Stream(Box::new(stream)))
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
            Kind::Stream(stream) => stream.stage == Stage::Done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| u64::try_from(body.len()).unwrap_or(0)))
            }
            Kind::Stream(stream) if stream.scrub.is_none() && stream.prefix.is_none() => stream.source.size_hint(),
            Kind::Stream(_) => SizeHint::new(),
        }
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
        loop {
            if self.stage == Stage::Done {
                return Poll::Ready(None);
            }
            if self.stage == Stage::Trailers {
                let trailers = self.trailers.take();
                self.settle();
                return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
            }
            let next = match self.prefix.take() {
                Some(prefix) => Some(Ok(Frame::data(prefix))),
                None => match Pin::new(&mut self.source).poll_frame(cx) {
                    Poll::Ready(next) => next,
                    Poll::Pending => return self.wait(cx),
                },
            };
            self.progress = Instant::now();
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
                            if self.scrub.is_none() && self.source.is_end_stream() {
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
                    self.account.record().error = Some(Code::UpstreamUnreachable);
                    self.stage = Stage::Done;
                    return Poll::Ready(Some(Err(DeliveryError::Upstream(error))));
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

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DeliveryError>>> {
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
                self.account.record().error = Some(Code::UpstreamTimeout);
                self.stage = Stage::Done;
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
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.account.record().bytes_in = self.upload.received();
        if let Some((_, scrubber)) = &self.scrub {
            let hits = scrubber.hits();
            let record = self.account.record();
            record.redactions = record.redactions.saturating_add(hits);
        }
    }
}
