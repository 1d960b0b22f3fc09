//! What can be set for a pool.
//!
//! Invariant: plain values with the published defaults.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ladder::Ladders;
use crate::id::ShortName;
use crate::policy::limit::Limits;

/// Which profile next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// A conversation stays with its profile; new ones go round.
    #[default]
    Sticky,
    /// Always the first that is ready.
    Priority,
    /// Each in turn.
    RoundRobin,
    /// The one that was used least.
    LeastUsed,
}

/// The settings of one provider's pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// Profiles in their order; those that are not named come after. Empty: by rank.
    pub order: Vec<ShortName>,
    /// Which profile next.
    pub strategy: Strategy,
    /// How long a profile rests where nobody said.
    pub ladders: Ladders,
    /// What one request may cost.
    pub limits: AttemptLimits,
    /// How long a request waits for a profile instead of going elsewhere.
    pub wait: Duration,
    /// The same for a conversation that was used in the last five minutes: its prompts are cached.
    pub warm_wait: Duration,
    /// Profiles that share one quota.
    pub groups: HashMap<ShortName, Arc<str>>,
    /// Whether profiles that turn out to share a quota are treated so.
    pub learn_groups: bool,
    /// Whether a refused request may go out with another profile.
    pub rotate: bool,
    /// How much of each profile: exchanges in a time and at a time.
    pub each: Limits,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            strategy: Strategy::Sticky,
            ladders: Ladders::argentos(),
            limits: AttemptLimits::default(),
            wait: Duration::from_secs(5),
            warm_wait: Duration::from_secs(20),
            groups: HashMap::new(),
            learn_groups: true,
            rotate: true,
            each: Limits::default(),
        }
    }
}

/// What one request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimits {
    /// Sends in all; eight at most.
    pub attempts: u8,
    /// Sends again with the same profile, beside one after a refresh.
    pub same_profile: u8,
    /// Profiles that it may leave because of a rate limit.
    pub throttle_hops: u8,
    /// The same for a conversation, where a hop costs a cold cache.
    pub warm_throttle_hops: u8,
    /// Profiles that it may leave because the upstream has no capacity.
    pub overload_hops: u8,
    /// Profiles that it may leave because of a refusal without evidence.
    pub suspect_hops: u8,
    /// Waits for a profile.
    pub waits: u8,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            attempts: 4,
            same_profile: 1,
            throttle_hops: 2,
            warm_throttle_hops: 1,
            overload_hops: 1,
            suspect_hops: 1,
            waits: 2,
        }
    }
}
