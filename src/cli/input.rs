//! Where a secret's value comes from, and what is asked of a person.
//!
//! Invariant: a value never comes from an argument, is never echoed or quoted in an error, and is in memory that is
//! overwritten.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::context::Context;
use super::hidden;
use super::output::{Failure, Outcome};
use crate::secret::Secret;

/// Where to take a value from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A hidden prompt where stdin is a terminal, else stdin.
    Usual,
    /// Stdin, asked for with `-`.
    Stdin,
    /// A variable of the caller's.
    Variable(String),
    /// A file.
    File(PathBuf),
}

/// The most that is read of a value; the vault's own limit is below.
const READ_LIMIT: usize = 64 * 1024;

/// Reads the value of `name`, as it comes: the vault judges it and cuts its line end.
///
/// # Errors
/// When there is none; the text says where it was looked for.
pub fn value(context: &mut Context, name: &str, origin: &Origin) -> Outcome<Secret> {
    let mut bytes = match origin {
        Origin::Stdin => read_all(io::stdin().lock(), "stdin")?,
        Origin::Usual if !io::stdin().is_terminal() => read_all(io::stdin().lock(), "stdin")?,
        Origin::Usual => ask_hidden(context, name)?,
        Origin::Variable(variable) => match context.variable(variable) {
            Some(value) => Zeroizing::new(value.as_encoded_bytes().to_vec()),
            None => return Err(Failure::new(format!("the variable {variable} is not set, or empty"))),
        },
        Origin::File(path) => read_all(open(path)?, &path.display().to_string())?,
    };
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

/// What was piped in, if anything: nobody is asked, and nothing at all is not a value.
///
/// # Errors
/// When stdin cannot be read.
pub fn piped() -> Outcome<Option<Secret>> {
    if io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut bytes = read_all(io::stdin().lock(), "stdin")?;
    let empty = matches!(bytes.as_slice(), b"" | b"\n" | b"\r\n");
    Ok(if empty { None } else { Some(Secret::new(std::mem::take(&mut *bytes))) })
}

/// Asks for one line, shown as it is typed. None where nobody can be asked.
///
/// # Errors
/// When the terminal cannot be read.
pub fn line(context: &mut Context, question: &str) -> Outcome<Option<String>> {
    if context.global.no_input || !io::stdin().is_terminal() {
        return Ok(None);
    }
    context.output.ask(question);
    let mut answer = String::new();
    io::stdin().lock().take(1024).read_line(&mut answer).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty()))
}

/// Asks a question whose answer is yes or no.
///
/// # Errors
/// When nobody can be asked.
pub fn confirm(context: &mut Context, question: &str, yes: bool) -> Outcome<bool> {
    if yes {
        return Ok(true);
    }
    if context.global.no_input || !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} There is nobody to ask")).hint("say so with --yes"));
    }
    let answer = line(context, &format!("{question} [y/N]"))?.unwrap_or_default();
    Ok(matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn ask_hidden(context: &Context, name: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    if context.global.no_input {
        return Err(Failure::usage(format!("there is no value for {name}, and --no-input forbids to ask"))
            .hint("pipe it in, or use --from-env VAR or --from-file F"));
    }
    hidden::ask(&format!("Value of {name} (not shown): ")).map_err(|error| {
        Failure::new(format!("the value could not be asked for: {error}"))
            .hint("pipe it in, or use --from-env VAR or --from-file F")
    })
}

fn open(path: &Path) -> Outcome<File> {
    File::open(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn read_all(reader: impl io::Read, what: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    // One allocation: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_LIMIT + 64));
    let read = reader.take(READ_LIMIT as u64).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(format!("{what} could not be read: {error}")))?;
    Ok(bytes)
}
