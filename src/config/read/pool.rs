//! `pools`: how the profiles of a provider take turns.
//!
//! Invariant: a profile stands at most once in an order.

use std::collections::{BTreeMap, HashSet};

use crate::config::fault::Report;
use crate::config::field::Field;
use crate::config::model::{Cooldown, FallbackTarget, PoolConfig, Strategy};
use crate::id::{ProfileId, ProviderId, ShortName};

use super::{access, upstream};

pub(super) const POOL: &[&str] = &["order", "strategy", "cooldown", "fallback", "foreign"];
const FALLBACK: &[&str] = &["provider", "models"];

pub(super) fn read(field: &Field<'_>, report: &mut Report) -> BTreeMap<ProviderId, PoolConfig> {
    let mut pools = BTreeMap::new();
    for (name, field) in report.named(field) {
        let provider = access::provider_name(name, field.key_at, report);
        let Some(pool) = pool(&field, provider.as_ref(), report) else { continue };
        if let Some(provider) = provider {
            pools.insert(provider, pool);
        }
    }
    pools
}

fn pool(field: &Field<'_>, provider: Option<&ProviderId>, report: &mut Report) -> Option<PoolConfig> {
    let section = report.section(field, POOL)?;
    let mut pool = PoolConfig::default();
    if let Some(field) = section.get("order") {
        let mut seen = HashSet::new();
        pool.order = report.each(&field, |report, item| {
            let name = member(item, provider, report)?;
            if seen.insert(name.clone()) {
                return Some(name);
            }
            report.fault(item.at(), format!("`{}` stands twice in the order", item.path), "keep one of them");
            None
        });
    }
    if let Some(field) = section.get("strategy")
        && let Some(strategy) = report.word(&field)
    {
        pool.strategy = strategy;
        match strategy {
            Strategy::Sticky | Strategy::Priority => {}
            Strategy::RoundRobin => {
                let written = format!("{}: round-robin", field.path);
                report.needs("pools.*.strategy: round-robin", &written, field.at());
            }
            Strategy::LeastUsed => {
                let written = format!("{}: least-used", field.path);
                report.needs("pools.*.strategy: least-used", &written, field.at());
            }
        }
    }
    if let Some(cooldown) = section.get("cooldown").and_then(|field| cooldown(&field, report)) {
        pool.cooldown = cooldown;
    }
    if let Some(field) = section.get("fallback") {
        report.needs("pools.*.fallback", &field.path, field.key_at);
        pool.fallback = report.each(&field, |report, item| fallback(item, report));
    }
    if let Some(field) = section.get("foreign") {
        report.needs("pools.*.foreign", &field.path, field.key_at);
        if let Some(foreign) = report.word(&field) {
            pool.foreign = foreign;
        }
    }
    Some(pool)
}

/// `titanium`, or `anthropic:titanium` in the pool of `anthropic`.
fn member(field: &Field<'_>, pool: Option<&ProviderId>, report: &mut Report) -> Option<ShortName> {
    report.convert(field, |text| {
        if !text.contains(':') {
            return ShortName::parse(text)
                .map_err(|error| ("is no name for a credential".to_owned(), error.to_string()));
        }
        let profile = ProfileId::parse(text).map_err(|error| ("is no profile".to_owned(), error.to_string()))?;
        match pool {
            Some(pool) if profile.provider != *pool => {
                let hint = "a pool has profiles of its own provider only; `fallback` is for others".to_owned();
                Err((format!("is a profile of another provider than `{pool}`"), hint))
            }
            _ => Ok(profile.name),
        }
    })
}

fn cooldown(field: &Field<'_>, report: &mut Report) -> Option<Cooldown> {
    if field.is_list() && field.is_empty() {
        report.fault(field.at(), format!("`{}` is empty", field.path), "write [1m, 5m, 25m, 1h], or leave it out");
        return None;
    }
    if !field.is_list() {
        let hint = "write `argentos`, or a list of durations: [1m, 5m, 25m, 1h]";
        return report.parse(field, "a cooldown", hint, |text| (text == "argentos").then_some(Cooldown::Argentos));
    }
    let steps = report.each(field, |report, item| upstream::duration(item, report));
    if steps.is_empty() {
        return None;
    }
    if steps.is_sorted() {
        return Some(Cooldown::Ladder(steps));
    }
    let hint = "each rest is at least as long as the one before";
    report.fault(field.at(), format!("`{}` does not rise", field.path), hint);
    None
}

fn fallback(field: &Field<'_>, report: &mut Report) -> Option<FallbackTarget> {
    let section = report.section(field, FALLBACK)?;
    let provider = match section.get("provider") {
        Some(field) => access::provider(&field, report),
        None => {
            report.fault(field.at(), format!("`{}` has no `provider`", field.path), "{provider: openrouter}");
            None
        }
    };
    let mut models = BTreeMap::new();
    if let Some(field) = section.get("models") {
        for (from, field) in report.named(&field) {
            if let Some(to) = report.text(&field) {
                models.insert(from.to_owned(), to.to_owned());
            }
        }
    }
    Some(FallbackTarget { provider: provider?, models })
}
