//! CONNECT: its target, its authentication, and what may stand inside the tunnel.

use super::{ACME, Stage, get};
use crate::harness::HTTP1;

#[test]
fn refuses_malformed_targets() {
    // PX-05
    let stage = Stage::new();
    let long = format!("{}:443", "a".repeat(64 * 1024));
    for target in [
        "api.acme.example",
        "api.acme.example:0",
        ":443",
        "api.acme.example:443:443",
        "api.acme.example:65536",
        "api.acme.example:+443",
        "api.acme.example:0443",
        "[::1",
        "::1:443",
        "user@api.acme.example:443",
        "http://api.acme.example:443",
        "api.acme.example:443/",
        "api.acme.example:443?x",
        "api..acme.example:443",
        "api.acme.example%00.evil.test:443",
        "*.acme.example:443",
        long.as_str(),
    ] {
        let shown = &target[..target.len().min(60)];
        let answered = stage.connect(target);
        assert!(matches!(answered.status, 400 | 414 | 431), "{shown}: {}", answered.status);
    }
    assert!(stage.upstream.connections().is_empty());
}

#[test]
fn one_name_has_one_form() {
    // RT-06: upper case and the trailing dot are the same host, with the same certificate and credential.
    let stage = Stage::new();
    for target in ["API.Acme.Example:443", "api.acme.example.:443"] {
        let mut wire = stage.tunnel(target).tls(&stage.ca(), ACME, HTTP1).unwrap();
        wire.ask(&get(ACME, "/")).assert_status(200);
    }
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn refuses_framing_on_connect() {
    // PX-02; RFC 9110 section 9.3.6: a CONNECT has no content.
    let stage = Stage::new();
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let mut wire = stage.wire();
        let authorization = stage.authorization();
        let answered =
            wire.ask(&format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n{authorization}{framing}"));
        answered.assert_refused(400, "bad_request");
        assert!(wire.is_closed());
    }
}

#[test]
fn asks_for_authentication_and_takes_it_on_the_same_connection() {
    // PX-01
    // git and .NET authenticate only after the 407.
    let stage = Stage::new();
    let mut wire = stage.wire();
    let first = wire.ask(&format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n\r\n"));
    first.assert_refused(407, "agent_unauthenticated");
    assert_eq!(first.value("content-length"), Some("0"));
    assert!(first.value("proxy-authenticate").is_some_and(|v| v.to_ascii_lowercase().starts_with("basic realm=")));
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes());
    wire.head_only().assert_status(200);
    let mut wire = wire.tls(&stage.ca(), ACME, HTTP1).unwrap();
    wire.ask(&get(ACME, "/")).assert_status(200);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn a_connection_outlives_refusals_and_takes_another_connect() {
    let stage = Stage::new();
    let authorization = stage.authorization();
    let mut wire = stage.wire();
    // Old clients say it to a proxy in words that HTTP never had.
    let absolute = format!("GET https://{ACME}/ HTTP/1.1\r\nHost: {ACME}\r\nProxy-Connection: keep-alive\r\n");
    let first = wire.ask(&format!("{absolute}\r\n"));
    first.assert_refused(407, "agent_unauthenticated");
    assert_eq!(first.value("content-length"), Some("0"));
    wire.ask(&format!("{absolute}{authorization}\r\n")).assert_status(200);
    let target = "nowhere.example:443";
    wire.ask(&crate::harness::connect_request(target, "coder", &stage.token)).assert_refused(403, "policy_denied");
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes());
    wire.head_only().assert_status(200);
    wire.tls(&stage.ca(), ACME, HTTP1).unwrap().ask(&get(ACME, "/")).assert_status(200);
    for seen in stage.upstream.seen_at(ACME) {
        assert_eq!((seen.value("proxy-connection"), seen.value("proxy-authorization")), (None, None));
    }
}

#[test]
fn loses_no_byte_of_a_hello_in_the_same_packet() {
    // PX-03: a client may send its hello without waiting for the 200.
    use std::io::{Read, Write};
    let stage = Stage::new();
    let request = crate::harness::connect_request(&format!("{ACME}:443"), "coder", &stage.token);
    let config = crate::harness::client_config(&stage.ca(), HTTP1);
    let name = rustls::pki_types::ServerName::try_from(ACME).unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = request.into_bytes();
    tls.write_tls(&mut bytes).unwrap();
    let mut socket = std::net::TcpStream::connect(stage.daemon.proxy).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    socket.write_all(&bytes).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0u8; 1];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
}

#[test]
fn closes_a_tunnel_that_speaks_no_tls() {
    // PX-04: unknown bytes are never relayed blindly on an intercepted host.
    let stage = Stage::new();
    let mut wire = stage.tunnel(&format!("{ACME}:443"));
    wire.send(get(ACME, "/").as_bytes());
    let rest = wire.rest();
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn refuses_a_connect_inside_a_tunnel() {
    // PX-06
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let answered = wire.ask("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n");
    assert!(matches!(answered.status, 400 | 405 | 501), "{answered:?}");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn refuses_hosts_that_no_rule_allows() {
    let stage = Stage::new();
    let refused = stage.connect("nowhere.example:443");
    refused.assert_refused(403, "policy_denied");
    let hint = refused.json()["error"]["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("keyferry why coder"), "{hint}");
    stage.connect(&format!("{ACME}:8443")).assert_status(403);
    // A provider's host with nothing stored: `serve` refuses it.
    stage.connect("api.openai.com:443").assert_status(403);
    assert!(stage.upstream.connections().is_empty());
}

#[test]
fn tunnels_blindly_where_a_route_says_so() {
    let stage = Stage::new();
    let wire = stage.tunnel("tunnel.example:443");
    // The provider's own certificate, not one of ours.
    let mut wire = wire.tls(&stage.upstream.root_file(), "tunnel.example", HTTP1).unwrap();
    let request = "GET /echo/fields HTTP/1.1\r\nHost: tunnel.example\r\nAuthorization: Bearer mine\r\n\r\n";
    wire.ask(request).assert_status(200);
    let seen = stage.upstream.only("tunnel.example");
    assert_eq!(seen.value("authorization").as_deref(), Some("Bearer mine"));
    stage.upstream.assert_never_carried(stage.acme.as_str());
    drop(wire);
    let mut stage = stage;
    stage.stop();
    let lines = stage.home.access_log();
    let line = lines.iter().find(|line| line["host"] == "tunnel.example").expect("a tunnel has a line");
    assert_eq!(line["decision"], "tunnelled");
    assert_eq!(line["protocol"], "tunnel");
}

#[test]
fn tunnels_go_to_the_web_ports_only() {
    // RT-15
    let stage = Stage::with("default: tunnel\n", |_, _| {});
    for port in [22, 25, 53, 445, 5432, 6379, 8443] {
        stage.connect(&format!("tunnel.example:{port}")).assert_status(403);
    }
    assert_eq!(stage.connect("tunnel.example:443").status, 200);
}
