//! The access log.
//!
//! Invariant: an exchange never waits for the disk or for whoever reads standard output.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::sink::{Copy, LogFile, Sink};

/// Where access lines go: a file, a copy, both or neither.
#[derive(Default)]
pub struct AccessLog {
    sinks: Vec<Sink>,
}

impl AccessLog {
    /// Writes to nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Also appends to the regular file at `path`, which is made with mode 0600 where there is none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn with_file(mut self, path: &Path) -> io::Result<Self> {
        self.sinks.push(Sink::start("keyferry-access", Box::new(LogFile::open(path)?))?);
        Ok(self)
    }

    /// Also writes a copy to `out`, standard output say.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn with_copy(mut self, out: impl Write + Send + 'static) -> io::Result<Self> {
        self.sinks.push(Sink::start("keyferry-stdout", Box::new(Copy(out)))?);
        Ok(self)
    }

    /// Whether there is any place to write to.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Adds a line (without its line feed) to every place.
    pub fn add(&self, line: &str) {
        for sink in &self.sinks {
            sink.add(line);
        }
    }

    /// How many lines were lost because a place was stuck or failed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sinks.iter().map(Sink::lost).fold(0, u64::saturating_add)
    }

    /// Waits until every line added so far is written, at most for `limit` at each place. Whether all were.
    pub fn flush(&self, limit: Duration) -> bool {
        // One that is stuck must not keep the others from being waited for.
        self.sinks.iter().filter(|sink| !sink.flush(limit)).count() == 0
    }
}
