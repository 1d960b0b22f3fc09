//! What comes back: the credential is taken out of fields and bodies, and the rest is left as it was.
//!
//! That it is gone is what every test's end searches for; these tests hold what stands in its place.

use super::{ACME, CONFIG, Stage, get};
use crate::upstream::{Answer, Rule};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[test]
fn an_echoed_credential_comes_back_as_the_agents_placeholder() {
    // EX-01
    let mut stage = Stage::new();
    let answered = stage.get(ACME, "/echo/fields");
    answered.assert_status(200);
    let fields = answered.json()["fields"].clone();
    let list = fields.as_array().unwrap();
    let echoed = list.iter().find(|pair| pair[0] == "authorization").expect("the field was sent")[1].clone();
    let echoed = echoed.as_str().unwrap().to_owned();
    assert!(echoed.starts_with("Bearer ") && echoed.contains("keyferry"), "{echoed}");
    let exported = stage.home.command(&["env", "--agent", "coder", "--format", "json"]).json();
    assert_eq!(format!("Bearer {}", exported["ACME_API_KEY"].as_str().unwrap()), echoed);
    stage.stop();
    let line = &stage.home.access_log()[0];
    assert!(line["redactions"].as_u64().is_some_and(|count| count >= 1), "{line}");
}

#[test]
fn fields_of_a_response_are_scrubbed() {
    // EX-02, EX-12
    let stage = Stage::new();
    let answered = stage.get(ACME, "/echo/in-fields");
    answered.assert_status(200);
    for name in ["x-echo", "etag"] {
        assert!(answered.value(name).is_some_and(|value| value.contains("keyferry")), "{name}: {answered:?}");
    }
    let location = answered.value("location").unwrap();
    assert!(location.starts_with("https://elsewhere.example/?k="), "{location}");
}

#[test]
fn a_credential_in_pieces_is_found_at_every_split() {
    // EX-04
    let stage = Stage::new();
    for size in [1, 2, 3, 7, 13, 20, 39, 40, 41, 46, 47, 48] {
        let answered = stage.get(ACME, &format!("/echo/split?size={size}"));
        answered.assert_status(200);
        let text = answered.text();
        assert!(text.starts_with("before ") && text.ends_with(" after") && text.contains("keyferry"), "{size}: {text}");
    }
    let Some(finished) = stage.curl(&["--http2", "https://api.acme.example/echo/split?size=1"]) else { return };
    assert!(finished.stdout().contains("keyferry"), "{}", finished.stdout());
}

#[test]
fn encoded_forms_are_taken_out_too() {
    // EX-01
    let stage = Stage::new();
    let secret = stage.acme.as_str();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = secret.bytes().map(|byte| format!("\\u{:04x}", u32::from(byte))).collect();
    let forms = [
        STANDARD.encode(secret),
        STANDARD.encode(format!("a{secret}")),
        STANDARD.encode(format!("ab{secret}")),
        STANDARD.encode(format!("user:{secret}")),
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret),
        hex.clone(),
        hex.to_uppercase(),
        percent,
        escaped,
    ];
    for (number, form) in forms.iter().enumerate() {
        let path = format!("/form/{number}");
        stage.upstream.script(Rule::always(Answer::text(200, format!("[{form}]"))).path(&path));
        let answered = stage.get(ACME, &path);
        answered.assert_status(200);
        let text = answered.text();
        assert!(text.starts_with('[') && text.ends_with(']'), "{text}");
        assert_eq!(text.len(), form.len() + 2, "an encoded form keeps its length");
    }
}

#[test]
fn everything_else_arrives_unchanged() {
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    for bytes in [0, 1, 1000, 100_000, 3_000_000] {
        let answered = wire.ask(&get(ACME, &format!("/download?bytes={bytes}")));
        answered.assert_status(200);
        assert!(answered.complete);
        assert_eq!(answered.body, crate::upstream::pattern(bytes));
    }
    assert_eq!(wire.ask(&get(ACME, "/sse?n=5")).text().matches("token-").count(), 5);
}

#[test]
fn an_answer_with_an_unknown_coding_is_not_passed_on() {
    // EX-06
    let stage = Stage::new();
    let answer = Answer::text(200, "????").with("content-encoding", "x-unknown");
    stage.upstream.script(Rule::always(answer).path("/coded"));
    stage.get(ACME, "/coded").assert_refused(502, "response_unscannable");
}

#[test]
fn compressed_answers_are_asked_for_only_as_far_as_they_can_be_read() {
    // EX-05
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    wire.ask(&format!("GET / HTTP/1.1\r\nHost: {ACME}\r\nAccept-Encoding: dcb, zstd, x-foo, identity\r\n\r\n"));
    let seen = stage.upstream.only(ACME);
    let asked = seen.values("accept-encoding").join(",");
    assert!(!asked.contains("dcb") && !asked.contains("x-foo"), "{asked}");
}

#[test]
fn an_error_page_of_ours_holds_nothing_of_the_request() {
    // EX-32
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let request = "GET /secret-path?token=abcdefgh HTTP/1.1\r\nHost: api.other.example\r\nX-Private: abcdefgh\r\n\r\n";
    let answered = wire.ask(request);
    answered.assert_refused(421, "authority_mismatch");
    assert!(!answered.text().contains("abcdefgh"), "{}", answered.text());
}

#[test]
fn scrubbing_can_be_switched_off_by_the_operator_for_a_route() {
    let routes = CONFIG
        .replace("routes:\n", "routes:\n  - {host: api.acme.example, action: allow, provider: acme, scrub: off}\n");
    let stage = Stage::with(&routes, |_, _| {});
    // The secret comes back by the operator's own choice, so it is looked at outside the guarded connection.
    let answered = stage.get(ACME, "/download?bytes=10");
    answered.assert_status(200);
}
