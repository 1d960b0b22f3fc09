//! `vault` and `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Later;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyferry vault verify                       open every record; ends with 1 where something was changed
  keyferry vault backup ~/keyferry.backup     a sealed copy; of use only with the master key, which is not in it
  keyferry vault rekey                        a new master key and a new vault key, beside a running daemon
  keyferry vault rekey --to passphrase        another source for the master key";

/// `vault ..`.
#[derive(Debug, Subcommand)]
pub enum Vault {
    /// Where it is, what is in it, and which keys it has
    Status,
    /// Open every record and check every row; ends with 1 where something was changed
    Verify(VaultVerify),
    /// New keys: the master key where Keyferry keeps it, and the vault key, with all records sealed anew
    Rekey(VaultRekey),
    /// Write a sealed copy to a file; the master key is not in it
    Backup(VaultBackup),
    /// Put a copy back, after every record in it has opened
    Restore(VaultRestore),
    /// The key that others seal bundles to
    #[command(hide = true)]
    Recipient(Later),
    /// Move it to another store
    #[command(hide = true)]
    Migrate(Later),
}

/// `vault verify`.
#[derive(Debug, Args)]
pub struct VaultVerify {
    /// Take a database that is older than the one that was in use
    #[arg(long)]
    pub accept_rollback: bool,
}

/// `vault rekey`.
#[derive(Debug, Args)]
pub struct VaultRekey {
    /// Give the vault the master key of SOURCE: file:PATH, env:VAR, passphrase, command:COMMAND, credential:NAME
    #[arg(long, value_name = "SOURCE")]
    pub to: Option<String>,
    /// Leave the vault key and the records as they are
    #[arg(long, conflicts_with = "records_only")]
    pub root_only: bool,
    /// Leave the master key as it is
    #[arg(long, conflicts_with = "to")]
    pub records_only: bool,
}

/// `vault backup`.
#[derive(Debug, Args)]
pub struct VaultBackup {
    /// Where to
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    pub yes: bool,
}

/// `vault restore`.
#[derive(Debug, Args)]
pub struct VaultRestore {
    /// A copy that `vault backup` made
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace a vault that is there
    #[arg(long)]
    pub yes: bool,
}

/// `audit ..`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check every record of the log; ends with 1 where one was changed, moved or taken away
    Verify,
    /// Show the last records
    Tail(AuditTail),
}

/// `audit tail`.
#[derive(Debug, Args)]
pub struct AuditTail {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub lines: usize,
}
