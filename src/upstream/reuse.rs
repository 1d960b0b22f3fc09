//! Connections that wait for their next exchange.
//!
//! Invariant: a connection is reused only for the same origin, agent and profile that it was made for, so nothing
//! of one agent's exchange can reach another's (RT-22). The pool is bounded in number and time.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;

use crate::id::{AgentName, ProfileId};
use crate::message::origin::Origin;
use crate::tls::{Protocol, Verified};
use crate::upstream::body::RequestBody;
use crate::upstream::channel::{Line, Sender};

/// Idle connections for one key; beyond it the oldest is closed. As many as browsers' pools and more than one
/// agent's parallel requests.
const IDLE_PER_KEY: usize = 64;
/// Idle connections in all, so that many agents cannot hold all file descriptors.
const IDLE_IN_ALL: usize = 1024;
/// Most servers close an idle connection after 60 to 120 seconds; ours goes first.
const IDLE_LIMIT: Duration = Duration::from_secs(55);

/// What a connection may be reused for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where it leads.
    pub origin: Origin,
    /// For whom.
    pub agent: AgentName,
    /// With which credential, where one is used.
    pub profile: Option<ProfileId>,
    /// What the agent speaks, which is what the upstream is asked to speak.
    pub spoken: Protocol,
}

struct Idle {
    sender: Line<http1::SendRequest<RequestBody>>,
    proof: Option<Arc<Verified>>,
    since: Instant,
}

struct Shared {
    sender: Line<http2::SendRequest<RequestBody>>,
    proof: Option<Arc<Verified>>,
}

#[derive(Default)]
struct Inner {
    idle: HashMap<Key, Vec<Idle>>,
    shared: HashMap<Key, Shared>,
    count: usize,
    closed: bool,
}

/// The pool.
#[derive(Default)]
pub struct Reuse {
    inner: Mutex<Inner>,
}

impl fmt::Debug for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reuse")
    }
}

impl Reuse {
    /// Takes a live connection, the one that was used last.
    pub(super) fn take(&self, key: &Key) -> Option<(Sender, Option<Arc<Verified>>)> {
        let mut inner = self.inner.lock();
        if let Some(shared) = inner.shared.get(key) {
            if !shared.sender.sender.is_closed() {
                return Some((Sender::Http2(shared.sender.clone()), shared.proof.clone()));
            }
            inner.shared.remove(key);
        }
        let mut taken = 0usize;
        let mut found = None;
        if let Some(list) = inner.idle.get_mut(key) {
            while let Some(idle) = list.pop() {
                taken = taken.saturating_add(1);
                if !idle.sender.sender.is_closed() && idle.since.elapsed() < IDLE_LIMIT {
                    found = Some((Sender::Http1(idle.sender), idle.proof));
                    break;
                }
            }
        }
        inner.count = inner.count.saturating_sub(taken);
        found
    }

    /// Closes what waits, and keeps nothing from now on: a drain would wait for it.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        *inner = Inner { closed: true, ..Inner::default() };
    }

    /// Keeps an HTTP/1.1 connection whose exchange has ended.
    pub(super) fn put(&self, key: Key, sender: Line<http1::SendRequest<RequestBody>>, proof: Option<Arc<Verified>>) {
        if sender.sender.is_closed() {
            return;
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            return;
        }
        if inner.count >= IDLE_IN_ALL {
            inner.sweep();
        }
        if inner.count >= IDLE_IN_ALL {
            return;
        }
        let idle = Idle { sender, proof, since: Instant::now() };
        let list = inner.idle.entry(key).or_default();
        let full = list.len() >= IDLE_PER_KEY;
        if full {
            list.remove(0);
        }
        list.push(idle);
        if !full {
            inner.count = inner.count.saturating_add(1);
        }
    }

    /// Offers a fresh HTTP/2 connection to the exchanges that come after.
    pub(super) fn share(&self, key: Key, sender: Line<http2::SendRequest<RequestBody>>, proof: Option<Arc<Verified>>) {
        let mut inner = self.inner.lock();
        if inner.shared.len() >= IDLE_IN_ALL {
            inner.shared.retain(|_, shared| !shared.sender.sender.is_closed());
        }
        if inner.shared.len() < IDLE_IN_ALL && !inner.closed {
            inner.shared.insert(key, Shared { sender, proof });
        }
    }

    /// Closes what has waited too long: called now and then.
    pub fn sweep(&self) {
        self.inner.lock().sweep();
    }

    /// Closes everything that waits.
    pub fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    fn sweep(&mut self) {
        for list in self.idle.values_mut() {
            list.retain(|idle| !idle.sender.sender.is_closed() && idle.since.elapsed() < IDLE_LIMIT);
        }
        self.idle.retain(|_, list| !list.is_empty());
        self.shared.retain(|_, shared| !shared.sender.sender.is_closed());
        self.count = self.idle.values().map(Vec::len).sum();
    }
}
