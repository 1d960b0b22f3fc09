//! The command line: one file per command group, and the only code that prints.
//!
//! Invariant: a command returns what it ends with; nothing in here ends the process or writes past [`Output`].

mod args;
mod context;
mod explain;
mod input;
mod output;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _};

use self::args::{Cli, Command};
use self::context::Context;
use self::output::{Failure, Form, Outcome, Output, Talk};
use crate::launch::child;

/// Runs the command that `arguments` name, the program's own name first, and returns the exit code.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> u8 {
    let variable = |name: &str| std::env::var_os(name);
    let mut output = Output::of_process(&variable);
    if let Some((_, step)) = arguments.split_first()
        && let Some((first, rest)) = step.split_first()
        && *first == *child::ENTER
    {
        let (code, text) = child::enter(rest);
        output.failure(&Failure::new(text).code(code));
        return code;
    }
    // The caller's environment may hold keys: the processes of the same user must not read it out of /proc, and no
    // core dump may hold it. A command that is started is not affected, and an old kernel's refusal is no error.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let text = without_values(&error.render().ansi().to_string(), &arguments);
            output.parser(&error, &text);
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let talk = if cli.global.quiet { Talk::Quiet } else { Talk::Usual };
    let form = if cli.global.json { Form::Json } else { Form::Text };
    output.set(talk, form);
    let for_run = matches!(cli.command, Command::Run(_));
    let ended = Context::new(cli.global, output).map_err(|(failure, output)| (failure, output));
    let (result, mut output) = match ended {
        Ok(mut context) => (dispatch(cli.command, &mut context), context.output),
        Err((failure, output)) => (Err(failure), output),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            // `run` passes a child's codes through, so its own failure has one that no child uses.
            if for_run && !failure.said { child::OUR_FAILURE } else { failure.code }
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

fn dispatch(command: Command, context: &mut Context) -> Outcome<u8> {
    match command {
        Command::Explain(explain) => explain::explain(explain.code.as_deref(), context),
        Command::Completion(completion) => explain::completion(completion.shell, context),
        Command::Version => explain::version(context),
        Command::Setup(_) => later("setup"),
        Command::Doctor(_) => later("doctor"),
        Command::Logs(_) => later("logs"),
        Command::Top(_) => later("top"),
        Command::Why(_) => later("why"),
        Command::Reload(_) => later("reload"),
        Command::Vault(_) => later("vault"),
        Command::Audit(_) => later("audit"),
        Command::Admin(_) => later("admin"),
        Command::Redact(_) => later("redact"),
        Command::Scan(_) => later("scan"),
        Command::Dashboard(_) => later("dashboard"),
        Command::Login(_) => later("login"),
        Command::Verify(_) => later("verify"),
        Command::Man(_) => later("man"),
        Command::Enroll(_) => later("enroll"),
        _ => later("this"),
    }
    .map(|()| 0)
}

fn later<T>(command: &str) -> Outcome<T> {
    Err(Failure::not_yet(&format!("keyferry {command}")))
}

/// A parser's message without the longer arguments that it quotes: one of them may be a key, typed in the wrong
/// place.
fn without_values(text: &str, arguments: &[OsString]) -> String {
    // Every option's and command's name is shorter, and no provider's key is.
    const LONGEST_WORD: usize = 20;
    let mut text = text.to_owned();
    for argument in arguments.iter().skip(1).filter_map(|argument| argument.to_str()) {
        let value = argument.split_once('=').map_or(argument, |(_, value)| value);
        if value.len() >= LONGEST_WORD && !value.starts_with('/') {
            text = text.replace(value, "***");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_wrong_place_is_not_repeated() {
        let key = format!("sk-ant-{}", "x".repeat(40));
        let cases = [
            vec!["secret", "set", "a:b", "--value", &key],
            vec!["secret", "set", "a:b", "--type", "x", "-x", &key],
            vec!["secret", "show", "a:b", &key],
            vec![&key],
        ];
        for case in cases {
            let words: Vec<OsString> = std::iter::once("keyferry").chain(case).map(OsString::from).collect();
            let error = parse(&words).unwrap_err();
            let text = without_values(&error.render().to_string(), &words);
            assert!(!text.contains("xxxx"), "{text}");
        }
        let glued: Vec<OsString> =
            ["keyferry", "secret", "set", "a:b", &format!("--value={key}")].map(OsString::from).into();
        let error = parse(&glued).unwrap_err();
        assert!(!without_values(&error.render().to_string(), &glued).contains("xxxx"));
    }
}
