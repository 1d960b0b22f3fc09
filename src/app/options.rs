//! What a proxy is started with.

use std::path::PathBuf;
use std::sync::Arc;

use crate::app::members::Found;
use crate::config::Config;
use crate::home::Home;
use crate::id::AgentName;
use crate::scrub::Redactor;
use crate::tls::Inherited;
use crate::upstream::chain::Chain;
use crate::vault::Vault;

/// How the proxy is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The daemon: the configured ports, an admin socket, everything unknown refused.
    Serve,
    /// Beside one child: free loopback ports, everything unknown tunnelled.
    Run,
}

/// What a proxy is started with.
#[derive(Debug)]
pub struct Options {
    /// Where its files are.
    pub home: Home,
    /// The configuration file, for reloads; it need not exist.
    pub config_file: PathBuf,
    /// What it says.
    pub config: Config,
    /// How it is used.
    pub mode: Mode,
    /// The vault: stored, or in memory for this process.
    pub vault: Vault,
    /// Known variables of the caller's environment.
    pub found: Vec<Found>,
    /// Whether access lines go to stdout too.
    pub lines_to_stdout: bool,
    /// The caller's environment, for its own CA bundle.
    pub inherited: Inherited,
    /// Masks secrets in what this process writes; the caller's messages go through the same one.
    pub redactor: Arc<Redactor>,
    /// Proxies of the caller's environment on the way out; the configuration's own goes first.
    pub way_out: Option<Chain>,
    /// The agent that gets a listener of its own, for programs that cannot authenticate to a proxy.
    pub companion: Option<AgentName>,
}
