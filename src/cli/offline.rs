//! The profiles of a home whose daemon does not run: what the vault keeps of them.
//!
//! Invariant: the state that is shown and changed here is the one that the next process begins with.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Failure, Outcome};
use crate::app::{Mode, Options, Running, profile_json};
use crate::id::ProfileId;
use crate::pool::{Jitter, Pools};
use crate::source::fingerprint;
use crate::telemetry::Action;
use crate::tls::Inherited;
use crate::vault::{PoolRow, Stored, Vault};

/// `profile list` without a daemon.
///
/// # Errors
/// When the vault cannot be read.
pub async fn profiles(context: &Context) -> Outcome<Value> {
    let (home, config) = (context.home()?, context.config()?);
    let Some(vault) = context.vault(&home, &config).await? else { return Ok(json!([])) };
    let pools = restored(&vault, context).await?;
    let stored = vault.list().await?;
    let rows = stored.iter().filter_map(|stored| {
        let state = pools.state(&profile_of(stored)?, context.now());
        Some(profile_json(&state, &stored.kind))
    });
    Ok(Value::Array(rows.collect()))
}

/// `profile reset|disable|enable` without a daemon.
///
/// # Errors
/// When there is no such profile, or the vault cannot be written.
pub async fn change(profile: &ProfileId, action: Action, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let vault = context.existing_vault(&home, &config).await?;
    if !vault.list().await?.iter().any(|stored| profile_of(stored).as_ref() == Some(profile)) {
        return Err(Failure::new(format!("there is no profile {profile}")).hint("all of them: keyferry profile list"));
    }
    let pools = restored(&vault, context).await?;
    match action {
        Action::ProfileDisabled => pools.disable(profile),
        Action::ProfileEnabled => pools.enable(profile),
        _ => {
            pools.reset(profile);
        }
    }
    if let Some(rows) = pools.changed_rows() {
        let rows = rows.into_iter().map(|(scope, json)| PoolRow { scope, json }).collect();
        vault.save_pool_rows(rows).await?;
    }
    super::changes::record(&home, &vault, action, &profile.to_string(), context).await
}

/// `profile test` without a daemon: a proxy of our own makes the call, and nobody connects to it.
///
/// # Errors
/// When there is no such profile, or the provider gives no answer.
pub async fn test(profile: &ProfileId, context: &mut Context) -> Outcome<Value> {
    let (home, config) = (context.home()?, context.config()?);
    let vault = context.existing_vault(&home, &config).await?;
    let running = Running::start(Options {
        redactor: context.redactor(),
        config_file: context.config_file()?,
        home,
        config,
        mode: Mode::Run,
        vault,
        found: Vec::new(),
        lines_to_stdout: false,
        companion: None,
        way_out: None,
        inherited: Inherited::default(),
    })
    .await?;
    let tested = running.test_profile(&profile.to_string()).await;
    let _ = running.stop(Duration::from_secs(1)).await;
    let (outcome, status) = tested.map_err(|error| Failure::new(format!("{profile}: {error}")))?;
    Ok(json!({"profile": profile.to_string(), "outcome": outcome, "status": status}))
}

async fn restored(vault: &Vault, context: &Context) -> Outcome<Pools> {
    let pools = Pools::new(HashMap::new(), Jitter::none());
    let rows: Vec<_> = vault.pool_rows().await?.into_iter().map(|row| (row.scope, row.json)).collect();
    pools.restore(rows, context.now());
    // What was held against a value that was replaced meanwhile is over.
    for stored in vault.list().await? {
        if let Some(profile) = profile_of(&stored) {
            pools.know(&profile, fingerprint(stored.id, stored.version));
        }
    }
    Ok(pools)
}

/// A credential of a provider is a profile of its pool.
fn profile_of(stored: &Stored) -> Option<ProfileId> {
    Some(ProfileId { provider: stored.provider.clone()?, name: stored.name.short().clone() })
}
