//! The JSON that programs read: names and types that scripts rely on; fields are added and never renamed.
//!
//! Invariant: nothing in here has a field that could hold a value.

use serde::Serialize;

use crate::clock::WallTime;
use crate::provider::Catalogue;
use crate::vault::{AgentRow, Stored, VersionInfo};

/// `secret list`, `secret show`.
#[derive(Debug, Serialize)]
pub struct SecretShape {
    /// `anthropic:work`.
    pub name: String,
    /// Whose it is.
    pub provider: Option<String>,
    /// Which kind.
    pub r#type: String,
    /// `shared` or `agent:NAME`.
    pub scope: String,
    /// The variable with its placeholder.
    pub env: Option<String>,
    /// Whether agents get that variable.
    pub install: bool,
    /// For people.
    pub description: Option<String>,
    /// For people.
    pub label: Option<String>,
    /// How the value is shown.
    pub masked: String,
    /// Where the value stands, if it is not stored here.
    pub reference: Option<String>,
    /// Counted from one.
    pub version: u64,
    /// Where it may be sent.
    pub hosts: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub updated: String,
}

impl SecretShape {
    /// Takes it from the vault's row.
    pub fn of(stored: &Stored, catalogue: &Catalogue) -> Self {
        Self {
            name: stored.name.to_string(),
            provider: stored.provider.as_ref().map(ToString::to_string),
            r#type: stored.kind.clone(),
            scope: stored.scope.to_string(),
            env: crate::launch::variable_of(stored, catalogue),
            install: stored.install,
            description: stored.description.clone(),
            label: stored.label.clone(),
            masked: stored.masked.clone(),
            reference: stored.by_reference.then(|| stored.masked.clone()),
            version: stored.version,
            hosts: stored.hosts.clone(),
            created: stored.created.to_string(),
            updated: stored.updated.to_string(),
        }
    }
}

/// `secret history`.
#[derive(Debug, Serialize)]
pub struct VersionShape {
    /// Counted from one.
    pub version: u64,
    /// How the value is shown.
    pub masked: String,
    /// RFC 3339.
    pub created: String,
    /// Whether it is in use.
    pub current: bool,
}

impl From<&VersionInfo> for VersionShape {
    fn from(info: &VersionInfo) -> Self {
        Self {
            version: info.version,
            masked: info.masked.clone(),
            created: info.created.to_string(),
            current: info.current,
        }
    }
}

/// `agent list`.
#[derive(Debug, Serialize)]
pub struct AgentShape {
    /// Its name.
    pub agent: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub last_seen: Option<String>,
    /// Whether its tokens were taken away.
    pub revoked: bool,
}

impl From<&AgentRow> for AgentShape {
    fn from(row: &AgentRow) -> Self {
        Self {
            agent: row.agent.to_string(),
            created: row.created.to_string(),
            last_seen: row.last_seen.map(|time| time.to_string()),
            revoked: row.revoked,
        }
    }
}

/// A moment as a person reads it beside others: `2m ago`.
pub fn ago(time: WallTime, now: WallTime) -> String {
    format!("{} ago", span(now.since(time).as_secs()))
}

/// A length of time in its largest unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
