//! `ca rotate|trust|untrust`, `config diff` and `man`.

use crate::harness::{Canary, HTTP1, Home, LISTEN, Wire, connect_request, until};
use crate::upstream::TestUpstream;

const ACME: &str = "api.acme.example";
const CONFIG: &str = "providers:\n  acme:\n    hosts: [api.acme.example]\n    inject: {header: Authorization, value: \"Bearer {secret}\"}\n    env: ACME_API_KEY\n";

fn certificates(text: &str) -> usize {
    text.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn a_rotated_root_is_taken_by_the_running_daemon() {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    home.stock(&upstream, "acme:work", &Canary::plain(), &[]);
    let token = home.agent("coder");
    let daemon = home.serve();
    let ask = |roots: &std::path::Path| {
        let mut wire = Wire::connect(&home, daemon.proxy);
        wire.send(connect_request(&format!("{ACME}:443"), "coder", &token).as_bytes());
        wire.head_only().assert_status(200);
        let mut wire = wire.tls(roots, ACME, HTTP1).ok()?;
        Some(wire.ask(&format!("GET / HTTP/1.1\r\nHost: {ACME}\r\n\r\n")).status)
    };
    let (ca, old) = (home.path().join("ca/ca.pem"), home.path().join("old.pem"));
    std::fs::copy(&ca, &old).unwrap();
    assert_eq!(ask(&ca), Some(200));
    let before = home.command(&["ca", "show", "--json"]).json();
    // Without a terminal the question is answered by nobody.
    assert_ne!(home.command(&["ca", "rotate"]).code(), 0);
    home.command(&["ca", "rotate", "--yes"]).assert_code(0);
    let after = home.command(&["ca", "show", "--json"]).json();
    assert_ne!(before["fingerprint"], after["fingerprint"]);
    assert_eq!(before["permitted"], after["permitted"]);
    until("leaves of the new root", || ask(&ca).filter(|status| *status == 200));
    let status = home.command(&["status", "--json"]).json();
    assert_eq!(status["ca"]["fingerprint"], after["fingerprint"]);
    // Both are in the file and the bundle, so that what was signed before the change is still trusted.
    assert_eq!(certificates(&home.file("ca/ca.pem")), 2);
    assert!(home.file("ca/bundle.pem").contains(std::fs::read_to_string(&old).unwrap().trim()));
    // A program that only knows the old one has to be started again.
    assert_eq!(ask(&old), None);
    let audit = home.file("logs/audit.jsonl");
    assert!(audit.contains("ca.renewed"), "{audit}");
}

#[test]
fn the_systems_store_is_changed_only_on_request() {
    let home = Home::empty();
    for command in ["trust", "untrust"] {
        home.command(&["ca", command]).assert_says(&["keyferry secret set"]);
    }
    home.set("openai:work", &Canary::openai(), &[]);
    for command in ["trust", "untrust"] {
        let finished = home.command(&["ca", command]);
        finished.assert_code(2).assert_says(&["--system", "every program"]);
    }
}

#[test]
fn a_difference_is_shown_with_what_waits_for_a_restart() {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    home.agent("coder");
    home.command(&["config", "diff"]).assert_code(3);
    let _daemon = home.serve();
    home.command(&["config", "diff"]).assert_code(0);
    // A faulty file is not compared, and not taken by the daemon.
    let section = home.upstream_section(&upstream, "");
    let listen = LISTEN.replace("base_url: 127.0.0.1:0", "base_url: 127.0.0.1:1");
    let file = home.work_dir().join("other.yaml");
    std::fs::write(&file, format!("{listen}{section}{CONFIG}scrub: off\n")).unwrap();
    let file = file.to_str().unwrap();
    let finished = home.command(&["config", "diff", file]);
    finished.assert_code(1);
    let shown = finished.stdout();
    assert!(shown.contains("scrub: \"on\" -> \"off\"\n"), "{shown}");
    assert!(shown.contains("listen.base_url: \"127.0.0.1:0\" -> \"127.0.0.1:1\"  (restart needed)"), "{shown}");
    let rows = home.command(&["config", "diff", file, "--json"]);
    assert_eq!(rows.json().as_array().unwrap().len(), 2);
    let same = home.config_file();
    home.command(&["config", "diff", same.to_str().unwrap(), same.to_str().unwrap()]).assert_code(0);
    std::fs::write(file, "nonsense: 1\n").unwrap();
    home.command(&["config", "diff", file]).assert_code(78);
}

#[test]
fn the_manual_is_made_of_the_help() {
    let home = Home::empty();
    let page = home.command(&["man"]);
    page.assert_code(0);
    assert!(page.stdout().contains(".TH") && page.stdout().contains("keyferry"));
    let dir = home.work_dir().join("man");
    home.command(&["man", "--dir", dir.to_str().unwrap()]).assert_code(0);
    let page = std::fs::read_to_string(dir.join("keyferry-secret-set.1")).unwrap();
    assert!(page.contains("Store a value"), "{page}");
}
