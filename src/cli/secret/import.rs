//! `secret import`: the keys of a `.env` or an auth-profiles.json file.
//!
//! Invariant: all of a file's keys are judged before the first is stored, and all are stored in one step.

use std::io::Read as _;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::plan::{self, Request};
use crate::cli::args::SecretImport;
use crate::cli::context::Context;
use crate::cli::output::{Failure, Outcome};
use crate::cli::{changes, first_use};
use crate::clock::WallTime;
use crate::id::CredentialName;
use crate::launch::exports::is_variable;
use crate::launch::is_reserved;
use crate::provider::Catalogue;
use crate::secret::Secret;
use crate::telemetry::Action;
use crate::vault::{Draft, Scope, Stored, Vault, clean, preview};

/// The largest file that is read.
const FILE_LIMIT: u64 = 1024 * 1024;

/// One key of a file.
pub(super) struct Entry {
    /// What it is called there.
    pub(super) key: String,
    pub(super) value: Secret,
    /// The variable, in a `.env` file.
    variable: bool,
    provider: Option<String>,
    label: Option<String>,
    /// When an access token ends, in milliseconds.
    ends: Option<u64>,
    oauth: bool,
}

/// What becomes of an entry.
#[derive(Debug, Serialize)]
struct Fate {
    name: String,
    provider: Option<String>,
    r#type: Option<String>,
    masked: String,
    /// `new`, `new-version`, `same` or `passed-over`.
    action: &'static str,
    reason: Option<String>,
}

/// `keyferry secret import FILE`
pub(super) async fn import(command: &SecretImport, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let catalogue = context.catalogue(&config)?;
    let entries = read(&command.file)?;
    let scope = command.scope.as_deref().map(super::parse_scope).transpose()?.unwrap_or(Scope::Shared);
    let before = context.vault(&home, &config).await?;
    let (mut fates, mut ready, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let masked = preview(&entry.value);
        let (key, passed) = (entry.key.clone(), |reason: String| Fate {
            name: entry.key.clone(),
            provider: None,
            r#type: None,
            masked: masked.clone(),
            action: "passed-over",
            reason: Some(reason),
        });
        if let Some(reason) = passes_over(&entry, &catalogue, command.all, context.now()) {
            fates.push(passed(reason));
            continue;
        }
        match judge(entry, &scope, command.force, before.as_ref(), &catalogue).await {
            Ok((fate, chosen)) => {
                fates.push(fate);
                ready.extend(chosen);
            }
            Err(failure) => faults.push((key, failure)),
        }
    }
    if let Some((_, first)) = faults.first() {
        let lines: Vec<String> = faults.iter().map(|(key, failure)| format!("{key}: {}", failure.message)).collect();
        let hint = first.hint.clone();
        return Err(Failure::new(format!("nothing was imported\n{}", lines.join("\n"))).maybe_hint(hint));
    }
    let count = ready.len();
    if !command.dry_run && count > 0 {
        store(ready, context).await?;
    }
    report(&fates, context)?;
    if command.dry_run {
        context.output.say("nothing was stored: this was a dry run");
    } else {
        context.output.done(&format!("imported {count} of {}", fates.len()));
        if count > 0 {
            context.output.next("the file still holds the keys in the clear: take them out of it");
        }
    }
    Ok(())
}

async fn store(ready: Vec<(Draft, Secret)>, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let vault = first_use::open(context, &home, &config).await?;
    let stored = vault.set_all(ready, context.now()).await?;
    for one in &stored {
        let action = if one.version == 1 { Action::SecretCreated } else { Action::SecretRotated };
        changes::record(&home, &vault, action, &one.name.to_string(), context).await?;
    }
    Ok(())
}

fn report(fates: &[Fate], context: &mut Context) -> Outcome {
    if context.output.is_json() {
        return context.output.json(&fates);
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = fates.iter().map(|fate| {
        let what = match (fate.action, &fate.reason) {
            ("passed-over", Some(reason)) => format!("passed over: {reason}"),
            (action, Some(note)) => format!("{}; {note}", action.replace('-', " ")),
            (action, None) => action.replace('-', " "),
        };
        vec![fate.name.clone(), or_dash(&fate.provider), or_dash(&fate.r#type), fate.masked.clone(), what]
    });
    context.output.table(&["name", "provider", "type", "value", "what happens"], rows)
}

/// Why an entry is none to import.
fn passes_over(entry: &Entry, catalogue: &Catalogue, all: bool, now: WallTime) -> Option<String> {
    if entry.value.is_empty() {
        return Some("it is empty".to_owned());
    }
    if entry.ends.is_some_and(|ends| ends <= now.0) {
        return Some("its access token has ended".to_owned());
    }
    if entry.variable {
        let known = catalogue.by_env(&entry.key).is_some() || catalogue.by_shape(&entry.value).is_some();
        return (!known && !all).then(|| "no known provider's key; --all takes it too".to_owned());
    }
    let id = provider_of(entry);
    let known = id.as_deref().is_none_or(|id| catalogue.iter().any(|provider| provider.id.as_str() == id));
    (!known).then(|| format!("there is no provider {} in the catalogue", id.unwrap_or_default()))
}

fn provider_of(entry: &Entry) -> Option<String> {
    let named = CredentialName::parse(&entry.key).ok();
    named.and_then(|name| name.provider().map(|id| id.as_str().to_owned())).or_else(|| entry.provider.clone())
}

/// What to store for an entry, if it is not there already.
async fn judge(
    entry: Entry,
    scope: &Scope,
    force: bool,
    vault: Option<&Vault>,
    catalogue: &Catalogue,
) -> Outcome<(Fate, Option<(Draft, Secret)>)> {
    let name = CredentialName::parse(&entry.key)
        .map_err(|error| Failure::new(format!("that is no name for a secret: {error}")))?;
    let variable = entry.variable && is_variable(&entry.key) && !is_reserved(&entry.key);
    let request = Request {
        provider: entry.provider.clone().filter(|_| name.provider().is_none()),
        name,
        scope: Some(scope.clone()),
        kind: None,
        env: variable.then(|| entry.key.clone()),
        no_install: false,
        install: false,
        hosts: Vec::new(),
        description: None,
        label: entry.label.clone(),
        force,
    };
    let value = clean("api-key", &entry.value).map_err(crate::vault::VaultError::from)?;
    let existing: Option<Stored> = match vault {
        Some(vault) => vault.find(&request.name, Some(scope)).await?,
        None => None,
    };
    let plan = plan::plan(&request, Some(&value), existing.as_ref(), catalogue)?;
    let same = match (vault, &existing) {
        (Some(vault), Some(stored)) => vault.opened(stored).await?.is_some_and(|opened| opened.secret.is_same(&value)),
        _ => false,
    };
    let action = match (&existing, same) {
        (_, true) => "same",
        (Some(_), false) => "new-version",
        (None, false) => "new",
    };
    let fate = Fate {
        name: entry.key,
        provider: plan.draft.provider.as_ref().map(ToString::to_string),
        r#type: Some(plan.draft.kind.clone()),
        masked: preview(&value),
        action,
        reason: entry.oauth.then(|| match entry.ends {
            Some(ends) => format!("an access token, good until {}", WallTime(ends)),
            None => "an access token, which is not renewed".to_owned(),
        }),
    };
    Ok((fate, (!same).then_some((plan.draft, value))))
}

/// Reads a file of either form.
pub(super) fn read(path: &Path) -> Outcome<Vec<Entry>> {
    let shown = path.display();
    let file = std::fs::File::open(path).map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.take(FILE_LIMIT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(Failure::new(format!("{shown} has more than 1 MiB")).hint("is this the right file?"));
    }
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let entries = if first == Some(&b'{') { profiles(&bytes, path) } else { dotenv(&bytes, path) }?;
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = entries.iter().find(|entry| !seen.insert(entry.key.as_str())) {
        return Err(Failure::new(format!("{shown}: {} stands there twice; nothing was imported", twice.key))
            .hint("leave the one that counts"));
    }
    Ok(entries)
}

fn dotenv(bytes: &[u8], path: &Path) -> Outcome<Vec<Entry>> {
    let shown = path.display();
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::new(format!("{shown} is neither a .env file nor JSON: it is not text")))?;
    dotenvy::from_read_iter(bytes)
        .map(|line| match line {
            Ok((key, value)) => Ok(Entry {
                key,
                value: Secret::from(value),
                variable: true,
                provider: None,
                label: None,
                ends: None,
                oauth: false,
            }),
            // What stands in the line may be a key, so only its number is told.
            Err(dotenvy::Error::LineParse(line, _)) => {
                let first = line.lines().next().unwrap_or_default().trim().to_owned();
                let number = text.lines().position(|one| one.trim() == first).map_or(0, |at| at.saturating_add(1));
                Err(Failure::new(format!("{shown}:{number}: this line is no KEY=value; nothing was imported"))
                    .hint("a value with spaces or # in it goes into quotes"))
            }
            Err(_) => Err(Failure::new(format!("{shown} could not be read"))),
        })
        .collect()
}

/// `{"anthropic:titanium": {"provider", "type", "token", "label"}}`, or the same under `profiles`.
fn profiles(bytes: &[u8], path: &Path) -> Outcome<Vec<Entry>> {
    let shown = path.display();
    let fault = |what: String| Failure::new(format!("{shown}: {what}; nothing was imported"));
    // The parser's own message can quote a text of the file.
    let mut whole: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
        fault(format!("line {}, column {}: this is no JSON object of profiles", error.line(), error.column()))
    })?;
    if let Some(Value::Object(inner)) = whole.remove("profiles") {
        whole = inner;
    }
    let mut entries = Vec::new();
    for (key, profile) in whole {
        let Value::Object(mut profile) = profile else {
            return Err(fault(format!("'{key}' is no profile")));
        };
        let text =
            |profile: &Map<String, Value>, field: &str| profile.get(field).and_then(Value::as_str).map(str::to_owned);
        let fields = ["token", "key", "apiKey", "api_key", "access", "accessToken", "access_token"];
        let value = fields.iter().find_map(|field| match profile.remove(*field) {
            Some(Value::String(value)) => Some(value),
            _ => None,
        });
        let Some(value) = value else { return Err(fault(format!("'{key}' has no token"))) };
        let ends = ["expires", "expiresAt", "expires_at"].iter().find_map(|field| profile.get(*field)?.as_u64());
        entries.push(Entry {
            value: Secret::from(value),
            variable: false,
            provider: text(&profile, "provider"),
            label: text(&profile, "label").or_else(|| text(&profile, "email")),
            // Some write seconds, some milliseconds.
            ends: ends.filter(|ends| *ends > 0).map(|ends| if ends < 100_000_000_000 { ends * 1000 } else { ends }),
            oauth: text(&profile, "type").is_some_and(|kind| kind == "oauth"),
            key,
        });
    }
    Ok(entries)
}
