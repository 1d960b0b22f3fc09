//! `config check|show|schema|diff|test`.

use serde_json::json;

use super::args::Config as Command;
use super::context::Context;
use super::difference;
use super::failure::CONFIGURATION;
use super::output::{Failure, Outcome};
use super::trial;
use crate::config::{self, Fault, Faults};

/// `keyferry config ..`
pub async fn config(command: &Command, context: &mut Context) -> Outcome {
    match command {
        Command::Check => check(context),
        Command::Show => show(context),
        Command::Schema => context.output.json(&config::schema()),
        Command::Diff(command) => difference::diff(command, context).await,
        Command::Test(command) => trial::test(command, context),
    }
}

fn check(context: &mut Context) -> Outcome {
    let file = context.config_file()?;
    let there = file.exists();
    let (faults, warnings) = match read(context) {
        Ok(warnings) => (Vec::new(), warnings),
        Err(Faults(faults)) => (faults, Vec::new()),
    };
    if context.output.is_json() {
        context.output.json(&json!({ "ok": faults.is_empty(), "faults": faults, "warnings": warnings }))?;
    } else if faults.is_empty() {
        warnings.iter().for_each(|warning| context.output.warn(&warning.to_string()));
        let what = if there { "is valid" } else { "is not there: the defaults are in effect" };
        context.output.done(&format!("{} {what}", file.display()));
    } else {
        let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        context.output.data(&lines)?;
        let count = faults.len();
        context.output.say(&format!("{count} fault{}", if count == 1 { "" } else { "s" }));
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::silent(CONFIGURATION)) }
}

/// Everything that can be judged without listening: the file, and the providers that it adds to the catalogue.
fn read(context: &Context) -> Result<Vec<Fault>, Faults> {
    let whole = |failure: Failure| {
        let file = context.config_file().map(|file| file.display().to_string()).unwrap_or_default();
        Faults(vec![Fault { file, line: 0, column: 0, message: failure.message, hint: failure.hint }])
    };
    let file = context.config_file().map_err(whole)?;
    let config = if context.global.config.is_some() { config::load(&file) } else { config::load_or_default(&file) }?;
    super::context::catalogue_of(&config, &file.display().to_string())?;
    Ok(config.warnings.0)
}

fn show(context: &mut Context) -> Outcome {
    let config = context.config()?;
    if context.output.is_json() { context.output.json(&config.to_value()) } else { context.output.data(&config.show()) }
}
