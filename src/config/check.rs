//! What can only be judged when the whole file is read: names that refer to each other, and providers as a whole.
//!
//! Invariant: reports and changes nothing.

use std::collections::{HashMap, HashSet};

use super::fault::{At, Definition, References, Report, nearest};
use super::model::Config;
use super::suspect;
use crate::id::{AgentName, ProviderId};
use crate::message::pattern::HostTable;
use crate::policy::{Ports, Route, RouteAction};
use crate::provider::outcome::Rulebook;
use crate::provider::{Catalogue, DraftFault};

pub(super) fn check(config: &Config, report: &mut Report) {
    let References { providers, agents, fallbacks, definitions } = report.take_references();
    let embedded = Catalogue::embedded();
    let catalogue = match embedded.with(config.providers.clone()) {
        Ok(catalogue) => catalogue,
        Err(faults) => {
            for fault in faults {
                refused(&fault, &definitions, &embedded, report);
            }
            embedded
        }
    };
    unknown_providers(&providers, &definitions, &catalogue, report);
    unknown_agents(&agents, config, report);
    check_fallbacks(&fallbacks, &catalogue, report);
    rules(config, &definitions, report);
    misplaced_credentials(config, &catalogue, report);
    unreachable_routes(&config.routes, report);
}

/// What the catalogue says of a draft, at the place where it stands.
fn refused(fault: &DraftFault, definitions: &[Definition], embedded: &Catalogue, report: &mut Report) {
    let id = &fault.provider;
    let Some(definition) = definitions.iter().find(|definition| definition.provider == *id) else { return };
    // A change to a built-in provider is laid upon its kinds; the file knows no kinds.
    let part = fault.field.rsplit("].").find(|rest| !rest.starts_with("kinds") && !rest.starts_with("places"));
    let part = if fault.field.starts_with("kinds") { part.unwrap_or_default() } else { fault.field.as_str() };
    let at = definition.place_of(part);
    let path = if part.is_empty() { format!("providers.{id}") } else { format!("providers.{id}.{part}") };
    let own_hint = fault.hint.clone().unwrap_or_else(|| hint_for(part).to_owned());
    if suspect::may_be_secret(&fault.message) {
        report.fault(at, format!("`{path}` cannot be used"), own_hint);
        return;
    }
    let meant = embedded.suggest(id.as_str()).filter(|near| near != id && matches!(part, "hosts" | "inject"));
    let hint = meant.map(|near| format!("if the built-in `{near}` is meant, write its name"));
    report.fault(at, format!("`{path}`: {}", fault.message), hint.unwrap_or(own_hint));
}

fn hint_for(part: &str) -> &'static str {
    match part.rsplit('.').next().unwrap_or(part) {
        "header" => "a field of your provider's own: Authorization, X-Api-Key; a cookie is {cookie: NAME, value}",
        "cookie" => "letters, digits, `-` and `_`",
        "query" => "the name of the parameter alone, as in ?key=",
        "method" | "test" => "for example test: {method: GET, path: /v1/models}",
        variable if variable.starts_with("env") => "letters, digits and underscores, no digit first: ACME_API_KEY",
        slot if slot.starts_with("inject") => "each header, parameter and cookie stands once",
        _ => "config/keyferry.example.yaml shows how a provider is written",
    }
}

fn unknown_providers(
    references: &[(ProviderId, At)],
    definitions: &[Definition],
    catalogue: &Catalogue,
    report: &mut Report,
) {
    let own: HashSet<&str> = definitions.iter().map(|definition| definition.provider.as_str()).collect();
    for (provider, at) in references {
        let name = provider.as_str();
        if own.contains(name) || catalogue.provider(provider).is_some() {
            continue;
        }
        let near = nearest(name, own.iter().copied()).map(str::to_owned);
        let near = near.or_else(|| catalogue.suggest(name).map(|near| near.to_string()));
        let hint = near.map_or_else(
            || "describe it under `providers`; `keyferry provider list` shows those that are built in".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        report.fault(*at, format!("there is no provider `{provider}`"), hint);
    }
}

/// Agents may live in the vault alone. Where the file lists agents, though, a name that is not among them is a slip,
/// and a rule for nobody.
fn unknown_agents(references: &[(AgentName, At)], config: &Config, report: &mut Report) {
    if config.agents.is_empty() {
        return;
    }
    for (agent, at) in references {
        if config.agents.contains_key(agent) {
            continue;
        }
        let names: Vec<&str> = config.agents.keys().map(AgentName::as_str).collect();
        let hint = nearest(agent.as_str(), names).map_or_else(
            || format!("list it under `agents`; an empty entry is enough: `{agent}: {{}}`"),
            |near| format!("did you mean `{near}`?"),
        );
        report.fault(*at, format!("there is no agent `{agent}` under `agents`"), hint);
    }
}

/// Fallbacks that lead back to where they come from, or to where the request could not be understood.
fn check_fallbacks(fallbacks: &[(ProviderId, ProviderId, At)], catalogue: &Catalogue, report: &mut Report) {
    for (index, (from, to, at)) in fallbacks.iter().enumerate() {
        if from == to {
            report.fault(*at, format!("the pool of `{from}` falls back to itself"), "name another provider");
            continue;
        }
        if fallbacks.iter().take(index).any(|(first, second, _)| first == from && second == to) {
            let message = format!("the pool of `{from}` falls back to `{to}` twice");
            report.fault(*at, message, "write one entry with all models");
        }
        if leads_to(fallbacks, to, from) {
            let message = format!("the fallbacks of `{from}` and `{to}` lead in a circle");
            report.fault(*at, message, "a fallback leads away from its pool; leave one of them out");
        }
        let (Some(here), Some(there)) = (catalogue.provider(from), catalogue.provider(to)) else { continue };
        if !here.speaks.keys().any(|wire| there.speaks.contains_key(wire)) {
            let message = format!("`{from}` and `{to}` have no protocol in common");
            let hint = "a fallback takes the same request; a provider of your own says so: speaks: {chat: /v1/chat/completions}";
            report.fault(*at, message, hint);
        }
        if !here.fungible || !there.fungible {
            let message = format!("requests to `{from}` cannot go out with a credential of `{to}`");
            report.fault(*at, message, "at one of them another credential is another identity");
        }
    }
}

fn leads_to(fallbacks: &[(ProviderId, ProviderId, At)], start: &ProviderId, goal: &ProviderId) -> bool {
    let mut seen = HashSet::new();
    let mut next = vec![start];
    while let Some(here) = next.pop() {
        if here == goal {
            return true;
        }
        if seen.insert(here) {
            next.extend(fallbacks.iter().filter(|(from, _, _)| from == here).map(|(_, to, _)| to));
        }
    }
    false
}

/// What reading word by word does not find.
fn rules(config: &Config, definitions: &[Definition], report: &mut Report) {
    let Err(faults) = Rulebook::embedded().with(config.outcomes.clone()) else { return };
    for fault in faults {
        let definition = definitions.iter().find(|definition| definition.provider == fault.provider);
        let at = definition.map_or(At { line: 0, column: 0 }, |definition| definition.place_of("rules"));
        let hint = fault.hint.unwrap_or_else(|| "docs/rotation.md shows how rules are written".to_owned());
        report.fault(at, format!("`providers.{}`: {}: {}", fault.provider, fault.place, fault.message), hint);
    }
}

/// A credential is sealed to hosts; one for a host that its provider does not have must have been sealed to it by hand.
fn misplaced_credentials(config: &Config, catalogue: &Catalogue, report: &mut Report) {
    for (index, route) in config.routes.iter().enumerate() {
        let RouteAction::Allow { provider: Some(id), .. } = &route.action else { continue };
        let Some(provider) = catalogue.provider(id) else { continue };
        let mut hosts = provider.hosts().into_iter().chain(provider.templates());
        let host = &route.host;
        if !hosts.any(|known| known.clone().with_port(host.port()).covers(host) || host.covers(&known)) {
            let hint = format!("store a credential for it: keyferry secret set {id}:NAME --host {host}");
            report.warn_at(&route.at, format!("`routes[{index}].host` is no host of `{id}`"), hint);
        }
    }
}

/// Routes that an earlier one always answers for.
fn unreachable_routes(routes: &[Route], report: &mut Report) {
    let mut before: HostTable<usize> = HostTable::new();
    let mut wildcards: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, route) in routes.iter().enumerate() {
        let first = {
            let on_wildcard = route.host.suffix().and_then(|suffix| wildcards.get(suffix));
            let on_host = route.host.exact_host().map(|host| before.lookup_host(host));
            let earlier = on_wildcard.into_iter().flatten().chain(on_host.into_iter().flatten());
            // Few rules are for one host; where there are many, a hint less is no loss.
            let mut earlier = earlier.take(64);
            earlier.find(|first| routes.get(**first).is_some_and(|first| answers_for(first, route))).copied()
        };
        if let Some(first) = first {
            let message = format!("`routes[{index}]` is never reached, `routes[{first}]` matches first");
            report.warn_at(&route.at, message, "the first match wins; put the narrower one first");
        }
        if route.looks_inside() {
            continue;
        }
        before.insert(&route.host, index);
        if let Some(suffix) = route.host.suffix() {
            wildcards.entry(suffix).or_default().push(index);
        }
    }
}

/// Whether `first`, which is for the same hosts, matches whatever `second` would.
fn answers_for(first: &Route, second: &Route) -> bool {
    let agents = first.agents.is_empty()
        || (!second.agents.is_empty() && second.agents.iter().all(|agent| first.agents.contains(agent)));
    let ports = match (&first.ports, &second.ports) {
        (Ports::Usual, _) if first.action == RouteAction::Deny => true,
        (Ports::Listed(first), Ports::Listed(second)) => second.iter().all(|port| first.contains(port)),
        (Ports::Usual, Ports::Usual) => second.action != RouteAction::Deny && first.action == second.action,
        _ => false,
    };
    agents && ports
}
