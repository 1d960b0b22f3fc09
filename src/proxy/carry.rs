//! Carries a permitted exchange to its upstream: with one profile after another where a credential is needed.
//!
//! Invariant: no byte of an answer has gone to the agent while another profile may still be tried; what the pool
//! says is done, and nothing is decided here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http::header::{HeaderName, HeaderValue};

use crate::clock::WallTime;
use crate::code::Code;
use crate::id::ProfileId;
use crate::policy::{Action, SetCookie};
use crate::pool::{Ask, Bound, Candidate, Committed, Named, Renewed, Shortage, Step, Target};
use crate::provider::Provider;
use crate::provider::outcome::{Format, Outcome, Rules, Scanner};
use crate::proxy::account::Account;
use crate::proxy::answer::{self, Credentialed, Way};
use crate::proxy::attempt::{self, Failure};
use crate::proxy::carried::{Aim, Carried};
use crate::proxy::delivery::Delivery;
use crate::proxy::facts::{self, Facts};
use crate::proxy::fallback::{self, Other};
use crate::proxy::limits::{ASK_BODY, ATTEMPTS};
use crate::proxy::made::Made;
use crate::proxy::received::Received;
use crate::proxy::respond::Answer;
use crate::proxy::state::{Shared, View};
use crate::proxy::watch::{self, Watch};
use crate::scrub::Patterns;
use crate::source::{Member, Standing};
use crate::telemetry::AttemptRecord;

type Ended = Result<Response<Delivery>, (Answer, Account)>;

/// What the last attempt brought.
enum Brought {
    Reply(Box<Reply>),
    Failure(Answer),
}

struct Reply {
    received: Received,
    patterns: Option<Arc<Patterns>>,
    scanner: Option<Scanner>,
    rules: Arc<Rules>,
    cookies: SetCookie,
}

/// Carries it, and gives back the response or the answer in its place.
///
/// # Errors
/// An [`Answer`] with the account to close.
pub async fn run(shared: &Shared, carried: Carried, account: Account) -> Ended {
    match carried.provider.clone() {
        None => forward(shared, carried, account).await,
        Some(provider) => with_credential(shared, carried, &provider, account).await,
    }
}

async fn forward(shared: &Shared, carried: Carried, mut account: Account) -> Ended {
    let begun = Instant::now();
    let sent = attempt::plain(shared, &carried, &mut account).await;
    account.record().upstream = Some(begun.elapsed());
    match sent {
        Ok(received) => {
            let way = Way { credentialed: Credentialed::No, watch: None };
            if let Some(socket) = carried.socket {
                return socket.answer(&carried.agent, received, way, account).await;
            }
            answer::deliver(received, carried.stripped.method(), way, carried.upload, shared.limits.idle, account).await
        }
        Err(Failure::Unreached(answer) | Failure::Broken(answer) | Failure::Ours(answer)) => Err((answer, account)),
    }
}

/// One provider that the request can go to, with everything that is needed to send it there.
struct Leg<'a> {
    provider: &'a Provider,
    aim: Aim<'a>,
    members: Vec<&'a Member>,
    rules: Arc<Rules>,
    there: Option<Named>,
}

async fn with_credential(shared: &Shared, carried: Carried, provider: &Provider, mut account: Account) -> Ended {
    let view = Arc::clone(&carried.view);
    let members = candidates(&view, &carried, carried.aim(), provider);
    if members.is_empty() {
        return Err((missing(&carried, provider), account));
    }
    let held = held(shared, &carried, provider).await;
    let others = fallback::others(&view, &carried, provider, held.as_ref());
    let own = Leg { provider, aim: carried.aim(), members, rules: view.rules.of(&provider.id), there: None };
    let legs: Vec<Leg<'_>> =
        std::iter::once(own).chain(others.iter().map(|other| leg(&view, &carried, other))).collect();
    let ask = ask(shared, &carried, &legs, held.as_deref());
    let mut attempts = shared.pools.attempts(ask);
    let mut brought = None;
    let mut sent_version = None;
    let mut step = attempts.begin(shared.clock.now());
    loop {
        step = match step {
            Step::Send(lease) => {
                let leg = legs.get(lease.target());
                let member = leg.and_then(|leg| leg.members.get(lease.candidate()));
                let Some((leg, member)) = leg.zip(member) else {
                    return Err((Answer::of(Code::Internal), account));
                };
                account.record().profile = Some(member.profile.clone());
                account.record().provider = Some(leg.provider.id.clone());
                if let Err(result) = ready(shared, &view, member, None).await {
                    step = attempts.unready(lease, result, shared.clock.now());
                    continue;
                }
                let begun = Instant::now();
                let sent = attempt::with_profile(shared, &carried, leg.aim, leg.provider, member, &mut account).await;
                let (outcome, reply) = match sent {
                    Ok((mut received, patterns, version)) => {
                        sent_version = version;
                        for (kind, left) in leg.rules.remaining(&received.head.headers) {
                            let metrics = shared.books.recorder.metrics();
                            metrics.set_quota_remaining(&member.profile, kind, left);
                        }
                        let (outcome, scanner) = watch::judge(&mut received, &leg.rules, shared.clock.now()).await;
                        let rules = Arc::clone(&leg.rules);
                        let cookies = leg.aim.permit.set_cookie();
                        (outcome, Brought::Reply(Box::new(Reply { received, patterns, scanner, rules, cookies })))
                    }
                    Err(Failure::Unreached(answer)) => (Outcome::unreached(), Brought::Failure(answer)),
                    Err(Failure::Broken(answer)) => (Outcome::broken(), Brought::Failure(answer)),
                    Err(Failure::Ours(answer)) => return Err((answer, account)),
                };
                note(&mut account, member, &reply, &outcome, begun.elapsed());
                account.record().upstream = Some(begun.elapsed());
                brought = Some(reply);
                if !carried.upload.replayable() {
                    attempts.cannot_repeat();
                }
                attempts.settle(lease, &outcome, shared.clock.now())
            }
            Step::Wait(wait) => {
                let pause = wait.until.since(shared.clock.now());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = wait.woken => {}
                }
                attempts.resume(shared.clock.now())
            }
            Step::Renew(renewal) => {
                let member = legs.get(renewal.target).and_then(|leg| leg.members.get(renewal.candidate));
                let result = match member {
                    Some(member) => ready(shared, &view, member, sent_version).await.err(),
                    None => Some(Renewed::Failed),
                };
                attempts.renewed(&renewal, result.unwrap_or(Renewed::Fresh), shared.clock.now())
            }
            Step::Forward(committed) => {
                let bound = attempts.ask().bound;
                return finish(shared, carried, brought, committed, bound, account).await;
            }
            Step::Answer(shortage) => return Err((said(&carried, provider, &shortage), account)),
        };
    }
}

fn leg<'a>(view: &'a View, carried: &Carried, other: &'a Other) -> Leg<'a> {
    let aim = other.aim();
    let provider = &*other.provider;
    let members = candidates(view, carried, aim, provider);
    let there = Named { model: Some(Arc::clone(&other.model)), path: Some(Arc::from(aim.path)) };
    Leg { provider, aim, members, rules: view.rules.of(&provider.id), there: Some(there) }
}

/// The whole body, where it is needed to choose a profile and can be held. Another provider can only take a body that
/// is held to its end.
async fn held(shared: &Shared, carried: &Carried, provider: &Provider) -> Option<Bytes> {
    let falls_back = carried.view.fallbacks.get(&provider.id).is_some_and(|others| !others.is_empty());
    let limit = if falls_back { u64::try_from(shared.limits.replay).unwrap_or(u64::MAX) } else { ASK_BODY };
    tokio::time::timeout(shared.limits.idle, carried.upload.gather(limit)).await.ok().flatten()
}

/// Sees to it that a login can be used; `refused` is the version that an upstream refused.
async fn ready(shared: &Shared, view: &View, member: &Member, refused: Option<u64>) -> Result<(), Renewed> {
    if !member.is_login() {
        return Ok(());
    }
    match shared.renewals.ready(&view.credentials, member, refused).await {
        Standing::Ready => Ok(()),
        Standing::NeedsLogin => Err(Renewed::Refused),
        Standing::Failed => Err(Renewed::Failed),
    }
}

/// What this request asks of its pool.
fn ask(shared: &Shared, carried: &Carried, legs: &[Leg<'_>], held: Option<&[u8]>) -> Ask {
    let (method, fields) = (carried.stripped.method(), carried.stripped.fields());
    let facts = Facts::read(carried.agent.name(), &carried.path, fields, held.unwrap_or(&[]));
    let candidate = |member: &&Member| Candidate {
        profile: member.profile.clone(),
        rank: member.rank,
        fingerprint: member.fingerprint,
        renewable: member.is_login(),
    };
    let target = |leg: &Leg<'_>| Target {
        provider: leg.provider.id.clone(),
        fungible: leg.provider.fungible && !facts.keyed,
        candidates: leg.members.iter().map(candidate).collect(),
        there: leg.there.clone(),
    };
    let targets = legs.iter().map(target).collect();
    Ask {
        targets,
        session: facts.session,
        model: facts.model,
        path: Some(Arc::from(carried.path.as_str())),
        repeat: facts::repeat(method, carried.upload.replayable()),
        bound: facts.bound,
        deadline: shared.clock.now().plus(ATTEMPTS),
        patient: !facts.retried,
    }
}

/// The members of the pool that this exchange may use.
fn candidates<'v>(view: &'v View, carried: &Carried, aim: Aim<'_>, provider: &Provider) -> Vec<&'v Member> {
    let only = match aim.permit.action() {
        Action::Inject { profile, .. } => profile.as_ref(),
        Action::Forward => None,
    };
    let (origin, agent) = (aim.permit.origin(), carried.agent.name());
    let mut members = view.eligible(provider, agent, origin, aim.path, only);
    // Where another credential is another identity, the placeholder that the agent chose to send says which one.
    if let Some(presented) = carried.presented.as_deref().filter(|_| !provider.fungible) {
        let meant = members.iter().position(|member| view.credentials.placeholder(agent, member) == presented);
        if let Some(place) = meant {
            members = vec![members.swap_remove(place)];
        }
    }
    members
}

/// Passes on what the last attempt brought.
async fn finish(
    shared: &Shared,
    carried: Carried,
    brought: Option<Brought>,
    mut committed: Committed,
    bound: Bound,
    mut account: Account,
) -> Ended {
    account.hold_seat(committed.take_seat());
    match brought {
        None => Err((Answer::of(Code::Internal), account)),
        Some(Brought::Failure(answer)) => Err((answer, account)),
        Some(Brought::Reply(reply)) => {
            let Reply { mut received, patterns, scanner, rules, cookies } = *reply;
            calm(&mut received.head, shared.clock.now());
            // An upstream's refusal of our credential is not the agent's to see: it would begin a login.
            if received.head.status == http::StatusCode::UNAUTHORIZED {
                return Err((Answer::of(Code::CredentialsRejected), account));
            }
            carried.upload.commit();
            let made = made(shared, &carried, &received, bound, account.record().profile.as_ref());
            let watch = Watch::new(&rules, &received, scanner, committed, &shared.clock, made);
            let way = Way { credentialed: Credentialed::Yes(patterns, cookies), watch };
            if let Some(socket) = carried.socket {
                return socket.answer(&carried.agent, received, way, account).await;
            }
            answer::deliver(received, carried.stripped.method(), way, carried.upload, shared.limits.idle, account).await
        }
    }
}

/// SDKs sleep as long as they are told to, up to hours, where they are told to try again: beyond a minute they stop.
fn calm(head: &mut http::response::Parts, now: WallTime) {
    if !head.status.is_client_error() && !head.status.is_server_error() {
        return;
    }
    let forms = [("retry-after-ms", Format::Millis), ("retry-after", Format::SecondsOrDate)];
    let ends = forms.into_iter().filter_map(|(name, form)| form.read(head.headers.get(name)?.as_bytes(), now));
    let long = ends.max().is_some_and(|end| end.since(now) > LONGEST_SLEEP);
    if long {
        head.headers.insert(SHOULD_RETRY.clone(), HeaderValue::from_static("false"));
    } else if head.headers.get(&SHOULD_RETRY).is_some_and(|word| word == "true") {
        head.headers.remove(&SHOULD_RETRY);
    }
}

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What an answer tells of things that only this profile has; what the request named was there.
fn made(
    shared: &Shared,
    carried: &Carried,
    received: &Received,
    bound: Bound,
    profile: Option<&ProfileId>,
) -> Option<Made> {
    let (status, profile) = (received.head.status, profile?);
    if let Bound::To(key) = bound
        && status.is_success()
    {
        shared.pools.owns(profile, key, shared.clock.now());
    }
    let request = (carried.stripped.method(), carried.path.as_str(), status);
    Made::new(request, &shared.pools, &shared.clock, carried.agent.name(), profile)
}

/// The answer where no profile is left, with the provider's own word for it.
fn said(carried: &Carried, provider: &Provider, shortage: &Shortage) -> Answer {
    let names: Vec<String> = shortage.profiles.iter().map(ToString::to_string).collect();
    let message = match shortage.code {
        Code::ProfilesCooling => format!("every profile of {} is cooling down", provider.id),
        Code::BillingExhausted => format!("every profile of {} is out of credit", provider.id),
        Code::CredentialsRejected => format!("{} refused every profile", provider.id),
        Code::NeedsLogin => format!("the login of {} has ended", provider.id),
        Code::UpstreamUnreachable => format!("the login of {} could not be renewed just now", provider.id),
        other => other.explanation().to_owned(),
    };
    tracing::info!(agent = %carried.agent.name(), code = %shortage.code, profiles = %names.join(" "), "no profile is left");
    let word = provider.family.and_then(|family| family.error_word(shortage.code));
    Answer::saying(shortage.code, message)
        .hint("ask the operator to run: keyferry profile list")
        .after(shortage.retry_after)
        .word(word)
}

fn missing(carried: &Carried, provider: &Provider) -> Answer {
    let agent = carried.agent.name();
    let message = format!("agent '{agent}' may use {}, but no credential is stored for it", provider.id);
    Answer::saying(Code::CredentialsMissing, message)
        .hint(format!("ask the operator to run: keyferry secret set {}:NAME", provider.id))
}

fn note(account: &mut Account, member: &Member, reply: &Brought, outcome: &Outcome, took: Duration) {
    let status = match reply {
        Brought::Reply(reply) => Some(reply.received.head.status.as_u16()),
        Brought::Failure(_) => None,
    };
    let attempt = AttemptRecord { profile: member.profile.clone(), status, outcome: outcome.label(), took };
    account.record().attempts.push(attempt);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_refusal_never_has_a_client_sleep_for_hours() {
        for (status, fields, expected) in [
            (429, vec![("retry-after", "124633"), ("x-should-retry", "true")], Some("false")),
            (429, vec![("retry-after", "30"), ("x-should-retry", "true")], None),
            (429, vec![("retry-after-ms", "90000")], Some("false")),
            (503, vec![("retry-after", "61")], Some("false")),
            (529, vec![("x-should-retry", "false")], Some("false")),
            (429, vec![("retry-after", "-5")], None),
            (200, vec![("retry-after", "9000")], None),
        ] {
            let mut response = Response::builder().status(status).body(()).unwrap();
            for (name, value) in fields {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            let (mut head, ()) = response.into_parts();
            calm(&mut head, WallTime(1_777_593_600_000));
            let found = head.headers.get(&SHOULD_RETRY).map(|word| word.to_str().unwrap());
            assert_eq!(found, expected, "{status}");
        }
    }
}
