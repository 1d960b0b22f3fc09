//! The program's own messages, on standard error.
//!
//! Invariant: every message passes the redactor before it is written, whatever crate it comes from and at whatever
//! level.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use tracing::Subscriber;
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
    let subscriber = subscriber(filter, format, redactor, Ansi(io::stderr().is_terminal()), io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TraceError::Twice)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// Whether to colour.
struct Ansi(bool);

fn subscriber<W, F>(
    filter: &str,
    format: Format,
    redactor: Arc<Redactor>,
    ansi: Ansi,
    out: F,
) -> Result<Box<dyn Subscriber + Send + Sync>, TraceError>
where
    W: Write + 'static,
    F: Fn() -> W + Send + Sync + 'static,
{
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TraceError::Filter { text: redactor.redact(filter).into_owned(), source })?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(ansi.0).with_writer(Redacting { redactor, out });
    Ok(match format {
        Format::Text => Box::new(builder.finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
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

#[cfg(test)]
pub(super) mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// What `act` makes the subscriber write.
    pub(in crate::telemetry) fn capture(
        filter: &str,
        format: Format,
        redactor: Arc<Redactor>,
        act: impl FnOnce(),
    ) -> String {
        #[derive(Clone, Default)]
        struct Out(Arc<Mutex<Vec<u8>>>);
        impl Write for Out {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Out::default();
        let theirs = out.clone();
        let subscriber = subscriber(filter, format, redactor, Ansi(false), move || theirs.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = out.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    const CHILD: &str = "KEYFERRY_TEST_PANIC_TEXT";

    #[test]
    fn a_filter_that_does_not_read_is_refused() {
        assert!(matches!(init("keyferry=nonsense", Format::Text, Arc::default()), Err(TraceError::Filter { .. })));
        assert_eq!(default_filter("debug"), "warn,keyferry=debug");
    }

    #[test]
    #[ignore = "the child of a_panic_tells_its_place_only"]
    fn panics_with_a_secret() {
        // EX-19
        init("trace", Format::Json, Arc::default()).unwrap();
        panic!("{}", std::env::var(CHILD).unwrap());
    }

    #[test]
    fn a_panic_tells_its_place_only() {
        // EX-19
        let mut random = [0u8; 12];
        getrandom::fill(&mut random).unwrap();
        let secret = format!("canary {random:?}");
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "telemetry::trace::tests::panics_with_a_secret"])
            .env(CHILD, &secret)
            .env("RUST_BACKTRACE", "full")
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(!output.status.success());
        assert!(shown.contains("a defect in keyferry: panicked") && shown.contains("trace.rs"), "{shown}");
        assert!(!shown.contains(&secret), "{shown}");
    }
}
