//! The access log and the audit log: one line each, complete, with no secret.

use super::{ACME, Stage, get};

const FIELDS: &[&str] = &[
    "ts",
    "level",
    "request_id",
    "agent",
    "client",
    "listener",
    "method",
    "host",
    "port",
    "path",
    "provider",
    "profile",
    "decision",
    "rule",
    "attempts",
    "status",
    "error",
    "bytes_in",
    "bytes_out",
    "ttfb_ms",
    "upstream_ms",
    "total_ms",
    "protocol",
    "upstream_protocol",
    "redactions",
    "tokens_in",
    "tokens_out",
];

#[test]
fn an_exchange_has_one_line_with_every_field() {
    let mut stage = Stage::new();
    let mut wire = stage.open(ACME);
    let request = format!(
        "POST /echo/body?token=abcdefgh HTTP/1.1\r\nHost: {ACME}\r\nX-Private: abcdefgh\r\nContent-Length: 5\r\n\r\nhello"
    );
    let answered = wire.ask(&request);
    answered.assert_status(200);
    drop(wire);
    stage.stop();
    let lines = stage.home.access_log();
    let mine: Vec<_> = lines.iter().filter(|line| line["path"] == "/echo/body").collect();
    assert_eq!(mine.len(), 1, "{lines:#?}");
    let line = mine[0];
    for field in FIELDS {
        assert!(line.get(field).is_some(), "no {field} in {line}");
    }
    for (field, value) in [
        ("agent", "coder"),
        ("method", "POST"),
        ("host", ACME),
        ("path", "/echo/body"),
        ("provider", "acme"),
        ("profile", "acme:work"),
        ("decision", "injected"),
        ("protocol", "http/1.1"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!(line["port"], 443);
    assert_eq!(line["status"], 200);
    assert_eq!(line["error"], serde_json::Value::Null);
    assert_eq!(line["bytes_in"], 5);
    assert_eq!(line["bytes_out"], 5);
    assert_eq!(line["attempts"].as_array().unwrap().len(), 1);
    for field in ["profile", "status", "outcome", "ms"] {
        assert!(line["attempts"][0].get(field).is_some(), "{line}");
    }
    assert!(!stage.home.file("logs/access.jsonl").contains("abcdefgh"), "no query, no field");
    // The line stands on stdout too.
    stage.daemon.stdout.line_with(line["request_id"].as_str().unwrap());
}

#[test]
fn refusals_and_bad_requests_have_lines() {
    let mut stage = Stage::new();
    let refused = stage.connect("nowhere.example:443");
    let id = refused.value("x-keyferry-request-id").unwrap().to_owned();
    stage.open(ACME).ask(&get("api.other.example", "/")).assert_status(421);
    stage.stop();
    let lines = stage.home.access_log();
    let line = lines.iter().find(|line| line["request_id"] == id.as_str()).expect("the refused CONNECT's line");
    assert_eq!(line["decision"], "denied");
    assert_eq!(line["error"], "policy_denied");
    assert_eq!(line["host"], "nowhere.example");
    assert!(lines.iter().any(|line| line["error"] == "authority_mismatch"), "{lines:#?}");
}

#[test]
fn hostile_text_stays_inside_its_line() {
    // EX-21
    let mut stage = Stage::new();
    let mut wire = stage.open(ACME);
    let request =
        format!("GET /a%0a%7b%22fake%22%7d\x1b]0;x HTTP/1.1\r\nHost: {ACME}\r\nUser-Agent: \u{1b}[31mred\r\n\r\n");
    wire.try_send(request.as_bytes()).unwrap();
    let _ = wire.rest_or_answer();
    drop(wire);
    stage.get(ACME, "/fine").assert_status(200);
    stage.stop();
    let text = stage.home.file("logs/access.jsonl");
    assert!(!text.contains('\u{1b}'), "a raw escape stands in the log");
    // `access_log` fails on any line that is not JSON.
    assert!(stage.home.access_log().iter().any(|line| line["path"] == "/fine"));
}

#[test]
fn every_use_is_in_the_audit_log_before_it_is_sent() {
    let stage = Stage::new();
    stage.get(ACME, "/audited").assert_status(200);
    let lines = stage.home.audit_log();
    let text = stage.home.file("logs/audit.jsonl");
    assert!(text.contains("acme:work"), "{text}");
    assert!(lines.len() >= 3, "two secrets, an agent and a use: {text}");
    assert!(!text.contains("/audited"), "the path stands there as a hash only");
}

#[test]
fn nothing_is_sent_that_cannot_be_audited() {
    // FA-13
    let mut stage = Stage::new();
    stage.get(ACME, "/").assert_status(200);
    stage.upstream.forget();
    // A directory stands where the log should be: from the next start on nothing can be written.
    stage.daemon.stop();
    let home = &stage.home;
    let log = home.path().join("logs/audit.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    let (mut child, _, stderr) = crate::harness::spawn(home.keyferry(&["serve"]));
    let ended = crate::harness::wait(&mut child, crate::harness::PATIENCE);
    let _ = child.kill();
    let _ = child.wait();
    home.observe("stderr", stderr.text().as_bytes());
    assert!(ended.is_some_and(|status| !status.success()), "serve without an audit log: {}", stderr.text());
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn no_level_of_logging_shows_a_secret() {
    // EX-18
    let upstream = crate::upstream::TestUpstream::start();
    let home = crate::harness::Home::with(&upstream, super::CONFIG);
    let secret = crate::harness::Canary::plain();
    home.stock(&upstream, "acme:work", &secret, &[]);
    let token = home.agent("coder");
    home.guard(&crate::harness::Canary::of(&token));
    let mut command = home.keyferry(&["serve"]);
    command.envs([("KEYFERRY_LOG", "trace"), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]);
    let daemon = crate::harness::Serve::from_command(&home, command);
    let wire = crate::harness::Wire::tunnel(&home, daemon.proxy, "coder", &token, &format!("{ACME}:443"));
    let mut wire = wire.tls(&home.path().join("ca/ca.pem"), ACME, crate::harness::HTTP1).unwrap();
    wire.ask(&get(ACME, "/echo/in-fields")).assert_status(200);
    upstream.defect(ACME, crate::upstream::Defect::Closes);
    drop(wire);
    drop(daemon);
    // What `agent create` printed was the token itself, by design; everything else is searched when the home ends.
    home.received().lock().unwrap().retain(|(_, bytes)| !bytes.starts_with(b"{") || !contains(bytes, token.as_bytes()));
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find(bytes, word).is_some()
}
