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
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::json::Line;
use super::record::Millis;
use super::sink::{append_to, is_at};
use crate::clock::WallTime;
use crate::id::{AgentName, ProfileId, RequestId};
use crate::message::origin::Host;
use crate::scrub::Redactor;
use crate::secret::Secret;

type Code = Hmac<Sha256>;

/// What precedes the code at the end of every line.
pub(super) const MAC: &str = ",\"mac\":\"";

/// Stands where no record came before.
pub(super) const NOTHING: [u8; 32] = [0; 32];

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
            _ => format!("make {} a regular file that Keyferry may write", self.path.display()),
        }
    }
}

/// A credential is about to be used.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// When.
    pub at: WallTime,
    /// In which exchange.
    pub request_id: RequestId,
    /// For whom.
    pub agent: &'a AgentName,
    /// Which credential.
    pub profile: &'a ProfileId,
    /// Which version of it.
    pub version: u64,
    /// Where it goes.
    pub host: &'a Host,
    /// The port there.
    pub port: u16,
    /// The method.
    pub method: &'a Method,
    /// The path; what is written is a keyed hash of it, without the query.
    pub path: &'a str,
}

/// Something of the installation has changed.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// When.
    pub at: WallTime,
    /// What was done.
    pub action: Action,
    /// To what: a credential, an agent, a file.
    pub subject: &'a str,
    /// By whom: `cli`, `admin:NAME`, `daemon`.
    pub actor: &'a str,
    /// What else is worth keeping; never a value.
    pub detail: Option<&'a str>,
}

/// What can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A credential was stored for the first time.
    SecretCreated,
    /// A credential got a new version.
    SecretRotated,
    /// An earlier version is current again.
    SecretRolledBack,
    /// A credential is gone.
    SecretDeleted,
    /// A value was shown to a person.
    SecretRevealed,
    /// Sealed values left the vault.
    SecretExported,
    /// An agent was made.
    AgentCreated,
    /// An agent has a new token.
    AgentRotated,
    /// An agent's tokens no longer count.
    AgentRevoked,
    /// A session token was made.
    SessionCreated,
    /// A configuration is in force.
    ConfigLoaded,
    /// A faulty configuration was not taken.
    ConfigRefused,
    /// An origin or a root was overridden by the operator.
    TrustExtended,
    /// A root was made.
    CaCreated,
    /// A root was renewed.
    CaRenewed,
    /// A vault was made.
    VaultCreated,
    /// The vault's key was changed.
    VaultRekeyed,
    /// A profile was taken out of use by a person.
    ProfileDisabled,
    /// A profile was put back into use by a person.
    ProfileEnabled,
    /// A profile's rest was ended by a person.
    ProfileReset,
}

impl Action {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SecretCreated => "secret.created",
            Self::SecretRotated => "secret.rotated",
            Self::SecretRolledBack => "secret.rolled_back",
            Self::SecretDeleted => "secret.deleted",
            Self::SecretRevealed => "secret.revealed",
            Self::SecretExported => "secret.exported",
            Self::AgentCreated => "agent.created",
            Self::AgentRotated => "agent.rotated",
            Self::AgentRevoked => "agent.revoked",
            Self::SessionCreated => "session.created",
            Self::ConfigLoaded => "config.loaded",
            Self::ConfigRefused => "config.refused",
            Self::TrustExtended => "config.trust_extended",
            Self::CaCreated => "ca.created",
            Self::CaRenewed => "ca.renewed",
            Self::VaultCreated => "vault.created",
            Self::VaultRekeyed => "vault.rekeyed",
            Self::ProfileDisabled => "profile.disabled",
            Self::ProfileEnabled => "profile.enabled",
            Self::ProfileReset => "profile.reset",
        }
    }
}

/// A request was refused for what it held or where it went.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// When.
    pub at: WallTime,
    /// Which exchange.
    pub request_id: RequestId,
    /// Whose.
    pub agent: Option<&'a AgentName>,
    /// Where it would have gone.
    pub host: Option<&'a Host>,
    /// Why.
    pub code: crate::code::Code,
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
}

struct Segment {
    file: File,
    chain: String,
    key: Code,
    seq: u64,
    prev: [u8; 32],
    looked: WallTime,
}

impl Audit {
    /// Opens the file at `path` (mode 0600, made where there is none), to be chained under keys derived from `root`.
    /// Nothing is written before the first record.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when it is no regular file that can be written.
    pub fn open(path: &Path, root: Arc<Secret>, redactor: Arc<Redactor>) -> Result<Self, AuditUnavailable> {
        append_to(path).map_err(|source| AuditUnavailable { path: path.to_owned(), source })?;
        let paths = keyed(&code(&keyed(root.expose()), b"keyferry audit path v1"));
        Ok(Self { path: path.to_owned(), root, paths, redactor, segment: Mutex::new(None) })
    }

    /// Writes that a credential is about to be used.
    ///
    /// # Errors
    /// [`AuditUnavailable`]; the next call tries anew.
    pub fn intent(&self, intent: Intent<'_>) -> Result<Witness, AuditUnavailable> {
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
        })?;
        Ok(Witness { request_id: intent.request_id, profile: intent.profile.clone() })
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
        })
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
    }

    /// Forces what was written to the disk.
    ///
    /// # Errors
    /// [`AuditUnavailable`] when the disk says so.
    pub fn flush(&self) -> Result<(), AuditUnavailable> {
        match &*self.segment.lock() {
            Some(segment) => segment.file.sync_data().map_err(|source| self.fault(source)),
            None => Ok(()),
        }
    }

    fn fault(&self, source: io::Error) -> AuditUnavailable {
        AuditUnavailable { path: self.path.clone(), source }
    }

    fn append(&self, at: WallTime, kind: &str, fill: impl FnOnce(&mut Line)) -> Result<(), AuditUnavailable> {
        let mut guard = self.segment.lock();
        // After any failure the segment is gone, and this call begins a new one.
        let kept = guard.take().and_then(|segment| segment.in_place(&self.path, at));
        let mut segment = match kept {
            Some(segment) => segment,
            None => Segment::begin(&self.path, &self.root, at).map_err(|source| self.fault(source))?,
        };
        segment.write(at, kind, "", fill).map_err(|source| self.fault(source))?;
        *guard = Some(segment);
        Ok(())
    }
}

/// How often to look whether the file still stands at its path: seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(100);

impl Segment {
    /// Begins a chain, and writes its first record.
    fn begin(path: &Path, root: &Secret, at: WallTime) -> io::Result<Self> {
        let mut file = append_to(path)?;
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let chain = hex(&random);
        let tail = Tail::read(&mut file)?;
        let key = segment_key(root, &chain);
        let mut segment = Self { file, chain, key, seq: 0, prev: NOTHING, looked: at };
        let boot = std::process::id();
        let lead = if tail.torn.is_empty() { "" } else { "\n" };
        segment.write(at, "start", lead, |line| {
            line.number("pid", Some(u64::from(boot)))
                .string("version", env!("CARGO_PKG_VERSION"), 32)
                .optional("after", tail.mac.as_deref(), 64)
                .optional("torn", (!tail.torn.is_empty()).then(|| digest(&tail.torn)).as_deref(), 64);
        })?;
        Ok(segment)
    }

    /// The segment, if its records still reach the file that stands at `path`, as far as was looked lately.
    fn in_place(mut self, path: &Path, now: WallTime) -> Option<Self> {
        // A clock that was set back counts as time passed.
        if now >= self.looked && now.since(self.looked) < LOOK {
            return Some(self);
        }
        self.looked = now;
        is_at(&self.file, path).then_some(self)
    }

    fn write(&mut self, at: WallTime, kind: &str, lead: &str, fill: impl FnOnce(&mut Line)) -> io::Result<()> {
        let mut line = Line::begin();
        line.shown("ts", Some(&Millis(at)))
            .string("chain", &self.chain, 32)
            .number("seq", Some(self.seq))
            .string("kind", kind, 16);
        fill(&mut line);
        line.string("prev", &hex(&self.prev), 64);
        let signed = line.open();
        let mac = code(&self.key, signed.as_bytes());
        let text = format!("{lead}{signed}{MAC}{}\"}}\n", hex(&mac));
        // One call, so that lines of several processes never mix.
        let written = self.file.write(text.as_bytes())?;
        if written != text.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part of the record was written"));
        }
        self.seq = self.seq.saturating_add(1);
        self.prev = mac;
        Ok(())
    }
}

/// The end of a log that others wrote.
struct Tail {
    /// The code of the last whole line.
    mac: Option<String>,
    /// What stands behind it: a record that was cut off by a crash.
    torn: Vec<u8>,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        // Another process may be in the middle of a write; what is still torn after a moment is torn.
        const TRIES: usize = 3;
        let mut tail = Self::read_once(file)?;
        for _ in 1..TRIES {
            if tail.torn.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            tail = Self::read_once(file)?;
        }
        Ok(tail)
    }

    fn read_once(file: &mut File) -> io::Result<Self> {
        // Longer than two lines of the greatest length.
        const ENOUGH: u64 = 32 << 10;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(ENOUGH)))?;
        let mut end = Vec::new();
        io::Read::take(&mut *file, ENOUGH).read_to_end(&mut end)?;
        let whole = memchr::memrchr(b'\n', &end).map_or(0, |at| at.saturating_add(1));
        let torn = end.split_off(whole);
        let last = end.strip_suffix(b"\n").unwrap_or(&end).rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let mac = split(last).map(|(_, mac)| hex(&mac));
        Ok(Self { mac, torn })
    }
}

/// A line without its code, and the code.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], [u8; 32])> {
    const TAIL: usize = MAC.len() + 64 + 2;
    let (signed, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
    let digits = tail.strip_prefix(MAC.as_bytes())?.strip_suffix(b"\"}")?;
    let mut mac = [0u8; 32];
    for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
        if pair.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (hex(&mac).as_bytes() == digits).then_some((signed, mac))
}

/// The key of one chain. A different one for each, so that records of one chain mean nothing in another.
pub(super) fn segment_key(root: &Secret, chain: &str) -> Code {
    let derived = code(&keyed(root.expose()), format!("keyferry audit segment v1 {chain}").as_bytes());
    keyed(&derived)
}

fn keyed(key: &[u8]) -> Code {
    // RFC 2104 section 3: a key of any length will do.
    Code::new_from_slice(key).unwrap_or_else(|_| Code::new(&Default::default()))
}

pub(super) fn code(key: &Code, text: &[u8]) -> [u8; 32] {
    key.clone().chain_update(text).finalize().into_bytes().into()
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(if value < 10 { b'0' + value } else { b'a' - 10 + value });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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
