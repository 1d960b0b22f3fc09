//! `audit verify|tail`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde_json::{Value, json};

use super::args::{Audit as Command, AuditTail};
use super::context::Context;
use super::output::{Failure, Outcome};
use crate::telemetry::{Fault, verify};

/// More than `tail` ever shows.
const MOST: u64 = 8 << 20;

/// `keyferry audit ..`
pub async fn audit(command: Command, context: &mut Context) -> Outcome {
    match command {
        Command::Verify => check(context).await,
        Command::Tail(tail) => last(&tail, context),
    }
}

async fn check(context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let vault = context.existing_vault(&home, &config).await?;
    let path = home.audit_log();
    match verify(&path, &vault.derived_key("audit")) {
        Ok(found) => {
            if context.output.is_json() {
                return context.output.json(&json!({
                    "ok": true, "file": path, "records": found.records, "chains": found.chains, "torn": found.torn,
                    "faults": [],
                }));
            }
            context
                .output
                .done(&format!("{} records in {} chains are as they were written", found.records, found.chains));
            if found.torn > 0 {
                context.output.say(&format!("{} records were cut off by a crash", found.torn));
            }
            Ok(())
        }
        Err(Fault::Unreadable(error)) => Err(unreadable(&path, &error)),
        Err(fault) => {
            let place =
                fault.line().map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
            if context.output.is_json() {
                let fault = json!({"file": path, "line": fault.line(), "message": fault.what()});
                context.output.json(&json!({"ok": false, "file": path, "faults": [fault]}))?;
            }
            Err(Failure::new(format!("{place}: {}", fault.what()))
                .hint("what stands before that line is sound; compare the rest with a copy of the log"))
        }
    }
}

fn last(tail: &AuditTail, context: &mut Context) -> Outcome {
    let path = context.home()?.audit_log();
    let read = || {
        let mut file = File::open(&path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = read().map_err(|error| unreadable(&path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let records: Vec<Value> =
        text.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).take(tail.lines).collect();
    let records: Vec<Value> = records.into_iter().rev().collect();
    if context.output.is_json() {
        return context.output.json(&records);
    }
    let field = |record: &Value, name: &str| match record.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let rows = records.iter().map(|record| {
        let first = |names: &[&str]| names.iter().map(|name| field(record, name)).find(|text| !text.is_empty());
        vec![
            field(record, "ts"),
            first(&["action", "code", "kind"]).unwrap_or_default(),
            first(&["subject", "profile", "host", "pid"]).unwrap_or_default(),
            first(&["agent", "actor"]).unwrap_or_default(),
            first(&["detail", "host"]).unwrap_or_default(),
        ]
    });
    context.output.table(&["time", "what", "of", "by", ""], rows)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display())).hint("the log is made with the first change")
}
