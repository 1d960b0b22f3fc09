//! Which variables steer a client's proxy and trust, by what they mean.
//!
//! Invariant: only tables and rules over names; no value of any variable is looked at here but `NO_PROXY` entries.

use crate::provider::Catalogue;
use crate::vault::Stored;

/// Whether a credential may not be installed in this variable, because Keyferry sets it itself or because a
/// loader or shell gives it a meaning of its own.
#[must_use]
pub fn is_reserved(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    let own = PROXY.iter().chain(NO_PROXY).chain(BUNDLE).chain(EXTRA).chain(SWITCHES.iter().map(|(name, _)| name));
    own.chain(STALE).any(|name| name.eq_ignore_ascii_case(variable))
        || ["PATH", "HOME", "IFS", "ENV", "BASH_ENV", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "WGETRC", "PHP_INI_SCAN_DIR"]
            .contains(&upper.as_str())
        || ["KEYFERRY_", "LD_", "DYLD_", "GIT_CONFIG_", "CLOUDSDK_PROXY_", "NPM_CONFIG_"]
            .iter()
            .any(|prefix| upper.starts_with(prefix))
}

/// The variable of a stored credential, installed or not: its own, else its provider's conventional one, else its
/// name in upper case. None without a provider, when nothing can go anywhere.
#[must_use]
pub fn variable_of(stored: &Stored, catalogue: &Catalogue) -> Option<String> {
    let provider = stored.provider.as_ref()?;
    let kind = catalogue.provider(provider).and_then(|provider| provider.kind(&stored.kind));
    let conventional = kind.and_then(|kind| kind.env.first().cloned());
    Some(stored.env.clone().or(conventional).unwrap_or_else(|| upper_snake(stored.name.short().as_str())))
}

/// `openai-api-key` as a variable: `OPENAI_API_KEY`.
#[must_use]
pub fn upper_snake(name: &str) -> String {
    let text: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    // A variable's name does not begin with a digit.
    if text.starts_with(|c: char| c.is_ascii_digit()) { format!("_{text}") } else { text }
}

/// Hold the proxy's URL. wget and gRPC read lower case only, Ruby takes `http_proxy` for https too.
pub(super) const PROXY: &[&str] = &[
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "GRPC_PROXY",
    "grpc_proxy",
    "npm_config_proxy",
    "npm_config_https_proxy",
    "YARN_HTTP_PROXY",
    "YARN_HTTPS_PROXY",
];

/// Name the hosts that go past the proxy.
pub(super) const NO_PROXY: &[&str] = &["NO_PROXY", "no_proxy"];

/// Replace a client's roots, so they name the bundle: the usual roots and our CA.
pub(super) const BUNDLE: &[&str] = &[
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "WEBSOCKET_CLIENT_CA_BUNDLE",
    "npm_config_cafile",
    "CODEX_CA_CERTIFICATE",
    "NIX_SSL_CERT_FILE",
    "TWINE_CERT",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
    "YARN_HTTPS_CA_FILE_PATH",
];

/// Add to a client's roots, so they name our CA alone (with what the caller had added).
pub(super) const EXTRA: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Constant settings. `NODE_OPTIONS` is never among them: Node 20 refuses to start with the flags of Node 22.
pub(super) const SWITCHES: &[(&str, &str)] = &[
    ("NODE_USE_ENV_PROXY", "1"),
    // git sends no credential to a proxy before a 407 unless it is told the method.
    ("GIT_HTTP_PROXY_AUTHMETHOD", "basic"),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// Would lead past the proxy or switch off verification: taken away in either case. `SSL_CERT_DIR` was folded
/// into the bundle.
const STALE: &[&str] = &[
    "SSL_CERT_DIR",
    "NODE_TLS_REJECT_UNAUTHORIZED",
    "GIT_SSL_NO_VERIFY",
    "PYTHONHTTPSVERIFY",
    "WS_PROXY",
    "WSS_PROXY",
    "SOCKS_PROXY",
    "NO_GRPC_PROXY",
];

/// Keyferry's own variables that an agent may keep: they name places, not secrets.
const OWN_KEPT: &[&str] = &["KEYFERRY_AGENT", "KEYFERRY_ACTIVE", "KEYFERRY_HOME", "KEYFERRY_CONFIG"];

/// Whether a variable of the caller must go for its name's sake.
pub(super) fn is_stale(name: &str) -> bool {
    let own = name.starts_with("KEYFERRY_") && !OWN_KEPT.contains(&name);
    // npm reads its settings in any case; a second spelling would compete with the one that is set.
    let npm = name.to_ascii_lowercase().starts_with("npm_config_")
        && PROXY.iter().chain(BUNDLE).any(|ours| ours.eq_ignore_ascii_case(name));
    own || npm || STALE.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a `NO_PROXY` entry could take one of `hosts` past the proxy, by the laxest reading of any client:
/// a plain suffix, with or without a leading dot, its port ignored.
pub(super) fn covers_any(entry: &str, hosts: &[String]) -> bool {
    let entry = entry.to_ascii_lowercase();
    let name = match entry.split_once(':') {
        // More than one colon is an IPv6 address, which covers no name.
        Some((name, port)) if !port.contains(':') => name,
        Some(_) => return false,
        None => entry.as_str(),
    };
    let name = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
    if name.is_empty() {
        return true;
    }
    hosts.iter().any(|host| {
        let host = host.to_ascii_lowercase();
        let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
        match host.strip_prefix('*') {
            Some(suffix) => suffix.ends_with(name) || name.ends_with(suffix),
            None => host.ends_with(name),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_proxy_entry_that_covers_a_credential_host_is_seen_in_every_dialect() {
        let hosts = ["api.anthropic.com".to_owned(), "*.supabase.co".to_owned(), "ghe.corp.example:8443".to_owned()];
        let covering = [
            "*",
            "api.anthropic.com",
            "API.Anthropic.com",
            ".anthropic.com",
            "*.anthropic.com",
            "anthropic.com",
            "anthropic.com:443",
            "com",
            ".com",
            "opic.com",
            "api.anthropic.com.",
            "supabase.co",
            "tenant.supabase.co",
            "corp.example",
            ".",
        ];
        for entry in covering {
            assert!(covers_any(entry, &hosts), "{entry}");
        }
        for entry in ["localhost", "10.0.0.0/8", "::1", "fd00::/8", "internal.example", "xapi.anthropic.com", "co.uk"] {
            assert!(!covers_any(entry, &hosts), "{entry}");
        }
    }

    #[test]
    fn a_name_becomes_a_variable() {
        let cases = [("openai-api-key", "OPENAI_API_KEY"), ("pagerduty.token", "PAGERDUTY_TOKEN"), ("9to5", "_9TO5")];
        for (name, wanted) in cases {
            assert_eq!(upper_snake(name), wanted);
        }
    }

    #[test]
    fn a_credential_is_not_installed_over_a_variable_with_a_meaning_of_its_own() {
        for name in
            ["PATH", "https_proxy", "LD_PRELOAD", "KEYFERRY_HOME", "SSL_CERT_FILE", "NODE_OPTIONS", "git_config_count"]
        {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["OPENAI_API_KEY", "GITHUB_TOKEN", "PROXY_TOKEN", "GIT_TOKEN"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
