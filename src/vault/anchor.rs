//! The newest epoch that was reached, in a file beside the key: a whole database that was put back is seen by it.
//!
//! The file is written after the change is on the disk, so it is never ahead of the database; it may be one change
//! behind when the power went.
//!
//! Invariant: the noted epoch never falls, except when a person accepts an older database by name.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::error::VaultError;
use super::integrity::Guard;
use crate::home::{HomeError, read_secret_file, write_private};

/// Longer than the file ever is.
const LIMIT: u64 = 1024;

/// Where the epoch is noted.
#[derive(Debug, Clone)]
pub(super) struct Anchor {
    path: PathBuf,
    vault_path: PathBuf,
    vault: [u8; 16],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    vault: [u8; 16],
    epoch: u64,
    mac: [u8; 32],
}

impl Anchor {
    /// The anchor of the vault at `vault_path`.
    pub(super) fn beside(vault_path: &Path, vault: [u8; 16]) -> Self {
        Self { path: vault_path.with_file_name("vault.anchor"), vault_path: vault_path.to_owned(), vault }
    }

    /// The noted epoch. `None` where nothing is noted.
    pub(super) fn read(&self, guard: &Guard) -> Result<Option<u64>, VaultError> {
        let bytes = match read_secret_file(&self.path, LIMIT) {
            Err(HomeError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let note = serde_json::from_slice::<Note>(&bytes).ok();
        let sound = |note: &Note| note.vault == self.vault && bool::from(guard.anchor(note.epoch).ct_eq(&note.mac));
        let note = note.filter(sound).ok_or_else(|| VaultError::Anchor { path: self.path.clone() })?;
        Ok(Some(note.epoch))
    }

    /// Refuses a database that is older than what is noted.
    pub(super) fn check(&self, guard: &Guard, epoch: u64) -> Result<(), VaultError> {
        match self.read(guard)? {
            Some(known) if epoch < known => {
                Err(VaultError::RolledBack { vault: self.vault_path.clone(), found: epoch, known })
            }
            Some(_) => Ok(()),
            // A vault from before there were anchors, or a home that is read only.
            None => {
                let _ = self.raise(guard, epoch);
                Ok(())
            }
        }
    }

    /// Notes `epoch` unless a later one is noted.
    pub(super) fn raise(&self, guard: &Guard, epoch: u64) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        // One that cannot be read is not written over: the next opening says so.
        if self.read(guard)?.is_some_and(|known| known >= epoch) {
            return Ok(());
        }
        self.write(guard, epoch)
    }

    /// Notes `epoch`, whatever was noted.
    pub(super) fn accept(&self, guard: &Guard, epoch: u64) -> Result<(), VaultError> {
        let _lock = self.lock()?;
        self.write(guard, epoch)
    }

    fn write(&self, guard: &Guard, epoch: u64) -> Result<(), VaultError> {
        let note = Note { vault: self.vault, epoch, mac: guard.anchor(epoch) };
        let text = serde_json::to_vec(&note).map_err(|_| VaultError::System("the anchor could not be written"))?;
        write_private(&self.path, &text).map_err(|source| self.io("write", source))
    }

    /// Two processes must not overtake each other between reading and writing. The lock is the directory's.
    fn lock(&self) -> Result<File, VaultError> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let directory = File::open(directory).map_err(|source| self.io("open the directory of", source))?;
        rustix::fs::flock(&directory, FlockOperation::LockExclusive).map_err(|error| self.io("lock", error.into()))?;
        Ok(directory)
    }

    fn io(&self, deed: &'static str, source: std::io::Error) -> VaultError {
        HomeError::Io { deed, path: self.path.clone(), source }.into()
    }
}
