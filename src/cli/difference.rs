//! `config diff`: what differs between the configuration in force and the file, or between two files.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::ConfigDiff;
use super::context::Context;
use super::daemon::Daemon;
use super::output::{Failure, Outcome};
use crate::config;

/// `keyferry config diff [FILE [OTHER]]`; ends with 1 where something differs, as `diff` does.
pub async fn diff(command: &ConfigDiff, context: &mut Context) -> Outcome {
    let file = |path: &PathBuf| config::load(path).map(|config| config.to_value());
    let (old, new) = match command.files.as_slice() {
        [old, new] => (file(old)?, file(new)?),
        [new] => (running(context).await?, file(new)?),
        _ => (running(context).await?, context.config()?.to_value()),
    };
    let changed = config::changed_values(&old, &new);
    if context.output.is_json() {
        let rows = changed.iter().map(|change| {
            json!({ "key": change.key, "old": change.old, "new": change.new, "restart_needed": change.at_start_only })
        });
        context.output.json(&Value::from_iter(rows))?;
    } else {
        let mut text = String::new();
        for change in &changed {
            let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
            let note = if change.at_start_only { "  (restart needed)" } else { "" };
            text.push_str(&format!("{}: {} -> {}{note}\n", change.key, shown(&change.old), shown(&change.new)));
        }
        if changed.is_empty() {
            context.output.done("nothing differs");
        } else {
            context.output.data(text.trim_end())?;
        }
    }
    if changed.is_empty() { Ok(()) } else { Err(Failure::silent(1)) }
}

async fn running(context: &Context) -> Outcome<Value> {
    let mut daemon = Daemon::required(&context.home()?).await?;
    daemon.config().await
}
