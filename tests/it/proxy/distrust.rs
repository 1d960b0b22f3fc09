//! A program that does not trust the CA: its alert is logged with what helps that very program.

use std::process::Command;

use super::{ACME, Stage};
use crate::harness::{HTTP1, Tool, need, script};

#[test]
fn an_alert_is_logged_with_the_hint_for_the_program_that_sent_it() {
    let stage = Stage::new();
    for (agent, hint) in [
        ("curl/8.5.0", "CURL_CA_BUNDLE"),
        ("git/2.47.0", "GIT_SSL_CAINFO"),
        ("Go-http-client/1.1", "keyferry ca trust"),
        ("Java-http-client/21", "JAVA_TOOL_OPTIONS"),
        ("Deno/2.9.6", "DENO_CERT"),
        ("npm/11.0.0 node/v24", "npm_config_cafile"),
        ("never-heard-of/1", "keyferry env"),
    ] {
        let mut wire = stage.wire();
        let (host, authorization) = (format!("{ACME}:443"), stage.authorization());
        let head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n{authorization}\r\n");
        wire.send(head.as_bytes());
        wire.head_only().assert_status(200);
        assert!(wire.tls(&stage.upstream.root_file(), ACME, HTTP1).is_err());
        stage.daemon.stderr.line_with(hint);
    }
    assert!(stage.upstream.seen().is_empty());
    let lines = stage.home.access_log();
    assert_eq!(lines.iter().filter(|line| line["error"] == "bad_request").count(), lines.len());
}

/// Real programs without the variables that would make them trust; who checks after the handshake sends no alert.
const PROGRAMS: &[(Tool, &[&str], &str)] = &[
    (Tool::Curl, &["-sS", "https://api.acme.example/"], "CURL_CA_BUNDLE"),
    (Tool::Wget, &["-nv", "-t", "1", "https://api.acme.example/"], "WGETRC"),
    (Tool::Python, &["client_urllib.py", "https://api.acme.example"], "Python (urllib"),
    (Tool::Python, &["client_httpx.py", "https://api.acme.example", "httpx"], "program=\"httpx\""),
    (Tool::Python, &["client_aiohttp.py", "https://api.acme.example"], "program=\"aiohttp\""),
    (Tool::Node, &["client_fetch.mjs", "https://api.acme.example"], "NODE_EXTRA_CA_CERTS"),
    (Tool::Deno, &["run", "-q", "-A", "client_fetch.mjs", "https://api.acme.example"], "DENO_CERT"),
    (Tool::Go, &["http", "https://api.acme.example"], "program=\"Go\""),
];

#[test]
fn real_programs_send_what_they_are_known_by() {
    for (tool, arguments, words) in PROGRAMS {
        let Some(program) = need("distrust", *tool) else { continue };
        let stage = Stage::new();
        let proxy = format!("http://coder:{}@{}", stage.token, stage.daemon.proxy);
        let mut command = Command::new(program);
        command.env_clear().env("HOME", stage.home.user_dir()).current_dir(stage.home.work_dir());
        command.envs([("HTTPS_PROXY", &*proxy), ("https_proxy", &*proxy), ("NODE_USE_ENV_PROXY", "1")]);
        for argument in *arguments {
            let is_script = argument.starts_with("client_");
            command.arg(if is_script { script(argument).into_os_string() } else { argument.into() });
        }
        let finished = stage.home.finish(command, b"");
        assert_ne!(finished.code(), 0, "{tool:?} trusts a stranger");
        stage.daemon.stderr.line_with(words);
        assert!(stage.upstream.seen().is_empty(), "{tool:?}");
    }
}
