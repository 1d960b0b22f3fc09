//! Changes to what stands beside a value, the value kept.
//!
//! Invariant: what is sealed with the value is sealed anew with it; a change is there as a whole or not at all.

use super::error::VaultError;
use super::key::random;
use super::model::{Draft, Opened, Scope, Stored};
use super::store::{Change, Commit, CredentialRow, History, VersionRow};
use super::{Vault, credentials, value};
use crate::clock::WallTime;
use crate::id::CredentialName;
use crate::secret::Secret;

impl Vault {
    /// Makes the credential called `name` in `scope` what `draft` says, its value kept. A change of what is sealed with
    /// the value (provider, type, hosts) is a new version; one of the scope takes all versions with it. `None` if there
    /// is no such credential.
    ///
    /// # Errors
    /// [`VaultError::Field`] when the draft does not fit or the other scope has a credential of the name; else what
    /// keeps the vault from reading or writing.
    pub async fn amend(
        &self,
        name: &CredentialName,
        scope: &Scope,
        draft: Draft,
        now: WallTime,
    ) -> Result<Option<Stored>, VaultError> {
        let draft = credentials::checked(Draft { name: name.clone(), ..draft })?;
        retrying!({
            let (manifest, found) = self.row(name, scope, History::Include).await?;
            let Some((row, versions)) = found else { return Ok(Some(None)) };
            let versions = self.complete(&row, versions)?;
            if draft.scope != *scope {
                let (other, taken) = self.row(name, &draft.scope, History::LeaveOut).await?;
                if other.epoch != manifest.epoch {
                    return Ok(None);
                }
                if taken.is_some() {
                    let reason = format!("{} has a secret of this name already", draft.scope);
                    return Err(VaultError::Field { field: "scope", reason });
                }
            }
            let Amended { after, added, gone } = self.amended(&row, &versions, &draft, now)?;
            let last = added.last().or(versions.last()).ok_or_else(|| VaultError::corrupt("a credential"))?;
            let preview = super::key::RecordName {
                record: last.record,
                kind: super::record::KIND_PREVIEW,
                version: last.version,
            };
            let masked = self.preview(preview, &last.preview, name)?;

            let mut next = manifest;
            self.guard().remove(&mut next, &row)?;
            let mut changes = Vec::with_capacity(added.len() + 2);
            if gone {
                for version in &versions {
                    self.guard().remove(&mut next, version)?;
                }
                changes.push(Change::DeleteCredential(row.record));
            }
            self.guard().add(&mut next, &after)?;
            let stored = credentials::stored_of(&after, masked)?;
            changes.push(Change::PutCredential(after));
            for version in added {
                self.guard().add(&mut next, &version)?;
                changes.push(Change::AddVersion(version));
            }
            let done = self.commit(manifest.epoch, next, changes).await?;
            Ok((done == Commit::Done).then_some(Some(stored)))
        })
    }

    /// The value of the current version.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when it does not open.
    pub async fn opened(&self, stored: &Stored) -> Result<Option<Opened>, VaultError> {
        let all = self.snapshot().await?;
        let found = all.into_iter().find(|sealed| sealed.stored.id == stored.id);
        found.map(|sealed| self.unseal(&sealed)).transpose()
    }

    fn amended(
        &self,
        row: &CredentialRow,
        versions: &[VersionRow],
        draft: &Draft,
        now: WallTime,
    ) -> Result<Amended, VaultError> {
        let current = versions.last().ok_or_else(|| VaultError::corrupt("a credential"))?;
        let moves = draft.scope.to_string() != row.scope;
        let opened = self.open_version(row, current)?;
        let bound = opened.provider == draft.provider && opened.kind == draft.kind && opened.hosts == draft.hosts;
        let record = if moves { **random::<16>()? } else { row.record };
        let mut added = Vec::new();
        if moves {
            for version in versions {
                let old = self.open_version(row, version)?;
                let kept = Draft { provider: old.provider, kind: old.kind, hosts: old.hosts, ..draft.clone() };
                let created = WallTime(version.created);
                added.push(self.sealed_version(&kept, record, version.version, created, &old.secret)?);
            }
        }
        let mut last = row.version;
        if !bound {
            let next = last.checked_add(1).filter(|next| *next <= credentials::LAST_VERSION);
            last = next.ok_or(VaultError::VersionsExhausted)?;
            added.push(self.sealed_version(draft, record, last, now, &fitting(&draft.kind, &opened)?)?);
        }
        let after = credentials::row_of(draft, record, last, row.created, WallTime(row.updated))?;
        Ok(Amended { after: self.guard().protect(after), added, gone: moves })
    }
}

/// The rows of a changed credential.
struct Amended {
    after: CredentialRow,
    added: Vec<VersionRow>,
    /// Whether the rows before are taken away.
    gone: bool,
}

/// The value, if the kind that it has from now on can hold it.
fn fitting(kind: &str, opened: &Opened) -> Result<Secret, VaultError> {
    match value::reference(&opened.secret) {
        Some(reference) => Ok(value::sealed_reference(reference)),
        None => Ok(value::clean(kind, &opened.secret)?),
    }
}
