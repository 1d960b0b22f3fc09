//! Connections that the kernel redirects: the whole test runs in a network of its own, so that no rule of this machine
//! is touched.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{ACME, CONFIG, Stage};
use crate::harness::{LISTEN, Tool, need};

/// Set in the process that has the network to itself.
const INSIDE: &str = "KEYFERRY_TEST_INSIDE";

/// An address of loopback that nobody listens on.
const ELSEWHERE: &str = "127.9.9.9";

#[test]
fn a_redirected_connection_keeps_the_port_that_it_was_going_to() {
    let (Some(unshare), Some(nft), Some(curl)) =
        (need("redirect", Tool::Namespaces), need("redirect", Tool::Nft), need("redirect", Tool::Curl))
    else {
        return;
    };
    if std::env::var_os(INSIDE).is_some() {
        return inside(&nft, &curl);
    }
    let name = "proxy::redirect::a_redirected_connection_keeps_the_port_that_it_was_going_to";
    let output = Command::new(unshare)
        .arg("-Urn")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn inside(nft: &std::path::Path, curl: &std::path::Path) {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    let listen = format!("{LISTEN}  transparent: {{addr: \"127.0.0.1:0\", agent: coder}}\n");
    let config = CONFIG.replace("hosts: [api.acme.example]", "hosts: [api.acme.example, \"api.acme.example:8443\"]");
    let mut stage = Stage::listening(&listen, &config, |_, _| {});
    let status = stage.home.command(&["status", "--json"]).json();
    let address: std::net::SocketAddr = status["listeners"]["transparent"].as_str().unwrap().parse().unwrap();
    let rules = format!(
        "add table ip nat\nadd chain ip nat output {{ type nat hook output priority -100 ; }}\n\
         add rule ip nat output ip daddr {ELSEWHERE} tcp dport {{ 443, 8443 }} redirect to :{}\n",
        address.port()
    );
    let mut load = Command::new(nft).args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    load.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(load.wait().unwrap().success(), "{rules}");
    for (port, path) in [(443, "/one"), (8443, "/two")] {
        let mut command = Command::new(curl);
        command.env_clear().args(["-sS", "-f", "--resolve", &format!("{ACME}:{port}:{ELSEWHERE}"), "--cacert"]);
        command.arg(stage.ca()).arg(format!("https://{ACME}:{port}{path}"));
        stage.home.finish(command, b"").assert_code(0);
    }
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    stage.stop();
    let lines = stage.home.access_log();
    let went: Vec<_> =
        lines.iter().map(|line| (line["port"].as_u64().unwrap(), line["path"].as_str().unwrap())).collect();
    assert_eq!(went, [(443, "/one"), (8443, "/two")], "{lines:#?}");
    assert!(lines.iter().all(|line| line["listener"] == "transparent" && line["agent"] == "coder"));
}
