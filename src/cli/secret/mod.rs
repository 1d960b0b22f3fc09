//! `secret ..`.
//!
//! Invariant: no value is printed; what is shown of one is what the vault keeps to be shown.

mod amend;
mod import;
mod plan;
mod reveal;
mod set;

pub use plan::unknown_provider;

use super::args::{Secret, SecretName};
use super::context::Context;
use super::output::{Failure, Outcome};
use super::shapes::{SecretShape, VersionShape, ago};
use super::{changes, explain, input};
use crate::clock::WallTime;
use crate::id::CredentialName;
use crate::telemetry::Action;
use crate::vault::{Scope, Stored, Vault};

/// `keyferry secret ..`
pub async fn secret(command: Secret, context: &mut Context) -> Outcome {
    match command {
        Secret::Set(set) => set::set(*set, context).await,
        Secret::List => list(context).await,
        Secret::Show(name) => show(&name, context).await,
        Secret::History(name) => history(&name, context).await,
        Secret::Delete(delete) => remove(&delete.which, delete.yes, context).await,
        Secret::Rollback(command) => amend::rollback(&command, context).await,
        Secret::Search(command) => search(&command.words, context).await,
        Secret::Import(command) => import::import(&command, context).await,
        Secret::Export(_) => Err(Failure::not_yet("keyferry secret export")),
        Secret::Reveal(command) => reveal::reveal(&command, context).await,
    }
}

/// A value that is older than this should be replaced.
pub const OLD_DAYS: u64 = 90;

/// Whether a value has been in use for so long that it should be replaced. How old the value behind a reference is,
/// is not known.
pub fn is_old(stored: &Stored, now: WallTime) -> bool {
    !stored.by_reference && now.since(stored.updated).as_secs() / 86_400 >= OLD_DAYS
}

async fn all(context: &Context) -> Outcome<Vec<Stored>> {
    let (home, config) = (context.home()?, context.config()?);
    Ok(match context.vault(&home, &config).await? {
        Some(vault) => vault.list().await?,
        None => Vec::new(),
    })
}

async fn list(context: &mut Context) -> Outcome {
    let all = all(context).await?;
    if all.is_empty() && !context.output.is_json() {
        context.output.say("nothing is stored yet");
        context.output.next("keyferry secret set anthropic:work");
        return Ok(());
    }
    table(&all, context)?;
    let now = context.now();
    let old: Vec<String> =
        all.iter().filter(|stored| is_old(stored, now)).map(|stored| stored.name.to_string()).collect();
    if let Some(first) = old.first() {
        context.output.warn(&format!("not changed for {OLD_DAYS} days or more: {}", old.join(", ")));
        context.output.next(&format!("make a new one at its provider, then: keyferry secret set {first}"));
    }
    Ok(())
}

async fn search(words: &[String], context: &mut Context) -> Outcome {
    let catalogue = context.catalogue(&context.config()?)?;
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
    let mut all = all(context).await?;
    all.retain(|stored| {
        let shape = SecretShape::of(stored, &catalogue);
        let texts = [Some(shape.name), shape.provider, shape.env, shape.description, shape.label, shape.reference];
        let texts = texts.into_iter().flatten().chain([shape.r#type, shape.scope]).chain(shape.hosts);
        let texts: Vec<String> = texts.map(|text| text.to_lowercase()).collect();
        words.iter().all(|word| texts.iter().any(|text| text.contains(word)))
    });
    if all.is_empty() && !context.output.is_json() {
        context.output.say("no secret has that");
        context.output.next("all of them: keyferry secret list");
        return Ok(());
    }
    table(&all, context)
}

fn table(all: &[Stored], context: &mut Context) -> Outcome {
    let catalogue = context.catalogue(&context.config()?)?;
    let shapes: Vec<SecretShape> = all.iter().map(|stored| SecretShape::of(stored, &catalogue)).collect();
    if context.output.is_json() {
        return context.output.json(&shapes);
    }
    let now = context.now();
    let rows = all.iter().zip(shapes).map(|(stored, shape)| {
        vec![
            shape.name,
            shape.r#type,
            shape.scope,
            shape.env.filter(|_| shape.install).unwrap_or_else(|| "-".to_owned()),
            shape.masked,
            shape.version.to_string(),
            ago(stored.updated, now),
        ]
    });
    context.output.table(&["name", "type", "scope", "variable", "value", "version", "updated"], rows)
}

async fn show(which: &SecretName, context: &mut Context) -> Outcome {
    let (stored, _) = find(which, context).await?;
    let catalogue = context.catalogue(&context.config()?)?;
    let shape = SecretShape::of(&stored, &catalogue);
    if context.output.is_json() {
        return context.output.json(&shape);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("name", shape.name),
        ("provider", or_dash(shape.provider)),
        ("type", shape.r#type),
        ("scope", shape.scope),
        ("variable", or_dash(shape.env.map(|env| if shape.install { env } else { format!("{env} (not set)") }))),
        ("hosts", if shape.hosts.is_empty() { "-".to_owned() } else { shape.hosts.join(", ") }),
        ("value", shape.masked),
        ("version", shape.version.to_string()),
        ("label", or_dash(shape.label)),
        ("description", or_dash(shape.description)),
        ("created", shape.created),
        ("updated", shape.updated),
    ];
    context.output.fields(&rows)
}

async fn history(which: &SecretName, context: &mut Context) -> Outcome {
    let (stored, vault) = find(which, context).await?;
    let versions = vault.history(&stored.name, &stored.scope).await?.unwrap_or_default();
    let shapes: Vec<VersionShape> = versions.iter().map(VersionShape::from).collect();
    if context.output.is_json() {
        return context.output.json(&shapes);
    }
    let rows = shapes.into_iter().map(|shape| {
        let mark = if shape.current { "current" } else { "" };
        vec![shape.version.to_string(), shape.masked, shape.created, mark.to_owned()]
    });
    context.output.table(&["version", "value", "stored", ""], rows)
}

async fn remove(which: &SecretName, yes: bool, context: &mut Context) -> Outcome {
    let (stored, vault) = find(which, context).await?;
    let what = match &stored.scope {
        Scope::Shared => stored.name.to_string(),
        Scope::Agent(agent) => format!("{} of agent {agent}", stored.name),
    };
    if !input::confirm(context, &format!("All versions of {what} are deleted for good. Delete?"), yes)? {
        return Err(Failure::new("nothing was deleted"));
    }
    if !vault.delete(&stored.name, &stored.scope).await? {
        return Err(Failure::new(format!("{what} was deleted meanwhile")));
    }
    let home = context.home()?;
    changes::record(&home, &vault, Action::SecretDeleted, &stored.name.to_string(), context).await?;
    context.output.done(&format!("deleted {what}"));
    Ok(())
}

/// The one credential that is meant.
async fn find(which: &SecretName, context: &Context) -> Outcome<(Stored, Vault)> {
    let (home, config) = (context.home()?, context.config()?);
    let name = CredentialName::parse(&which.name)?;
    let scope = which.scope.as_deref().map(parse_scope).transpose()?;
    let vault = context.existing_vault(&home, &config).await?;
    let all = vault.list().await?;
    let fits = |stored: &&Stored| stored.name == name && scope.as_ref().is_none_or(|scope| stored.scope == *scope);
    let mut found = all.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok((one.clone(), vault)),
        (Some(_), Some(_)) => {
            let scopes: Vec<String> = all.iter().filter(fits).map(|stored| stored.scope.to_string()).collect();
            Err(Failure::usage(format!("{name} is stored more than once: {}", scopes.join(", ")))
                .hint("say which with --scope shared or --scope agent:NAME"))
        }
        (None, _) => {
            let names: Vec<String> = all.iter().map(|stored| stored.name.to_string()).collect();
            let near = explain::nearest(&which.name, names.iter().map(String::as_str));
            let hint = near
                .map_or_else(|| "all of them: keyferry secret list".to_owned(), |near| format!("did you mean {near}?"));
            Err(Failure::new(format!("there is no secret {name}")).hint(hint))
        }
    }
}

fn parse_scope(text: &str) -> Outcome<Scope> {
    Scope::parse(text).map_err(|what| Failure::usage(what).hint("--scope shared, or --scope agent:NAME"))
}
