//! Wrong tokens and forged placeholders, counted for each source.
//!
//! A source can be shared: every agent of a machine comes from 127.0.0.1. So a right token is never refused for what
//! others guessed; only the answer to wrong ones changes. Tokens have 160 random bits, and what is bounded here is
//! noise: lines, answers, connections.
//!
//! Invariant: who sends no credentials has guessed nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::agent::IdentityError;
use crate::code::Code;
use crate::proxy::bucket::Buckets;
use crate::proxy::peer::Peer;
use crate::proxy::respond::Answer;

/// More than a misconfigured client tries in a minute.
const BURST: u32 = 60;
const EVERY: Duration = Duration::from_secs(1);

/// Who guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    User(u32),
}

/// The counts of this process.
#[derive(Debug)]
pub struct Guesses(Buckets<Source>);

impl Default for Guesses {
    fn default() -> Self {
        Self(Buckets::new(BURST, EVERY))
    }
}

impl Guesses {
    /// The answer to a caller that could not be identified.
    #[must_use]
    pub fn answer(&self, client: Peer, error: IdentityError) -> Answer {
        let wait = match error {
            IdentityError::Missing => None,
            IdentityError::Malformed | IdentityError::Unknown => self.0.take(Source::of(client), Instant::now()),
        };
        match wait {
            None => Answer::of(Code::AgentUnauthenticated),
            Some(wait) => Answer::saying(Code::AgentRateLimited, "too many wrong tokens from this address")
                .hint("ask the operator for a token: keyferry env --agent NAME")
                .after(Some(wait)),
        }
    }
}

impl Source {
    fn of(client: Peer) -> Self {
        match client {
            Peer::User(uid) => Self::User(uid),
            Peer::Address(address) => Self::Address(match address.ip().to_canonical() {
                // A host has a whole /64 to itself.
                IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
                IpAddr::V4(ip) => ip.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_tokens_of_one_source_are_limited_and_no_token_is_no_guess() {
        // AU-04
        let guesses = Guesses::default();
        let one = Peer::Address("[2001:db8::1]:1".parse().unwrap());
        let neighbour = Peer::Address("[2001:db8::2]:9".parse().unwrap());
        for _ in 0..1000 {
            assert_eq!(guesses.answer(one, IdentityError::Missing).code, Code::AgentUnauthenticated);
        }
        for _ in 0..BURST {
            assert_eq!(guesses.answer(one, IdentityError::Unknown).code, Code::AgentUnauthenticated);
        }
        let limited = guesses.answer(neighbour, IdentityError::Malformed);
        assert_eq!(limited.code, Code::AgentRateLimited);
        assert!(limited.retry_after.is_some());
        assert_eq!(guesses.answer(Peer::User(7), IdentityError::Unknown).code, Code::AgentUnauthenticated);
    }
}
