//! What a running daemon can be asked, as values that both ends share.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the daemon listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listeners {
    /// CONNECT and absolute-form.
    pub proxy: SocketAddr,
    /// `/provider/path`.
    pub base_url: Option<SocketAddr>,
    /// Health and metrics.
    pub admin: Option<SocketAddr>,
    /// CONNECT and absolute-form behind TLS, as its clients name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_tls: Option<String>,
    /// Redirected connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transparent: Option<SocketAddr>,
    /// CONNECT and absolute-form over a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<PathBuf>,
    /// CONNECT and absolute-form for this session's agent without credentials, from its own user only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<SocketAddr>,
    /// Where else it listens: addresses that it must not connect to itself.
    #[serde(skip)]
    pub more: Vec<SocketAddr>,
}

impl Listeners {
    /// A proxy at `address` and nothing else.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        Self {
            proxy: address,
            base_url: None,
            admin: None,
            proxy_tls: None,
            transparent: None,
            unix: None,
            open: None,
            more: Vec::new(),
        }
    }

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let named = [Some(self.proxy), self.base_url, self.admin, self.transparent, self.open];
        named.into_iter().flatten().chain(self.more.iter().copied())
    }
}

/// A credential as an agent's environment holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installed {
    /// The variable.
    pub variable: String,
    /// Its harmless value.
    pub placeholder: String,
    /// The provider.
    pub provider: String,
    /// The profile, `provider:name`.
    pub profile: String,
    /// Hosts that the credential is for.
    pub hosts: Vec<String>,
    /// The SDK's base-URL variables, for clients that ignore proxies.
    pub base_url_variables: Vec<String>,
}

/// What a process needs to be an agent: the answer to a request for a session.
#[derive(Serialize, Deserialize)]
pub struct Session {
    /// The agent's name.
    pub agent: String,
    /// Its token; shown once.
    pub token: String,
    /// Where to connect.
    pub listeners: Listeners,
    /// The root certificate alone.
    pub ca: PathBuf,
    /// System roots plus ours.
    pub bundle: PathBuf,
    /// Its variables.
    pub installed: Vec<Installed>,
    /// Plain variables that the configuration gives this agent.
    pub plain: Vec<(String, String)>,
    /// Hosts with a credential for git.
    pub git_hosts: Vec<String>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.agent)
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// The HTTP status that fits.
    pub status: u16,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What the composition root can do for the admin interface.
#[async_trait]
pub trait Control: Send + Sync {
    /// Whether requests can be served.
    fn ready(&self) -> bool;
    /// The metrics in the Prometheus text format.
    fn metrics(&self) -> String;
    /// `keyferry status`.
    fn status(&self) -> Value;
    /// The configuration in force, as a tree with the file's own keys.
    fn config(&self) -> Value;
    /// `keyferry profile list`.
    fn profiles(&self) -> Value;
    /// `keyferry why`.
    fn why(&self, agent: &str, method: &str, url: &str) -> Result<Value, ControlError>;
    /// Clears, disables or enables one profile.
    fn profile(&self, profile: &str, action: &str) -> Result<(), ControlError>;
    /// Makes the provider's test call with one profile.
    async fn test(&self, profile: &str) -> Result<Value, ControlError>;
    /// Reads the configuration file anew.
    async fn reload(&self) -> Result<Value, ControlError>;
    /// Reads the vault anew: a command changed it.
    async fn refresh(&self) -> Result<(), ControlError>;
    /// A session token for an agent, with all that its process needs.
    async fn session(&self, agent: &str, ttl_seconds: u64) -> Result<Session, ControlError>;
    /// Ends a session.
    async fn end_session(&self, token: &str) -> Result<(), ControlError>;
}
