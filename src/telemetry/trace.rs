//! The program's own messages, on standard error.
//!
//! Invariant: every message passes the redactor before it is written, whatever crate it comes from and at whatever
//! level.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::scrub::Redactor;

/// How messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why messages could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The filter does not read.
    #[error("the log filter {text:?} is not valid: {source}")]
    Filter {
        /// The filter as given.
        text: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Set up twice.
    #[error("messages are set up already")]
    Twice,
}

/// The environment variable that holds a filter, such as `debug` or `keyferry=debug,hyper=info`.
pub const VARIABLE: &str = "KEYFERRY_LOG";

/// What is shown without a filter: our own messages from `level` on, warnings of others.
#[must_use]
pub fn default_filter(level: &str) -> String {
    format!("warn,keyferry={level}")
}

/// Sends messages that pass `filter` to standard error, and panics as messages without their text.
///
/// # Errors
/// [`TraceError`] for a filter that does not read, or when called twice.
pub fn init(filter: &str, format: Format, redactor: Arc<Redactor>) -> Result<(), TraceError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TraceError::Filter { text: redactor.redact(filter).into_owned(), source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Redacting { redactor, out: io::stderr });
    let set = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| TraceError::Twice)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// A panic's text may hold whatever the code was working on, so only its place is told.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    match panic.location() {
        Some(place) => tracing::error!(file = place.file(), line = place.line(), "a defect in keyferry: panicked"),
        None => tracing::error!("a defect in keyferry: panicked"),
    }
}

/// Makes writers that redact.
struct Redacting<F> {
    redactor: Arc<Redactor>,
    out: F,
}

/// Takes one whole message.
struct Message<'a, W> {
    redactor: &'a Redactor,
    out: W,
}

impl<'a, W: Write, F: Fn() -> W + 'a> MakeWriter<'a> for Redacting<F> {
    type Writer = Message<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        Message { redactor: &self.redactor, out: (self.out)() }
    }
}

impl<W: Write> Write for Message<'_, W> {
    // The subscriber formats a message as a whole and hands it over in one call, so no secret is cut in two.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        self.out.write_all(self.redactor.redact(&text).as_bytes())?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
