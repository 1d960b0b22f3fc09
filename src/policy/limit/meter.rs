//! One rate, kept.
//!
//! Invariant: asking changes nothing; what is taken is never given back.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::{Period, Rate};
use crate::clock::WallTime;

/// A rate of exchanges: a bucket, or the count of a day.
#[derive(Debug)]
pub struct Meter {
    rate: Rate,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Bucket(Box<Bucket>),
    Day(Window),
    /// More than can be counted.
    Endless,
}

impl Meter {
    /// A full one.
    #[must_use]
    pub fn of(rate: Rate) -> Self {
        let kind = match rate.per {
            Period::Day => Kind::Day(Window::of(rate)),
            Period::Second | Period::Minute | Period::Hour => {
                Bucket::of(rate).map_or(Kind::Endless, |bucket| Kind::Bucket(Box::new(bucket)))
            }
        };
        Self { rate, kind }
    }

    /// Which rate it keeps.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// From when one more may be taken; `None` where at once.
    #[must_use]
    pub fn free_at(&self, now: WallTime) -> Option<WallTime> {
        match &self.kind {
            Kind::Bucket(bucket) => bucket.empty_until.filter(|until| now < *until),
            Kind::Day(window) => window.full_until(now),
            Kind::Endless => None,
        }
    }

    /// Takes one.
    pub fn take(&mut self, now: WallTime) {
        match &mut self.kind {
            Kind::Bucket(bucket) => bucket.take(now),
            Kind::Day(window) => window.add(1, now),
            Kind::Endless => {}
        }
    }

    /// The count that has to survive a restart.
    #[must_use]
    pub fn window(&self) -> Option<&Window> {
        match &self.kind {
            Kind::Day(window) => Some(window),
            Kind::Bucket(_) | Kind::Endless => None,
        }
    }

    /// Takes it back.
    pub fn restore(&mut self, stored: (u64, u64)) {
        if let Kind::Day(window) = &mut self.kind {
            window.restore(stored);
        }
    }
}

struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, Given, StateInformationMiddleware>,
    clock: Given,
    empty_until: Option<WallTime>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("empty_until", &self.empty_until).finish_non_exhaustive()
    }
}

impl Bucket {
    fn of(rate: Rate) -> Option<Self> {
        let burst = NonZeroU32::new(u32::try_from(rate.count).ok()?)?;
        let quota = Quota::with_period(rate.per.length().checked_div(burst.get())?)?.allow_burst(burst);
        let clock = Given::default();
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        Some(Self { limiter: limiter.with_middleware(), clock, empty_until: None })
    }

    fn take(&mut self, now: WallTime) {
        self.clock.0.store(now.0.saturating_mul(1_000_000), Ordering::Relaxed);
        let left = self.limiter.check().map_or(0, |state| state.remaining_burst_capacity());
        // Nothing is left: the next one is refused, and the refusal says when it would not be.
        self.empty_until = if left > 0 { None } else { self.limiter.check().err().map(|not| self.end(&not, now)) };
    }

    fn end(&self, not: &governor::NotUntil<Nanos>, now: WallTime) -> WallTime {
        let wait = not.wait_time_from(self.clock.now());
        // Rounded up: a moment early would be too early.
        now.plus(wait.saturating_add(Duration::from_nanos(999_999)))
    }
}

/// The time that was given last.
#[derive(Debug, Clone, Default)]
struct Given(Arc<AtomicU64>);

impl Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

/// The count of one period: a day of UTC, or an hour or a minute of it.
#[derive(Debug, Clone)]
pub struct Window {
    rate: Rate,
    /// The period, counted from 1970.
    period: u64,
    used: u64,
}

impl Window {
    /// Nothing is used.
    #[must_use]
    pub fn of(rate: Rate) -> Self {
        Self { rate, period: 0, used: 0 }
    }

    /// Which rate it keeps.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// The end of the period, where all of it is used.
    #[must_use]
    pub fn full_until(&self, now: WallTime) -> Option<WallTime> {
        let period = self.period_of(now);
        let full = self.period == period && self.used >= self.rate.count;
        full.then(|| WallTime(period.saturating_add(1).saturating_mul(self.length())))
    }

    /// Counts.
    pub fn add(&mut self, count: u64, now: WallTime) {
        let period = self.period_of(now);
        if self.period != period {
            (self.period, self.used) = (period, 0);
        }
        self.used = self.used.saturating_add(count);
    }

    /// What to store.
    #[must_use]
    pub fn stored(&self) -> (u64, u64) {
        (self.period, self.used)
    }

    /// Takes back what was stored. A count of another period counts for nothing.
    pub fn restore(&mut self, (period, used): (u64, u64)) {
        (self.period, self.used) = (period, used);
    }

    fn period_of(&self, now: WallTime) -> u64 {
        now.0.checked_div(self.length()).unwrap_or(0)
    }

    fn length(&self) -> u64 {
        self.rate.per.length().as_secs().saturating_mul(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 23:00 of a day.
    const LATE: WallTime = WallTime(1_777_593_600_000 + 23 * 3_600_000);

    fn at(millis: u64) -> WallTime {
        WallTime(LATE.0 + millis)
    }

    #[test]
    fn a_minute_has_its_whole_burst_and_then_one_a_second() {
        let mut meter = Meter::of(Rate { count: 60, per: Period::Minute });
        for _ in 0..60 {
            assert_eq!(meter.free_at(at(0)), None);
            meter.take(at(0));
        }
        assert_eq!(meter.free_at(at(0)), Some(at(1000)));
        assert_eq!(meter.free_at(at(999)), Some(at(1000)));
        assert_eq!(meter.free_at(at(1000)), None);
        meter.take(at(1000));
        assert_eq!(meter.free_at(at(1000)), Some(at(2000)));
        for _ in 0..60 {
            assert_eq!(meter.free_at(at(120_000)), None, "a rest fills it again");
            meter.take(at(120_000));
        }
        assert_eq!(meter.free_at(at(120_000)), Some(at(121_000)));
    }

    #[test]
    fn in_any_minute_there_are_at_most_the_burst_and_what_came_in() {
        for (count, per) in [(1, Period::Second), (7, Period::Minute), (3, Period::Hour), (60, Period::Minute)] {
            let mut meter = Meter::of(Rate { count, per });
            let (mut taken, length) = (0u64, u64::try_from(per.length().as_millis()).unwrap());
            for step in 0..1000u64 {
                let now = at(step * length / 100);
                if meter.free_at(now).is_none() {
                    meter.take(now);
                    taken += 1;
                }
            }
            assert!(taken <= count + count * 10, "{taken} of {count} in ten periods");
            assert!(taken >= count * 10, "{taken} of {count} in ten periods");
        }
    }

    #[test]
    fn a_day_is_one_of_utc_and_comes_back() {
        let rate = Rate { count: 2, per: Period::Day };
        let mut meter = Meter::of(rate);
        meter.take(at(0));
        assert_eq!(meter.free_at(at(0)), None);
        meter.take(at(0));
        let midnight = at(3_600_000);
        assert_eq!(meter.free_at(at(1)), Some(midnight));
        let mut again = Meter::of(rate);
        again.restore(meter.window().unwrap().stored());
        assert_eq!(again.free_at(at(2)), Some(midnight));
        assert_eq!(again.free_at(midnight), None);
        again.take(midnight);
        assert_eq!(again.free_at(midnight), None, "a new day counts from zero");
    }

    #[test]
    fn more_than_can_be_counted_is_no_limit() {
        let mut meter = Meter::of(Rate { count: u64::MAX, per: Period::Second });
        meter.take(at(0));
        assert_eq!(meter.free_at(at(0)), None);
    }
}
