//! Checks an audit log against its keys.
//!
//! Invariant: a log that passes holds every record of each of its chains, unchanged and in order, up to the chain's
//! last one; what was lost behind that cannot be seen from the file alone.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use hmac::Hmac;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::chain::{NOTHING, code, digest, hex, segment_key, split};
use crate::secret::Secret;

/// What a sound log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    /// Records, the starts included.
    pub records: u64,
    /// Chains: one for each time that a process began to write.
    pub chains: u64,
    /// Records that a crash cut off, each named by the start after it, or at the very end.
    pub torn: u64,
}

/// The first thing that is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A line is no record.
    #[error("line {line}: not an audit record")]
    Foreign {
        /// Counted from 1.
        line: u64,
    },
    /// A line's code does not fit: it was changed, or the key is another one.
    #[error("line {line}: the record was changed, or was written under another key")]
    Changed {
        /// Counted from 1.
        line: u64,
    },
    /// A record before this one is missing, doubled or moved.
    #[error("line {line}: a record before this one is missing, doubled or moved")]
    Broken {
        /// Counted from 1.
        line: u64,
    },
}

impl Fault {
    /// Which line, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        match self {
            Self::Unreadable(_) => None,
            Self::Foreign { line } | Self::Changed { line } | Self::Broken { line } => Some(*line),
        }
    }

    /// What is wrong, without the line.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "the log cannot be read",
            Self::Foreign { .. } => "not a record of this log",
            Self::Changed { .. } => "the record was changed, or was written under another key",
            Self::Broken { .. } => "a record before this one is missing, doubled or moved",
        }
    }
}

/// How far back a start may look for the record that stood last when it was written: other processes may have
/// written in between.
const RECENT: usize = 4096;

/// Longer than any record.
const LONGEST: u64 = 64 << 10;

/// Checks every record of the log at `path`. `root` is what [`super::Audit::open`] was given.
///
/// # Errors
/// The first [`Fault`].
pub fn verify(path: &Path, root: &Secret) -> Result<Verified, Fault> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut log = Log { root, chains: HashMap::new(), recent: VecDeque::new(), torn: None, found: Verified::default() };
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        let ended = line.pop_if(|last| *last == b'\n').is_some();
        log.line(number, &line, ended)?;
    }
    match log.torn {
        // A crash leaves a line without an end; a whole line that is no record was put there.
        Some(Torn { line, ended: true, .. }) => Err(Fault::Foreign { line }),
        Some(Torn { ended: false, .. }) => Ok(Verified { torn: log.found.torn.saturating_add(1), ..log.found }),
        None => Ok(log.found),
    }
}

struct Log<'a> {
    root: &'a Secret,
    chains: HashMap<String, Chain>,
    recent: VecDeque<[u8; 32]>,
    /// A line that is no record and that the next start must name.
    torn: Option<Torn>,
    found: Verified,
}

struct Chain {
    key: Hmac<Sha256>,
    seq: u64,
    prev: [u8; 32],
}

struct Torn {
    line: u64,
    ended: bool,
    digest: String,
}

#[derive(serde::Deserialize)]
struct Head {
    chain: String,
    seq: u64,
    kind: String,
    prev: String,
    after: Option<String>,
    torn: Option<String>,
}

impl Log<'_> {
    fn line(&mut self, line: u64, text: &[u8], ended: bool) -> Result<(), Fault> {
        let parts = split(text).zip(serde_json::from_slice::<Head>(text).ok()).filter(|_| ended);
        let Some(((signed, mac), head)) = parts else {
            if let Some(torn) = &self.torn {
                return Err(Fault::Foreign { line: torn.line });
            }
            self.torn = Some(Torn { line, ended, digest: digest(text) });
            return Ok(());
        };
        let begins = head.kind == "start";
        let mut chain = match self.chains.remove(&head.chain) {
            Some(chain) if !begins => chain,
            None if begins => Chain { key: segment_key(self.root, &head.chain), seq: 0, prev: NOTHING },
            // A start within its chain, or a chain without its start.
            Some(_) | None => return Err(Fault::Broken { line }),
        };
        if !bool::from(code(&chain.key, signed).ct_eq(&mac)) {
            return Err(Fault::Changed { line });
        }
        if head.seq != chain.seq || head.prev != hex(&chain.prev) {
            return Err(Fault::Broken { line });
        }
        if begins {
            self.begin(line, &head)?;
        } else if let Some(torn) = &self.torn {
            return Err(Fault::Foreign { line: torn.line });
        }
        chain.seq = chain.seq.saturating_add(1);
        chain.prev = mac;
        self.chains.insert(head.chain, chain);
        self.recent.push_back(mac);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.found.records = self.found.records.saturating_add(1);
        Ok(())
    }

    fn begin(&mut self, line: u64, head: &Head) -> Result<(), Fault> {
        if let Some(torn) = self.torn.take() {
            if head.torn.as_deref() != Some(torn.digest.as_str()) {
                return Err(Fault::Foreign { line: torn.line });
            }
            self.found.torn = self.found.torn.saturating_add(1);
        }
        let stood = match &head.after {
            Some(after) => self.recent.iter().any(|mac| hex(mac) == *after),
            // Two processes may find the file empty at the same time.
            None => self.recent.len() < RECENT,
        };
        if !stood {
            return Err(Fault::Broken { line });
        }
        self.found.chains = self.found.chains.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;
    use http::Method;

    use super::super::audit::Audit;
    use super::super::entry::{Action, Change, Intent};
    use super::*;
    use crate::clock::WallTime;
    use crate::id::{AgentName, ProfileId, RequestId};
    use crate::message::origin::Host;

    fn root() -> Arc<Secret> {
        Arc::new(Secret::new(vec![7; 32]))
    }

    fn intent(audit: &Audit, n: u64) {
        let (agent, profile) = (AgentName::parse("coder").unwrap(), ProfileId::parse("github:bot").unwrap());
        let host = Host::parse("api.github.com").unwrap();
        let witness = audit
            .intent(Intent {
                at: WallTime(1_764_036_000_000 + n),
                request_id: RequestId::new(n),
                agent: &agent,
                profile: &profile,
                version: 3,
                host: &host,
                port: 443,
                method: &Method::GET,
                path: "/repos/acme/x?q=1",
            })
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!(witness.profile(), &profile);
    }

    fn log(path: &Path) {
        // Two processes that write in turns, and one that comes later.
        let (a, b) = (open(path), open(path));
        for n in 0..4 {
            intent(&a, n);
            intent(&b, n);
        }
        let change = Change {
            at: WallTime(1_764_036_000_500),
            action: Action::SecretRotated,
            subject: "github:bot",
            actor: "cli",
            detail: None,
        };
        open(path).change(change).unwrap();
        intent(&a, 9);
    }

    fn open(path: &Path) -> Audit {
        Audit::open(path, root(), Arc::default()).unwrap()
    }

    #[test]
    fn what_was_written_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        log(&path);
        assert_eq!(verify(&path, &root()).unwrap(), Verified { records: 13, chains: 3, torn: 0 });
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert!(!text.contains("/repos"), "a path stands as a hash only");
        let other = Secret::new(vec![8; 32]);
        assert!(matches!(verify(&path, &other), Err(Fault::Changed { line: 1 })));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        log(&path);
        let sound = std::fs::read(&path).unwrap();
        // A stride that shares no factor with the lines' length walks through all parts of a record.
        for at in (0..sound.len()).step_by(17).chain([sound.len() - 1]) {
            let mut bad = sound.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            // The very last line feed is the one byte whose loss looks like a crash.
            let found = verify(&path, &root());
            assert!(found.is_err() || at + 1 == sound.len() && found.unwrap().torn == 1, "byte {at}");
        }
    }

    #[test]
    fn a_line_deleted_doubled_or_moved_within_its_chain_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        log(&path);
        let sound = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = sound.lines().collect();
        let chain = |line: &str| serde_json::from_str::<Head>(line).unwrap().chain;
        let refused = |lines: &[&str]| {
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            verify(&path, &root()).is_err()
        };
        for at in 0..lines.len() {
            let mut bad = lines.clone();
            bad.remove(at);
            let last_of_chain = !lines[at + 1..].iter().any(|line| chain(line) == chain(lines[at]));
            let named = lines[at + 1..].iter().any(|line| {
                serde_json::from_str::<Head>(line).unwrap().after.is_some_and(|after| lines[at].contains(&after))
            });
            assert_eq!(refused(&bad), !last_of_chain || named, "line {at} deleted");
            let mut bad = lines.clone();
            bad.insert(at, lines[at]);
            assert!(refused(&bad), "line {at} doubled");
            let mut bad = lines.clone();
            bad.insert(at, "");
            assert!(refused(&bad), "an empty line before {at}");
            for other in at + 1..lines.len() {
                if chain(lines[at]) == chain(lines[other]) {
                    let mut bad = lines.clone();
                    bad.swap(at, other);
                    assert!(refused(&bad), "lines {at} and {other} swapped");
                }
            }
        }
    }

    #[test]
    fn a_record_that_a_crash_cut_off_is_named_and_no_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        log(&path);
        let mut torn = std::fs::read(&path).unwrap();
        torn.truncate(torn.len() - 40);
        std::fs::write(&path, &torn).unwrap();
        assert_eq!(verify(&path, &root()).unwrap(), Verified { records: 12, chains: 3, torn: 1 });
        intent(&open(&path), 20);
        assert_eq!(verify(&path, &root()).unwrap(), Verified { records: 14, chains: 4, torn: 1 });
        // The same rest in another place was put there.
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(11, 12);
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert!(verify(&path, &root()).is_err());
    }

    #[test]
    fn an_empty_log_is_sound_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        assert!(matches!(verify(&path, &root()), Err(Fault::Unreadable(_))));
        open(&path);
        assert_eq!(verify(&path, &root()).unwrap(), Verified::default());
        std::fs::write(&path, "no record\n").unwrap();
        assert!(matches!(verify(&path, &root()), Err(Fault::Foreign { line: 1 })));
    }
}
