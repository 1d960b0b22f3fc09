//! What can only be judged when the whole file is read: names that refer to each other.
//!
//! Invariant: reports faults and changes nothing.

use std::collections::HashSet;

use super::fault::{At, References, Report, nearest, suggestion};
use super::known::builtin_providers;
use super::model::{Config, ProviderDraft};

pub(super) fn check(config: &Config, report: &mut Report) {
    let References { providers, agents } = report.take_references();
    let own: Vec<&str> = config.providers.iter().map(|draft| draft.name.as_str()).collect();
    let known: HashSet<&str> = builtin_providers().iter().copied().chain(own.iter().copied()).collect();
    for (provider, at) in providers {
        if !known.contains(provider.as_str()) {
            let hint = nearest(provider.as_str(), own.iter().chain(builtin_providers()).copied()).map_or_else(
                || "describe it under `providers`; `keyferry provider list` shows those that are built in".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            report.fault(at, format!("there is no provider `{provider}`"), Some(hint));
        }
    }
    // Agents may live in the vault alone. Where the file lists agents, though, a name that is not among them is a slip,
    // and a rule for nobody.
    if !config.agents.is_empty() {
        for (agent, at) in agents {
            if !config.agents.contains_key(&agent) {
                let names = config.agents.keys().map(|name| name.as_str()).collect::<Vec<_>>();
                let hint = suggestion(agent.as_str(), names.iter().copied())
                    .filter(|hint| hint.starts_with("did"))
                    .unwrap_or_else(|| format!("list it under `agents`; an empty entry is enough: `{agent}: {{}}`"));
                report.fault(at, format!("there is no agent `{agent}` under `agents`"), Some(hint));
            }
        }
    }
    for draft in &config.providers {
        incomplete(draft, report);
    }
}

/// A change to a built-in provider may leave things out; a new one may not.
fn incomplete(draft: &ProviderDraft, report: &mut Report) {
    let name = &draft.name;
    if builtin_providers().contains(&name.as_str()) {
        return;
    }
    let at =
        draft.at.0.first().map_or(At { line: 0, column: 0 }, |(_, line, column)| At { line: *line, column: *column });
    let hint = nearest(name.as_str(), builtin_providers().iter().copied())
        .map(|near| format!("if the built-in `{near}` is meant, write its name"));
    if draft.hosts.is_none() {
        let hint = hint.clone().or_else(|| Some("hosts: [api.example.com]".to_owned()));
        report.fault(at, format!("the new provider `{name}` has no `hosts`"), hint);
    }
    if draft.inject.is_none() {
        let example = "inject: {header: Authorization, value: \"Bearer {secret}\"}";
        report.fault(
            at,
            format!("the new provider `{name}` has no `inject`"),
            hint.or_else(|| Some(example.to_owned())),
        );
    }
}
