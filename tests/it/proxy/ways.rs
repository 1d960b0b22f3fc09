//! Other ways in: a Unix socket, TLS to the proxy, listeners with an agent of their own, redirected connections.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{ACME, CONFIG, OTHER, Stage, get};
use crate::harness::{HTTP1, PATIENCE, Tool, Wire, connect_request, need, until};

const LISTEN: &str = "listen:\n  base_url: 127.0.0.1:0\n  admin: 127.0.0.1:0\n";

/// A daemon with more listeners; `more` is lines of `listen`, each indented by two.
fn stage(more: &str) -> Stage {
    let proxy = if more.contains("  proxy:") { "" } else { "  proxy: 127.0.0.1:0\n" };
    Stage::listening(&format!("{LISTEN}{proxy}{more}"), CONFIG, |_, _| {})
}

fn listener(stage: &Stage, name: &str) -> String {
    stage.home.command(&["status", "--json"]).json()["listeners"][name].as_str().unwrap().to_owned()
}

fn address(stage: &Stage, name: &str) -> std::net::SocketAddr {
    listener(stage, name).parse().unwrap()
}

fn over_unix(path: &Path, request: &str) -> String {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn absolute(host: &str, authorization: &str) -> String {
    format!("GET https://{host}/v1 HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n")
}

#[test]
fn a_unix_socket_takes_both_forms_with_a_token() {
    let mut stage = stage("  unix: run/proxy.sock\n");
    let path = stage.home.path().join("run/proxy.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(over_unix(&path, &absolute(ACME, "")).starts_with("HTTP/1.1 407"));
    let answer = over_unix(&path, &absolute(ACME, &stage.authorization()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // CONNECT, and TLS inside.
    let mut socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8; 1];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    let config = crate::harness::client_config(&stage.ca(), HTTP1);
    let tls = rustls::ClientConnection::new(config, ACME.try_into().unwrap()).unwrap();
    let mut tls = rustls::StreamOwned::new(tls, socket);
    tls.write_all(get(ACME, "/inside").as_bytes()).unwrap();
    let mut first = [0u8; 12];
    tls.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    drop(tls);
    stage.stop();
    assert!(!path.exists(), "the socket goes with the daemon");
    let own = rustix::process::geteuid().as_raw();
    let lines = stage.home.access_log();
    let line = lines.iter().find(|line| line["path"] == "/inside").unwrap();
    assert_eq!((&line["client"], &line["listener"]), (&format!("uid:{own}").into(), &"unix".into()), "{line}");
}

#[test]
fn a_user_is_known_on_a_unix_socket_where_the_configuration_says_so() {
    let own = rustix::process::geteuid().as_raw();
    let stage = stage(&format!("  unix: {{path: run/proxy.sock, agents: {{\"{own}\": coder}}}}\n"));
    let path = stage.home.path().join("run/proxy.sock");
    let answer = over_unix(&path, &absolute(ACME, ""));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Who says a name must prove it.
    let answer = over_unix(&path, &absolute(ACME, "Proxy-Authorization: Bearer kfa_wrong\r\n"));
    assert!(answer.starts_with("HTTP/1.1 407"), "{answer}");
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_taken_over() {
    let mut stage = stage("  unix: run/proxy.sock\n");
    stage.daemon.signal(rustix::process::Signal::KILL);
    stage.daemon.ended();
    assert!(stage.home.path().join("run/proxy.sock").exists());
    stage.daemon = stage.home.serve();
    let answer = over_unix(&stage.home.path().join("run/proxy.sock"), &absolute(ACME, &stage.authorization()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_listener_with_an_agent_of_its_own_needs_no_credentials() {
    // Java cannot authenticate to a proxy.
    let mut stage = stage("  proxy: {addr: \"127.0.0.1:0\", agent: coder}\n");
    let mut wire = stage.wire();
    wire.send(format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n\r\n").as_bytes());
    wire.head_only().assert_status(200);
    wire.tls(&stage.ca(), ACME, HTTP1).unwrap().ask(&get(ACME, "/connect")).assert_status(200);
    stage.wire().ask(&format!("GET https://{ACME}/absolute HTTP/1.1\r\nHost: {ACME}\r\n\r\n")).assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    // Wrong credentials are wrong here too.
    let wrong = format!("GET https://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\nProxy-Authorization: Bearer kfa_x\r\n\r\n");
    stage.wire().ask(&wrong).assert_refused(407, "agent_unauthenticated");
    // RT-14: a page has no business here.
    let page = format!("GET http://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\nOrigin: https://evil.example\r\n\r\n");
    stage.wire().ask(&page).assert_refused(403, "policy_denied");
    stage.wire().ask("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").assert_status(400);
    stage.stop();
    let lines = stage.home.access_log();
    assert!(lines.iter().any(|line| line["path"] == "/connect" && line["agent"] == "coder"), "{lines:#?}");
}

#[test]
fn a_listener_with_an_agent_of_its_own_serves_its_own_user_only() {
    // AU-12: another user of the machine.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(curl) = need("proxy", Tool::Curl) else { return };
    let stage = stage("  proxy: {addr: \"127.0.0.1:0\", agent: coder}\n");
    let as_user = |uid: u32| {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(&curl);
        command.env_clear().current_dir("/").uid(uid).gid(uid);
        command.args(["-sS", "--max-time", "50", "-o", "/dev/null", "-w", "%{http_connect}", "-k", "--proxy"]);
        command.arg(format!("http://{}", stage.daemon.proxy)).arg(format!("https://{ACME}/user"));
        stage.home.finish(command, b"").stdout()
    };
    assert_eq!(as_user(0), "200");
    assert_eq!(as_user(1), "403");
    let said = stage.daemon.stderr.line_with("another user");
    assert!(said.contains("uid=Some(1)"), "{said}");
    assert_eq!(stage.upstream.seen().len(), 1);
}

#[test]
fn a_base_url_listener_can_have_an_agent_too() {
    let stage = Stage::listening(
        "listen:\n  proxy: 127.0.0.1:0\n  base_url: {addr: \"127.0.0.1:0\", agent: coder}\n  admin: 127.0.0.1:0\n",
        CONFIG,
        |_, _| {},
    );
    let mut wire = Wire::connect(&stage.home, stage.daemon.base_url);
    let host = stage.daemon.base_url;
    wire.ask(&format!("GET /acme/v1 HTTP/1.1\r\nHost: {host}\r\n\r\n")).assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    let mut wire = Wire::connect(&stage.home, stage.daemon.base_url);
    wire.ask("GET /acme/v1 HTTP/1.1\r\nHost: evil.example\r\n\r\n").assert_status(403);
}

#[test]
fn the_proxy_behind_tls_is_named_localhost() {
    let stage = stage("  proxy_tls: 127.0.0.1:0\n");
    let url = listener(&stage, "proxy_tls");
    let port: u16 = url.strip_prefix("https://localhost:").unwrap().parse().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let outer = |offers| Wire::connect(&stage.home, address).tls(&stage.ca(), "localhost", offers).unwrap();
    // Only HTTP/1.1 is spoken with the proxy itself.
    assert_eq!(outer(&[b"h2", b"http/1.1"]).alpn().as_deref(), Some(&b"http/1.1"[..]));
    let mut wire = outer(HTTP1);
    let authorization = stage.authorization();
    wire.ask(&format!("GET https://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\n{authorization}\r\n")).assert_status(200);
    wire.ask(&format!("GET https://{OTHER}/ HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"))
        .assert_refused(407, "agent_unauthenticated");
    // Another name is none of its.
    Wire::connect(&stage.home, address).tls(&stage.ca(), ACME, HTTP1).err().expect("refused");
    // CONNECT is taken as well; a curl below goes on inside.
    let mut wire = outer(HTTP1);
    wire.send(connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes());
    wire.head_only().assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn a_curl_that_can_reaches_an_origin_through_two_layers_of_tls() {
    let Some(curl) = need("proxy", Tool::Curl) else { return };
    let stage = stage("  proxy_tls: 127.0.0.1:0\n");
    let url = listener(&stage, "proxy_tls");
    let mut command = std::process::Command::new(curl);
    command.env_clear().args(["-sS", "--max-time", "50", "-o", "/dev/null", "-w", "%{http_code}", "--proxy"]);
    command.arg(url.replace("https://", &format!("https://coder:{}@", stage.token)));
    command.arg("--proxy-cacert").arg(stage.ca()).arg("--cacert").arg(stage.ca());
    command.arg(format!("https://{ACME}/nested"));
    let finished = stage.home.finish(command, b"");
    assert_eq!(finished.stdout(), "200", "{}", finished.stderr());
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn a_redirected_connection_goes_where_its_server_name_says() {
    // TL-30, TL-34
    let mut stage = stage("  transparent: {addr: \"127.0.0.1:0\", agent: coder}\n");
    let address = address(&stage, "transparent");
    let connect = |sni: &str, roots: PathBuf| Wire::connect(&stage.home, address).tls(&roots, sni, HTTP1);
    connect(ACME, stage.ca()).unwrap().ask(&get(ACME, "/redirected")).assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
    // The authority inside agrees with the server name.
    connect(ACME, stage.ca()).unwrap().ask(&get(OTHER, "/")).assert_refused(421, "authority_mismatch");
    // A blind tunnel shows the provider's own certificate.
    let mut wire = connect("tunnel.example", stage.upstream.root_file()).unwrap();
    wire.ask("GET /echo/fields HTTP/1.1\r\nHost: tunnel.example\r\n\r\n").assert_status(200);
    for refused in ["nowhere.example", "localhost"] {
        let error = connect(refused, stage.ca()).err().expect(refused);
        assert!(error.to_string().contains("AccessDenied"), "{refused}: {error}");
    }
    // Without a server name, and without TLS.
    let error = connect("127.0.0.1", stage.ca()).err().expect("no server name");
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    let mut wire = Wire::connect(&stage.home, address);
    wire.send(get(ACME, "/").as_bytes());
    assert_eq!(wire.rest(), [21, 3, 3, 0, 2, 2, 49]);
    drop(wire);
    stage.stop();
    let lines = stage.home.access_log();
    let of = |what: &dyn Fn(&serde_json::Value) -> bool| lines.iter().find(|line| what(line)).cloned().unwrap();
    let line = of(&|line| line["path"] == "/redirected");
    assert_eq!((&line["listener"], &line["agent"]), (&"transparent".into(), &"coder".into()));
    assert_eq!(of(&|line| line["host"] == "nowhere.example")["error"], "policy_denied");
    assert_eq!(of(&|line| line["host"] == "tunnel.example")["decision"], "tunnelled");
    until("the line of a connection without a server name", || {
        lines.iter().any(|line| line["error"] == "authority_mismatch" && line["host"].is_null()).then_some(())
    });
}
