//! What every exchange of this process shares, and the snapshot that a reload swaps.
//!
//! Invariant: an exchange reads one snapshot from beginning to end; a reload in between does not touch it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

use crate::agent::Agents;
use crate::clock::Clock;
use crate::config::Foreign;
use crate::id::{AgentName, ProfileId, ProviderId, ShortName};
use crate::message::origin::{Origin, Scheme};
use crate::policy::Policy;
use crate::policy::limit::Rations;
use crate::pool::Pools;
use crate::provider::outcome::Rulebook;
use crate::provider::{Catalogue, Provider};
use crate::proxy::account::Books;
use crate::proxy::bucket::Buckets;
use crate::proxy::guesses::Guesses;
use crate::proxy::limits::Limits;
use crate::source::{Credentials, Member, Renewals};
use crate::spawn::Spawner;
use crate::telemetry::Audit;
use crate::tls::Leaves;
use crate::upstream::Upstream;
use crate::upstream::body::Budget;

/// One moment's configuration, agents and credentials.
pub struct View {
    /// Who may reach what.
    pub policy: Policy,
    /// The providers.
    pub catalogue: Arc<Catalogue>,
    /// Who is who.
    pub agents: Agents,
    /// Their names, for placeholders on the base-URL listener.
    pub names: Vec<AgentName>,
    /// What answers mean.
    pub rules: Rulebook,
    /// The credentials, unopened.
    pub credentials: Credentials,
    /// Where each pool's requests go when its profiles rest.
    pub fallbacks: HashMap<ProviderId, Vec<Fallback>>,
    /// What becomes of real credentials that agents send themselves, where that is not to replace them.
    pub foreign: HashMap<ProviderId, Foreign>,
    /// The operator's order of each pool.
    pub orders: HashMap<ProviderId, Vec<ShortName>>,
}

/// Another provider that takes a pool's requests.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// Which.
    pub provider: ProviderId,
    /// The names of models there, by their names here; the first that fits counts.
    pub models: Vec<(String, String)>,
}

impl View {
    /// The members of a pool that `agent` may use, first choice first: the operator's order, else by rank and age.
    #[must_use]
    pub fn pool_order(&self, provider: &ProviderId, agent: &AgentName) -> Vec<&Member> {
        let mut members = self.credentials.members(provider, agent);
        let order = self.orders.get(provider).map_or(&[][..], Vec::as_slice);
        members.sort_by_cached_key(|member| {
            let place = order.iter().position(|name| *name == member.profile.name).unwrap_or(order.len());
            (place, member.rank, member.created, member.profile.name.clone())
        });
        members
    }
}

impl View {
    /// The origin that a provider's name stands for: its first host that is no pattern, else the first that a stored
    /// credential is sealed for.
    #[must_use]
    pub fn own_origin(&self, provider: &Provider, agent: &AgentName) -> Option<Origin> {
        let sealed = self.credentials.members(&provider.id, agent);
        let stored = sealed.iter().flat_map(|member| member.audience.iter());
        let named =
            provider.kinds.iter().flat_map(|kind| kind.placements.iter()).flat_map(|placement| placement.hosts.iter());
        named.chain(stored).find_map(|pattern| {
            pattern.exact_host().map(|host| Origin::new(Scheme::Https, host.clone(), pattern.port()))
        })
    }

    /// The members of the pool that an exchange may use, first choice first; `only` is the one that a route names.
    #[must_use]
    pub fn eligible(
        &self,
        provider: &Provider,
        agent: &AgentName,
        origin: &Origin,
        path: &str,
        only: Option<&ProfileId>,
    ) -> Vec<&Member> {
        let mut members = self.pool_order(&provider.id, agent);
        members.retain(|member| {
            let here = provider.kind(&member.kind).is_some_and(|kind| kind.placement(origin, path).is_some());
            here && only.is_none_or(|only| *only == member.profile)
                && member.audience.iter().any(|pattern| pattern.matches(origin))
        });
        members
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

/// What lives as long as the process.
pub struct Shared {
    /// The snapshot.
    pub view: ArcSwap<View>,
    /// Which profile now.
    pub pools: Pools,
    /// What agents have used of their limits.
    pub rations: Rations,
    /// What renews logins.
    pub renewals: Arc<Renewals>,
    /// Connections to upstreams.
    pub upstream: Arc<Upstream>,
    /// Our own certificates.
    pub leaves: ArcSwap<Leaves>,
    /// Where records go.
    pub books: Books,
    /// Where intents go.
    pub audit: Arc<Audit>,
    /// The time.
    pub clock: Clock,
    /// Where tasks start.
    pub spawner: Spawner,
    /// The bounds.
    pub limits: Limits,
    /// Memory for held bodies.
    pub budget: Arc<Budget>,
    /// Wrong tokens.
    pub guesses: Guesses,
    /// New certificates for each agent (TL-36).
    pub mints: Buckets<AgentName>,
    /// Permits for open connections.
    pub connections: Arc<Semaphore>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}
