//! One chain of records in the audit log's file.
//!
//! Invariant: a chain goes on only behind a record that was written whole; after any failure a new one begins.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::json::Line;
use super::record::Millis;
use super::sink::{append_to, is_at};
use crate::clock::WallTime;
use crate::secret::Secret;

pub(super) type Code = Hmac<Sha256>;

/// What precedes the code at the end of every line.
pub(super) const MAC: &str = ",\"mac\":\"";

/// Stands where no record came before.
pub(super) const NOTHING: [u8; 32] = [0; 32];

/// How often to look whether the file still stands at its path: seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(100);

/// The chain that a process is writing.
pub(super) struct Segment {
    file: Arc<File>,
    chain: String,
    key: Code,
    seq: u64,
    prev: [u8; 32],
    looked: WallTime,
}

impl Segment {
    /// Begins a chain, and writes its first record.
    pub(super) fn begin(path: &Path, root: &Secret, at: WallTime) -> io::Result<Self> {
        let mut file = append_to(path)?;
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let chain = hex(&random);
        let tail = Tail::read(&mut file)?;
        let key = segment_key(root, &chain);
        let mut segment = Self { file: Arc::new(file), chain, key, seq: 0, prev: NOTHING, looked: at };
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
    pub(super) fn in_place(mut self, path: &Path, now: WallTime) -> Option<Self> {
        // A clock that was set back counts as time passed.
        if now >= self.looked && now.since(self.looked) < LOOK {
            return Some(self);
        }
        self.looked = now;
        is_at(&self.file, path).then_some(self)
    }

    /// The file that is written to.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn write(
        &mut self,
        at: WallTime,
        kind: &str,
        lead: &str,
        fill: impl FnOnce(&mut Line),
    ) -> io::Result<()> {
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
        let written = (&*self.file).write(text.as_bytes())?;
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
    keyed(&code(&keyed(root.expose()), format!("keyferry/audit segment v1 {chain}").as_bytes()))
}

/// The key of the hashes that stand for paths.
pub(super) fn path_key(root: &Secret) -> Code {
    keyed(&code(&keyed(root.expose()), b"keyferry/audit path v1"))
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
