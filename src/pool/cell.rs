//! One cell: whether a credential (or one model of it, a group, an upstream) is resting, and what it has behind it.
//!
//! open: `now` is before the hold's end. Half-open: the end has passed, but nobody has proved it; one probe at a time.
//! Closed: no hold.
//!
//! Invariant: while a cell is open its end moves only to a later end that the upstream states; a level rises at most
//! once a window; a result that was sent before the last window opened changes nothing.

use std::sync::Arc;
use std::time::Duration;

use super::ladder::{Jitter, Ladders, Lane};
use crate::clock::WallTime;

/// A probe whose task was lost frees its cell after this.
pub(super) const PROBE_TTL: Duration = Duration::from_secs(60);

/// A level is forgotten after a day without failure.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Where the end of a hold comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The upstream said it.
    Stated,
    /// The ladder.
    Ladder,
    /// The provider's own test confirmed that the credential is dead.
    Confirmed,
}

impl Source {
    /// The word for listings and stored state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stated => "upstream",
            Self::Ladder => "ladder",
            Self::Confirmed => "confirmed",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Stated, Self::Ladder, Self::Confirmed].into_iter().find(|source| source.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) lane: Lane,
    pub(super) until: WallTime,
    pub(super) source: Source,
    pub(super) opened: WallTime,
    pub(super) rule: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Closed,
    /// The window is over; `probed` until then at the latest.
    HalfOpen {
        probed: Option<WallTime>,
    },
    Open(WallTime),
}

/// What a failure is to a cell.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) lane: Lane,
    /// The end that the upstream stated.
    pub(super) stated: Option<WallTime>,
    pub(super) confirmed: bool,
    pub(super) rule: Arc<str>,
}

/// The lease that a result belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// Leases and windows are numbered in one sequence.
    pub(super) number: u64,
    pub(super) at: WallTime,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) count: u8,
    /// When it last rose, in milliseconds since the epoch.
    pub(super) at: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) hold: Option<Hold>,
    /// The number of the last window.
    pub(super) window: u64,
    pub(super) levels: [Level; 6],
    pub(super) probation: Option<WallTime>,
    pub(super) probe: Option<(u64, WallTime)>,
    pub(super) ramp: Option<Ramp>,
    /// When it was last probed before its end.
    pub(super) early_at: Option<WallTime>,
}

impl Cell {
    pub(super) fn status(&self, now: WallTime) -> Status {
        match &self.hold {
            None => Status::Closed,
            Some(hold) if now < hold.until => Status::Open(hold.until),
            Some(_) => Status::HalfOpen { probed: self.probe.map(|(_, ends)| ends).filter(|ends| now < *ends) },
        }
    }

    pub(super) fn probe_running(&self, now: WallTime) -> bool {
        self.probe.is_some_and(|(_, ends)| now < ends)
    }

    pub(super) fn begin_probe(&mut self, lease: u64, now: WallTime) {
        if self.hold.is_some() {
            self.probe = Some((lease, now.plus(PROBE_TTL)));
        }
    }

    /// A probe that ended without a verdict.
    pub(super) fn end_probe(&mut self, lease: u64) -> bool {
        let ours = self.probe.is_some_and(|(holder, _)| holder == lease);
        if ours {
            self.probe = None;
        }
        ours
    }

    /// Whether nothing would be lost with this cell.
    pub(super) fn is_idle(&self, now: WallTime) -> bool {
        let remembered = self.levels.iter().any(|level| level.count > 0 && now.since(WallTime(level.at)) < MEMORY);
        self.hold.is_none() && !remembered
    }

    pub(super) fn level(&self, lane: Lane) -> u8 {
        self.levels.get(lane as usize).map_or(0, |level| level.count)
    }

    /// Takes a failure. Whether a window opened or moved.
    pub(super) fn fail(
        &mut self,
        failure: &Failure,
        sent: Sent,
        number: &mut u64,
        ladders: &Ladders,
        jitter: &mut Jitter,
        now: WallTime,
    ) -> bool {
        let cap = failure.lane.cap();
        let stated = failure.stated.filter(|at| *at > now).map(|at| at.min(now.plus(cap)));
        if let Some(hold) = self.hold.as_mut().filter(|hold| now < hold.until) {
            if self.probe.is_some_and(|(holder, _)| holder == sent.number) {
                self.probe = None;
            }
            // A window does not move, except to a later end that the upstream states now, or to a confirmed refusal.
            let recent = sent.at.plus(Duration::from_secs(60)) >= hold.opened;
            let longer = stated.filter(|at| *at > hold.until && recent);
            let confirms = failure.confirmed && hold.source != Source::Confirmed;
            if let Some(at) = longer.filter(|_| !failure.confirmed) {
                hold.until = at.plus(spread(jitter, at.since(now)));
                hold.lane = failure.lane;
                hold.source = Source::Stated;
                hold.rule = failure.rule.clone();
            } else if confirms {
                hold.until = hold.until.max(now.plus(ladders.confirmed.step(1)));
                hold.lane = failure.lane;
                hold.source = Source::Confirmed;
                hold.rule = failure.rule.clone();
            } else {
                return false;
            }
            *number = number.saturating_add(1);
            self.window = *number;
            return true;
        }
        let probing = self.probe.is_some_and(|(holder, _)| holder == sent.number);
        if sent.number < self.window && !probing {
            return false;
        }
        let level = self.climb(failure.lane, now);
        let ladder = if failure.confirmed { &ladders.confirmed } else { ladders.lane(failure.lane) };
        let (until, source) = match stated {
            Some(at) if !failure.confirmed => (at, Source::Stated),
            Some(_) | None => {
                let source = if failure.confirmed { Source::Confirmed } else { Source::Ladder };
                (now.plus(ladder.step(level)), source)
            }
        };
        *number = number.saturating_add(1);
        self.window = *number;
        self.probe = None;
        self.early_at = None;
        self.ramp = None;
        let until = until.plus(spread(jitter, until.since(now)));
        self.hold = Some(Hold { lane: failure.lane, until, source, opened: now, rule: failure.rule.clone() });
        true
    }

    fn climb(&mut self, lane: Lane, now: WallTime) -> u8 {
        if self.probation.take().is_some_and(|ends| now >= ends) {
            // It stood the test: what was before is forgiven.
            self.levels = Default::default();
        }
        let Some(level) = self.levels.get_mut(lane as usize) else { return 1 };
        let forgotten = now.since(WallTime(level.at)) > MEMORY;
        level.count = if forgotten { 1 } else { level.count.saturating_add(1) };
        level.at = now.0;
        level.count
    }

    /// Takes a success. Whether the cell closed by it. `number` is the last that was given out.
    pub(super) fn succeed(&mut self, sent: Sent, number: u64, now: WallTime) -> bool {
        // A long answer that began before the window opened proves nothing.
        if sent.number < self.window {
            return false;
        }
        let Some(hold) = self.hold.take() else { return false };
        let rested = hold.until.since(hold.opened).clamp(Duration::from_secs(10), Duration::from_secs(600));
        self.probe = None;
        self.early_at = None;
        self.probation = Some(now.plus(rested));
        self.ramp = Some(Ramp::begin(number, now));
        true
    }

    /// From when one more request may be sent: `None` where at once.
    pub(super) fn gate(&self, now: WallTime) -> Option<WallTime> {
        self.ramp.as_ref().and_then(|ramp| ramp.gate(now))
    }

    /// A request of this lease is on its way.
    pub(super) fn enter(&mut self, now: WallTime) {
        if self.ramp.as_ref().is_some_and(|ramp| ramp.is_over(now)) {
            self.ramp = None;
        }
        if let Some(ramp) = &mut self.ramp {
            ramp.enter();
        }
    }

    /// It has its answer. Whether that made room.
    pub(super) fn leave(&mut self, lease: u64) -> bool {
        self.ramp.as_mut().is_some_and(|ramp| ramp.leave(lease))
    }
}

/// A slow start: one request at first, one more every 250 ms, anything after 30 s.
#[derive(Debug, Clone)]
pub(super) struct Ramp {
    from: WallTime,
    /// Leases of a higher number belong to it.
    after: u64,
    in_flight: u32,
}

const RAMP_STEP: Duration = Duration::from_millis(250);
const RAMP_LENGTH: Duration = Duration::from_secs(30);

impl Ramp {
    pub(super) fn begin(after: u64, now: WallTime) -> Self {
        Self { from: now, after, in_flight: 0 }
    }

    pub(super) fn is_over(&self, now: WallTime) -> bool {
        now.since(self.from) >= RAMP_LENGTH
    }

    pub(super) fn gate(&self, now: WallTime) -> Option<WallTime> {
        let step = self.from.plus(RAMP_STEP.saturating_mul(self.in_flight));
        (!self.is_over(now) && step > now).then_some(step)
    }

    pub(super) fn enter(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    pub(super) fn leave(&mut self, lease: u64) -> bool {
        if lease > self.after {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        lease > self.after
    }
}

/// Waiters of one window come back over a tenth of it, 30 seconds at most; never before its end.
fn spread(jitter: &mut Jitter, length: Duration) -> Duration {
    jitter.up_to((length / 10).min(Duration::from_secs(30)))
}
