//! The configuration file: `keyferry.yaml` becomes a checked [`Config`], or every fault in it is reported at once.
//!
//! Invariant: a secret never stands in the file; what looks like one is a fault that does not show it. A key that
//! would do nothing is a fault too.

mod change;
mod check;
mod fault;
mod field;
mod fixture;
mod model;
mod read;
mod schema;
mod show;
mod suspect;
#[cfg(test)]
mod tests;
mod unbuilt;
mod units;
mod words;
mod yaml;

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub use change::{Changed, changed_keys, changed_values, restart_needed};
pub use fault::{Fault, Faults};
pub use fixture::{Assumed, Expected, Fixture, Fixtures, load_fixtures};
pub use model::{
    AgentConfig, AuditConfig, Config, Cooldown, Durability, FallbackTarget, Foreign, Level, Listen, Listener,
    LogConfig, LogFormat, MasterKey, PoolConfig, ProxySource, Strategy, Timeouts, UnixListener, Upstream, VaultConfig,
    VaultUrl, Warnings,
};
pub use schema::schema;

use crate::message::pattern::HostPattern;
use crate::policy::{Fallback, PolicyRules, RouteAction};
use crate::provider::{Catalogue, DraftFault};
use fault::Report;

/// A file of ten thousand routes is about half of it.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Others may write to the file.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`Faults`]: everything that is wrong with it, or that it cannot be read.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let name = path.to_string_lossy();
    match read_file(path)? {
        Some(text) => parse(&text, &name),
        None => Err(Faults::of_file(&name, "there is no such file", "`keyferry init` writes one")),
    }
}

/// As [`load`]; a file that is not there is one that says nothing.
///
/// # Errors
/// [`Faults`] as there.
pub fn load_or_default(path: &Path) -> Result<Config, Faults> {
    parse(&read_file(path)?.unwrap_or_default(), &path.to_string_lossy())
}

/// Checks the text of a file that messages call `file_name`.
///
/// # Errors
/// [`Faults`]: everything that is wrong with it.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Faults> {
    if text.len() as u64 > LARGEST_FILE {
        return Err(too_large(file_name));
    }
    let mut report = Report::new(file_name);
    suspect::search(text, &mut report);
    let mut config = Config::default();
    if let Some(root) = yaml::read(text, &mut report) {
        config = read::config(&root, &mut report);
        check::check(&config, &mut report);
    }
    config.warnings = Warnings(report.finish()?);
    Ok(config)
}

impl Config {
    /// The rules for the policy; `otherwise` is the default of the command, where the file has none.
    #[must_use]
    pub fn rules(&self, otherwise: Fallback) -> PolicyRules {
        let allow = |(name, agent): (&crate::id::AgentName, &AgentConfig)| Some((name.clone(), agent.allow.clone()?));
        PolicyRules {
            routes: self.routes.clone(),
            agents: self.agents.iter().filter_map(allow).collect(),
            fallback: self.default.unwrap_or(otherwise),
            fallback_at: self.default_at.clone(),
            scrub: self.scrub,
            enforcement: self.mode,
        }
    }

    /// The built-in providers with those of the file.
    ///
    /// # Errors
    /// [`DraftFault`]s, for a configuration that does not come from a file.
    pub fn catalogue(&self) -> Result<Catalogue, Vec<DraftFault>> {
        Catalogue::embedded().with(self.providers.clone())
    }

    /// Hosts that the file lets be intercepted, beside those of built-in providers: what certificates must cover.
    #[must_use]
    pub fn intercepted_hosts(&self) -> Vec<HostPattern> {
        let own = self.providers.iter().flat_map(|(_, draft)| &draft.hosts);
        let own = own.filter_map(|host| HostPattern::parse(host).ok());
        let intercepts = |action: &RouteAction| matches!(action, RouteAction::Allow { .. });
        let routed = self.routes.iter().filter(|route| route.looks_inside() || intercepts(&route.action));
        let mut seen = HashSet::new();
        own.chain(routed.map(|route| route.host.clone())).filter(|host| seen.insert(host.clone())).collect()
    }
}

fn read_file(path: &Path) -> Result<Option<String>, Faults> {
    let name = path.to_string_lossy();
    let unreadable = |error: std::io::Error| {
        Faults::of_file(&name, format!("cannot be read: {error}"), format!("look at the permissions of {name}"))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Faults::of_file(&name, "is not a file", "name the file itself: keyferry.yaml"));
    }
    if metadata.permissions().mode() & WRITABLE_BY_OTHERS != 0 {
        let hint = format!("chmod o-w {name}");
        return Err(Faults::of_file(&name, "can be written by everybody on this machine", hint));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(too_large(&name));
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Faults::of_file(&name, "is not UTF-8 text", "save it as UTF-8"))
}

fn too_large(file: &str) -> Faults {
    let hint = "split hosts with the same rule off into a wildcard or a provider";
    Faults::of_file(file, format!("is larger than {} KiB", LARGEST_FILE / 1024), hint)
}
