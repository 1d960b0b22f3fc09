//! How much may be used: so many exchanges in a time, so many at once, so many tokens of models.
//!
//! A short time is a bucket that fills again bit by bit (`60/min` has a burst of 60, then one a second). A day is one of
//! UTC, and its count survives restarts. Tokens are known only when an answer has come, so they are counted in whole
//! periods: what began within the limit is finished.
//!
//! Invariant: the time is given, nothing here waits, and every count belongs to a name of the configuration.

mod meter;
mod ration;

use std::fmt;
use std::time::Duration;

pub use meter::{Meter, Window};
pub use ration::{Excess, Rations, Share};

/// What an agent or a profile may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Exchanges.
    pub requests: Option<Rate>,
    /// Exchanges at a time.
    pub concurrency: Option<u32>,
    /// Tokens of a model.
    pub tokens: Option<Rate>,
}

impl Limits {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// So many in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In how long.
    pub per: Period,
}

/// As it is written in the configuration: `60/min`, `2M/day`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, suffix) = match self.count {
            count if count.is_multiple_of(1_000_000) => (count / 1_000_000, "M"),
            count if count.is_multiple_of(1000) => (count / 1000, "k"),
            count => (count, ""),
        };
        write!(f, "{count}{suffix}/{}", self.per.as_str())
    }
}

/// What a [`Rate`] is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day in UTC.
    Day,
}

impl Period {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
            Self::Day => "day",
        }
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        })
    }
}
