//! What can be wrong with a vault, in words that say what to do.
//!
//! Invariant: no message holds a value, a key or a token; names from the database are shown only after they were
//! parsed.

use std::path::PathBuf;

use super::key::KEY_BYTES;
use super::value::ValueError;
use crate::code::Code;
use crate::home::HomeError;
use crate::id::AgentName;

/// Why the vault did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no vault at this place.
    #[error("there is no vault at {path}")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is a vault, but not the key that opens it.
    #[error("the vault at {vault} is there, but its key {key} is not")]
    KeyMissing {
        /// The key file.
        key: PathBuf,
        /// The vault.
        vault: PathBuf,
    },
    /// The key belongs to another vault.
    #[error("the key {source_name} does not open the vault at {vault}")]
    WrongKey {
        /// Where the key came from.
        source_name: String,
        /// The vault.
        vault: PathBuf,
    },
    /// The key is not 32 bytes.
    #[error("the key {source_name} holds {found} bytes instead of {KEY_BYTES}{}", if *.newline { ", the last one a newline" } else { "" })]
    KeyLength {
        /// Where the key came from.
        source_name: String,
        /// How many bytes there are.
        found: usize,
        /// Whether the last byte is a newline, the likeliest reason.
        newline: bool,
    },
    /// The variable or prompt that should hold the key gave nothing.
    #[error("the key was not given: {source_name} is not set")]
    KeyNotGiven {
        /// Where it should come from.
        source_name: String,
    },
    /// There is no passphrase to open the vault with.
    #[error("the vault is locked, and its passphrase was not given: {reason}")]
    Locked {
        /// What was tried; nothing of the passphrase.
        reason: String,
    },
    /// A passphrase that would be guessed.
    #[error("the passphrase is shorter than {shortest} characters")]
    WeakPassphrase {
        /// The least.
        shortest: usize,
    },
    /// The command that should print the key did not.
    #[error("the command that prints the vault's key {reason}")]
    KeyCommand {
        /// What it did instead.
        reason: String,
    },
    /// The database is older than one that was in use here.
    #[error("the vault at {vault} is an older copy: it has change {found}, and change {known} was made here")]
    RolledBack {
        /// The database.
        vault: PathBuf,
        /// Its epoch.
        found: u64,
        /// The epoch that was reached.
        known: u64,
    },
    /// What notes the newest change is unreadable or of another vault.
    #[error("{path} does not belong to this vault")]
    Anchor {
        /// The file.
        path: PathBuf,
    },
    /// A copy of another vault.
    #[error("{path} is a copy of another vault")]
    OtherVault {
        /// The copy.
        path: PathBuf,
    },
    /// The root key of another vault key change must be put in place first.
    #[error("the root key was changed to another source, and this one is the old one")]
    RootMoved,
    /// A key source whose key only its owner can change.
    #[error("Keyferry cannot change the key of {source_name}")]
    FixedRoot {
        /// The source.
        source_name: String,
    },
    /// The change could not be written down, so it was not made.
    #[error("nothing was changed: {reason}")]
    NotRecorded {
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The key source is not one of the known kinds.
    #[error("unknown key source")]
    KeySource,
    /// A part that is not built yet.
    #[error("{what} is not available yet")]
    NotAvailableYet {
        /// Which.
        what: &'static str,
    },
    /// The database file is there, but it is not one, or is damaged.
    #[error("{path} is not a whole vault: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The database is gone, but what SQLite keeps beside it is not.
    #[error("{path} is there, but the vault that it belongs to is not")]
    Leftover {
        /// The write-ahead log.
        path: PathBuf,
    },
    /// The database comes from a newer Keyferry.
    #[error("the vault has schema {found}, this Keyferry knows up to {known}")]
    NewerSchema {
        /// The database's schema.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// A row or record does not pass its integrity check.
    #[error("{what} did not pass its integrity check")]
    Corrupt {
        /// Which one.
        what: String,
    },
    /// Another process held the database for too long, or too many writers met.
    #[error("the vault is busy")]
    Busy,
    /// The file system is read-only.
    #[error("the vault cannot be written: it is read-only")]
    ReadOnly,
    /// The disk is full.
    #[error("the vault cannot be written: the disk is full")]
    DiskFull,
    /// SQLite or the operating system says something else.
    #[error("the vault's database failed: {reason}")]
    Storage {
        /// In its words, which hold no value.
        reason: String,
    },
    /// The value cannot be stored.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A field beside the value cannot be stored.
    #[error("the {field} {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No such agent.
    #[error("there is no agent {agent}")]
    NoSuchAgent {
        /// Which.
        agent: AgentName,
    },
    /// The agent was revoked.
    #[error("agent {agent} was revoked")]
    AgentRevoked {
        /// Which.
        agent: AgentName,
    },
    /// There are as many versions as can be counted.
    #[error("there is no version number left")]
    VersionsExhausted,
    /// Something is wrong with a file or directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The operating system has no randomness, or a task was lost.
    #[error("{0}")]
    System(&'static str),
}

impl From<std::io::Error> for VaultError {
    /// Of the memory for a key, the one place where an error of the system has no path.
    fn from(_: std::io::Error) -> Self {
        Self::System("the system gave no memory for a key")
    }
}

impl VaultError {
    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Missing { .. } => "keyferry secret set PROVIDER:NAME makes one",
            Self::KeyMissing { key, vault } => {
                return Some(format!(
                    "put the key file back at {} (from a backup); without it nothing in the vault can be read. \
                     To start anew, move {} away first",
                    key.display(),
                    vault.display()
                ));
            }
            Self::WrongKey { .. } => {
                "put back the key that this vault was made with, or name it with vault.master_key; the vault was not changed"
            }
            Self::KeyLength { newline: true, .. } => "write the key without a newline at its end, or as base64 text",
            Self::KeyLength { .. } => "the key is 32 random bytes, raw, or as base64 or hexadecimal text",
            Self::KeyNotGiven { source_name } if source_name.starts_with("credential:") => {
                "start it by systemd with LoadCredential= or LoadCredentialEncrypted= for this name"
            }
            Self::KeyNotGiven { .. } => "set it in the environment of this command",
            Self::Locked { .. } => {
                "run it at a terminal, or name a file that holds the passphrase with KEYFERRY_PASSPHRASE_FILE"
            }
            Self::WeakPassphrase { .. } => "a few words in a row are easy to keep and hard to guess",
            Self::KeyCommand { .. } => "run the command of vault.master_key by hand: it prints 32 bytes as base64 text",
            Self::RolledBack { .. } => {
                "put the newest copy back; if it is lost: keyferry vault verify --accept-rollback, then rotate what changed since"
            }
            Self::Anchor { path } => {
                return Some(format!(
                    "put {} back from a backup; if it is lost: keyferry vault verify --accept-rollback",
                    path.display()
                ));
            }
            Self::OtherVault { .. } => "move the present vault away first if that is what you want",
            Self::RootMoved => "name the new source in keyferry.yaml (vault.master_key), then try again",
            Self::FixedRoot { .. } => "give it another source: keyferry vault rekey --to SOURCE",
            Self::NotRecorded { hint, .. } => return Some(hint.clone()),
            Self::KeySource => {
                "vault.master_key is file:PATH, env:VAR, passphrase, keyring, command:COMMAND or credential:NAME"
            }
            Self::NotAvailableYet { .. } => "use file:PATH or env:VAR",
            Self::Damaged { .. } => "restore the file from a backup; nothing was changed in it",
            Self::Leftover { path } => {
                return Some(format!(
                    "put vault.db back beside it (from a backup), or move {} away to start anew",
                    path.display()
                ));
            }
            Self::NewerSchema { .. } => "use the Keyferry that made it, or a newer one",
            Self::Corrupt { .. } => {
                "the database was changed or damaged outside Keyferry; restore it from a backup, or set the secret again"
            }
            Self::Busy => "another keyferry is writing to this vault; try again",
            Self::ReadOnly => "make the home writable, or name another one with --home DIR",
            Self::DiskFull => "free some space; what was stored before is unchanged",
            Self::Storage { .. } => "check the disk and what the system's log says about it",
            Self::System(_) | Self::VersionsExhausted | Self::Field { .. } => return None,
            Self::NoSuchAgent { agent } => return Some(format!("keyferry agent create {agent}")),
            Self::AgentRevoked { agent } => {
                return Some(format!("keyferry agent create {agent} gives it a new token"));
            }
            Self::Value(error) => error.hint(),
            Self::Home(error) => return error.hint(),
        };
        Some(text.to_owned())
    }

    /// The exit code of a command that ends with this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::WrongKey { .. }
            | Self::KeyMissing { .. }
            | Self::KeyLength { .. }
            | Self::KeySource
            | Self::NotAvailableYet { .. }
            | Self::RootMoved
            | Self::Home(_) => 78,
            Self::KeyNotGiven { .. } | Self::Locked { .. } | Self::KeyCommand { .. } => 4,
            Self::WeakPassphrase { .. } | Self::Value(_) | Self::Field { .. } => 2,
            Self::Missing { .. }
            | Self::Damaged { .. }
            | Self::Leftover { .. }
            | Self::NewerSchema { .. }
            | Self::Corrupt { .. }
            | Self::RolledBack { .. }
            | Self::Anchor { .. }
            | Self::OtherVault { .. }
            | Self::FixedRoot { .. }
            | Self::NotRecorded { .. }
            | Self::Busy
            | Self::ReadOnly
            | Self::DiskFull
            | Self::Storage { .. }
            | Self::NoSuchAgent { .. }
            | Self::AgentRevoked { .. }
            | Self::VersionsExhausted
            | Self::System(_) => 1,
        }
    }

    /// What an agent is told whose request needed the vault.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Corrupt { .. }
            | Self::Damaged { .. }
            | Self::Leftover { .. }
            | Self::RolledBack { .. }
            | Self::Anchor { .. } => Code::VaultCorrupt,
            _ => Code::VaultLocked,
        }
    }
}
