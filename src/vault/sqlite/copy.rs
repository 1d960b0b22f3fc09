//! Copies of the whole database, by SQLite's online backup: whole and of one moment, beside other processes that write.
//!
//! Invariant: a copy appears under its name only complete, on the disk, and closed to others.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{BUSY, SqliteStore, beside, configure, failure, schema};
use crate::home::{HomeError, check_secret_file, place_new, temporary_name};
use crate::vault::error::VaultError;

/// How long to wait before a step that found the database locked is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// Copies the database behind `source` into a file that is not there yet.
pub(super) fn to_new_file(source: &Connection, source_path: &Path, path: &Path) -> Result<(), VaultError> {
    let io_error = |source| VaultError::from(HomeError::Io { deed: "write", path: path.to_owned(), source });
    let temporary = temporary_name(path).map_err(io_error)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io_error)?;
    let fill = || {
        let mut copy = Connection::open_with_flags(&temporary, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        all(source, &mut copy)?;
        // One file: no log beside it that could be forgotten.
        copy.pragma_update(None, "journal_mode", "delete")?;
        copy.close().map_err(|(_, error)| error)
    };
    let made = fill().map_err(|error| failure(source_path, error)).and_then(|()| file.sync_all().map_err(io_error));
    if let Err(error) = made {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&temporary, suffix));
        }
        return Err(error);
    }
    place_new(&temporary, path).map_err(io_error)
}

impl SqliteStore {
    /// Opens a copy at `path`: a whole vault of a schema that is known here. The file is not changed. Blocks.
    pub(in crate::vault) fn copy_of(path: &Path, working: &Path) -> Result<Self, VaultError> {
        check_secret_file(path)?;
        let failed = |error| failure(path, error);
        if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            return Err(VaultError::Damaged { path: path.to_owned(), reason: "it is empty".to_owned() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(path, flags).map_err(failed)?;
        source.busy_timeout(BUSY).map_err(failed)?;
        to_new_file(&source, path, working)?;
        drop(source);
        Self::open(working)
    }

    /// Copies this database into a file that is not there yet. Blocks.
    pub(in crate::vault) fn copy_now(&self, path: &Path) -> Result<(), VaultError> {
        to_new_file(&self.shared.connection.lock(), &self.shared.path, path)
    }

    /// Puts the whole content of `from` into this database, in one step; other processes see the old or the new. Blocks.
    pub(in crate::vault) fn take_over(&self, from: &Self) -> Result<(), VaultError> {
        let source = from.shared.connection.lock();
        let mut target = self.shared.connection.lock();
        // The protection against changed databases would also keep this change out.
        let set = |connection: &Connection, on| {
            connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_DEFENSIVE, on)
        };
        let taken = set(&target, false).and_then(|_| all(&source, &mut target)).and_then(|()| configure(&target));
        taken.map_err(|error| failure(&self.shared.path, error))?;
        schema::check(&mut target, &self.shared.path)
    }

    /// Makes the log beside the file again, which copies have none of. Blocks.
    pub(in crate::vault) fn use_log(&self) -> Result<(), VaultError> {
        let connection = self.shared.connection.lock();
        connection.pragma_update(None, "journal_mode", "wal").map_err(|error| failure(&self.shared.path, error))
    }
}

fn all(source: &Connection, target: &mut Connection) -> rusqlite::Result<()> {
    let backup = Backup::new(source, target)?;
    let tries = BUSY.as_millis().div_ceil(PAUSE.as_millis());
    for _ in 0..tries {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            // Somebody else writes.
            _ => std::thread::sleep(PAUSE),
        }
    }
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None))
}
