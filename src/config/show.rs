//! Writes a configuration out in full: as a tree of values for comparison, and as YAML.
//!
//! Invariant: what is written here reads back as the same configuration.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::model::{
    AgentConfig, Config, Cooldown, FallbackTarget, Listener, MasterKey, PoolConfig, ProxySource, UnixListener, VaultUrl,
};
use super::units::write_duration;
use super::words::{ActionWord, Word};
use crate::policy::limit::Limits;
use crate::policy::path::PathPattern;
use crate::policy::{Allowance, Ports, Route, RouteAction, SetCookie};
use crate::provider::outcome::RulesDraft;
use crate::provider::{Draft, InjectDraft};

impl Config {
    /// The effective configuration as YAML: what the file says, and the defaults of what it leaves out.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = String::new();
        if let Value::Object(entries) = self.to_value() {
            for (key, value) in &entries {
                write_entry(&mut text, 0, key, value);
            }
        }
        text
    }

    /// The effective configuration as a tree with the file's own keys.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut file = Map::new();
        file.insert("listen".to_owned(), self.listen_value());
        file.insert("vault".to_owned(), self.vault_value());
        file.insert("upstream".to_owned(), self.upstream_value());
        let providers = self.providers.iter().map(|(id, draft)| {
            let mut value = provider(draft);
            let outcomes = self.outcomes.iter().filter(|(of, _)| of == id);
            outcomes.for_each(|(_, draft)| add_outcomes(&mut value, draft));
            (id.to_string(), Value::Object(value))
        });
        file.insert("providers".to_owned(), Value::Object(providers.collect()));
        let pools = self.pools.iter().map(|(name, config)| (name.to_string(), pool(config)));
        file.insert("pools".to_owned(), Value::Object(pools.collect()));
        let agents = self.agents.iter().map(|(name, config)| (name.to_string(), agent(config)));
        file.insert("agents".to_owned(), Value::Object(agents.collect()));
        file.insert("routes".to_owned(), self.routes.iter().map(route).collect());
        if let Some(default) = self.default {
            file.insert("default".to_owned(), default.word().into());
        }
        file.insert("mode".to_owned(), self.mode.word().into());
        file.insert("scrub".to_owned(), self.scrub.word().into());
        let log = json!({
            "format": self.log.format.word(),
            "access": self.log.access.to_string_lossy(),
            "level": self.log.level.word(),
        });
        file.insert("log".to_owned(), log);
        file.insert("audit".to_owned(), json!({ "durability": self.audit.durability.word() }));
        Value::Object(file)
    }

    fn listen_value(&self) -> Value {
        let listen = &self.listen;
        let mut value = Map::new();
        let optional = |listener: &Option<Listener>| listener.as_ref().map(listener_value);
        let entries = [
            ("proxy", Some(listener_value(&listen.proxy))),
            ("proxy_tls", optional(&listen.proxy_tls)),
            ("base_url", Some(listener_value(&listen.base_url))),
            ("transparent", optional(&listen.transparent)),
            ("unix", listen.unix.as_ref().map(unix_value)),
            ("admin", Some(listener_value(&listen.admin))),
        ];
        for (key, entry) in entries {
            insert_some(&mut value, key, entry);
        }
        Value::Object(value)
    }

    fn vault_value(&self) -> Value {
        let url = match &self.vault.url {
            VaultUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            VaultUrl::Postgres(url) => url.clone(),
        };
        let key = match &self.vault.master_key {
            MasterKey::File(path) => format!("file:{}", path.display()),
            MasterKey::Env(name) => format!("env:{name}"),
            MasterKey::Passphrase => "passphrase".to_owned(),
            MasterKey::Keyring => "keyring".to_owned(),
            MasterKey::Command(command) => format!("command:{command}"),
            MasterKey::Credential(name) => format!("credential:{name}"),
        };
        json!({ "url": url, "master_key": key })
    }

    fn upstream_value(&self) -> Value {
        let upstream = &self.upstream;
        let resolve = upstream
            .resolve
            .iter()
            .map(|((host, port), addr)| (format!("{host}:{port}"), Value::from(addr.to_string())));
        let mut value = Map::new();
        value.insert("extra_roots".to_owned(), texts(upstream.extra_roots.iter().map(|path| path.display())));
        value.insert("resolve".to_owned(), Value::Object(resolve.collect()));
        value.insert("allow_networks".to_owned(), texts(&upstream.allow_networks));
        let proxy = upstream.proxy.as_ref().map(|proxy| match proxy {
            ProxySource::Url(url) => url.clone(),
            ProxySource::Env(name) => format!("env:{name}"),
            ProxySource::File(path) => format!("file:{}", path.display()),
        });
        insert_some(&mut value, "proxy", proxy.map(Value::from));
        insert_list(&mut value, "no_proxy", &upstream.no_proxy);
        let timeouts = json!({
            "connect": write_duration(upstream.timeouts.connect),
            "response": write_duration(upstream.timeouts.response),
            "idle": write_duration(upstream.timeouts.idle),
        });
        value.insert("timeouts".to_owned(), timeouts);
        Value::Object(value)
    }
}

fn listener_value(listener: &Listener) -> Value {
    let addr = listener.addr.to_string();
    if listener.agent.is_none() && listener.uid.is_none() && listener.name.is_none() {
        return addr.into();
    }
    let mut value = Map::new();
    value.insert("addr".to_owned(), addr.into());
    insert_some(&mut value, "agent", listener.agent.as_ref().map(|agent| agent.as_str().into()));
    insert_some(&mut value, "uid", listener.uid.map(Value::from));
    insert_some(&mut value, "name", listener.name.as_ref().map(|name| name.to_string().into()));
    Value::Object(value)
}

fn unix_value(unix: &UnixListener) -> Value {
    let path = unix.path.to_string_lossy();
    if unix.agents.is_empty() {
        return path.into();
    }
    let agents = unix.agents.iter().map(|(uid, agent)| (uid.to_string(), agent.as_str().into()));
    json!({ "path": path, "agents": agents.collect::<Map<String, Value>>() })
}

fn provider(draft: &Draft) -> Map<String, Value> {
    let mut value = Map::new();
    insert_list(&mut value, "hosts", &draft.hosts);
    match draft.inject.as_slice() {
        [] => {}
        [only] => insert_some(&mut value, "inject", Some(inject(only))),
        several => insert_some(&mut value, "inject", Some(several.iter().map(inject).collect())),
    }
    match draft.env.as_slice() {
        [] => {}
        [only] => insert_some(&mut value, "env", Some(only.as_str().into())),
        several => insert_list(&mut value, "env", several),
    }
    let test = draft.test.as_ref().map(|test| json!({ "method": test.method, "path": test.path }));
    insert_some(&mut value, "test", test);
    let speaks: Map<String, Value> =
        draft.speaks.iter().map(|(wire, path)| (wire.as_str().to_owned(), path.as_str().into())).collect();
    insert_some(&mut value, "speaks", Some(speaks).filter(|speaks| !speaks.is_empty()).map(Value::Object));
    value
}

fn add_outcomes(provider: &mut Map<String, Value>, draft: &RulesDraft) {
    if let Ok(Value::Object(entries)) = serde_json::to_value(draft) {
        provider.extend(entries);
    }
}

fn inject(slot: &InjectDraft) -> Value {
    match slot {
        InjectDraft::Header { header, value } => json!({ "header": header, "value": value }),
        InjectDraft::Query { query, value } => json!({ "query": query, "value": value }),
        InjectDraft::Path { path } => json!({ "path": path }),
        InjectDraft::Basic { basic } => json!({ "basic": { "user": basic.user, "password": basic.password } }),
        InjectDraft::Cookie { cookie, value } => json!({ "cookie": cookie, "value": value }),
    }
}

fn pool(pool: &PoolConfig) -> Value {
    let defaults = PoolConfig::default();
    let steps = |steps: &[Duration]| texts(steps.iter().map(|step| write_duration(*step)));
    let cooldown = match &pool.cooldown {
        Cooldown::Argentos => "argentos".into(),
        Cooldown::Short => "short".into(),
        Cooldown::Ladder(ladder) => steps(ladder),
        Cooldown::Lanes(lanes) => {
            Value::Object(lanes.iter().map(|(lane, ladder)| (lane.as_str().replace('-', "_"), steps(ladder))).collect())
        }
    };
    let wait = |wait: Duration| if wait.is_zero() { "off".to_owned() } else { write_duration(wait) };
    let attempts = &pool.attempts;
    let attempts = json!({
        "total": attempts.attempts,
        "same_profile": attempts.same_profile,
        "throttle_hops": attempts.throttle_hops,
        "warm_throttle_hops": attempts.warm_throttle_hops,
        "overload_hops": attempts.overload_hops,
        "suspect_hops": attempts.suspect_hops,
        "waits": attempts.waits,
    });
    let mut value = Map::new();
    value.insert("order".to_owned(), texts(&pool.order));
    value.insert("strategy".to_owned(), pool.strategy.word().into());
    value.insert("rotate".to_owned(), pool.rotate.word().into());
    value.insert("cooldown".to_owned(), cooldown);
    value.insert("wait".to_owned(), wait(pool.wait).into());
    value.insert("warm_wait".to_owned(), wait(pool.warm_wait).into());
    value.insert("attempts".to_owned(), attempts);
    if !pool.groups.is_empty() {
        let groups = pool.groups.iter().map(|(name, members)| (name.to_string(), texts(members)));
        value.insert("groups".to_owned(), Value::Object(groups.collect()));
    }
    value.insert("learn_groups".to_owned(), pool.learn_groups.word().into());
    if pool.fallback != defaults.fallback {
        value.insert("fallback".to_owned(), pool.fallback.iter().map(fallback).collect());
    }
    if pool.foreign != defaults.foreign {
        value.insert("foreign".to_owned(), pool.foreign.word().into());
    }
    insert_some(&mut value, "limits", limits(&pool.limits));
    Value::Object(value)
}

fn fallback(target: &FallbackTarget) -> Value {
    let models = target.models.iter().map(|(from, to)| (from.clone(), Value::from(to.as_str())));
    json!({ "provider": target.provider.as_str(), "models": models.collect::<Map<String, Value>>() })
}

fn agent(agent: &AgentConfig) -> Value {
    let mut value = Map::new();
    insert_some(&mut value, "allow", agent.allow.as_ref().map(|allow| allow.iter().map(allowance).collect()));
    insert_some(&mut value, "limits", limits(&agent.limits));
    if !agent.env.is_empty() {
        value.insert("env".to_owned(), json!(agent.env));
    }
    Value::Object(value)
}

fn limits(limits: &Limits) -> Option<Value> {
    let mut value = Map::new();
    insert_some(&mut value, "requests", limits.requests.map(|rate| rate.to_string().into()));
    insert_some(&mut value, "concurrency", limits.concurrency.map(Value::from));
    insert_some(&mut value, "tokens", limits.tokens.map(|rate| rate.to_string().into()));
    (!limits.is_empty()).then_some(Value::Object(value))
}

fn allowance(entry: &Allowance) -> Value {
    if entry.methods.is_empty() && entry.paths.is_empty() {
        return entry.provider.as_str().into();
    }
    let mut value = Map::new();
    value.insert("provider".to_owned(), entry.provider.as_str().into());
    insert_list(&mut value, "methods", &entry.methods);
    insert_list(&mut value, "paths", entry.paths.iter().map(PathPattern::as_str));
    Value::Object(value)
}

fn route(route: &Route) -> Value {
    let mut value = Map::new();
    insert_some(&mut value, "name", route.name.clone().map(Value::from));
    insert_list(&mut value, "agents", &route.agents);
    value.insert("host".to_owned(), route.host.clone().with_port(443).to_string().into());
    if let Ports::Listed(ports) = &route.ports {
        value.insert("ports".to_owned(), json!(ports));
    }
    insert_list(&mut value, "methods", &route.methods);
    insert_list(&mut value, "paths", route.paths.iter().map(PathPattern::as_str));
    let (action, provider, profile) = match &route.action {
        RouteAction::Deny => (ActionWord::Deny, None, None),
        RouteAction::Tunnel => (ActionWord::Tunnel, None, None),
        RouteAction::Allow { provider, profile } => (ActionWord::Allow, provider.as_ref(), profile.as_ref()),
    };
    value.insert("action".to_owned(), action.word().into());
    insert_some(&mut value, "provider", provider.map(|provider| provider.as_str().into()));
    insert_some(&mut value, "profile", profile.map(|profile| profile.to_string().into()));
    if route.set_cookie == SetCookie::Pass {
        value.insert("set_cookie".to_owned(), route.set_cookie.word().into());
    }
    insert_some(&mut value, "scrub", route.scrub.map(|scrub| scrub.word().into()));
    Value::Object(value)
}

fn insert_some(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn insert_list<T: ToString>(map: &mut Map<String, Value>, key: &str, items: impl IntoIterator<Item = T>) {
    let items = texts(items);
    if items.as_array().is_some_and(|items| !items.is_empty()) {
        map.insert(key.to_owned(), items);
    }
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Value {
    items.into_iter().map(|item| Value::from(item.to_string())).collect()
}

/// One key and its value; what is a list of plain values or small stays in its line.
fn write_entry(text: &mut String, depth: usize, key: &str, value: &Value) {
    text.push_str(&"  ".repeat(depth));
    text.push_str(&scalar(key));
    text.push(':');
    match value {
        Value::Object(entries) if depth < 2 && !entries.is_empty() => {
            text.push('\n');
            for (key, value) in entries {
                write_entry(text, depth.saturating_add(1), key, value);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            text.push('\n');
            for item in items {
                text.push_str(&"  ".repeat(depth.saturating_add(1)));
                text.push_str("- ");
                write_flow(text, item);
                text.push('\n');
            }
        }
        _ => {
            text.push(' ');
            write_flow(text, value);
            text.push('\n');
        }
    }
}

fn write_flow(text: &mut String, value: &Value) {
    match value {
        Value::Object(entries) => {
            text.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                text.push_str(&scalar(key));
                text.push_str(": ");
                write_flow(text, value);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { ", " });
                write_flow(text, item);
            }
            text.push(']');
        }
        Value::String(string) => text.push_str(&scalar(string)),
        Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
    }
}

/// Plain where no reader could take it for anything else, else in double quotes, whose escapes JSON shares with YAML.
fn scalar(string: &str) -> String {
    let first_is_plain = string.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/');
    let rest_is_plain = string.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    let not_a_colon_pair = string.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:".contains(&b))
        && !string.ends_with(':')
        && string.contains(':');
    let other_types = ["null", "true", "false", "yes", "no", "y", "n", ".inf", ".nan"];
    let word = !other_types.contains(&string.to_ascii_lowercase().as_str()) && string.parse::<f64>().is_err();
    if word && first_is_plain && (rest_is_plain || not_a_colon_pair) {
        string.to_owned()
    } else {
        Value::from(string).to_string()
    }
}
