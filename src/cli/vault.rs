//! `vault status|verify|rekey|backup|restore`.
//!
//! Invariant: nothing here shows a value or a key; what is replaced was asked for.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Vault as Command, VaultRekey};
use super::changes;
use super::context::{Context, key_source};
use super::daemon::Daemon;
use super::input;
use super::output::{Failure, Outcome};
use crate::sys;
use crate::telemetry::Action;
use crate::vault::{KeySource, OlderCopy, RootChange, Vault, VaultError};

/// `keyferry vault ..`
pub async fn vault(command: Command, context: &mut Context) -> Outcome {
    match command {
        Command::Status => status(context).await,
        Command::Verify(verify) => check(verify.accept_rollback, context).await,
        Command::Rekey(rekey) => new_keys(&rekey, context).await,
        Command::Backup(backup) => copy(&backup.file, backup.yes, context).await,
        Command::Restore(restore) => put_back(&restore.file, restore.yes, context).await,
        Command::Recipient(_) => Err(Failure::not_yet("keyferry vault recipient")),
        Command::Migrate(_) => Err(Failure::not_yet("keyferry vault migrate")),
    }
}

async fn status(context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let path = home.vault_db();
    let source = key_source(&config).text();
    let Some(vault) = context.vault(&home, &config).await? else {
        if context.output.is_json() {
            return context.output.json(&json!({"path": path, "exists": false, "master_key": source}));
        }
        context.output.say(&format!("there is no vault at {}", path.display()));
        context.output.next("keyferry secret set PROVIDER:NAME makes one");
        return Ok(());
    };
    let state = vault.state().await?;
    let agents = vault.agents().await?.len();
    let unfinished = state.terms.len() > 1 || state.root_unfinished;
    let size = path.metadata().map(|file| file.len()).unwrap_or_default();
    if context.output.is_json() {
        return context.output.json(&json!({
            "path": path, "exists": true, "bytes": size, "master_key": source, "vault": hex(&state.vault),
            "change": state.epoch, "noted_change": state.noted, "credentials": state.credentials,
            "versions": state.versions, "agents": agents, "vault_key": state.terms.iter().max(),
            "rekey_unfinished": unfinished, "keys_locked": sys::keys_are_locked(),
        }));
    }
    let key = state.terms.iter().max().map(ToString::to_string).unwrap_or_default();
    let memory = if sys::keys_are_locked() { "never swapped" } else { "may be swapped: raise the limit ulimit -l" };
    let rows = [
        ("vault", format!("{}, {size} bytes", path.display())),
        ("master key", source),
        ("vault key", if unfinished { format!("{key}, a change of keys is unfinished") } else { key }),
        ("credentials", format!("{} in {} versions", state.credentials, state.versions)),
        ("agents", agents.to_string()),
        ("changes", format!("{}, the newest noted is {}", state.epoch, state.noted.unwrap_or_default())),
        ("keys in memory", memory.to_owned()),
    ];
    context.output.fields(&rows)?;
    if unfinished {
        context.output.next("keyferry vault rekey finishes it");
    }
    Ok(())
}

async fn check(accept_rollback: bool, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let older = if accept_rollback { OlderCopy::Accept } else { OlderCopy::Refuse };
    let opened = Vault::open_with(&home, &key_source(&config), &context.unlock(), older).await;
    let found = match opened {
        Ok(vault) => {
            super::journal::keep(&vault, &home);
            if accept_rollback {
                let subject = home.vault_db().display().to_string();
                changes::record(&home, &vault, Action::VaultRollbackAccepted, &subject, context).await?;
            }
            vault.verify().await
        }
        Err(error) => Err(error),
    };
    let (records, faults) = match found {
        Ok(found) => (found.records, found.faults),
        // What was changed is a finding; what keeps us from looking is a failure of its own.
        Err(error) if is_finding(&error) => (0, vec![error]),
        Err(error) => return Err(error.into()),
    };
    if context.output.is_json() {
        let faults: Vec<Value> =
            faults.iter().map(|fault| json!({"message": fault.to_string(), "hint": fault.hint()})).collect();
        context.output.json(&json!({"ok": faults.is_empty(), "records": records, "faults": faults}))?;
    }
    match faults.first() {
        None => {
            context.output.done(&format!("{records} records open, every row is as it was written"));
            Ok(())
        }
        Some(first) => {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Err(Failure::new(lines.join("\n")).maybe_hint(first.hint()))
        }
    }
}

fn is_finding(error: &VaultError) -> bool {
    matches!(
        error,
        VaultError::Corrupt { .. }
            | VaultError::Damaged { .. }
            | VaultError::RolledBack { .. }
            | VaultError::Anchor { .. }
            | VaultError::Leftover { .. }
    )
}

async fn new_keys(wanted: &VaultRekey, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let to = wanted.to.as_deref().map(KeySource::parse).transpose();
    let to = to.map_err(|error| Failure::usage(error.to_string()).maybe_hint(error.hint()))?;
    let vault = context.existing_vault(&home, &config).await?;
    let mut records = None;
    // The records first: a new vault key is wrapped by the master key that is in force.
    if !wanted.root_only {
        records = Some(vault.rekey_records().await?);
    }
    let root = if wanted.records_only { None } else { root(&vault, to.as_ref(), wanted.root_only).await? };
    changes::record(&home, &vault, Action::VaultRekeyed, "vault", context).await?;
    let moved = match &root {
        Some(RootChange::Moved { to }) => Some(to.clone()),
        _ => None,
    };
    if context.output.is_json() {
        let state = vault.state().await?;
        return context.output.json(&json!({
            "records": records.unwrap_or_default(), "vault_key": state.terms.iter().max(),
            "master_key_changed": root.is_some(), "move_to": moved,
        }));
    }
    if let Some(records) = records {
        context.output.done(&format!("a new vault key; {records} records are sealed under it"));
    }
    match root {
        Some(RootChange::Replaced) => {
            context.output.done("a new master key at the same place; copies of the old one open nothing")
        }
        Some(RootChange::Moved { to }) => {
            context.output.done(&format!("the vault has the master key of {to}"));
            context.output.next(&format!(
                "set vault.master_key: \"{to}\" in keyferry.yaml; until then the one before still opens it"
            ));
        }
        None if wanted.records_only => {}
        None => context.output.say(&format!(
            "the master key of {} is as it was: only its owner can change it, or --to another source",
            key_source(&config).text()
        )),
    }
    Ok(())
}

/// Changes the root key. `None` where the present source's is not ours to change and nobody insists.
async fn root(vault: &Vault, to: Option<&KeySource>, insists: bool) -> Outcome<Option<RootChange>> {
    match vault.rekey_root(to).await {
        Ok(change) => Ok(Some(change)),
        Err(VaultError::FixedRoot { .. }) if !insists => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn copy(file: &Path, yes: bool, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let vault = context.existing_vault(&home, &config).await?;
    let there = file.symlink_metadata().is_ok();
    if there && !input::confirm(context, &format!("{} is there already. Replace it?", file.display()), yes)? {
        return Err(Failure::new("nothing was written"));
    }
    vault.backup(file, there).await?;
    changes::record(&home, &vault, Action::VaultCopied, &file.display().to_string(), context).await?;
    let state = vault.state().await?;
    if context.output.is_json() {
        let bytes = file.metadata().map(|file| file.len()).unwrap_or_default();
        return context
            .output
            .json(&json!({"file": file, "bytes": bytes, "credentials": state.credentials, "change": state.epoch}));
    }
    context.output.done(&format!("{} credentials, sealed, in {}", state.credentials, file.display()));
    context
        .output
        .next(&format!("the master key ({}) is not in it: keep a copy of that elsewhere", key_source(&config).text()));
    Ok(())
}

async fn put_back(file: &Path, yes: bool, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    if Daemon::connect(&home).await.is_some() {
        return Err(Failure::new("a daemon of this home is running, and it would go on with what it has")
            .hint("stop it, restore, and start it again"));
    }
    let (source, unlock) = (key_source(&config), context.unlock());
    let records = Vault::check_copy(&home, &source, &unlock, file).await?;
    let there = home.vault_db().symlink_metadata().is_ok();
    let question = format!("{} takes the place of the present vault. Restore?", file.display());
    if there && !input::confirm(context, &question, yes)? {
        return Err(Failure::new("nothing was changed"));
    }
    let restored = Vault::restore(&home, &source, &unlock, file).await?;
    let vault = context.existing_vault(&home, &config).await?;
    changes::record(&home, &vault, Action::VaultRestored, &file.display().to_string(), context).await?;
    if context.output.is_json() {
        return context.output.json(&json!({
            "file": file, "records": restored.records, "change": restored.epoch, "before": restored.before,
        }));
    }
    context.output.done(&format!("{records} records are back"));
    if let Some(before) = &restored.before {
        context.output.say(&format!("what was there before is at {}", before.display()));
    }
    context
        .output
        .next("tokens and values that were changed since that copy are as they were then: keyferry agent list");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
