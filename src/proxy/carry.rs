//! Carries a permitted exchange to its upstream: with one profile after another where a credential is needed.
//!
//! Invariant: connect and verify, then audit, then open the secret and inject, then send. No byte of an answer has
//! gone to the agent while another profile may still be tried.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Response;

use crate::agent::Agent;
use crate::code::Code;
use crate::id::ProfileId;
use crate::policy::{Action, Permit};
use crate::provider::outcome::{self, Class, Outcome};
use crate::provider::{self, Injected, Provider, Stripped};
use crate::proxy::account::Account;
use crate::proxy::answer::{self, Credentialed, Received};
use crate::proxy::delivery::Delivery;
use crate::proxy::respond::Answer;
use crate::proxy::state::{Shared, View};
use crate::scrub::Patterns;
use crate::source::{Member, Opened};
use crate::telemetry::{AttemptRecord, Intent};
use crate::tls::Verified;
use crate::upstream::body::Upload;
use crate::upstream::{Channel, ConnectError, Freshness, Key, SendError};

/// A permitted exchange, stripped of everything that must not go on.
pub struct Carried {
    pub view: Arc<View>,
    pub agent: Agent,
    pub permit: Permit,
    pub provider: Option<Arc<Provider>>,
    pub stripped: Stripped,
    /// The path as it came, for choosing the placement; never logged.
    pub path: String,
    /// What the client put where its key would stand.
    pub presented: Option<String>,
    pub upload: Upload,
}

/// Upstream sends for one exchange, every kind of them counted.
const MOST_ATTEMPTS: usize = 4;

/// Carries it, and gives back the response or the answer in its place.
///
/// # Errors
/// An [`Answer`] with the account to close.
pub async fn run(shared: &Shared, carried: Carried, account: Account) -> Result<Response<Delivery>, (Answer, Account)> {
    match carried.provider.clone() {
        None => forward(shared, carried, account).await,
        Some(provider) => inject(shared, carried, &provider, account).await,
    }
}

/// Without a credential.
async fn forward(
    shared: &Shared,
    carried: Carried,
    mut account: Account,
) -> Result<Response<Delivery>, (Answer, Account)> {
    let key = Key { origin: carried.permit.origin().clone(), partition: carried.agent.name().as_str().into() };
    let make = |channel: &Channel| match channel.verified() {
        Some(verified) => {
            provider::forward(carried.stripped.clone(), verified).map_err(|_| Answer::of(Code::BadRequest))
        }
        None => {
            provider::forward_cleartext(carried.stripped.clone(), &key.origin).map_err(|_| Answer::of(Code::BadRequest))
        }
    };
    let begun = Instant::now();
    let received = match attempt(shared, &key, &carried.upload, make, &mut account).await {
        Ok(received) => received,
        Err(answer) => return Err((answer, account)),
    };
    account.record().upstream = Some(begun.elapsed());
    let method = carried.stripped.method().clone();
    answer::deliver(received, &method, Credentialed::No, carried.upload, shared.limits.idle, account).await
}

/// With a credential, and another where the first is spent.
async fn inject(
    shared: &Shared,
    carried: Carried,
    provider: &Provider,
    mut account: Account,
) -> Result<Response<Delivery>, (Answer, Account)> {
    let view = Arc::clone(&carried.view);
    let members = candidates(&view, &carried, provider);
    if members.is_empty() {
        return Err((missing(&carried, provider), account));
    }
    let mut tried: Vec<ProfileId> = Vec::new();
    let mut suspects: Vec<ProfileId> = Vec::new();
    let mut last: Option<(Received, Option<Arc<Patterns>>, Class)> = None;
    loop {
        let now = shared.clock.now();
        let open = members.iter().map(|member| &member.profile).filter(|profile| !tried.contains(profile));
        let next = shared.pools.first_ready(open, now);
        let member = next.ok().and_then(|profile| members.iter().find(|member| member.profile == *profile));
        let Some(member) = member else {
            return exhausted(shared, carried, provider, &members, last, account).await;
        };
        tried.push(member.profile.clone());
        account.record().profile = Some(member.profile.clone());
        let begun = Instant::now();
        let sent = one_profile(shared, &carried, provider, member, &mut account).await;
        let (mut received, patterns) = match sent {
            Ok(ready) => ready,
            Err(answer) => {
                note(&mut account, member, None, answer.code.as_str(), begun.elapsed());
                return Err((answer, account));
            }
        };
        let status = received.head.status.as_u16();
        if status >= 400 {
            answer::peek_error(&mut received).await;
        }
        let judged = outcome::judge(&received.head, &received.prefix);
        note(&mut account, member, Some(status), judged.class.as_str(), begun.elapsed());
        account.record().upstream = Some(begun.elapsed());
        shared.pools.settle(&member.profile, &judged, now, shared.clock.now());
        match judged.class {
            // A bare refusal blames nobody until the same request has worked with another profile.
            Class::RequestSuspect => suspects.push(member.profile.clone()),
            Class::Success => {
                let throttled = Outcome { class: Class::RateLimit, reset: None };
                for suspect in &suspects {
                    shared.pools.settle(suspect, &throttled, now, shared.clock.now());
                }
            }
            _ => {}
        }
        let another = !matches!(judged.class, Class::Success | Class::NotOurs)
            && provider.fungible
            && carried.upload.replayable()
            && tried.len() < MOST_ATTEMPTS;
        if !another {
            return finish(shared, carried, received, patterns, account).await;
        }
        last = Some((received, patterns, judged.class));
    }
}

/// One profile's try: connect and verify, then audit, then open, then inject, then send.
async fn one_profile(
    shared: &Shared,
    carried: &Carried,
    provider: &Provider,
    member: &Member,
    account: &mut Account,
) -> Result<(Received, Option<Arc<Patterns>>), Answer> {
    let agent = carried.agent.name();
    let origin = carried.permit.origin();
    let key = Key { origin: origin.clone(), partition: format!("{agent} {}", member.profile).into() };
    let id = account.id();
    let mut patterns = None;
    let make = |channel: &Channel| {
        let verified = channel.verified().ok_or_else(|| Answer::of(Code::CleartextRefused))?;
        let intent = Intent {
            at: shared.clock.now(),
            request_id: id,
            agent,
            profile: &member.profile,
            version: member.version,
            host: origin.host(),
            port: origin.port(),
            method: carried.stripped.method(),
            path: carried.path.as_str(),
        };
        let witness = shared.audit.intent(intent).map_err(|error| {
            tracing::error!(%error, "the audit log cannot be written");
            Answer::of(Code::AuditUnavailable)
        })?;
        let (ready, how) = carried.view.credentials.open(agent, member).map_err(|error| {
            tracing::error!(profile = %member.profile, %error, "a credential does not open");
            Answer::of(error.code())
        })?;
        if how == Opened::Decrypted {
            shared.books.recorder.metrics().vault_decrypted();
        }
        let injected =
            provider::inject(&carried.stripped, provider, &ready.credential, verified, &witness).map_err(|error| {
                tracing::error!(profile = %member.profile, %error, "a credential could not be put in");
                Answer::saying(Code::PolicyDenied, "the credential is not for this host or cannot be put in")
            })?;
        patterns = carried.permit.scrub().then(|| ready.patterns(injected.secrets()));
        Ok(injected)
    };
    let received = attempt(shared, &key, &carried.upload, make, account).await?;
    Ok((received, patterns))
}

/// One request on one channel; a waiting connection that turns out to be closed is replaced once.
async fn attempt(
    shared: &Shared,
    key: &Key,
    upload: &Upload,
    mut make: impl FnMut(&Channel) -> Result<Injected, Answer>,
    account: &mut Account,
) -> Result<Received, Answer> {
    let mut freshness = Freshness::Any;
    loop {
        let channel = shared.upstream.channel(key, freshness).await.map_err(|error| unconnected(&error, account))?;
        account.record().upstream_protocol = Some(channel.protocol());
        account.record().upstream_tls = channel.verified().map(tls_words);
        let reused = channel.reused();
        let request = make(&channel)?;
        match tokio::time::timeout(shared.limits.response, channel.send(request, upload.attempt())).await {
            Err(_) => return Err(Answer::of(Code::UpstreamTimeout)),
            Ok(Err(SendError::NotSent)) if reused => freshness = Freshness::New,
            Ok(Err(error)) => {
                account.record().detail = Some(error.to_string());
                return Err(Answer::of(error.code()));
            }
            Ok(Ok((response, kept))) => {
                let (head, body) = response.into_parts();
                return Ok(Received { head, prefix: bytes::Bytes::new(), body, kept });
            }
        }
    }
}

fn tls_words(verified: &Verified) -> String {
    format!("{} {}", verified.version(), verified.group().unwrap_or(""))
}

fn unconnected(error: &ConnectError, account: &mut Account) -> Answer {
    account.record().detail = Some(error.to_string());
    Answer::of(error.code())
}

/// The members of the pool that this exchange may use, first choice first.
fn candidates<'v>(view: &'v View, carried: &Carried, provider: &Provider) -> Vec<&'v Member> {
    let only = match carried.permit.action() {
        Action::Inject { profile, .. } => profile.as_ref(),
        Action::Forward => None,
    };
    let (origin, agent) = (carried.permit.origin(), carried.agent.name());
    let mut members = view.pool_order(&provider.id, agent);
    members.retain(|member| {
        let here = provider.kind(&member.kind).is_some_and(|kind| kind.placement(origin, &carried.path).is_some());
        here && only.is_none_or(|only| *only == member.profile)
            && member.audience.iter().any(|pattern| pattern.matches(origin))
    });
    // Where another credential is another identity, the placeholder that the agent chose to send says which one.
    if let Some(presented) = carried.presented.as_deref().filter(|_| !provider.fungible) {
        let meant = members.iter().position(|member| view.credentials.placeholder(agent, member) == presented);
        if let Some(place) = meant {
            members = vec![members.swap_remove(place)];
        }
    }
    members
}

/// Passes the upstream's answer on; one that blames our credential is not the agent's to see.
async fn finish(
    shared: &Shared,
    carried: Carried,
    received: Received,
    patterns: Option<Arc<Patterns>>,
    account: Account,
) -> Result<Response<Delivery>, (Answer, Account)> {
    if received.head.status == http::StatusCode::UNAUTHORIZED {
        return Err((Answer::of(Code::CredentialsRejected), account));
    }
    carried.upload.commit();
    let method = carried.stripped.method().clone();
    answer::deliver(received, &method, Credentialed::Yes(patterns), carried.upload, shared.limits.idle, account).await
}

/// Every profile was tried or is cooling.
async fn exhausted(
    shared: &Shared,
    carried: Carried,
    provider: &Provider,
    members: &[&Member],
    last: Option<(Received, Option<Arc<Patterns>>, Class)>,
    account: Account,
) -> Result<Response<Delivery>, (Answer, Account)> {
    let now = shared.clock.now();
    if let Some((received, patterns, Class::RequestSuspect)) = last {
        return finish(shared, carried, received, patterns, account).await;
    }
    let earliest = shared.pools.first_ready(members.iter().map(|member| &member.profile), now).err().flatten();
    let wait = earliest.map(|at| at.since(now)).unwrap_or(Duration::from_secs(1));
    let answer = Answer::saying(Code::ProfilesCooling, format!("every profile of {} is cooling down", provider.id));
    Err((answer.after(Some(wait)), account))
}

fn missing(carried: &Carried, provider: &Provider) -> Answer {
    let agent = carried.agent.name();
    let message = format!("agent '{agent}' may use {}, but no credential is stored for it", provider.id);
    Answer::saying(Code::CredentialsMissing, message)
        .hint(format!("ask the operator to run: keyferry secret set {}:NAME", provider.id))
}

fn note(account: &mut Account, member: &Member, status: Option<u16>, outcome: &'static str, took: Duration) {
    let attempt = AttemptRecord { profile: member.profile.clone(), status, outcome, took };
    account.record().attempts.push(attempt);
}
