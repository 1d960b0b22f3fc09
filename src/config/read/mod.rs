//! From the tree of the file to checked values, one file for each part of the grammar.
//!
//! Invariant: reading never stops at a fault, and never invents a value that was not written.

pub(super) mod access;
mod listen;
mod pool;
mod provider;
mod rules;
mod storage;
mod upstream;

use super::fault::Report;
use super::field::Field;
use super::model::Config;
use super::yaml::Node;
use crate::policy::Enforcement;

/// The keys that each mapping of the grammar may have, by its path.
#[cfg(test)]
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("", FILE),
    ("listen", listen::LISTEN),
    ("listen.proxy", listen::PROXY),
    ("listen.proxy_tls", listen::PROXY_TLS),
    ("listen.base_url", listen::PROXY),
    ("listen.transparent", listen::TRANSPARENT),
    ("listen.unix", listen::UNIX),
    ("listen.admin", listen::ADMIN),
    ("vault", storage::VAULT),
    ("upstream", upstream::UPSTREAM),
    ("upstream.timeouts", upstream::TIMEOUTS),
    ("providers.*", provider::PROVIDER),
    ("providers.*.test", provider::TEST),
    ("providers.*.rules[]", rules::RULE),
    ("providers.*.stream[]", rules::RULE),
    ("providers.*.speaks", provider::SPEAKS),
    ("pools.*", pool::POOL),
    ("pools.*.cooldown", pool::COOLDOWN),
    ("pools.*.attempts", pool::ATTEMPTS),
    ("pools.*.limits", pool::LIMITS),
    ("agents.*", access::AGENT),
    ("agents.*.limits", access::LIMITS),
    ("agents.*.allow[]", access::ALLOWANCE),
    ("routes[]", access::ROUTE),
    ("log", storage::LOG),
    ("audit", storage::AUDIT),
];

/// The keys of the file.
const FILE: &[&str] = &[
    "listen",
    "vault",
    "upstream",
    "providers",
    "pools",
    "agents",
    "routes",
    "default",
    "mode",
    "scrub",
    "log",
    "audit",
];

/// Reads the whole file.
pub(super) fn config(root: &Node, report: &mut Report) -> Config {
    let mut config = Config::default();
    let Some(file) = report.section(&Field::root(root), FILE) else { return config };
    if let Some(field) = file.get("listen") {
        listen::read(&field, &mut config.listen, report);
    }
    if let Some(field) = file.get("vault") {
        storage::vault(&field, &mut config.vault, report);
    }
    if let Some(field) = file.get("upstream") {
        upstream::read(&field, &mut config.upstream, report);
    }
    if let Some(field) = file.get("providers") {
        (config.providers, config.outcomes) = provider::read(&field, report);
    }
    if let Some(field) = file.get("pools") {
        config.pools = pool::read(&field, report);
    }
    if let Some(field) = file.get("agents") {
        config.agents = access::agents(&field, report);
    }
    if let Some(field) = file.get("routes") {
        config.routes = access::routes(&field, report);
    }
    if let Some(field) = file.get("default") {
        config.default = report.word(&field);
        config.default_at = report.mark(field.key_at);
    }
    if let Some(field) = file.get("mode")
        && let Some(mode) = report.word(&field)
    {
        config.mode = mode;
        if mode == Enforcement::Observe {
            let hint = "`mode: enforce` once the access log shows no more `would_deny` that is not meant";
            report.warn(field.key_at, "`mode: observe`: routes and allowances refuse nothing", hint);
        }
    }
    if let Some(scrub) = file.get("scrub").and_then(|field| report.word(&field)) {
        config.scrub = scrub;
    }
    if let Some(field) = file.get("log") {
        storage::log(&field, &mut config.log, report);
    }
    if let Some(field) = file.get("audit") {
        storage::audit(&field, &mut config.audit, report);
    }
    config
}
