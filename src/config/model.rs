//! The configuration as values.
//!
//! Invariant: a [`Config`] that came from a file has been checked; where something stands in the file is carried along
//! and makes no difference to equality.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::fault::Fault;
use crate::id::{AgentName, ProviderId, ShortName};
use crate::message::origin::Host;
use crate::policy::limit::Limits;
use crate::policy::{Allowance, Enforcement, Fallback, Mark, Route, Scrub};
use crate::pool::{AttemptLimits, Lane, PoolSettings};
use crate::provider::Draft;
use crate::provider::outcome::RulesDraft;

/// Everything that `keyferry.yaml` can say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Where agents and operators connect.
    pub listen: Listen,
    /// Where secrets are kept.
    pub vault: VaultConfig,
    /// How providers are reached.
    pub upstream: Upstream,
    /// The user's own providers and changes to built-in ones, in the order of the file. The catalogue takes them.
    pub providers: Vec<(ProviderId, Draft)>,
    /// What their answers mean, before the built-in rules are asked.
    pub outcomes: Vec<(ProviderId, RulesDraft)>,
    /// How each provider's profiles take turns.
    pub pools: BTreeMap<ProviderId, PoolConfig>,
    /// What is known of each agent.
    pub agents: BTreeMap<AgentName, AgentConfig>,
    /// First match wins.
    pub routes: Vec<Route>,
    /// What becomes of everything else; unset, `run` tunnels and `serve` refuses.
    pub default: Option<Fallback>,
    /// Where `default` is written.
    pub default_at: Mark,
    /// Whether a denial refuses, or is only noted.
    pub mode: Enforcement,
    /// Whether responses are searched for secrets.
    pub scrub: Scrub,
    /// The access log.
    pub log: LogConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// What is allowed and still worth saying.
    pub warnings: Warnings,
}

/// What is allowed and still worth saying. Like a [`Mark`], it makes no difference to equality.
#[derive(Debug, Clone, Default)]
pub struct Warnings(pub Vec<Fault>);

impl PartialEq for Warnings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// CONNECT and absolute-form.
    pub proxy: Listener,
    /// The same behind TLS.
    pub proxy_tls: Option<Listener>,
    /// `/<provider>/...` for clients that ignore a proxy.
    pub base_url: Listener,
    /// Redirected connections.
    pub transparent: Option<Listener>,
    /// CONNECT and absolute-form over a Unix socket.
    pub unix: Option<UnixListener>,
    /// Health, metrics, admin API.
    pub admin: Listener,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            proxy: Listener::loopback(7878),
            proxy_tls: None,
            base_url: Listener::loopback(7879),
            transparent: None,
            unix: None,
            admin: Listener::loopback(7880),
        }
    }
}

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where; port 0 is any free one.
    pub addr: SocketAddr,
    /// Who the connections of one user are that need not say so.
    pub agent: Option<AgentName>,
    /// Which user, for redirected connections; unset, our own.
    pub uid: Option<u32>,
    /// The host of the certificate, for the proxy behind TLS; unset, `localhost`.
    pub name: Option<Host>,
    /// Where it is written.
    pub at: Mark,
}

impl Listener {
    fn loopback(port: u16) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { addr, agent: None, uid: None, name: None, at: Mark::default() }
    }
}

/// `listen.unix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixListener {
    /// Where, relative to the home.
    pub path: PathBuf,
    /// Who the users are that need not say so, by their numbers.
    pub agents: BTreeMap<u32, AgentName>,
}

/// `vault`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultConfig {
    /// The store.
    pub url: VaultUrl,
    /// Where the master key comes from.
    pub master_key: MasterKey,
}

impl Default for VaultConfig {
    fn default() -> Self {
        Self { url: VaultUrl::Sqlite("vault.db".into()), master_key: MasterKey::File("master.key".into()) }
    }
}

/// `vault.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultUrl {
    /// A file, relative to the home.
    Sqlite(PathBuf),
    /// A server, shared by several instances.
    Postgres(String),
}

/// `vault.master_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKey {
    /// A file, relative to the home.
    File(PathBuf),
    /// An environment variable of our own process.
    Env(String),
    /// Derived from what a person types.
    Passphrase,
    /// The session's keyring.
    Keyring,
    /// What a command prints.
    Command(String),
    /// A credential that systemd hands over, by its name.
    Credential(String),
}

/// `upstream`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Upstream {
    /// Certificates trusted beside the system's, relative to the home.
    pub extra_roots: Vec<PathBuf>,
    /// The operator's own address for a host and port.
    pub resolve: BTreeMap<(Host, u16), SocketAddr>,
    /// Networks that the address guard lets through.
    pub allow_networks: Vec<IpNet>,
    /// Another proxy on the way out.
    pub proxy: Option<ProxySource>,
    /// Hosts that are reached without it, in the words of `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// How long is waited for what.
    pub timeouts: Timeouts,
}

/// `upstream.proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxySource {
    /// Its URL, without a password.
    Url(String),
    /// An environment variable of our own process that holds the URL.
    Env(String),
    /// A file that holds the URL, relative to the home.
    File(PathBuf),
}

/// `upstream.timeouts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection with its TLS handshake.
    pub connect: Duration,
    /// From the end of a request to the head of its response.
    pub response: Duration,
    /// Between two pieces of a body, and for an idle connection.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), response: Duration::from_secs(600), idle: Duration::from_secs(300) }
    }
}

/// One entry of `pools`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Profiles in their order; those that are not named come after.
    pub order: Vec<ShortName>,
    /// Which profile next.
    pub strategy: Strategy,
    /// Whether a refused request may go out with another profile.
    pub rotate: bool,
    /// How long a profile rests.
    pub cooldown: Cooldown,
    /// How long a request waits for a profile instead of going elsewhere.
    pub wait: Duration,
    /// The same for a conversation that was used in the last five minutes.
    pub warm_wait: Duration,
    /// What one request may cost.
    pub attempts: AttemptLimits,
    /// Profiles that share one quota, by a name for it.
    pub groups: BTreeMap<ShortName, Vec<ShortName>>,
    /// Whether profiles that turn out to share a quota are treated so.
    pub learn_groups: bool,
    /// Where to go when every profile rests.
    pub fallback: Vec<FallbackTarget>,
    /// What becomes of a real credential that an agent sends itself.
    pub foreign: Foreign,
    /// How much of each of its profiles.
    pub limits: Limits,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let pool = PoolSettings::default();
        Self {
            order: Vec::new(),
            strategy: Strategy::default(),
            rotate: pool.rotate,
            cooldown: Cooldown::default(),
            wait: pool.wait,
            warm_wait: pool.warm_wait,
            attempts: pool.limits,
            groups: BTreeMap::new(),
            learn_groups: pool.learn_groups,
            fallback: Vec::new(),
            foreign: Foreign::default(),
            limits: Limits::default(),
        }
    }
}

/// `pools.*.strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Stay with a profile while it works.
    #[default]
    Sticky,
    /// Always the first that is ready.
    Priority,
    /// Each in turn.
    RoundRobin,
    /// The one that was used least.
    LeastUsed,
}

/// `pools.*.cooldown`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cooldown {
    /// 1m 5m 25m 1h; billing 5h to 24h.
    #[default]
    Argentos,
    /// 30s doubling to 15m; the rest as there.
    Short,
    /// These for rate limits, the last one from then on; the rest as there.
    Ladder(Vec<Duration>),
    /// These for each kind of failure; what is not named is as there.
    Lanes(BTreeMap<Lane, Vec<Duration>>),
}

/// One entry of `pools.*.fallback`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackTarget {
    /// Where to go.
    pub provider: ProviderId,
    /// Model names there, by the names here, in which `*` stands for anything. The first that fits counts.
    pub models: Vec<(String, String)>,
}

/// `pools.*.foreign`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Foreign {
    /// Ours takes its place.
    #[default]
    Replace,
    /// It is left as it is.
    Pass,
    /// The request is refused.
    Refuse,
}

/// One entry of `agents`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgentConfig {
    /// What it may use; unset, what its scope holds.
    pub allow: Option<Vec<Allowance>>,
    /// How much of it.
    pub limits: Limits,
    /// Plain defaults for its process.
    pub env: BTreeMap<String, String>,
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// The access log, relative to the home.
    pub access: PathBuf,
    /// What of our own doings is told.
    pub level: Level,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Json, access: "logs/access.jsonl".into(), level: Level::Info }
    }
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One object in a line.
    #[default]
    Json,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Failures.
    Error,
    /// And what may become one.
    Warn,
    /// And what changes.
    #[default]
    Info,
    /// And what happens.
    Debug,
    /// And every step.
    Trace,
}

/// `audit`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditConfig {
    /// When a line counts as written.
    pub durability: Durability,
}

/// `audit.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When the operating system has it.
    #[default]
    Written,
    /// When the disk has it.
    Synced,
}
