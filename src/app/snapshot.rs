//! Builds the snapshot that exchanges read.

use std::collections::HashMap;
use std::sync::Arc;

use crate::agent::{Agents, TokenEntry};
use crate::app::error::AppError;
use crate::app::members::{self, Found};
use crate::config::{Config, FallbackTarget};
use crate::message::pattern::HostPattern;
use crate::placeholder::Minter;
use crate::policy::{Fallback, Policy};
use crate::provider::outcome::{RuleFault, Rulebook};
use crate::provider::{Catalogue, DraftFault};
use crate::proxy::{self, View};
use crate::source::{Credentials, Member, OpenValues};
use crate::vault::Vault;

/// What a snapshot is built from.
pub(super) struct Ingredients<'a> {
    pub config: &'a Config,
    pub fallback: Fallback,
    pub catalogue: &'a Arc<Catalogue>,
    pub vault: &'a Vault,
    pub found: &'a [Found],
    pub open: &'a Arc<OpenValues>,
}

/// The catalogue of a configuration: the built-in one and the user's own providers.
pub(super) fn catalogue(config: &Config) -> Result<Arc<Catalogue>, AppError> {
    config.catalogue().map(Arc::new).map_err(AppError::Providers)
}

/// Every member of every pool, unopened.
pub(super) async fn all_members(from: &Ingredients<'_>) -> Result<Vec<Member>, AppError> {
    let mut all = members::stored(from.catalogue, from.vault.snapshot().await?);
    all.extend(members::environment(from.catalogue, from.found));
    Ok(all)
}

/// Builds one.
pub(super) async fn build(from: Ingredients<'_>) -> Result<View, AppError> {
    let members = all_members(&from).await?;
    let tokens = from.vault.tokens().await?;
    let vault = from.vault.clone();
    let live = tokens
        .into_iter()
        .filter(|row| !row.revoked)
        .map(|row| (row.digest, TokenEntry { agent: row.agent, expires: row.expires }));
    let agents = Agents::new(Arc::new(move |token| vault.digest(token)), live);
    let mut hosts: Vec<(HostPattern, _)> = from.catalogue.hosts();
    // A credential sealed for a host of its own makes that host its provider's.
    for member in &members {
        for pattern in &member.audience {
            let entry = (pattern.clone(), member.profile.provider.clone());
            if !hosts.contains(&entry) {
                hosts.push(entry);
            }
        }
    }
    let minter = Minter::new(&from.vault.derived_key("placeholder"));
    let credentials = Credentials::new(from.vault.clone(), members, Arc::clone(from.open), minter);
    let policy = Policy::new(from.config.rules(from.fallback), credentials.holdings(), hosts);
    let orders: HashMap<_, _> =
        from.config.pools.iter().map(|(provider, pool)| (provider.clone(), pool.order.clone())).collect();
    let fallback =
        |target: &FallbackTarget| proxy::Fallback { provider: target.provider.clone(), models: target.models.clone() };
    let pools = from.config.pools.iter();
    let fallbacks = pools.map(|(provider, pool)| (provider.clone(), pool.fallback.iter().map(fallback).collect()));
    let fallbacks = fallbacks.collect();
    let foreign: HashMap<_, _> =
        from.config.pools.iter().map(|(provider, pool)| (provider.clone(), pool.foreign)).collect();
    let names = agents.names();
    let rules = Rulebook::embedded().with(from.config.outcomes.clone()).map_err(|faults| {
        let of = |fault: RuleFault| DraftFault {
            provider: fault.provider,
            field: fault.place,
            message: fault.message,
            hint: fault.hint,
        };
        AppError::Providers(faults.into_iter().map(of).collect())
    })?;
    Ok(View {
        policy,
        catalogue: Arc::clone(from.catalogue),
        agents,
        names,
        rules,
        credentials,
        fallbacks,
        orders,
        foreign,
    })
}
