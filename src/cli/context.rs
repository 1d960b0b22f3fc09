//! What every command starts from: the home, the wishes of the caller, the streams and the clock.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::args::Global;
use super::output::{Failure, Outcome, Output};
use crate::clock::{Clock, WallTime};

/// Given to every command.
pub struct Context {
    /// Where to print.
    pub output: Output,
    /// Options of every command.
    pub global: Global,
    clock: Clock,
    environment: BTreeMap<OsString, OsString>,
}

impl Context {
    /// Takes the process's environment.
    pub fn new(global: Global, output: Output) -> Result<Self, (Failure, Output)> {
        Ok(Self { output, global, clock: Clock::System, environment: std::env::vars_os().collect() })
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
}
