//! How long a failure counts where nobody said.
//!
//! Invariant: every duration in here has a cap; nothing an upstream says makes a hold longer than its lane's.

use std::time::Duration;

use crate::provider::outcome::Class;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// What kind of failure a hold is for. Lanes count apart: a credential that was short of money last week starts its
/// rate limits at the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// A short window.
    RateLimit,
    /// A window of hours to a month.
    Quota,
    /// Somebody has to pay.
    Billing,
    /// The credential is refused.
    Auth,
    /// The credential may not use this.
    Forbidden,
    /// The upstream has no capacity.
    Overload,
}

impl Lane {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::RateLimit, Self::Quota, Self::Billing, Self::Auth, Self::Forbidden, Self::Overload];

    /// The word for listings and stored state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate-limit",
            Self::Quota => "quota",
            Self::Billing => "billing",
            Self::Auth => "auth",
            Self::Forbidden => "forbidden",
            Self::Overload => "overload",
        }
    }

    /// The lane of a word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|lane| lane.as_str() == text)
    }

    /// The lane that a class of failure holds, where it holds anything.
    pub(super) fn of(class: Class) -> Option<Self> {
        match class {
            Class::RateLimit | Class::RequestSuspect => Some(Self::RateLimit),
            Class::Quota => Some(Self::Quota),
            Class::Billing => Some(Self::Billing),
            Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired => Some(Self::Auth),
            Class::AuthForbidden => Some(Self::Forbidden),
            Class::Overloaded => Some(Self::Overload),
            Class::Success | Class::Transient | Class::Ambiguous | Class::RequestFault => None,
            Class::TooLarge | Class::PolicyBlock | Class::Unreached | Class::Broken => None,
        }
    }

    /// The longest hold that a stated end can make: a day for short windows, a month and a day for the others.
    #[must_use]
    pub fn cap(self) -> Duration {
        Duration::from_secs(match self {
            Self::RateLimit | Self::Auth | Self::Forbidden => DAY,
            Self::Quota | Self::Billing => 32 * DAY,
            Self::Overload => 10 * MINUTE,
        })
    }
}

/// Longer and longer holds: the steps, the last one from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder(Vec<Duration>);

impl Ladder {
    /// These steps. An empty ladder is one of a minute.
    #[must_use]
    pub fn of(steps: Vec<Duration>) -> Self {
        Self(if steps.is_empty() { vec![Duration::from_secs(MINUTE)] } else { steps })
    }

    /// Twice as long each time, up to `cap`.
    #[must_use]
    pub fn doubling(first: Duration, cap: Duration) -> Self {
        let mut steps = Vec::new();
        let mut step = first.max(Duration::from_millis(1)).min(cap);
        while step < cap && steps.len() < 64 {
            steps.push(step);
            step = step.saturating_mul(2).min(cap);
        }
        steps.push(cap);
        Self(steps)
    }

    /// The hold of this level, which counts from 1.
    #[must_use]
    pub fn step(&self, level: u8) -> Duration {
        let index = usize::from(level.saturating_sub(1));
        self.0.get(index).or(self.0.last()).copied().unwrap_or(Duration::from_secs(MINUTE))
    }
}

/// The ladders of all lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladders {
    /// For short windows.
    pub rate_limit: Ladder,
    /// For long windows.
    pub quota: Ladder,
    /// For money.
    pub billing: Ladder,
    /// For refused credentials.
    pub auth: Ladder,
    /// For refused credentials that a test of the provider confirmed as dead.
    pub confirmed: Ladder,
    /// For models and resources that a credential may not use.
    pub forbidden: Ladder,
    /// For upstreams without capacity.
    pub overload: Ladder,
}

impl Ladders {
    /// 1 m, 5 m, 25 m, 1 h for rates; 5 h doubling to 24 h for money.
    #[must_use]
    pub fn argentos() -> Self {
        let seconds = Duration::from_secs;
        Self {
            rate_limit: Ladder::of([60, 300, 1500, 3600].map(seconds).to_vec()),
            quota: Ladder::doubling(seconds(30 * MINUTE), seconds(DAY)),
            billing: Ladder::doubling(seconds(5 * HOUR), seconds(DAY)),
            auth: Ladder::doubling(seconds(5 * MINUTE), seconds(HOUR)),
            confirmed: Ladder::doubling(seconds(5 * MINUTE), seconds(DAY)),
            forbidden: Ladder::of(vec![seconds(12 * HOUR)]),
            overload: Ladder::doubling(seconds(2), seconds(60)),
        }
    }

    /// The same with short steps for rates: 30 s doubling to 15 m.
    #[must_use]
    pub fn short() -> Self {
        let rate_limit = Ladder::doubling(Duration::from_secs(30), Duration::from_secs(15 * MINUTE));
        Self { rate_limit, ..Self::argentos() }
    }

    /// The same with steps of one's own for rates.
    #[must_use]
    pub fn with_steps(steps: Vec<Duration>) -> Self {
        Self { rate_limit: Ladder::of(steps), ..Self::argentos() }
    }

    /// The same with steps of one's own for one lane.
    #[must_use]
    pub fn with_lane(mut self, lane: Lane, steps: Vec<Duration>) -> Self {
        let ladder = Ladder::of(steps);
        match lane {
            Lane::RateLimit => self.rate_limit = ladder,
            Lane::Quota => self.quota = ladder,
            Lane::Billing => self.billing = ladder,
            Lane::Auth => self.auth = ladder,
            Lane::Forbidden => self.forbidden = ladder,
            Lane::Overload => self.overload = ladder,
        }
        self
    }

    pub(super) fn lane(&self, lane: Lane) -> &Ladder {
        match lane {
            Lane::RateLimit => &self.rate_limit,
            Lane::Quota => &self.quota,
            Lane::Billing => &self.billing,
            Lane::Auth => &self.auth,
            Lane::Forbidden => &self.forbidden,
            Lane::Overload => &self.overload,
        }
    }
}

impl Default for Ladders {
    fn default() -> Self {
        Self::argentos()
    }
}

/// A little randomness, so that many waiters do not come back in one moment. Seeded: a test gets the same every time.
#[derive(Debug, Clone)]
pub struct Jitter(Option<u64>);

impl Jitter {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// From this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        // xorshift stands still at zero.
        Self(Some(seed | 1))
    }

    /// From the operating system.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0u8; 8];
        // Without randomness every process spreads in the same way, which is still a spread.
        let _ = getrandom::fill(&mut bytes);
        Self::seeded(u64::from_le_bytes(bytes))
    }

    /// Anything from nothing to `most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        let Some(state) = &mut self.0 else { return Duration::ZERO };
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let millis = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(state.checked_rem(millis.saturating_add(1)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_the_published_ones() {
        let ladders = Ladders::argentos();
        let steps = |lane| (1..=6).map(|level| ladders.lane(lane).step(level).as_secs()).collect::<Vec<_>>();
        assert_eq!(steps(Lane::RateLimit), [60, 300, 1500, 3600, 3600, 3600]);
        assert_eq!(steps(Lane::Billing), [5, 10, 20, 24, 24, 24].map(|hours| hours * 3600));
        assert_eq!(steps(Lane::Auth), [5, 10, 20, 40, 60, 60].map(|minutes| minutes * 60));
        assert_eq!(steps(Lane::Quota)[..3], [1800, 3600, 7200]);
        assert_eq!(steps(Lane::Overload), [2, 4, 8, 16, 32, 60]);
        assert_eq!(Ladders::short().rate_limit.step(6).as_secs(), 900);
        assert_eq!(Ladder::of(Vec::new()).step(3).as_secs(), 60);
        assert_eq!(ladders.rate_limit.step(0).as_secs(), 60);
    }

    #[test]
    fn jitter_is_repeatable_and_bounded() {
        let draw = |mut jitter: Jitter| (0..50).map(|_| jitter.up_to(Duration::from_secs(3))).collect::<Vec<_>>();
        assert_eq!(draw(Jitter::seeded(7)), draw(Jitter::seeded(7)));
        assert!(draw(Jitter::seeded(7)).iter().all(|wait| *wait <= Duration::from_secs(3)));
        assert!(draw(Jitter::none()).iter().all(Duration::is_zero));
    }
}
