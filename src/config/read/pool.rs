//! `pools`: how the profiles of a provider take turns.
//!
//! Invariant: a profile stands at most once in an order.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::config::fault::{Report, shown};
use crate::config::field::Field;
use crate::config::model::{Cooldown, FallbackTarget, PoolConfig};
use crate::config::units;
use crate::id::{ProfileId, ProviderId, ShortName};
use crate::message::glob::globbed;
use crate::pool::{AttemptLimits, Lane};

use super::{access, upstream};

pub(super) const POOL: &[&str] = &[
    "order",
    "strategy",
    "rotate",
    "cooldown",
    "wait",
    "warm_wait",
    "attempts",
    "groups",
    "learn_groups",
    "fallback",
    "foreign",
    "limits",
];
pub(super) const COOLDOWN: &[&str] = &["rate_limit", "quota", "billing", "auth", "forbidden", "overload"];
pub(super) const ATTEMPTS: &[&str] =
    &["total", "same_profile", "throttle_hops", "warm_throttle_hops", "overload_hops", "suspect_hops", "waits"];
pub(super) const LIMITS: &[&str] = &["requests", "concurrency"];
const FALLBACK: &[&str] = &["provider", "models"];

/// No attempt begins and no wait ends later than this after a request came.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

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
    }
    if let Some(rotate) = section.get("rotate").and_then(|field| report.word(&field)) {
        pool.rotate = rotate;
    }
    if let Some(cooldown) = section.get("cooldown").and_then(|field| cooldown(&field, report)) {
        pool.cooldown = cooldown;
    }
    if let Some(wait) = section.get("wait").and_then(|field| wait(&field, report)) {
        pool.wait = wait;
    }
    if let Some(wait) = section.get("warm_wait").and_then(|field| wait(&field, report)) {
        pool.warm_wait = wait;
    }
    if let Some(field) = section.get("attempts") {
        attempts(&field, &mut pool.attempts, report);
    }
    if let Some(field) = section.get("groups") {
        pool.groups = groups(&field, provider, report);
    }
    if let Some(learn) = section.get("learn_groups").and_then(|field| report.word(&field)) {
        pool.learn_groups = learn;
    }
    if let Some(field) = section.get("fallback") {
        pool.fallback = report.each(&field, |report, item| fallback(item, provider, report));
        if !pool.rotate {
            let hint = "`rotate: off` passes on what came; leave one of the two out";
            report.fault(field.key_at, format!("`{}` is never used by a pool that does not rotate", field.path), hint);
        }
    }
    if let Some(foreign) = section.get("foreign").and_then(|field| report.word(&field)) {
        pool.foreign = foreign;
    }
    if let Some(field) = section.get("limits") {
        pool.limits = access::limits(&field, LIMITS, report);
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

const LADDER_HINT: &str =
    "write `argentos`, `short`, a list of durations ([1m, 5m, 25m, 1h]), or lists by kind of failure";

fn cooldown(field: &Field<'_>, report: &mut Report) -> Option<Cooldown> {
    if field.is_mapping() {
        let section = report.section(field, COOLDOWN)?;
        let mut lanes = BTreeMap::new();
        for key in COOLDOWN {
            let Some((field, lane)) = section.get(key).zip(Lane::parse(&key.replace('_', "-"))) else { continue };
            lanes.extend(ladder(&field, lane, report).map(|steps| (lane, steps)));
        }
        return Some(Cooldown::Lanes(lanes));
    }
    if field.is_list() {
        return ladder(field, Lane::RateLimit, report).map(Cooldown::Ladder);
    }
    report.parse(field, "a cooldown", LADDER_HINT, |text| match text {
        "argentos" => Some(Cooldown::Argentos),
        "short" => Some(Cooldown::Short),
        _ => None,
    })
}

/// Rests, each at least as long as the one before and none longer than what an upstream itself may state.
fn ladder(field: &Field<'_>, lane: Lane, report: &mut Report) -> Option<Vec<Duration>> {
    if field.is_list() && field.is_empty() {
        report.fault(field.at(), format!("`{}` is empty", field.path), "write [1m, 5m, 25m, 1h], or leave it out");
        return None;
    }
    let steps = report.each(field, |report, item| {
        let step = upstream::duration(item, report)?;
        if step <= lane.cap() {
            return Some(step);
        }
        let hint = format!("at most {} for this kind of failure", units::write_duration(lane.cap()));
        report.fault(item.at(), format!("`{}` is longer than any rest", item.path), hint);
        None
    });
    if steps.is_empty() {
        return None;
    }
    if steps.is_sorted() {
        return Some(steps);
    }
    let hint = "each rest is at least as long as the one before";
    report.fault(field.at(), format!("`{}` does not rise", field.path), hint);
    None
}

fn wait(field: &Field<'_>, report: &mut Report) -> Option<Duration> {
    if field.plain() == Some("off") {
        return Some(Duration::ZERO);
    }
    let wait = upstream::duration(field, report)?;
    if wait <= LONGEST_WAIT {
        return Some(wait);
    }
    let hint = "60s at most, since a request makes its last attempt by then; `off` never waits";
    report.fault(field.at(), format!("`{}` is longer than a request can wait", field.path), hint);
    None
}

fn attempts(field: &Field<'_>, limits: &mut AttemptLimits, report: &mut Report) {
    let Some(section) = report.section(field, ATTEMPTS) else { return };
    let slots: [(&str, u8, &mut u8); 7] = [
        ("total", 1, &mut limits.attempts),
        ("same_profile", 0, &mut limits.same_profile),
        ("throttle_hops", 0, &mut limits.throttle_hops),
        ("warm_throttle_hops", 0, &mut limits.warm_throttle_hops),
        ("overload_hops", 0, &mut limits.overload_hops),
        ("suspect_hops", 0, &mut limits.suspect_hops),
        ("waits", 0, &mut limits.waits),
    ];
    for (key, least, slot) in slots {
        let Some(field) = section.get(key) else { continue };
        let number = |text: &str| text.parse().ok().filter(|number| (least..=8).contains(number));
        let expected = if least == 0 { "a number from 0 to 8" } else { "a number from 1 to 8" };
        if let Some(number) = report.parse(&field, expected, "eight sends are the most for one request", number) {
            *slot = number;
        }
    }
}

fn groups(
    field: &Field<'_>,
    provider: Option<&ProviderId>,
    report: &mut Report,
) -> BTreeMap<ShortName, Vec<ShortName>> {
    let mut groups = BTreeMap::new();
    let mut seen = HashSet::new();
    for (name, field) in report.named(field) {
        let parsed = ShortName::parse(name);
        if let Err(error) = &parsed {
            report.fault(field.key_at, format!("{} is no name for a group", shown(name)), error.to_string());
        }
        let members = report.each(&field, |report, item| {
            let name = member(item, provider, report)?;
            if seen.insert(name.clone()) {
                return Some(name);
            }
            let hint = "a profile has one quota; merge the groups, or name it in one of them";
            report.fault(item.at(), format!("`{}` is in a group already", item.path), hint);
            None
        });
        if let Ok(name) = parsed {
            groups.insert(name, members);
        }
    }
    groups
}

fn fallback(field: &Field<'_>, pool: Option<&ProviderId>, report: &mut Report) -> Option<FallbackTarget> {
    let section = report.section(field, FALLBACK)?;
    let provider = match section.get("provider") {
        Some(field) => {
            let provider = access::provider(&field, report);
            if let Some((pool, provider)) = pool.zip(provider.as_ref()) {
                report.refer_to_fallback(pool, provider, field.at());
            }
            provider
        }
        None => {
            report.fault(
                field.at(),
                format!("`{}` has no `provider`", field.path),
                "{provider: openrouter, models: ...}",
            );
            None
        }
    };
    let map = section.get("models");
    let named = map.as_ref().map(|map| report.named(map)).unwrap_or_default();
    if named.is_empty() && map.as_ref().is_none_or(|map| map.is_mapping() || map.is_empty()) {
        let at = map.as_ref().map_or(field.at(), Field::at);
        let hint =
            "models: {\"claude-sonnet-*\": anthropic/claude-sonnet-4}; without a name there is nothing to ask for";
        report.fault(at, format!("`{}.models` names no model", field.path), hint);
    }
    let mut models: Vec<(String, String)> = Vec::new();
    for (from, field) in named {
        let odd = |c: char| c.is_whitespace() || "?[]{}\\".contains(c);
        if from.is_empty() || from.contains(odd) {
            let hint = "the model's name; * stands for anything, and nothing else does";
            report.fault(field.key_at, format!("{} is no name for models", shown(from)), hint);
        }
        if let Some((first, _)) = models.iter().find(|(first, _)| globbed(first, from)) {
            let message = format!("{} is never reached, {} fits first", shown(from), shown(first));
            report.fault(field.key_at, message, "the first that fits counts; put the narrower one first");
        }
        if let Some(to) = report.text(&field) {
            models.push((from.to_owned(), to.to_owned()));
        }
    }
    Some(FallbackTarget { provider: provider?, models })
}
