//! What each agent has used of its limits.
//!
//! Invariant: an exchange holds its share until its account is closed; an agent without limits costs one look-up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Limits, Meter, Window};
use crate::clock::WallTime;
use crate::id::AgentName;

/// What an agent that has too much under way is told to wait: nobody knows when one of its exchanges ends.
const BUSY: Duration = Duration::from_secs(1);
/// The first word of a stored row.
const ROW: &str = "ration ";

/// The limits of all agents, and what is used of them.
#[derive(Debug, Default)]
pub struct Rations {
    agents: Mutex<HashMap<AgentName, Arc<Ration>>>,
    changed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Ration {
    counts: Mutex<Counts>,
    changed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Counts {
    limits: Limits,
    requests: Option<Meter>,
    tokens: Option<Window>,
    running: u32,
}

/// One exchange's part of its agent's limits, for as long as it lasts.
pub struct Share(Arc<Ration>);

/// Which limit an agent has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// The key in the configuration: `requests`, `concurrency` or `tokens`.
    pub key: &'static str,
    /// The limit as it is written there.
    pub limit: String,
    /// How long until one more may come.
    pub wait: Duration,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<(u64, u64)>,
}

impl Rations {
    /// These limits, unused.
    #[must_use]
    pub fn new(limits: HashMap<AgentName, Limits>) -> Self {
        let rations = Self::default();
        rations.reconfigure(limits);
        rations
    }

    /// New limits; what is used stays used, where the limit is the same.
    pub fn reconfigure(&self, limits: HashMap<AgentName, Limits>) {
        let mut agents = self.agents.lock();
        agents.retain(|agent, _| limits.get(agent).is_some_and(|limits| !limits.is_empty()));
        for (agent, limits) in limits.into_iter().filter(|(_, limits)| !limits.is_empty()) {
            let ration = agents.entry(agent).or_insert_with(|| {
                let counts = Counts { limits: Limits::default(), requests: None, tokens: None, running: 0 };
                Arc::new(Ration { counts: Mutex::new(counts), changed: Arc::clone(&self.changed) })
            });
            ration.counts.lock().adopt(limits);
        }
    }

    /// Lets one more exchange of `agent` begin; `None` for one that has no limits.
    ///
    /// # Errors
    /// The [`Excess`]; nothing is counted then.
    pub fn enter(&self, agent: &AgentName, now: WallTime) -> Result<Option<Share>, Excess> {
        let Some(ration) = self.agents.lock().get(agent).cloned() else { return Ok(None) };
        ration.counts.lock().enter(now)?;
        ration.changed.store(true, Ordering::Relaxed);
        Ok(Some(Share(ration)))
    }

    /// The rows to store if anything changed since they were taken last.
    #[must_use]
    pub fn changed_rows(&self) -> Option<Vec<(String, String)>> {
        self.changed.swap(false, Ordering::Relaxed).then(|| self.rows())
    }

    fn rows(&self) -> Vec<(String, String)> {
        let agents = self.agents.lock();
        let row = |(agent, ration): (&AgentName, &Arc<Ration>)| {
            let counts = ration.counts.lock();
            let requests = counts.requests.as_ref().and_then(Meter::window).map(Window::stored);
            let row = Row { requests, tokens: counts.tokens.as_ref().map(Window::stored) };
            Some((format!("{ROW}{agent}"), serde_json::to_string(&row).ok()?))
        };
        agents.iter().filter_map(row).collect()
    }

    /// Takes stored rows back. What cannot be read, and what is of other kinds, is left out.
    pub fn restore<'r>(&self, rows: impl IntoIterator<Item = (&'r str, &'r str)>) {
        let agents = self.agents.lock();
        for (scope, json) in rows {
            let Some(agent) = scope.strip_prefix(ROW).and_then(|name| AgentName::parse(name).ok()) else { continue };
            let (Some(ration), Ok(row)) = (agents.get(&agent), serde_json::from_str::<Row>(json)) else { continue };
            let mut counts = ration.counts.lock();
            if let (Some(meter), Some(stored)) = (&mut counts.requests, row.requests) {
                meter.restore(stored);
            }
            if let (Some(window), Some(stored)) = (&mut counts.tokens, row.tokens) {
                window.restore(stored);
            }
        }
    }
}

impl Counts {
    fn adopt(&mut self, limits: Limits) {
        if self.limits.requests != limits.requests {
            self.requests = limits.requests.map(Meter::of);
        }
        if self.limits.tokens != limits.tokens {
            // A budget that was raised in the middle of a day has been used already.
            let used = self.tokens.as_ref().map(Window::stored);
            let same = self.limits.tokens.zip(limits.tokens).is_some_and(|(old, new)| old.per == new.per);
            self.tokens = limits.tokens.map(Window::of);
            if let (Some(window), Some(used), true) = (&mut self.tokens, used, same) {
                window.restore(used);
            }
        }
        self.limits = limits;
    }

    fn enter(&mut self, now: WallTime) -> Result<(), Excess> {
        if let Some(most) = self.limits.concurrency.filter(|most| self.running >= *most) {
            return Err(Excess { key: "concurrency", limit: most.to_string(), wait: BUSY });
        }
        if let Some(window) = &self.tokens
            && let Some(until) = window.full_until(now)
        {
            return Err(Excess { key: "tokens", limit: window.rate().to_string(), wait: until.since(now) });
        }
        if let Some(meter) = &mut self.requests {
            if let Some(until) = meter.free_at(now) {
                return Err(Excess { key: "requests", limit: meter.rate().to_string(), wait: until.since(now) });
            }
            meter.take(now);
        }
        self.running = self.running.saturating_add(1);
        Ok(())
    }
}

impl Share {
    /// Counts tokens that this exchange has used.
    pub fn spend(&self, tokens: u64, now: WallTime) {
        if let Some(window) = &mut self.0.counts.lock().tokens {
            window.add(tokens, now);
            self.0.changed.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.running = counts.running.saturating_sub(1);
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Share")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limit::{Period, Rate};

    const NOON: WallTime = WallTime(1_777_593_600_000 + 12 * 3_600_000);

    fn coder() -> AgentName {
        AgentName::parse("coder").unwrap()
    }

    fn rations(limits: Limits) -> Rations {
        Rations::new(HashMap::from([(coder(), limits)]))
    }

    fn key(rations: &Rations) -> &'static str {
        rations.enter(&coder(), NOON).unwrap_err().key
    }

    #[test]
    fn an_agent_without_limits_has_none() {
        let rations = rations(Limits { concurrency: Some(1), ..Limits::default() });
        assert!(rations.enter(&AgentName::parse("other").unwrap(), NOON).unwrap().is_none());
    }

    #[test]
    fn a_share_is_held_until_it_is_dropped() {
        let rations = rations(Limits { concurrency: Some(2), ..Limits::default() });
        let first = rations.enter(&coder(), NOON).unwrap();
        let second = rations.enter(&coder(), NOON).unwrap();
        assert_eq!(key(&rations), "concurrency");
        drop(first);
        let third = rations.enter(&coder(), NOON).unwrap();
        assert_eq!(key(&rations), "concurrency");
        drop((second, third));
    }

    #[test]
    fn what_is_refused_is_not_counted() {
        let limits = Limits {
            requests: Some(Rate { count: 2, per: Period::Minute }),
            concurrency: Some(1),
            ..Limits::default()
        };
        let rations = rations(limits);
        let share = rations.enter(&coder(), NOON).unwrap();
        for _ in 0..5 {
            assert_eq!(key(&rations), "concurrency");
        }
        drop(share);
        drop(rations.enter(&coder(), NOON).unwrap());
        let excess = rations.enter(&coder(), NOON).unwrap_err();
        assert_eq!((excess.key, excess.limit.as_str()), ("requests", "2/min"));
        assert_eq!(excess.wait, Duration::from_secs(30));
    }

    #[test]
    fn a_days_tokens_survive_a_restart_and_end_at_midnight() {
        let limits = Limits { tokens: Some(Rate { count: 100, per: Period::Day }), ..Limits::default() };
        let before = rations(limits.clone());
        let share = before.enter(&coder(), NOON).unwrap().unwrap();
        share.spend(99, NOON);
        assert!(before.enter(&coder(), NOON).is_ok(), "what began within the limit is finished");
        share.spend(50, NOON);
        let rows = before.changed_rows().unwrap();
        assert!(before.changed_rows().is_none());
        let after = rations(limits.clone());
        after.restore(rows.iter().map(|(scope, json)| (scope.as_str(), json.as_str())));
        let excess = after.enter(&coder(), NOON).unwrap_err();
        assert_eq!((excess.key, excess.wait), ("tokens", Duration::from_secs(12 * 3600)));
        assert!(after.enter(&coder(), NOON.plus(Duration::from_secs(12 * 3600))).is_ok());
        // A reload does not hand out a second budget.
        let more = Limits { tokens: Some(Rate { count: 149, per: Period::Day }), ..limits };
        after.reconfigure(HashMap::from([(coder(), more)]));
        assert_eq!(key(&after), "tokens");
    }

    #[test]
    fn rows_that_cannot_be_read_are_left_out() {
        let rations = rations(Limits { tokens: Some(Rate { count: 1, per: Period::Day }), ..Limits::default() });
        let rows =
            [("ration coder", "{"), ("ration ?", "{}"), ("profile a:b", "{}"), ("ration coder", "{\"tokens\":7}")];
        rations.restore(rows);
        assert!(rations.enter(&coder(), NOON).is_ok());
    }
}
