//! The daemon's life: its probes, its end, and what it needs to start.

use rustix::process::Signal;

use super::{ACME, CONFIG, Stage, get};
use crate::harness::{HTTP1, Home, spawn, until, wait};
use crate::upstream::{Answer, Gate, Rule, TestUpstream};

#[test]
fn probes_and_metrics_answer() {
    let stage = Stage::new();
    assert_eq!(stage.daemon.admin_get("/healthz").0, 200);
    assert_eq!(stage.daemon.admin_get("/readyz").0, 200);
    stage.get(ACME, "/").assert_status(200);
    stage.connect("nowhere.example:443").assert_status(403);
    let metrics = until("the request's count", || {
        let (status, text) = stage.daemon.admin_get("/metrics");
        assert_eq!(status, 200);
        text.contains("keyferry_requests_total{").then_some(text)
    });
    let line = |start: &str, words: &[&str]| {
        let found = metrics.lines().find(|l| l.starts_with(start) && words.iter().all(|word| l.contains(word)));
        found.unwrap_or_else(|| panic!("no {start} with {words:?} in {metrics}")).to_owned()
    };
    let requests = ["agent=\"coder\"", "provider=\"acme\"", "profile=\"acme:work\"", "status=\"200\""];
    assert!(line("keyferry_requests_total{", &requests).ends_with(" 1"));
    assert!(line("keyferry_profile_state{", &["provider=\"acme\"", "work"]).ends_with(" 0"));
    line("keyferry_build_info", &["version="]);
    line("keyferry_denied_total{", &["policy_denied"]);
}

#[test]
fn the_admin_listener_refuses_other_names() {
    // RT-14: a page that rebinds its name to the loopback address.
    let stage = Stage::new();
    for fields in ["Host: evil.example\r\n", "Host: ADDRESS\r\nOrigin: https://evil.example\r\n"] {
        let mut wire = crate::harness::Wire::connect(&stage.home, stage.daemon.admin);
        let fields = fields.replace("ADDRESS", &stage.daemon.admin.to_string());
        let answered = wire.ask(&format!("GET /metrics HTTP/1.1\r\n{fields}\r\n"));
        assert_eq!(answered.status, 403, "{fields}: {answered:?}");
    }
}

#[test]
fn an_end_waits_for_what_is_under_way() {
    // FA-06
    let mut stage = Stage::new();
    let gate = Gate::closed();
    let pieces = vec!["data: one\n\n".into(), "data: two\n\n".into()];
    let fields = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    let answer = Answer::Pieces { status: 200, fields, pieces, gate: Some(gate.clone()) };
    stage.upstream.script(Rule::always(answer).path("/gated"));
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/gated").as_bytes());
    wire.until(b"data: one\n\n");
    stage.daemon.signal(Signal::TERM);
    until("the listener's end", || std::net::TcpStream::connect(stage.daemon.proxy).err());
    assert!(stage.daemon.is_running(), "it ended under a stream");
    gate.open();
    wire.until(b"data: two\n\n");
    drop(wire);
    assert_eq!(stage.daemon.ended().code(), Some(0));
    let lines = stage.home.access_log();
    assert!(lines.iter().any(|line| line["path"] == "/gated" && line["status"] == 200), "{lines:#?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut stage = Stage::new();
    // A line end begins no secret, so it is never held back to see what follows.
    let gate = Gate::closed();
    let pieces = vec!["one\n".into(), "two\n".into()];
    let answer = Answer::Pieces { status: 200, fields: Vec::new(), pieces, gate: Some(gate) };
    stage.upstream.script(Rule::always(answer).path("/gated"));
    let mut wire = stage.open(ACME);
    wire.send(get(ACME, "/gated").as_bytes());
    wire.until(b"one\n");
    stage.daemon.signal(Signal::TERM);
    until("the listener's end", || std::net::TcpStream::connect(stage.daemon.proxy).err());
    stage.daemon.signal(Signal::TERM);
    stage.daemon.ended();
}

#[test]
fn an_interrupt_ends_it_too() {
    let mut stage = Stage::new();
    stage.daemon.signal(Signal::INT);
    assert_eq!(stage.daemon.ended().code(), Some(0));
    assert!(!stage.home.path().join("run/admin.sock").exists(), "the socket is removed");
}

#[test]
fn a_killed_daemon_leaves_a_home_that_starts_again() {
    // FA-08
    let mut stage = Stage::new();
    stage.get(ACME, "/").assert_status(200);
    stage.daemon.signal(Signal::KILL);
    stage.daemon.ended();
    let down = stage.home.command(&["status"]);
    down.assert_code(3);
    stage.daemon = stage.home.serve();
    stage.get(ACME, "/").assert_status(200);
}

#[test]
fn a_second_daemon_of_the_same_home_is_refused() {
    let stage = Stage::new();
    let second = stage.home.command(&["serve"]);
    second.assert_code(1).assert_says(&["running already", "keyferry status"]);
    stage.get(ACME, "/").assert_status(200);
}

/// A home whose `serve` must fail, and what it says.
fn refuses_to_serve(home: &Home, code: Option<i32>, words: &[&str]) {
    let (mut child, _, stderr) = spawn(home.keyferry(&["serve"]));
    let status = wait(&mut child, crate::harness::PATIENCE).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("serve went on; stderr: {}", stderr.text())
    });
    let text = stderr.whole();
    home.observe("stderr", text.as_bytes());
    match code {
        Some(code) => assert_eq!(status.code(), Some(code), "{text}"),
        None => assert!(!status.success()),
    }
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let upstream = TestUpstream::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let home = Home::empty();
    std::fs::copy(upstream.root_file(), home.path().join("provider-root.pem")).unwrap();
    let listen = format!("listen:\n  proxy: {address}\n  base_url: 127.0.0.1:0\n  admin: 127.0.0.1:0\n");
    home.write_config(&listen);
    home.agent("coder");
    refuses_to_serve(&home, None, &[&address.to_string()]);
}

#[test]
fn a_faulty_configuration_is_shown_whole() {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, "defualt: deny\nscrub: maybe\n");
    refuses_to_serve(&home, Some(78), &["keyferry.yaml:", "defualt", "scrub"]);
}

#[test]
fn a_wrong_master_key_never_makes_a_new_vault() {
    // VA-11
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    home.set("acme:work", &crate::harness::Canary::plain(), &[]);
    let key = home.path().join("master.key");
    std::fs::write(&key, [7u8; 32]).unwrap();
    crate::harness::private(&key);
    let before = std::fs::read(home.path().join("vault.db")).unwrap();
    refuses_to_serve(&home, Some(78), &["key"]);
    for arguments in [&["secret", "list"][..], &["run", "--", "true"], &["agent", "list"]] {
        let finished = home.command(arguments);
        assert!(matches!(finished.code(), 78 | 125), "{arguments:?}: {finished:?}");
    }
    let store = home.finish(home.keyferry(&["secret", "set", "acme:other"]), b"abcdefghijkl\n");
    store.assert_code(78);
    assert_eq!(std::fs::read(home.path().join("vault.db")).unwrap(), before, "the vault is untouched");
}

#[test]
fn a_missing_master_key_never_makes_a_new_one_over_a_vault() {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    home.set("acme:work", &crate::harness::Canary::plain(), &[]);
    std::fs::remove_file(home.path().join("master.key")).unwrap();
    let before = std::fs::read(home.path().join("vault.db")).unwrap();
    refuses_to_serve(&home, None, &["master.key"]);
    assert!(!home.path().join("master.key").exists());
    assert_eq!(std::fs::read(home.path().join("vault.db")).unwrap(), before);
}

#[test]
fn nothing_stands_on_stdout_or_stderr_but_lines_of_the_log() {
    let mut stage = Stage::new();
    let mut wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, HTTP1).unwrap();
    wire.ask(&get(ACME, "/echo/fields")).assert_status(200);
    drop(wire);
    stage.stop();
    for line in stage.daemon.stdout.text().lines() {
        let _: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    }
}
