//! Which profile now: what each profile's last failure was, and when it may be used again.
//!
//! Invariant: a window that is open is not moved by what was sent before it; nothing here waits or reads a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::WallTime;
use crate::id::ProfileId;
use crate::provider::outcome::{Class, Outcome};

/// The default ladder, for throttles without a stated end, in seconds: 1, 5, 25 minutes, then an hour each time.
const LADDER: [u64; 4] = [60, 300, 1500, 3600];
/// Billing begins with five hours and doubles up to a day.
const BILLING: [u64; 4] = [5 * 3600, 10 * 3600, 20 * 3600, 24 * 3600];
/// A stated end beyond this is not believed: monthly quotas are the longest there are.
const LONGEST: Duration = Duration::from_secs(32 * 24 * 3600);
/// After a day without a failure the ladder begins anew.
const FORGET: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Cell {
    until: u64,
    opened: u64,
    level: u8,
    reason: String,
    stated: bool,
    disabled: bool,
    fingerprint: u64,
    #[serde(skip)]
    last_used: Option<WallTime>,
}

#[derive(Default)]
struct Inner {
    cells: BTreeMap<ProfileId, Cell>,
    changed: bool,
}

/// What a profile can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It may be used.
    Ready,
    /// Not before the end of its window.
    Cooling,
    /// Its window is over, but no answer has shown yet that it works again.
    HalfOpen,
    /// A person took it out of use.
    Disabled,
}

impl Readiness {
    /// The word in listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cooling => "cooling",
            Self::HalfOpen => "half-open",
            Self::Disabled => "disabled",
        }
    }
}

/// One profile's state, for listings and metrics.
#[derive(Debug, Clone)]
pub struct ProfileState {
    /// Which.
    pub profile: ProfileId,
    /// What it can do.
    pub readiness: Readiness,
    /// Until when it cools.
    pub until: Option<WallTime>,
    /// Why.
    pub reason: Option<String>,
    /// How often in a row.
    pub level: u8,
    /// When it was last used by this process.
    pub last_used: Option<WallTime>,
    stated: bool,
}

impl ProfileState {
    /// The shape of `profile list --json`.
    #[must_use]
    pub fn to_json(&self, kind: &str) -> Value {
        let until = self.until.map(|until| until.to_string());
        let source = if self.stated { "upstream" } else { "ladder" };
        let holds: Vec<Value> = until
            .iter()
            .map(|until| json!({"lane": self.reason, "scope": "profile", "model": null, "until": until, "source": source}))
            .collect();
        json!({
            "profile": self.profile.to_string(),
            "provider": self.profile.provider.as_str(),
            "type": kind,
            "state": self.readiness.as_str(),
            "until": until,
            "reason": self.reason,
            "level": self.level,
            "last_used": self.last_used.map(|at| at.to_string()),
            "holds": holds,
        })
    }
}

/// The state of every profile.
#[derive(Default)]
pub struct Pools {
    inner: Mutex<Inner>,
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pools")
    }
}

impl Pools {
    /// Learns of a profile; one whose value has changed begins anew.
    pub fn know(&self, profile: &ProfileId, fingerprint: [u8; 8]) {
        let mut inner = self.inner.lock();
        let fingerprint = u64::from_be_bytes(fingerprint);
        let cell = inner.cells.entry(profile.clone()).or_default();
        if cell.fingerprint != fingerprint {
            let disabled = cell.disabled;
            *cell = Cell { fingerprint, disabled, ..Cell::default() };
            inner.changed = true;
        }
    }

    /// The first of `profiles` that may be used.
    ///
    /// # Errors
    /// When none may: the moment at which the first may again, where there is one.
    pub fn first_ready<'a>(
        &self,
        profiles: impl Iterator<Item = &'a ProfileId>,
        now: WallTime,
    ) -> Result<&'a ProfileId, Option<WallTime>> {
        let mut inner = self.inner.lock();
        let mut earliest: Option<WallTime> = None;
        for profile in profiles {
            let cell = inner.cells.entry(profile.clone()).or_default();
            let until = WallTime(cell.until);
            if cell.disabled {
                continue;
            }
            if until <= now {
                cell.last_used = Some(now);
                return Ok(profile);
            }
            earliest = Some(earliest.map_or(until, |early| early.min(until)));
        }
        Err(earliest)
    }

    /// Takes in what became of a request that was sent with `profile` at `sent`.
    pub fn settle(&self, profile: &ProfileId, outcome: &Outcome, sent: WallTime, now: WallTime) {
        let mut inner = self.inner.lock();
        let cell = inner.cells.entry(profile.clone()).or_default();
        // What was sent before the window opened proves nothing about it, neither way.
        if sent.0 < cell.opened && cell.until > now.0 {
            return;
        }
        let ladder = match outcome.class {
            Class::Success => {
                let fresh = Cell {
                    fingerprint: cell.fingerprint,
                    disabled: cell.disabled,
                    last_used: cell.last_used,
                    ..Cell::default()
                };
                if fresh != *cell {
                    *cell = fresh;
                    inner.changed = true;
                }
                return;
            }
            Class::RequestSuspect | Class::NotOurs => return,
            Class::RateLimit | Class::Quota | Class::AuthInvalid => LADDER,
            Class::Billing => BILLING,
        };
        if cell.until > now.0 {
            return;
        }
        let forgotten = now.since(WallTime(cell.opened)) > FORGET;
        let step = if forgotten { 0 } else { usize::from(cell.level) };
        let wait = match outcome.reset {
            Some(stated) => stated.clamp(Duration::from_secs(1), LONGEST),
            None => Duration::from_secs(ladder.get(step).or(ladder.last()).copied().unwrap_or(3600)),
        };
        cell.level = u8::try_from(step.saturating_add(1)).unwrap_or(u8::MAX);
        cell.opened = now.0;
        cell.until = now.plus(wait).0;
        cell.reason = outcome.class.as_str().to_owned();
        cell.stated = outcome.reset.is_some();
        inner.changed = true;
    }

    /// Ends a profile's rest.
    pub fn reset(&self, profile: &ProfileId) {
        self.change(profile, |cell| {
            *cell = Cell { fingerprint: cell.fingerprint, disabled: cell.disabled, ..Cell::default() };
        });
    }

    /// Takes a profile out of use until [`Pools::enable`].
    pub fn disable(&self, profile: &ProfileId) {
        self.change(profile, |cell| cell.disabled = true);
    }

    /// Puts a profile back into use.
    pub fn enable(&self, profile: &ProfileId) {
        self.change(profile, |cell| cell.disabled = false);
    }

    fn change(&self, profile: &ProfileId, change: impl FnOnce(&mut Cell)) {
        let mut inner = self.inner.lock();
        change(inner.cells.entry(profile.clone()).or_default());
        inner.changed = true;
    }

    /// Every profile's state.
    #[must_use]
    pub fn states(&self, now: WallTime) -> Vec<ProfileState> {
        let inner = self.inner.lock();
        let state = |(profile, cell): (&ProfileId, &Cell)| {
            let readiness = match cell {
                Cell { disabled: true, .. } => Readiness::Disabled,
                Cell { until, .. } if *until > now.0 => Readiness::Cooling,
                Cell { level: 1.., .. } => Readiness::HalfOpen,
                _ => Readiness::Ready,
            };
            ProfileState {
                profile: profile.clone(),
                readiness,
                until: (readiness == Readiness::Cooling).then_some(WallTime(cell.until)),
                reason: Some(cell.reason.clone()).filter(|reason| !reason.is_empty()),
                level: cell.level,
                last_used: cell.last_used,
                stated: cell.stated,
            }
        };
        inner.cells.iter().map(state).collect()
    }

    /// The state as text, if it changed since the last call: for the vault's table.
    pub fn changed_rows(&self) -> Option<Vec<(String, String)>> {
        let mut inner = self.inner.lock();
        if !std::mem::take(&mut inner.changed) {
            return None;
        }
        let row = |(profile, cell): (&ProfileId, &Cell)| Some((profile.to_string(), serde_json::to_string(cell).ok()?));
        Some(inner.cells.iter().filter_map(row).collect())
    }

    /// Takes the state of an earlier process; no forged or future row holds a profile longer than the longest window.
    pub fn restore(&self, rows: impl IntoIterator<Item = (String, String)>, now: WallTime) {
        let mut inner = self.inner.lock();
        for (profile, text) in rows {
            let (Ok(profile), Ok(mut cell)) = (ProfileId::parse(&profile), serde_json::from_str::<Cell>(&text)) else {
                continue;
            };
            cell.until = cell.until.min(now.plus(LONGEST).0);
            cell.opened = cell.opened.min(now.0);
            inner.cells.insert(profile, cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: WallTime = WallTime(1_000_000_000);

    fn after(seconds: u64) -> WallTime {
        T.plus(Duration::from_secs(seconds))
    }

    fn profile() -> ProfileId {
        ProfileId::parse("acme:one").unwrap()
    }

    fn failure(class: Class, reset: Option<u64>) -> Outcome {
        Outcome { class, reset: reset.map(Duration::from_secs) }
    }

    fn until(pools: &Pools, now: WallTime) -> Option<WallTime> {
        pools.first_ready([&profile()].into_iter(), now).err().flatten()
    }

    #[test]
    fn four_windows_last_as_the_ladder_says() {
        let pools = Pools::default();
        let mut now = T;
        for seconds in [60, 300, 1500, 3600, 3600] {
            pools.settle(&profile(), &failure(Class::RateLimit, None), now, now);
            let end = now.plus(Duration::from_secs(seconds));
            assert_eq!(until(&pools, now), Some(end), "{seconds}");
            now = end;
        }
    }

    #[test]
    fn a_request_during_a_window_does_not_extend_it() {
        let pools = Pools::default();
        for _ in 0..10 {
            pools.settle(&profile(), &failure(Class::RateLimit, None), T, T);
        }
        assert_eq!(until(&pools, T), Some(after(60)));
        // A success that was sent before the window opened proves nothing.
        pools.settle(&profile(), &failure(Class::Success, None), WallTime(T.0 - 1), after(1));
        assert_eq!(until(&pools, after(1)), Some(after(60)));
    }

    #[test]
    fn a_stated_end_wins_over_the_ladder() {
        let pools = Pools::default();
        pools.settle(&profile(), &failure(Class::RateLimit, Some(7)), T, T);
        assert_eq!(until(&pools, T), Some(after(7)));
        assert_eq!(until(&pools, after(7)), None);
    }

    #[test]
    fn a_success_after_the_window_begins_the_ladder_anew() {
        let pools = Pools::default();
        pools.settle(&profile(), &failure(Class::RateLimit, None), T, T);
        pools.settle(&profile(), &failure(Class::Success, None), after(60), after(61));
        pools.settle(&profile(), &failure(Class::RateLimit, None), after(70), after(70));
        assert_eq!(until(&pools, after(70)), Some(after(130)));
    }

    #[test]
    fn a_restart_keeps_a_window_and_bounds_a_forged_one() {
        let pools = Pools::default();
        pools.settle(&profile(), &failure(Class::Billing, None), T, T);
        let rows = pools.changed_rows().unwrap();
        assert!(pools.changed_rows().is_none());
        let next = Pools::default();
        next.restore(rows, after(10));
        assert_eq!(until(&next, after(10)), Some(after(5 * 3600)));
        let forged = Pools::default();
        let row = json!({"until": u64::MAX, "opened": u64::MAX, "level": 9, "reason": "x", "stated": true, "disabled": false, "fingerprint": 0});
        forged.restore([("acme:one".to_owned(), row.to_string()), ("x".to_owned(), "{".to_owned())], T);
        assert_eq!(until(&forged, T), Some(T.plus(LONGEST)));
    }

    #[test]
    fn a_new_value_clears_the_window_and_a_disabled_profile_stays_so() {
        let pools = Pools::default();
        pools.know(&profile(), *b"00000001");
        pools.settle(&profile(), &failure(Class::AuthInvalid, None), T, T);
        pools.disable(&profile());
        pools.know(&profile(), *b"00000002");
        assert_eq!(pools.states(T).first().map(|state| state.readiness), Some(Readiness::Disabled));
        pools.enable(&profile());
        assert_eq!(pools.states(T).first().map(|state| state.readiness), Some(Readiness::Ready));
    }
}
