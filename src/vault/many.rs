//! Several values stored in one step.
//!
//! Invariant: all of them are stored or none is.

use super::error::VaultError;
use super::key::random;
use super::model::{Draft, Stored};
use super::store::{Change, Commit, History};
use super::{Vault, credentials, value};
use crate::clock::WallTime;
use crate::secret::Secret;

impl Vault {
    /// Stores each value as [`Vault::set`] does, all in one step. No two drafts may have the same name and scope.
    ///
    /// # Errors
    /// As [`Vault::set`]; nothing is stored then.
    pub async fn set_all(&self, all: Vec<(Draft, Secret)>, now: WallTime) -> Result<Vec<Stored>, VaultError> {
        let mut clean = Vec::with_capacity(all.len());
        for (draft, secret) in all {
            let secret = value::clean(&draft.kind, &secret)?;
            clean.push((credentials::checked(draft)?, secret));
        }
        if clean.is_empty() {
            return Ok(Vec::new());
        }
        retrying!({
            let mut manifest = None;
            let mut next = self.store().manifest().await?;
            let mut changes = Vec::with_capacity(clean.len() * 2);
            let mut stored = Vec::with_capacity(clean.len());
            for (draft, secret) in &clean {
                let (read, before) = self.row(&draft.name, &draft.scope, History::LeaveOut).await?;
                let epoch = manifest.get_or_insert_with(|| {
                    next = read;
                    read.epoch
                });
                if read.epoch != *epoch {
                    return Ok(None);
                }
                let before = before.map(|(row, _)| row);
                let version = before.as_ref().map_or(0, |row| row.version).checked_add(1);
                let version = version.filter(|version| *version <= credentials::LAST_VERSION);
                let version = version.ok_or(VaultError::VersionsExhausted)?;
                let record = match &before {
                    Some(row) => row.record,
                    None => **random::<16>()?,
                };
                let added = self.sealed_version(draft, record, version, now, secret)?;
                let created = before.as_ref().map_or(now.0, |row| row.created);
                let after = self.guard().protect(credentials::row_of(draft, record, version, created, now)?);
                if let Some(before) = &before {
                    self.guard().remove(&mut next, before)?;
                }
                self.guard().add(&mut next, &after)?;
                self.guard().add(&mut next, &added)?;
                stored.push(credentials::stored_of(&after, value::preview(secret))?);
                changes.push(Change::PutCredential(after));
                changes.push(Change::AddVersion(added));
            }
            let done = self.commit(manifest.unwrap_or(next.epoch), next, changes).await?;
            Ok((done == Commit::Done).then_some(stored))
        })
    }
}
