//! The profiles of a home whose daemon does not run: what the vault keeps of them.
//!
//! Invariant: the state that is shown and changed here is the one that the next process begins with.

use serde_json::{Value, json};

use super::context::Context;
use super::output::{Failure, Outcome};
use crate::id::ProfileId;
use crate::pool::Pools;
use crate::telemetry::Action;
use crate::vault::{PoolRow, Stored, Vault};

/// `profile list` without a daemon.
///
/// # Errors
/// When the vault cannot be read.
pub async fn profiles(context: &Context) -> Outcome<Value> {
    let (home, config) = (context.home()?, context.config()?);
    let Some(vault) = context.vault(&home, &config).await? else { return Ok(json!([])) };
    let states = restored(&vault, context).await?.states(context.now());
    let stored = vault.list().await?;
    let rows = stored.iter().filter_map(|stored| Some((profile_of(stored)?, stored))).map(|(profile, stored)| {
        let known = states.iter().find(|state| state.profile == profile);
        known.map_or_else(|| untouched(&profile, stored), |state| state.to_json(&stored.kind))
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
        _ => pools.reset(profile),
    }
    if let Some(rows) = pools.changed_rows() {
        let rows = rows.into_iter().map(|(scope, json)| PoolRow { scope, json }).collect();
        vault.save_pool_rows(rows).await?;
    }
    super::changes::record(&home, &vault, action, &profile.to_string(), context).await
}

async fn restored(vault: &Vault, context: &Context) -> Outcome<Pools> {
    let pools = Pools::default();
    let rows = vault.pool_rows().await?.into_iter().map(|row| (row.scope, row.json));
    pools.restore(rows, context.now());
    Ok(pools)
}

/// A credential of a provider is a profile of its pool.
fn profile_of(stored: &Stored) -> Option<ProfileId> {
    Some(ProfileId { provider: stored.provider.clone()?, name: stored.name.short().clone() })
}

fn untouched(profile: &ProfileId, stored: &Stored) -> Value {
    json!({
        "profile": profile.to_string(),
        "provider": profile.provider.as_str(),
        "type": stored.kind,
        "state": "ready",
        "until": null,
        "reason": null,
        "level": 0,
        "last_used": null,
        "holds": [],
    })
}
