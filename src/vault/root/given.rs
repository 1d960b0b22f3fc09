//! What only a person or the environment of the process has.
//!
//! Invariant: a passphrase comes from a file, a variable or a prompt, never from an argument.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::super::error::VaultError;
use crate::secret::Secret;

/// Names a file with the passphrase.
const FILE: &str = "KEYFERRY_PASSPHRASE_FILE";
/// Holds the passphrase itself.
const VARIABLE: &str = "KEYFERRY_PASSPHRASE";
/// The same for the passphrase that is to come.
const NEW_FILE: &str = "KEYFERRY_NEW_PASSPHRASE_FILE";
/// The same for the passphrase that is to come.
const NEW_VARIABLE: &str = "KEYFERRY_NEW_PASSPHRASE";

/// Fewer characters than this are guessed.
const SHORTEST: usize = 8;
/// More than anybody types.
const LONGEST: usize = 4096;

/// Which passphrase is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The one that opens the vault.
    Present,
    /// One that is to open it from now on; a person types it twice.
    New,
}

type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;
type Prompt = dyn Fn(Asked) -> io::Result<Option<Secret>> + Send + Sync;

/// Where the vault looks for what its key source needs.
#[derive(Clone)]
pub struct Unlock {
    variables: Arc<Variables>,
    prompt: Option<Arc<Prompt>>,
}

impl Default for Unlock {
    /// The environment of the process, and nobody to ask.
    fn default() -> Self {
        Self::with_variables(|name| std::env::var_os(name))
    }
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unlock(..)")
    }
}

impl Unlock {
    /// These variables, and nobody to ask.
    #[must_use]
    pub fn with_variables(variables: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self { variables: Arc::new(variables), prompt: None }
    }

    /// The same, and `prompt` asks a person where the variables say nothing. It gives `None` where nobody is there.
    #[must_use]
    pub fn asking(self, prompt: impl Fn(Asked) -> io::Result<Option<Secret>> + Send + Sync + 'static) -> Self {
        Self { prompt: Some(Arc::new(prompt)), ..self }
    }

    /// The same, and nobody is asked.
    pub(in crate::vault) fn silent(&self) -> Self {
        Self { variables: Arc::clone(&self.variables), prompt: None }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<OsString> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    /// The passphrase, without the line end that an editor leaves.
    pub(super) fn passphrase(&self, asked: Asked) -> Result<Secret, VaultError> {
        let locked = |reason: String| VaultError::Locked { reason };
        let (file, variable) = match asked {
            Asked::Present => (FILE, VARIABLE),
            Asked::New => (NEW_FILE, NEW_VARIABLE),
        };
        // For a first use there is no passphrase before, so the plain names serve as well.
        let named = |first: &str, second: &str| {
            self.variable(first).or_else(|| if asked == Asked::New { self.variable(second) } else { None })
        };
        let given = if let Some(path) = named(file, FILE) {
            let path = std::path::PathBuf::from(path);
            // Not only regular files: a descriptor (/dev/fd/3) is a good way to hand a passphrase over.
            let opened = std::fs::File::open(&path);
            let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 2));
            let read = opened.and_then(|file| file.take(LONGEST as u64 + 2).read_to_end(&mut bytes));
            read.map_err(|error| locked(format!("{} cannot be read: {error}", path.display())))?;
            Secret::new(trimmed(&bytes).to_vec())
        } else if let Some(text) = named(variable, VARIABLE) {
            tracing::warn!("the passphrase stands in the environment, where processes of the same user may read it");
            Secret::new(trimmed(&Zeroizing::new(text.into_encoded_bytes())).to_vec())
        } else {
            let asked = self.prompt.as_ref().map_or(Ok(None), |prompt| prompt(asked));
            let asked = asked.map_err(|error| locked(format!("it could not be asked for: {error}")))?;
            asked.ok_or_else(|| locked("nobody can be asked here".to_owned()))?
        };
        if given.is_empty() {
            return Err(locked("it is empty".to_owned()));
        }
        if given.len() > LONGEST {
            return Err(locked(format!("it is longer than {LONGEST} bytes")));
        }
        if asked == Asked::New && given.len() < SHORTEST {
            return Err(VaultError::WeakPassphrase { shortest: SHORTEST });
        }
        Ok(given)
    }
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
