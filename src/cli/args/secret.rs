//! Names and options of `secret ..`.
//!
//! Invariant: no option takes a value.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Later;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyferry secret set anthropic:work                    asks for the value without echo
  pass show anthropic | keyferry secret set anthropic:work -
  keyferry secret set github:bot --from-env GITHUB_TOKEN
  keyferry secret set github:bot --label ci --no-input      the label changes, the value stays
  keyferry secret list";

/// `secret ..`.
#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Store a value, or rotate it: a new version
    ///
    /// The value comes from a hidden prompt, from stdin, from a variable or from a file, never from an argument. With
    /// options and no value, a stored secret keeps its value and only what the options say is changed.
    #[command(before_help = EXAMPLES)]
    Set(Box<SecretSet>),
    /// List all secrets, masked
    List,
    /// Show one secret, masked
    Show(SecretName),
    /// The versions of a secret, masked
    History(SecretName),
    /// Delete a secret with all its versions
    Delete(SecretDelete),
    /// Go back to an earlier version, which becomes a new one
    Rollback(SecretRollback),
    /// Find secrets by name, provider, type, scope, variable, host, label or description
    Search(SecretSearch),
    /// Import the keys of a .env or an auth-profiles.json file: all of them or, where one is at fault, none
    Import(SecretImport),
    /// Export sealed
    #[command(hide = true)]
    Export(Later),
    /// Show a value: only of a vault that was made with init --allow-reveal
    Reveal(SecretDelete),
}

/// `secret set`.
#[derive(Debug, Args)]
pub struct SecretSet {
    /// `provider:name`, or a name of its own
    #[arg(value_name = "NAME")]
    pub name: String,
    /// `-` reads the value from stdin
    #[arg(value_name = "-")]
    pub dash: Vec<OsString>,
    /// Take the value from the variable VAR
    #[arg(long, value_name = "VAR", conflicts_with_all = ["from_file", "dash"])]
    pub from_env: Option<String>,
    /// Take the value from the file F
    #[arg(long, value_name = "F", conflicts_with = "dash")]
    pub from_file: Option<PathBuf>,
    /// Keep a reference instead of a value (not available yet)
    #[arg(long, value_name = "REF", hide = true)]
    pub r#ref: Option<String>,
    /// A part of the value that is not secret, for types with several: --type oauth2 --set token_url=https://...
    #[arg(long = "set", value_name = "K=V")]
    pub set: Vec<String>,
    /// Whose key it is, when the name does not say so
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<String>,
    /// Which kind of the provider's credentials, when its shape does not say so
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A label of your own
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Who may use it: shared (if nothing is said), or agent:NAME
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// The variable that agents find a placeholder in
    #[arg(long, value_name = "VAR")]
    pub env: Option<String>,
    /// Set no variable for it
    #[arg(long)]
    pub no_install: bool,
    /// Set its variable again, after --no-install
    #[arg(long, conflicts_with = "no_install")]
    pub install: bool,
    /// The hosts that it may be sent to, for providers with a host per customer
    #[arg(long = "host", value_name = "H")]
    pub hosts: Vec<String>,
    /// Store a value that does not look like one of its provider's
    #[arg(long)]
    pub force: bool,
}

/// `secret rollback`.
#[derive(Debug, Args)]
pub struct SecretRollback {
    /// Which
    #[command(flatten)]
    pub which: SecretName,
    /// The version to go back to; the one before the current one when left out
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u64>,
}

/// `secret import`.
#[derive(Debug, Args)]
pub struct SecretImport {
    /// A .env or an auth-profiles.json file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Say what would happen, and store nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the variables of a .env file that belong to no known provider too
    #[arg(long)]
    pub all: bool,
    /// Who may use them: shared (if nothing is said), or agent:NAME
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Store values that do not look like their provider's
    #[arg(long)]
    pub force: bool,
}

/// `secret search`.
#[derive(Debug, Args)]
pub struct SecretSearch {
    /// Words, each of which must stand somewhere; letter case does not matter
    #[arg(value_name = "TEXT", required = true)]
    pub words: Vec<String>,
}

/// A stored secret's name.
#[derive(Debug, Args)]
pub struct SecretName {
    /// Its name
    pub name: String,
    /// Which one, when several scopes have the name: shared, or agent:NAME
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
}

/// `secret delete`, `secret reveal`.
#[derive(Debug, Args)]
pub struct SecretDelete {
    /// Which
    #[command(flatten)]
    pub which: SecretName,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
