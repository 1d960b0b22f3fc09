//! Credentials: storing, rotating, listing, opening and deleting them.
//!
//! Invariant: a new value is a new version, exactly one above the one before; older versions stay until the credential
//! is deleted.

use super::error::VaultError;
use super::integrity::Manifest;
use super::key::{RecordName, random};
use super::model::{Draft, Opened, Scope, SealedCredential, Stored, Verification, VersionInfo};
use super::record::{KIND_PREVIEW, KIND_SECRET};
use super::store::{Batch, Change, Commit, CredentialRow, History, VersionRow};
use super::{Vault, payload, value};
use crate::clock::WallTime;
use crate::id::{CredentialName, ProviderId};
use crate::message::pattern::HostPattern;
use crate::secret::Secret;

/// The largest version that databases can count.
pub(super) const LAST_VERSION: u64 = i64::MAX.unsigned_abs();
/// The longest text beside a value, in characters.
const TEXT_LIMIT: usize = 1024;
/// More hosts than any provider has.
const HOSTS_LIMIT: usize = 64;

impl Vault {
    /// Stores `value` as the next version of the credential that `draft` names, or as the first. The draft is taken as a
    /// whole; to change only the value, give it [`Stored::draft`].
    ///
    /// # Errors
    /// [`VaultError::Value`] or [`VaultError::Field`] for what can't be stored, else what keeps the vault from writing.
    pub async fn set(&self, draft: Draft, value: Secret, now: WallTime) -> Result<Stored, VaultError> {
        let value = value::clean(&draft.kind, &value)?;
        self.store_version(checked(draft)?, &value, now).await
    }

    /// Makes an older version the current one again: its value, type, provider and hosts as they were sealed together
    /// become a new version. `None` if there is no such credential or version.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when that version does not open, else what keeps the vault from writing.
    pub async fn rollback(
        &self,
        name: &CredentialName,
        scope: &Scope,
        version: u64,
        now: WallTime,
    ) -> Result<Option<Stored>, VaultError> {
        let Some((row, versions)) = self.row(name, scope, History::Include).await?.1 else { return Ok(None) };
        let versions = self.complete(&row, versions)?;
        let Some(old) = versions.iter().find(|old| old.version == version) else { return Ok(None) };
        let opened = self.open_version(&row, old)?;
        let draft = Draft {
            name: opened.name,
            provider: opened.provider,
            kind: opened.kind,
            scope: opened.scope,
            hosts: opened.hosts,
            env: row.env,
            install: row.install,
            description: row.description,
            label: row.label,
        };
        self.store_version(draft, &opened.secret, now).await.map(Some)
    }

    /// Stores a reference in the place of a value, otherwise as [`Vault::set`] does.
    ///
    /// # Errors
    /// As [`Vault::set`].
    pub async fn set_reference(&self, draft: Draft, reference: &str, now: WallTime) -> Result<Stored, VaultError> {
        self.store_version(checked(draft)?, &value::sealed_reference(reference), now).await
    }

    /// One version of a value, sealed with what `draft` says of it.
    pub(super) fn sealed_version(
        &self,
        draft: &Draft,
        record: [u8; 16],
        version: u64,
        created: WallTime,
        value: &Secret,
    ) -> Result<VersionRow, VaultError> {
        let body = payload::encode(draft, version, created, value)?;
        let sealed = self.keys().seal(RecordName { record, kind: KIND_SECRET, version }, &body)?;
        let masked = value::preview(value);
        let preview = self.keys().seal(RecordName { record, kind: KIND_PREVIEW, version }, masked.as_bytes())?;
        let term = self.keys().current_term();
        let row = VersionRow { record, version, term, created: created.0, sealed, preview, mac: [0; 32] };
        Ok(self.guard().protect(row))
    }

    /// Stores `value` as the version after `version` of a credential, if that is still the current one and the credential
    /// is still there.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn renew(
        &self,
        stored: &Stored,
        version: u64,
        value: &Secret,
        now: WallTime,
    ) -> Result<Option<Stored>, VaultError> {
        let value = value::clean(&stored.kind, value)?;
        let Some(current) = self.find(&stored.name, Some(&stored.scope)).await? else { return Ok(None) };
        if current.id != stored.id {
            return Ok(None);
        }
        // What stands beside the value may have been changed meanwhile, and stays as it is now.
        self.store_version_after(current.draft(), &value, now, Some(version)).await
    }

    async fn store_version(&self, draft: Draft, value: &Secret, now: WallTime) -> Result<Stored, VaultError> {
        let stored = self.store_version_after(draft, value, now, None).await?;
        stored.ok_or(VaultError::Busy)
    }

    /// `after`: the version that has to be the current one. `None` comes back where it is not.
    async fn store_version_after(
        &self,
        draft: Draft,
        value: &Secret,
        now: WallTime,
        after: Option<u64>,
    ) -> Result<Option<Stored>, VaultError> {
        let masked = value::preview(value);
        retrying!({
            let (manifest, before) = self.row(&draft.name, &draft.scope, History::LeaveOut).await?;
            let before = before.map(|(row, _)| row);
            if after.is_some_and(|after| before.as_ref().is_none_or(|row| row.version != after)) {
                return Ok(Some(None));
            }
            let version = before.as_ref().map_or(0, |row| row.version).checked_add(1);
            let version = version.filter(|version| *version <= LAST_VERSION).ok_or(VaultError::VersionsExhausted)?;
            let record = match &before {
                Some(row) => row.record,
                None => **random::<16>()?,
            };
            let added = self.sealed_version(&draft, record, version, now, value)?;
            let created = before.as_ref().map_or(now.0, |row| row.created);
            let after = self.guard().protect(row_of(&draft, record, version, created, now)?);

            let mut next = manifest;
            if let Some(before) = &before {
                self.guard().remove(&mut next, before)?;
            }
            self.guard().add(&mut next, &after)?;
            self.guard().add(&mut next, &added)?;
            let stored = stored_of(&after, masked.clone())?;
            let changes = vec![Change::PutCredential(after), Change::AddVersion(added)];
            let done = self.commit(manifest.epoch, next, changes).await?;
            Ok((done == Commit::Done).then_some(Some(stored)))
        })
    }

    /// Every credential, by name.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when a row is missing, forged or changed.
    pub async fn list(&self) -> Result<Vec<Stored>, VaultError> {
        Ok(self.snapshot().await?.into_iter().map(|credential| credential.stored).collect())
    }

    /// The credential called `name`: in `scope` where one is given, else the shared one, else the first of an agent's.
    ///
    /// # Errors
    /// As [`Vault::list`].
    pub async fn find(&self, name: &CredentialName, scope: Option<&Scope>) -> Result<Option<Stored>, VaultError> {
        let mut all = self.list().await?;
        all.retain(|stored| stored.name == *name && scope.is_none_or(|scope| stored.scope == *scope));
        Ok(all.into_iter().min_by(|left, right| left.scope.cmp(&right.scope)))
    }

    /// The versions of a credential, newest first; `None` if there is no such credential.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when a version is missing or changed.
    pub async fn history(&self, name: &CredentialName, scope: &Scope) -> Result<Option<Vec<VersionInfo>>, VaultError> {
        let Some((row, versions)) = self.row(name, scope, History::Include).await?.1 else { return Ok(None) };
        let versions = self.complete(&row, versions)?;
        let info = |version: &VersionRow| {
            let preview = RecordName { record: row.record, kind: KIND_PREVIEW, version: version.version };
            Ok(VersionInfo {
                version: version.version,
                created: WallTime(version.created),
                masked: shown(self.preview(preview, &version.preview, name)?).0,
                current: version.version == row.version,
            })
        };
        versions.iter().rev().map(info).collect::<Result<_, _>>().map(Some)
    }

    /// Removes a credential with all its versions. `false` if there is none.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn delete(&self, name: &CredentialName, scope: &Scope) -> Result<bool, VaultError> {
        retrying!({
            let (manifest, row) = self.row(name, scope, History::Include).await?;
            let Some((row, versions)) = row else { return Ok(Some(false)) };
            let mut next = manifest;
            self.guard().remove(&mut next, &row)?;
            // A damaged history must not keep a credential from being deleted; the manifest counts what is there.
            for version in &versions {
                self.guard().remove(&mut next, version)?;
            }
            let done = self.commit(manifest.epoch, next, vec![Change::DeleteCredential(row.record)]).await?;
            Ok((done == Commit::Done).then_some(true))
        })
    }

    /// Every credential with its sealed value; no value is opened.
    ///
    /// # Errors
    /// As [`Vault::list`].
    pub async fn snapshot(&self) -> Result<Vec<SealedCredential>, VaultError> {
        let read = self.store().credentials().await?;
        let manifest = self.guard().check(read.manifest)?;
        self.guard().check_table(&manifest, read.found.iter().map(|(row, _)| row))?;
        self.learn(read.found.iter().filter_map(|(_, version)| version.as_ref()).map(|version| version.term)).await?;
        read.found
            .into_iter()
            .map(|(row, version)| {
                let row = self.guard().verify(row, what)?;
                let version = version.ok_or_else(|| VaultError::corrupt(what(&row)))?;
                let version = self.guard().verify(version, |_| what(&row))?;
                let name = RecordName { record: row.record, kind: KIND_PREVIEW, version: row.version };
                let masked = self.preview(name, &version.preview, &parsed_name(&row)?)?;
                Ok(SealedCredential { stored: stored_of(&row, masked)?, sealed: version.sealed.into() })
            })
            .collect()
    }

    /// Opens one.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when the record was changed, belongs elsewhere, or does not say what its row says.
    pub fn unseal(&self, credential: &SealedCredential) -> Result<Opened, VaultError> {
        let stored = &credential.stored;
        let name = RecordName { record: stored.id, kind: KIND_SECRET, version: stored.version };
        let opened = self.keys().open(name, &credential.sealed).and_then(|body| payload::decode(&body));
        opened
            .filter(|opened| payload::agrees(opened, stored))
            .ok_or_else(|| VaultError::corrupt(format!("credential {}", stored.name)))
    }

    /// Opens every version of every credential.
    ///
    /// # Errors
    /// What keeps the vault from reading at all. What does not open is in the [`Verification`].
    pub async fn verify(&self) -> Result<Verification, VaultError> {
        let mut found = Verification { records: 0, faults: Vec::new() };
        for stored in self.list().await? {
            let row = self.row(&stored.name, &stored.scope, History::Include).await?.1;
            let Some((row, versions)) = row else { continue };
            let versions = match self.complete(&row, versions) {
                Ok(versions) => versions,
                Err(error) => {
                    found.faults.push(error);
                    continue;
                }
            };
            for version in &versions {
                let preview = RecordName { record: row.record, kind: KIND_PREVIEW, version: version.version };
                let opened = self.open_version(&row, version).map(drop);
                let opened = opened.and_then(|()| self.preview(preview, &version.preview, &stored.name).map(drop));
                found.records += 1;
                found.faults.extend(opened.err());
            }
        }
        // Rows that no credential leads to are seen by the count alone.
        let versions = self.store().versions().await?;
        let manifest = self.guard().check(versions.manifest)?;
        let counted = self.guard().check_table(&manifest, versions.found.iter());
        found.faults.extend(counted.err().filter(|_| found.faults.is_empty()));
        self.agents().await?;
        self.tokens().await?;
        Ok(found)
    }

    /// Opens a version that need not be the current one: of its binding, only name and scope can't have changed since.
    pub(super) fn open_version(&self, row: &CredentialRow, version: &VersionRow) -> Result<Opened, VaultError> {
        let name = RecordName { record: row.record, kind: KIND_SECRET, version: version.version };
        let opened = self.keys().open(name, &version.sealed).and_then(|body| payload::decode(&body));
        let agrees = |opened: &Opened| {
            opened.name.to_string() == row.name
                && opened.scope.to_string() == row.scope
                && opened.version == version.version
                && opened.created == WallTime(version.created)
        };
        let called = || VaultError::corrupt(format!("version {} of {}", version.version, what(row)));
        opened.filter(agrees).ok_or_else(called)
    }

    pub(super) async fn row(
        &self,
        name: &CredentialName,
        scope: &Scope,
        history: History,
    ) -> Result<(Manifest, Option<(CredentialRow, Vec<VersionRow>)>), VaultError> {
        let read = self.store().credential(&name.to_string(), &scope.to_string(), history).await?;
        let manifest = self.guard().check(read.manifest)?;
        let Some((row, versions)) = read.found else { return Ok((manifest, None)) };
        self.learn(versions.iter().map(|version| version.term)).await?;
        Ok((manifest, Some((self.guard().verify(row, what)?, versions))))
    }

    /// Checks that these are the versions of `row`: one for each number up to the current one.
    pub(super) fn complete(
        &self,
        row: &CredentialRow,
        versions: Vec<VersionRow>,
    ) -> Result<Vec<VersionRow>, VaultError> {
        let corrupt = || VaultError::corrupt(format!("the history of {}", what(row)));
        let versions = versions.into_iter().map(|version| self.guard().verify(version, |_| String::new()));
        let versions = versions.collect::<Result<Vec<_>, _>>().map_err(|_| corrupt())?;
        let numbers = versions.iter().map(|version| version.version);
        if numbers.eq(1..=row.version) { Ok(versions) } else { Err(corrupt()) }
    }

    pub(super) fn preview(
        &self,
        record: RecordName,
        sealed: &[u8],
        name: &CredentialName,
    ) -> Result<String, VaultError> {
        let text = self.keys().open(record, sealed);
        let text = text.and_then(|text| String::from_utf8(text.to_vec()).ok());
        text.ok_or_else(|| VaultError::corrupt(format!("the preview of credential {name}")))
    }

    pub(super) async fn commit(
        &self,
        from_epoch: u64,
        mut manifest: Manifest,
        changes: Vec<Change>,
    ) -> Result<Commit, VaultError> {
        manifest.epoch = from_epoch.checked_add(1).ok_or(VaultError::VersionsExhausted)?;
        let epoch = manifest.epoch;
        let manifest = self.guard().seal(manifest);
        self.announce(epoch, &changes).await?;
        let done = self.store().commit(Batch { from_epoch, manifest, changes }).await?;
        self.settled(done, epoch).await?;
        Ok(done)
    }
}

/// What a row is called in an error, where its name can be read at all.
fn what(row: &CredentialRow) -> String {
    match CredentialName::parse(&row.name) {
        Ok(name) => format!("credential {name}"),
        Err(_) => "a credential".to_owned(),
    }
}

fn parsed_name(row: &CredentialRow) -> Result<CredentialName, VaultError> {
    CredentialName::parse(&row.name).map_err(|_| VaultError::corrupt("a credential"))
}

/// A preview as people see it, and whether it is a reference.
fn shown(preview: String) -> (String, bool) {
    match preview.strip_prefix('\0') {
        Some(reference) => (reference.to_owned(), true),
        None => (preview, false),
    }
}

pub(super) fn row_of(
    draft: &Draft,
    record: [u8; 16],
    version: u64,
    created: u64,
    updated: WallTime,
) -> Result<CredentialRow, VaultError> {
    let hosts =
        serde_json::to_string(&draft.hosts).map_err(|_| VaultError::System("the hosts could not be written"))?;
    Ok(CredentialRow {
        record,
        name: draft.name.to_string(),
        scope: draft.scope.to_string(),
        provider: draft.provider.as_ref().map(ToString::to_string),
        kind: draft.kind.clone(),
        env: draft.env.clone(),
        install: draft.install,
        hosts,
        description: draft.description.clone(),
        label: draft.label.clone(),
        version,
        created,
        updated: updated.0,
        mac: [0; 32],
    })
}

pub(super) fn stored_of(row: &CredentialRow, masked: String) -> Result<Stored, VaultError> {
    let corrupt = || VaultError::corrupt(what(row));
    let (masked, by_reference) = shown(masked);
    Ok(Stored {
        by_reference,
        id: row.record,
        name: parsed_name(row)?,
        provider: match &row.provider {
            Some(provider) => Some(ProviderId::parse(provider).map_err(|_| corrupt())?),
            None => None,
        },
        kind: row.kind.clone(),
        scope: Scope::parse(&row.scope).map_err(|_| corrupt())?,
        env: row.env.clone(),
        install: row.install,
        hosts: serde_json::from_str(&row.hosts).map_err(|_| corrupt())?,
        description: row.description.clone(),
        label: row.label.clone(),
        masked,
        version: row.version,
        created: WallTime(row.created),
        updated: WallTime(row.updated),
    })
}

/// Checks what stands beside the value, and writes the hosts in their one form.
pub(super) fn checked(mut draft: Draft) -> Result<Draft, VaultError> {
    let refuse = |field, reason: String| Err(VaultError::Field { field, reason });
    let kind_fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if draft.kind.is_empty() || draft.kind.len() > 64 || !draft.kind.bytes().all(kind_fits) {
        return refuse("type", "uses only a-z 0-9 -, at most 64 of them".to_owned());
    }
    if let Some(env) = &draft.env {
        let sound = env.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if env.is_empty() || env.len() > 128 || !sound || env.starts_with(|first: char| first.is_ascii_digit()) {
            return refuse("variable", "uses only A-Z a-z 0-9 _, and no digit first".to_owned());
        }
    }
    for (field, text) in [("description", &draft.description), ("label", &draft.label)] {
        let Some(text) = text else { continue };
        if text.chars().any(char::is_control) {
            return refuse(field, "has a control character".to_owned());
        }
        if text.chars().count() > TEXT_LIMIT {
            return refuse(field, format!("is longer than {TEXT_LIMIT} characters"));
        }
    }
    if draft.hosts.len() > HOSTS_LIMIT {
        return refuse("list of hosts", format!("has more than {HOSTS_LIMIT} entries"));
    }
    for host in &mut draft.hosts {
        match HostPattern::parse(host) {
            Ok(pattern) => *host = pattern.to_string(),
            Err(error) => return refuse("host", format!("{host:?} {error}")),
        }
    }
    Ok(draft)
}
