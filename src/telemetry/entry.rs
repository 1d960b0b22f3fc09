//! What the audit log is told.
//!
//! Invariant: there is no place here for a value, a query or a field; texts are redacted when they are written.

use http::Method;

use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{AgentName, ProfileId, RequestId};
use crate::message::origin::Host;

/// A credential is about to be used.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// When.
    pub at: WallTime,
    /// In which exchange.
    pub request_id: RequestId,
    /// For whom.
    pub agent: &'a AgentName,
    /// Which credential.
    pub profile: &'a ProfileId,
    /// Which version of it.
    pub version: u64,
    /// Where it goes.
    pub host: &'a Host,
    /// The port there.
    pub port: u16,
    /// The method.
    pub method: &'a Method,
    /// The path; what is written is a keyed hash of it, without the query.
    pub path: &'a str,
}

/// Something of the installation has changed.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// When.
    pub at: WallTime,
    /// What was done.
    pub action: Action,
    /// To what: a credential, an agent, a file.
    pub subject: &'a str,
    /// By whom: `cli`, `admin:NAME`, `daemon`.
    pub actor: &'a str,
    /// What else is worth keeping; never a value.
    pub detail: Option<&'a str>,
}

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A credential was stored for the first time.
    SecretCreated,
    /// A credential got a new version.
    SecretRotated,
    /// A login was renewed: a new version.
    SecretRenewed,
    /// What stands beside a value was changed: a text, the scope, the hosts.
    SecretChanged,
    /// An earlier version is current again.
    SecretRolledBack,
    /// A credential is gone.
    SecretDeleted,
    /// A value was shown to a person.
    SecretRevealed,
    /// Sealed values left the vault.
    SecretExported,
    /// An agent was made.
    AgentCreated,
    /// An agent has a new token.
    AgentRotated,
    /// An agent's tokens no longer count.
    AgentRevoked,
    /// A session token was made.
    SessionCreated,
    /// A configuration is in force.
    ConfigLoaded,
    /// A faulty configuration was not taken.
    ConfigRefused,
    /// An origin or a root was overridden by the operator.
    TrustExtended,
    /// A root was made.
    CaCreated,
    /// A root was renewed.
    CaRenewed,
    /// A vault was made.
    VaultCreated,
    /// The vault's key was changed.
    VaultRekeyed,
    /// Rows of the vault are about to be changed.
    VaultChanging,
    /// A copy of the vault was written.
    VaultCopied,
    /// A copy took the vault's place.
    VaultRestored,
    /// A database older than the one in use was taken.
    VaultRollbackAccepted,
    /// A profile was taken out of use by a person.
    ProfileDisabled,
    /// A profile was put back into use by a person.
    ProfileEnabled,
    /// A profile's rest was ended by a person.
    ProfileReset,
}

impl Action {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretCreated => "secret.created",
            Self::SecretRotated => "secret.rotated",
            Self::SecretRenewed => "secret.renewed",
            Self::SecretChanged => "secret.changed",
            Self::SecretRolledBack => "secret.rolled_back",
            Self::SecretDeleted => "secret.deleted",
            Self::SecretRevealed => "secret.revealed",
            Self::SecretExported => "secret.exported",
            Self::AgentCreated => "agent.created",
            Self::AgentRotated => "agent.rotated",
            Self::AgentRevoked => "agent.revoked",
            Self::SessionCreated => "session.created",
            Self::ConfigLoaded => "config.loaded",
            Self::ConfigRefused => "config.refused",
            Self::TrustExtended => "config.trust_extended",
            Self::CaCreated => "ca.created",
            Self::CaRenewed => "ca.renewed",
            Self::VaultCreated => "vault.created",
            Self::VaultRekeyed => "vault.rekeyed",
            Self::VaultChanging => "vault.changing",
            Self::VaultCopied => "vault.copied",
            Self::VaultRestored => "vault.restored",
            Self::VaultRollbackAccepted => "vault.rollback_accepted",
            Self::ProfileDisabled => "profile.disabled",
            Self::ProfileEnabled => "profile.enabled",
            Self::ProfileReset => "profile.reset",
        }
    }
}

/// A request was refused for what it held or where it went.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// When.
    pub at: WallTime,
    /// Which exchange.
    pub request_id: RequestId,
    /// Whose.
    pub agent: Option<&'a AgentName>,
    /// Where it would have gone.
    pub host: Option<&'a Host>,
    /// Why.
    pub code: Code,
}
