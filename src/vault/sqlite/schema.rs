//! The tables, and how an older file gets them.
//!
//! Invariant: a file of a newer schema is not touched, and a migration happens whole or not at all.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::failure;
use crate::vault::error::VaultError;

/// "KFvt": marks the file as one of ours.
const APPLICATION: i64 = 0x4b46_7674;

/// One script per schema version. The versions are in a table with row numbers, since a row of a table without them that
/// is larger than a quarter of a page gets a page of its own.
///
/// The first makes an empty file one of version 1. A released script never changes.
const SCRIPTS: &[&str] = &["
CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;
CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE keyring (term INTEGER PRIMARY KEY, record BLOB NOT NULL, generation INTEGER NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE manifest (only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, body BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE credential (
  record BLOB NOT NULL PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL, provider TEXT, kind TEXT NOT NULL,
  env TEXT, install INTEGER NOT NULL, hosts TEXT NOT NULL, description TEXT, label TEXT,
  version INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL, mac BLOB NOT NULL,
  UNIQUE (name, scope)) STRICT, WITHOUT ROWID;
CREATE TABLE version (
  record BLOB NOT NULL, version INTEGER NOT NULL, term INTEGER NOT NULL, created INTEGER NOT NULL,
  sealed BLOB NOT NULL, preview BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (record, version)) STRICT;
CREATE TABLE agent (name TEXT NOT NULL PRIMARY KEY, created INTEGER NOT NULL, revoked INTEGER, mac BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE token (
  digest BLOB NOT NULL PRIMARY KEY, agent TEXT NOT NULL, session INTEGER NOT NULL, created INTEGER NOT NULL,
  expires INTEGER, revoked INTEGER, mac BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE seen (agent TEXT NOT NULL PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pool (scope TEXT NOT NULL PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
"];

/// Gives an empty database the newest schema and what `found` puts into it, in one step.
pub(super) fn create(
    connection: &mut Connection,
    found: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    SCRIPTS.iter().try_for_each(|script| transaction.execute_batch(script))?;
    transaction.execute("INSERT INTO schema_version (version) VALUES (?1)", [newest()])?;
    found(&transaction)?;
    transaction.commit()
}

/// Checks that the file is whole, ours, and of a schema that is known here; brings an older one up to date.
pub(super) fn check(connection: &mut Connection, path: &Path) -> Result<(), VaultError> {
    let failed = |error| failure(path, error);
    let damaged = |reason: &str| VaultError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION {
        return Err(damaged("it is a database of another program"));
    }
    let version = version(connection).map_err(failed)?;
    if version > newest() {
        return Err(VaultError::NewerSchema { found: version, known: newest() });
    }
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(damaged("SQLite's own check failed"));
    }
    if version < newest() {
        migrate(connection).map_err(failed)?;
    }
    // A trigger, view or changed table that somebody added could answer queries in our tables' place.
    if objects(connection).map_err(failed)? != expected().map_err(failed)? {
        return Err(damaged("its tables are not those of a vault"));
    }
    Ok(())
}

fn newest() -> i64 {
    i64::try_from(SCRIPTS.len()).unwrap_or(i64::MAX)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0))
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited.
    let from = usize::try_from(version(&transaction)?).unwrap_or_default();
    SCRIPTS.iter().skip(from).try_for_each(|script| transaction.execute_batch(script))?;
    transaction.execute("UPDATE schema_version SET version = ?1", [newest()])?;
    transaction.commit()
}

type Object = (String, String, String, Option<String>);

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let mut statement =
        connection.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    found.collect()
}

fn expected() -> rusqlite::Result<Vec<Object>> {
    let connection = Connection::open_in_memory()?;
    SCRIPTS.iter().try_for_each(|script| connection.execute_batch(script))?;
    objects(&connection)
}
