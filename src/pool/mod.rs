//! Which profile now, and what to do when it is refused.
//!
//! The proxy builds an [`Ask`] (who may be used is settled already) and follows the steps of its [`Attempts`]:
//!
//! ```text
//! let mut attempts = pools.attempts(ask);
//! let mut step = attempts.begin(clock.now());
//! let mut reply = None; // what the last attempt brought: an answer, or an error of ours
//! loop {
//!     step = match step {
//!         Step::Send(lease) => {
//!             // lease.profile(); or, by index, ask.targets[lease.target()].candidates[lease.candidate()]
//!             let (outcome, brought) = send(&lease).await; // rules.judge(..), Outcome::unreached(), Outcome::broken()
//!             reply = Some(brought);
//!             if upload.is_gone() {
//!                 attempts.cannot_repeat();
//!             }
//!             attempts.settle(lease, &outcome, clock.now())
//!         }
//!         Step::Wait(wait) => {
//!             // select! { sleep until wait.until, wait.woken, the client is gone => return }
//!             attempts.resume(clock.now())
//!         }
//!         Step::Renew(renewal) => {
//!             // one single-flight refresh of renewal.profile; a candidate that is not `renewable` never gets here
//!             attempts.renewed(&renewal, Renewed::Fresh, clock.now())
//!         }
//!         Step::Forward(committed) => return deliver(reply, committed), // committed.late(..) for errors inside streams
//!         Step::Answer(shortage) => return answer(shortage), // shortage.code, shortage.retry_after
//!     };
//! }
//! ```
//!
//! A lease that is dropped without a word (the client left) frees its probe and changes nothing else. What an answer
//! means is [`provider::outcome`](crate::provider::outcome)'s to say: `Rulebook::of(&provider)` gives the rules,
//! `rules.need(status, fields)` how much of an answer they have to see, `rules.judge(..)` the outcome.
//!
//! Invariant: decisions are pure (the time is given), take one short lock and never wait; a request alone never holds
//! a credential back for others (a refusal counts when the same request then succeeds with another credential, when
//! the upstream states it in words that the request cannot choose, or when the provider's own test confirms it).

mod ask;
mod attempts;
mod cell;
mod ladder;
mod persist;
mod select;
mod settings;
mod settle;
mod state;
mod step;
mod sticky;
mod strain;
mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

pub use ask::{Ask, Bound, Candidate, Named, Repeat, Session, Target};
pub use attempts::Attempts;
pub use cell::Source;
pub use ladder::{Jitter, Ladder, Ladders, Lane};
pub use settings::{AttemptLimits, PoolSettings, Strategy};
pub use step::{Committed, Renewal, Renewed, Step, Wait};
pub use view::{HoldState, ProfileState, Readiness};

use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{ProfileId, ProviderId};
use crate::provider::outcome::Class;
use select::Spot;
use settle::Used;
use state::State;

/// All pools. Clones are the same pools.
#[derive(Debug, Clone)]
pub struct Pools(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Arc<Notify>,
    doubted: Notify,
}

/// Why there is no profile for a request, for an answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// `profiles_cooling`, `billing_exhausted`, `credentials_rejected`, `credentials_missing` or `upstream_overloaded`.
    pub code: Code,
    /// When the first of this request's profiles is free, in whole seconds.
    pub retry_after: Option<Duration>,
    /// The profiles, for the log.
    pub profiles: Vec<ProfileId>,
}

/// A credential that an upstream refused: its cheap test call tells whether it is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Which.
    pub profile: ProfileId,
    /// The value that was refused.
    pub fingerprint: [u8; 8],
}

/// What the test of a doubted credential said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Works,
    /// It is refused: the profile rests until its value changes, and is tried again now and then.
    Refused,
    /// The test could not be made.
    Unknown,
}

/// The published defaults, without jitter.
impl Default for Pools {
    fn default() -> Self {
        Self::new(HashMap::new(), Jitter::none())
    }
}

impl Pools {
    /// Pools with these settings; a provider without any has the defaults.
    #[must_use]
    pub fn new(settings: HashMap<ProviderId, PoolSettings>, jitter: Jitter) -> Self {
        let settings = shared(settings);
        let state = State { pools: HashMap::new(), settings, number: 0, jitter, changed: false, doubts: Vec::new() };
        Self(Arc::new(Shared { state: Mutex::new(state), woken: Arc::default(), doubted: Notify::new() }))
    }

    /// New settings; what is remembered stays.
    pub fn reconfigure(&self, settings: HashMap<ProviderId, PoolSettings>) {
        let settings = shared(settings);
        self.with(|state| {
            for (provider, pool) in &mut state.pools {
                pool.reconfigure(settings.get(provider).cloned().unwrap_or_default());
            }
            state.settings = settings;
            true
        });
    }

    /// The attempts of one request.
    #[must_use]
    pub fn attempts(&self, ask: Ask) -> Attempts {
        let settings = self.with_state(|state| {
            ask.targets.first().map(|target| state.pool(&target.provider).settings.clone()).unwrap_or_default()
        });
        Attempts::new(self.clone(), ask, settings)
    }

    /// A thing (a conversation, a file, a job) that a request may name later is with this profile.
    pub fn owns(&self, profile: &ProfileId, key: u64, now: WallTime) {
        self.with_state(|state| {
            let pool = state.pool(&profile.provider);
            if let Some(member) = pool.index.get(profile.name.as_str()).copied() {
                pool.owners.put(key, sticky::Pin { member, detour: None, used: now });
            }
        });
    }

    /// Every profile that was ever asked for, in the order of names.
    #[must_use]
    pub fn states(&self, now: WallTime) -> Vec<ProfileState> {
        self.with_state(|state| state.views(now))
    }

    /// One profile; ready where nothing is known of it.
    #[must_use]
    pub fn state(&self, profile: &ProfileId, now: WallTime) -> ProfileState {
        self.with_state(|state| state.view(profile, now))
    }

    /// Learns of a profile, so that listings have it before it was asked for; one whose value changed begins anew.
    pub fn know(&self, profile: &ProfileId, fingerprint: [u8; 8]) {
        let candidate = Candidate { profile: profile.clone(), rank: 0, fingerprint, renewable: false };
        self.with_state(|state| state.know(&candidate));
    }

    /// Learns that the value with the second fingerprint follows the first as another version of one login: what is
    /// held against the profile stays.
    pub fn follows(&self, profile: &ProfileId, first: [u8; 8], second: [u8; 8]) {
        self.with_state(|state| {
            let pool = state.pool(&profile.provider);
            let at = pool.index.get(profile.name.as_str()).copied();
            if let Some(member) = at.and_then(|at| pool.members.get_mut(at)).filter(|m| m.fingerprint == Some(first)) {
                member.kin = Some(second);
            }
        });
    }

    /// Forgets everything that is held against a profile, its group's and its upstream's too.
    pub fn reset(&self, profile: &ProfileId) {
        self.with(|state| state.reset(profile));
    }

    /// Takes a profile out until [`Pools::enable`].
    pub fn disable(&self, profile: &ProfileId) {
        self.with(|state| state.set_disabled(profile, true));
    }

    /// Puts a profile back.
    pub fn enable(&self, profile: &ProfileId) {
        self.with(|state| state.set_disabled(profile, false));
    }

    /// Forgets the profiles that `keep` does not know: their credentials are gone.
    pub fn retain(&self, keep: impl Fn(&ProfileId) -> bool) {
        self.with(|state| state.retain(keep));
    }

    /// Credentials that were refused since the last call; each is tested once by its provider's own test call, and
    /// the result goes to [`Pools::verdict`].
    #[must_use]
    pub fn doubts(&self) -> Vec<Doubt> {
        self.with_state(|state| std::mem::take(&mut state.doubts))
    }

    /// Ready when there may be new [`Pools::doubts`].
    pub async fn doubted(&self) {
        self.0.doubted.notified().await;
    }

    /// Takes what a test said.
    pub fn verdict(&self, doubt: &Doubt, verdict: Verdict, now: WallTime) {
        self.with(|state| state.verdict(doubt, verdict, now));
    }

    /// Rows to store: scope and JSON.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String)> {
        self.with_state(|state| {
            state.changed = false;
            state.rows()
        })
    }

    /// The rows to store if anything changed since they were taken last.
    #[must_use]
    pub fn changed_rows(&self) -> Option<Vec<(String, String)>> {
        self.with_state(|state| std::mem::take(&mut state.changed).then(|| state.rows()))
    }

    /// Takes stored rows back. A hold whose end has passed is half-open, not closed.
    pub fn restore(&self, rows: impl IntoIterator<Item = (String, String)>, now: WallTime) {
        let rows: Vec<_> = rows.into_iter().collect();
        self.with_state(|state| state.restore(&rows, now));
    }

    fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock())
    }

    /// Does something that may set waiters free.
    fn with(&self, work: impl FnOnce(&mut State) -> bool) -> bool {
        let (wake, doubts) = self.with_state(|state| (work(state), !state.doubts.is_empty()));
        if wake {
            self.0.woken.notify_waiters();
        }
        if doubts {
            self.0.doubted.notify_one();
        }
        wake
    }

    fn woken(&self) -> OwnedNotified {
        self.0.woken.clone().notified_owned()
    }
}

fn shared(settings: HashMap<ProviderId, PoolSettings>) -> HashMap<ProviderId, Arc<PoolSettings>> {
    settings.into_iter().map(|(provider, settings)| (provider, Arc::new(settings))).collect()
}

/// One exchange that is under way with a profile, for as long as the value lives.
#[derive(Debug)]
pub struct Occupied {
    pools: Pools,
    provider: ProviderId,
    member: usize,
}

impl Occupied {
    fn new(pools: Pools, provider: &ProviderId, member: usize) -> Self {
        Self { pools, provider: provider.clone(), member }
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.pools.with(|state| state.pool(&self.provider).leave_seat(self.member));
    }
}

/// One profile for one attempt.
#[derive(Debug)]
pub struct Lease {
    pools: Pools,
    profile: ProfileId,
    spot: Spot,
    used: Option<Used>,
    from: Option<(ProfileId, Class)>,
    warm: bool,
}

impl Lease {
    fn new(
        pools: Pools,
        profile: ProfileId,
        spot: Spot,
        used: Used,
        from: Option<(ProfileId, Class)>,
        warm: bool,
    ) -> Self {
        Self { pools, profile, spot, used: Some(used), from, warm }
    }

    /// The profile.
    #[must_use]
    pub fn profile(&self) -> &ProfileId {
        &self.profile
    }

    /// The index of its target in the ask.
    #[must_use]
    pub fn target(&self) -> usize {
        self.spot.target
    }

    /// The index of its candidate there.
    #[must_use]
    pub fn candidate(&self) -> usize {
        self.spot.candidate
    }

    /// The profile that the request comes from, and why it left it.
    #[must_use]
    pub fn rotated_from(&self) -> Option<(&ProfileId, Class)> {
        self.from.as_ref().map(|(profile, class)| (profile, *class))
    }

    fn finish(mut self) -> Option<Used> {
        self.used.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(used) = self.used.take() {
            self.pools.with(|state| state.release(&used, used.sent));
        }
    }
}

#[cfg(test)]
mod tests;
