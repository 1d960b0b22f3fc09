//! `mode: observe`: what would be refused is noted and let through.
//!
//! Invariant: only denials of the rules are let through. No credential goes where the agent's scope holds none, none
//! goes over cleartext, a path that can be read in two ways stays refused, and so does every port that no rule names.

use super::{Action, Enforcement, Permit, Policy, Refusal, Rule, TUNNEL_PORTS, TunnelDecision};
use crate::id::{AgentName, ProviderId};
use crate::message::origin::{Host, Origin, Scheme};

impl Policy {
    /// Whether denials are only noted.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.compiled.enforcement == Enforcement::Observe
    }

    /// A CONNECT that `rule` would have refused.
    pub(super) fn let_by(&self, agent: &AgentName, origin: &Origin, rule: Rule) -> TunnelDecision {
        // No certificate of ours is for an address.
        let named = matches!(origin.host(), Host::Name(_));
        if named && self.held_for(agent, origin, None).is_some() {
            TunnelDecision::Intercept
        } else if TUNNEL_PORTS.contains(&origin.port()) {
            TunnelDecision::Observed(rule)
        } else {
            TunnelDecision::Refuse(Refusal::Denied(rule))
        }
    }

    /// An exchange that `rule` would have refused; `only` is the provider that its path names, if it does.
    pub(super) fn let_through(
        &self,
        agent: &AgentName,
        origin: Origin,
        rule: Rule,
        only: Option<&ProviderId>,
    ) -> Result<Permit, Refusal> {
        let action = match (origin.scheme(), self.held_for(agent, &origin, only)) {
            (Scheme::Https, Some(provider)) => Action::Inject { provider: provider.clone(), profile: None },
            (Scheme::Http, _) if self.held_on(agent, origin.host()) => return Err(Refusal::Cleartext(rule)),
            _ if only.is_none() && TUNNEL_PORTS.contains(&origin.port()) => Action::Forward,
            _ => return Err(Refusal::Denied(rule)),
        };
        Ok(Permit::new(agent, origin, action, rule, self.compiled.scrub).observed())
    }

    /// The first provider of the origin whose credential the agent's scope holds.
    fn held_for(&self, agent: &AgentName, origin: &Origin, only: Option<&ProviderId>) -> Option<&ProviderId> {
        let mut known = self.compiled.providers.lookup(origin).map(|known| &known.provider);
        known.find(|provider| only.is_none_or(|only| only == *provider) && self.holdings.usable(agent, provider))
    }

    fn held_on(&self, agent: &AgentName, host: &Host) -> bool {
        self.compiled.providers.lookup_host(host).any(|known| self.holdings.usable(agent, &known.provider))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::message::path::Path;
    use crate::message::pattern::HostPattern;
    use crate::policy::{Allowance, Fallback, Holdings, Mark, PolicyRules, Ports, Route, RouteAction};

    fn policy(enforcement: Enforcement) -> Policy {
        let route = |host: &str, action| Route {
            name: None,
            at: Mark::default(),
            agents: Vec::new(),
            host: HostPattern::parse(host).unwrap(),
            ports: Ports::Usual,
            methods: Vec::new(),
            paths: Vec::new(),
            action,
            scrub: None,
            set_cookie: Default::default(),
        };
        let openai = ProviderId::parse("openai").unwrap();
        let reading =
            Allowance { provider: openai.clone(), methods: vec![Method::GET], paths: Vec::new(), at: Mark::default() };
        let rules = PolicyRules {
            routes: vec![route("secret.example", RouteAction::Deny)],
            agents: [(agent(), vec![reading])].into(),
            fallback: Fallback::Deny,
            enforcement,
            ..PolicyRules::default()
        };
        let holdings = Holdings { shared: [openai.clone()].into(), ..Holdings::default() };
        Policy::new(rules, holdings, vec![(HostPattern::parse("api.openai.com").unwrap(), openai)])
    }

    fn agent() -> AgentName {
        AgentName::parse("coder").unwrap()
    }

    fn decide(policy: &Policy, method: Method, origin: Origin) -> Result<Permit, Refusal> {
        policy.decide(&agent(), origin, &method, &Path::parse("/v1").unwrap())
    }

    fn https(target: &str) -> Origin {
        Origin::from_connect_target(target).unwrap()
    }

    #[test]
    fn what_would_be_refused_is_noted_and_goes_on() {
        let (enforced, observed) = (policy(Enforcement::Enforce), policy(Enforcement::Observe));
        for (method, target, inject) in [
            (Method::POST, "api.openai.com:443", true),
            (Method::GET, "secret.example:443", false),
            (Method::GET, "nowhere.example:443", false),
        ] {
            let Err(Refusal::Denied(rule)) = decide(&enforced, method.clone(), https(target)) else { panic!() };
            let permit = decide(&observed, method, https(target)).unwrap();
            assert!(permit.would_deny());
            assert_eq!(permit.rule(), &rule, "the rule that would have refused it");
            assert_eq!(matches!(permit.action(), Action::Inject { .. }), inject, "{target}");
        }
        let allowed = decide(&observed, Method::GET, https("api.openai.com:443")).unwrap();
        assert!(!allowed.would_deny());
        assert!(matches!(observed.connect(&agent(), &https("secret.example:443")), TunnelDecision::Observed(_)));
        assert_eq!(observed.connect(&agent(), &https("api.openai.com:443")), TunnelDecision::Intercept);
    }

    #[test]
    fn what_is_no_denial_of_the_rules_stays_refused() {
        let observed = policy(Enforcement::Observe);
        let http = |host: &str| Origin::from_authority(Scheme::Http, host).unwrap();
        assert!(matches!(decide(&observed, Method::GET, http("api.openai.com")), Err(Refusal::Cleartext(_))));
        // RT-15: a port that no rule names is no rule's denial only.
        assert!(matches!(decide(&observed, Method::GET, https("nowhere.example:22")), Err(Refusal::Denied(_))));
        assert!(matches!(observed.connect(&agent(), &https("nowhere.example:22")), TunnelDecision::Refuse(_)));
        let base_url = observed.decide_provider(
            &agent(),
            &ProviderId::parse("openai").unwrap(),
            https("nowhere.example:443"),
            &Method::GET,
            &Path::parse("/").unwrap(),
        );
        assert!(base_url.is_err(), "nothing falls through on the base-URL listener");
    }
}
