//! `why AGENT METHOD URL`.

use serde_json::Value;

use super::args::Why;
use super::context::Context;
use super::daemon::Daemon;
use super::output::{Failure, Outcome};
use crate::app::{self, Question, QuestionError};

/// `keyferry why ..`: the daemon's word, else what the files say.
pub async fn why(command: &Why, context: &mut Context) -> Outcome {
    let question = Question::parse(&command.agent, &command.method, &command.url)?;
    let home = context.home()?;
    // Another file than the daemon's is judged by itself.
    let daemon = if context.global.config.is_some() { None } else { Daemon::connect(&home).await };
    let answer = match daemon {
        Some(mut daemon) => daemon.why(&command.agent, &command.method, &command.url).await?,
        None => {
            let config = context.config()?;
            let vault = context.vault(&home, &config).await?;
            app::why(&config, vault, &question, context.now()).await?
        }
    };
    if context.output.is_json() {
        return context.output.json(&answer);
    }
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let live = answer.get("live").and_then(Value::as_bool).unwrap_or(false);
    let mut rows = vec![("decision", text("decision")), ("rule", text("rule"))];
    if answer.get("profile").is_some_and(Value::is_string) {
        let whose = if live { "as the daemon has it now" } else { "no daemon is running" };
        rows.push(("profile", format!("{} ({whose})", text("profile"))));
        rows.push(("inject", text("inject")));
    }
    if answer.get("code").is_some_and(Value::is_string) {
        rows.push(("code", text("code")));
    }
    rows.push(("reason", text("reason")));
    for over in answer.get("passed_over").and_then(Value::as_array).into_iter().flatten() {
        let part = |key: &str| over.get(key).and_then(Value::as_str).unwrap_or("-");
        rows.push(("passed over", format!("{}: another {}", part("rule"), part("because"))));
    }
    context.output.fields(&rows)
}

impl From<QuestionError> for Failure {
    fn from(error: QuestionError) -> Self {
        Self::usage(error.message).hint(error.hint)
    }
}
