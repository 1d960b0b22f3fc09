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
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    /// A case: what the caller has, and what is looked at in the result.
    struct Case {
        inherited: Vec<(OsString, OsString)>,
        installs: Vec<Install>,
        git_hosts: Vec<String>,
        pass: Vec<String>,
        defaults: Vec<(String, String)>,
        base_url: Option<SocketAddr>,
        open: Option<SocketAddr>,
    }

    impl Case {
        fn with(inherited: &[(&str, &str)]) -> Self {
            let inherited = inherited.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            Self {
                inherited,
                installs: vec![Install {
                    variable: "ANTHROPIC_API_KEY".into(),
                    placeholder: "sk-ant-keyferry".into(),
                    base_url: Some(("ANTHROPIC_BASE_URL".into(), "/anthropic".into())),
                }],
                git_hosts: Vec::new(),
                pass: Vec::new(),
                defaults: Vec::new(),
                base_url: None,
                open: None,
            }
        }

        fn environment(&self) -> Environment {
            let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            Environment::new(&Inputs {
                inherited: &self.inherited,
                agent: &AgentName::parse("coder").unwrap(),
                token: &Secret::from("kfa_token".to_owned()),
                proxy: "127.0.0.1:7878".parse().unwrap(),
                base_url: self.base_url,
                open: self.open,
                trust: &TrustFiles {
                    bundle: PathBuf::from("/run/x/bundle.pem"),
                    extra: PathBuf::from("/run/x/extra.pem"),
                    wgetrc: Some(PathBuf::from("/run/x/wgetrc")),
                    java_store: Some(PathBuf::from("/run/x/roots.jks")),
                    php_dir: Some(PathBuf::from("/run/x/php")),
                },
                installs: &self.installs,
                hosts: &strings(&["api.anthropic.com"]),
                git_hosts: &self.git_hosts,
                known: &strings(&["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GITHUB_TOKEN"]),
                doors: &strings(&["SSH_AUTH_SOCK", "MY_MASTER_KEY"]),
                pass: &self.pass,
                defaults: &self.defaults,
                holds_secret: &|bytes| bytes.windows(13).any(|window| window == b"managed-value"),
            })
        }

        fn result(&self) -> BTreeMap<String, String> {
            let whole = self.environment().apply(&self.inherited);
            let count = whole.len();
            let map: BTreeMap<String, String> = whole
                .into_iter()
                .map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap()))
                .collect();
            assert_eq!(map.len(), count, "a variable stands twice");
            map
        }
    }

    #[test]
    fn every_proxy_variable_in_use_holds_agent_and_token() {
        let result = Case::with(&[("https_proxy", "http://elsewhere:3128"), ("HOME", "/home/me")]).result();
        for name in PROXY {
            assert_eq!(result[*name], "http://coder:kfa_token@127.0.0.1:7878", "{name}");
        }
        for (name, value) in [
            ("HOME", "/home/me"),
            ("CLOUDSDK_PROXY_TYPE", "http"),
            ("CLOUDSDK_PROXY_ADDRESS", "127.0.0.1"),
            ("CLOUDSDK_PROXY_PORT", "7878"),
            ("CLOUDSDK_PROXY_USERNAME", "coder"),
            ("CLOUDSDK_PROXY_PASSWORD", "kfa_token"),
            ("NODE_USE_ENV_PROXY", "1"),
            ("GIT_HTTP_PROXY_AUTHMETHOD", "basic"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("KEYFERRY_AGENT", "coder"),
            ("KEYFERRY_ACTIVE", "1"),
        ] {
            assert_eq!(result[name], value, "{name}");
        }
        assert!(!result.contains_key("NODE_OPTIONS"));
        assert!(!result.contains_key("JAVA_TOOL_OPTIONS"));
    }

    #[test]
    fn replacing_variables_name_the_bundle_and_adding_ones_our_ca() {
        let result = Case::with(&[("SSL_CERT_DIR", "/etc/ssl/mine"), ("PHP_INI_SCAN_DIR", "/etc/php.d")]).result();
        for name in BUNDLE {
            assert_eq!(result[*name], "/run/x/bundle.pem", "{name}");
        }
        for name in EXTRA {
            assert_eq!(result[*name], "/run/x/extra.pem", "{name}");
        }
        assert_eq!(result["WGETRC"], "/run/x/wgetrc");
        assert_eq!(result["PHP_INI_SCAN_DIR"], "/etc/php.d:/run/x/php");
        assert!(!result.contains_key("SSL_CERT_DIR"));
        assert_eq!(Case::with(&[]).result()["PHP_INI_SCAN_DIR"], ":/run/x/php");
    }

    #[test]
    fn no_proxy_keeps_what_is_harmless_in_both_cases() {
        let cases = [
            ("", "localhost,127.0.0.1,::1"),
            ("*", "localhost,127.0.0.1,::1"),
            ("localhost, *.corp.example ,10.0.0.0/8", "localhost,127.0.0.1,::1,.corp.example,10.0.0.0/8"),
            ("anthropic.com,.internal", "localhost,127.0.0.1,::1,.internal"),
            ("a.example a.example", "localhost,127.0.0.1,::1,a.example"),
        ];
        for (inherited, wanted) in cases {
            let result = Case::with(&[("no_proxy", inherited)]).result();
            assert_eq!(result["NO_PROXY"], wanted, "{inherited}");
            assert_eq!(result["no_proxy"], wanted, "{inherited}");
        }
    }

    #[test]
    fn placeholders_stand_where_keys_stood_and_other_known_variables_go() {
        let result = Case::with(&[
            ("ANTHROPIC_API_KEY", "a-real-one"),
            ("OPENAI_API_KEY", "another-real-one"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("MY_MASTER_KEY", "x"),
            ("KEYFERRY_PASSPHRASE", "x"),
            ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
            ("GIT_SSL_NO_VERIFY", "1"),
            ("wss_proxy", "http://elsewhere"),
            ("NPM_CONFIG_HTTPS_PROXY", "http://elsewhere"),
            ("KEYFERRY_HOME", "/h"),
        ])
        .result();
        assert_eq!(result["ANTHROPIC_API_KEY"], "sk-ant-keyferry");
        assert_eq!(result["KEYFERRY_HOME"], "/h");
        for gone in [
            "OPENAI_API_KEY",
            "SSH_AUTH_SOCK",
            "MY_MASTER_KEY",
            "KEYFERRY_PASSPHRASE",
            "NODE_TLS_REJECT_UNAUTHORIZED",
            "GIT_SSL_NO_VERIFY",
            "wss_proxy",
            "NPM_CONFIG_HTTPS_PROXY",
            "ANTHROPIC_BASE_URL",
        ] {
            assert!(!result.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn a_managed_value_is_taken_out_of_any_variable_even_a_passed_one() {
        let mut case = Case::with(&[("DATABASE_URL", "postgres://u:managed-value@h/d"), ("OTHER", "x")]);
        case.pass = vec!["DATABASE_URL".into()];
        assert!(!case.result().contains_key("DATABASE_URL"));
        assert_eq!(case.environment().hidden(), ["DATABASE_URL"]);
        assert_eq!(case.result()["OTHER"], "x");
    }

    #[test]
    fn a_passed_variable_stays_though_its_name_is_known() {
        let mut case = Case::with(&[("OPENAI_API_KEY", "mine"), ("SSH_AUTH_SOCK", "/run/agent")]);
        case.pass = vec!["OPENAI_API_KEY".into(), "SSH_AUTH_SOCK".into()];
        let result = case.result();
        assert_eq!(result["OPENAI_API_KEY"], "mine");
        assert_eq!(result["SSH_AUTH_SOCK"], "/run/agent");
    }

    #[test]
    fn git_rewrites_are_appended_to_the_callers_settings_once() {
        let mut case =
            Case::with(&[("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "user.name"), ("GIT_CONFIG_VALUE_0", "Me")]);
        assert_eq!(case.result()["GIT_CONFIG_COUNT"], "1");
        case.git_hosts = vec!["github.com".into()];
        let result = case.result();
        assert_eq!(result["GIT_CONFIG_COUNT"], "3");
        assert_eq!(result["GIT_CONFIG_VALUE_0"], "Me");
        assert_eq!(result["GIT_CONFIG_KEY_1"], "url.https://github.com/.insteadOf");
        assert_eq!(result["GIT_CONFIG_VALUE_1"], "git@github.com:");
        assert_eq!(result["GIT_CONFIG_VALUE_2"], "ssh://git@github.com/");
        // A second time over the result changes nothing: a shell may evaluate the exports twice.
        case.inherited = case.environment().apply(&case.inherited);
        assert_eq!(case.result(), result);
    }

    #[test]
    fn defaults_never_beat_the_caller_or_our_own_variables() {
        let mut case = Case::with(&[("NODE_ENV", "production")]);
        let pairs =
            [("NODE_ENV", "development"), ("EDITOR", "true"), ("HTTPS_PROXY", "http://evil"), ("LD_PRELOAD", "x")];
        case.defaults = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let result = case.result();
        assert_eq!(result["NODE_ENV"], "production");
        assert_eq!(result["EDITOR"], "true");
        assert_eq!(result["HTTPS_PROXY"], "http://coder:kfa_token@127.0.0.1:7878");
        assert!(!result.contains_key("LD_PRELOAD"));
    }

    #[test]
    fn java_goes_through_the_listener_that_needs_no_token() {
        let mut case = Case::with(&[("JAVA_TOOL_OPTIONS", "-Xmx1g")]);
        assert_eq!(case.result()["JAVA_TOOL_OPTIONS"], "-Xmx1g");
        case.open = Some("127.0.0.1:7881".parse().unwrap());
        let options = case.result()["JAVA_TOOL_OPTIONS"].clone();
        assert!(options.starts_with("-Xmx1g -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=7881 "), "{options}");
        assert!(options.contains("trustStore=/run/x/roots.jks") && !options.contains("kfa_"), "{options}");
    }

    #[test]
    fn base_url_variables_are_set_only_when_asked_for() {
        let mut case = Case::with(&[]);
        case.base_url = Some("127.0.0.1:7879".parse().unwrap());
        assert_eq!(case.result()["ANTHROPIC_BASE_URL"], "http://127.0.0.1:7879/anthropic");
    }
}
