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

/// How long lines are gathered, so that a busy proxy wakes the writer a hundred times a second and not for each line.
const GATHER: Duration = Duration::from_millis(10);

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
    /// There is a first line.
    work: Condvar,
    /// Gathering should end early.
    hurry: Condvar,
    /// A batch is written.
    settled: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    idle: bool,
    writing: bool,
    /// How many wait for everything to be written.
    flushing: usize,
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
        let idle = std::mem::take(&mut state.idle);
        let full = state.pending.len() > PENDING / 2;
        drop(state);
        if idle {
            self.shared.work.notify_one();
        } else if full {
            self.shared.hurry.notify_one();
        }
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
        state.flushing = state.flushing.saturating_add(1);
        self.shared.hurry.notify_one();
        let mut in_time = true;
        while state.writing || !state.pending.is_empty() {
            if !in_time {
                break;
            }
            match deadline {
                Some(deadline) => in_time = !self.shared.settled.wait_until(&mut state, deadline).timed_out(),
                None => self.shared.settled.wait(&mut state),
            }
        }
        let written = !state.writing && state.pending.is_empty();
        state.flushing = state.flushing.saturating_sub(1);
        written
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.work.notify_one();
        self.shared.hurry.notify_one();
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
                state.idle = true;
                self.work.wait(&mut state);
            }
            state.idle = false;
            let gathered = Instant::now().checked_add(GATHER);
            while !state.closed && state.flushing == 0 && state.pending.len() <= PENDING / 2 {
                let Some(gathered) = gathered else { break };
                if self.hurry.wait_until(&mut state, gathered).timed_out() {
                    break;
                }
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_stuck_place_costs_lines_but_neither_time_nor_memory() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sink = Sink::start("stuck", Box::new(Copy(ours))).unwrap();
        let line = "x".repeat(999);
        for _ in 0..10_000 {
            sink.add(&line);
        }
        assert!(sink.lost() > 0);
        assert!(sink.shared.state.lock().pending.capacity() <= 2 * PENDING);
        assert!(!sink.flush(Duration::ZERO));
        // What was not lost arrives whole once somebody reads.
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).unwrap();
            all
        });
        assert!(sink.flush(LONG));
        let lost = usize::try_from(sink.lost()).unwrap();
        drop(sink);
        let all = reader.join().unwrap();
        assert_eq!(all.lines().count(), 10_000 - lost);
        assert!(all.lines().all(|got| got == line));
    }

    #[test]
    fn what_was_added_is_written_before_the_handle_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sink = Sink::start("drop", Box::new(LogFile::open(&path).unwrap())).unwrap();
        sink.add("one");
        sink.add("two");
        drop(sink);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let sink = Sink::start("moved", Box::new(LogFile::open(&path).unwrap())).unwrap();
        for step in ["one", "two", "three"] {
            sink.add(step);
            assert!(sink.flush(LONG));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{step}\n"));
            std::fs::rename(&path, &moved).unwrap();
        }
        assert_eq!(sink.lost(), 0);
    }

    #[test]
    fn a_failing_file_costs_lines_until_it_can_be_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let sink = Sink::start("fails", Box::new(LogFile::open(&path).unwrap())).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        sink.add("lost");
        assert!(sink.flush(LONG));
        assert_eq!(sink.lost(), 1);
        std::fs::remove_dir(&path).unwrap();
        sink.add("kept");
        assert!(sink.flush(LONG));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("kept\n"));
    }

    #[test]
    fn only_a_regular_file_of_ours_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::write(&target, "").unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for bad in [link.as_path(), pipe.as_path(), dir.path(), Path::new("/dev/null")] {
            assert!(append_to(bad).is_err(), "{}", bad.display());
        }
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).unwrap();
        append_to(&target).unwrap();
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
