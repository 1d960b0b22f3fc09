//! One member of a pool, as the snapshot knows it: everything but its value.

use std::fmt;
use std::sync::Arc;

use crate::clock::WallTime;
use crate::id::ProfileId;
use crate::message::pattern::HostPattern;
use crate::placeholder::Shape;
use crate::provider::OAUTH2;
use crate::secret::Secret;
use crate::vault::{Scope, SealedCredential};

/// Where the value is.
pub enum MemberValue {
    /// Sealed in the vault.
    Stored(Arc<SealedCredential>),
    /// Found in the caller's environment, held in memory only.
    Environment(Arc<Secret>),
}

impl fmt::Debug for MemberValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored(_) => "Stored",
            Self::Environment(_) => "Environment",
        })
    }
}

/// A credential that is known, but not open.
#[derive(Debug)]
pub struct Member {
    /// Which profile it is.
    pub profile: ProfileId,
    /// Its type, one of the provider's kinds.
    pub kind: String,
    /// Its place in the default order: setup-tokens before keys before the environment.
    pub rank: u8,
    /// Who may use it.
    pub scope: Scope,
    /// Where it may be sent.
    pub audience: Vec<HostPattern>,
    /// The shape of its placeholder.
    pub shape: Shape,
    /// The variable that an agent finds the placeholder in.
    pub env: Option<String>,
    /// Whether that variable is set.
    pub install: bool,
    /// When it was first stored: of two that are otherwise alike the earlier comes first.
    pub created: WallTime,
    /// Its version in the vault; 0 for the environment.
    pub version: u64,
    /// Changes when the value does; says nothing about it.
    pub fingerprint: [u8; 8],
    /// Where the value is.
    pub value: MemberValue,
}

impl Member {
    /// Whether its value is a login, which ends and is renewed.
    #[must_use]
    pub fn is_login(&self) -> bool {
        self.kind == OAUTH2 && matches!(self.value, MemberValue::Stored(_))
    }
}
