//! Renews logins: one call for however many wait for it, and what it brings is on the disk before it is used.
//!
//! Invariant: a refresh token goes out over verified TLS to the endpoint that was sealed with it, after its use was
//! written down; new tokens replace only the version that they were made from.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::login::{Granted, granted};
use super::{Credentials, Held, Member, MemberValue, OpenValues};
use crate::clock::{Clock, WallTime};
use crate::id::{AgentName, ProfileId, RequestId};
use crate::provider;
use crate::spawn::Spawner;
use crate::telemetry::{Action, Audit, Change, Intent, Metrics, RefreshResult};
use crate::tls::Protocol;
use crate::upstream::body::RequestBody;
use crate::upstream::{Freshness, Hop, Key, Upstream};
use crate::vault::{SealedCredential, Vault};

/// A token endpoint answers in moments or not at all.
const CALL: Duration = Duration::from_secs(20);
/// Who waits for somebody else's call waits so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tokens are renewed so long before their end at most, and a tenth of their life at most.
const AHEAD: Duration = Duration::from_secs(300);
/// A request takes a moment to arrive.
const MARGIN: Duration = Duration::from_secs(10);
/// The longest rest of an endpoint that fails.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Of an answer so much is read.
const MOST_BODY: usize = 64 * 1024;
/// Who the audit log names.
const OURSELVES: &str = "keyferry";

/// A moment for another writer.
const WRITING: Duration = Duration::from_millis(300);

/// What the vault has beyond a version.
enum Newer {
    /// Nothing.
    None,
    /// A later version that can be used.
    Good,
    /// A later version whose token has ended: its refresh token is the one that counts.
    Spent(Arc<Held>),
}

/// Whether a login can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Ready,
    /// Not before somebody has logged in again.
    NeedsLogin,
    /// Not now.
    Failed,
}

/// What renewing needs.
pub struct Means {
    /// Where tokens are kept.
    pub vault: Vault,
    /// How endpoints are reached.
    pub upstream: Arc<Upstream>,
    /// Where the use of a refresh token is written down.
    pub audit: Arc<Audit>,
    /// Where results are counted.
    pub metrics: Arc<Metrics>,
    /// What is open.
    pub open: Arc<OpenValues>,
    /// The time.
    pub clock: Clock,
    /// Where calls run: one goes on when the request that began it is gone.
    pub spawner: Spawner,
    /// Told of a version that is about to follow another, by their fingerprints: it is the same login.
    pub follows: Follows,
}

/// See [`Means::follows`].
pub type Follows = Box<dyn Fn(&ProfileId, [u8; 8], [u8; 8]) + Send + Sync>;

/// Renews logins.
pub struct Renewals {
    means: Means,
    flights: Mutex<HashMap<[u8; 16], Flight>>,
}

#[derive(Default)]
struct Flight {
    /// The call that is under way.
    call: Option<watch::Receiver<Option<Standing>>>,
    failures: u32,
    rests_until: Option<WallTime>,
    /// New tokens that could not be written yet: the ones that they replace may be worth nothing any more.
    unwritten: Option<(Arc<Held>, super::Login)>,
}

impl fmt::Debug for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewals")
    }
}

impl Renewals {
    /// Nothing is under way.
    #[must_use]
    pub fn new(means: Means) -> Arc<Self> {
        Arc::new(Self { means, flights: Mutex::default() })
    }

    /// Makes sure that a member can be used: at once where its token is good, else after a renewal. `refused` is the
    /// version whose token was refused; a newer one is good until it is refused itself.
    pub async fn ready(self: &Arc<Self>, credentials: &Credentials, member: &Member, refused: Option<u64>) -> Standing {
        let MemberValue::Stored(sealed) = &member.value else { return Standing::Ready };
        if !member.is_login() {
            return Standing::Ready;
        }
        let held = match credentials.login(member) {
            Ok(held) => held,
            Err(error) => {
                tracing::error!(profile = %member.profile, %error, "a login does not open");
                return Standing::Failed;
            }
        };
        let now = self.means.clock.now();
        if let Some(at) = held.login.expires {
            self.means.metrics.set_credential_expiry(&member.profile, at);
        }
        let good = held.login.access.is_some() && refused.is_none_or(|version| held.version > version);
        let left = held.login.expires.map(|at| at.since(now));
        match left {
            _ if !good => self.wait_for(member, sealed, held).await,
            None => Standing::Ready,
            Some(left) if left <= MARGIN => match self.wait_for(member, sealed, held).await {
                // Until its very end the old one is better than none.
                Standing::Failed if !left.is_zero() => Standing::Ready,
                standing => standing,
            },
            Some(left) => {
                let life = held.login.expires.map_or(AHEAD, |at| at.since(held.since));
                if left <= AHEAD.min(life / 10) {
                    // The request goes on with what is good, and the next one finds the new.
                    let _ = self.begin(member, sealed, held);
                }
                Standing::Ready
            }
        }
    }

    /// Waits until no call is under way: what an endpoint has given out must be written before this process ends.
    /// After [`Spawner::stop`] none begins.
    pub async fn landed(&self) {
        let calls: Vec<_> = self.flights.lock().values().filter_map(|flight| flight.call.clone()).collect();
        for mut call in calls {
            let _ = tokio::time::timeout(PATIENCE, call.wait_for(Option::is_some)).await;
        }
    }

    async fn wait_for(self: &Arc<Self>, member: &Member, sealed: &Arc<SealedCredential>, held: Arc<Held>) -> Standing {
        let Some(mut call) = self.begin(member, sealed, held) else { return Standing::Failed };
        let done = tokio::time::timeout(PATIENCE, call.wait_for(Option::is_some)).await;
        match done {
            Ok(Ok(standing)) => standing.unwrap_or(Standing::Failed),
            Ok(Err(_)) | Err(_) => Standing::Failed,
        }
    }

    /// The call that is under way, or a new one; none while its endpoint rests after failures.
    fn begin(
        self: &Arc<Self>,
        member: &Member,
        sealed: &Arc<SealedCredential>,
        held: Arc<Held>,
    ) -> Option<watch::Receiver<Option<Standing>>> {
        let id = sealed.stored.id;
        let mut flights = self.flights.lock();
        let flight = flights.entry(id).or_default();
        // A call whose task is gone without a word is none.
        if let Some(call) = flight.call.as_ref().filter(|call| call.borrow().is_some() || call.has_changed().is_ok()) {
            return Some(call.clone());
        }
        if self.means.spawner.is_stopping() {
            return None;
        }
        let now = self.means.clock.now();
        if flight.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        let (tell, call) = watch::channel(None);
        flight.call = Some(call.clone());
        let (this, profile, sealed) = (Arc::clone(self), member.profile.clone(), Arc::clone(sealed));
        self.means.spawner.spawn(async move {
            let standing = this.renew(&profile, &sealed, &held).await;
            this.land(id, standing);
            let _ = tell.send(Some(standing));
        });
        Some(call)
    }

    fn land(&self, id: [u8; 16], standing: Standing) {
        let now = self.means.clock.now();
        let mut flights = self.flights.lock();
        let flight = flights.entry(id).or_default();
        flight.call = None;
        flight.failures = if standing == Standing::Failed { flight.failures.saturating_add(1) } else { 0 };
        // The first failure may be a slip: the next request tries again at once.
        let rest = flight.failures.checked_sub(2).map(|more| Duration::from_secs(1 << more.min(6)).min(LONGEST_REST));
        flight.rests_until = rest.map(|rest| now.plus(rest));
    }

    async fn renew(&self, profile: &ProfileId, sealed: &SealedCredential, held: &Arc<Held>) -> Standing {
        let unwritten = self.flights.lock().get_mut(&sealed.stored.id).and_then(|flight| flight.unwritten.take());
        if let Some((held, login)) = unwritten {
            return self.keep(profile, sealed, &held, login).await;
        }
        let latest = match self.newer(sealed, held).await {
            Ok(Newer::Good) => return Standing::Ready,
            Ok(Newer::Spent(latest)) => latest,
            Ok(Newer::None) => Arc::clone(held),
            Err(error) => {
                tracing::error!(%profile, %error, "the vault could not be read before a renewal");
                return Standing::Failed;
            }
        };
        let held = &latest;
        let called = tokio::time::timeout(CALL, self.call(profile, held)).await;
        let granted = called.unwrap_or_else(|_| Ok(Granted::Failed("the token endpoint did not answer in time")));
        let standing = match granted {
            Ok(Granted::Tokens(tokens)) => {
                let login = held.login.with(tokens, self.means.clock.now());
                self.keep(profile, sealed, held, login).await
            }
            Ok(Granted::Refused(_)) if self.was_overtaken(sealed, held).await => Standing::Ready,
            Ok(Granted::Refused(word)) => {
                tracing::error!(%profile, %word, "the login has ended: store a new one");
                Standing::NeedsLogin
            }
            Ok(Granted::Failed(why)) => {
                tracing::warn!(%profile, %why, "a login was not renewed");
                Standing::Failed
            }
            Err(error) => {
                tracing::warn!(%profile, %error, "a login was not renewed");
                Standing::Failed
            }
        };
        let result = match standing {
            Standing::Ready => RefreshResult::Renewed,
            Standing::NeedsLogin => RefreshResult::NeedsLogin,
            Standing::Failed => RefreshResult::Failed,
        };
        self.means.metrics.credential_refreshed(profile, result);
        standing
    }

    /// What the vault has beyond `held`: another process was first, or a person.
    async fn newer(&self, sealed: &SealedCredential, held: &Held) -> Result<Newer, super::SourceError> {
        let all = self.means.vault.snapshot().await?;
        let later = all.into_iter().find(|other| other.stored.id == sealed.stored.id);
        let Some(later) = later.filter(|later| later.stored.version > held.version) else { return Ok(Newer::None) };
        let later = self.means.open.hold(&self.means.vault, &later)?;
        let ends = later.login.expires.is_some_and(|at| at <= self.means.clock.now().plus(MARGIN));
        let good = later.login.access.is_some() && !ends;
        Ok(if good { Newer::Good } else { Newer::Spent(later) })
    }

    /// Whether a refresh token was refused because another process used it first, which then has still to write what it
    /// was given.
    async fn was_overtaken(&self, sealed: &SealedCredential, held: &Held) -> bool {
        const LOOKS: usize = 4;
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(WRITING).await;
            }
            if matches!(self.newer(sealed, held).await, Ok(Newer::Good)) {
                return true;
            }
        }
        false
    }

    async fn call(&self, profile: &ProfileId, held: &Held) -> Result<Granted, String> {
        let said = |error: &dyn fmt::Display| error.to_string();
        let (origin, target) = held.login.endpoint();
        let stripped = provider::token_call(target, held.login.media()).map_err(|error| said(&error))?;
        let agent = AgentName::parse(OURSELVES).map_err(|error| said(&error))?;
        let (origin, profile) = (origin.clone(), profile.clone());
        let key = Key { origin, agent, profile: Some(profile.clone()), spoken: Protocol::Http1 };
        let channel = self.means.upstream.channel(&key, Freshness::New).await.map_err(|error| said(&error))?;
        let verified = channel.verified().ok_or("the token endpoint was not verified")?;
        let (at, path) = (self.means.clock.now(), target.split('?').next().unwrap_or("/"));
        let intent = Intent {
            at,
            request_id: RequestId::new(at.0),
            agent: &key.agent,
            profile: &profile,
            version: held.version,
            host: key.origin.host(),
            port: key.origin.port(),
            method: &Method::POST,
            path,
        };
        self.means.audit.intent(intent).await.map_err(|error| said(&error))?;
        let body = held.login.request(verified.origin()).ok_or("the refresh token is for another host")?;
        let request = provider::forward(stripped, verified).map_err(|error| said(&error))?;
        let sent = channel.send(request, RequestBody::whole(body), Hop::Plain).await;
        let (head, body) = sent.map_err(|error| said(&error))?.0.into_parts();
        let body =
            Limited::new(body, MOST_BODY).collect().await.map_err(|_| "the token endpoint's answer broke off")?;
        Ok(granted(head.status, &body.to_bytes()))
    }

    /// Writes a new version, and uses it from then on.
    async fn keep(
        &self,
        profile: &ProfileId,
        sealed: &SealedCredential,
        held: &Arc<Held>,
        login: super::Login,
    ) -> Standing {
        let id = sealed.stored.id;
        let now = self.means.clock.now();
        let version = held.version.saturating_add(1);
        (self.means.follows)(profile, super::fingerprint(id, held.version), super::fingerprint(id, version));
        let mut stored = self.means.vault.renew(&sealed.stored, held.version, &login.stored(), now).await;
        // What is not written is lost with this process: it is worth another try or two.
        for _ in 0..2 {
            if stored.is_err() {
                tokio::time::sleep(WRITING).await;
                stored = self.means.vault.renew(&sealed.stored, held.version, &login.stored(), now).await;
            }
        }
        match stored {
            Ok(Some(stored)) => {
                if let Some(at) = login.expires {
                    self.means.metrics.set_credential_expiry(profile, at);
                }
                let held = Held { version: stored.version, since: now, login };
                self.means.open.put_login(id, Arc::new(held));
                let subject = profile.to_string();
                let action = Action::SecretRenewed;
                let change = Change { at: now, action, subject: &subject, actor: "daemon", detail: None };
                if let Err(error) = self.means.audit.change(change) {
                    tracing::error!(%error, "the audit log cannot be written");
                }
                Standing::Ready
            }
            // Somebody stored another value meanwhile, and that is the one that counts.
            Ok(None) => match self.newer(sealed, held).await {
                Ok(Newer::Good) => Standing::Ready,
                Ok(Newer::Spent(_) | Newer::None) | Err(_) => Standing::Failed,
            },
            Err(error) => {
                tracing::error!(%profile, %error, "new tokens could not be written, so they are not used yet");
                self.flights.lock().entry(id).or_default().unwritten = Some((Arc::clone(held), login));
                Standing::Failed
            }
        }
    }
}
