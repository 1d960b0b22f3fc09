//! The instruments themselves: the test provider, the wire client and the search for secrets.

use std::process::Command;

use crate::harness::{Canary, HTTP1, HTTP2, Home, Search, Tool, Wire, need, run_command};
use crate::upstream::{Answer, Defect, Gate, Leaf, Offer, Rule, TestUpstream};

const HOST: &str = "api.acme.example";

fn curl(upstream: &TestUpstream, arguments: &[&str]) -> Option<Command> {
    let mut command = Command::new(need("instrument", Tool::Curl)?);
    command.env_clear().args(["--silent", "--show-error", "--max-time", "30", "--cacert"]);
    command.arg(upstream.root_file());
    command.args(["--resolve", &format!("*:443:{}", upstream.address().ip())]);
    command.args(["--connect-to", &format!("::127.0.0.1:{}", upstream.address().port())]).args(arguments);
    Some(command)
}

#[test]
fn provider_speaks_both_protocols_and_records_what_it_saw() {
    let upstream = TestUpstream::start();
    for (flag, version) in [("--http1.1", http::Version::HTTP_11), ("--http2", http::Version::HTTP_2)] {
        upstream.forget();
        let arguments = [flag, "-d", "hello", "-H", "X-Mark: 1", "https://api.acme.example/echo/body?q=a%20b"];
        let Some(command) = curl(&upstream, &arguments) else { return };
        let finished = run_command(command, b"");
        finished.assert_code(0);
        assert_eq!(finished.stdout(), "hello");
        let seen = upstream.only(HOST);
        assert_eq!(seen.version, version);
        assert_eq!((seen.method.as_str(), seen.path()), ("POST", "/echo/body"));
        assert_eq!(seen.query("q").as_deref(), Some("a b"));
        assert_eq!(seen.value("x-mark").as_deref(), Some("1"));
        assert_eq!(seen.sni.as_deref(), Some(HOST));
        let connection = &upstream.connections_for(HOST)[0];
        assert!(connection.established);
        assert!(connection.offered.contains(&"http/1.1".to_owned()), "{connection:?}");
    }
}

#[test]
fn provider_refuses_unknown_credentials_as_the_real_ones_do() {
    let upstream = TestUpstream::start();
    let key = Canary::anthropic();
    let field = format!("x-api-key: {}", key.as_str());
    let ask = || {
        let url = "https://api.anthropic.com/v1/models";
        let command = curl(&upstream, &["-w", "%{http_code}", "-o", "/dev/null", "-H", &field, url])?;
        Some(run_command(command, b"").stdout())
    };
    let Some(before) = ask() else { return };
    assert_eq!(before, "401");
    upstream.knows(key.as_str());
    assert_eq!(ask().unwrap(), "200");
    upstream.assert_carried("api.anthropic.com", key.as_str());
}

#[test]
fn scripts_answer_by_credential_and_run_out() {
    let upstream = TestUpstream::start();
    let (first, second) = (Canary::plain(), Canary::plain());
    upstream.script(
        Rule::always(Answer::anthropic_rate_limited().with("retry-after", "7")).secret(first.as_str()).times(1),
    );
    for (key, expected) in [(&second, "200"), (&first, "429"), (&first, "200")] {
        let field = format!("authorization: Bearer {}", key.as_str());
        let arguments = ["-w", "%{http_code}", "-o", "/dev/null", "-H", &field, "https://api.acme.example/"];
        let Some(command) = curl(&upstream, &arguments) else { return };
        assert_eq!(run_command(command, b"").stdout(), expected);
    }
}

#[test]
fn defects_stop_a_verifying_client_before_it_sends_anything() {
    let upstream = TestUpstream::start();
    // curl: 35 a failed handshake, 60 an unverified certificate.
    for (defect, code) in [
        (Defect::Certificate(Leaf::Expired), 60),
        (Defect::Certificate(Leaf::NotYetValid), 60),
        (Defect::Certificate(Leaf::WrongHost), 60),
        (Defect::Certificate(Leaf::UnknownRoot), 60),
        (Defect::Certificate(Leaf::SelfSigned), 60),
        (Defect::PlainText, 35),
        (Defect::Closes, 35),
    ] {
        upstream.defect(HOST, defect.clone());
        let Some(command) = curl(&upstream, &["https://api.acme.example/"]) else { return };
        assert_eq!(run_command(command, b"").code(), code, "{defect:?}");
        assert!(upstream.seen().is_empty(), "{defect:?}");
    }
    upstream.mend(HOST);
    let Some(command) = curl(&upstream, &["https://api.acme.example/"]) else { return };
    run_command(command, b"").assert_code(0);
}

#[test]
fn offers_and_raw_answers_are_as_told() {
    let upstream = TestUpstream::start();
    let version = |upstream: &TestUpstream| {
        let command = curl(upstream, &["-w", "%{http_version}", "-o", "/dev/null", "https://api.acme.example/"])?;
        Some(run_command(command, b"").stdout())
    };
    upstream.defect(HOST, Defect::Offers(Offer::Http1));
    let Some(first) = version(&upstream) else { return };
    assert_eq!(first, "1.1");
    upstream.defect(HOST, Defect::Offers(Offer::Http2));
    assert_eq!(version(&upstream).unwrap(), "2");
    let close_delimited = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end";
    upstream.defect(HOST, Defect::Raw(close_delimited.into()));
    let command = curl(&upstream, &["https://api.acme.example/"]).unwrap();
    assert_eq!(run_command(command, b"").stdout(), "until the end");
}

#[test]
fn broken_bodies_are_seen_as_broken() {
    let upstream = TestUpstream::start();
    // curl: 18 a partial transfer, 92 a reset HTTP/2 stream.
    for (flag, codes) in [("--http1.1", vec![18]), ("--http2", vec![92, 18])] {
        let Some(command) = curl(&upstream, &[flag, "https://api.acme.example/broken"]) else { return };
        let finished = run_command(command, b"");
        assert!(codes.contains(&finished.code()), "{flag}: {finished:?}");
        assert_eq!(finished.stdout(), "half of it");
    }
}

#[test]
fn its_chain_passes_the_strict_verifiers() {
    let upstream = TestUpstream::start();
    let port = upstream.address().port().to_string();
    if let Some(openssl) = need("instrument", Tool::Openssl) {
        let mut command = Command::new(openssl);
        command.env_clear().args(["s_client", "-x509_strict", "-verify_return_error", "-servername", HOST]);
        command.args(["-verify_hostname", HOST, "-connect", &format!("127.0.0.1:{port}"), "-CAfile"]);
        command.arg(upstream.root_file());
        run_command(command, b"").assert_code(0);
    }
    if let Some(python) = need("instrument", Tool::Python) {
        let mut command = Command::new(python);
        command.env_clear().arg(crate::harness::script("strict_tls.py"));
        command.args(["127.0.0.1", &port, HOST]).arg(upstream.root_file());
        run_command(command, b"").assert_code(0);
    }
}

#[test]
fn git_clones_with_a_known_token_only() {
    let Some(git) = need("instrument", Tool::Git) else { return };
    let upstream = TestUpstream::start();
    upstream.repository("acme/widgets", "README.md", "widgets\n");
    let token = Canary::github();
    let dir = tempfile::tempdir().unwrap();
    let relay = upstream.relay();
    let clone = |name: &str| {
        let mut command = Command::new(&git);
        command
            .env_clear()
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env("PATH", std::env::var_os("PATH").unwrap());
        command.env("GIT_SSL_CAINFO", upstream.root_file()).env("HTTPS_PROXY", format!("http://{relay}"));
        command.env("GIT_TERMINAL_PROMPT", "0");
        command.args(["clone", "--quiet"]).arg(format!("https://x:{}@github.com/acme/widgets.git", token.as_str()));
        command.arg(name);
        run_command(command, b"").code()
    };
    assert_ne!(clone("refused"), 0);
    upstream.knows(token.as_str());
    assert_eq!(clone("cloned"), 0);
    assert_eq!(std::fs::read_to_string(dir.path().join("cloned/README.md")).unwrap(), "widgets\n");
}

#[test]
fn wire_reads_every_framing_and_both_gates() {
    let upstream = TestUpstream::start();
    let home = Home::empty();
    let gate = Gate::closed();
    let pieces = vec!["one ".into(), "two ".into(), "three".into()];
    let gated = Answer::Pieces { status: 200, fields: Vec::new(), pieces, gate: Some(gate.clone()) };
    upstream.script(Rule::always(gated).path("/gated"));
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let wire = Wire::connect(&home, upstream.address());
    let mut wire = wire.tls(&upstream.root_file(), HOST, HTTP1).unwrap();
    assert_eq!(wire.ask(&request("/download?bytes=100000")).body.len(), 100_000);
    assert_eq!(
        wire.ask(&request("/sse?n=3")).text(),
        "data: token-0\n\ndata: token-1\n\ndata: token-2\n\ndata: [DONE]\n\n"
    );
    assert_eq!(wire.ask(&request("/trailers")).text(), "body");
    wire.send(request("/gated").as_bytes());
    let first = wire.until(b"one ");
    assert!(memchr::memmem::find(&first, b"two").is_none(), "the gate was open");
    gate.open();
    wire.until(b"two ");
    gate.open();
    wire.until(b"three");
    let wire = Wire::connect(&home, upstream.address()).tls(&upstream.root_file(), HOST, HTTP2).unwrap();
    assert_eq!(wire.alpn().as_deref(), Some(&b"h2"[..]));
}

#[test]
fn search_finds_every_form_and_nothing_else() {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let canary = Canary::awkward();
    let secret = canary.as_str();
    let search = Search::new([&canary]);
    let hex: String = secret.bytes().map(|b| format!("{b:02X}")).collect();
    let percent: String = secret.bytes().map(|b| format!("%{b:02x}")).collect();
    let escaped: String = secret.bytes().map(|b| format!("\\u{:04x}", u32::from(b))).collect();
    let mut dirty = vec![
        secret.to_owned(),
        format!("..{}..", &secret[3..27]),
        STANDARD.encode(secret),
        hex.to_lowercase(),
        hex,
        percent,
        escaped,
        serde_json::to_string(secret).unwrap(),
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string(),
    ];
    for before in ["", "a", "ab", "abc"] {
        for after in ["", "y", "yz"] {
            dirty.push(STANDARD_NO_PAD.encode(format!("{before}{secret}{after}")));
            dirty.push(URL_SAFE_NO_PAD.encode(format!("{before}{secret}{after}")));
        }
    }
    for text in &dirty {
        assert!(!search.bytes("text", text.as_bytes()).is_empty(), "missed {text}");
    }
    for text in [&secret[..23], "sk-ant-***...***", "p@ss/", Canary::awkward().as_str()] {
        assert_eq!(search.bytes("text", text.as_bytes()), [], "false alarm in {text}");
    }
}

#[test]
#[should_panic(expected = "a secret was found")]
fn a_home_with_a_secret_in_a_file_fails_its_test() {
    let home = Home::empty();
    let canary = Canary::openai();
    home.guard(&canary);
    std::fs::write(home.path().join("notes.txt"), canary.as_str()).unwrap();
}

#[test]
#[should_panic(expected = "a secret was found")]
fn a_secret_that_an_agent_received_fails_its_test() {
    let upstream = TestUpstream::start();
    let home = Home::empty();
    let canary = Canary::telegram();
    home.guard(&canary);
    let mut wire = Wire::connect(&home, upstream.plain_address());
    wire.ask(&format!("GET /echo/fields HTTP/1.1\r\nHost: x\r\nx-api-key: {}\r\n\r\n", canary.as_str()));
}
