//! What a decision is: a permit, which only [`Policy`](super::Policy) can make, or a refusal.
//!
//! Invariant: a [`Permit`] is for one exchange. It cannot be cloned, and nobody outside this room can make one.

use crate::code::Code;
use crate::id::{AgentName, ProfileId, ProviderId};
use crate::message::origin::Origin;

use super::rules::{Rule, Scrub, SetCookie};

/// Leave for one agent to have one exchange with one origin.
#[derive(Debug)]
pub struct Permit {
    agent: AgentName,
    origin: Origin,
    action: Action,
    rule: Rule,
    scrub: Scrub,
    observed: bool,
    set_cookie: SetCookie,
}

impl Permit {
    pub(super) fn new(agent: &AgentName, origin: Origin, action: Action, rule: Rule, scrub: Scrub) -> Self {
        Self { agent: agent.clone(), origin, action, rule, scrub, observed: false, set_cookie: SetCookie::Strip }
    }

    /// The same, for what its rule would have refused.
    pub(super) fn observed(self) -> Self {
        Self { observed: true, ..self }
    }

    /// For whom.
    #[must_use]
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// With whom.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// With or without a credential.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Who said so.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    pub(super) fn with(self, set_cookie: SetCookie) -> Self {
        Self { set_cookie, ..self }
    }

    /// What becomes of the cookies that the provider sets.
    #[must_use]
    pub fn set_cookie(&self) -> SetCookie {
        self.set_cookie
    }

    /// Whether its rule would have refused it, and denials are only noted.
    #[must_use]
    pub fn would_deny(&self) -> bool {
        self.observed
    }

    /// Whether the response is searched for secrets.
    #[must_use]
    pub fn scrub(&self) -> bool {
        self.scrub == Scrub::On
    }
}

/// What is done with a permitted exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A credential is put in.
    Inject {
        /// Whose.
        provider: ProviderId,
        /// Exactly this one of the pool, where a route says so.
        profile: Option<ProfileId>,
    },
    /// It goes on without one.
    Forward,
}

/// Why an exchange or a tunnel is not permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No rule lets it.
    Denied(Rule),
    /// A credential would be called for, and the origin is not over TLS.
    Cleartext(Rule),
    /// Allowed, and nothing is stored that could be used.
    MissingCredentials(ProviderId, Rule),
    /// A rule looks at paths, and this one could be read in two ways.
    AmbiguousPath(Rule),
}

impl Refusal {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::PolicyDenied,
            Self::Cleartext(_) => Code::CleartextRefused,
            Self::MissingCredentials(..) => Code::CredentialsMissing,
            Self::AmbiguousPath(_) => Code::BadRequest,
        }
    }

    /// Who said so.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        match self {
            Self::Denied(rule)
            | Self::Cleartext(rule)
            | Self::MissingCredentials(_, rule)
            | Self::AmbiguousPath(rule) => rule,
        }
    }

    /// The provider that would have been used, where that is known.
    #[must_use]
    pub fn provider(&self) -> Option<&ProviderId> {
        match self {
            Self::MissingCredentials(provider, _) => Some(provider),
            Self::Denied(_) | Self::Cleartext(_) | Self::AmbiguousPath(_) => None,
        }
    }
}

/// What becomes of a CONNECT, before anything inside is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelDecision {
    /// Terminate TLS here and judge each exchange.
    Intercept,
    /// Pass bytes through unread.
    Tunnel(Rule),
    /// The same, where the rule would have refused it and denials are only noted.
    Observed(Rule),
    /// Neither.
    Refuse(Refusal),
}
