//! The audit log: every change, every use of a credential before it happens, every refused placeholder.
//!
//! Each process writes a chain of its own into the one file. A chain begins with a `start` record that names the
//! process and the last record that stood before it; every record holds the code of the one before it in its chain
//! and an HMAC of itself, under a key that only the vault's key gives. What cannot be noticed without a copy
//! elsewhere is the loss of the file's end.
//!
//! Invariant: a [`Witness`] exists only after its record was written; a record that was not written is an error for
//! the caller, never a silent loss.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::chain::{Code, Segment, code, hex, path_key};
use super::commit::Committer;
use super::entry::{Change, Intent, Refused};
use super::json::Line;
use super::sink::append_to;
use crate::clock::WallTime;
use crate::id::{ProfileId, RequestId};
use crate::scrub::Redactor;
use crate::secret::Secret;

/// The audit log could not be written, so what it should have recorded must not happen.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {} cannot be written", path.display())]
pub struct AuditUnavailable {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl AuditUnavailable {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space; the next request tries again".to_owned()
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                format!("the disk of {} does not keep up; the next request tries again", self.path.display())
            }
            _ => format!("make {} a regular file that Keyferry may write", self.path.display()),
        }
    }
}

/// Proof that the intent to use a credential is written. Only [`Audit::intent`] makes one.
#[derive(Debug)]
pub struct Witness {
    request_id: RequestId,
    profile: ProfileId,
}

impl Witness {
    /// For which exchange.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// For which credential.
    #[must_use]
    pub fn profile(&self) -> &ProfileId {
        &self.profile
    }

    /// One for tests of what comes after it.
    #[cfg(test)]
    #[must_use]
    pub fn for_test(request_id: RequestId, profile: ProfileId) -> Self {
        Self { request_id, profile }
    }
}

/// The writer of one process.
pub struct Audit {
    path: PathBuf,
    root: Arc<Secret>,
    paths: Code,
    redactor: Arc<Redactor>,
    segment: Mutex<Option<Segment>>,
    /// Where records have to be on the disk before they count.
    committer: Option<Committer>,
}

impl Audit {
    /// Opens the file at `path` (mode 0600, made where there is none), to be chained under keys derived from `root`.
    /// Nothing is written before the first record.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when it is no regular file that can be written.
    pub fn open(path: &Path, root: Arc<Secret>, redactor: Arc<Redactor>) -> Result<Self, AuditUnavailable> {
        append_to(path).map_err(|source| AuditUnavailable { path: path.to_owned(), source })?;
        let paths = path_key(&root);
        Ok(Self { path: path.to_owned(), root, paths, redactor, segment: Mutex::new(None), committer: None })
    }

    /// From now on a record counts when the disk has it, not when the operating system has.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when no thread can be started for it.
    pub fn synced(mut self) -> Result<Self, AuditUnavailable> {
        self.committer = Some(Committer::start().map_err(|source| self.fault(source))?);
        Ok(self)
    }

    /// Writes that a credential is about to be used.
    ///
    /// # Errors
    /// [`AuditUnavailable`]; the next call tries anew.
    pub async fn intent(&self, intent: Intent<'_>) -> Result<Witness, AuditUnavailable> {
        let (request_id, profile) = (intent.request_id, intent.profile.clone());
        let file = self.write_intent(&intent)?;
        if let Some(committer) = &self.committer
            && let Err(source) = committer.settled(Arc::clone(&file)).await
        {
            self.abandon(&file);
            return Err(self.fault(source));
        }
        Ok(Witness { request_id, profile })
    }

    fn write_intent(&self, intent: &Intent<'_>) -> Result<Arc<File>, AuditUnavailable> {
        let path = intent.path.split_once('?').map_or(intent.path, |(path, _)| path);
        let path = code(&self.paths, path.as_bytes());
        let path = hex(path.first_chunk::<16>().map_or(&[], |half| half.as_slice()));
        let host = intent.host.to_string();
        self.append(intent.at, "use", |line| {
            line.shown("request_id", Some(&intent.request_id))
                .shown("agent", Some(intent.agent))
                .shown("profile", Some(intent.profile))
                .number("version", Some(intent.version))
                .string("host", &self.redactor.redact(&host), 256)
                .number("port", Some(u64::from(intent.port)))
                .string("method", &self.redactor.redact(intent.method.as_str()), 32)
                .string("path_hash", &path, 32);
        })
    }

    /// Writes a change.
    ///
    /// # Errors
    /// [`AuditUnavailable`]; the next call tries anew.
    pub fn change(&self, change: Change<'_>) -> Result<(), AuditUnavailable> {
        self.append(change.at, "change", |line| {
            line.string("action", change.action.as_str(), 32)
                .string("subject", &self.redactor.redact(change.subject), 512)
                .string("actor", &self.redactor.redact(change.actor), 256);
            if let Some(detail) = change.detail {
                line.string("detail", &self.redactor.redact(detail), 1024);
            }
        })?;
        // Changes are few, and made by a person who waits.
        if self.committer.is_some() { self.flush() } else { Ok(()) }
    }

    /// Writes a refusal.
    ///
    /// # Errors
    /// [`AuditUnavailable`]; the next call tries anew.
    pub fn refused(&self, refused: Refused<'_>) -> Result<(), AuditUnavailable> {
        let host = refused.host.map(ToString::to_string);
        self.append(refused.at, "refused", |line| {
            line.shown("request_id", Some(&refused.request_id))
                .shown("agent", refused.agent.map(|agent| agent as &dyn std::fmt::Display))
                .optional("host", host.as_deref().map(|host| self.redactor.redact(host)).as_deref(), 256)
                .string("code", refused.code.as_str(), 64);
        })
        .map(drop)
    }

    /// Forces what was written to the disk.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the disk says so.
    pub fn flush(&self) -> Result<(), AuditUnavailable> {
        // Without the lock: a disk that does not answer must not hold up those who only write.
        let file = self.segment.lock().as_ref().map(|segment| Arc::clone(segment.file()));
        file.map_or(Ok(()), |file| file.sync_data()).map_err(|source| self.fault(source))
    }

    fn fault(&self, source: io::Error) -> AuditUnavailable {
        AuditUnavailable { path: self.path.clone(), source }
    }

    /// After a failed call nobody knows what of the file is on the disk: what follows begins a chain of its own.
    fn abandon(&self, file: &Arc<File>) {
        let mut segment = self.segment.lock();
        if segment.as_ref().is_some_and(|segment| Arc::ptr_eq(segment.file(), file)) {
            *segment = None;
        }
    }

    fn append(&self, at: WallTime, kind: &str, fill: impl FnOnce(&mut Line)) -> Result<Arc<File>, AuditUnavailable> {
        let mut guard = self.segment.lock();
        // After any failure the segment is gone, and this call begins a new one.
        let kept = guard.take().and_then(|segment| segment.in_place(&self.path, at));
        let mut segment = match kept {
            Some(segment) => segment,
            None => Segment::begin(&self.path, &self.root, at).map_err(|source| self.fault(source))?,
        };
        segment.write(at, kind, "", fill).map_err(|source| self.fault(source))?;
        let file = Arc::clone(segment.file());
        *guard = Some(segment);
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::entry::Action;
    use super::super::verify::{Verified, verify};
    use super::*;

    fn root() -> Arc<Secret> {
        Arc::new(Secret::new(vec![9; 32]))
    }

    fn change(at: u64) -> Change<'static> {
        let subject = "anthropic:work";
        Change { at: WallTime(at), action: Action::SecretCreated, subject, actor: "cli", detail: Some("version 1") }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error_and_recovers_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(&path, root(), Arc::default()).unwrap();
        audit.change(change(0)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let moved = dir.path().join("audit.1");
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        for at in [1_000, 1_001] {
            let fault = audit.change(change(at)).unwrap_err();
            assert!(fault.hint().contains("regular file"));
            assert!(fault.to_string().contains("audit.jsonl"));
        }
        std::fs::remove_dir(&path).unwrap();
        audit.change(change(2_000)).unwrap();
        audit.change(change(1_000)).unwrap();
        audit.flush().unwrap();
        assert_eq!(verify(&moved, &root()).unwrap(), Verified { records: 2, chains: 1, torn: 0 });
        assert_eq!(verify(&path, &root()).unwrap(), Verified { records: 3, chains: 1, torn: 0 });
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Audit::open(dir.path(), root(), Arc::default()).is_err());
        assert!(Audit::open(Path::new("/dev/null"), root(), Arc::default()).is_err());
        assert!(Audit::open(&dir.path().join("no/such"), root(), Arc::default()).is_err());
    }

    #[test]
    fn nothing_is_written_before_the_first_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        drop(Audit::open(&path, root(), Arc::default()).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn many_threads_write_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(&path, root(), Arc::default()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|at| audit.change(change(at)).unwrap()));
            }
        });
        assert_eq!(verify(&path, &root()).unwrap(), Verified { records: 201, chains: 1, torn: 0 });
    }
}
