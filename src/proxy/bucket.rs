//! So many in a while, for each of many: wrong tokens of a source, new certificates for an agent.
//!
//! Invariant: what is kept is bounded; when it is full, newcomers share one bucket and nobody is forgotten early.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Buckets that are kept; a full one is forgotten before that.
const MOST: usize = 4096;

/// One bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    burst: u32,
    every: Duration,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When each would be full again: an empty bucket is one that is full a whole burst later.
    full_at: HashMap<K, Instant>,
    shared: Option<Instant>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets that hold `burst` and get another one `every` so long.
    #[must_use]
    pub fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every, state: Mutex::new(State { full_at: HashMap::new(), shared: None }) }
    }

    /// Takes one from the bucket of `key`. `None` where there was one, else how long until there is; that one is
    /// taken all the same, so that whoever waits so long has it, up to a second burst of waiting.
    pub fn take(&self, key: K, now: Instant) -> Option<Duration> {
        let size = self.every.saturating_mul(self.burst);
        let mut state = self.state.lock();
        if state.full_at.len() >= MOST && !state.full_at.contains_key(&key) {
            state.full_at.retain(|_, full_at| *full_at > now);
        }
        let room = state.full_at.len() < MOST || state.full_at.contains_key(&key);
        let mut own = None;
        let full_at =
            if room { state.full_at.entry(key).or_insert(now) } else { own.insert(state.shared.unwrap_or(now)) };
        let after = (*full_at).max(now).checked_add(self.every).unwrap_or(now);
        let owed = after.saturating_duration_since(now);
        let wait = owed.saturating_sub(size);
        if wait <= size {
            *full_at = after;
        }
        if let Some(shared) = own {
            state.shared = Some(shared);
        }
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(50);

    #[test]
    fn a_burst_is_free_and_then_each_has_its_time() {
        let (buckets, now) = (Buckets::new(20, EVERY), Instant::now());
        for _ in 0..20 {
            assert_eq!(buckets.take("a", now), None);
        }
        assert_eq!(buckets.take("a", now), Some(EVERY));
        assert_eq!(buckets.take("a", now), Some(2 * EVERY));
        assert_eq!(buckets.take("b", now), None, "another's is its own");
        assert_eq!(buckets.take("a", now + 3 * EVERY), None);
        // However often one comes, the wait does not grow without end.
        for _ in 0..10_000 {
            buckets.take("a", now);
        }
        assert!(buckets.take("a", now).unwrap() <= 21 * EVERY);
        assert_eq!(buckets.take("a", now + 60 * EVERY), None);
    }

    #[test]
    fn in_any_while_no_more_than_the_rate_and_a_burst() {
        // Conservation: whatever the times of asking, what is given fits the rate.
        let (buckets, begin) = (Buckets::new(5, EVERY), Instant::now());
        let mut given = 0;
        for step in 0..1000_u32 {
            given += u32::from(buckets.take(0, begin + Duration::from_millis(u64::from(step))).is_none());
        }
        assert!((5..=5 + 1000 / 50).contains(&given), "{given}");
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let (buckets, now) = (Buckets::new(1, EVERY), Instant::now());
        for key in 0..2 * MOST {
            buckets.take(key, now);
        }
        assert_eq!(buckets.state.lock().full_at.len(), MOST);
        assert!(buckets.take(2 * MOST + 1, now).is_some(), "newcomers share one");
        assert_eq!(buckets.take(2 * MOST + 1, now + Duration::from_secs(60)), None);
    }
}
