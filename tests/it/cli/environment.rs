//! `env`: exports for a process beside the daemon, in every format.

use std::collections::HashMap;

use crate::harness::{Canary, Home, Serve};
use crate::upstream::TestUpstream;

fn stage() -> (Serve, Home, TestUpstream) {
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    home.stock(&upstream, "anthropic:work", &Canary::anthropic(), &[]);
    home.set("pagerduty.token", &Canary::plain(), &[]);
    home.set("openai:hidden", &Canary::openai(), &["--no-install"]);
    home.agent("coder");
    (home.serve(), home, upstream)
}

#[test]
fn every_variable_of_the_contract_is_set() {
    let (daemon, home, _upstream) = stage();
    let exported = home.command(&["env", "--agent", "coder", "--format", "json"]);
    exported.assert_code(0);
    let variables: HashMap<String, String> = serde_json::from_str(&exported.stdout()).unwrap();
    let proxy = &variables["HTTPS_PROXY"];
    let (user, rest) = proxy.strip_prefix("http://").unwrap().split_once(':').unwrap();
    let (password, address) = rest.split_once('@').unwrap();
    assert_eq!(user, "coder");
    assert!(password.starts_with("kfa_"));
    assert_eq!(address, daemon.proxy.to_string());
    for name in ["https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        assert_eq!(&variables[name], proxy, "{name}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        assert!(variables[name].contains("127.0.0.1") && !variables[name].contains('*'), "{name}");
    }
    for name in [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "AWS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
        "PIP_CERT",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "HTTPLIB2_CA_CERTS",
        "npm_config_cafile",
        "CODEX_CA_CERTIFICATE",
        "NIX_SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "DENO_CERT",
    ] {
        let file = variables.get(name).unwrap_or_else(|| panic!("no {name}"));
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{name}={file}: {error}"));
        assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY"), "{name}");
    }
    assert_eq!(variables["NODE_USE_ENV_PROXY"], "1");
    assert_eq!(variables["KEYFERRY_AGENT"], "coder");
    assert_eq!(variables["KEYFERRY_ACTIVE"], "1");
    assert_eq!(variables["GIT_TERMINAL_PROMPT"], "0");
    assert!(!variables.contains_key("NODE_OPTIONS"), "some versions of Node refuse to start with it");
    let placeholder = &variables["ANTHROPIC_API_KEY"];
    assert!(placeholder.starts_with("sk-ant-api03-") && placeholder.contains("keyferry"), "{placeholder}");
    assert_eq!(placeholder.len(), Canary::anthropic().as_str().len(), "the shape that the SDK accepts");
    assert!(!variables.contains_key("OPENAI_API_KEY"), "not installed");
}

#[test]
fn placeholders_differ_by_agent_and_stay_while_a_value_rotates() {
    let (_daemon, home, upstream) = stage();
    home.agent("second");
    let placeholder = |agent: &str| {
        let exported = home.command(&["env", "--agent", agent, "--format", "json"]).json();
        exported["ANTHROPIC_API_KEY"].as_str().unwrap().to_owned()
    };
    let first = placeholder("coder");
    assert_eq!(placeholder("coder"), first);
    assert_ne!(placeholder("second"), first);
    home.stock(&upstream, "anthropic:work", &Canary::anthropic(), &[]);
    assert_eq!(placeholder("coder"), first);
}

#[test]
fn every_format_is_usable() {
    let (_daemon, home, _upstream) = stage();
    let text = |format: &str| {
        let finished = home.command(&["env", "--agent", "coder", "--format", format]);
        finished.assert_code(0);
        finished.stdout()
    };
    let shell = text("sh");
    let mut command = std::process::Command::new("sh");
    command.env_clear().args(["-c", &format!("{shell}\nprintf %s \"$ANTHROPIC_API_KEY\"")]);
    let evaluated = home.finish(command, b"");
    evaluated.assert_code(0);
    assert!(evaluated.stdout().contains("keyferry"), "{evaluated:?}");
    assert!(text("fish").lines().any(|line| line.starts_with("set -gx ANTHROPIC_API_KEY ")));
    for format in ["dotenv", "docker"] {
        assert!(text(format).lines().any(|line| line.starts_with("ANTHROPIC_API_KEY=")), "{format}");
    }
    assert_eq!(home.command(&["env", "--agent", "coder", "--format", "yaml"]).code(), 2);
}

#[test]
fn an_unknown_agent_is_an_error() {
    let (_daemon, home, _upstream) = stage();
    let finished = home.command(&["env", "--agent", "nobody"]);
    finished.assert_code(1).assert_says(&["nobody"]);
}
