//! The vault's rows in a SQLite file.
//!
//! Write-ahead log with `synchronous=FULL`: a commit that was acknowledged is on the disk, also after a loss of power.
//! Several processes may have the file open; a writer waits for the other one for a few seconds. Every call runs on a
//! thread for blocking work.
//!
//! Invariant: the file appears under its name only complete, so an empty or half-made one is damage, never a new vault.

mod copy;
mod rows;
mod schema;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::error::VaultError;
use super::integrity::Manifest;
use super::store::{Batch, Change, Commit, CredentialRow, History, Read, Root, Roster, Store, VersionRow};
use crate::home::{HomeError, check_secret_file, place_new, temporary_name};

/// How long a writer waits for another one before it says that the vault is busy.
const BUSY: Duration = Duration::from_secs(5);

/// A vault's rows in a SQLite database.
pub struct SqliteStore {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl SqliteStore {
    /// Makes the file with everything a new vault needs. Blocks.
    ///
    /// # Errors
    /// [`VaultError`]; then nothing is at `path`. `Ok(false)` when another process was first: its file stays.
    pub(super) fn create(path: &Path, root: &Root, manifest: &Manifest) -> Result<bool, VaultError> {
        let io_error = |source| VaultError::from(HomeError::Io { deed: "write", path: path.to_owned(), source });
        let temporary = temporary_name(path).map_err(io_error)?;
        // SQLite gives its other files the mode of this one.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io_error)?;
        let made = Self::fill(&temporary, root, manifest)
            .map_err(|error| failure(path, error))
            .and_then(|()| file.sync_all().map_err(io_error));
        if let Err(error) = made {
            for suffix in ["", "-journal", "-wal", "-shm"] {
                let _ = std::fs::remove_file(beside(&temporary, suffix));
            }
            return Err(error);
        }
        match place_new(&temporary, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(io_error(error)),
        }
    }

    fn fill(path: &Path, root: &Root, manifest: &Manifest) -> rusqlite::Result<()> {
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        configure(&connection)?;
        schema::create(&mut connection, |transaction| rows::found(transaction, root, manifest))?;
        // Closing the last connection moves the log into the file and removes it.
        connection.close().map_err(|(_, error)| error)
    }

    /// Opens a file that is there. Blocks.
    ///
    /// # Errors
    /// [`VaultError`] when it is not a whole vault of a schema that is known here, or is open to others.
    pub(super) fn open(path: &Path) -> Result<Self, VaultError> {
        check_secret_file(path)?;
        for suffix in ["-wal", "-shm"] {
            let other = beside(path, suffix);
            match check_secret_file(&other) {
                Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        let damaged = |reason: &str| VaultError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        // SQLite takes an empty file for a new database.
        if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            return Err(damaged("it is empty"));
        }
        // With SQLITE_OPEN_NOFOLLOW no part of the path may be a link; those above the file are ours to follow.
        let real = path.parent().and_then(|dir| dir.canonicalize().ok()).zip(path.file_name());
        let real = real.map_or_else(|| path.to_owned(), |(dir, name)| dir.join(name));
        let failed = |error| failure(path, error);
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(&real, flags).map_err(failed)?;
        configure(&connection).map_err(failed)?;
        schema::check(&mut connection, path)?;
        Ok(Self { shared: Arc::new(Shared { connection: Mutex::new(connection), path: path.to_owned() }) })
    }

    /// What identifies the vault, before its keys are there. Blocks.
    pub(super) fn root_now(&self) -> Result<Root, VaultError> {
        let mut connection = self.shared.connection.lock();
        let root = connection.transaction().and_then(|view| rows::root(&view));
        root.map_err(|error| failure(&self.shared.path, error))
    }

    /// Makes a database that is in memory only.
    pub(super) fn in_memory(root: &Root, manifest: &Manifest) -> Result<Self, VaultError> {
        let path = PathBuf::from(":memory:");
        let make = || {
            let mut connection = Connection::open_in_memory()?;
            configure(&connection)?;
            schema::create(&mut connection, |transaction| rows::found(transaction, root, manifest))?;
            Ok(connection)
        };
        let connection = make().map_err(|error| failure(&path, error))?;
        Ok(Self { shared: Arc::new(Shared { connection: Mutex::new(connection), path }) })
    }

    /// Runs `work` on a thread that may block.
    async fn run<T, F>(&self, work: F) -> Result<T, VaultError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            work(&mut shared.connection.lock()).map_err(|error| failure(&shared.path, error))
        })
        .await
        .map_err(|_| VaultError::System("a task of the vault was lost"))?
    }

    /// Runs `work` over one unchanging view of the database.
    async fn view<T, F>(&self, work: F) -> Result<T, VaultError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(move |connection| work(&connection.transaction()?)).await
    }

    /// Reads what `work` reads, and the manifest of the same moment.
    async fn read<T, F>(&self, work: F) -> Result<Read<T>, VaultError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.view(move |view| Ok(Read { manifest: rows::manifest(view)?, found: work(view)? })).await
    }

    /// Runs `work` as the only writer; what it did is on the disk when this returns `Ok`.
    async fn write<T, F>(&self, work: F) -> Result<T, VaultError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn root(&self) -> Result<Read<Root>, VaultError> {
        self.read(rows::root).await
    }

    async fn manifest(&self) -> Result<Manifest, VaultError> {
        self.view(rows::manifest).await
    }

    async fn credentials(&self) -> Result<Read<Vec<(CredentialRow, Option<VersionRow>)>>, VaultError> {
        self.read(rows::credentials).await
    }

    async fn credential(
        &self,
        name: &str,
        scope: &str,
        history: History,
    ) -> Result<Read<Option<(CredentialRow, Vec<VersionRow>)>>, VaultError> {
        let (name, scope) = (name.to_owned(), scope.to_owned());
        self.read(move |view| {
            let Some(row) = rows::credential(view, &name, &scope)? else { return Ok(None) };
            let versions = match history {
                History::Include => rows::versions(view, row.record)?,
                History::LeaveOut => Vec::new(),
            };
            Ok(Some((row, versions)))
        })
        .await
    }

    async fn versions(&self) -> Result<Read<Vec<VersionRow>>, VaultError> {
        self.read(rows::all_versions).await
    }

    async fn versions_before(&self, term: u32, limit: u32) -> Result<Read<Vec<VersionRow>>, VaultError> {
        self.read(move |view| rows::versions_before(view, term, limit)).await
    }

    async fn copy_to(&self, path: &Path) -> Result<(), VaultError> {
        let (shared, path) = (Arc::clone(&self.shared), path.to_owned());
        let copying = move || copy::to_new_file(&shared.connection.lock(), &shared.path, &path);
        tokio::task::spawn_blocking(copying).await.map_err(|_| VaultError::System("a task of the vault was lost"))?
    }

    async fn tidy(&self) -> Result<(), VaultError> {
        // A reader elsewhere may keep the log from being emptied; it is emptied by the next one then.
        self.run(|connection| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))).await
    }

    async fn roster(&self) -> Result<Read<Roster>, VaultError> {
        self.read(|view| Ok(Roster { agents: rows::agents(view)?, tokens: rows::tokens(view)? })).await
    }

    async fn commit(&self, batch: Batch) -> Result<Commit, VaultError> {
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !rows::advance_manifest(&transaction, batch.from_epoch, &batch.manifest)? {
                return Ok(Commit::Conflict);
            }
            for change in &batch.changes {
                if !apply(&transaction, change)? {
                    return Ok(Commit::Conflict);
                }
            }
            transaction.commit()?;
            Ok(Commit::Done)
        })
        .await
    }

    async fn seen(&self) -> Result<Vec<(String, u64)>, VaultError> {
        self.view(rows::seen).await
    }

    async fn touch(&self, seen: Vec<(String, u64)>) -> Result<(), VaultError> {
        self.write(move |transaction| rows::touch(transaction, &seen)).await
    }

    async fn pool_rows(&self) -> Result<Vec<(String, String)>, VaultError> {
        self.view(rows::pool_rows).await
    }

    async fn save_pool_rows(&self, rows: Vec<(String, String)>) -> Result<(), VaultError> {
        self.write(move |transaction| rows::save_pool_rows(transaction, &rows)).await
    }
}

/// Makes one change. `false` when it can't be made any more, since a vault key that it needs has ended.
fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<bool> {
    match change {
        Change::PutCredential(row) => rows::put_credential(transaction, row)?,
        Change::AddVersion(row) | Change::ResealVersion(row) if !rows::has_key(transaction, row.term)? => {
            return Ok(false);
        }
        Change::AddVersion(row) => rows::add_version(transaction, row)?,
        Change::ResealVersion(row) => rows::reseal_version(transaction, row)?,
        Change::DeleteCredential(record) => rows::delete_credential(transaction, record)?,
        Change::PutAgent(row) => rows::put_agent(transaction, row)?,
        Change::PutToken(row) => rows::put_token(transaction, row)?,
        Change::DeleteToken(digest) => rows::delete_token(transaction, digest)?,
        Change::AddKey(key) => rows::add_key(transaction, key)?,
        Change::DropKeysBefore(term) => return rows::drop_keys_before(transaction, *term),
        Change::ReplaceWrapping { to, before } => rows::replace_wrapping(transaction, to, before)?,
        Change::DropWrappingBefore => rows::drop_wrapping_before(transaction)?,
    }
    Ok(true)
}

/// Whether SQLite left its log beside a database that is gone.
pub(super) fn leftover(path: &Path) -> Option<PathBuf> {
    Some(beside(path, "-wal")).filter(|log| log.symlink_metadata().is_ok())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // NORMAL would lose acknowledged commits when power is lost.
    connection.pragma_update(None, "synchronous", "full")?;
    // What was deleted or replaced is overwritten with zeros.
    connection.pragma_update(None, "secure_delete", "on")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "cell_size_check", "on")?;
    // A changed database may bring triggers and views of its own; none of ours has any.
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    ] {
        connection.set_db_config(setting, on)?;
    }
    Ok(())
}

fn failure(path: &Path, error: rusqlite::Error) -> VaultError {
    let damaged = |reason: &str| VaultError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    match &error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => VaultError::Busy,
            ErrorCode::ReadOnly => VaultError::ReadOnly,
            ErrorCode::DiskFull => VaultError::DiskFull,
            ErrorCode::NotADatabase => damaged("it is not a SQLite database"),
            ErrorCode::DatabaseCorrupt => damaged("the SQLite file is malformed"),
            ErrorCode::ConstraintViolation => VaultError::corrupt("a row that should not be there"),
            _ => VaultError::Storage { reason: error.to_string() },
        },
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::QueryReturnedNoRows
        | rusqlite::Error::Utf8Error(..) => VaultError::corrupt("a row of the database"),
        _ => VaultError::Storage { reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests;
