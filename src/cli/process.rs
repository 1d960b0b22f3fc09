//! What `run` and `env` give to a process of an agent's: its environment and the files that it names.
//!
//! Invariant: the values of credentials are compared with the caller's variables and go nowhere else.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::context::Context;
use super::output::{Failure, Outcome};
use crate::admin::Session;
use crate::config::{Config, MasterKey};
use crate::id::AgentName;
use crate::launch::environment::{Environment, Inputs, Install};
use crate::launch::files::{ChildFiles, Sources};
use crate::provider::Catalogue;
use crate::scrub::{Item, Patterns};
use crate::secret::Secret;
use crate::vault::Vault;

/// Finds the values of managed credentials in the caller's variables, in every encoding that is looked for.
pub struct Managed(Arc<Patterns>);

impl Managed {
    /// Every stored value, and those that were found in variables.
    ///
    /// # Errors
    /// When the vault cannot be read. A record that does not open is left out: it cannot be used either.
    pub async fn of(vault: Option<&Vault>, found: &[Arc<Secret>]) -> Outcome<Self> {
        let mut secrets: Vec<Arc<Secret>> = found.to_vec();
        if let Some(vault) = vault {
            let sealed = vault.snapshot().await?;
            secrets.extend(sealed.iter().filter_map(|sealed| vault.unseal(sealed).ok()).map(|opened| opened.secret));
        }
        let items: Vec<Item> =
            secrets.into_iter().map(|secret| Item { secret, replacement: "***".to_owned() }).collect();
        Ok(Self(Patterns::new(&items)))
    }

    /// Whether `text` holds one.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.scrub(text).is_some()
    }
}

/// What a process needs beside the session.
pub struct Wanted<'a> {
    /// The caller's environment.
    pub inherited: &'a [(OsString, OsString)],
    /// Variables to pass on.
    pub pass: &'a [String],
    /// The providers whose variables are known.
    pub catalogue: &'a Catalogue,
    /// The configuration.
    pub config: &'a Config,
    /// The values to keep out.
    pub managed: &'a Managed,
}

/// The changes to the caller's environment for a process with this session.
///
/// # Errors
/// When the daemon's answer names what cannot be an agent.
pub fn environment(session: &Session, files: &ChildFiles, wanted: &Wanted<'_>) -> Outcome<Environment> {
    let agent = AgentName::parse(&session.agent)?;
    let token = Secret::from(session.token.clone());
    let installs: Vec<Install> = session
        .installed
        .iter()
        .map(|installed| Install {
            variable: installed.variable.clone(),
            placeholder: installed.placeholder.clone(),
            base_url: installed
                .base_url_variables
                .first()
                .map(|variable| (variable.clone(), format!("/{}", installed.provider))),
        })
        .collect();
    let hosts: Vec<String> = session.installed.iter().flat_map(|installed| installed.hosts.iter().cloned()).collect();
    let kinds = wanted.catalogue.iter().flat_map(|provider| provider.kinds.iter());
    let known: Vec<String> = kinds.flat_map(|kind| kind.env.iter().cloned()).collect();
    let mut doors: Vec<String> = PASSPHRASE.iter().map(ToString::to_string).collect();
    if let MasterKey::Env(variable) = &wanted.config.vault.master_key {
        doors.push(variable.clone());
    }
    Ok(Environment::new(&Inputs {
        inherited: wanted.inherited,
        agent: &agent,
        token: &token,
        proxy: reachable(session.listeners.proxy),
        base_url: None,
        base: session.listeners.base_url.map(reachable),
        open: session.listeners.open,
        trust: files.trust(),
        installs: &installs,
        hosts: &hosts,
        git_hosts: &session.git_hosts,
        known: &known,
        doors: &doors,
        pass: wanted.pass,
        defaults: &session.plain,
        holds_secret: &|text| wanted.managed.is_in(text),
    }))
}

/// What opens the vault, and is nothing for a child.
const PASSPHRASE: [&str; 4] =
    ["KEYFERRY_PASSPHRASE", "KEYFERRY_PASSPHRASE_FILE", "KEYFERRY_NEW_PASSPHRASE", "KEYFERRY_NEW_PASSPHRASE_FILE"];

/// Where a process of this machine connects to a listener on all addresses.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address {
        SocketAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], address.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
    };
    if address.ip().is_unspecified() { loopback } else { address }
}

/// Reads what the files are made from.
///
/// # Errors
/// When the CA or the bundle cannot be read.
pub fn read_trust(session: &Session) -> Outcome<(String, String)> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))
    };
    Ok((read(&session.ca)?, read(&session.bundle)?))
}

/// Files for one child, in a place outside the home that goes with it.
///
/// # Errors
/// When there is no place for them.
pub fn child_files(session: &Session, inherited: &[(OsString, OsString)], context: &Context) -> Outcome<ChildFiles> {
    let (ca, bundle) = read_trust(session)?;
    let sources = Sources { ca: &ca, bundle: &bundle, inherited };
    let parents =
        ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(|name| context.variable(name)).map(PathBuf::from);
    let parents: Vec<PathBuf> = parents.filter(|path| path.is_absolute()).chain(["/tmp".into()]).collect();
    let mut last = None;
    for parent in parents.iter().filter(|parent| parent.is_dir()) {
        crate::launch::files::sweep(parent);
        match ChildFiles::temporary(parent, &sources) {
            Ok(files) => return Ok(files),
            Err(error) => last = Some(format!("{}: {error}", parent.display())),
        }
    }
    let why = last.unwrap_or_else(|| "there is no directory for temporary files".to_owned());
    Err(Failure::new(format!("the command's certificate files cannot be written: {why}")).hint("set TMPDIR"))
}
