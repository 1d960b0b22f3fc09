//! The statements, and the shapes of rows on both sides of them.
//!
//! Invariant: values go into statements as parameters only; a column that does not have the expected type or length is
//! an error, never a default.

use rusqlite::{OptionalExtension as _, Result, Row, Transaction, params};

use crate::vault::integrity::Manifest;
use crate::vault::store::{AgentRecord, CredentialRow, Root, TokenRecord, VersionRow, WrappedKey, Wrapping};

/// SQLite's integers are signed.
fn number(row: &Row<'_>, at: &str) -> Result<u64> {
    let stored: i64 = row.get(at)?;
    u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, stored))
}

fn maybe_number(row: &Row<'_>, at: &str) -> Result<Option<u64>> {
    let stored: Option<i64> = row.get(at)?;
    stored
        .map(|stored| u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, stored)))
        .transpose()
}

fn term(row: &Row<'_>) -> Result<u32> {
    let stored: i64 = row.get("term")?;
    u32::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, stored))
}

fn flag(row: &Row<'_>, at: &str) -> Result<bool> {
    match row.get(at)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    }
}

/// Times and versions end at 2^63 - 1 in the database; no clock and no counter comes near.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn found(transaction: &Transaction<'_>, root: &Root, manifest: &Manifest) -> Result<()> {
    for (name, value) in [("deployment", root.deployment), ("vault", root.vault)] {
        put_meta(transaction, name, value.as_slice())?;
    }
    put_wrapping(transaction, &root.wrapping)?;
    transaction.execute(
        "INSERT INTO manifest (only, epoch, body, mac) VALUES (1, ?1, ?2, ?3)",
        params![stored(manifest.epoch), manifest.body(), manifest.mac.as_slice()],
    )?;
    Ok(())
}

pub(super) fn root(view: &Transaction<'_>) -> Result<Root> {
    let fixed = |name: &str| -> Result<[u8; 16]> {
        let value = meta(view, name)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        value.try_into().map_err(|_| rusqlite::Error::QueryReturnedNoRows)
    };
    let before = meta(view, BEFORE)?.map(|json| unreadable(serde_json::from_slice(&json))).transpose()?;
    Ok(Root { deployment: fixed("deployment")?, vault: fixed("vault")?, wrapping: wrapping(view)?, before })
}

/// The keys under the root key before, as JSON.
const BEFORE: &str = "wrapping_before";

fn wrapping(view: &Transaction<'_>) -> Result<Wrapping> {
    let mut statement = view.prepare("SELECT term, record, generation, sealed FROM keyring ORDER BY term")?;
    let keyring = statement.query_map([], |row| {
        Ok(WrappedKey {
            term: term(row)?,
            record: row.get("record")?,
            generation: number(row, "generation")?,
            sealed: row.get("sealed")?,
        })
    })?;
    let check = meta(view, "root_check")?.and_then(|check| check.try_into().ok());
    Ok(Wrapping {
        check: check.ok_or(rusqlite::Error::QueryReturnedNoRows)?,
        kdf: meta(view, "kdf")?.map(|json| unreadable(serde_json::from_slice(&json))).transpose()?,
        keyring: keyring.collect::<Result<_>>()?,
    })
}

fn put_wrapping(transaction: &Transaction<'_>, wrapping: &Wrapping) -> Result<()> {
    put_meta(transaction, "root_check", &wrapping.check)?;
    match &wrapping.kdf {
        Some(kdf) => put_meta(transaction, "kdf", &unreadable(serde_json::to_vec(kdf))?)?,
        None => drop_meta(transaction, "kdf")?,
    }
    transaction.execute("DELETE FROM keyring", [])?;
    wrapping.keyring.iter().try_for_each(|key| add_key(transaction, key))
}

pub(super) fn replace_wrapping(transaction: &Transaction<'_>, to: &Wrapping, before: &Wrapping) -> Result<()> {
    put_meta(transaction, BEFORE, &unreadable(serde_json::to_vec(before))?)?;
    put_wrapping(transaction, to)
}

pub(super) fn drop_wrapping_before(transaction: &Transaction<'_>) -> Result<()> {
    drop_meta(transaction, BEFORE)
}

pub(super) fn add_key(transaction: &Transaction<'_>, key: &WrappedKey) -> Result<()> {
    transaction.execute(
        "INSERT INTO keyring (term, record, generation, sealed) VALUES (?1, ?2, ?3, ?4)",
        params![key.term, key.record.as_slice(), stored(key.generation), key.sealed],
    )?;
    Ok(())
}

/// Removes the keys of credentials before `term`, if none is in use any more. Term 0 seals no credentials.
pub(super) fn drop_keys_before(transaction: &Transaction<'_>, term: u32) -> Result<bool> {
    let used = "SELECT EXISTS (SELECT 1 FROM version WHERE term < ?1)";
    if transaction.query_row(used, [term], |row| row.get(0))? {
        return Ok(false);
    }
    transaction.execute("DELETE FROM keyring WHERE term > 0 AND term < ?1", [term])?;
    Ok(true)
}

/// Whether the key of `term` is on the keyring.
pub(super) fn has_key(transaction: &Transaction<'_>, term: u32) -> Result<bool> {
    let mut statement = transaction.prepare_cached("SELECT EXISTS (SELECT 1 FROM keyring WHERE term = ?1)")?;
    statement.query_row([term], |row| row.get(0))
}

fn meta(view: &Transaction<'_>, name: &str) -> Result<Option<Vec<u8>>> {
    view.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

fn put_meta(transaction: &Transaction<'_>, name: &str, value: &[u8]) -> Result<()> {
    transaction.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
    Ok(())
}

fn drop_meta(transaction: &Transaction<'_>, name: &str) -> Result<()> {
    transaction.execute("DELETE FROM meta WHERE name = ?1", [name])?;
    Ok(())
}

/// JSON that is none is a column of the wrong type.
fn unreadable<T>(result: serde_json::Result<T>) -> Result<T> {
    result.map_err(|_| rusqlite::Error::QueryReturnedNoRows)
}

pub(super) fn manifest(view: &Transaction<'_>) -> Result<Manifest> {
    let mut statement = view.prepare_cached("SELECT epoch, body, mac FROM manifest WHERE only = 1")?;
    statement.query_row([], |row| {
        let body: Vec<u8> = row.get("body")?;
        Manifest::from_parts(number(row, "epoch")?, &body, row.get("mac")?).ok_or(rusqlite::Error::QueryReturnedNoRows)
    })
}

pub(super) fn advance_manifest(transaction: &Transaction<'_>, from: u64, to: &Manifest) -> Result<bool> {
    let mut statement = transaction
        .prepare_cached("UPDATE manifest SET epoch = ?1, body = ?2, mac = ?3 WHERE only = 1 AND epoch = ?4")?;
    let changed = statement.execute(params![stored(to.epoch), to.body(), to.mac.as_slice(), stored(from)])?;
    Ok(changed == 1)
}

fn credential_row(row: &Row<'_>) -> Result<CredentialRow> {
    Ok(CredentialRow {
        record: row.get("record")?,
        name: row.get("name")?,
        scope: row.get("scope")?,
        provider: row.get("provider")?,
        kind: row.get("kind")?,
        env: row.get("env")?,
        install: flag(row, "install")?,
        hosts: row.get("hosts")?,
        description: row.get("description")?,
        label: row.get("label")?,
        version: number(row, "version")?,
        created: number(row, "created")?,
        updated: number(row, "updated")?,
        mac: row.get("mac")?,
    })
}

fn version_row(row: &Row<'_>) -> Result<VersionRow> {
    Ok(VersionRow {
        record: row.get("record")?,
        version: number(row, "version")?,
        term: term(row)?,
        created: number(row, "created")?,
        sealed: row.get("sealed")?,
        preview: row.get("preview")?,
        mac: row.get("mac")?,
    })
}

pub(super) fn credentials(view: &Transaction<'_>) -> Result<Vec<(CredentialRow, Option<VersionRow>)>> {
    let mut current = view.prepare_cached("SELECT * FROM version WHERE record = ?1 AND version = ?2")?;
    let mut statement = view.prepare_cached("SELECT * FROM credential")?;
    let mut rows = statement.query_map([], credential_row)?.collect::<Result<Vec<_>>>()?;
    rows.sort_unstable_by(|left, right| (&left.name, &left.scope).cmp(&(&right.name, &right.scope)));
    rows.into_iter()
        .map(|row| {
            let version =
                current.query_row(params![row.record.as_slice(), stored(row.version)], version_row).optional()?;
            Ok((row, version))
        })
        .collect()
}

pub(super) fn credential(view: &Transaction<'_>, name: &str, scope: &str) -> Result<Option<CredentialRow>> {
    let mut statement = view.prepare_cached("SELECT * FROM credential WHERE name = ?1 AND scope = ?2")?;
    statement.query_row([name, scope], credential_row).optional()
}

pub(super) fn versions(view: &Transaction<'_>, record: [u8; 16]) -> Result<Vec<VersionRow>> {
    let mut statement = view.prepare_cached("SELECT * FROM version WHERE record = ?1 ORDER BY version")?;
    statement.query_map([record.as_slice()], version_row)?.collect()
}

pub(super) fn all_versions(view: &Transaction<'_>) -> Result<Vec<VersionRow>> {
    view.prepare_cached("SELECT * FROM version")?.query_map([], version_row)?.collect()
}

pub(super) fn versions_before(view: &Transaction<'_>, term: u32, limit: u32) -> Result<Vec<VersionRow>> {
    let mut statement = view.prepare_cached("SELECT * FROM version WHERE term < ?1 LIMIT ?2")?;
    statement.query_map([term, limit], version_row)?.collect()
}

pub(super) fn put_credential(transaction: &Transaction<'_>, row: &CredentialRow) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO credential
           (record, name, scope, provider, kind, env, install, hosts, description, label, version, created, updated, mac)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (record) DO UPDATE SET
           name = excluded.name, scope = excluded.scope, provider = excluded.provider, kind = excluded.kind,
           env = excluded.env, install = excluded.install, hosts = excluded.hosts, description = excluded.description,
           label = excluded.label, version = excluded.version, created = excluded.created, updated = excluded.updated,
           mac = excluded.mac",
    )?;
    statement.execute(params![
        row.record.as_slice(),
        row.name,
        row.scope,
        row.provider,
        row.kind,
        row.env,
        row.install,
        row.hosts,
        row.description,
        row.label,
        stored(row.version),
        stored(row.created),
        stored(row.updated),
        row.mac.as_slice(),
    ])?;
    Ok(())
}

pub(super) fn add_version(transaction: &Transaction<'_>, row: &VersionRow) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO version (record, version, term, created, sealed, preview, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![
        row.record.as_slice(),
        stored(row.version),
        row.term,
        stored(row.created),
        row.sealed,
        row.preview,
        row.mac.as_slice(),
    ])?;
    Ok(())
}

pub(super) fn reseal_version(transaction: &Transaction<'_>, row: &VersionRow) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "UPDATE version SET term = ?3, sealed = ?4, preview = ?5, mac = ?6 WHERE record = ?1 AND version = ?2",
    )?;
    let changed = statement.execute(params![
        row.record.as_slice(),
        stored(row.version),
        row.term,
        row.sealed,
        row.preview,
        row.mac.as_slice(),
    ])?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}

pub(super) fn delete_credential(transaction: &Transaction<'_>, record: &[u8; 16]) -> Result<()> {
    transaction.execute("DELETE FROM version WHERE record = ?1", [record.as_slice()])?;
    transaction.execute("DELETE FROM credential WHERE record = ?1", [record.as_slice()])?;
    Ok(())
}

pub(super) fn agents(view: &Transaction<'_>) -> Result<Vec<AgentRecord>> {
    let mut statement = view.prepare_cached("SELECT name, created, revoked, mac FROM agent ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok(AgentRecord {
            name: row.get("name")?,
            created: number(row, "created")?,
            revoked: maybe_number(row, "revoked")?,
            mac: row.get("mac")?,
        })
    })?;
    rows.collect()
}

pub(super) fn put_agent(transaction: &Transaction<'_>, row: &AgentRecord) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO agent (name, created, revoked, mac) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET created = excluded.created, revoked = excluded.revoked, mac = excluded.mac",
    )?;
    statement.execute(params![row.name, stored(row.created), row.revoked.map(stored), row.mac.as_slice()])?;
    Ok(())
}

pub(super) fn tokens(view: &Transaction<'_>) -> Result<Vec<TokenRecord>> {
    let mut statement = view.prepare_cached("SELECT * FROM token ORDER BY agent, created, digest")?;
    let rows = statement.query_map([], |row| {
        Ok(TokenRecord {
            digest: row.get("digest")?,
            agent: row.get("agent")?,
            session: flag(row, "session")?,
            created: number(row, "created")?,
            expires: maybe_number(row, "expires")?,
            revoked: maybe_number(row, "revoked")?,
            mac: row.get("mac")?,
        })
    })?;
    rows.collect()
}

pub(super) fn put_token(transaction: &Transaction<'_>, row: &TokenRecord) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO token (digest, agent, session, created, expires, revoked, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (digest) DO UPDATE SET
           agent = excluded.agent, session = excluded.session, created = excluded.created, expires = excluded.expires,
           revoked = excluded.revoked, mac = excluded.mac",
    )?;
    statement.execute(params![
        row.digest.as_slice(),
        row.agent,
        row.session,
        stored(row.created),
        row.expires.map(stored),
        row.revoked.map(stored),
        row.mac.as_slice(),
    ])?;
    Ok(())
}

pub(super) fn delete_token(transaction: &Transaction<'_>, digest: &[u8; 32]) -> Result<()> {
    transaction.execute("DELETE FROM token WHERE digest = ?1", [digest.as_slice()])?;
    Ok(())
}

pub(super) fn seen(view: &Transaction<'_>) -> Result<Vec<(String, u64)>> {
    let mut statement = view.prepare_cached("SELECT agent, at FROM seen")?;
    statement.query_map([], |row| Ok((row.get("agent")?, number(row, "at")?)))?.collect()
}

pub(super) fn touch(transaction: &Transaction<'_>, seen: &[(String, u64)]) -> Result<()> {
    let mut statement = transaction.prepare_cached(
        "INSERT INTO seen (agent, at) VALUES (?1, ?2) ON CONFLICT (agent) DO UPDATE SET at = max(at, excluded.at)",
    )?;
    for (agent, at) in seen {
        statement.execute(params![agent, stored(*at)])?;
    }
    Ok(())
}

pub(super) fn pool_rows(view: &Transaction<'_>) -> Result<Vec<(String, String)>> {
    let mut statement = view.prepare_cached("SELECT scope, json FROM pool ORDER BY scope")?;
    statement.query_map([], |row| Ok((row.get("scope")?, row.get("json")?)))?.collect()
}

pub(super) fn save_pool_rows(transaction: &Transaction<'_>, rows: &[(String, String)]) -> Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO pool (scope, json) VALUES (?1, ?2) ON CONFLICT (scope) DO UPDATE SET json = excluded.json",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM pool WHERE scope = ?1")?;
    for (scope, json) in rows {
        if json.is_empty() {
            delete.execute([scope])?;
        } else {
            put.execute([scope, json])?;
        }
    }
    Ok(())
}
