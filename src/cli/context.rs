//! What every command starts from: the home, the wishes of the caller, the streams and the clock.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::Global;
use super::failure::CONFIGURATION;
use super::output::{Failure, Outcome, Output};
use super::{journal, unlock};
use crate::clock::{Clock, WallTime};
use crate::config::{self, Config, Fault, Faults, MasterKey};
use crate::home::Home;
use crate::provider::{Catalogue, DraftFault};
use crate::scrub::Redactor;
use crate::telemetry::trace;
use crate::vault::{KeySource, OlderCopy, Unlock, Vault, VaultError};

/// Given to every command.
pub struct Context {
    /// Where to print.
    pub output: Output,
    /// Options of every command.
    pub global: Global,
    clock: Clock,
    environment: BTreeMap<OsString, OsString>,
    redactor: Arc<Redactor>,
}

/// How many threads a command's work takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// A command that reads or changes something and ends.
    One,
    /// A proxy runs in this process.
    Many,
}

impl Context {
    /// With the environment of the process.
    pub fn new(global: Global, output: Output) -> Self {
        Self {
            output,
            global,
            clock: Clock::System,
            environment: std::env::vars_os().collect(),
            redactor: Arc::default(),
        }
    }

    /// The present moment.
    pub fn now(&self) -> WallTime {
        self.clock.now()
    }

    /// A variable of the caller's, if it is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The caller's whole environment.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        self.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Lets the running parts speak on stderr, from `level` on where `KEYFERRY_LOG` says nothing. From then on a panic
    /// is told without its text, which may hold anything.
    ///
    /// # Errors
    /// When `KEYFERRY_LOG` does not read.
    pub fn start_messages(&self, level: &str) -> Outcome {
        let filter = self.variable(trace::VARIABLE).map(|text| text.to_string_lossy().into_owned());
        let filter = filter.unwrap_or_else(|| trace::default_filter(level));
        let set = trace::init(&filter, trace::Format::Text, self.redactor());
        set.map_err(|error| Failure::usage(error.to_string()))
    }

    /// What masks secrets in everything that this process writes.
    pub fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor)
    }

    /// The home that `--home`, `KEYFERRY_HOME` or the XDG directories name.
    ///
    /// # Errors
    /// Behind the guard of `run`, where it would look empty.
    pub fn home(&self) -> Outcome<Home> {
        let home = match self.global.home.as_ref().filter(|dir| !dir.as_os_str().is_empty()) {
            Some(dir) => Home::at(dir),
            None => Home::from_environment(&|name| self.variable(name).map(OsStr::to_owned))?,
        };
        #[cfg(target_os = "linux")]
        if home.directories().iter().any(|dir| crate::launch::guard::is_covered(dir)) {
            return Err(Failure::new("keyferry's home is hidden from processes that keyferry run started")
                .hint("use another shell, one that keyferry run did not start"));
        }
        Ok(home)
    }

    /// The configuration file that `--config` names, or the home's.
    pub fn config_file(&self) -> Outcome<PathBuf> {
        match self.global.config.as_ref().filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Ok(file.clone()),
            None => Ok(self.home()?.config_file()),
        }
    }

    /// The configuration. A home without a file has the defaults; a file that was named must be there.
    pub fn config(&self) -> Outcome<Config> {
        let file = self.config_file()?;
        let named = self.global.config.is_some();
        Ok(if named { config::load(&file) } else { config::load_or_default(&file) }?)
    }

    /// The embedded providers and those of the configuration.
    pub fn catalogue(&self, config: &Config) -> Outcome<Catalogue> {
        let file = self.config_file()?;
        Ok(catalogue_of(config, &file.display().to_string())?)
    }

    /// Opens the vault of the home; [`VaultError::Missing`] becomes `None`.
    pub async fn vault(&self, home: &Home, config: &Config) -> Outcome<Option<Vault>> {
        match self.open_vault(home, config).await {
            Ok(vault) => Ok(Some(vault)),
            Err(VaultError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the vault of the home.
    pub async fn existing_vault(&self, home: &Home, config: &Config) -> Outcome<Vault> {
        Ok(self.open_vault(home, config).await?)
    }

    /// Where the vault's key source finds what it needs: the caller's environment, then the person at the terminal.
    pub fn unlock(&self) -> Unlock {
        unlock::unlock(&self.environment, self.global.no_input)
    }

    async fn open_vault(&self, home: &Home, config: &Config) -> Result<Vault, VaultError> {
        let vault = Vault::open_with(home, &key_source(config), &self.unlock(), OlderCopy::Refuse).await?;
        journal::keep(&vault, home);
        Ok(vault)
    }
}

/// The embedded providers and those of the configuration; their faults have the file's name.
pub fn catalogue_of(config: &Config, file: &str) -> Result<Catalogue, Faults> {
    config.catalogue().map_err(|faults| {
        let fault = |fault: DraftFault| Fault {
            file: file.to_owned(),
            line: 0,
            column: 0,
            message: format!("providers.{}.{}: {}", fault.provider, fault.field, fault.message),
            hint: fault.hint,
        };
        Faults(faults.into_iter().map(fault).collect())
    })
}

/// Where the configuration says that the master key comes from.
pub fn key_source(config: &Config) -> KeySource {
    match &config.vault.master_key {
        MasterKey::File(path) => KeySource::File(path.clone()),
        MasterKey::Env(variable) => KeySource::Env(variable.clone()),
        MasterKey::Passphrase => KeySource::Passphrase,
        MasterKey::Keyring => KeySource::Keyring,
        MasterKey::Command(command) => KeySource::Command(command.clone()),
        MasterKey::Credential(name) => KeySource::Credential(name.clone()),
    }
}

/// Runs a command's work to its end on this thread, which lives as long as the work.
pub fn block_on<T>(threads: Threads, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let mut builder = match threads {
        Threads::One => tokio::runtime::Builder::new_current_thread(),
        Threads::Many => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(format!("the runtime did not start: {error}")).code(CONFIGURATION))?;
    runtime.block_on(work)
}
