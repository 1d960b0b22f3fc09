//! The words of the grammar that stand for values, each list in one place for reader, schema and writer.
//!
//! Invariant: every value has exactly one word that is written, and every word is read.

use super::model::{Durability, Foreign, Level, LogFormat, Strategy};
use crate::policy::limit::Period;
use crate::policy::{Enforcement, Fallback, Scrub, SetCookie};

/// A value that is written as one of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// All of them; where two words stand for one value, the first is the one that is written.
    const WORDS: &'static [(&'static str, Self)];

    fn read(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

impl Word for Fallback {
    const WORDS: &'static [(&'static str, Self)] = &[("deny", Self::Deny), ("tunnel", Self::Tunnel)];
}

impl Word for Enforcement {
    const WORDS: &'static [(&'static str, Self)] = &[("enforce", Self::Enforce), ("observe", Self::Observe)];
}

impl Word for Scrub {
    const WORDS: &'static [(&'static str, Self)] =
        &[("on", Self::On), ("off", Self::Off), ("true", Self::On), ("false", Self::Off)];
}

impl Word for SetCookie {
    const WORDS: &'static [(&'static str, Self)] = &[("strip", Self::Strip), ("pass", Self::Pass)];
}

impl Word for bool {
    const WORDS: &'static [(&'static str, Self)] = &[("on", true), ("off", false), ("true", true), ("false", false)];
}

impl Word for Strategy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("sticky", Self::Sticky),
        ("priority", Self::Priority),
        ("round-robin", Self::RoundRobin),
        ("least-used", Self::LeastUsed),
    ];
}

impl Word for Foreign {
    const WORDS: &'static [(&'static str, Self)] =
        &[("replace", Self::Replace), ("pass", Self::Pass), ("refuse", Self::Refuse)];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("json", Self::Json)];
}

impl Word for Level {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Word for Durability {
    const WORDS: &'static [(&'static str, Self)] = &[("written", Self::Written), ("synced", Self::Synced)];
}

impl Word for Period {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("s", Self::Second),
        ("min", Self::Minute),
        ("h", Self::Hour),
        ("day", Self::Day),
        ("sec", Self::Second),
        ("second", Self::Second),
        ("m", Self::Minute),
        ("minute", Self::Minute),
        ("hour", Self::Hour),
        ("d", Self::Day),
    ];
}

/// What a route does, before it is known with what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ActionWord {
    Deny,
    Tunnel,
    Allow,
}

impl Word for ActionWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("deny", Self::Deny), ("tunnel", Self::Tunnel), ("allow", Self::Allow)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<W: Word + std::fmt::Debug>() {
        for (word, value) in W::WORDS {
            assert_eq!(W::read(word), Some(*value));
            assert_eq!(W::read(value.word()), Some(*value));
        }
    }

    #[test]
    fn every_word_is_read_and_every_value_written() {
        check::<Fallback>();
        check::<Enforcement>();
        check::<Scrub>();
        check::<SetCookie>();
        check::<bool>();
        check::<Strategy>();
        check::<Foreign>();
        check::<LogFormat>();
        check::<Level>();
        check::<Durability>();
        check::<Period>();
    }
}
