//! `explain`, `completion`, `version`: what needs no home.

use clap::CommandFactory as _;
use serde_json::json;

use super::args::Cli;
use super::context::Context;
use super::output::{Failure, Outcome};
use crate::code::Code;

/// `keyferry explain [CODE]`
pub fn explain(code: Option<&str>, context: &mut Context) -> Outcome {
    let Some(text) = code else { return all(context) };
    let code = Code::parse(&text.to_ascii_lowercase().replace('-', "_")).ok_or_else(|| unknown(text))?;
    if context.output.is_json() {
        return context.output.json(&shape(code));
    }
    let retry = if code.retry_can_help() { "may help" } else { "does not help" };
    context.output.data(&format!(
        "{code}: HTTP status {}\n\n{}\n\nSending the same request again {retry}.",
        code.status().as_u16(),
        code.explanation()
    ))
}

/// `keyferry completion SHELL`
pub fn completion(shell: clap_complete::Shell, context: &mut Context) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyferry", &mut script);
    context.output.data(&String::from_utf8_lossy(&script))
}

/// `keyferry version`
pub fn version(context: &mut Context) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if context.output.is_json() {
        return context.output.json(&json!({ "name": "keyferry", "version": version }));
    }
    context.output.data(&format!("keyferry {version}"))
}

fn all(context: &mut Context) -> Outcome {
    if context.output.is_json() {
        return context.output.json(&Code::ALL.iter().copied().map(shape).collect::<Vec<_>>());
    }
    let rows = Code::ALL.iter().map(|code| {
        vec![code.to_string(), code.status().as_u16().to_string(), first_sentence(code.explanation()).to_owned()]
    });
    context.output.table(&["code", "status", "meaning"], rows)
}

fn shape(code: Code) -> serde_json::Value {
    json!({
        "code": code.as_str(),
        "status": code.status().as_u16(),
        "retry": code.retry_can_help(),
        "explanation": code.explanation(),
    })
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").and_then(|end| text.get(..=end)).unwrap_or(text)
}

fn unknown(text: &str) -> Failure {
    let failure = Failure::new(format!("there is no code '{text}'"));
    match nearest(text, Code::ALL.iter().map(|code| code.as_str())) {
        Some(known) => failure.hint(format!("did you mean {known}?")),
        None => failure.hint("all of them: keyferry explain"),
    }
}

/// The word that was probably meant.
pub fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Below this a suggestion surprises more than it helps; clap uses the same measure and bound.
    const LIKENESS: f64 = 0.7;
    let scored = known.map(|word| (strsim::jaro(text, word), word)).filter(|(score, _)| *score > LIKENESS);
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_probably_meant() {
        let known = ["policy_denied", "profiles_cooling", "bad_request"];
        assert_eq!(nearest("policy_denyed", known.into_iter()), Some("policy_denied"));
        assert_eq!(nearest("xyzzy", known.into_iter()), None);
    }

    #[test]
    fn the_first_sentence_ends_at_its_full_stop() {
        assert_eq!(first_sentence("One. Two."), "One.");
        assert_eq!(first_sentence("upstream.resolve is one."), "upstream.resolve is one.");
    }
}
