//! A provider of our own: one TLS server for many host names, with scripted answers and a record of what it saw.
//!
//! It stands where the internet would be. Its certificates come from a root made at run time; it speaks HTTP/1.1 and
//! HTTP/2 by ALPN; it knows which secrets are good and refuses all others as the real providers would, so a client
//! that succeeds through the proxy has been given the right credential.

mod answer;
mod ca;
mod git;
mod llm;
pub mod play;
mod record;
mod relay;
mod script;
mod serve;
mod services;
mod socket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use ca::Ca;

pub use answer::pattern;
pub use ca::{Leaf, Offer};
pub use play::Play;

pub use record::{Connection, Seen};
pub use script::{Answer, Defect, Gate, Rule};

/// Every host that the provider is reached as through `upstream.resolve`.
pub const HOSTS: &[&str] = &[
    "api.anthropic.com",
    "api.openai.com",
    "generativelanguage.googleapis.com",
    "openrouter.ai",
    "api.github.com",
    "github.com",
    "api.telegram.org",
    "slack.com",
    "api.stripe.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "api.acme.example",
    "api.other.example",
    "tunnel.example",
];

/// The runtime that test servers and asynchronous clients share.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// What the server's tasks share.
pub struct State {
    ca: Ca,
    rules: Mutex<Vec<Rule>>,
    defects: Mutex<HashMap<String, Defect>>,
    accounts: Mutex<Vec<String>>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<Connection>>,
    next: AtomicU64,
    echoes: AtomicBool,
    repositories: PathBuf,
}

/// A running provider; it stops when dropped.
pub struct TestUpstream {
    state: Arc<State>,
    tls: SocketAddr,
    plain: SocketAddr,
    stop: CancellationToken,
    dir: tempfile::TempDir,
}

impl TestUpstream {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(State {
            ca: Ca::new(),
            rules: Mutex::default(),
            defects: Mutex::default(),
            accounts: Mutex::default(),
            seen: Mutex::default(),
            connections: Mutex::default(),
            next: AtomicU64::new(1),
            echoes: AtomicBool::new(false),
            repositories: dir.path().join("repositories"),
        });
        let stop = CancellationToken::new();
        let tls = serve::listen(Arc::clone(&state), stop.clone(), serve::Speaks::Tls);
        let plain = serve::listen(Arc::clone(&state), stop.clone(), serve::Speaks::Cleartext);
        state.ca.write_root(&dir.path().join("root.pem"));
        Self { state, tls, plain, stop, dir }
    }

    /// Where it listens with TLS, for every host name.
    pub fn address(&self) -> SocketAddr {
        self.tls
    }

    /// Where it listens without TLS.
    pub fn plain_address(&self) -> SocketAddr {
        self.plain
    }

    /// A blind CONNECT proxy that leads every tunnel here.
    pub fn relay(&self) -> SocketAddr {
        relay::listen(self.tls, self.stop.clone())
    }

    /// A good certificate for `host` and its key as PEM, for servers that are no part of this process.
    pub fn leaf_pem(&self, host: &str) -> (String, String) {
        self.state.ca.leaf_pem(host)
    }

    /// A file with the root certificate.
    pub fn root_file(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// Makes `secret` a good credential at every host.
    pub fn knows(&self, secret: &str) {
        self.state.accounts.lock().unwrap().push(secret.to_owned());
    }

    /// Adds a rule; the first that applies wins.
    pub fn script(&self, rule: Rule) {
        self.state.rules.lock().unwrap().push(rule);
    }

    pub fn clear_script(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// Breaks one host.
    pub fn defect(&self, host: &str, defect: Defect) {
        self.state.defects.lock().unwrap().insert(host.to_owned(), defect);
    }

    pub fn mend(&self, host: &str) {
        self.state.defects.lock().unwrap().remove(host);
    }

    /// Makes the model providers say the credential back, in a field and in their text.
    pub fn echoes(&self) {
        self.state.echoes.store(true, Ordering::Relaxed);
    }

    /// A bare repository with one commit under `github.com/<name>.git`, for whom a known secret opens it.
    pub fn repository(&self, name: &str, file: &str, content: &str) {
        git::create(&self.state.repositories, self.dir.path(), name, file, content);
    }

    /// Everything that came so far, in order of arrival.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// What came for one host.
    pub fn seen_at(&self, host: &str) -> Vec<Seen> {
        let all = self.seen();
        all.into_iter().filter(|seen| seen.host.split(':').next() == Some(host)).collect()
    }

    /// The one request that came for a host.
    pub fn only(&self, host: &str) -> Seen {
        let mut all = self.seen_at(host);
        assert_eq!(all.len(), 1, "requests at {host}: {all:#?}");
        all.remove(0)
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.state.connections.lock().unwrap().clone()
    }

    pub fn connections_for(&self, host: &str) -> Vec<Connection> {
        self.connections().into_iter().filter(|c| c.sni.as_deref() == Some(host)).collect()
    }

    /// Forgets what was seen.
    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
        self.state.connections.lock().unwrap().clear();
    }

    /// The secret stood exactly once in each request of `host`, in at least one, and in nothing for another host.
    pub fn assert_carried(&self, host: &str, secret: &str) {
        let all = self.seen();
        let (bound, others): (Vec<_>, Vec<_>) = all.iter().partition(|s| s.host.split(':').next() == Some(host));
        assert!(!bound.is_empty(), "nothing reached {host}; seen: {:?}", brief(&all));
        for seen in bound {
            assert!(seen.tls, "a request for {host} came without TLS");
            assert_eq!(seen.occurrences(secret), 1, "the secret's places in {seen:#?}");
        }
        for seen in others {
            assert_eq!(seen.occurrences(secret), 0, "the secret went to {}", seen.host);
        }
    }

    /// The secret stood in no request at all.
    pub fn assert_never_carried(&self, secret: &str) {
        for seen in self.seen() {
            assert_eq!(seen.occurrences(secret), 0, "the secret went to {} {}", seen.host, seen.target);
        }
    }
}

impl Drop for TestUpstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    pub fn is_known(&self, secret: &str) -> bool {
        self.accounts.lock().unwrap().iter().any(|known| known == secret)
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn connected(&self, sni: Option<String>, offered: Vec<String>, tls: bool) -> Connection {
        let connection = Connection { id: self.id(), sni, offered, tls, established: !tls };
        self.connections.lock().unwrap().push(connection.clone());
        connection
    }

    fn established(&self, id: u64) {
        let mut all = self.connections.lock().unwrap();
        if let Some(connection) = all.iter_mut().find(|connection| connection.id == id) {
            connection.established = true;
        }
    }

    fn scripted(&self, seen: &Seen) -> Option<Answer> {
        self.rules.lock().unwrap().iter_mut().find_map(|rule| rule.take(seen))
    }
}

fn brief(all: &[Seen]) -> Vec<String> {
    all.iter().map(|seen| format!("{} {}{}", seen.method, seen.host, seen.target)).collect()
}
