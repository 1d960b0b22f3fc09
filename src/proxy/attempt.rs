//! One send: connect and verify, then audit, then open the secret and inject, then send.
//!
//! Invariant: a secret is opened only after the upstream's handshake was verified and the intent was written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::code::Code;
use crate::id::RequestId;
use crate::provider::{self, Injected, Provider};
use crate::proxy::account::Account;
use crate::proxy::carried::{Aim, Carried};
use crate::proxy::received::Received;
use crate::proxy::respond::Answer;
use crate::proxy::state::Shared;
use crate::scrub::Patterns;
use crate::source::{Member, Opened};
use crate::telemetry::Intent;
use crate::tls::Verified;
use crate::upstream::body::RequestBody;
use crate::upstream::{Channel, Freshness, Key, SendError};

/// Why a send brought no answer.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was sent: there was no connection.
    Unreached(Answer),
    /// It was sent, and no answer came.
    Broken(Answer),
    /// We did not send it: the credential, the audit log or the request would not do.
    Ours(Answer),
}

/// Sends without a credential.
pub async fn plain(shared: &Shared, carried: &Carried, account: &mut Account) -> Result<Received, Failure> {
    let (origin, agent) = (carried.permit.origin().clone(), carried.agent.name().clone());
    let key = Key { origin, agent, profile: None, spoken: carried.spoken };
    send(shared, &key, carried, &mut Load::Nothing, account).await
}

/// Sends with the credential of one profile; gives what its answer is searched for.
pub async fn with_profile(
    shared: &Shared,
    carried: &Carried,
    aim: Aim<'_>,
    provider: &Provider,
    member: &Member,
    account: &mut Account,
) -> Result<(Received, Option<Arc<Patterns>>, Option<u64>), Failure> {
    let agent = carried.agent.name();
    let origin = aim.permit.origin();
    let profile = Some(member.profile.clone());
    let key = Key { origin: origin.clone(), agent: agent.clone(), profile, spoken: carried.spoken };
    let mut load = Load::Credential { provider, member, aim, id: account.id(), patterns: None, version: None };
    let received = send(shared, &key, carried, &mut load, account).await?;
    let (patterns, version) = match load {
        Load::Credential { patterns, version, .. } => (patterns, version),
        Load::Nothing => (None, None),
    };
    Ok((received, patterns, version))
}

/// What is put into a request when its connection is there.
enum Load<'a> {
    Nothing,
    Credential {
        provider: &'a Provider,
        member: &'a Member,
        aim: Aim<'a>,
        id: RequestId,
        patterns: Option<Arc<Patterns>>,
        version: Option<u64>,
    },
}

impl Load<'_> {
    async fn request(&mut self, shared: &Shared, carried: &Carried, channel: &Channel) -> Result<Injected, Answer> {
        let Self::Credential { provider, member, aim, id, patterns, version } = self else {
            let stripped = carried.stripped.clone();
            let made = match channel.verified() {
                Some(verified) => provider::forward(stripped, verified),
                None => provider::forward_cleartext(stripped, carried.permit.origin()),
            };
            return made.map_err(|_| Answer::of(Code::BadRequest));
        };
        let (agent, origin) = (carried.agent.name(), aim.permit.origin());
        let verified = channel.verified().ok_or_else(|| Answer::of(Code::CleartextRefused))?;
        let intent = Intent {
            at: shared.clock.now(),
            request_id: *id,
            agent,
            profile: &member.profile,
            version: member.version,
            host: origin.host(),
            port: origin.port(),
            method: aim.stripped.method(),
            path: aim.path,
        };
        let witness = shared.audit.intent(intent).await.map_err(|error| {
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
        let made = provider::inject(aim.stripped, provider, &ready.credential, verified, &witness);
        let injected = made.map_err(|error| {
            tracing::error!(profile = %member.profile, %error, "a credential could not be put in");
            Answer::saying(error.code(), "the credential is not for this request, or cannot be put in")
        })?;
        *version = Some(ready.credential.version);
        *patterns = aim.permit.scrub().then(|| ready.patterns(injected.secrets()));
        Ok(injected)
    }

    fn body(&self, carried: &Carried) -> RequestBody {
        match self {
            Self::Credential { aim: Aim { body: Some(body), .. }, .. } => RequestBody::whole(body.join()),
            Self::Credential { .. } | Self::Nothing => carried.upload.attempt(),
        }
    }
}

/// One request on one channel; a waiting connection that turns out to be closed is replaced.
async fn send(
    shared: &Shared,
    key: &Key,
    carried: &Carried,
    load: &mut Load<'_>,
    account: &mut Account,
) -> Result<Received, Failure> {
    let mut freshness = carried.hop.freshness();
    loop {
        let channel = shared.upstream.channel(key, freshness).await.map_err(|error| {
            account.record().detail = Some(error.to_string());
            Failure::Unreached(Answer::saying(error.code(), error.explanation()))
        })?;
        account.record().upstream_protocol = Some(channel.protocol());
        account.record().upstream_tls = channel.verified().map(tls_words);
        let reused = channel.reused();
        let request = load.request(shared, carried, &channel).await.map_err(Failure::Ours)?;
        let sending = channel.send(request, load.body(carried), carried.hop);
        match in_time(sending, shared.limits.response, || carried.upload.received()).await {
            None => return Err(Failure::Broken(Answer::of(Code::UpstreamTimeout))),
            Some(Err(_)) if carried.upload.refused() => {
                return Err(Failure::Ours(Answer::of(Code::PlaceholderMisdirected)));
            }
            Some(Err(SendError::NotSent)) if reused => freshness = Freshness::New,
            Some(Err(error)) => {
                account.record().detail = Some(error.to_string());
                let answer = Answer::of(error.code());
                return Err(match error {
                    SendError::NotSent | SendError::ProxyCredentials => Failure::Unreached(answer),
                    SendError::Broken | SendError::Malformed => Failure::Broken(answer),
                    SendError::Agent => Failure::Ours(answer),
                });
            }
            Some(Ok((response, kept))) => {
                let (head, body) = response.into_parts();
                return Ok(Received { head, prefix: Bytes::new(), broken: false, body, kept });
            }
        }
    }
}

/// Waits for an answer. The limit is one on silence: it begins anew while the request itself is still on its way.
async fn in_time<T>(sending: impl Future<Output = T>, limit: Duration, sent: impl Fn() -> u64) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let before = sent();
        match tokio::time::timeout(limit, sending.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if sent() > before => {}
            Err(_) => return None,
        }
    }
}

fn tls_words(verified: &Verified) -> String {
    format!("{} {}", verified.version(), verified.group().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_goes_on_is_not_late_and_a_silent_one_is() {
        let (limit, sent) = (Duration::from_secs(600), AtomicU64::new(0));
        let long = async {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_secs(500)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_secs(500)).await;
        };
        assert_eq!(in_time(long, limit, || sent.load(Ordering::Relaxed)).await, Some(()));
        let begun = tokio::time::Instant::now();
        let silent = std::future::pending::<()>();
        assert_eq!(in_time(silent, limit, || sent.load(Ordering::Relaxed)).await, None);
        assert_eq!(begun.elapsed(), limit);
    }
}
