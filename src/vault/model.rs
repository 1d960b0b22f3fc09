//! What the vault takes and gives, without a value in it.

use std::fmt;
use std::sync::Arc;

use crate::clock::WallTime;
use crate::id::{AgentName, CredentialName, ProviderId};
use crate::secret::Secret;

/// Who may use a credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Every agent.
    Shared,
    /// One agent alone.
    Agent(AgentName),
}

impl Scope {
    /// Reads `shared` or `agent:NAME`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "shared" => Ok(Self::Shared),
            Some(("agent", name)) => AgentName::parse(name).map(Self::Agent).map_err(|error| error.to_string()),
            _ => Err("a scope is `shared` or `agent:NAME`".to_owned()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => f.write_str("shared"),
            Self::Agent(name) => write!(f, "agent:{name}"),
        }
    }
}

/// A stored credential, its value left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its record; stays the same over all versions.
    pub id: [u8; 16],
    /// What it is called.
    pub name: CredentialName,
    /// Whose credential it is.
    pub provider: Option<ProviderId>,
    /// What sort of credential: `api-key`, `setup-token`, ...
    pub kind: String,
    /// Who may use it.
    pub scope: Scope,
    /// The variable that holds its placeholder, where that is not the provider's usual one.
    pub env: Option<String>,
    /// Whether an agent's process gets a placeholder for it.
    pub install: bool,
    /// Where it may be sent: `api.x.com`, `host:8443`, `*.x.com`.
    pub hosts: Vec<String>,
    /// A text for people.
    pub description: Option<String>,
    /// A text for people.
    pub label: Option<String>,
    /// How the value is shown; a reference is shown as it is.
    pub masked: String,
    /// Whether a reference is stored in the place of a value.
    pub by_reference: bool,
    /// The current version, counted from one.
    pub version: u64,
    /// When the first version was stored.
    pub created: WallTime,
    /// When the current value was stored; a change beside the value leaves it.
    pub updated: WallTime,
}

impl Stored {
    /// What to give to [`set`](super::Vault::set) with a new value, so that everything else stays as it is.
    #[must_use]
    pub fn draft(&self) -> Draft {
        Draft {
            name: self.name.clone(),
            provider: self.provider.clone(),
            kind: self.kind.clone(),
            scope: self.scope.clone(),
            env: self.env.clone(),
            install: self.install,
            hosts: self.hosts.clone(),
            description: self.description.clone(),
            label: self.label.clone(),
        }
    }
}

/// A credential to be stored, beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is called. With the scope it says which credential is meant.
    pub name: CredentialName,
    /// Whose credential it is.
    pub provider: Option<ProviderId>,
    /// What sort of credential.
    pub kind: String,
    /// Who may use it.
    pub scope: Scope,
    /// The variable that holds its placeholder.
    pub env: Option<String>,
    /// Whether an agent's process gets a placeholder for it.
    pub install: bool,
    /// Where it may be sent. Sealed with the value.
    pub hosts: Vec<String>,
    /// A text for people.
    pub description: Option<String>,
    /// A text for people.
    pub label: Option<String>,
}

/// A stored credential with its sealed value, as a snapshot holds it.
#[derive(Debug, Clone)]
pub struct SealedCredential {
    /// What the row says.
    pub stored: Stored,
    /// The sealed record of the current version.
    pub sealed: Arc<[u8]>,
}

/// An opened credential. All of it comes from the sealed record, nothing from the row beside it.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The value.
    pub secret: Arc<Secret>,
    /// What it is called.
    pub name: CredentialName,
    /// Whose credential it is.
    pub provider: Option<ProviderId>,
    /// What sort of credential.
    pub kind: String,
    /// Who may use it.
    pub scope: Scope,
    /// Where it may be sent.
    pub hosts: Vec<String>,
    /// Which version.
    pub version: u64,
    /// When this version was stored.
    pub created: WallTime,
}

/// One version in a credential's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Which version, counted from one.
    pub version: u64,
    /// When it was stored.
    pub created: WallTime,
    /// How its value is shown.
    pub masked: String,
    /// Whether it is the one in use.
    pub current: bool,
}

/// What a look at every record found.
#[derive(Debug)]
pub struct Verification {
    /// How many records were opened, all versions counted.
    pub records: u64,
    /// What did not open.
    pub faults: Vec<super::VaultError>,
}

/// An agent on file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRow {
    /// Its name.
    pub agent: AgentName,
    /// When it was first made.
    pub created: WallTime,
    /// When one of its requests was last seen.
    pub last_seen: Option<WallTime>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// An agent's own, until it is rotated or revoked.
    Agent,
    /// A session's, which ends by itself.
    Session,
}

/// A token on file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// The keyed digest of the token.
    pub digest: [u8; 32],
    /// Whose it is.
    pub agent: AgentName,
    /// What it is for.
    pub kind: TokenKind,
    /// When it was made.
    pub created: WallTime,
    /// When it ends by itself.
    pub expires: Option<WallTime>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// A row of a pool's state. Not secret, and not protected against changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRow {
    /// What the state is about.
    pub scope: String,
    /// The state. An empty text removes the row.
    pub json: String,
}

/// Whether a vault was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It was.
    Existing,
    /// It was made just now.
    Created,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for text in ["shared", "agent:coder"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "Shared", "agent", "agent:", "agent:a b", "agents:coder", "shared:x"] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
    }
}
