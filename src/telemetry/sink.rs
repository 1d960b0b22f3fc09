//! A place that lines are written to by a thread of its own.
//!
//! Invariant: adding a line never waits for the place, and what waits to be written is bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What may wait: about 4,000 lines of the usual length, seconds of a busy proxy.
const PENDING: usize = 2 << 20;

/// Where the bytes go.
pub(super) trait Target: Send {
    /// Writes whole lines.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// The handle of one writer thread. The thread ends when the handle is dropped.
pub(super) struct Sink {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
    closed: bool,
    lost: u64,
}

impl Sink {
    /// Starts the writer.
    pub(super) fn start(name: &str, mut target: Box<dyn Target>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || theirs.run(target.as_mut()))?;
        Ok(Self { shared })
    }

    /// Adds one line with its line feed. When too much waits, the line is counted as lost.
    pub(super) fn add(&self, line: &str) {
        let mut state = self.shared.state.lock();
        if state.pending.len().saturating_add(line.len()).saturating_add(1) > PENDING {
            state.lost = state.lost.saturating_add(1);
            return;
        }
        state.pending.extend_from_slice(line.as_bytes());
        state.pending.push(b'\n');
        drop(state);
        self.shared.work.notify_one();
    }

    /// How many lines never reached the place.
    pub(super) fn lost(&self) -> u64 {
        self.shared.state.lock().lost
    }

    /// Waits until everything added so far is written, at most for `limit`. Whether it was.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        // A limit too long to be a time means: as long as it takes.
        let deadline = Instant::now().checked_add(limit);
        let mut state = self.shared.state.lock();
        while state.writing || !state.pending.is_empty() {
            match deadline {
                Some(deadline) if self.shared.settled.wait_until(&mut state, deadline).timed_out() => return false,
                Some(_) => {}
                None => self.shared.settled.wait(&mut state),
            }
        }
        true
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_one();
        // A writer that is stuck in the place is left behind; the process does not wait for it.
        self.flush(Duration::from_secs(2));
    }
}

impl Shared {
    fn run(&self, target: &mut dyn Target) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.state.lock();
            while state.pending.is_empty() {
                if state.closed {
                    return;
                }
                self.work.wait(&mut state);
            }
            std::mem::swap(&mut state.pending, &mut batch);
            state.writing = true;
            drop(state);
            let written = target.write(&batch);
            let mut state = self.state.lock();
            if written.is_err() {
                let lines = memchr::memchr_iter(b'\n', &batch).count();
                state.lost = state.lost.saturating_add(u64::try_from(lines).unwrap_or(u64::MAX));
            }
            state.writing = false;
            drop(state);
            self.settled.notify_all();
            batch.clear();
            // A burst is over; its memory goes back.
            batch.shrink_to(64 << 10);
        }
    }
}

/// Any writer, for the copy on standard output.
pub(super) struct Copy<W>(pub(super) W);

impl<W: Write + Send> Target for Copy<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.write_all(lines)?;
        self.0.flush()
    }
}

/// A file that is opened again after a failure, or when it was moved away.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    torn: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Some(append_to(path)?), torn: false })
    }
}

impl Target for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let file = match self.file.take().filter(|file| is_at(file, &self.path)) {
            Some(file) => file,
            None => append_to(&self.path)?,
        };
        let mut file = file;
        if std::mem::take(&mut self.torn) {
            file.write_all(b"\n")?;
        }
        match file.write_all(lines) {
            Ok(()) => {
                self.file = Some(file);
                Ok(())
            }
            Err(fault) => {
                // A part of a line may stand there; the next one must not grow onto it.
                self.torn = true;
                Err(fault)
            }
        }
    }
}

/// Opens a regular file of ours for appending, readable by its owner only.
pub(super) fn append_to(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, a named pipe in the file's place would hold us here.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if facts.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Whether `file` is still what stands at `path`: rotation moves it, and a hostile hand may delete it.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}
