//! What a request asks of a pool.
//!
//! Invariant: plain values; the caller has settled already who may use what.

use std::sync::Arc;

use crate::clock::WallTime;
use crate::id::{ProfileId, ProviderId};

/// One profile that this request may use.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Which.
    pub profile: ProfileId,
    /// Its place where the pool has no order: setup-tokens and logins before keys before the environment.
    pub rank: u8,
    /// Changes when the value does; says nothing about it. A new value starts with a clean record.
    pub fingerprint: [u8; 8],
    /// Whether its value can be renewed by a refresh ([`Step::Renew`](super::Step::Renew)).
    pub renewable: bool,
}

/// A provider that this request can go to, with the profiles that the agent may use there.
#[derive(Debug, Clone)]
pub struct Target {
    /// Which.
    pub provider: ProviderId,
    /// Whether the same request may go out with another credential. Where it may not, another credential is another
    /// identity.
    pub fungible: bool,
    /// The profiles, in any order.
    pub candidates: Vec<Candidate>,
    /// What the request is called there; unset, as in the ask.
    pub there: Option<Named>,
}

/// The model and the path of a request.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The model it names.
    pub model: Option<Arc<str>>,
    /// Its canonical path, without query.
    pub path: Option<Arc<str>>,
}

impl Target {
    pub(super) fn model<'a>(&'a self, ask: &'a Ask) -> Option<&'a Arc<str>> {
        self.there.as_ref().map_or(ask.model.as_ref(), |there| there.model.as_ref())
    }

    pub(super) fn path<'a>(&'a self, ask: &'a Ask) -> Option<&'a Arc<str>> {
        self.there.as_ref().map_or(ask.path.as_ref(), |there| there.path.as_ref())
    }
}

/// Which conversation a request belongs to. Keys are made by the caller, different for every agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// None that is known.
    #[default]
    None,
    /// All that is known is the agent.
    Agent(u64),
    /// A conversation, whose prompts the provider has cached for one profile.
    Conversation(u64),
}

impl Session {
    pub(super) fn key(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Agent(key) | Self::Conversation(key) => Some(key),
        }
    }
}

/// Whether a request can go out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repeat {
    /// Never: its body is not kept, or it is an upgrade.
    Never,
    /// Where the upstream refused it before it did anything.
    Refused,
    /// Also after an answer was lost: it is idempotent, or marked so.
    Always,
}

/// Whether a request names something that only one account has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bound {
    /// No.
    #[default]
    Free,
    /// Yes, and this key stands for the thing; see [`Pools::owns`](super::Pools::owns).
    To(u64),
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The provider, then its fallbacks.
    pub targets: Vec<Target>,
    /// Its conversation.
    pub session: Session,
    /// The model it names.
    pub model: Option<Arc<str>>,
    /// Its canonical path, without query.
    pub path: Option<Arc<str>>,
    /// Whether it can go out again.
    pub repeat: Repeat,
    /// Whether it names something that only one account has.
    pub bound: Bound,
    /// No waiting and no further attempt after this.
    pub deadline: WallTime,
    /// Whether it may wait a little for a profile. A client that retries by itself (`x-stainless-retry-count`) need not.
    pub patient: bool,
}

impl Ask {
    /// A request to one provider that may be repeated, without a conversation.
    #[must_use]
    pub fn to(target: Target, deadline: WallTime) -> Self {
        Self {
            targets: vec![target],
            session: Session::None,
            model: None,
            path: None,
            repeat: Repeat::Refused,
            bound: Bound::Free,
            deadline,
            patient: true,
        }
    }
}
