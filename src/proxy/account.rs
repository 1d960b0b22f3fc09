//! What an exchange owes: its one record, emitted when the account is dropped.
//!
//! Invariant: an account is opened when a request head has arrived and travels with the exchange into the response
//! body, so that it is emitted exactly once, however the exchange ends.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{Method, Version};
use parking_lot::Mutex;

use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{AgentName, ProviderId, RequestId};
use crate::message::origin::Origin;
use crate::policy::limit::Share;
use crate::pool::Occupied;
use crate::proxy::peer::Peer;
use crate::telemetry::{Decision, Protocol, Record, Recorder};

/// Counts over the life of a process, for the line that `run` ends with.
#[derive(Debug, Default)]
pub struct Totals {
    exchanges: AtomicU64,
    injected: AtomicU64,
    rotations: AtomicU64,
    denied: AtomicU64,
    redactions: AtomicU64,
    seen: Mutex<HashMap<AgentName, WallTime>>,
    replaced: Mutex<BTreeSet<(AgentName, ProviderId)>>,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All exchanges and tunnels.
    pub exchanges: u64,
    /// Those that went out with a credential.
    pub injected: u64,
    /// Those that ended with another profile than they began with.
    pub rotations: u64,
    /// Those that were refused.
    pub denied: u64,
    /// Secrets taken out of responses.
    pub redactions: u64,
}

impl Totals {
    fn add(&self, record: &Record) {
        let bump = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        bump(&self.exchanges, 1);
        bump(&self.redactions, record.redactions);
        if let Some(agent) = &record.agent {
            let mut seen = self.seen.lock();
            match seen.get_mut(agent) {
                Some(last) => *last = record.ts.max(*last),
                None => drop(seen.insert(agent.clone(), record.ts)),
            }
        }
        match record.decision {
            Decision::Injected => bump(&self.injected, 1),
            Decision::Denied => bump(&self.denied, 1),
            Decision::Forwarded | Decision::Tunnelled | Decision::Answered => {}
        }
        let hops = record.attempts.windows(2).filter(|pair| matches!(pair, [a, b] if a.profile != b.profile)).count();
        bump(&self.rotations, u64::try_from(hops).unwrap_or(0));
    }

    /// Notes that an agent's own credential was replaced. Whether that is the first of this agent and provider.
    pub fn replaced(&self, agent: &AgentName, provider: &ProviderId) -> bool {
        self.replaced.lock().insert((agent.clone(), provider.clone()))
    }

    /// The providers for which an agent's own credential was replaced.
    #[must_use]
    pub fn all_replaced(&self) -> Vec<ProviderId> {
        let providers: BTreeSet<_> = self.replaced.lock().iter().map(|(_, provider)| provider.clone()).collect();
        providers.into_iter().collect()
    }

    /// When each agent was last seen, since this was last asked.
    pub fn take_seen(&self) -> Vec<(AgentName, WallTime)> {
        self.seen.lock().drain().collect()
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            exchanges: read(&self.exchanges),
            injected: read(&self.injected),
            rotations: read(&self.rotations),
            denied: read(&self.denied),
            redactions: read(&self.redactions),
        }
    }
}

/// Where accounts go when they end.
#[derive(Clone)]
pub struct Books {
    /// The log and the figures.
    pub recorder: Arc<Recorder>,
    /// The counts of this process.
    pub totals: Arc<Totals>,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Books")
    }
}

/// The running account of one exchange.
#[derive(Debug)]
pub struct Account {
    record: Box<Record>,
    books: Option<Books>,
    started: Instant,
    held: Held,
}

/// What an exchange occupies until its account is closed.
#[derive(Debug, Default)]
struct Held {
    share: Option<Share>,
    seat: Option<Occupied>,
}

impl Account {
    /// Opens the account of an exchange that begins now.
    #[must_use]
    pub fn open(books: &Books, now: WallTime, listener: &'static str, client: Peer) -> Self {
        let mut record = Record::new(now, RequestId::new(now.0), listener, Protocol::Http1);
        record.client = Some(client.to_string());
        let held = Held::default();
        Self { record: Box::new(record), books: Some(books.clone()), started: Instant::now(), held }
    }

    /// The record, to be filled in.
    pub fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    /// The exchange's identity.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.record.request_id
    }

    /// Notes what the head says.
    pub fn head(&mut self, method: &Method, version: Version) {
        self.record.method = Some(method.clone());
        self.record.protocol = if version == Version::HTTP_2 { Protocol::H2 } else { Protocol::Http1 };
    }

    /// Notes where to.
    pub fn origin(&mut self, origin: &Origin) {
        self.record.host = Some(origin.host().clone());
        self.record.port = Some(origin.port());
    }

    /// Names the agent.
    pub fn agent(&mut self, agent: &AgentName) {
        self.record.agent = Some(agent.clone());
    }

    /// Holds the exchange's share of its agent's limits until the account is closed.
    pub fn hold_share(&mut self, share: Option<Share>) {
        self.held.share = share;
    }

    /// The same for the seat at its profile.
    pub fn hold_seat(&mut self, seat: Option<Occupied>) {
        self.held.seat = seat;
    }

    /// Notes an answer of our own.
    pub fn answered(&mut self, code: Code, status: Option<u16>) {
        self.record.error = Some(code);
        self.record.status = status;
        self.record.decision = match code {
            Code::PolicyDenied
            | Code::DestinationProhibited
            | Code::PlaceholderMisdirected
            | Code::CleartextRefused
            | Code::AgentUnauthenticated
            | Code::AuthorityMismatch
            | Code::MethodNotAllowed
            | Code::BadRequest
            | Code::HeadTooLarge
            | Code::BodyTooLarge
            | Code::ProxyLoop
            | Code::AgentRateLimited => Decision::Denied,
            Code::ProfilesCooling
            | Code::BillingExhausted
            | Code::UpstreamUnreachable
            | Code::UpstreamTlsFailed
            | Code::UpstreamDnsFailed
            | Code::UpstreamProtocolError
            | Code::ResponseUnscannable
            | Code::CredentialsMissing
            | Code::NeedsLogin
            | Code::CredentialsRejected
            | Code::VaultLocked
            | Code::VaultCorrupt
            | Code::Overloaded
            | Code::UpstreamOverloaded
            | Code::AuditUnavailable
            | Code::UpstreamTimeout
            | Code::NotAvailableYet
            | Code::Internal => Decision::Answered,
        };
    }

    /// Notes the first byte toward the agent.
    pub fn first_byte(&mut self) {
        self.record.ttfb = Some(self.started.elapsed());
    }

    /// Takes the account out of a place that is given up, so that it goes on elsewhere.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let old = &self.record;
        let blank = Record::new(old.ts, old.request_id, old.listener, old.protocol);
        let record = std::mem::replace(&mut self.record, Box::new(blank));
        Self { record, books: self.books.take(), started: self.started, held: std::mem::take(&mut self.held) }
    }

    /// Ends the exchange without a line: a tunnel that is intercepted is recorded by the exchanges inside.
    pub fn forget(mut self) {
        self.books = None;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(books) = self.books.take() else { return };
        self.record.total = self.started.elapsed();
        let tokens = self.record.tokens_in.unwrap_or(0).saturating_add(self.record.tokens_out.unwrap_or(0));
        if let Some(share) = self.held.share.as_ref().filter(|_| tokens > 0) {
            share.spend(tokens, self.record.ts.plus(self.record.total));
        }
        books.totals.add(&self.record);
        let blank = Record::new(self.record.ts, self.record.request_id, self.record.listener, self.record.protocol);
        books.recorder.emit(std::mem::replace(&mut *self.record, blank));
    }
}
