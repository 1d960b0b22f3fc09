//! What an agent's process gets: its variables with placeholders, never a value.

use std::collections::HashSet;

use crate::admin::Installed;
use crate::config::Config;
use crate::id::AgentName;
use crate::message::pattern::HostPattern;
use crate::provider::{Carrier, Catalogue};
use crate::proxy::View;
use crate::source::Member;

/// The variables of `agent`. A pool's variable is set once, in the shape of its first profile's kind; another
/// profile's only where the operator gave it a variable of its own.
pub(super) fn variables(view: &View, agent: &AgentName) -> Vec<Installed> {
    let mut taken: HashSet<String> = HashSet::new();
    let mut installed = Vec::new();
    for provider in view.catalogue.iter() {
        if !view.policy.may_use(agent, &provider.id) {
            continue;
        }
        let conventional: HashSet<&str> =
            provider.kinds.iter().flat_map(|kind| kind.env.iter().map(String::as_str)).collect();
        let members = view.pool_order(&provider.id, agent);
        for (place, member) in members.into_iter().enumerate() {
            let Some(variable) = member.env.as_ref().filter(|_| member.install) else { continue };
            let own = !conventional.contains(variable.as_str());
            if (place > 0 && !own) || !taken.insert(variable.clone()) {
                continue;
            }
            installed.push(one(view, agent, member, variable));
        }
    }
    installed
}

fn one(view: &View, agent: &AgentName, member: &Member, variable: &str) -> Installed {
    let kind = view.catalogue.provider(&member.profile.provider).and_then(|provider| provider.kind(&member.kind));
    Installed {
        variable: variable.to_owned(),
        placeholder: view.credentials.placeholder(agent, member),
        provider: member.profile.provider.to_string(),
        profile: member.profile.to_string(),
        hosts: member.audience.iter().map(ToString::to_string).collect(),
        base_url_variables: kind.map(|kind| kind.base_url_env.clone()).unwrap_or_default(),
    }
}

/// Hosts that `agent` has a git credential for: those where a credential goes into Basic authentication.
pub(super) fn git_hosts(view: &View, agent: &AgentName) -> Vec<String> {
    let mut hosts = Vec::new();
    for provider in view.catalogue.iter() {
        for member in view.credentials.members(&provider.id, agent) {
            let Some(kind) = provider.kind(&member.kind) else { continue };
            let basic = kind.placements.iter().filter(|placement| {
                !placement.paths.is_empty()
                    && placement
                        .ways
                        .iter()
                        .any(|way| way.0.iter().any(|carrier| matches!(carrier, Carrier::Basic { .. })))
            });
            hosts.extend(
                basic
                    .flat_map(|placement| placement.hosts.iter())
                    .filter_map(|host| host.exact_host().map(ToString::to_string)),
            );
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// Every host that the certificate authority must be able to speak for: those of the catalogue, of the configuration,
/// and of what is stored.
pub fn certificate_hosts(
    catalogue: &Catalogue,
    config: &Config,
    sealed: impl IntoIterator<Item = HostPattern>,
) -> Vec<String> {
    let known = catalogue.hosts().into_iter().map(|(host, _)| host);
    let all = known.chain(config.intercepted_hosts()).chain(sealed);
    let mut hosts: Vec<String> = all.filter_map(|host| bare(&host)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

/// A pattern without its port.
fn bare(pattern: &HostPattern) -> Option<String> {
    let exact = pattern.exact_host().map(ToString::to_string);
    exact.or_else(|| pattern.suffix().map(|suffix| format!("*.{}", suffix.trim_start_matches('.'))))
}
