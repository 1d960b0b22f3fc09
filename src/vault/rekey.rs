//! New keys for a vault that stays in use: another root key, or another vault key under which every record is sealed anew.
//!
//! Both are made of steps, each one transaction of the database or one rename of a file. What a crash leaves behind is
//! seen from the database alone, opens as before, and is finished by the same command.
//!
//! Invariant: at every moment the key at the named source opens the vault, and every record opens under a key that is on
//! the keyring.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::VaultError;
use super::integrity::Manifest;
use super::key::{KeySource, RecordName};
use super::record::{KIND_PREVIEW, KIND_SECRET};
use super::root::{Made, RootKey, Unlock};
use super::store::{Change, Commit, Root, VersionRow, Wrapping};
use super::{Place, Vault, blocking};
use crate::home::{HomeError, sync_directory};

/// How many records one transaction seals anew: few enough that other writers are not kept waiting.
const BATCH: u32 = 500;

/// What became of the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootChange {
    /// There is a new one at the same source.
    Replaced,
    /// There is one at another source, which the configuration must name from now on. Until a vault is opened by it, the
    /// one before still opens.
    Moved {
        /// As the configuration writes it.
        to: String,
    },
}

/// What there is to know of a vault without opening a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultState {
    /// Which vault this is.
    pub vault: [u8; 16],
    /// How often it was changed.
    pub epoch: u64,
    /// Which of its changes is noted beside it.
    pub noted: Option<u64>,
    /// The vault keys of credentials, by term; more than one while a change of them is unfinished.
    pub terms: Vec<u32>,
    /// Whether the root key before still opens it.
    pub root_unfinished: bool,
    /// How many credentials there are.
    pub credentials: u64,
    /// How many versions of them.
    pub versions: u64,
}

impl Vault {
    /// What there is to know of this vault.
    ///
    /// # Errors
    /// What keeps the vault from reading.
    pub async fn state(&self) -> Result<VaultState, VaultError> {
        let read = self.store().root().await?;
        let manifest = self.guard().check(read.manifest)?;
        let [credentials, versions, ..] = manifest.tallies;
        let terms = read.found.wrapping.keyring.iter().map(|key| key.term).filter(|term| *term > 0).collect();
        let noted = match &self.inner.place {
            Some(place) => place.anchor.read(self.guard())?,
            None => None,
        };
        Ok(VaultState {
            vault: read.found.vault,
            epoch: manifest.epoch,
            noted,
            terms,
            root_unfinished: read.found.before.is_some(),
            credentials: credentials.count,
            versions: versions.count,
        })
    }

    /// Begins a new vault key, or goes on with one that was begun, and seals every record under it. Other processes may
    /// use and change the vault meanwhile. Gives how many records were sealed anew.
    ///
    /// # Errors
    /// [`VaultError::RootMoved`] while the root key has moved elsewhere; [`VaultError::Corrupt`] for a record that does
    /// not open. What was done so far stays, and the next call goes on.
    pub async fn rekey_records(&self) -> Result<u64, VaultError> {
        if !self.terms_unfinished().await? {
            self.begin_term().await?;
        }
        let mut all = 0;
        loop {
            match self.reseal_some(BATCH).await? {
                0 => break,
                some => all += some,
            }
        }
        self.end_terms().await?;
        Ok(all)
    }

    /// Whether records may still be sealed under an earlier vault key.
    pub(super) async fn terms_unfinished(&self) -> Result<bool, VaultError> {
        Ok(self.store().root().await?.found.wrapping.keyring.len() > 2)
    }

    /// Puts another vault key on the keyring.
    pub(super) async fn begin_term(&self) -> Result<(), VaultError> {
        retrying!({
            let (stored, manifest) = self.stored().await?;
            let root = self.inner.root.load_full();
            if root.check() != stored.wrapping.check {
                return Err(VaultError::RootMoved);
            }
            let newest = stored.wrapping.keyring.iter().map(|key| key.term).max().unwrap_or_default();
            let term = newest.checked_add(1).ok_or(VaultError::VersionsExhausted)?;
            let key = self.keys().new_term(&root, term)?;
            let mut changes = vec![Change::AddKey(key)];
            if stored.before.is_some() {
                // The key before would open all but the new term.
                changes.push(Change::DropWrappingBefore);
            }
            let done = self.commit(manifest.epoch, manifest, changes).await?;
            Ok((done == Commit::Done).then_some(()))
        })?;
        self.renew_keys().await
    }

    /// Seals some of the records anew that are under an earlier vault key. Gives how many; none when all are done.
    pub(super) async fn reseal_some(&self, limit: u32) -> Result<u64, VaultError> {
        retrying!({
            self.renew_keys().await?;
            let read = self.store().versions_before(self.keys().current_term(), limit).await?;
            let manifest = self.guard().check(read.manifest)?;
            if read.found.is_empty() {
                return Ok(Some(0));
            }
            let (mut next, mut changes) = (manifest, Vec::with_capacity(read.found.len()));
            for row in read.found {
                let row = self.guard().verify(row, called)?;
                let resealed = self.resealed(&row)?;
                self.guard().remove(&mut next, &row)?;
                self.guard().add(&mut next, &resealed)?;
                changes.push(Change::ResealVersion(resealed));
            }
            let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
            let done = self.commit(manifest.epoch, next, changes).await?;
            Ok((done == Commit::Done).then_some(count))
        })
    }

    /// Takes the earlier vault keys off the keyring.
    pub(super) async fn end_terms(&self) -> Result<(), VaultError> {
        let newest = self.keys().current_term();
        retrying!({
            let (_, manifest) = self.stored().await?;
            let done = self.commit(manifest.epoch, manifest, vec![Change::DropKeysBefore(newest)]).await?;
            if done == Commit::Conflict {
                // A process that did not know the new key yet may have stored a value under the earlier one.
                while self.reseal_some(BATCH).await? > 0 {}
            }
            Ok((done == Commit::Done).then_some(()))
        })?;
        self.store().tidy().await
    }

    fn resealed(&self, row: &VersionRow) -> Result<VersionRow, VaultError> {
        let seal = |kind, sealed: &[u8]| {
            let name = RecordName { record: row.record, kind, version: row.version };
            let opened = self.keys().open(name, sealed).ok_or_else(|| VaultError::corrupt(called(row)))?;
            self.keys().seal(name, &opened)
        };
        let (sealed, preview) = (seal(KIND_SECRET, &row.sealed)?, seal(KIND_PREVIEW, &row.preview)?);
        let term = self.keys().current_term();
        Ok(self.guard().protect(VersionRow { term, sealed, preview, ..row.clone() }))
    }

    /// Gives the vault another root key: a new one at the present source, or the one at `to`.
    ///
    /// # Errors
    /// [`VaultError::FixedRoot`] for a present source whose key only its owner can change; what keeps a key from being
    /// had or made. The present key opens the vault then as before.
    pub async fn rekey_root(&self, to: Option<&KeySource>) -> Result<RootChange, VaultError> {
        let place =
            self.inner.place.as_ref().ok_or(VaultError::System("a vault in memory has no root key to change"))?;
        match to.filter(|to| **to != place.source) {
            None => {
                match &place.source {
                    KeySource::File(path) => {
                        let path = place.home.resolve(path);
                        if !self.place_next_file(&path).await? {
                            self.wrap_by_next_file(&path).await?;
                            self.place_next_file(&path).await?;
                        }
                    }
                    KeySource::Passphrase => {
                        self.ask_new(place, &KeySource::Passphrase).await?;
                        self.end_root_before().await?;
                    }
                    other => return Err(VaultError::FixedRoot { source_name: other.name(&place.home) }),
                }
                Ok(RootChange::Replaced)
            }
            Some(to) => {
                self.ask_new(place, to).await?;
                Ok(RootChange::Moved { to: to.text() })
            }
        }
    }

    /// Gets the key of `to`, made where it can be, and wraps all keys by it.
    async fn ask_new(&self, place: &Place, to: &KeySource) -> Result<(), VaultError> {
        let (home, unlock, to) = (place.home.clone(), place.unlock.clone(), to.clone());
        let root = blocking(move || RootKey::load_or_create(&to, &home, &unlock)).await?;
        self.wrap_by(root).await
    }

    /// Wraps all keys by `root`, beside the wrapping that opens them now.
    async fn wrap_by(&self, root: RootKey) -> Result<(), VaultError> {
        retrying!({
            let (stored, manifest) = self.stored().await?;
            let before = self.present_wrapping(&stored)?;
            self.renew_keys().await?;
            let to = self.keys().wrapped_by(&root, &before)?;
            if to.check == before.check {
                return Ok(Some(()));
            }
            let changes = vec![Change::ReplaceWrapping { to, before }];
            let done = self.commit(manifest.epoch, manifest, changes).await?;
            Ok((done == Commit::Done).then_some(()))
        })?;
        self.inner.root.store(Arc::new(root));
        Ok(())
    }

    /// The wrapping that the root key at hand opens.
    fn present_wrapping(&self, stored: &Root) -> Result<Wrapping, VaultError> {
        let check = self.inner.root.load().check();
        let wrappings = std::iter::once(&stored.wrapping).chain(&stored.before);
        wrappings.into_iter().find(|wrapping| wrapping.check == check).cloned().ok_or(VaultError::RootMoved)
    }

    /// Ends the wrapping by the root key before.
    pub(super) async fn end_root_before(&self) -> Result<(), VaultError> {
        retrying!({
            let (stored, manifest) = self.stored().await?;
            if stored.before.is_none() || self.inner.root.load().check() != stored.wrapping.check {
                return Ok(Some(()));
            }
            let done = self.commit(manifest.epoch, manifest, vec![Change::DropWrappingBefore]).await?;
            Ok((done == Commit::Done).then_some(()))
        })
    }

    /// Makes the next key file beside `path`, and wraps all keys by it.
    pub(super) async fn wrap_by_next_file(&self, path: &Path) -> Result<(), VaultError> {
        let next = next_file(path);
        let root = self.root_in(&next, Next::Made).await?;
        self.wrap_by(root).await
    }

    /// Moves the next key file to its place, if it is there and the vault's keys are wrapped by it.
    pub(super) async fn place_next_file(&self, path: &Path) -> Result<bool, VaultError> {
        let (stored, _) = self.stored().await?;
        let next = next_file(path);
        if stored.before.is_none() || !next.exists() {
            return Ok(false);
        }
        let root = self.root_in(&next, Next::AsItIs).await?;
        if root.check() != stored.wrapping.check {
            return Ok(false);
        }
        let failed = |source| HomeError::Io { deed: "write", path: path.to_owned(), source };
        std::fs::rename(&next, path).map_err(failed)?;
        path.parent().map_or(Ok(()), sync_directory).map_err(failed)?;
        self.inner.root.store(Arc::new(root));
        self.end_root_before().await?;
        Ok(true)
    }

    async fn root_in(&self, file: &Path, next: Next) -> Result<RootKey, VaultError> {
        let place = self.inner.place.as_ref().ok_or(VaultError::RootMoved)?;
        let (home, file) = (place.home.clone(), file.to_owned());
        blocking(move || {
            if next == Next::Made {
                match std::fs::remove_file(&file) {
                    // It wraps nothing: a crash came before it was used.
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(HomeError::Io { deed: "remove", path: file, source }.into()),
                }
                RootKey::make_file(&file)?;
            }
            RootKey::load(&KeySource::File(file), &home, &Unlock::default(), &Made::New)
        })
        .await
    }

    async fn stored(&self) -> Result<(Root, Manifest), VaultError> {
        let read = self.store().root().await?;
        Ok((read.found, self.guard().check(read.manifest)?))
    }
}

/// What is done with the next key file before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Made,
    AsItIs,
}

fn next_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    PathBuf::from(name)
}

fn called(row: &VersionRow) -> String {
    format!("version {} of a credential", row.version)
}
