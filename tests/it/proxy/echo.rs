//! An allowed provider that says the credential back, in every place and every form that an answer has.
//!
//! That nothing of it arrives is what every test's end searches for; these tests hold what arrives instead.

use super::{ACME, OTHER, Stage, get};
use crate::harness::Canary;
use crate::upstream::{Answer, Defect, Offer, Rule};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;

/// One provider whose secret has characters that every encoder treats in its own way.
const AWKWARD: &str = "\
providers:
  odd:
    hosts: [api.other.example]
    inject: {header: Authorization, value: \"Bearer {secret}\"}
    env: ODD_API_KEY
default: deny
";

/// The promised forms, each with its name.
fn forms(secret: &str) -> Vec<(String, String)> {
    let mut all = vec![("raw".to_owned(), secret.to_owned())];
    for before in ["", "u", "us", "user:"] {
        for after in ["", "~", "~?"] {
            let text = format!("{before}{secret}{after}");
            all.push((format!("base64 {before:?} {after:?}"), STANDARD.encode(&text)));
            all.push((format!("base64url {before:?} {after:?}"), URL_SAFE.encode(&text)));
            all.push((format!("base64url, no padding {before:?} {after:?}"), URL_SAFE_NO_PAD.encode(&text)));
        }
    }
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let needed = |byte: u8, escaped: String| if plain(byte) { char::from(byte).to_string() } else { escaped };
    let quoted = serde_json::to_string(secret).unwrap();
    let quoted = quoted.trim_matches('"').to_owned();
    for (name, form) in [
        ("hex", each(&|byte| format!("{byte:02x}"))),
        ("HEX", each(&|byte| format!("{byte:02X}"))),
        ("percent, all", each(&|byte| format!("%{byte:02X}"))),
        ("percent, all, lower case", each(&|byte| format!("%{byte:02x}"))),
        ("percent, needed", each(&|byte| needed(byte, format!("%{byte:02X}")))),
        ("percent, needed, lower case", each(&|byte| needed(byte, format!("%{byte:02x}")))),
        ("JSON, all", each(&|byte| format!("\\u{:04x}", u32::from(byte)))),
        ("JSON, all, upper case", each(&|byte| format!("\\u{:04X}", u32::from(byte)))),
        ("JSON, slashes", quoted.replace('/', "\\/")),
        ("JSON", quoted),
        ("24 bytes", secret[4..28].to_owned()),
    ] {
        all.push((name.to_owned(), form));
    }
    all
}

#[test]
fn every_promised_form_is_taken_out_of_bodies_and_fields() {
    // EX-01, EX-02
    let odd = Canary::awkward();
    let stage = Stage::with(AWKWARD, |upstream, home| home.stock(upstream, "odd:work", &odd, &[]));
    let mut wire = stage.open(OTHER);
    for (number, (name, form)) in forms(odd.as_str()).iter().enumerate() {
        for (place, answer) in [
            ("known", Answer::text(200, format!("[{form}]"))),
            ("streamed", pieces(vec![format!("[{form}]").into()])),
            ("field", Answer::text(200, "[]").with("x-echo", &format!("[{form}]"))),
        ] {
            let path = format!("/{place}/{number}");
            stage.upstream.script(Rule::always(answer).path(&path));
            let answered = wire.ask(&get(OTHER, &path));
            answered.assert_status(200);
            let text = if place == "field" { answered.value("x-echo").unwrap().to_owned() } else { answered.text() };
            assert!(text.starts_with('[') && text.ends_with(']'), "{name} in {place}: {text}");
            let instead = if name == "raw" { "keyferry" } else { "****************" };
            assert!(text.contains(instead), "{name} in {place}: {text}");
        }
    }
}

fn pieces(pieces: Vec<Bytes>) -> Answer {
    let fields = vec![("content-type".to_owned(), "text/plain".to_owned())];
    Answer::Pieces { status: 200, fields, pieces, gate: None }
}

#[test]
fn every_field_is_covered_or_dropped() {
    // EX-02, EX-12, EX-29, EX-30
    let stage = Stage::new();
    let secret = stage.acme.as_str();
    for offer in [Offer::Http1, Offer::Http2] {
        stage.upstream.defect(ACME, Defect::Offers(offer));
        stage.upstream.clear_script();
        let answer = Answer::text(200, "body")
            .with("location", &format!("https://evil.test/?k={secret}"))
            .with("etag", &format!("\"{secret}\""))
            .with("link", &format!("<https://a.test/{secret}>; rel=\"next\""))
            .with("content-disposition", &format!("attachment; filename=\"{secret}.txt\""))
            .with("x-twice", &format!("{secret} and {secret}"))
            .with("x-many", "first")
            .with("x-many", secret)
            .with("set-cookie", &format!("session={secret}; Path=/"))
            .with("www-authenticate", &format!("Bearer realm=\"{secret}\""))
            .with("authentication-info", &format!("nextnonce=\"{secret}\""))
            .with(&format!("x-{secret}"), "a name")
            .with(&secret[2..30], "another name")
            .with("x-plain", "stays");
        stage.upstream.script(Rule::always(answer).path("/fields"));
        let answered = stage.get(ACME, "/fields");
        answered.assert_status(200);
        let value = |name: &str| answered.value(name).unwrap_or_else(|| panic!("{name}: {answered:?}")).to_owned();
        assert!(value("location").starts_with("https://evil.test/?k=") && value("location").contains("keyferry"));
        assert!(value("link").ends_with(">; rel=\"next\"") && value("link").contains("keyferry"));
        assert!(value("content-disposition").ends_with(".txt\""), "{}", value("content-disposition"));
        assert_eq!(value("x-twice").matches("keyferry").count(), 2);
        assert_eq!(answered.fields.iter().filter(|(name, _)| name == "x-many").count(), 2);
        assert_eq!(value("x-plain"), "stays");
        assert!(value("etag").contains("keyferry"));
        for gone in ["set-cookie", "www-authenticate", "authentication-info"] {
            assert_eq!(answered.value(gone), None, "{gone}");
        }
        assert!(!answered.fields.iter().any(|(_, value)| value.ends_with("a name") || value == "another name"));
        assert_eq!(answered.text(), "body");
    }
}

#[test]
fn cookies_of_a_host_without_a_credential_are_the_agents_own() {
    // EX-29
    let stage = Stage::new();
    stage.upstream.script(Rule::always(Answer::text(200, "x").with("set-cookie", "a=1")).path("/cookie"));
    let authorization = stage.authorization();
    let request = format!("GET http://plain.example/cookie HTTP/1.1\r\nHost: plain.example\r\n{authorization}\r\n");
    assert_eq!(stage.wire().ask(&request).value("set-cookie"), Some("a=1"));
}

#[test]
fn reason_interim_answers_and_chunk_extensions_do_not_go_on() {
    // EX-02, EX-03
    let stage = Stage::new();
    let secret = stage.acme.as_str();
    let tail = "connection: close\r\ncontent-length: 2\r\n\r\nok";
    for raw in [
        format!("HTTP/1.1 200 {secret}\r\n{tail}"),
        format!("HTTP/1.1 103 Early Hints\r\nLink: <https://a.test/{secret}>\r\n\r\nHTTP/1.1 200 OK\r\n{tail}"),
        format!("HTTP/1.1 103 {secret}\r\nx-{secret}: 1\r\n\r\nHTTP/1.1 200 OK\r\n{tail}"),
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2;x={secret}\r\nok\r\n0\r\n\r\n"
        ),
    ] {
        stage.upstream.defect(ACME, Defect::Raw(raw.clone().into()));
        let answered = stage.get(ACME, "/");
        // Refusing such an answer is as good; passing on what was said in it is not.
        if answered.status == 200 {
            assert_eq!((answered.text().as_str(), answered.reason.as_str()), ("ok", "OK"), "{raw}");
        } else {
            answered.assert_refused(502, "upstream_protocol_error");
        }
    }
}

#[test]
fn trailers_are_covered_in_both_protocols() {
    // EX-03
    let stage = Stage::new();
    let ask = format!("GET /echo/trailers HTTP/1.1\r\nHost: {ACME}\r\nTE: trailers\r\n\r\n");
    let check = |all: &[u8]| {
        let all = String::from_utf8_lossy(all).to_lowercase();
        assert!(all.contains("x-echo: you said") && all.contains("keyferry"), "{all}");
        assert!(all.contains("grpc-message: ***") && all.contains("grpc-status-details-bin: "), "{all}");
    };
    let mut wire = stage.open(ACME);
    wire.send(ask.as_bytes());
    check(&wire.until(b"x-last: 1\r\n"));
    let url = format!("https://{ACME}/echo/trailers");
    if let Some(finished) = stage.curl(&["--http2", "-D", "-", &url]) {
        assert_eq!(finished.code(), 0, "{}", finished.stderr());
        check(finished.stdout().as_bytes());
    }
    let secret = stage.acme.as_str();
    let escaped: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let details = STANDARD.encode(format!("xx{secret}"));
    let raw = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\
         trailer: x-echo, grpc-message, grpc-status-details-bin, x-last\r\n\r\n4\r\nbody\r\n0\r\n\
         x-echo: you said {secret}\r\ngrpc-message: {escaped}\r\ngrpc-status-details-bin: {details}\r\n\
         x-last: 1\r\n\r\n"
    );
    stage.upstream.defect(ACME, Defect::Raw(raw.into()));
    let mut wire = stage.open(ACME);
    wire.send(ask.as_bytes());
    check(&wire.until(b"x-last: 1\r\n"));
}

#[test]
fn a_credential_in_two_pieces_is_found_at_every_cut() {
    // EX-04
    let stage = Stage::new();
    let secret = stage.acme.as_str();
    for offer in [Offer::Http1, Offer::Http2] {
        stage.upstream.defect(ACME, Defect::Offers(offer));
        let mut wire = stage.open(ACME);
        for (kind, text) in [
            ("text/plain", format!("before {secret} after")),
            ("text/event-stream", format!("data: {{\"text\": \"{secret}\"}}\n\ndata: [DONE]\n\n")),
        ] {
            let at = text.find(secret).unwrap();
            for cut in at..=at + secret.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let fields = vec![("content-type".to_owned(), kind.to_owned())];
                let pieces = vec![Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)];
                stage.upstream.clear_script();
                let answer = Answer::Pieces { status: 200, fields, pieces, gate: None };
                stage.upstream.script(Rule::always(answer).path("/cut"));
                let answered = wire.ask(&get(ACME, "/cut"));
                let instead = answered.text();
                assert!(instead.contains("keyferry"), "{kind} at {cut}: {instead}");
                assert_eq!(instead[..at], text[..at], "{kind} at {cut}");
                assert!(instead.ends_with(&text[at + secret.len()..]), "{kind} at {cut}: {instead}");
            }
        }
    }
}

#[test]
fn ranges_are_not_asked_for_with_a_credential() {
    // EX-08: a few bytes per request hold no credential that could be found.
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    for range in ["bytes=0-9", "bytes=10-19", "bytes=-5", "bytes=0-0,5-9"] {
        let request = format!("GET /x HTTP/1.1\r\nHost: {ACME}\r\nRange: {range}\r\nIf-Range: \"x\"\r\n\r\n");
        wire.ask(&request).assert_status(200);
    }
    for seen in stage.upstream.seen_at(ACME) {
        assert!(seen.values("range").is_empty() && seen.values("if-range").is_empty(), "{seen:?}");
    }
    stage.upstream.script(Rule::always(Answer::text(200, "x").with("accept-ranges", "bytes")).path("/ranges"));
    assert_eq!(stage.get(ACME, "/ranges").value("accept-ranges"), None, "none is offered either");
}

#[test]
fn a_masked_key_in_an_error_passes_and_a_long_part_of_it_does_not() {
    // EX-09
    let stage = Stage::new();
    let secret = stage.acme.as_str();
    let masked = format!("Incorrect API key provided: {}***{}", &secret[..8], &secret[36..]);
    stage.upstream.script(Rule::always(Answer::text(400, masked.clone())).path("/masked"));
    assert_eq!(stage.get(ACME, "/masked").text(), masked);
    for (from, to) in [(0, 24), (7, 31), (16, 40), (3, 39)] {
        let path = format!("/part/{from}");
        let text = format!("<{}>", &secret[from..to]);
        stage.upstream.script(Rule::always(Answer::text(400, text)).path(&path));
        assert_eq!(stage.get(ACME, &path).text(), format!("<{}>", "*".repeat(to - from)));
    }
}

#[test]
fn a_key_in_the_query_comes_back_covered() {
    // EX-13
    let key = Canary::gemini();
    let stage = Stage::with("default: deny\n", |upstream, home| home.stock(upstream, "gemini:work", &key, &[]));
    let exported = stage.home.command(&["env", "--agent", "coder", "--format", "json"]).json();
    let own = exported["GEMINI_API_KEY"].as_str().or(exported["GOOGLE_API_KEY"].as_str()).unwrap().to_owned();
    let host = "generativelanguage.googleapis.com";
    let answered = stage.get(host, &format!("/echo/fields?a=1&key={own}"));
    answered.assert_status(200);
    let said = answered.json()["target"].as_str().unwrap().to_owned();
    assert!(said.contains("a=1") && said.contains("key=") && said.contains("keyferry"), "{said}");
    stage.upstream.assert_carried(host, key.as_str());
}

#[test]
fn the_pair_that_basic_authentication_sends_is_covered_as_a_whole() {
    // EX-01: what was sent is a form of its own, beside the value that it was made of.
    let key = Canary::github();
    let stage = Stage::with("default: deny\n", |upstream, home| home.stock(upstream, "github:work", &key, &[]));
    let path = "/octo/repo.git/info/refs";
    stage.get("github.com", &format!("{path}?service=git-upload-pack"));
    let sent = stage.upstream.only("github.com");
    let (user, password) = sent.basic().expect("git is given Basic");
    assert_eq!(password, key.as_str());
    let pair = STANDARD.encode(format!("{user}:{password}"));
    let text = format!("[{pair}] [{user}:{password}]");
    stage.upstream.script(Rule::always(Answer::text(404, text)).path(path));
    let answered = stage.get("github.com", path);
    let exported = stage.home.command(&["env", "--agent", "coder", "--format", "json"]).json();
    let own = exported["GITHUB_TOKEN"].as_str().or(exported["GH_TOKEN"].as_str()).unwrap().to_owned();
    assert_eq!(answered.text(), format!("[{own}] [{user}:{own}]"));
}
