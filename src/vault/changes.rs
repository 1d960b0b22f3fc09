//! What comes before and after every change of the database: it is written down first, and noted in the anchor.
//!
//! Invariant: nothing is changed that could not be written down before.

use std::sync::Arc;

use super::error::VaultError;
use super::store::{Change, Commit};
use super::{Vault, blocking};
use crate::id::{AgentName, CredentialName};

/// Keeps a record of changes, somewhere else than in the vault.
pub trait Journal: Send + Sync {
    /// Writes down that these are about to be changed, which makes the database's change number `epoch`. What this
    /// refuses does not happen.
    ///
    /// # Errors
    /// [`Unrecorded`] when the record is not on the disk.
    fn announce(&self, epoch: u64, subjects: &[String]) -> Result<(), Unrecorded>;
}

/// Why a change could not be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecorded {
    /// The reason.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl Vault {
    /// Has every change from now on written down first. Only the first journal counts.
    pub fn keep_journal(&self, journal: Arc<dyn Journal>) {
        let _ = self.inner.journal.set(journal);
    }

    /// Writes down what is about to be changed.
    pub(super) async fn announce(&self, epoch: u64, changes: &[Change]) -> Result<(), VaultError> {
        let Some(journal) = self.inner.journal.get().map(Arc::clone) else { return Ok(()) };
        let subjects = subjects(changes);
        let announced = blocking(move || Ok(journal.announce(epoch, &subjects))).await?;
        announced.map_err(|Unrecorded { reason, hint }| VaultError::NotRecorded { reason, hint })
    }

    /// Notes a change that was made; looks for new keys after one that was not.
    pub(super) async fn settled(&self, done: Commit, epoch: u64) -> Result<(), VaultError> {
        if done == Commit::Conflict {
            return self.renew_keys().await;
        }
        let vault = self.clone();
        let noted = blocking(move || match &vault.inner.place {
            Some(place) => place.anchor.raise(vault.guard(), epoch),
            None => Ok(()),
        });
        // The change is made and on the disk; only the protection against an older copy lags behind.
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the newest change could not be noted beside the vault");
        }
        Ok(())
    }

    /// Makes sure that what was sealed under `terms` opens here: another process may have begun a new one.
    pub(super) async fn learn(&self, mut terms: impl Iterator<Item = u32>) -> Result<(), VaultError> {
        if terms.all(|term| self.keys().has(term)) { Ok(()) } else { self.renew_keys().await }
    }

    /// Takes the keys that are on the keyring now.
    pub(super) async fn renew_keys(&self) -> Result<(), VaultError> {
        let stored = self.store().root().await?.found;
        if self.keys().are(&stored.wrapping.keyring) {
            return Ok(());
        }
        let vault = self.clone();
        blocking(move || {
            let path = || vault.inner.place.as_ref().map(|place| place.home.vault_db()).unwrap_or_default();
            let root = vault.inner.root.load_full();
            match (vault.keys().renew(&root, &stored, path()), &vault.inner.place) {
                // The root key was changed as well. Nobody is asked here: a daemon has no terminal.
                (Err(VaultError::WrongKey { .. }), Some(place)) => {
                    let made = super::Made::Stored(&stored);
                    let root = super::RootKey::load(&place.source, &place.home, &place.unlock.silent(), &made)?;
                    vault.keys().renew(&root, &stored, path())?;
                    vault.inner.root.store(Arc::new(root));
                    Ok(())
                }
                (other, _) => other,
            }
        })
        .await
    }
}

/// What is changed, in words for the journal.
fn subjects(changes: &[Change]) -> Vec<String> {
    let resealed = changes.iter().filter(|change| matches!(change, Change::ResealVersion(_))).count();
    let mut subjects: Vec<String> = changes.iter().filter_map(subject).collect();
    if resealed > 0 {
        subjects.push(format!("{resealed} records under another vault key"));
    }
    subjects
}

fn subject(change: &Change) -> Option<String> {
    let agent = |name: &str| AgentName::parse(name).ok();
    match change {
        Change::PutCredential(row) => {
            let name = CredentialName::parse(&row.name).ok()?;
            Some(format!("credential {name} ({}) version {}", row.scope, row.version))
        }
        Change::DeleteCredential(record) => {
            let id: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("record {id} deleted"))
        }
        Change::PutAgent(row) => Some(format!("agent {}", agent(&row.name)?)),
        Change::PutToken(row) => Some(format!("a token of agent {}", agent(&row.agent)?)),
        Change::AddKey(key) => Some(format!("vault key {}", key.term)),
        Change::DropKeysBefore(term) => Some(format!("vault keys before {term} deleted")),
        Change::ReplaceWrapping { .. } => Some("the root key".to_owned()),
        Change::DropWrappingBefore => Some("the root key before deleted".to_owned()),
        Change::AddVersion(_) | Change::DeleteToken(_) | Change::ResealVersion(_) => None,
    }
}
