//! The steps of a request, as the proxy follows them.
//!
//! Invariant: every step says all that the proxy needs to take it.

use tokio::sync::futures::OwnedNotified;

use super::settle::Used;
use super::{Lease, Occupied, Pools, Shortage};
use crate::clock::WallTime;
use crate::id::ProfileId;
use crate::provider::outcome::{Class, Outcome};

/// What the proxy does next for a request.
#[derive(Debug)]
pub enum Step {
    /// Send it with this profile, then [`Attempts::settle`](super::Attempts::settle).
    Send(Lease),
    /// Renew the value of this profile, then [`Attempts::renewed`](super::Attempts::renewed).
    Renew(Renewal),
    /// Wait, then [`Attempts::resume`](super::Attempts::resume).
    Wait(Wait),
    /// Give the client what the last attempt brought, an answer or an error of its own.
    Forward(Committed),
    /// Give the client this answer instead.
    Answer(Shortage),
}

/// A profile whose value has to be renewed before the request goes out again.
#[derive(Debug)]
pub struct Renewal {
    /// Which.
    pub profile: ProfileId,
    /// The index of its target.
    pub target: usize,
    /// The index of its candidate there.
    pub candidate: usize,
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// There is a new value.
    Fresh,
    /// There is none, and there will be none without a person.
    Refused,
    /// There is none now.
    Failed,
}

/// A wait: over at a moment, or when a profile may have become free.
#[derive(Debug)]
pub struct Wait {
    /// Over then.
    pub until: WallTime,
    /// Over when this is ready.
    pub woken: OwnedNotified,
}

/// An answer that is on its way to the client.
#[derive(Debug)]
pub struct Committed {
    pub(super) pools: Pools,
    pub(super) used: Option<Used>,
    pub(super) seat: Option<Occupied>,
}

impl Committed {
    /// What keeps the profile occupied; to be held to the end of the answer.
    pub fn take_seat(&mut self) -> Option<Occupied> {
        self.seat.take()
    }

    /// An error that came after the answer had begun: for later requests.
    pub fn late(&mut self, outcome: &Outcome, now: WallTime) {
        if outcome.class == Class::Success {
            return;
        }
        if let Some(used) = &mut self.used {
            self.pools.with(|state| state.record(used, outcome, now));
        }
    }
}
