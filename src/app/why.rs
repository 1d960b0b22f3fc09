//! What would become of an exchange, and why: the answer of `why`.
//!
//! Invariant: it asks the functions that the proxy asks; nothing is sent, opened or changed, and what it shows of a
//! value is its masked form.

use std::sync::Arc;

use http::{Method, Uri};
use serde_json::{Value, json};

use crate::app::error::AppError;
use crate::app::options::Mode;
use crate::app::snapshot::{self, Ingredients};
use crate::clock::WallTime;
use crate::code::Code;
use crate::config::Config;
use crate::id::AgentName;
use crate::message::origin::{Origin, Scheme};
use crate::message::path::Path;
use crate::policy::{Explanation, Fallback, PassedOver, Policy, TunnelDecision, Verdict};
use crate::pool::{Jitter, Pools, Readiness};
use crate::provider::Provider;
use crate::proxy::{View, method_is_refused};
use crate::source::{Member, MemberValue, OpenValues};
use crate::vault::Vault;

/// One exchange that is asked about.
#[derive(Debug, Clone)]
pub struct Question {
    agent: AgentName,
    method: Method,
    origin: Origin,
    path: Path,
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QuestionError {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Question {
    /// Reads it as a person types it.
    ///
    /// # Errors
    /// [`QuestionError`]; it does not repeat a URL, which may hold a key.
    pub fn parse(agent: &str, method: &str, url: &str) -> Result<Self, QuestionError> {
        let wrong = |message: String, hint: &str| QuestionError { message, hint: hint.to_owned() };
        let agent = AgentName::parse(agent)
            .map_err(|error| wrong(format!("this is no name for an agent: {error}"), "keyferry agent list"))?;
        let plain = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|_| plain);
        let method =
            method.ok_or_else(|| wrong("this is no method".to_owned(), "methods are in capitals: GET, POST"))?;
        let no_url = |why: String| wrong(format!("this is no URL: {why}"), "write it whole: https://api.example/path");
        let uri: Uri = url.parse().map_err(|_| no_url("it does not read as one".to_owned()))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(no_url("it does not begin with https:// or http://".to_owned())),
        };
        let authority = uri.authority().ok_or_else(|| no_url("it has no host".to_owned()))?;
        let origin = Origin::from_authority(scheme, authority.as_str()).map_err(|error| no_url(error.to_string()))?;
        let text = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let path = Path::parse(text).map_err(|error| no_url(error.to_string()))?;
        Ok(Self { agent, method, origin, path })
    }

    /// What the rules make of it. A CONNECT is the opening of a tunnel; `None` is one that is intercepted, where each
    /// request inside is judged by itself.
    #[must_use]
    pub fn judge(&self, policy: &Policy) -> Option<Explanation> {
        if self.method != Method::CONNECT {
            return Some(policy.explain(&self.agent, &self.origin, &self.method, &self.path));
        }
        match policy.connect(&self.agent, &self.origin) {
            TunnelDecision::Intercept => None,
            TunnelDecision::Tunnel(_) | TunnelDecision::Observed(_) | TunnelDecision::Refuse(_) => {
                Some(policy.explain(&self.agent, &self.origin, &self.method, &self.path))
            }
        }
    }
}

/// The answer of a home whose daemon does not run, or for another configuration than the daemon's.
///
/// # Errors
/// [`AppError`] when the vault cannot be read.
pub async fn why(config: &Config, vault: Option<Vault>, question: &Question, now: WallTime) -> Result<Value, AppError> {
    let vault = match vault {
        Some(vault) => vault,
        None => Vault::ephemeral().await?,
    };
    let catalogue = snapshot::catalogue(config)?;
    let open = OpenValues::new(Arc::default());
    let from =
        Ingredients { config, fallback: Fallback::Deny, catalogue: &catalogue, vault: &vault, found: &[], open: &open };
    let view = snapshot::build(from).await?;
    let pools = Pools::new(super::parts::pool_settings(config), Jitter::none());
    pools.restore(vault.pool_rows().await?.into_iter().map(|row| (row.scope, row.json)), now);
    let mut answer = explain(&view, &pools, question, now);
    if let Value::Object(fields) = &mut answer {
        fields.insert("live".to_owned(), false.into());
        let by_default = fields.get("rule").and_then(Value::as_str) == Some("default");
        if let (true, None, Some(Value::String(reason))) = (by_default, config.default, fields.get_mut("reason")) {
            reason.push_str("; no `default` is written, so `serve` refuses and `run` tunnels");
        }
    }
    Ok(answer)
}

/// The answer of a running proxy.
pub(super) fn live(view: &View, pools: &Pools, mode: Mode, question: &Question, now: WallTime) -> Value {
    let mut answer = explain(view, pools, question, now);
    if let Value::Object(fields) = &mut answer {
        fields.insert("live".to_owned(), (mode == Mode::Serve).into());
    }
    answer
}

fn explain(view: &View, pools: &Pools, question: &Question, now: WallTime) -> Value {
    let told = |decision: &str, code: Option<Code>, reason: String| {
        json!({
            "decision": decision, "rule": null, "profile": null, "inject": null, "reason": reason,
            "provider": null, "code": code.map(Code::as_str), "would_deny": false, "passed_over": [],
        })
    };
    if question.method != Method::CONNECT && method_is_refused(&question.method) {
        let reason = format!("{} is never passed on", question.method);
        return told("denied", Some(Code::MethodNotAllowed), reason);
    }
    let Some(mut explained) = question.judge(&view.policy) else {
        return told("intercepted", None, "the tunnel opens, and each request inside is judged by itself".to_owned());
    };
    let mut chosen = Chosen::default();
    if explained.decision == Verdict::Inject
        && let Some(provider) = explained.provider.as_ref().and_then(|id| view.catalogue.provider(id))
    {
        if provider.takes_credential(&question.origin, question.path.path()) {
            chosen = choose(view, pools, provider, question, &mut explained, now);
        } else {
            explained.decision = Verdict::Forward;
            explained.reason.push_str("; this path takes no credential, so it goes on without one");
        }
    }
    let passed = |over: &PassedOver| json!({"rule": over.rule.to_string(), "because": over.because.as_str()});
    json!({
        "decision": explained.decision.as_str(),
        "rule": explained.rule.to_string(),
        "profile": chosen.profile,
        "inject": chosen.inject,
        "reason": explained.reason,
        "provider": explained.provider.as_ref().map(ToString::to_string),
        "code": explained.code.map(Code::as_str),
        "would_deny": explained.would_deny,
        "passed_over": explained.passed_over.iter().map(passed).collect::<Vec<_>>(),
    })
}

#[derive(Default)]
struct Chosen {
    profile: Option<String>,
    inject: Option<String>,
}

/// The profile that comes next, and what would be put in.
fn choose(
    view: &View,
    pools: &Pools,
    provider: &Provider,
    question: &Question,
    explained: &mut Explanation,
    now: WallTime,
) -> Chosen {
    let (agent, path) = (&question.agent, question.path.path());
    let members = view.eligible(provider, agent, &question.origin, path, explained.profile.as_ref());
    let ready =
        |member: &&Member| matches!(pools.state(&member.profile, now).state, Readiness::Ready | Readiness::HalfOpen);
    let Some(first) = members.first() else {
        explained.code = Some(Code::CredentialsMissing);
        explained.reason.push_str(&format!("; no credential of {} is sealed for this host and path", provider.id));
        return Chosen::default();
    };
    let member = members.iter().copied().find(ready).unwrap_or_else(|| {
        explained.code = Some(Code::ProfilesCooling);
        explained.reason.push_str("; every profile rests or is disabled, and this is the first of them");
        first
    });
    let masked = match &member.value {
        MemberValue::Stored(sealed) => sealed.stored.masked.as_str(),
        MemberValue::Environment(_) => "***",
    };
    let placement = provider.kind(&member.kind).and_then(|kind| kind.placement(&question.origin, path));
    let way = placement.and_then(|placement| placement.ways.first());
    Chosen {
        profile: Some(member.profile.to_string()),
        inject: way.map(|way| way.to_string().replace("{secret}", masked)),
    }
}
