//! The address guard: what an agent must never reach through the proxy.

use super::Stage;

/// A daemon that would tunnel anywhere, so that only the guard can refuse.
const OPEN: &str = "default: tunnel\n";

fn refused(stage: &Stage, host: &str) {
    let answered = stage.connect(&format!("{host}:443"));
    assert_eq!(answered.status, 403, "{host}: {answered:?}");
    assert_eq!(answered.value("x-keyferry-error"), Some("destination_prohibited"), "{host}");
}

#[test]
fn refuses_loopback_in_every_spelling() {
    // RT-01
    let stage = Stage::with(OPEN, |_, _| {});
    for host in [
        "127.0.0.1",
        "127.8.9.1",
        "127.1",
        "0x7f.1",
        "0177.0.0.1",
        "2130706433",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
    ] {
        refused(&stage, host);
    }
}

#[test]
fn refuses_private_and_reserved_networks() {
    // RT-02, RT-03
    let stage = Stage::with(OPEN, |_, _| {});
    for host in [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.1.1",
        "100.64.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[fc00::1]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[100::1]",
        "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2001::1]",
    ] {
        refused(&stage, host);
    }
}

#[test]
fn refuses_metadata_services_even_where_private_networks_are_allowed() {
    // RT-04
    let upstream = crate::upstream::TestUpstream::start();
    let home = crate::harness::Home::new(&upstream);
    let networks = "  allow_networks: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 192.0.0.0/24, \"fd00::/8\"]\n";
    let section = home.upstream_section(&upstream, networks);
    home.write_config(&format!("{}{section}default: tunnel\n", crate::harness::LISTEN));
    let token = home.agent("coder");
    let daemon = home.serve();
    for host in [
        "169.254.169.254",
        "[fd00:ec2::254]",
        "169.254.170.2",
        "169.254.170.23",
        "[fd00:ec2::23]",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "metadata.google.internal",
    ] {
        let mut wire = crate::harness::Wire::connect(&home, daemon.proxy);
        let answered = wire.ask(&crate::harness::connect_request(&format!("{host}:443"), "coder", &token));
        assert_eq!(answered.status, 403, "{host}: {answered:?}");
    }
}

#[test]
fn refuses_names_that_lead_to_loopback() {
    // RT-05
    let stage = Stage::with(OPEN, |_, _| {});
    for host in ["localhost", "LOCALHOST.", "foo.localhost"] {
        refused(&stage, host);
    }
}

#[test]
fn refuses_its_own_listeners() {
    // RT-12, RT-13
    let stage = Stage::with(OPEN, |_, _| {});
    for address in [stage.daemon.proxy, stage.daemon.admin, stage.daemon.base_url] {
        let answered = stage.connect(&address.to_string());
        assert!(matches!(answered.status, 403 | 508), "{address}: {answered:?}");
        let authorization = stage.authorization();
        let request = format!("GET http://{address}/metrics HTTP/1.1\r\nHost: {address}\r\n{authorization}\r\n");
        let answered = stage.wire().ask(&request);
        assert!(matches!(answered.status, 403 | 508), "{address}: {answered:?}");
    }
}

#[test]
fn refuses_its_own_listeners_by_any_name_even_where_loopback_is_allowed() {
    // RT-12, RT-13: no marker is sent upstream, the address alone tells.
    let upstream = crate::upstream::TestUpstream::start();
    let home = crate::harness::Home::new(&upstream);
    let networks = "  allow_networks: [127.0.0.0/8, 0.0.0.0/8, \"::1/128\", \"::ffff:0:0/96\"]\n";
    let section = home.upstream_section(&upstream, networks);
    let listen = "listen: {proxy: \"0.0.0.0:0\", base_url: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}\n";
    home.write_config(&format!("{listen}{section}default: tunnel\n"));
    let token = home.agent("coder");
    let daemon = home.serve();
    let proxy = std::net::SocketAddr::from(([127, 0, 0, 1], daemon.proxy.port()));
    let ports = [daemon.proxy.port(), daemon.base_url.port(), daemon.admin.port()];
    let hosts = ["127.0.0.1", "localhost", "LOCALHOST.", "x.localhost", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]"];
    let mut routes = String::from("routes:\n");
    for host in hosts.map(|host| host.trim_end_matches('.')) {
        routes.push_str(&format!("  - {{host: \"{host}\", ports: {ports:?}, action: tunnel}}\n"));
    }
    home.write_config(&format!("{listen}{section}default: tunnel\n{routes}"));
    let ask = |host: &str, port: u16| {
        let mut wire = crate::harness::Wire::connect(&home, proxy);
        wire.ask(&crate::harness::connect_request(&format!("{host}:{port}"), "coder", &token))
    };
    crate::harness::until("the routes", || (ask("127.0.0.1", ports[0]).status != 403).then_some(()));
    for port in ports {
        for host in hosts {
            // Only the proxy listens on every address.
            if (host == "127.0.0.2" || host == "0.0.0.0") && port != daemon.proxy.port() {
                continue;
            }
            ask(host, port).assert_refused(508, "proxy_loop");
        }
    }
}

#[test]
fn an_address_that_is_refused_says_so_in_absolute_form_too() {
    let stage = Stage::with(OPEN, |_, _| {});
    let authorization = stage.authorization();
    for host in ["127.0.0.1", "169.254.169.254", "[::1]", "10.0.0.1"] {
        let request = format!("GET http://{host}/latest/meta-data HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
        stage.wire().ask(&request).assert_refused(403, "destination_prohibited");
    }
}

#[test]
fn a_name_that_does_not_resolve_says_so() {
    // FA-02; the name is reserved never to exist (RFC 6761).
    let stage = Stage::with(OPEN, |_, _| {});
    let answered = stage.connect("nowhere.invalid:443");
    assert!(matches!(answered.status, 502 | 504), "{answered:?}");
}
