//! Where a secret's value comes from, and what is asked of a person.
//!
//! Invariant: a value never comes from an argument, is never echoed or quoted in an error, and is in memory that is
//! overwritten.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use super::context::Context;
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

/// The most that a value may hold. A field of an HTTP message is refused by most servers far below.
pub const VALUE_LIMIT: usize = 64 * 1024;

/// Reads the value of `name`.
///
/// # Errors
/// When there is none, or when it cannot be a secret's value; the text says where, never what.
pub fn value(context: &mut Context, name: &str, origin: &Origin) -> Outcome<Secret> {
    let bytes = match origin {
        Origin::Stdin => read_all(io::stdin().lock(), "stdin")?,
        Origin::Usual if !io::stdin().is_terminal() => read_all(io::stdin().lock(), "stdin")?,
        Origin::Usual => ask_hidden(context, name)?,
        Origin::Variable(variable) => match context.variable(variable) {
            Some(value) => Zeroizing::new(OsString::from(value).into_encoded_bytes()),
            None => return Err(Failure::new(format!("the variable {variable} is not set, or empty"))),
        },
        Origin::File(path) => read_all(open(path)?, &path.display().to_string())?,
    };
    checked(bytes).map_err(|what| {
        let what = what.to_string();
        Failure::new(format!("the value of {name} {what}; nothing was stored"))
            .hint("a value is one line; one line end after it is cut")
    })
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
    context.output.ask(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().take(64).read_line(&mut answer).map_err(|error| Failure::new(error.to_string()))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Why bytes cannot be a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum ValueFault {
    #[error("is empty")]
    Empty,
    #[error("has more than one line")]
    Lines,
    #[error("holds a control character")]
    Control,
    #[error("is larger than 64 KiB")]
    TooLarge,
}

/// Cuts one line end, and refuses what no provider's field can carry.
fn checked(mut bytes: Zeroizing<Vec<u8>>) -> Result<Secret, ValueFault> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(ValueFault::Empty);
    }
    if bytes.len() > VALUE_LIMIT {
        return Err(ValueFault::TooLarge);
    }
    if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(ValueFault::Lines);
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(ValueFault::Control);
    }
    Ok(Secret::new(std::mem::take(&mut *bytes)))
}

fn ask_hidden(context: &Context, name: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    if context.global.no_input {
        return Err(Failure::usage(format!("there is no value for {name}, and --no-input forbids to ask"))
            .hint("pipe it in, or use --from-env VAR or --from-file F"));
    }
    let answer = rpassword::prompt_password(format!("Value of {name} (not shown): "));
    answer.map(|text| Zeroizing::new(text.into_bytes())).map_err(|error| {
        Failure::new(format!("the value could not be asked for: {error}"))
            .hint("pipe it in, or use --from-env VAR or --from-file F")
    })
}

fn open(path: &Path) -> Outcome<File> {
    File::open(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

fn read_all(reader: impl io::Read, what: &str) -> Outcome<Zeroizing<Vec<u8>>> {
    // One allocation: a vector that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(VALUE_LIMIT + 64));
    let read = reader.take(VALUE_LIMIT as u64 + 8).read_to_end(&mut bytes);
    read.map_err(|error| {
        bytes.zeroize();
        Failure::new(format!("{what} could not be read: {error}"))
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_cut_and_more_is_refused() {
        let cases: &[(&[u8], Result<&[u8], ValueFault>)] = &[
            (b"value", Ok(b"value")),
            (b"value\n", Ok(b"value")),
            (b"value\r\n", Ok(b"value")),
            (b" v w \n", Ok(b" v w ")),
            (b"value\n\n", Err(ValueFault::Lines)),
            (b"a\nb", Err(ValueFault::Lines)),
            (b"a\rb", Err(ValueFault::Lines)),
            (b"a\0b", Err(ValueFault::Control)),
            (b"a\tb", Err(ValueFault::Control)),
            (b"", Err(ValueFault::Empty)),
            (b"\n", Err(ValueFault::Empty)),
        ];
        for (input, wanted) in cases {
            let read = checked(Zeroizing::new(input.to_vec()));
            match (read, wanted) {
                (Ok(secret), Ok(wanted)) => assert!(secret.matches(wanted), "{input:?}"),
                (Err(fault), Err(wanted)) => assert_eq!(fault, *wanted, "{input:?}"),
                (read, _) => panic!("{input:?}: {read:?}"),
            }
        }
        assert_eq!(checked(Zeroizing::new(vec![b'x'; VALUE_LIMIT + 1])).unwrap_err(), ValueFault::TooLarge);
    }
}
