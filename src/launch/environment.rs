//! What an agent's process finds in its environment: a pure function of values.
//!
//! Invariant: nothing here reads the process's own environment, the clock or the disk, and the only secret that
//! goes in is the agent's own token. A variable that holds a managed value never comes out.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::files::TrustFiles;
use super::java;
use super::variables::{BUNDLE, EXTRA, NO_PROXY, PROXY, SWITCHES, covers_any, is_reserved, is_stale};
use crate::id::AgentName;
use crate::secret::Secret;

/// A credential's variable as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The variable, `ANTHROPIC_API_KEY` say.
    pub variable: String,
    /// What stands in it.
    pub placeholder: String,
    /// The SDK's base-URL variable and the path on our base-URL listener, set only when [`Inputs::base_url`] is.
    pub base_url: Option<(String, String)>,
}

/// Everything that the environment is made from.
pub struct Inputs<'a> {
    /// The caller's own environment.
    pub inherited: &'a [(OsString, OsString)],
    /// Who the process is.
    pub agent: &'a AgentName,
    /// Its token for the proxy.
    pub token: &'a Secret,
    /// The proxy's listener.
    pub proxy: SocketAddr,
    /// The listener that knows the process without its token, for programs that cannot authenticate.
    pub open: Option<SocketAddr>,
    /// The base-URL listener, when the process cannot use the proxy.
    pub base_url: Option<SocketAddr>,
    /// The base-URL listener, for programs that name it themselves: in `KEYFERRY_BASE_URL`.
    pub base: Option<SocketAddr>,
    /// The certificate files that the process can read.
    pub trust: &'a TrustFiles,
    /// The variables with a placeholder, the preferred one first.
    pub installs: &'a [Install],
    /// The hosts that get a credential (`api.x.com`, `*.x.com`); `NO_PROXY` must not cover one of them.
    pub hosts: &'a [String],
    /// The hosts whose git credential is in scope: their ssh remotes are rewritten to https.
    pub git_hosts: &'a [String],
    /// Every variable in which some provider's key is usually kept.
    pub known: &'a [String],
    /// Variables that the configuration takes away: `SSH_AUTH_SOCK` and the like, the master key's own.
    pub doors: &'a [String],
    /// Variables that the caller passes on although a rule would take them away by their name.
    pub pass: &'a [String],
    /// The configuration's plain defaults for this agent; the caller's own value wins.
    pub defaults: &'a [(String, String)],
    /// Whether a text holds the value of a managed credential, in any encoding that is looked for.
    pub holds_secret: &'a dyn Fn(&[u8]) -> bool,
}

/// What is to be changed in the caller's environment for an agent's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    set: Vec<(String, OsString)>,
    unset: Vec<OsString>,
    hidden: Vec<String>,
}

impl Environment {
    /// Works out the changes.
    #[must_use]
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let mut plan = Plan { inputs, set: Vec::new(), unset: BTreeSet::new(), hidden: BTreeSet::new() };
        plan.identity();
        plan.proxies();
        plan.trust();
        plan.java();
        plan.git();
        plan.placeholders();
        plan.defaults();
        plan.removals();
        Self { set: plan.set, unset: plan.unset.into_iter().collect(), hidden: plan.hidden.into_iter().collect() }
    }

    /// The variables that are set, in the order to write them. The proxy variables hold the agent's token.
    #[must_use]
    pub fn set(&self) -> &[(String, OsString)] {
        &self.set
    }

    /// The caller's variables that the process must not have.
    #[must_use]
    pub fn unset(&self) -> &[OsString] {
        &self.unset
    }

    /// The names of variables that were taken away because they hold the value of a managed credential.
    #[must_use]
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }

    /// The whole environment of the process.
    #[must_use]
    pub fn apply(&self, inherited: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
        let set: BTreeSet<&OsStr> = self.set.iter().map(|(name, _)| OsStr::new(name)).collect();
        let unset: BTreeSet<&OsStr> = self.unset.iter().map(OsString::as_os_str).collect();
        let kept = inherited.iter().filter(|(name, _)| {
            let name = name.as_os_str();
            !set.contains(name) && !unset.contains(name)
        });
        kept.cloned().chain(self.set.iter().map(|(name, value)| (name.into(), value.clone()))).collect()
    }
}

struct Plan<'a> {
    inputs: &'a Inputs<'a>,
    set: Vec<(String, OsString)>,
    unset: BTreeSet<OsString>,
    hidden: BTreeSet<String>,
}

impl Plan<'_> {
    fn put(&mut self, name: &str, value: impl Into<OsString>) {
        self.set.push((name.to_owned(), value.into()));
    }

    fn is_set(&self, name: &OsStr) -> bool {
        self.set.iter().any(|(known, _)| OsStr::new(known) == name)
    }

    fn inherited(&self, name: &str) -> Option<&OsStr> {
        let found = self.inputs.inherited.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    fn identity(&mut self) {
        let agent = self.inputs.agent.as_str().to_owned();
        self.put("KEYFERRY_AGENT", agent);
        self.put("KEYFERRY_ACTIVE", "1");
        if let Some(base) = self.inputs.base {
            self.put("KEYFERRY_BASE_URL", format!("http://{base}"));
        }
    }

    fn proxies(&mut self) {
        let proxy = self.inputs.proxy;
        let agent = self.inputs.agent.as_str().to_owned();
        let token = String::from_utf8_lossy(self.inputs.token.expose()).into_owned();
        let url = format!("http://{agent}:{token}@{proxy}");
        for name in PROXY {
            self.put(name, url.clone());
        }
        let exempt = self.no_proxy();
        for name in NO_PROXY {
            self.put(name, exempt.clone());
        }
        for (name, value) in SWITCHES {
            self.put(name, *value);
        }
        self.put("CLOUDSDK_PROXY_TYPE", "http");
        self.put("CLOUDSDK_PROXY_ADDRESS", proxy.ip().to_string());
        self.put("CLOUDSDK_PROXY_PORT", proxy.port().to_string());
        self.put("CLOUDSDK_PROXY_USERNAME", agent);
        self.put("CLOUDSDK_PROXY_PASSWORD", token);
    }

    /// Loopback and what the caller had, without what would lead a credential's host past the proxy.
    fn no_proxy(&self) -> OsString {
        let mut entries: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        for name in NO_PROXY {
            let Some(text) = self.inherited(name) else { continue };
            for entry in text.to_string_lossy().split([',', ' ', '\t']) {
                // A leading `*.` is not understood by most clients; `.x` means the same to all of them.
                let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
                if entry.is_empty() || covers_any(entry, self.inputs.hosts) {
                    continue;
                }
                if !entries.iter().any(|known| known == entry) {
                    entries.push(entry.to_owned());
                }
            }
        }
        entries.join(",").into()
    }

    fn trust(&mut self) {
        let trust = self.inputs.trust;
        for name in BUNDLE {
            self.put(name, trust.bundle.clone());
        }
        for name in EXTRA {
            self.put(name, trust.extra.clone());
        }
        if let Some(wgetrc) = &trust.wgetrc {
            self.put("WGETRC", wgetrc.clone());
        }
        if let Some(dir) = &trust.php_dir {
            // An empty element stands for the directory that PHP was built with.
            let before = self.inherited("PHP_INI_SCAN_DIR").map(OsStr::as_bytes).unwrap_or_default();
            let ours = dir.as_os_str().as_bytes();
            let already = before.split(|byte| *byte == b':').any(|part| part == ours);
            let value = if already { before.to_vec() } else { [before, b":", ours].concat() };
            self.put("PHP_INI_SCAN_DIR", OsString::from_vec(value));
        }
    }

    fn java(&mut self) {
        let (Some(proxy), Some(store)) = (self.inputs.open, &self.inputs.trust.java_store) else { return };
        let before = self.inherited("JAVA_TOOL_OPTIONS").map(OsStr::to_string_lossy).unwrap_or_default();
        let options = java::options(&before, proxy, store);
        self.put("JAVA_TOOL_OPTIONS", options);
    }

    fn git(&mut self) {
        let before = self.inherited("GIT_CONFIG_COUNT").and_then(OsStr::to_str).and_then(|text| text.parse().ok());
        // Git itself stops at a count that is not sane; a thousand is more than any caller sets.
        let before: usize = before.filter(|count| *count <= 1000).unwrap_or(0);
        let held: Vec<(OsString, OsString)> = (0..before)
            .filter_map(|index| {
                let key = self.inherited(&format!("GIT_CONFIG_KEY_{index}"))?.to_owned();
                let value = self.inherited(&format!("GIT_CONFIG_VALUE_{index}"))?.to_owned();
                Some((key, value))
            })
            .collect();
        let mut index = before;
        for host in self.inputs.git_hosts {
            let key = format!("url.https://{host}/.insteadOf");
            for remote in [format!("git@{host}:"), format!("ssh://git@{host}/")] {
                if held.iter().any(|(k, v)| *k == *key && *v == *remote) {
                    continue;
                }
                self.put(&format!("GIT_CONFIG_KEY_{index}"), key.clone());
                self.put(&format!("GIT_CONFIG_VALUE_{index}"), remote);
                index = index.saturating_add(1);
            }
        }
        if index > before {
            self.put("GIT_CONFIG_COUNT", index.to_string());
        }
    }

    fn placeholders(&mut self) {
        let installs = self.inputs.installs;
        for install in installs {
            if is_reserved(&install.variable) || self.is_set(OsStr::new(&install.variable)) {
                continue;
            }
            self.put(&install.variable, install.placeholder.clone());
        }
        let Some(address) = self.inputs.base_url else { return };
        for install in installs {
            if let Some((variable, path)) = &install.base_url
                && !is_reserved(variable)
                && !self.is_set(OsStr::new(variable))
            {
                self.put(variable, format!("http://{address}{path}"));
            }
        }
    }

    fn defaults(&mut self) {
        let defaults = self.inputs.defaults;
        for (name, value) in defaults {
            let inherited = self.inputs.inherited.iter().any(|(known, _)| known == name.as_str());
            if !inherited && !is_reserved(name) && !self.is_set(OsStr::new(name)) {
                self.put(name, value.clone());
            }
        }
    }

    fn removals(&mut self) {
        let inputs = self.inputs;
        for (name, value) in inputs.inherited {
            if self.is_set(name) {
                continue;
            }
            let text = name.to_string_lossy();
            if (inputs.holds_secret)(value.as_bytes()) {
                self.hidden.insert(text.clone().into_owned());
                self.unset.insert(name.clone());
                continue;
            }
            let passed = inputs.pass.iter().any(|known| *known == text);
            let listed = |list: &[String]| list.iter().any(|known| *known == text);
            if !passed && (is_stale(&text) || listed(inputs.known) || listed(inputs.doors)) {
                self.unset.insert(name.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
