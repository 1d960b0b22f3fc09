//! Copies of a vault, and putting one back.
//!
//! A copy is the database as it is: sealed. It is of use only with the root key, which is not in it.
//!
//! Invariant: a copy replaces a vault only after every record in it has opened, and as a new change of that vault, so
//! that neither the anchor nor a running process takes it for an older state.

use std::path::{Path, PathBuf};

use super::error::VaultError;
use super::root::{Made, RootKey, Unlock};
use super::sqlite::SqliteStore;
use super::store::{Batch, Commit, Store as _};
use super::{Anchor, Found, KeySource, OlderCopy, Vault, blocking};
use crate::home::{Home, HomeError, sync_directory, temporary_name};

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// How many records opened.
    pub records: u64,
    /// Which change of the vault this is.
    pub epoch: u64,
    /// Where the vault is that was there before.
    pub before: Option<PathBuf>,
}

impl Vault {
    /// Writes a copy to `path`, over a file that is there if `replace` says so.
    ///
    /// # Errors
    /// What keeps the vault from reading or the copy from being written.
    pub async fn backup(&self, path: &Path, replace: bool) -> Result<(), VaultError> {
        if !replace {
            return self.store().copy_to(path).await;
        }
        let failed = |source| HomeError::Io { deed: "write", path: path.to_owned(), source };
        let temporary = temporary_name(path).map_err(failed)?;
        self.store().copy_to(&temporary).await?;
        std::fs::rename(&temporary, path).map_err(failed)?;
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), sync_directory).map_err(failed)?;
        Ok(())
    }

    /// Looks whether `copy` could be put back: its schema, its keys, and every record in it. Nothing is changed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check_copy(home: &Home, source: &KeySource, unlock: &Unlock, copy: &Path) -> Result<u64, VaultError> {
        let working = Working::new(home)?;
        let (_, records) = opened_copy(home, source, unlock, copy, &working).await?;
        Ok(records)
    }

    /// Puts `copy` in the place of the vault of `home`, which no daemon may have open.
    ///
    /// # Errors
    /// What is wrong with the copy, or keeps it from being written. The vault is then as it was.
    pub async fn restore(
        home: &Home,
        source: &KeySource,
        unlock: &Unlock,
        copy: &Path,
    ) -> Result<Restored, VaultError> {
        let working = Working::new(home)?;
        let (vault, records) = opened_copy(home, source, unlock, copy, &working).await?;
        let path = home.vault_db();
        let anchor = Anchor::beside(&path, vault.keys().vault());
        let noted = match anchor.read(vault.guard()) {
            Ok(noted) => noted.unwrap_or_default(),
            Err(VaultError::Anchor { .. }) => return Err(VaultError::OtherVault { path: copy.to_owned() }),
            Err(error) => return Err(error),
        };
        let present = present(&path).await?;
        let mut newest = noted;
        if let Some(store) = &present {
            let read = store.root().await?;
            if read.found.vault != vault.keys().vault() {
                return Err(VaultError::OtherVault { path: copy.to_owned() });
            }
            newest = newest.max(read.manifest.epoch);
        }
        // The copy becomes the vault's next change.
        let read = vault.store().root().await?;
        let mut manifest = vault.guard().check(read.manifest)?;
        let from_epoch = manifest.epoch;
        manifest.epoch = newest.max(from_epoch).checked_add(1).ok_or(VaultError::VersionsExhausted)?;
        let manifest = vault.guard().seal(manifest);
        let done = vault.store().commit(Batch { from_epoch, manifest, changes: Vec::new() }).await?;
        if done == Commit::Conflict {
            return Err(VaultError::Busy);
        }
        drop(vault.store().tidy().await);
        let (working_path, target) = (working.path.clone(), path.clone());
        let before = blocking(move || put_in_place(present, &working_path, &target)).await?;
        anchor.accept(vault.guard(), manifest.epoch)?;
        Ok(Restored { records, epoch: manifest.epoch, before })
    }
}

/// The database that is there now, if it is one at all.
async fn present(path: &Path) -> Result<Option<SqliteStore>, VaultError> {
    let path = path.to_owned();
    blocking(move || match SqliteStore::open(&path) {
        Ok(store) => Ok(Some(store)),
        Err(VaultError::Home(HomeError::Io { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(VaultError::Damaged { .. } | VaultError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

async fn opened_copy(
    home: &Home,
    source: &KeySource,
    unlock: &Unlock,
    copy: &Path,
    working: &Working,
) -> Result<(Vault, u64), VaultError> {
    let (home, source, unlock, copy, path) =
        (home.clone(), source.clone(), unlock.clone(), copy.to_owned(), working.path.clone());
    let found = blocking(move || {
        let store = SqliteStore::copy_of(&copy, &path)?;
        let root = RootKey::load(&source, &home, &unlock, &Made::Stored(&store.root_now()?))?;
        Ok(Found { store, root, place: None })
    });
    let vault = Vault::from_store(found.await?, OlderCopy::Refuse).await?;
    let verified = vault.verify().await?;
    match verified.faults.into_iter().next() {
        Some(fault) => Err(fault),
        None => Ok((vault, verified.records)),
    }
}

/// Gives the copy at `working` the place of the vault. What was there stays beside it under another name.
fn put_in_place(present: Option<SqliteStore>, working: &Path, target: &Path) -> Result<Option<PathBuf>, VaultError> {
    let failed = |source| HomeError::Io { deed: "write", path: target.to_owned(), source };
    let aside = beside(target, ".before-restore");
    if let Some(present) = present {
        match std::fs::remove_file(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
        present.copy_now(&aside)?;
        let copy = SqliteStore::open(working)?;
        present.take_over(&copy)?;
        return Ok(Some(aside));
    }
    let mut before = None;
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::rename(beside(target, suffix), beside(&aside, suffix)) {
            Ok(()) => before = Some(aside.clone()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error).into()),
        }
    }
    SqliteStore::open(working)?.use_log()?;
    std::fs::rename(working, target).map_err(failed)?;
    target.parent().map_or(Ok(()), sync_directory).map_err(failed)?;
    Ok(before)
}

/// A place for a copy that is looked at. It goes away with what SQLite put beside it.
struct Working {
    path: PathBuf,
}

impl Working {
    fn new(home: &Home) -> Result<Self, VaultError> {
        home.create()?;
        let path = home.vault_db();
        let named = temporary_name(&path);
        let path = named.map_err(|source| HomeError::Io { deed: "write", path, source })?;
        Ok(Self { path })
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&self.path, suffix));
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
