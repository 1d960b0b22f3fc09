//! Requests of our own: a provider's cheap test call with one profile's credential.
//!
//! Invariant: an errand goes the way of every exchange: connect and verify, then the audit line, then the secret. It
//! reaches only hosts that the credential is sealed for, and its answer goes to nobody.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};

use crate::app::core::Core;
use crate::id::{AgentName, RequestId};
use crate::message::origin::{Origin, Scheme};
use crate::pool::{Doubt, Verdict};
use crate::provider::outcome::{Answer, Class, Outcome};
use crate::provider::{self, Kind, Provider};
use crate::source::{Member, Standing};
use crate::telemetry::Intent;
use crate::tls::Protocol;
use crate::upstream::body::RequestBody;
use crate::upstream::{Freshness, Hop, Key};

/// A test call answers in moments or says nothing.
const LIMIT: Duration = Duration::from_secs(20);
/// Of its body so much is judged.
const MOST_BODY: usize = 64 * 1024;
/// Who the audit log names for it.
const ERRAND: &str = "keyferry";

/// Why a test could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ErrandError {
    /// Nothing is stored under that name.
    #[error("there is no such profile")]
    NoProfile,
    /// The catalogue has no cheap call for it.
    #[error("the provider has no test call")]
    NoCall,
    /// It did not get an answer.
    #[error("{0}")]
    NoAnswer(String),
}

/// Tests the credentials that the pools doubt, until the process stops.
pub(super) async fn settle_doubts(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.shared.spawner.stopping() => return,
            () = core.shared.pools.doubted() => {}
        }
        for doubt in core.shared.pools.doubts() {
            let verdict = verdict(&core, &doubt).await;
            tracing::info!(profile = %doubt.profile, ?verdict, "a refused credential was tested");
            core.shared.pools.verdict(&doubt, verdict, core.shared.clock.now());
        }
    }
}

async fn verdict(core: &Core, doubt: &Doubt) -> Verdict {
    match test(core, &doubt.profile.to_string()).await.map(|outcome| outcome.class) {
        Ok(Class::Success) => Verdict::Works,
        Ok(Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired) => Verdict::Refused,
        Ok(_) | Err(_) => Verdict::Unknown,
    }
}

/// Makes the provider's test call with one profile.
///
/// # Errors
/// [`ErrandError`] when there is no such profile, no such call, or no answer.
pub(super) async fn test(core: &Core, profile: &str) -> Result<Outcome, ErrandError> {
    let view = core.shared.view.load_full();
    let member = view.credentials.all().find(|member| member.profile.to_string() == profile);
    let member = member.ok_or(ErrandError::NoProfile)?;
    let provider = view.catalogue.provider(&member.profile.provider).ok_or(ErrandError::NoProfile)?;
    let kind = provider.kind(&member.kind).ok_or(ErrandError::NoCall)?;
    tokio::time::timeout(LIMIT, call(core, provider, kind, member))
        .await
        .unwrap_or_else(|_| Err(ErrandError::NoAnswer("the provider did not answer in time".to_owned())))
}

async fn call(core: &Core, provider: &Provider, kind: &Kind, member: &Member) -> Result<Outcome, ErrandError> {
    let failed = |error: &dyn std::fmt::Display| ErrandError::NoAnswer(error.to_string());
    let shared = &core.shared;
    if shared.renewals.ready(&shared.view.load_full().credentials, member, None).await != Standing::Ready {
        return Err(ErrandError::NoAnswer("its login has ended, or could not be renewed".to_owned()));
    }
    let test = kind.test.as_ref().filter(|test| test.body.is_none()).ok_or(ErrandError::NoCall)?;
    let origin = origin_of(kind, member, &test.target).ok_or(ErrandError::NoCall)?;
    let stripped = provider::errand(provider, test).map_err(|error| failed(&error))?;
    let agent = AgentName::parse(ERRAND).map_err(|error| failed(&error))?;
    let profile = Some(member.profile.clone());
    let key = Key { origin: origin.clone(), agent: agent.clone(), profile, spoken: Protocol::Http1 };
    let channel = shared.upstream.channel(&key, Freshness::New).await.map_err(|error| failed(&error))?;
    let verified = channel.verified().ok_or(ErrandError::NoCall)?;
    let now = shared.clock.now();
    let intent = Intent {
        at: now,
        request_id: RequestId::new(now.0),
        agent: &agent,
        profile: &member.profile,
        version: member.version,
        host: origin.host(),
        port: origin.port(),
        method: &test.method,
        path: &test.target,
    };
    let witness = shared.audit.intent(intent).await.map_err(|error| failed(&error))?;
    let view = shared.view.load_full();
    let (ready, _) = view.credentials.open(&agent, member).map_err(|error| failed(&error))?;
    let request = provider::inject(&stripped, provider, &ready.credential, verified, &witness);
    let request = request.map_err(|error| failed(&error))?;
    let (response, _kept) =
        channel.send(request, RequestBody::empty(), Hop::Plain).await.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MOST_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = Answer { status: head.status, fields: &head.headers, body: &body };
    Ok(view.rules.of(&provider.id).judge(&answer, shared.clock.now()))
}

/// Where the test call goes: the first host of the credential that takes it on that path.
fn origin_of(kind: &Kind, member: &Member, target: &str) -> Option<Origin> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let exact = member.audience.iter().filter_map(|pattern| Some((pattern.exact_host()?.clone(), pattern.port())));
    exact
        .map(|(host, port)| Origin::new(Scheme::Https, host, port))
        .find(|origin| kind.placement(origin, path).is_some())
}
