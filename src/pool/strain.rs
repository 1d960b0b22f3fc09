//! How an upstream is doing, and how many repeats its pool may send.
//!
//! Invariant: fixed memory; windows of ten seconds and half a minute, in slices.

use std::sync::Arc;

use crate::clock::WallTime;

/// Counts over a sliding window of `N` slices.
#[derive(Debug, Clone)]
struct Window<const N: usize> {
    slice: u64,
    counts: [(u64, u32, u32); N],
}

impl<const N: usize> Window<N> {
    fn new(slice: u64) -> Self {
        Self { slice, counts: [(0, 0, 0); N] }
    }

    fn add(&mut self, now: WallTime, first: u32, second: u32) {
        let number = now.0.checked_div(self.slice).unwrap_or(0);
        let at = usize::try_from(number).unwrap_or(0).checked_rem(N).unwrap_or(0);
        if let Some(count) = self.counts.get_mut(at) {
            if count.0 != number {
                *count = (number, 0, 0);
            }
            count.1 = count.1.saturating_add(first);
            count.2 = count.2.saturating_add(second);
        }
    }

    fn sums(&self, now: WallTime) -> (u32, u32) {
        let number = now.0.checked_div(self.slice).unwrap_or(0);
        let live = self.counts.iter().filter(|(slice, _, _)| {
            *slice <= number && number.saturating_sub(*slice) < u64::try_from(N).unwrap_or(u64::MAX)
        });
        live.fold((0, 0), |sums, (_, first, second)| (sums.0.saturating_add(*first), sums.1.saturating_add(*second)))
    }
}

/// Failures of an upstream for want of capacity.
#[derive(Debug, Default)]
pub(super) struct Strain {
    by_model: Vec<(Option<Arc<str>>, Load)>,
}

#[derive(Debug)]
struct Load {
    in_a_row: u32,
    recent: Window<6>,
}

impl Strain {
    /// Takes a refusal. Whether the upstream should be left alone now: three in a row, or half of at least ten within
    /// half a minute.
    pub(super) fn refused(&mut self, model: Option<&Arc<str>>, now: WallTime) -> bool {
        let at = self.by_model.iter().position(|(name, _)| name.as_ref() == model).unwrap_or_else(|| {
            // As many models as have cells.
            if self.by_model.len() >= 64 {
                self.by_model.remove(0);
            }
            self.by_model.push((model.cloned(), Load { in_a_row: 0, recent: Window::new(5_000) }));
            self.by_model.len().saturating_sub(1)
        });
        let Some((_, load)) = self.by_model.get_mut(at) else { return false };
        load.in_a_row = load.in_a_row.saturating_add(1);
        load.recent.add(now, 0, 1);
        let (fine, refused) = load.recent.sums(now);
        load.in_a_row >= 3 || (fine.saturating_add(refused) >= 10 && refused >= fine)
    }

    /// Takes a success.
    pub(super) fn served(&mut self, model: Option<&Arc<str>>, now: WallTime) {
        for (name, load) in &mut self.by_model {
            if name.is_none() || name.as_ref() == model {
                load.in_a_row = 0;
                load.recent.add(now, 1, 0);
            }
        }
    }
}

/// How many repeats a pool may send for an upstream that fails: a fifth of its requests, and a few anyway.
#[derive(Debug)]
pub(super) struct Retries {
    window: Window<10>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { window: Window::new(1_000) }
    }
}

impl Retries {
    pub(super) fn request(&mut self, now: WallTime) {
        self.window.add(now, 1, 0);
    }

    /// Whether one more repeat may be sent; it is counted then.
    pub(super) fn take(&mut self, now: WallTime) -> bool {
        let (requests, repeats) = self.window.sums(now);
        // Three a second are always allowed.
        let allowed = repeats < (requests / 5).saturating_add(30);
        if allowed {
            self.window.add(now, 0, 1);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_row_are_a_strain_and_a_success_ends_the_row() {
        let mut strain = Strain::default();
        let now = WallTime(1_000_000);
        assert!(!strain.refused(None, now) && !strain.refused(None, now));
        strain.served(None, now);
        assert!(!strain.refused(None, now) && !strain.refused(None, now) && strain.refused(None, now));
    }

    #[test]
    fn half_of_ten_is_a_strain() {
        let mut strain = Strain::default();
        let now = WallTime(1_000_000);
        assert!(!strain.refused(None, now));
        for _ in 0..5 {
            strain.served(None, now);
        }
        let mut opened = Vec::new();
        for _ in 0..4 {
            opened.push(strain.refused(None, now));
            strain.served(None, now);
        }
        assert_eq!(opened, [false, false, false, false]);
        let later = WallTime(1_040_000);
        assert!(!strain.refused(None, later));
    }

    #[test]
    fn repeats_are_a_fifth_and_a_few() {
        let mut retries = Retries::default();
        let now = WallTime(5_000_000);
        for _ in 0..100 {
            retries.request(now);
        }
        let taken = (0..200).filter(|_| retries.take(now)).count();
        assert_eq!(taken, 50);
        assert!(retries.take(WallTime(5_011_000)));
    }
}
