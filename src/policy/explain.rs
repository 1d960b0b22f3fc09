//! The decision for one exchange in words, for `why`.
//!
//! Invariant: it asks the same functions as the proxy does and decides nothing itself.

use http::Method;

use super::path::JudgedPath;
use super::{Action, Permit, Policy, Refusal, Rule, TunnelDecision, is_for, takes_port};
use crate::code::Code;
use crate::id::{AgentName, ProfileId, ProviderId};
use crate::message::origin::{Origin, Scheme};
use crate::message::path::Path;

/// What would become of an exchange, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What would be done.
    pub decision: Verdict,
    /// The rule that decides.
    pub rule: Rule,
    /// Whose credential would be used, or would have been.
    pub provider: Option<ProviderId>,
    /// Exactly this one of the pool, where a route says so.
    pub profile: Option<ProfileId>,
    /// What the agent would be told, where it is refused.
    pub code: Option<Code>,
    /// One sentence.
    pub reason: String,
    /// Whether the rule would refuse it, and denials are only noted.
    pub would_deny: bool,
    /// Routes for the host that did not match, in order, up to the one that decided.
    pub passed_over: Vec<PassedOver>,
}

/// What would be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A credential is put in.
    Inject,
    /// Intercepted and sent on without a credential.
    Forward,
    /// Tunnelled unread.
    Tunnel,
    /// Refused.
    Deny,
}

impl Verdict {
    /// The word for it, the access log's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inject => "injected",
            Self::Forward => "forwarded",
            Self::Tunnel => "tunnelled",
            Self::Deny => "denied",
        }
    }
}

/// A route that is for the host and did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub rule: Rule,
    /// The first thing that did not fit.
    pub because: Mismatch,
}

/// What of a route did not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It names other agents.
    Agent,
    /// It is for other ports.
    Port,
    /// It names other methods.
    Method,
    /// It names other paths.
    Path,
}

impl Mismatch {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Port => "port",
            Self::Method => "method",
            Self::Path => "path",
        }
    }
}

impl Policy {
    /// Says what would become of an exchange that comes as a CONNECT and then `method path`, or, for `http://`, as a
    /// plain request.
    #[must_use]
    pub fn explain(&self, agent: &AgentName, origin: &Origin, method: &Method, path: &Path) -> Explanation {
        let tunnel = match origin.scheme() {
            Scheme::Https => self.connect(agent, origin),
            Scheme::Http => TunnelDecision::Intercept,
        };
        let mut explanation = match tunnel {
            TunnelDecision::Tunnel(rule) => Explanation {
                decision: Verdict::Tunnel,
                reason: format!("{rule} passes the connection through unread; no credential is put in"),
                rule,
                provider: None,
                profile: None,
                code: None,
                would_deny: false,
                passed_over: Vec::new(),
            },
            TunnelDecision::Observed(rule) => Explanation {
                decision: Verdict::Tunnel,
                reason: format!("{rule} would refuse it; denials are only noted, so it is passed through unread"),
                rule,
                provider: None,
                profile: None,
                code: None,
                would_deny: true,
                passed_over: Vec::new(),
            },
            TunnelDecision::Refuse(refusal) => refused(&refusal),
            TunnelDecision::Intercept => match self.decide(agent, origin.clone(), method, path) {
                Err(refusal) => refused(&refusal),
                Ok(permit) => permitted(&permit),
            },
        };
        explanation.passed_over = self.passed_over(agent, origin, method, path, &explanation.rule);
        explanation
    }

    fn passed_over(
        &self,
        agent: &AgentName,
        origin: &Origin,
        method: &Method,
        path: &Path,
        decided: &Rule,
    ) -> Vec<PassedOver> {
        let judged = JudgedPath::read(path).ok();
        let compiled = &self.compiled;
        let on_host = compiled.routes_by_host.lookup_host(origin.host()).filter_map(|at| compiled.routes.get(*at));
        let before = on_host.take_while(|(_, rule)| rule.name != decided.name);
        let mismatch = before.filter_map(|(route, rule)| {
            let because = if !is_for(route, agent) {
                Mismatch::Agent
            } else if !takes_port(route, origin) {
                Mismatch::Port
            } else if !route.methods.is_empty() && !route.methods.contains(method) {
                Mismatch::Method
            } else if judged.as_ref().is_some_and(|path| !route.paths.iter().any(|pattern| pattern.matches(path))) {
                Mismatch::Path
            } else {
                return None;
            };
            Some(PassedOver { rule: rule.clone(), because })
        });
        mismatch.collect()
    }
}

fn permitted(permit: &Permit) -> Explanation {
    let rule = permit.rule();
    let (decision, provider, profile, mut reason) = match permit.action() {
        Action::Inject { provider, profile } => {
            (Verdict::Inject, Some(provider.clone()), profile.clone(), format!("{rule} lets the agent use {provider}"))
        }
        Action::Forward => (Verdict::Forward, None, None, format!("{rule} sends it on without a credential")),
    };
    let would_deny = permit.would_deny();
    if would_deny {
        reason = format!("{rule} would refuse it; denials are only noted, so it goes on");
    }
    let (rule, passed_over) = (rule.clone(), Vec::new());
    Explanation { decision, rule, provider, profile, code: None, reason, would_deny, passed_over }
}

fn refused(refusal: &Refusal) -> Explanation {
    let rule = refusal.rule();
    let reason = match refusal {
        Refusal::Denied(_) => format!("{rule} refuses it"),
        Refusal::Cleartext(_) => format!("{rule} would put in a credential, and http:// is not over TLS"),
        Refusal::MissingCredentials(provider, _) => {
            format!("{rule} lets the agent use {provider}, and no credential of {provider} is in its scope")
        }
        Refusal::AmbiguousPath(_) => format!("{rule} looks at paths, and this path can be read in two ways"),
    };
    Explanation {
        decision: Verdict::Deny,
        rule: rule.clone(),
        provider: refusal.provider().cloned(),
        profile: None,
        code: Some(refusal.code()),
        reason,
        would_deny: false,
        passed_over: Vec::new(),
    }
}
