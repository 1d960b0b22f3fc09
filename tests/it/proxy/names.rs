//! The tunnel's authority, the SNI and the inner authority agree, or nothing is sent.

use super::{ACME, OTHER, Stage, get};
use crate::harness::{HTTP1, Tool, need};

#[test]
fn the_hello_must_name_the_tunnels_host() {
    // TL-30, TL-31
    let stage = Stage::new();
    for sni in [OTHER, "evil.example", "acme.example"] {
        let tunnel = stage.tunnel(&format!("{ACME}:443"));
        let outcome = tunnel.tls(&stage.ca(), sni, HTTP1);
        if let Ok(mut wire) = outcome {
            let answered = wire.ask(&get(sni, "/"));
            answered.assert_refused(421, "authority_mismatch");
        }
    }
    assert!(stage.upstream.seen().is_empty());
    stage.upstream.assert_never_carried(stage.acme.as_str());
}

#[test]
fn the_inner_authority_must_name_the_tunnels_host() {
    // TL-31, TL-32: domain fronting between two allowed hosts.
    let stage = Stage::new();
    for host in [OTHER, "evil.example", "api.acme.example:8443", "api.acme.example:80"] {
        let mut wire = stage.open(ACME);
        wire.ask(&get(host, "/")).assert_refused(421, "authority_mismatch");
    }
    assert!(stage.upstream.seen().is_empty());
    // The same name with its port, or in upper case, is the same host.
    for host in ["api.acme.example:443", "API.ACME.example"] {
        stage.open(ACME).ask(&get(host, "/")).assert_status(200);
    }
}

#[test]
fn the_inner_authority_must_agree_over_http2_too() {
    let stage = Stage::new();
    let arguments = [
        "--http2",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
        "-H",
        "Host: api.other.example",
        "https://api.acme.example/",
    ];
    let Some(finished) = stage.curl(&arguments) else { return };
    assert_eq!(finished.stdout(), "2 421");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn a_second_request_of_a_connection_is_judged_again() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    wire.ask(&get(ACME, "/first")).assert_status(200);
    wire.ask(&get(OTHER, "/second")).assert_refused(421, "authority_mismatch");
    let paths: Vec<String> = stage.upstream.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/first"]);
}

#[test]
fn the_port_is_part_of_the_name() {
    // TL-33
    let stage = Stage::new();
    stage.connect(&format!("{ACME}:8443")).assert_status(403);
    assert!(stage.upstream.connections().is_empty());
}

#[test]
fn no_certificate_is_made_for_hosts_that_are_refused() {
    // TL-35
    let stage = Stage::new();
    let minted = |stage: &Stage| {
        let (_, text) = stage.daemon.admin_get("/metrics");
        let line = text.lines().find(|line| line.starts_with("keyferry_leaf_certificates_total")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next().map(str::to_owned)).unwrap_or_else(|| "0".to_owned())
    };
    stage.get(ACME, "/").assert_status(200);
    let before = minted(&stage);
    for number in 0..50 {
        stage.connect(&format!("host{number}.evil.example:443")).assert_status(403);
    }
    let _ = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), "evil.example", HTTP1);
    assert_eq!(minted(&stage), before);
}

#[test]
fn the_presented_chain_is_a_short_lived_leaf_of_a_constrained_root() {
    // TL-40
    use x509_parser::prelude::*;
    let stage = Stage::new();
    let chain = stage.open(ACME).chain();
    assert_eq!(chain.len(), 2, "leaf and intermediate");
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let (_, intermediate) = X509Certificate::from_der(&chain[1]).unwrap();
    let hours = |c: &X509Certificate| {
        (c.validity().not_after.timestamp() - c.validity().not_before.timestamp()) as f64 / 3600.0
    };
    assert!(hours(&leaf) <= 26.0, "a leaf of {} h", hours(&leaf));
    let names = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    assert_eq!(names, [GeneralName::DNSName(ACME)]);
    assert!(!leaf.is_ca() && intermediate.is_ca());
    assert_eq!(intermediate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let constraints = intermediate.name_constraints().unwrap().unwrap();
    assert!(constraints.critical);
    let excluded = constraints.value.excluded_subtrees.as_ref().unwrap();
    assert!(excluded.iter().any(|subtree| matches!(subtree.base, GeneralName::IPAddress(_))));
    let root = std::fs::read(stage.ca()).unwrap();
    let (_, pem) = parse_x509_pem(&root).unwrap();
    let root = pem.parse_x509().unwrap();
    assert!(root.name_constraints().unwrap().unwrap().critical);
    assert_eq!(root.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(1));
}

#[test]
fn strict_verifiers_accept_the_chain() {
    // TL-40: OpenSSL's -x509_strict and Python's VERIFY_X509_STRICT, through a tunnel.
    let stage = Stage::new();
    let proxy = stage.daemon.proxy.to_string();
    if let Some(openssl) = need("proxy", Tool::Openssl) {
        let mut command = std::process::Command::new(openssl);
        command.env_clear().args(["s_client", "-x509_strict", "-verify_return_error", "-servername", ACME]);
        command.args(["-verify_hostname", ACME, "-proxy", &proxy, "-proxy_user", "coder"]);
        command.args(["-proxy_pass", &format!("pass:{}", stage.token)]);
        command.args(["-connect", &format!("{ACME}:443"), "-CAfile"]).arg(stage.ca());
        stage.home.finish(command, b"").assert_code(0);
    }
    if let Some(python) = need("proxy", Tool::Python) {
        let mut command = std::process::Command::new(python);
        command.env_clear().arg(crate::harness::script("strict_tls.py"));
        command.args([&stage.daemon.proxy.ip().to_string(), &stage.daemon.proxy.port().to_string(), ACME]);
        command.arg(stage.ca()).args(["coder", &stage.token]);
        stage.home.finish(command, b"").assert_code(0);
    }
}
