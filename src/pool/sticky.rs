//! Which profile a conversation is with.
//!
//! Invariant: at most [`BOUND`] conversations are remembered, the least used go first; none longer than an hour.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::WallTime;

const BOUND: usize = 10_000;
const LIFE: Duration = Duration::from_secs(3600);

/// A conversation that was used this recently has its prompts in the provider's cache.
const WARM: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) member: usize,
    /// Where the conversation goes while its own profile rests for a short time.
    pub(super) detour: Option<usize>,
    pub(super) used: WallTime,
}

impl Pin {
    pub(super) fn is_warm(&self, now: WallTime) -> bool {
        now.since(self.used) < WARM
    }
}

/// Two generations: what is used moves to the young one, and when that is full the old one goes.
#[derive(Debug, Default)]
pub(super) struct Sticky {
    young: HashMap<u64, Pin>,
    old: HashMap<u64, Pin>,
}

impl Sticky {
    pub(super) fn find(&self, key: u64, now: WallTime) -> Option<Pin> {
        let pin = self.young.get(&key).or_else(|| self.old.get(&key))?;
        (now.since(pin.used) < LIFE).then_some(*pin)
    }

    pub(super) fn put(&mut self, key: u64, pin: Pin) {
        self.old.remove(&key);
        if self.young.len() >= BOUND / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, pin);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len().saturating_add(self.old.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_and_keeps_what_is_used() {
        let mut sticky = Sticky::default();
        let pin = |member, used| Pin { member, detour: None, used: WallTime(used) };
        sticky.put(7, pin(1, 0));
        for key in 100..50_000 {
            if key % 1000 == 0 {
                sticky.put(7, pin(1, 0));
            }
            sticky.put(key, pin(0, 0));
        }
        assert!(sticky.len() <= BOUND);
        assert_eq!(sticky.find(7, WallTime(0)).map(|pin| pin.member), Some(1));
        assert_eq!(sticky.find(101, WallTime(0)), None);
        assert_eq!(sticky.find(7, WallTime(3_600_000)), None);
    }
}
