//! The command line: one file per command group, and the only code that prints.
//!
//! Invariant: a command returns what it ends with; nothing in here ends the process or writes past `Output`.

mod agent;
mod args;
mod audit;
mod ca;
mod changes;
mod config;
mod context;
mod daemon;
mod demo;
mod difference;
mod env;
mod explain;
mod failure;
mod first_use;
mod hidden;
mod init;
mod input;
mod journal;
mod leaks;
mod man;
mod offline;
mod output;
mod process;
mod profile;
mod provider;
mod run;
mod secret;
mod serve;
mod shapes;
mod shut;
mod status;
mod trial;
mod trust;
mod unlock;
mod vault;
mod why;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use self::args::{Cli, Command};
use self::context::{Context, Threads, block_on};
use self::output::{Failure, Form, Outcome, Output, Talk, USAGE};
use crate::launch::child;
#[cfg(target_os = "linux")]
use crate::launch::guard;
use crate::tls;

/// Runs the command that `arguments` name, the program's own name first, and returns the exit code.
#[must_use]
pub fn main(arguments: &[OsString]) -> u8 {
    let mut output = Output::of_process(&|name| std::env::var_os(name));
    if let Some(code) = inner(arguments, &mut output) {
        return code;
    }
    // The caller's environment may hold keys: the processes of the same user must not read it out of /proc, and no
    // core dump may hold it. A command that is started is not affected, and an old kernel's refusal is no error.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // A child would inherit these, so `run`, which is not dumpable either, leaves them as they are.
    if arguments.get(1).is_none_or(|first| first != "run") {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let before = rustix::process::getrlimit(rustix::process::Resource::Core);
        let none = rustix::process::Rlimit { current: Some(0), maximum: before.maximum };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    }
    let cli = match parse(arguments) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            output.help(&help_of(arguments));
            return USAGE;
        }
        Err(error) => {
            let text = without_values(&error.render().ansi().to_string(), arguments);
            output.parser(&error, &text);
            return u8::try_from(error.exit_code()).unwrap_or(USAGE);
        }
    };
    let talk = if cli.global.quiet { Talk::Quiet } else { Talk::Usual };
    let form = if cli.global.json { Form::Json } else { Form::Text };
    output.set(talk, form);
    let for_run = matches!(cli.command, Command::Run(_));
    if for_run || matches!(cli.command, Command::Serve) {
        tls::prepare();
    }
    let mut context = Context::new(cli.global, output);
    match dispatch(cli.command, &mut context) {
        Ok(code) => code,
        Err(failure) => {
            context.output.failure(&failure);
            // `run` passes a child's codes through, so its own failure has one that no child uses.
            let own = for_run && !failure.said && failure.code != USAGE;
            if own { child::OUR_FAILURE } else { failure.code }
        }
    }
}

/// The help of the command that was begun: what can follow it.
fn help_of(arguments: &[OsString]) -> String {
    let mut tree = Cli::command();
    tree.build();
    let mut command = tree;
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(inner) = command.find_subcommand(word).cloned() {
            command = inner;
        }
    }
    command.render_help().ansi().to_string()
}

/// The steps for which our own processes start this binary again; no command of a person's.
fn inner(arguments: &[OsString], output: &mut Output) -> Option<u8> {
    let (step, rest) = arguments.get(1..)?.split_first()?;
    if *step == *child::ENTER {
        let (code, text) = child::enter(rest);
        output.failure(&Failure::new(text));
        return Some(code);
    }
    #[cfg(target_os = "linux")]
    if guard::is_step(step) {
        let done = if *step == *guard::TRY { guard::tried(rest) } else { guard::map(rest).map(|()| "mapped") };
        return Some(match done {
            Ok(word) => output.data(word).map_or(1, |()| 0),
            Err(error) => {
                // For the process that asked, which reads both.
                let _ = output.data(&error);
                output.failure(&Failure::new(error));
                1
            }
        });
    }
    if *step == *demo::AGENT {
        let work = async { demo::agent::work(&|name| std::env::var_os(name)).await.map_err(Failure::new) };
        let ended = block_on(Threads::One, work).and_then(|lines| output.data(&lines));
        return Some(ended.map_or_else(
            |failure| {
                output.failure(&failure);
                failure.code
            },
            |()| 0,
        ));
    }
    None
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

fn dispatch(command: Command, context: &mut Context) -> Outcome<u8> {
    use Threads::{Many, One};
    match command {
        Command::Run(command) => return block_on(Many, run::run(command, context)),
        Command::Demo => block_on(Many, demo::demo(context)),
        Command::Serve => block_on(Many, serve::serve(context)),
        Command::Init(command) => block_on(One, init::init(&command, context)),
        Command::Secret(command) => block_on(One, secret::secret(command, context)),
        Command::Profile(command) => block_on(One, profile::profile(command, context)),
        Command::Agent(command) => block_on(One, agent::agent(command, context)),
        Command::Env(command) => block_on(One, env::env(command, context)),
        Command::Status => block_on(One, status::status(context)),
        Command::Reload => block_on(One, status::reload(context)),
        Command::Config(command) => block_on(One, config::config(&command, context)),
        Command::Why(command) => block_on(One, why::why(&command, context)),
        Command::Ca(command) => block_on(One, ca::ca(&command, context)),
        Command::Vault(command) => block_on(One, vault::vault(command, context)),
        Command::Audit(command) => block_on(One, audit::audit(command, context)),
        Command::Provider(command) => provider::provider(&command, context),
        Command::Explain(command) => explain::explain(command.code.as_deref(), context),
        Command::Completion(command) => explain::completion(command.shell, context),
        Command::Version => explain::version(context),
        Command::Setup(_) => later("setup"),
        Command::Doctor(_) => later("doctor"),
        Command::Logs(_) => later("logs"),
        Command::Top(_) => later("top"),
        Command::Admin(_) => later("admin"),
        Command::Redact => block_on(One, leaks::redact(context)),
        Command::Scan(command) => block_on(One, leaks::scan(&command, context)),
        Command::Dashboard(_) => later("dashboard"),
        Command::Login(_) => later("login"),
        Command::Verify(_) => later("verify"),
        Command::Man(command) => man::man(&command, context),
        Command::Enroll(_) => later("enroll"),
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

    /// Every `keyferry ..` that stands in a text of this crate, in code and in comments that people see as help.
    fn mentioned() -> Vec<(String, String)> {
        let mut found = Vec::new();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let places = ["src", "README.md", "CHANGELOG.md", "certs", "config", "docs", ".github"];
        let mut open: Vec<_> = places.iter().map(|place| root.join(place)).filter(|path| path.exists()).collect();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//!")) {
                for (at, _) in line.match_indices("keyferry ") {
                    let end = line[at..].find(['"', '`', ',', ';', ')', '(', '|', '>', ':', '\\', '&', '\'']);
                    let colon = |end: usize| line[at + end..].starts_with(':') && !line[at + end..].starts_with(": ");
                    let mut end = end.map_or(line.len(), |end| at + end);
                    // `anthropic:work` goes on after its colon.
                    while line[end..].starts_with(':') && colon(end - at) {
                        let more = line[end + 1..].find(['"', '`', ',', ';', ')', '(', '|', '>', ':', '\\', '&', ' ']);
                        end = more.map_or(line.len(), |more| end + 1 + more);
                    }
                    found.push((path.display().to_string(), line[at..end].trim_end_matches('.').trim().to_owned()));
                }
            }
        }
        found
    }

    #[test]
    fn every_command_that_a_text_names_is_one() {
        let tree = Cli::command();
        let mut seen = 0;
        for (file, text) in mentioned() {
            let mut words = text.split_whitespace().skip(1);
            let Some(first) = words.next() else { continue };
            // A sentence about keyferry, not a command.
            if !first.starts_with(|c: char| c.is_ascii_lowercase())
                || ["environment", "to", "is", "has", "placeholder"].contains(&first)
            {
                continue;
            }
            let mut command = tree.find_subcommand(first).unwrap_or_else(|| panic!("{file}: {text}"));
            let mut words = words.peekable();
            while let Some(word) = words.peek() {
                let Some(inner) = command.find_subcommand(word) else { break };
                command = inner;
                words.next();
            }
            let unfinished = command.is_subcommand_required_set() && words.peek().is_some();
            assert!(!unfinished, "{file}: {text}");
            for flag in words.take_while(|word| *word != "--").filter(|word| word.starts_with("--")) {
                let name = flag.trim_start_matches('-').split('=').next().unwrap();
                let known = command.get_arguments().chain(tree.get_arguments()).any(|arg| arg.get_long() == Some(name));
                assert!(known, "{file}: {text}");
            }
            seen += 1;
        }
        assert!(seen > 30, "{seen}");
    }

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
