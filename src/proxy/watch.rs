//! Looks into an answer for what its status does not say: before it is passed on, and while it is.
//!
//! Invariant: bytes are looked at and never changed or held back here; memory is bounded.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;

use crate::clock::{Clock, WallTime};
use crate::pool::Committed;
use crate::provider::outcome::{Answer, Need, Outcome, Peek, Rules, Scanner};
use crate::proxy::limits::{ERROR_BODY, PEEK_WAIT};
use crate::proxy::made::Made;
use crate::proxy::received::{Received, peek_body, plain, readable};
use crate::proxy::usage::Usage;
use crate::scrub::{Codings, Decoder};
use crate::telemetry::Record;
use crate::upstream::body::was_reset;

/// Judges an answer, reading as much of its body as the provider's rules need to see first.
pub async fn judge(received: &mut Received, rules: &Rules, now: WallTime) -> (Outcome, Option<Scanner>) {
    let need = rules.need(received.head.status, &received.head.headers);
    let mut scanner = None;
    match need {
        Need::Head | Need::Aside => {}
        Need::Body => peek_body(received).await,
        Need::Events => {
            let mut events = Scanner::default();
            if let Some(outcome) = peek_events(received, rules, &mut events, now).await {
                return (outcome, None);
            }
            scanner = Some(events);
        }
    }
    let answer = Answer { status: received.head.status, fields: &received.head.headers, body: &readable(received) };
    // What is judged aside is a success until its body has been seen.
    let outcome = if need == Need::Aside { Outcome::success() } else { rules.judge(&answer, now) };
    (outcome, scanner)
}

/// Holds the beginning of an event stream until there is content, so that an error before it can still be answered
/// with another profile.
async fn peek_events(received: &mut Received, rules: &Rules, events: &mut Scanner, now: WallTime) -> Option<Outcome> {
    let (mut held, mut broken) = (BytesMut::new(), false);
    // One that does not decode holds nothing to be seen here; delivering it fails, and says why.
    let mut decoder = Codings::read(&received.head.headers).ok().flatten().map(|codings| Decoder::new(&codings));
    let read = async {
        loop {
            match received.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { return None };
                    held.extend_from_slice(&data);
                    let data = decoder.as_mut().map_or(data.clone(), |decoder| plain(decoder, data));
                    match events.peek(&data, rules, &received.head.headers, now) {
                        Peek::Waiting if held.len() >= ERROR_BODY => return None,
                        Peek::Waiting => {}
                        Peek::Content => return None,
                        Peek::Failed(outcome) => return Some(*outcome),
                    }
                }
                Some(Err(_)) => {
                    broken = true;
                    return None;
                }
                None => {
                    broken = was_reset(&received.body, received.head.version);
                    return None;
                }
            }
        }
    };
    let failed = tokio::time::timeout(PEEK_WAIT, read).await.ok().flatten();
    received.broken = broken;
    received.prefix = held.freeze();
    failed
}

/// Watches an answer while it goes to the agent, for what later requests should know and for what it used.
pub struct Watch {
    late: Option<Late>,
    usage: Option<Usage>,
    made: Option<Made>,
}

/// A look at what may still go wrong.
struct Late {
    rules: Arc<Rules>,
    fields: HeaderMap,
    status: http::StatusCode,
    committed: Committed,
    clock: Clock,
    look: Look,
}

enum Look {
    Events(Scanner),
    Aside(BytesMut),
}

impl Watch {
    /// A watch, where there is something to look for.
    #[must_use]
    pub fn new(
        rules: &Arc<Rules>,
        received: &Received,
        scanner: Option<Scanner>,
        committed: Committed,
        clock: &Clock,
        made: Option<Made>,
    ) -> Option<Self> {
        let need = rules.need(received.head.status, &received.head.headers);
        let look = match (need, scanner) {
            (Need::Events, Some(scanner)) => Some(Look::Events(scanner)),
            (Need::Aside, _) => Some(Look::Aside(BytesMut::new())),
            _ => None,
        };
        let late = look.map(|look| Late {
            rules: Arc::clone(rules),
            fields: received.head.headers.clone(),
            status: received.head.status,
            committed,
            clock: clock.clone(),
            look,
        });
        let usage = Usage::of(&received.head.headers).filter(|_| received.head.status.is_success());
        (late.is_some() || usage.is_some() || made.is_some()).then_some(Self { late, usage, made })
    }

    /// Sees the next bytes, as the upstream sent them.
    pub fn see(&mut self, data: &Bytes) {
        if let Some(usage) = &mut self.usage {
            usage.see(data);
        }
        if let Some(made) = &mut self.made {
            made.see(data);
        }
        if let Some(late) = &mut self.late {
            late.see(data);
        }
    }

    /// The answer has ended.
    pub fn end(&mut self) {
        if let Some(late) = &mut self.late {
            late.end();
        }
    }

    /// Writes down what was used so far.
    pub fn note(&self, record: &mut Record) {
        if let Some(usage) = &self.usage {
            usage.note(record);
        }
    }
}

impl Late {
    fn see(&mut self, data: &Bytes) {
        match &mut self.look {
            Look::Events(scanner) => {
                let now = self.clock.now();
                if let Some(outcome) = scanner.watch(data, &self.rules, &self.fields, now) {
                    self.committed.late(&outcome, now);
                }
            }
            Look::Aside(held) => {
                let room = ERROR_BODY.saturating_sub(held.len());
                held.extend_from_slice(data.get(..room.min(data.len())).unwrap_or(data));
            }
        }
    }

    fn end(&mut self) {
        if let Look::Aside(held) = &self.look {
            let now = self.clock.now();
            let answer = Answer { status: self.status, fields: &self.fields, body: held };
            let outcome = self.rules.judge(&answer, now);
            self.committed.late(&outcome, now);
        }
    }
}
