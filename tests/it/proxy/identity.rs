//! Who is asking: tokens, and what each agent may use.

use super::{ACME, CONFIG, OTHER, Stage, get};
use crate::harness::{Answered, HTTP1, Wire, connect_request};

fn connect_with(stage: &Stage, authorization: &str) -> Answered {
    stage.wire().ask(&format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n{authorization}\r\n"))
}

#[test]
fn refuses_everything_that_is_no_token_of_ours() {
    // AU-05
    use base64::Engine;
    let stage = Stage::new();
    let basic = |text: &str| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    };
    for authorization in [
        "Proxy-Authorization: Basic\r\n".to_owned(),
        "Proxy-Authorization: Basic !!!\r\n".to_owned(),
        "Proxy-Authorization: Digest abc\r\n".to_owned(),
        basic("coder"),
        basic("coder:"),
        basic("coder:kfa_wrong"),
        basic(&format!("other:{}", stage.token)),
        basic(&format!("coder:{}x", stage.token)),
        format!("Authorization: Bearer {}\r\n", stage.token),
        format!("{}{}", stage.authorization(), basic("coder:kfa_wrong")),
    ] {
        let answered = connect_with(&stage, &authorization);
        assert!(matches!(answered.status, 400 | 407), "{authorization}: {}", answered.status);
    }
    assert!(stage.upstream.connections().is_empty());
}

#[test]
fn takes_the_token_as_bearer_too() {
    let stage = Stage::new();
    let mut wire = stage.wire();
    let token = &stage.token;
    wire.send(
        format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\nProxy-Authorization: Bearer {token}\r\n\r\n")
            .as_bytes(),
    );
    wire.head_only().assert_status(200);
}

#[test]
fn an_agent_uses_what_it_is_allowed_and_what_is_its_own() {
    // AU-02, AU-01: a credential out of scope does not exist for the agent.
    let agents = "agents:\n  narrow:\n    allow: [acme]\n";
    let stage = Stage::with(&format!("{CONFIG}{agents}"), |_, _| {});
    let narrow = stage.home.agent("narrow");
    let open = |target: &str| Wire::tunnel(&stage.home, stage.daemon.proxy, "narrow", &narrow, target);
    let mut wire = open(&format!("{ACME}:443")).tls(&stage.ca(), ACME, HTTP1).unwrap();
    wire.ask(&get(ACME, "/")).assert_status(200);
    let refused = |target: &str| {
        let mut wire = stage.wire();
        wire.ask(&connect_request(target, "narrow", &narrow))
    };
    let hidden = refused(&format!("{OTHER}:443"));
    hidden.assert_refused(403, "policy_denied");
    let unknown = refused("unknown.example:443");
    let same =
        |answered: &Answered, host: &str| answered.json()["error"]["message"].as_str().unwrap().replace(host, "");
    assert_eq!(same(&hidden, OTHER), same(&unknown, "unknown.example"), "both answers look alike");
    stage.get(OTHER, "/").assert_status(200);
}

#[test]
fn a_private_credential_serves_its_agent_alone() {
    let own = crate::harness::Canary::plain();
    let kept = own.clone();
    let stage = Stage::with(CONFIG, move |upstream, home| {
        home.stock(upstream, "acme:private", &kept, &["--scope", "agent:second"]);
    });
    let second = stage.home.agent("second");
    let wire = Wire::tunnel(&stage.home, stage.daemon.proxy, "second", &second, &format!("{ACME}:443"));
    wire.tls(&stage.ca(), ACME, HTTP1).unwrap().ask(&get(ACME, "/second")).assert_status(200);
    for _ in 0..3 {
        stage.get(ACME, "/coder").assert_status(200);
    }
    for seen in stage.upstream.seen_at(ACME) {
        let expected = usize::from(seen.path() == "/second");
        let shared = seen.occurrences(stage.acme.as_str());
        let private = seen.occurrences(own.as_str());
        assert!(private <= expected, "the private credential was used for another agent");
        assert_eq!(private + shared, 1);
    }
}

#[test]
fn a_revoked_token_ends_at_once() {
    // AU-07: the next request on a living connection included.
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    wire.ask(&get(ACME, "/")).assert_status(200);
    stage.home.command(&["agent", "revoke", "coder", "--yes"]).assert_code(0);
    crate::harness::until("the revocation", || {
        let answered = stage.wire().ask(&connect_request(&format!("{ACME}:443"), "coder", &stage.token));
        (answered.status == 407).then_some(())
    });
    stage.upstream.forget();
    let _ = wire.try_send(get(ACME, "/after").as_bytes());
    let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
    assert!(!rest.starts_with("HTTP/1.1 200"), "{rest}");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn a_rotated_token_replaces_the_old_one() {
    let stage = Stage::new();
    let rotated = stage.home.command(&["agent", "rotate", "coder", "--json", "--yes"]);
    rotated.assert_code(0);
    let token = rotated.json()["token"].as_str().unwrap().to_owned();
    assert_ne!(token, stage.token);
    crate::harness::until("the new token", || {
        let mut wire = stage.wire();
        wire.send(connect_request(&format!("{ACME}:443"), "coder", &token).as_bytes());
        (wire.head_only().status == 200).then_some(())
    });
}

#[test]
fn an_agent_is_listed_with_when_it_was_last_seen() {
    let mut stage = Stage::new();
    let seen = |stage: &Stage| {
        let listed = stage.home.command(&["agent", "list", "--json"]).json();
        let row = listed.as_array().unwrap().iter().find(|row| row["agent"] == "coder").unwrap().clone();
        row["last_seen"].as_str().map(ToOwned::to_owned)
    };
    assert_eq!(seen(&stage), None);
    stage.get(ACME, "/").assert_status(200);
    stage.stop();
    assert!(seen(&stage).is_some_and(|time| time.starts_with("20")));
}

#[test]
fn tokens_stand_nowhere_in_the_clear() {
    // EX-23
    let mut stage = Stage::new();
    stage.get(ACME, "/").assert_status(200);
    stage.stop();
    let search = crate::harness::Search::new([&crate::harness::Canary::of(&stage.token)]);
    assert_eq!(search.directory(&stage.home.path()), []);
    assert_eq!(search.bytes("stdout", stage.daemon.stdout.text().as_bytes()), []);
    assert_eq!(search.bytes("stderr", stage.daemon.stderr.text().as_bytes()), []);
}
