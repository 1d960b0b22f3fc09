//! The rules as plain values: what the configuration says, before it is compiled.
//!
//! Invariant: nothing here decides.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::path::PathPattern;
use crate::id::{AgentName, ProfileId, ProviderId};
use crate::message::pattern::HostPattern;

/// Everything that the configuration says about who may reach what.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyRules {
    /// First match wins.
    pub routes: Vec<Route>,
    /// What the agents may use; an agent without an entry may use what its scope holds.
    pub agents: HashMap<AgentName, Vec<Allowance>>,
    /// What becomes of everything else.
    pub fallback: Fallback,
    /// Where `default` is written, if it is.
    pub fallback_at: Mark,
    /// Whether responses are searched for secrets where a route says nothing.
    pub scrub: Scrub,
    /// Whether a denial is one.
    pub enforcement: Enforcement,
}

/// One declarative rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The operator's name for it.
    pub name: Option<String>,
    /// Where it is written.
    pub at: Mark,
    /// Whom it is about; nobody named means everybody.
    pub agents: Vec<AgentName>,
    /// Which hosts. The pattern's own port is not looked at: `ports` says which.
    pub host: HostPattern,
    /// Which ports.
    pub ports: Ports,
    /// Which methods; none named means all.
    pub methods: Vec<Method>,
    /// Which paths; none named means all.
    pub paths: Vec<PathPattern>,
    /// What becomes of it.
    pub action: RouteAction,
    /// Whether responses are searched for secrets, where it differs from the general setting.
    pub scrub: Option<Scrub>,
    /// Whether the cookies that a provider sets in answer to a credential go on to the agent.
    pub set_cookie: SetCookie,
}

/// What becomes of the cookies in the answer to a request with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetCookie {
    /// They are taken out: a session opened with a credential is as good as the credential (EX-29).
    #[default]
    Strip,
    /// They go on.
    Pass,
}

impl Route {
    /// Whether only the exchange, not its tunnel, tells if the route matches.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// The ports of a route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ports {
    /// None written. A denial is for every port; a tunnel for 80 and 443; a credential for 443.
    #[default]
    Usual,
    /// Exactly these.
    Listed(Vec<u16>),
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAction {
    /// Refuse.
    Deny,
    /// A blind tunnel.
    Tunnel,
    /// Intercept, and carry a credential where a provider is named.
    Allow {
        /// Whose credential.
        provider: Option<ProviderId>,
        /// Exactly this one of the pool.
        profile: Option<ProfileId>,
    },
}

/// One entry of an agent's `allow`.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowance {
    /// What may be used.
    pub provider: ProviderId,
    /// With which methods; none named means all.
    pub methods: Vec<Method>,
    /// On which paths; none named means all.
    pub paths: Vec<PathPattern>,
    /// Where it is written.
    pub at: Mark,
}

/// What becomes of a host that no rule and no provider speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// Refuse.
    #[default]
    Deny,
    /// A blind tunnel to ports 80 and 443.
    Tunnel,
}

/// What a denial of the rules does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// It refuses.
    #[default]
    Enforce,
    /// It is noted, and the exchange goes on as if neither routes nor allowances were written: what the agent's scope
    /// holds is put in, everything else goes on without a credential.
    Observe,
}

/// Whether responses are searched for secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scrub {
    /// They are.
    #[default]
    On,
    /// They are not.
    Off,
}

/// Which providers have a usable credential, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holdings {
    /// For every agent.
    pub shared: HashSet<ProviderId>,
    /// For one agent alone.
    pub private: HashMap<AgentName, HashSet<ProviderId>>,
}

impl Holdings {
    /// Whether a credential of `provider` is in the scope of `agent`.
    #[must_use]
    pub fn usable(&self, agent: &AgentName, provider: &ProviderId) -> bool {
        self.shared.contains(provider) || self.private.get(agent).is_some_and(|own| own.contains(provider))
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Where something is written. Two marks are always equal: a rule that moved to another line is the same rule.
#[derive(Debug, Clone, Default)]
pub struct Mark(pub Option<Place>);

impl PartialEq for Mark {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Mark {}

/// Which rule decided, for logs and `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `routes[2] "issues-only"`, `agents.coder.allow[0]`, `provider openai` or `default`.
    pub name: Arc<str>,
    /// Where it is written, if it is.
    pub place: Option<Place>,
}

impl Rule {
    pub(super) fn new(name: &str, at: &Mark) -> Self {
        Self { name: name.into(), place: at.0.clone() }
    }
}

/// Its name, and where it is written.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.place {
            None => Ok(()),
            Some(place) => write!(f, " ({place})"),
        }
    }
}
