//! What the rooms' errors mean for a person: the message, the hint and the exit code.

use super::output::Failure;
use crate::config::Faults;
use crate::home::HomeError;
use crate::id::NameError;
use crate::launch::child::LaunchError;
use crate::launch::exports::ExportError;
use crate::tls::{BundleError, CaError};
use crate::vault::VaultError;

/// Invalid configuration, or a key that does not fit the vault.
pub const CONFIGURATION: u8 = 78;

/// The daemon is not running.
pub const NO_DAEMON: u8 = 3;

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        Self::new(error.to_string()).maybe_hint(error.hint()).code(error.exit_code())
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::new(error.to_string()).maybe_hint(error.hint()).code(CONFIGURATION)
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        Self::new(error.to_string()).maybe_hint(error.hint())
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        Self::new(error.to_string()).maybe_hint(error.hint())
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let text = error.to_string();
        match error {
            LaunchError::NoCommand => Self::usage(text).hint("say which after --: keyferry run -- claude"),
            LaunchError::Start(_) | LaunchError::Signals(_) => Self::new(text),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        let lines: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        Self::new(format!("the configuration is not valid\n{}", lines.join("\n"))).code(CONFIGURATION)
    }
}

impl From<crate::app::AppError> for Failure {
    fn from(error: crate::app::AppError) -> Self {
        Self::new(error.to_string()).maybe_hint(error.hint()).code(error.exit_code())
    }
}
