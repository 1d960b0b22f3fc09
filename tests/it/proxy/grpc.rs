//! gRPC: a real client and a real server, with the program between them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{ACME, CONFIG};
use crate::harness::{Canary, Home, LISTEN, Tool, need, private, script};
use crate::upstream::TestUpstream;

#[test]
fn calls_streams_dialogues_and_failures_work_and_keep_the_secret() {
    // EX-03: metadata, trailers, the message of a failure; -bin metadata is base64.
    let Some(python) = need("gRPC", Tool::Python) else { return };
    let (output, lines) = between(&python, &[python.clone(), script("client_grpc.py")]);
    for word in
        ["unary b'hello'", "stream 500", "dialogue StatusCode.OK", "failure StatusCode.INVALID_ARGUMENT bad key "]
    {
        assert!(output.contains(word), "no {word:?} in {output}");
    }
    // Inside of messages a length stands before the text, so stars stand there; in fields the placeholder.
    assert!(output.contains("secret ****") && output.contains("keyferry"), "{output}");
    assert_eq!(lines.len(), 7, "{lines:#?}");
}

#[test]
fn go_calls_and_talks_too() {
    let (Some(python), Some(go)) = (need("gRPC", Tool::Python), need("gRPC", Tool::Go)) else { return };
    let (output, lines) = between(&python, &[go, "grpc".into()]);
    for word in ["unary hello", "unary secret ****", "dialogue map["] {
        assert!(output.contains(word), "no {word:?} in {output}");
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
}

/// What a client printed that was started by `run` with the server's authority as its last argument, and the lines of
/// the access log.
fn between(python: &Path, client: &[PathBuf]) -> (String, Vec<serde_json::Value>) {
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, CONFIG);
    let secret = Canary::plain();
    home.set("acme:work", &secret, &[]);
    // The server's own directory is not the agent's.
    let place = tempfile::tempdir().unwrap();
    let (certificate, key) = upstream.leaf_pem(ACME);
    let (certificate_file, key_file) = (place.path().join("cert.pem"), place.path().join("key.pem"));
    std::fs::write(&certificate_file, certificate).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let mut server = Command::new(python)
        .arg(script("grpc_server.py"))
        .args([&certificate_file, &key_file])
        .env("WANTED", secret.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let own = format!("\"127.0.0.1:{}\"", port.trim());
    let section = home.upstream_section(&upstream, "");
    let line = format!("\"{ACME}:443\": ");
    let section: String = section
        .lines()
        .map(|text| match text.trim_start().starts_with(&line) {
            true => format!("    {line}{own}\n"),
            false => format!("{text}\n"),
        })
        .collect();
    std::fs::write(home.config_file(), format!("{LISTEN}{section}{CONFIG}")).unwrap();
    private(&home.config_file());

    let mut command = home.keyferry(&["run", "--"]);
    command.args(client).arg(format!("{ACME}:443"));
    let finished = home.finish(command, b"");
    drop(server.stdin.take());
    server.wait().unwrap();
    finished.assert_code(0);
    let lines = home.access_log();
    for line in &lines {
        let spoken = (&line["decision"], &line["protocol"], &line["upstream_protocol"]);
        assert_eq!(spoken, (&"injected".into(), &"h2".into(), &"h2".into()), "{line}");
        assert!(line["redactions"].as_u64().unwrap() > 0, "{line}");
    }
    (finished.stdout(), lines)
}
