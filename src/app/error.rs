//! Why the proxy could not start, with what to do about it.

use std::io;
use std::net::SocketAddr;

use crate::config::Faults;
use crate::home::HomeError;
use crate::provider::DraftFault;
use crate::telemetry::AuditUnavailable;
use crate::tls::{BundleError, CaError, TrustError};
use crate::upstream::chain::ProxyUrlError;
use crate::vault::VaultError;

/// Why the configured proxy cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// The variable is not set.
    #[error("upstream.proxy: the variable {0} is not set")]
    Unset(String),
    /// What it names cannot be used.
    #[error("upstream.proxy: what {place} holds cannot be used: {source}")]
    Url {
        /// The variable or file.
        place: String,
        /// Why not.
        source: ProxyUrlError,
    },
}

/// A start that failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration has faults.
    #[error("{0}")]
    Config(#[from] Faults),
    /// The user's own providers have faults.
    #[error("{}", .0.iter().map(|fault| format!("providers.{}.{}: {}", fault.provider, fault.field, fault.message)).collect::<Vec<_>>().join("\n"))]
    Providers(Vec<DraftFault>),
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Our certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The bundle for agents.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The roots that upstreams are verified against.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The proxy on the way out.
    #[error(transparent)]
    Proxy(#[from] ProxyFault),
    /// An audit log that cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditUnavailable),
    /// An access log that cannot be opened.
    #[error("the access log {path} cannot be written: {source}")]
    AccessLog {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A port that cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The configuration's key for it.
        key: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The agents' socket.
    #[error("cannot listen on {path} (listen.unix): {source}")]
    UnixSocket {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The admin socket.
    #[error("cannot listen on the admin socket {path}: {source}")]
    Socket {
        /// Where.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A part of the start panicked.
    #[error("a part of the start was lost")]
    Lost,
    /// A daemon of this home is running.
    #[error("a daemon of this home is running already")]
    AlreadyRunning,
}

impl AppError {
    /// What can be done, where something can.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(_) | Self::Providers(_) => {
                Some("keyferry config check shows every fault with its place".to_owned())
            }
            Self::Home(error) => error.hint(),
            Self::Vault(error) => error.hint(),
            Self::Ca(error) => error.hint(),
            Self::Bundle(error) => error.hint(),
            Self::Trust(error) => error.hint().map(str::to_owned),
            Self::Proxy(ProxyFault::Unset(name)) => Some(format!("set {name} to http://user:password@host:port")),
            Self::Proxy(ProxyFault::Url { .. }) => {
                Some("the form is http://user:password@host:port, special letters percent-encoded".to_owned())
            }
            Self::Audit(error) => Some(error.hint()),
            Self::AccessLog { .. } => Some("check the permissions of the logs directory in the home".to_owned()),
            Self::Listen { source, key, .. } if source.kind() == io::ErrorKind::AddrInUse => Some(format!(
                "another program listens there (keyferry status shows whether it is ours); set {key} in keyferry.yaml to another port"
            )),
            Self::Listen { key, .. } => Some(format!("set {key} in keyferry.yaml to an address of this machine")),
            Self::UnixSocket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there, or it is no socket; set listen.unix to another path".to_owned())
            }
            Self::UnixSocket { .. } => Some("set listen.unix to a path in a directory of your own".to_owned()),
            Self::Socket { .. } => Some("check the permissions of the run directory in the home".to_owned()),
            Self::Lost => Some("start it again; if it happens again, report it".to_owned()),
            Self::AlreadyRunning => Some("keyferry status shows it; stop it first".to_owned()),
        }
    }

    /// The exit code that fits: 78 for what the operator has to set right, else 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Providers(_) | Self::Home(_) | Self::Ca(_) | Self::Trust(_) | Self::Proxy(_) => 78,
            Self::Vault(error) => error.exit_code(),
            Self::Bundle(_)
            | Self::Audit(_)
            | Self::AccessLog { .. }
            | Self::Listen { .. }
            | Self::Socket { .. }
            | Self::UnixSocket { .. }
            | Self::Lost
            | Self::AlreadyRunning => 1,
        }
    }
}
