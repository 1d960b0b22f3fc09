//! Where the vault's rows are kept: what a database has to do for it, and no more.
//!
//! A store keeps rows and applies a batch of changes in one step, if and only if nothing changed since the manifest that
//! the batch was made from. It never sees a value or a key, and what it gives back is checked by the caller.
//!
//! Invariant: a batch whose commit was acknowledged is on the disk; any other left no trace.

use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::error::VaultError;
use super::integrity::{Canon, Manifest, Protected, Section};
use super::root::Kdf;

/// What identifies a vault, and its keys in wrapped form.
#[derive(Debug, Clone)]
pub struct Root {
    /// The deployment that the vault belongs to.
    pub deployment: [u8; 16],
    /// The vault.
    pub vault: [u8; 16],
    /// Its keys, wrapped by the root key.
    pub wrapping: Wrapping,
    /// The same keys, wrapped by the root key before, as long as a change of it is unfinished.
    pub before: Option<Wrapping>,
}

/// The vault's keys under one root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapping {
    /// Tells a wrong root key from a changed keyring.
    pub check: [u8; 16],
    /// How the root key is made of a passphrase, if it is.
    pub(super) kdf: Option<Kdf>,
    /// The wrapped keys.
    pub keyring: Vec<WrappedKey>,
}

/// One vault key, sealed under the root key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// Which vault key; 0 is the identity key, which seals no credentials.
    pub term: u32,
    /// The record's name.
    pub record: [u8; 16],
    /// How often it was wrapped, counted from one.
    pub generation: u64,
    /// The sealed record.
    pub sealed: Vec<u8>,
}

/// A credential, without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialRow {
    /// The record's name.
    pub record: [u8; 16],
    /// `provider:name` or `name`.
    pub name: String,
    /// `shared` or `agent:NAME`.
    pub scope: String,
    /// The provider.
    pub provider: Option<String>,
    /// The kind of credential.
    pub kind: String,
    /// The variable.
    pub env: Option<String>,
    /// Whether a placeholder is installed.
    pub install: bool,
    /// The hosts as a JSON list.
    pub hosts: String,
    /// A text.
    pub description: Option<String>,
    /// A text.
    pub label: Option<String>,
    /// The current version.
    pub version: u64,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// When it was last set.
    pub updated: u64,
    /// The row's MAC.
    pub mac: [u8; 32],
}

impl Protected for CredentialRow {
    const SECTION: Section = Section::Credential;

    fn canonical(&self, to: &mut Canon) {
        to.bytes(&self.record).text(&self.name).text(&self.scope).maybe(self.provider.as_deref()).text(&self.kind);
        to.maybe(self.env.as_deref()).number(u64::from(self.install)).text(&self.hosts);
        to.maybe(self.description.as_deref()).maybe(self.label.as_deref());
        to.number(self.version).number(self.created).number(self.updated);
    }

    fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    fn set_mac(&mut self, mac: [u8; 32]) {
        self.mac = mac;
    }
}

/// One version of a credential's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// The credential's record.
    pub record: [u8; 16],
    /// Which version.
    pub version: u64,
    /// The vault key that it is sealed under.
    pub term: u32,
    /// When it was stored, in milliseconds.
    pub created: u64,
    /// The sealed value. It has its own protection and stays outside the row's MAC, so that damage to one value is
    /// seen when that value is opened and does not stop the others.
    pub sealed: Vec<u8>,
    /// The sealed preview.
    pub preview: Vec<u8>,
    /// The row's MAC.
    pub mac: [u8; 32],
}

impl Protected for VersionRow {
    const SECTION: Section = Section::Version;

    fn canonical(&self, to: &mut Canon) {
        to.bytes(&self.record).number(self.version).number(u64::from(self.term)).number(self.created);
    }

    fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    fn set_mac(&mut self, mac: [u8; 32]) {
        self.mac = mac;
    }
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRecord {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// When it was revoked.
    pub revoked: Option<u64>,
    /// The row's MAC.
    pub mac: [u8; 32],
}

impl Protected for AgentRecord {
    const SECTION: Section = Section::Agent;

    fn canonical(&self, to: &mut Canon) {
        to.text(&self.name).number(self.created).maybe_number(self.revoked);
    }

    fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    fn set_mac(&mut self, mac: [u8; 32]) {
        self.mac = mac;
    }
}

/// A token of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// The keyed digest of the token.
    pub digest: [u8; 32],
    /// Whose it is.
    pub agent: String,
    /// Whether it is a session's.
    pub session: bool,
    /// When it was made, in milliseconds.
    pub created: u64,
    /// When it ends by itself.
    pub expires: Option<u64>,
    /// When it was revoked.
    pub revoked: Option<u64>,
    /// The row's MAC.
    pub mac: [u8; 32],
}

impl Protected for TokenRecord {
    const SECTION: Section = Section::Token;

    fn canonical(&self, to: &mut Canon) {
        to.bytes(&self.digest).text(&self.agent).number(u64::from(self.session)).number(self.created);
        to.maybe_number(self.expires).maybe_number(self.revoked);
    }

    fn mac(&self) -> &[u8; 32] {
        &self.mac
    }

    fn set_mac(&mut self, mac: [u8; 32]) {
        self.mac = mac;
    }
}

/// What was read at one moment, and the manifest of that moment. Changes may only be made from both together: from a
/// manifest and a row of different moments would come a manifest of neither.
#[derive(Debug)]
pub struct Read<T> {
    /// The manifest.
    pub manifest: Manifest,
    /// What it belongs to.
    pub found: T,
}

/// Every agent and every token.
#[derive(Debug)]
pub struct Roster {
    /// The agents, by name.
    pub agents: Vec<AgentRecord>,
    /// The tokens, by agent and age.
    pub tokens: Vec<TokenRecord>,
}

/// Whether a credential is wanted with its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// With all of them, oldest first.
    Include,
    /// With none.
    LeaveOut,
}

/// One change. Every `Put` inserts a row or replaces the one with the same key.
#[derive(Debug, Clone)]
pub enum Change {
    /// A credential's row.
    PutCredential(CredentialRow),
    /// A new version; an error if that version is there.
    AddVersion(VersionRow),
    /// A credential with all its versions.
    DeleteCredential([u8; 16]),
    /// An agent's row.
    PutAgent(AgentRecord),
    /// A token's row.
    PutToken(TokenRecord),
    /// A token that nobody needs to know any more.
    DeleteToken([u8; 32]),
    /// The same version under another vault key.
    ResealVersion(VersionRow),
    /// Another vault key.
    AddKey(WrappedKey),
    /// The end of the vault keys of credentials before this term.
    DropKeysBefore(u32),
    /// All keys wrapped by another root key, and by the one that opens them now.
    ReplaceWrapping {
        /// By the other one.
        to: Wrapping,
        /// By the one that opens them now.
        before: Wrapping,
    },
    /// The end of the wrapping before.
    DropWrappingBefore,
}

/// Changes that belong together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The epoch that the changes were made from.
    pub from_epoch: u64,
    /// The manifest after the changes.
    pub manifest: Manifest,
    /// The changes.
    pub changes: Vec<Change>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It is on the disk.
    Done,
    /// Somebody else was first, or a record is sealed under a vault key that has ended; nothing was changed.
    Conflict,
}

/// A database of the vault's rows.
#[async_trait]
pub trait Store: Send + Sync {
    /// What identifies the vault, and its keys.
    async fn root(&self) -> Result<Read<Root>, VaultError>;
    /// The manifest alone.
    async fn manifest(&self) -> Result<Manifest, VaultError>;
    /// Every credential with its current version.
    async fn credentials(&self) -> Result<Read<Vec<(CredentialRow, Option<VersionRow>)>>, VaultError>;
    /// One credential.
    async fn credential(
        &self,
        name: &str,
        scope: &str,
        history: History,
    ) -> Result<Read<Option<(CredentialRow, Vec<VersionRow>)>>, VaultError>;
    /// Every version of every credential.
    async fn versions(&self) -> Result<Read<Vec<VersionRow>>, VaultError>;
    /// At most `limit` versions that are sealed under a vault key before `term`.
    async fn versions_before(&self, term: u32, limit: u32) -> Result<Read<Vec<VersionRow>>, VaultError>;
    /// Every agent and every token.
    async fn roster(&self) -> Result<Read<Roster>, VaultError>;
    /// Writes a copy of all that was acknowledged to a file that must not be there.
    async fn copy_to(&self, path: &Path) -> Result<(), VaultError>;
    /// Moves what is in a log into the database, so that nothing of replaced rows is left.
    async fn tidy(&self) -> Result<(), VaultError>;
    /// Applies `batch` if the epoch is still the one that it was made from.
    async fn commit(&self, batch: Batch) -> Result<Commit, VaultError>;

    /// When agents were last seen, in milliseconds.
    async fn seen(&self) -> Result<Vec<(String, u64)>, VaultError>;
    /// Moves those forward, never back.
    async fn touch(&self, seen: Vec<(String, u64)>) -> Result<(), VaultError>;
    /// The pools' state, as `(scope, json)`.
    async fn pool_rows(&self) -> Result<Vec<(String, String)>, VaultError>;
    /// Replaces the rows of these scopes; an empty text removes one.
    async fn save_pool_rows(&self, rows: Vec<(String, String)>) -> Result<(), VaultError>;
}
