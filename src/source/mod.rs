//! Where a value comes from: stored in the vault, or found in the environment of `run`.
//!
//! Invariant: a value is opened only when an exchange is about to use it, and stays in memory at most
//! [`KEEP`] after its last use.

mod login;
mod member;
mod renew;
mod stray;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use login::{Login, LoginFault};
pub use member::{Member, MemberValue};
pub use renew::{Follows, Means, Renewals, Standing};
pub use stray::Sending;

use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{AgentName, ProfileId, ProviderId};
use crate::placeholder::Minter;
use crate::policy::Holdings;
use crate::provider::Credential;
use crate::scrub::{Item, Patterns, Redactor};
use crate::secret::Secret;
use crate::vault::{Scope, SealedCredential, Vault, VaultError};

/// How long an opened value may stay in memory after its last use.
pub const KEEP: Duration = Duration::from_secs(60);
/// Opened values kept at once; beyond it all are let go and opened again on demand.
const MOST_OPEN: usize = 256;
/// Sets of sent forms that are kept for one value: more than any provider's placements give.
const MOST_FORMS: usize = 8;

/// Why a value could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The vault refused.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The value is no login.
    #[error(transparent)]
    Login(#[from] LoginFault),
}

impl SourceError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Vault(_) => Code::VaultCorrupt,
            Self::Login(_) => Code::NeedsLogin,
        }
    }
}

/// A credential ready for use by one agent: opened, with what its echo is searched for.
pub struct Ready {
    /// The credential with its audience.
    pub credential: Credential,
    placeholder: String,
    /// What belongs to the value and is never sent with it: a login's refresh token.
    companions: Vec<Arc<Secret>>,
    patterns: Mutex<Vec<Searched>>,
}

/// The search for one set of sent forms.
struct Searched {
    sent: Vec<Arc<Secret>>,
    patterns: Arc<Patterns>,
}

impl Searched {
    fn is_for(&self, sent: &[Arc<Secret>]) -> bool {
        let same = |(a, b): (&Arc<Secret>, &Arc<Secret>)| Arc::ptr_eq(a, b) || a.is_same(b);
        self.sent.len() == sent.len() && self.sent.iter().zip(sent).all(same)
    }
}

impl Ready {
    /// What responses are searched for: every form in which the value was `sent`. A value is sent in few forms (as a
    /// key at one host, in a pair at another), and for each the search is made once.
    #[must_use]
    pub fn patterns(&self, sent: &[Arc<Secret>]) -> Arc<Patterns> {
        let mut made = self.patterns.lock();
        if let Some(searched) = made.iter().find(|searched| searched.is_for(sent)) {
            return Arc::clone(&searched.patterns);
        }
        let item = |secret: &Arc<Secret>| Item { secret: Arc::clone(secret), replacement: self.placeholder.clone() };
        let patterns = Patterns::new(&sent.iter().chain(&self.companions).map(item).collect::<Vec<_>>());
        if made.len() >= MOST_FORMS {
            made.clear();
        }
        made.push(Searched { sent: sent.to_vec(), patterns: Arc::clone(&patterns) });
        patterns
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ready({})", self.credential.profile)
    }
}

struct Open {
    ready: Arc<Ready>,
    used: Instant,
}

type OpenKey = (AgentName, ProfileId, [u8; 8]);

/// The newest version of a login that is known here, whatever the snapshot has.
#[derive(Debug)]
pub struct Held {
    /// Which version.
    pub version: u64,
    /// Since when there is that version.
    pub since: WallTime,
    /// What it holds.
    pub login: Login,
}

struct OpenLogin {
    held: Arc<Held>,
    used: Instant,
}

/// Changes when a value does; says nothing about it.
#[must_use]
pub fn fingerprint(id: [u8; 16], version: u64) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = id;
    let mut fingerprint = [a, b, c, d, e, f, g, h];
    for (byte, version) in fingerprint.iter_mut().zip(version.to_be_bytes()) {
        *byte ^= version;
    }
    fingerprint
}

/// Values that are open at the moment, across snapshots. What is open here is masked in our own sinks.
pub struct OpenValues {
    values: Mutex<HashMap<OpenKey, Open>>,
    logins: Mutex<HashMap<[u8; 16], OpenLogin>>,
    expiries: Mutex<HashMap<[u8; 16], WallTime>>,
    redactor: Arc<Redactor>,
}

impl fmt::Debug for OpenValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenValues")
    }
}

impl OpenValues {
    /// Nothing is open yet; what will be is made known to `redactor`.
    #[must_use]
    pub fn new(redactor: Arc<Redactor>) -> Arc<Self> {
        Arc::new(Self { values: Mutex::default(), logins: Mutex::default(), expiries: Mutex::default(), redactor })
    }

    /// Lets go of what was not used for [`KEEP`].
    pub fn sweep(&self, now: Instant) {
        self.logins.lock().retain(|_, open| now.saturating_duration_since(open.used) < KEEP);
        let mut values = self.values.lock();
        let before = values.len();
        values.retain(|_, open| now.saturating_duration_since(open.used) < KEEP);
        if values.len() != before {
            self.mask(&values);
        }
    }

    /// The newest version of a login, not older than `sealed`.
    pub(super) fn hold(&self, vault: &Vault, sealed: &SealedCredential) -> Result<Arc<Held>, SourceError> {
        let stored = &sealed.stored;
        if let Some(open) = self.logins.lock().get_mut(&stored.id)
            && open.held.version >= stored.version
        {
            open.used = Instant::now();
            return Ok(Arc::clone(&open.held));
        }
        let login = Login::read(&vault.unseal(sealed)?.secret, None)?;
        let held = Arc::new(Held { version: stored.version, since: stored.updated, login });
        self.put_login(stored.id, Arc::clone(&held));
        Ok(held)
    }

    /// A version of a login that is on the disk.
    pub(super) fn put_login(&self, id: [u8; 16], held: Arc<Held>) {
        if let Some(at) = held.login.expires {
            self.expiries.lock().insert(id, at);
        }
        self.logins.lock().insert(id, OpenLogin { held, used: Instant::now() });
        self.mask(&self.values.lock());
    }

    fn find(&self, key: &OpenKey, now: Instant) -> Option<Arc<Ready>> {
        let mut values = self.values.lock();
        let open = values.get_mut(key)?;
        open.used = now;
        Some(Arc::clone(&open.ready))
    }

    fn keep(&self, key: OpenKey, ready: &Arc<Ready>, now: Instant) {
        let mut values = self.values.lock();
        if values.len() >= MOST_OPEN {
            values.clear();
        }
        values.insert(key, Open { ready: Arc::clone(ready), used: now });
        self.mask(&values);
    }

    fn mask(&self, values: &HashMap<OpenKey, Open>) {
        let sent = values.values().map(|open| Arc::clone(open.ready.credential.secret()));
        let mut secrets: Vec<_> = sent.collect();
        secrets.extend(values.values().flat_map(|open| open.ready.companions.iter().cloned()));
        for open in self.logins.lock().values() {
            secrets.extend(open.held.login.access.iter().chain(open.held.login.companions()).cloned());
        }
        self.redactor.know(&secrets);
    }
}

/// The credentials of one moment: a snapshot that requests read without waiting.
pub struct Credentials {
    vault: Vault,
    pools: HashMap<ProviderId, Vec<Member>>,
    open: Arc<OpenValues>,
    minter: Minter,
    /// Whether a placeholder of some member can only be recognised as a whole.
    hexadecimal: bool,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pools.iter().map(|(provider, members)| (provider, members.len()))).finish()
    }
}

impl Credentials {
    /// Groups the members into their pools.
    #[must_use]
    pub fn new(vault: Vault, members: Vec<Member>, open: Arc<OpenValues>, minter: Minter) -> Self {
        let mut pools: HashMap<ProviderId, Vec<Member>> = HashMap::new();
        let hexadecimal = members.iter().any(|member| member.shape.is_hexadecimal());
        for member in members {
            pools.entry(member.profile.provider.clone()).or_default().push(member);
        }
        Self { vault, pools, open, minter, hexadecimal }
    }

    /// The members of a pool that `agent` may use. Its private credential wins over a shared one of the same name.
    #[must_use]
    pub fn members(&self, provider: &ProviderId, agent: &AgentName) -> Vec<&Member> {
        let Some(pool) = self.pools.get(provider) else { return Vec::new() };
        let mine = |member: &&Member| matches!(&member.scope, Scope::Agent(name) if name == agent);
        let private: HashSet<&ProfileId> = pool.iter().filter(mine).map(|member| &member.profile).collect();
        pool.iter()
            .filter(|member| mine(member) || (member.scope == Scope::Shared && !private.contains(&member.profile)))
            .collect()
    }

    /// Every member, for listings and metrics.
    pub fn all(&self) -> impl Iterator<Item = &Member> + Clone {
        self.pools.values().flatten()
    }

    /// Which providers have a usable credential, and for whom.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let mut holdings = Holdings::default();
        for member in self.all() {
            let provider = member.profile.provider.clone();
            match &member.scope {
                Scope::Shared => {
                    holdings.shared.insert(provider);
                }
                Scope::Agent(agent) => {
                    holdings.private.entry(agent.clone()).or_default().insert(provider);
                }
            }
        }
        holdings
    }

    /// The stand-in that `agent` holds for `member`.
    #[must_use]
    pub fn placeholder(&self, agent: &AgentName, member: &Member) -> String {
        self.minter.mint(&member.shape, agent, &member.profile.to_string())
    }

    /// Opens a member's value for `agent`, or takes it from memory.
    ///
    /// # Errors
    /// [`SourceError`] when the record does not open; nothing is used then.
    pub fn open(&self, agent: &AgentName, member: &Member) -> Result<(Arc<Ready>, Opened), SourceError> {
        let login = if member.is_login() { Some(self.login(member)?) } else { None };
        let version = login.as_ref().map_or(member.version, |held| held.version);
        let print = match (&login, &member.value) {
            (Some(held), MemberValue::Stored(sealed)) => fingerprint(sealed.stored.id, held.version),
            _ => member.fingerprint,
        };
        let key = (agent.clone(), member.profile.clone(), print);
        let now = Instant::now();
        if let Some(ready) = self.open.find(&key, now) {
            return Ok((ready, Opened::FromMemory));
        }
        let (material, how) = match (&member.value, &login) {
            (_, Some(held)) => {
                (held.login.access.clone().ok_or(SourceError::Login(LoginFault::Form))?, Opened::Decrypted)
            }
            (MemberValue::Environment(secret), None) => (Arc::clone(secret), Opened::FromMemory),
            (MemberValue::Stored(sealed), None) => (self.vault.unseal(sealed)?.secret, Opened::Decrypted),
        };
        let (profile, audience) = (member.profile.clone(), member.audience.clone());
        let credential = Credential::new(profile, member.kind.clone(), audience, material, version);
        let companions = login.iter().flat_map(|held| held.login.companions().cloned()).collect();
        let placeholder = self.placeholder(agent, member);
        let ready = Arc::new(Ready { credential, placeholder, companions, patterns: Mutex::default() });
        self.open.keep(key, &ready, now);
        Ok((ready, how))
    }

    /// Whether `text` is, or holds, a placeholder of this installation.
    #[must_use]
    pub fn is_placeholder(&self, text: &str) -> bool {
        self.minter.looks_like_ours(text)
    }

    /// The newest version of a login.
    ///
    /// # Errors
    /// [`SourceError`] when the record does not open, or is no login.
    pub fn login(&self, member: &Member) -> Result<Arc<Held>, SourceError> {
        match &member.value {
            MemberValue::Stored(sealed) => self.open.hold(&self.vault, sealed),
            MemberValue::Environment(_) => Err(SourceError::Login(LoginFault::Form)),
        }
    }

    /// When the token of a login ends, as far as it was opened yet.
    #[must_use]
    pub fn expiry(&self, member: &Member) -> Option<WallTime> {
        match &member.value {
            MemberValue::Stored(sealed) => self.open.expiries.lock().get(&sealed.stored.id).copied(),
            MemberValue::Environment(_) => None,
        }
    }

    /// Finds whose placeholder `text` is, among `agents`, for a member of `provider`'s pool.
    #[must_use]
    pub fn owner<'a>(&self, text: &str, provider: &ProviderId, agents: &'a [AgentName]) -> Option<&'a AgentName> {
        agents
            .iter()
            .find(|agent| self.members(provider, agent).iter().any(|member| self.placeholder(agent, member) == text))
    }
}

/// Whether a value had to be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It was open already.
    FromMemory,
    /// One record was decrypted.
    Decrypted,
}
