//! `agents` and `routes`: who may reach what.
//!
//! Invariant: a rule that could not do what it says is a fault: a tunnel that judges paths, a credential for a wildcard
//! of a whole top-level name, an interception of an address.

use std::collections::{BTreeMap, HashMap};

use http::Method;

use crate::config::fault::{At, Report, shown};
use crate::config::field::{Field, Section};
use crate::config::model::AgentConfig;
use crate::config::units;
use crate::config::words::ActionWord;
use crate::id::{AgentName, ProfileId, ProviderId};
use crate::message::origin::Host;
use crate::message::pattern::{HostPattern, PortWritten};
use crate::policy::limit::{Limits, Rate};
use crate::policy::path::PathPattern;
use crate::policy::{Allowance, Ports, Route, RouteAction};

use super::storage;

pub(super) const AGENT: &[&str] = &["allow", "limits", "env"];
pub(super) const ALLOWANCE: &[&str] = &["provider", "methods", "paths"];
pub(super) const LIMITS: &[&str] = &["requests", "concurrency", "tokens"];
pub(super) const ROUTE: &[&str] =
    &["name", "agents", "host", "ports", "methods", "paths", "action", "provider", "profile", "scrub", "set_cookie"];

pub(super) fn agents(field: &Field<'_>, report: &mut Report) -> BTreeMap<AgentName, AgentConfig> {
    let mut agents = BTreeMap::new();
    for (name, field) in report.named(field) {
        let agent = match AgentName::parse(name) {
            Ok(agent) => Some(agent),
            Err(error) => {
                let message = format!("{} is no name for an agent", shown(name));
                report.fault(field.key_at, message, error.to_string());
                None
            }
        };
        let config = agent_config(&field, report);
        if let (Some(agent), Some(config)) = (agent, config) {
            agents.insert(agent, config);
        }
    }
    agents
}

fn agent_config(field: &Field<'_>, report: &mut Report) -> Option<AgentConfig> {
    let section = report.section(field, AGENT)?;
    let mut agent = AgentConfig::default();
    if let Some(field) = section.get("allow") {
        agent.allow = Some(report.each(&field, |report, item| allowance(item, report)));
    }
    if let Some(field) = section.get("limits") {
        agent.limits = limits(&field, LIMITS, report);
    }
    if let Some(field) = section.get("env") {
        for (name, field) in report.named(&field) {
            if !storage::is_variable(name) {
                let hint = "letters, digits and underscores, no digit first";
                report.fault(field.key_at, format!("{} is not the name of a variable", shown(name)), hint);
            }
            if let Some(value) = variable_value(name, &field, report) {
                agent.env.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    Some(agent)
}

/// A value of the environment may be empty, and may have lines.
fn variable_value<'n>(name: &str, field: &Field<'n>, report: &mut Report) -> Option<&'n str> {
    let Some(value) = field.plain() else {
        report.text(field);
        return None;
    };
    if value.contains('\0') {
        report.fault(field.at(), format!("`{}` has a NUL in it", field.path), "no variable can hold one");
        return None;
    }
    let last = name.rsplit('_').next().unwrap_or(name).to_ascii_uppercase();
    if !value.is_empty()
        && ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PAT", "CREDENTIALS"].contains(&last.as_str())
    {
        let hint = "a secret is stored with `keyferry secret set`, and the agent gets a placeholder";
        report.warn(field.key_at, format!("`{}` has the name of a secret", field.path), hint);
    }
    Some(value)
}

fn allowance(field: &Field<'_>, report: &mut Report) -> Option<Allowance> {
    let at = report.mark(field.at());
    if !field.is_mapping() {
        let provider = provider(field, report)?;
        return Some(Allowance { provider, methods: Vec::new(), paths: Vec::new(), at });
    }
    let section = report.section(field, ALLOWANCE)?;
    let (methods, paths) = (methods(&section, report), paths(&section, report));
    let Some(field) = section.get("provider") else {
        report.fault(field.at(), format!("`{}` has no `provider`", field.path), "{provider: github, methods: [GET]}");
        return None;
    };
    Some(Allowance { provider: provider(&field, report)?, methods, paths, at })
}

/// Limits with these keys of [`LIMITS`].
pub(super) fn limits(field: &Field<'_>, keys: &[&str], report: &mut Report) -> Limits {
    let Some(section) = report.section(field, keys) else { return Limits::default() };
    let mut rate = |key: &str| -> Option<Rate> {
        let field = section.get(key).filter(|_| keys.contains(&key))?;
        report.parse(&field, "a rate", "write so many in so long: 60/min, 2M/day", units::rate)
    };
    let (requests, tokens) = (rate("requests"), rate("tokens"));
    let concurrency = section.get("concurrency").and_then(|field| {
        report.parse(&field, "a number from 1", "how many at a time: 8", |text| {
            text.parse().ok().filter(|number| *number > 0)
        })
    });
    Limits { requests, concurrency, tokens }
}

pub(super) fn routes(field: &Field<'_>, report: &mut Report) -> Vec<Route> {
    let mut names: HashMap<String, At> = HashMap::new();
    let mut routes = Vec::new();
    for item in report.items(field) {
        let Some(section) = report.section(&item, ROUTE) else { continue };
        let name = section.get("name").and_then(|field| {
            let name = report.text(&field)?;
            if let Some(first) = names.insert(name.to_owned(), field.at()) {
                let message = format!("`{}`: another route has this name, in line {}", field.path, first.line);
                report.fault(field.at(), message, "give each its own");
            }
            Some(name.to_owned())
        });
        routes.extend(route(&item, &section, name, report));
    }
    routes
}

fn route(field: &Field<'_>, section: &Section<'_>, name: Option<String>, report: &mut Report) -> Option<Route> {
    let agents = section.get("agents").map(|field| nonempty(&field, report, |r, item| agent_name(item, r)));
    let methods = methods(section, report);
    let paths = paths(section, report);
    let host_field = required(field, section, "host", "host: api.example.com", report);
    let host = host_field.as_ref().and_then(|field| host(field, report));
    let listed = section.get("ports").map(|field| nonempty(&field, report, |r, item| port(item, r)));
    let scrub = section.get("scrub").and_then(|field| report.word(&field));
    let set_cookie = section.get("set_cookie").and_then(|field| report.word(&field)).unwrap_or_default();
    let provider = section.get("provider").and_then(|field| provider(&field, report));
    let profile = section.get("profile").and_then(|field| profile(&field, provider.as_ref(), report));
    let action = required(field, section, "action", "action: deny, tunnel or allow", report);
    let action = action.and_then(|field| report.word::<ActionWord>(&field))?;
    let looks_inside = !methods.is_empty() || !paths.is_empty();
    refuse_empty_words(section, action, looks_inside, report);
    let (host, written) = host?;
    if let (Some(field), true) = (&host_field, action == ActionWord::Allow || looks_inside) {
        refuse_address(&host, field, report);
    }
    let ports = match (listed, written) {
        (Some(_), PortWritten::Yes) => {
            let message = format!("`{}` says the port twice, in `host` and in `ports`", field.path);
            report.fault(field.at(), message, "leave it out of `host`");
            return None;
        }
        (Some(ports), PortWritten::No) => Ports::Listed(ports),
        (None, PortWritten::Yes) => Ports::Listed(vec![host.port()]),
        (None, PortWritten::No) => Ports::Usual,
    };
    let action = match action {
        ActionWord::Deny => RouteAction::Deny,
        ActionWord::Tunnel => RouteAction::Tunnel,
        ActionWord::Allow => {
            if section.has("provider") {
                let wide = host.suffix().is_some_and(|suffix| !suffix.contains('.'));
                if let (true, Some(field)) = (wide, &host_field) {
                    let message =
                        format!("`{}` would send a credential to every domain under a top-level name", field.path);
                    report.fault(field.at(), message, "name the domain too: *.example.com");
                }
                // A provider that could not be read must not become a route without one.
                provider.as_ref()?;
            }
            RouteAction::Allow { provider, profile }
        }
    };
    let at = report.mark(field.at());
    // From here on, `ports` says which ports.
    let host = host.with_port(443);
    let agents = agents.unwrap_or_default();
    Some(Route { name, at, agents, host, ports, methods, paths, action, scrub, set_cookie })
}

/// Keys that have no meaning beside the action.
fn refuse_empty_words(section: &Section<'_>, action: ActionWord, looks_inside: bool, report: &mut Report) {
    if action == ActionWord::Tunnel && looks_inside {
        let hint = "use `action: allow` to intercept, or leave out `methods` and `paths`";
        report.fault(
            section.at,
            format!("`{}`: a tunnel is not read, so it has no methods and paths", section.path),
            hint,
        );
    }
    for key in ["provider", "profile", "scrub", "set_cookie"] {
        if let (true, Some(field)) = (action != ActionWord::Allow, section.get(key)) {
            let hint = "use `action: allow`, or leave it out";
            report.fault(field.key_at, format!("`{}` says nothing beside this action", field.path), hint);
        }
    }
}

fn profile(field: &Field<'_>, provider: Option<&ProviderId>, report: &mut Report) -> Option<ProfileId> {
    report.convert(field, |text| {
        let profile = ProfileId::parse(text).map_err(|error| {
            (format!("is no profile: {error}"), "write provider:name, as in `keyferry profile list`".to_owned())
        })?;
        match provider {
            Some(provider) if profile.provider != *provider => {
                let hint = format!("write {provider}:{}", profile.name);
                Err((format!("is a profile of another provider than `{provider}`"), hint))
            }
            Some(_) => Ok(profile),
            None => {
                let hint = format!("add `provider: {}`", profile.provider);
                Err(("has no provider beside it".to_owned(), hint))
            }
        }
    })
}

fn required<'n>(
    field: &Field<'n>,
    section: &Section<'n>,
    key: &str,
    hint: &str,
    report: &mut Report,
) -> Option<Field<'n>> {
    let found = section.get(key);
    if found.is_none() {
        report.fault(field.at(), format!("`{}` has no `{key}`", field.path), hint);
    }
    found
}

/// A list that, being there, has something in it: an empty one would mean everything and look like nothing.
fn nonempty<'n, T>(
    field: &Field<'n>,
    report: &mut Report,
    read: impl FnMut(&mut Report, &Field<'n>) -> Option<T>,
) -> Vec<T> {
    if field.is_empty() {
        let hint = "leave the key out where everything is meant";
        report.fault(field.at(), format!("`{}` is empty", field.path), hint);
        return Vec::new();
    }
    report.each(field, read)
}

fn methods(section: &Section<'_>, report: &mut Report) -> Vec<Method> {
    section.get("methods").map(|field| nonempty(&field, report, method)).unwrap_or_default()
}

/// A method. Methods are case-sensitive (RFC 9110 section 9.1), and every one in use is in capitals.
pub(in crate::config) fn method(report: &mut Report, field: &Field<'_>) -> Option<Method> {
    report.convert(field, |text| {
        let plain = text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if plain => Ok(method),
            Ok(_) => Err(("is no method in capitals".to_owned(), format!("write {}", text.to_ascii_uppercase()))),
            Err(_) => Err(("is no method".to_owned(), "write GET, POST, ...".to_owned())),
        }
    })
}

fn paths(section: &Section<'_>, report: &mut Report) -> Vec<PathPattern> {
    let Some(field) = section.get("paths") else { return Vec::new() };
    nonempty(&field, report, |report, item| {
        report.convert(item, |text| {
            PathPattern::parse(text).map_err(|error| (error.to_string(), error.hint().to_owned()))
        })
    })
}

fn port(field: &Field<'_>, report: &mut Report) -> Option<u16> {
    report.parse(field, "a port", "a number from 1 to 65535", |text| text.parse().ok().filter(|port| *port > 0))
}

pub(in crate::config) fn host(field: &Field<'_>, report: &mut Report) -> Option<(HostPattern, PortWritten)> {
    report.convert(field, |text| {
        HostPattern::parse_with_port(text).map_err(|error| (error.to_string(), error.hint().to_owned()))
    })
}

/// Our certificates are never for addresses.
pub(super) fn refuse_address(host: &HostPattern, field: &Field<'_>, report: &mut Report) {
    if matches!(host.exact_host(), Some(Host::Address(_))) {
        let hint = "give it a name, and its address in `upstream.resolve`; or use `action: tunnel`";
        report.fault(field.at(), format!("`{}` is an address, which cannot be intercepted", field.path), hint);
    }
}

pub(super) fn agent_name(field: &Field<'_>, report: &mut Report) -> Option<AgentName> {
    let agent = report.convert(field, |text| {
        AgentName::parse(text).map_err(|error| ("is no name for an agent".to_owned(), error.to_string()))
    })?;
    report.refer_to_agent(&agent, field.at());
    Some(agent)
}

/// The provider that a value names. Whether there is one of that name is checked when all are known.
pub(in crate::config) fn provider(field: &Field<'_>, report: &mut Report) -> Option<ProviderId> {
    let text = report.text(field)?;
    provider_name(text, field.at(), report)
}

pub(super) fn provider_name(text: &str, at: At, report: &mut Report) -> Option<ProviderId> {
    match ProviderId::parse(text) {
        Ok(provider) => {
            report.refer_to_provider(&provider, at);
            Some(provider)
        }
        Err(error) => {
            report.fault(at, format!("{} is no name for a provider", shown(text)), error.to_string());
            None
        }
    }
}
