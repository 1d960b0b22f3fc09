//! The only place that prints: data to stdout, everything said to a person to stderr.
//!
//! Invariant: no colour where a stream is no terminal (unless the caller insists), no panic and no message when a
//! reader has gone away, and no text from outside reaches a terminal with its control characters.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    /// What a person wants to know.
    Usual,
    /// Errors and warnings only.
    Quiet,
}

/// In which form data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The exit code of a command that was given wrongly.
pub const USAGE: u8 = 2;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// What happened, one line or several.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// What the program ends with.
    pub code: u8,
    /// Whether anything is to be printed: not when the command has said it already.
    pub said: bool,
}

impl Failure {
    /// A failure or finding: exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1, said: false }
    }

    /// The command was given wrongly: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).code(USAGE)
    }

    /// Part of the contract that is not built.
    pub fn not_yet(what: &str) -> Self {
        Self::new(format!("{what} is not available yet"))
    }

    /// Everything was said already; only the exit code is left.
    pub fn silent(code: u8) -> Self {
        Self { message: String::new(), hint: None, code, said: true }
    }

    /// With another exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what to do about it, where something is known.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.hint = hint.map(Into::into).or(self.hint);
        self
    }
}

/// What a command ends with.
pub type Outcome<T = ()> = Result<T, Failure>;

/// The two streams, and how to write to them.
pub struct Output {
    out: Stream,
    err: Stream,
    talk: Talk,
    form: Form,
}

struct Stream {
    to: Box<dyn Write + Send>,
    colour: bool,
    terminal: bool,
}

impl Output {
    /// The process's own streams. `variable` looks a variable up: `NO_COLOR`, `CLICOLOR_FORCE`, `TERM`.
    #[must_use]
    pub fn of_process(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let stream = |to: Box<dyn Write + Send>, terminal| Stream { to, terminal, colour: colour(variable, terminal) };
        Self {
            out: stream(Box::new(io::stdout()), io::stdout().is_terminal()),
            err: stream(Box::new(io::stderr()), io::stderr().is_terminal()),
            talk: Talk::Usual,
            form: Form::Text,
        }
    }

    /// Other streams, neither of them a terminal.
    #[cfg(test)]
    pub fn with_streams(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        let stream = |to| Stream { to, terminal: false, colour: false };
        Self { out: stream(out), err: stream(err), talk: Talk::Usual, form: Form::Text }
    }

    /// Takes the caller's wishes.
    pub fn set(&mut self, talk: Talk, form: Form) {
        self.talk = talk;
        self.form = form;
    }

    /// Whether data is written as JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Writes data to stdout as it is, with a line end if it has none.
    ///
    /// # Errors
    /// Ends the command: quietly when the reader has gone, else with the reason.
    pub fn data(&mut self, text: &str) -> Outcome {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        delivered(write!(self.out.to, "{text}{end}").and_then(|()| self.out.to.flush()))
    }

    /// Writes bytes to stdout as they are.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        delivered(self.out.to.write_all(bytes).and_then(|()| self.out.to.flush()))
    }

    /// Writes a value to stdout as JSON.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn json(&mut self, value: &impl Serialize) -> Outcome {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(error.to_string()))?;
        self.data(&text)
    }

    /// Writes rows to stdout in columns; on a terminal they are wrapped to its width.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn table(&mut self, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Outcome {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.out.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(headings.iter().map(|text| text.to_uppercase()).collect::<Vec<_>>());
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell).into_owned()).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        self.data(&text)
    }

    /// Writes names and their values to stdout, one pair per line.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn fields(&mut self, rows: &[(&str, String)]) -> Outcome {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| format!("{name:width$}  {}\n", printable(value));
        self.data(&rows.iter().map(line).collect::<String>())
    }

    /// Says something to the person, unless quiet.
    pub fn say(&mut self, text: &str) {
        if self.talk == Talk::Usual {
            self.line(None, text);
        }
    }

    /// Says that something worked.
    pub fn done(&mut self, text: &str) {
        if self.talk == Talk::Usual {
            self.line(Some(("✓", AnsiColor::Green)), text);
        }
    }

    /// Says what to do next, unless quiet.
    pub fn next(&mut self, text: &str) {
        if self.talk == Talk::Usual {
            self.line(Some(("hint:", AnsiColor::Cyan)), text);
        }
    }

    /// Asks a person, on the same line.
    pub fn ask(&mut self, question: &str) {
        let _ = write!(self.err.to, "{} ", printable(question)).and_then(|()| self.err.to.flush());
    }

    /// Warns, even when quiet.
    pub fn warn(&mut self, text: &str) {
        self.line(Some(("warning:", AnsiColor::Yellow)), text);
    }

    /// Says what happened and what to do.
    pub fn failure(&mut self, failure: &Failure) {
        if failure.said {
            return;
        }
        self.line(Some(("error:", AnsiColor::Red)), &failure.message);
        if let Some(hint) = &failure.hint {
            self.line(Some(("hint:", AnsiColor::Cyan)), hint);
        }
    }

    /// Prints what the argument parser has to say, help included: `text` with its colours.
    pub fn parser(&mut self, error: &clap::Error, text: &str) {
        if error.use_stderr() { self.err.styled(text) } else { self.out.styled(text) }
    }

    /// Prints a help that was not asked for.
    pub fn help(&mut self, text: &str) {
        self.err.styled(text);
    }

    fn line(&mut self, mark: Option<(&str, AnsiColor)>, text: &str) {
        let text = printable(text);
        // A reader of stderr that has gone away is no reason to stop.
        let _ = match mark {
            Some((mark, colour)) if self.err.colour => {
                let style = Style::new().bold().fg_color(Some(colour.into()));
                writeln!(self.err.to, "{style}{mark}{style:#} {text}")
            }
            Some((mark, _)) => writeln!(self.err.to, "{mark} {text}"),
            None => writeln!(self.err.to, "{text}"),
        };
    }
}

impl Stream {
    fn styled(&mut self, text: &str) {
        let plain = anstream::adapter::strip_str(text);
        let written = if self.colour { write!(self.to, "{text}") } else { write!(self.to, "{plain}") };
        // There is nobody to tell.
        let _ = written.and_then(|()| self.to.flush());
    }
}

/// `NO_COLOR` wins over `CLICOLOR_FORCE`, and both over the terminal.
fn colour(variable: &dyn Fn(&str) -> Option<OsString>, terminal: bool) -> bool {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    terminal && set("TERM").is_none_or(|term| term != "dumb") && set("CLICOLOR").is_none_or(|value| value != "0")
}

fn delivered(result: io::Result<()>) -> Outcome {
    result.map_err(|error| match error.kind() {
        // `keyferry .. | head` has what it wanted.
        io::ErrorKind::BrokenPipe => Failure::silent(0),
        _ => Failure::new(format!("writing to stdout failed: {error}")),
    })
}

/// Text without the characters that steer a terminal; line breaks stay.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.contains(steers) {
        text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Shared, Shared) {
        let (out, err) = (Shared::default(), Shared::default());
        (Output::with_streams(Box::new(out.clone()), Box::new(err.clone())), out, err)
    }

    #[test]
    fn data_and_messages_never_share_a_stream() {
        let (mut output, out, err) = output();
        output.data("value").unwrap();
        output.say("stored");
        output.failure(&Failure::new("no such thing").hint("look: keyferry secret list"));
        assert_eq!(out.text(), "value\n");
        assert_eq!(err.text(), "stored\nerror: no such thing\nhint: look: keyferry secret list\n");
    }

    #[test]
    fn quiet_keeps_warnings_and_errors() {
        let (mut output, _, err) = output();
        output.set(Talk::Quiet, Form::Text);
        output.say("a");
        output.done("b");
        output.next("c");
        output.warn("d");
        assert_eq!(err.text(), "warning: d\n");
    }

    #[test]
    fn a_table_off_a_terminal_has_one_line_per_row_and_no_escape() {
        let (mut output, out, _) = output();
        let long = "x".repeat(300);
        output
            .table(&["name", "value"], [vec!["a".into(), long.clone()], vec!["bcd\x1b[31m".into(), "y".into()]])
            .unwrap();
        let text = out.text();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().next(), Some("NAME      VALUE"));
        assert!(text.contains(&long) && !text.contains('\x1b'));
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_command_without_a_word() {
        let mut output = Output::with_streams(Box::new(Gone), Box::new(Gone));
        let failure = output.data("x").unwrap_err();
        assert!(failure.said);
        assert_eq!(failure.code, 0);
        output.failure(&Failure::new("x"));
    }

    #[test]
    fn colour_follows_the_terminal_and_the_callers_wish() {
        type Case<'a> = (&'a [(&'a str, &'a str)], bool, bool);
        let cases: &[Case] = &[
            (&[], true, true),
            (&[], false, false),
            (&[("NO_COLOR", "1")], true, false),
            (&[("NO_COLOR", "")], true, true),
            (&[("CLICOLOR_FORCE", "1")], false, true),
            (&[("CLICOLOR_FORCE", "0")], false, false),
            (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true, false),
            (&[("TERM", "dumb")], true, false),
        ];
        for (variables, terminal, wanted) in cases {
            let look =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
            assert_eq!(colour(&look, *terminal), *wanted, "{variables:?} {terminal}");
        }
    }
}
