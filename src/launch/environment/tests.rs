//! The environment of a process, case by case.

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
            base: None,
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
    let pairs = [("NODE_ENV", "development"), ("EDITOR", "true"), ("HTTPS_PROXY", "http://evil"), ("LD_PRELOAD", "x")];
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
