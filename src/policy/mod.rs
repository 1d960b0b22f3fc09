//! Who may reach what: routes, then what each agent may use, then the default.
//!
//! Invariant: a decision is a pure function of the rules, the holdings and the exchange; a [`Permit`] is made here
//! and nowhere else; whatever no rule speaks for is refused or, where the default says so, tunnelled unread.

mod explain;
pub mod limit;
mod observe;
pub mod path;
mod permit;
#[cfg(test)]
mod reference;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;

use crate::id::{AgentName, ProviderId};
use crate::message::origin::{Host, Origin, Scheme};
use crate::message::path::Path;
use crate::message::pattern::{HostPattern, HostTable};

pub use explain::{Explanation, Mismatch, PassedOver, Verdict};
pub use permit::{Action, Permit, Refusal, TunnelDecision};
pub use rules::{
    Allowance, Enforcement, Fallback, Holdings, Mark, Place, PolicyRules, Ports, Route, RouteAction, Rule, Scrub,
    SetCookie,
};

use path::{JudgedPath, PathPattern};

/// Ports that a tunnel goes to where no route says otherwise.
const TUNNEL_PORTS: [u16; 2] = [80, 443];

/// The compiled rules together with what is stored. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    compiled: Arc<Compiled>,
    holdings: Arc<Holdings>,
}

struct Compiled {
    routes: Vec<(Route, Rule)>,
    routes_by_host: HostTable<usize>,
    agents: HashMap<AgentName, Allowances>,
    providers: HostTable<Known>,
    fallback: Fallback,
    fallback_rule: Rule,
    scrub: Scrub,
    enforcement: Enforcement,
}

struct Allowances {
    entries: Vec<(Allowance, Rule)>,
    whole: Rule,
}

struct Known {
    provider: ProviderId,
    rule: Rule,
}

impl Policy {
    /// Compiles `rules`. `hosts` are the providers' hosts in catalogue order: where several providers have a host,
    /// the first that the agent may use and that has a credential is taken.
    #[must_use]
    pub fn new(rules: PolicyRules, holdings: Holdings, hosts: Vec<(HostPattern, ProviderId)>) -> Self {
        let mut routes = Vec::with_capacity(rules.routes.len());
        let mut routes_by_host = HostTable::new();
        for (index, route) in rules.routes.into_iter().enumerate() {
            let name = match &route.name {
                None => format!("routes[{index}]"),
                Some(name) => format!("routes[{index}] \"{name}\""),
            };
            routes_by_host.insert(&route.host, index);
            let rule = Rule::new(&name, &route.at);
            routes.push((route, rule));
        }
        let agents = rules.agents.into_iter().map(|(agent, allow)| {
            let whole =
                Rule::new(&format!("agents.{agent}.allow"), allow.first().map_or(&Mark(None), |entry| &entry.at));
            let entries = allow.into_iter().enumerate().map(|(index, entry)| {
                let rule = Rule::new(&format!("agents.{agent}.allow[{index}]"), &entry.at);
                (entry, rule)
            });
            let entries = entries.collect();
            (agent, Allowances { entries, whole })
        });
        let agents = agents.collect();
        let providers = hosts.into_iter().map(|(host, provider)| {
            let rule = Rule::new(&format!("provider {provider}"), &Mark(None));
            (host, Known { provider, rule })
        });
        let compiled = Compiled {
            routes,
            routes_by_host,
            agents,
            providers: providers.collect(),
            fallback: rules.fallback,
            fallback_rule: Rule::new("default", &rules.fallback_at),
            scrub: rules.scrub,
            enforcement: rules.enforcement,
        };
        Self { compiled: Arc::new(compiled), holdings: Arc::new(holdings) }
    }

    /// The same rules over other holdings: what a stored or deleted credential needs.
    #[must_use]
    pub fn with_holdings(&self, holdings: Holdings) -> Self {
        Self { compiled: Arc::clone(&self.compiled), holdings: Arc::new(holdings) }
    }

    /// Decides a CONNECT, where method and path are not known yet.
    #[must_use]
    pub fn connect(&self, agent: &AgentName, origin: &Origin) -> TunnelDecision {
        match self.enforced_connect(agent, origin) {
            TunnelDecision::Refuse(Refusal::Denied(rule)) if self.observes() => self.let_by(agent, origin, rule),
            decision => decision,
        }
    }

    /// Decides one exchange.
    ///
    /// # Errors
    /// [`Refusal`] where it is not permitted.
    pub fn decide(&self, agent: &AgentName, origin: Origin, method: &Method, path: &Path) -> Result<Permit, Refusal> {
        let kept = self.observes().then(|| origin.clone());
        match (self.enforced(agent, origin, method, path), kept) {
            (Err(Refusal::Denied(rule)), Some(origin)) => self.let_through(agent, origin, rule, None),
            (decided, _) => decided,
        }
    }

    /// Decides one exchange of the base-URL listener, where the path names the provider. Nothing falls through here:
    /// what is not permitted with this provider's credential is refused.
    ///
    /// # Errors
    /// [`Refusal`] where it is not permitted.
    pub fn decide_provider(
        &self,
        agent: &AgentName,
        provider: &ProviderId,
        origin: Origin,
        method: &Method,
        path: &Path,
    ) -> Result<Permit, Refusal> {
        let kept = self.observes().then(|| origin.clone());
        match (self.enforced_provider(agent, provider, origin, method, path), kept) {
            (Err(Refusal::Denied(rule)), Some(origin)) => self.let_through(agent, origin, rule, Some(provider)),
            (decided, _) => decided,
        }
    }

    fn enforced_connect(&self, agent: &AgentName, origin: &Origin) -> TunnelDecision {
        if let Some((route, rule)) = self.compiled.routes_for(agent, origin).next() {
            // Whether it matches shows inside; what comes after it is judged there too.
            if route.looks_inside() {
                return intercept(origin, rule);
            }
            return match route.action {
                RouteAction::Deny => TunnelDecision::Refuse(Refusal::Denied(rule.clone())),
                RouteAction::Tunnel => TunnelDecision::Tunnel(rule.clone()),
                RouteAction::Allow { .. } => intercept(origin, rule),
            };
        }
        for known in self.compiled.providers.lookup(origin) {
            if self.may_use(agent, &known.provider) {
                return intercept(origin, &known.rule);
            }
        }
        let rule = self.compiled.fallback_rule.clone();
        if self.compiled.falls_through(origin) {
            TunnelDecision::Tunnel(rule)
        } else {
            TunnelDecision::Refuse(Refusal::Denied(rule))
        }
    }

    fn enforced(&self, agent: &AgentName, origin: Origin, method: &Method, path: &Path) -> Result<Permit, Refusal> {
        let mut exchange = Exchange::new(method, path);
        if let Some((route, rule)) = self.route(agent, &origin, &mut exchange)? {
            let scrub = route.scrub.unwrap_or(self.compiled.scrub);
            let action = self.act(agent, &origin, route, rule)?;
            return Ok(Permit::new(agent, origin, action, rule.clone(), scrub).with(route.set_cookie));
        }
        let granted = match origin.scheme() {
            Scheme::Https => {
                let known = self.compiled.providers.lookup(&origin).map(|known| (&known.provider, &known.rule));
                self.grant(agent, known, &mut exchange)?
            }
            Scheme::Http => {
                self.refuse_cleartext(agent, origin.host())?;
                None
            }
        };
        let compiled = &self.compiled;
        match granted {
            Some((provider, rule)) => {
                let action = Action::Inject { provider: provider.clone(), profile: None };
                Ok(Permit::new(agent, origin, action, rule.clone(), compiled.scrub))
            }
            None if compiled.falls_through(&origin) => {
                Ok(Permit::new(agent, origin, Action::Forward, compiled.fallback_rule.clone(), compiled.scrub))
            }
            None => Err(Refusal::Denied(compiled.fallback_rule.clone())),
        }
    }

    fn enforced_provider(
        &self,
        agent: &AgentName,
        provider: &ProviderId,
        origin: Origin,
        method: &Method,
        path: &Path,
    ) -> Result<Permit, Refusal> {
        let mut exchange = Exchange::new(method, path);
        if let Some((route, rule)) = self.route(agent, &origin, &mut exchange)? {
            let action = self.act(agent, &origin, route, rule)?;
            return match action {
                Action::Inject { provider: ref named, .. } if named == provider => {
                    let scrub = route.scrub.unwrap_or(self.compiled.scrub);
                    Ok(Permit::new(agent, origin, action, rule.clone(), scrub).with(route.set_cookie))
                }
                Action::Inject { .. } | Action::Forward => Err(Refusal::Denied(rule.clone())),
            };
        }
        let fallback = &self.compiled.fallback_rule;
        if origin.scheme() == Scheme::Http {
            return Err(Refusal::Cleartext(fallback.clone()));
        }
        let known = self.compiled.providers.lookup(&origin).find(|known| known.provider == *provider);
        let known = known.map(|known| (&known.provider, &known.rule));
        match self.grant(agent, known, &mut exchange)? {
            None => Err(Refusal::Denied(fallback.clone())),
            Some((_, rule)) => {
                let action = Action::Inject { provider: provider.clone(), profile: None };
                let rule = rule.clone();
                Ok(Permit::new(agent, origin, action, rule, self.compiled.scrub))
            }
        }
    }

    /// Whether `agent` may use `provider` for some exchange: what the child's environment is made from.
    #[must_use]
    pub fn may_use(&self, agent: &AgentName, provider: &ProviderId) -> bool {
        match self.compiled.agents.get(agent) {
            None => self.holdings.usable(agent, provider),
            Some(allow) => allow.entries.iter().any(|(entry, _)| entry.provider == *provider),
        }
    }

    /// The first route that matches the exchange.
    fn route<'p>(
        &'p self,
        agent: &AgentName,
        origin: &Origin,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<(&'p Route, &'p Rule)>, Refusal> {
        for (route, rule) in self.compiled.routes_for(agent, origin) {
            if exchange.matches(&route.methods, &route.paths, rule)? {
                return Ok(Some((route, rule)));
            }
        }
        Ok(None)
    }

    /// What a route that matched makes of the exchange.
    fn act(&self, agent: &AgentName, origin: &Origin, route: &Route, rule: &Rule) -> Result<Action, Refusal> {
        match &route.action {
            RouteAction::Deny => Err(Refusal::Denied(rule.clone())),
            // Reached inside an interception that a rule above asked for, or over cleartext.
            RouteAction::Tunnel | RouteAction::Allow { provider: None, .. } => Ok(Action::Forward),
            RouteAction::Allow { provider: Some(provider), profile } => {
                if origin.scheme() == Scheme::Http {
                    return Err(Refusal::Cleartext(rule.clone()));
                }
                if !self.holdings.usable(agent, provider) {
                    return Err(Refusal::MissingCredentials(provider.clone(), rule.clone()));
                }
                Ok(Action::Inject { provider: provider.clone(), profile: profile.clone() })
            }
        }
    }

    /// The first of `known` that the agent may use for this exchange and that has a credential in its scope.
    /// `None` means that no provider speaks for the exchange, and the default does.
    fn grant<'p>(
        &'p self,
        agent: &AgentName,
        known: impl IntoIterator<Item = (&'p ProviderId, &'p Rule)>,
        exchange: &mut Exchange<'_>,
    ) -> Result<Option<(&'p ProviderId, &'p Rule)>, Refusal> {
        let Some(allow) = self.compiled.agents.get(agent) else {
            return Ok(known.into_iter().find(|(provider, _)| self.holdings.usable(agent, provider)));
        };
        let mut missing = None;
        let mut restricted = None;
        for (provider, _) in known {
            for (entry, rule) in allow.entries.iter().filter(|(entry, _)| entry.provider == *provider) {
                if !exchange.matches(&entry.methods, &entry.paths, rule)? {
                    restricted = Some(Refusal::Denied(allow.whole.clone()));
                } else if self.holdings.usable(agent, provider) {
                    return Ok(Some((provider, rule)));
                } else if missing.is_none() {
                    missing = Some(Refusal::MissingCredentials(provider.clone(), rule.clone()));
                }
            }
        }
        missing.or(restricted).map_or(Ok(None), Err)
    }

    /// An agent that would be given a credential for the host is not let go there without TLS, whatever the port.
    fn refuse_cleartext(&self, agent: &AgentName, host: &Host) -> Result<(), Refusal> {
        match self.compiled.providers.lookup_host(host).find(|known| self.may_use(agent, &known.provider)) {
            None => Ok(()),
            Some(known) => Err(Refusal::Cleartext(known.rule.clone())),
        }
    }
}

impl Compiled {
    /// The routes for the agent and the origin, in order, before method and path are looked at.
    fn routes_for<'p, 'q>(
        &'p self,
        agent: &'q AgentName,
        origin: &'q Origin,
    ) -> impl Iterator<Item = &'p (Route, Rule)> + use<'p, 'q> {
        let on_host = self.routes_by_host.lookup_host(origin.host()).filter_map(|index| self.routes.get(*index));
        on_host.filter(move |(route, _)| is_for(route, agent) && takes_port(route, origin))
    }

    fn falls_through(&self, origin: &Origin) -> bool {
        self.fallback == Fallback::Tunnel && TUNNEL_PORTS.contains(&origin.port())
    }
}

/// One exchange's method and path; the path is read for comparison at most once, and only if a rule looks at it.
struct Exchange<'a> {
    method: &'a Method,
    path: &'a Path,
    judged: Option<JudgedPath>,
}

impl<'a> Exchange<'a> {
    fn new(method: &'a Method, path: &'a Path) -> Self {
        Self { method, path, judged: None }
    }

    fn matches(&mut self, methods: &[Method], paths: &[PathPattern], rule: &Rule) -> Result<bool, Refusal> {
        if !methods.is_empty() && !methods.contains(self.method) {
            return Ok(false);
        }
        if paths.is_empty() {
            return Ok(true);
        }
        let judged = match self.judged.take() {
            Some(judged) => judged,
            None => JudgedPath::read(self.path).map_err(|_| Refusal::AmbiguousPath(rule.clone()))?,
        };
        let found = paths.iter().any(|pattern| pattern.matches(&judged));
        self.judged = Some(judged);
        Ok(found)
    }
}

fn is_for(route: &Route, agent: &AgentName) -> bool {
    route.agents.is_empty() || route.agents.contains(agent)
}

fn takes_port(route: &Route, origin: &Origin) -> bool {
    let port = origin.port();
    match (&route.ports, &route.action) {
        (Ports::Listed(ports), _) => ports.contains(&port),
        // A denial that left a port open would be a hole.
        (Ports::Usual, RouteAction::Deny) => true,
        (Ports::Usual, RouteAction::Allow { provider: Some(_), .. }) => port == origin.scheme().default_port(),
        (Ports::Usual, RouteAction::Tunnel | RouteAction::Allow { provider: None, .. }) => TUNNEL_PORTS.contains(&port),
    }
}

/// No certificate of ours is for an address, so what would have to be intercepted there is refused.
fn intercept(origin: &Origin, rule: &Rule) -> TunnelDecision {
    match origin.host() {
        Host::Name(_) => TunnelDecision::Intercept,
        Host::Address(_) => TunnelDecision::Refuse(Refusal::Denied(rule.clone())),
    }
}
