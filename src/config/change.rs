//! What differs between two configurations.
//!
//! Invariant: keys that take effect at start only are listed here and nowhere else.

use serde_json::Value;

use super::model::Config;

/// A running proxy keeps these until it is started again. A file edit must not redirect a secret of a running proxy,
/// and sockets, the vault and logs are opened once.
const AT_START_ONLY: &[&str] = &[
    "listen.proxy",
    "listen.proxy_tls",
    "listen.base_url",
    "listen.transparent",
    "listen.unix",
    "listen.admin",
    "vault.url",
    "vault.master_key",
    "upstream.extra_roots",
    "upstream.resolve",
    "upstream.proxy",
    "upstream.no_proxy",
    "upstream.allow_networks",
    "upstream.timeouts",
    "log.format",
    "log.access",
    "log.level",
    "audit.durability",
];

/// Keys whose new value waits for the next start.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let (old, new) = (old.to_value(), new.to_value());
    AT_START_ONLY.iter().copied().filter(|key| at(&old, key) != at(&new, key)).collect()
}

/// Keys whose effective value differs, down to the entries of mappings: `pools.anthropic.order`, `routes`.
#[must_use]
pub fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    changed_values(&old.to_value(), &new.to_value()).into_iter().map(|changed| changed.key).collect()
}

/// One key whose value differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// Its path: `pools.anthropic.order`.
    pub key: String,
    /// What it was; `None` where it was not there.
    pub old: Option<Value>,
    /// What it is.
    pub new: Option<Value>,
    /// Whether a running proxy keeps the old value until its next start.
    pub at_start_only: bool,
}

/// What differs between two configurations as [`Config::to_value`] writes them.
#[must_use]
pub fn changed_values(old: &Value, new: &Value) -> Vec<Changed> {
    let mut changed = Vec::new();
    compare("", Some(old), Some(new), &mut changed);
    changed
}

impl Config {
    /// This configuration, with what takes effect at start only taken from the one that runs.
    #[must_use]
    pub fn keeping_from(mut self, running: &Self) -> Self {
        self.listen = running.listen.clone();
        self.vault = running.vault.clone();
        self.upstream = running.upstream.clone();
        self.log = running.log.clone();
        self.audit = running.audit.clone();
        self
    }
}

fn at<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(value, |value, part| value.get(part))
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changed: &mut Vec<Changed>) {
    if let (Some(Value::Object(before)), Some(Value::Object(after))) = (old, new) {
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        for key in after.keys().chain(gone) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, before.get(key), after.get(key), changed);
        }
    } else if old != new {
        let within =
            |known: &&str| path.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        changed.push(Changed {
            key: path.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
            at_start_only: AT_START_ONLY.iter().any(within),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::VaultUrl;
    use crate::config::parse;

    #[test]
    fn names_what_changed() {
        let old = parse("pools: {anthropic: {order: [a, b]}}\n", "k").unwrap();
        let new = parse("# moved\npools: {anthropic: {order: [b, a]}}\nagents: {coder: {}}\n", "k").unwrap();
        assert_eq!(changed_keys(&old, &new), ["pools.anthropic.order", "agents.coder"]);
        assert_eq!(restart_needed(&old, &new), [] as [&str; 0]);
        assert_eq!(changed_keys(&new, &new.clone()), [] as [&str; 0]);
        let text = "upstream: {resolve: {\"api.x.test:443\": \"127.0.0.1:1\"}}\n";
        let changed = changed_values(&Config::default().to_value(), &parse(text, "k").unwrap().to_value());
        let [one] = changed.as_slice() else { panic!("{changed:?}") };
        assert_eq!((one.key.as_str(), &one.old, one.at_start_only), ("upstream.resolve.api.x.test:443", &None, true));
        assert_eq!(one.new, Some("127.0.0.1:1".into()));
    }

    #[test]
    fn a_redirection_of_a_running_proxy_waits_for_its_next_start() {
        let old = Config::default();
        let text = "upstream: {resolve: {\"api.openai.com:443\": \"127.0.0.1:1\"}, extra_roots: [x.crt]}\nlisten: {proxy: 127.0.0.1:1}\nscrub: off\n";
        let new = parse(text, "k").unwrap();
        assert_eq!(restart_needed(&old, &new), ["listen.proxy", "upstream.extra_roots", "upstream.resolve"]);
        let kept = new.clone().keeping_from(&old);
        assert_eq!(restart_needed(&old, &kept), [] as [&str; 0]);
        assert_eq!(changed_keys(&old, &kept), ["scrub"]);
    }

    #[test]
    fn every_key_that_waits_is_kept() {
        // A key added to the list above must be kept above too.
        let text = "listen: {proxy: 127.0.0.1:1, base_url: 127.0.0.1:2, admin: 127.0.0.1:3}\n\
                    vault: {master_key: \"env:X\"}\n\
                    upstream: {extra_roots: [x], resolve: {\"x.test:443\": \"127.0.0.1:1\"}, proxy: \"http://corp:1\",\n\
                    no_proxy: [x.test], allow_networks: [10.0.0.0/8], timeouts: {connect: 1s}}\n\
                    log: {access: x, level: debug}\n";
        let (old, mut new) = (Config::default(), parse(text, "k").unwrap());
        new.vault.url = VaultUrl::Sqlite("x".into());
        assert_eq!(restart_needed(&old, &new).len(), 13);
        assert_eq!(new.keeping_from(&old), old);
    }
}
