//! What one agent, or somebody who is none, cannot do to the others; and cookies of a credential's session.

use base64::Engine as _;

use super::{ACME, CONFIG, Stage, get};
use crate::harness::Answered;
use crate::upstream::{Answer, Rule};

fn guess(stage: &Stage, token: &str) -> Answered {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("coder:{token}"));
    let mut wire = stage.wire();
    wire.ask(&format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n"))
}

#[test]
fn wrong_tokens_are_limited_and_right_ones_are_not() {
    // AU-04
    let mut stage = Stage::new();
    let mut limited = None;
    for tried in 0..2000 {
        let answered = guess(&stage, &format!("kfa_{tried}"));
        if answered.status == 429 {
            limited = Some((tried, answered));
            break;
        }
        answered.assert_refused(407, "agent_unauthenticated");
    }
    let (tried, answered) = limited.expect("guesses without end");
    answered.assert_refused(429, "agent_rate_limited");
    assert!(answered.value("retry-after").is_some() && tried >= 30, "{tried}: {answered:?}");
    // On the base-URL listener forged placeholders count with them.
    let mut wire = crate::harness::Wire::connect(&stage.home, stage.daemon.base_url);
    let forged = wire.ask("GET /acme/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer keyferry-forged\r\n\r\n");
    forged.assert_refused(429, "agent_rate_limited");
    stage.get(ACME, "/right").assert_status(200);
    // Who sends none has guessed nothing: git and .NET authenticate only after a 407.
    stage.wire().ask(&format!("CONNECT {ACME}:443 HTTP/1.1\r\nHost: {ACME}:443\r\n\r\n")).assert_status(407);
    stage.stop();
    assert!(stage.home.access_log().iter().any(|line| line["error"] == "agent_rate_limited"));
}

#[test]
fn cookies_of_a_credentials_session_stay_behind_unless_a_route_lets_them_through() {
    // EX-29
    for (more, passed) in [("", false), ("set_cookie: pass, ", true)] {
        let route = format!("routes:\n  - {{host: {ACME}, action: allow, {more}provider: acme}}\n");
        let config = CONFIG.replace("routes:\n", &route);
        let stage = Stage::with(&config, |_, _| {});
        let answer = Answer::text(200, "in").with("set-cookie", &format!("session={}; Path=/", stage.acme.as_str()));
        stage.upstream.script(Rule::always(answer.with("set-cookie", "plain=1")).path("/login"));
        let answered = stage.open(ACME).ask(&get(ACME, "/login"));
        answered.assert_status(200);
        let cookies: Vec<&str> =
            answered.fields.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| &**value).collect();
        assert_eq!(cookies.len(), if passed { 2 } else { 0 }, "{cookies:?}");
        // The value itself is taken out either way: the home looks for it when it is dropped.
    }
}

#[test]
fn new_hosts_of_one_agent_come_one_after_the_other() {
    // TL-36: beyond a burst, certificates are made at a rate; whoever asks too far ahead is told when to come again.
    let config = CONFIG.replace("routes:\n", "routes:\n  - {host: \"*.many.example\", action: allow}\n");
    let stage = Stage::with(&config, |_, _| {});
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let stage = &stage;
            move || stage.connect(&format!("h{n}.many.example:443")).status
        };
        let threads: Vec<_> = (0..150).map(|n| scope.spawn(ask(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let (_, text) = stage.daemon.admin_get("/metrics");
    let minted = text.lines().find(|line| line.starts_with("keyferry_leaf_certificates_total")).unwrap();
    let minted: f64 = minted.rsplit(' ').next().unwrap().parse().unwrap();
    let opened = statuses.iter().filter(|status| **status == 200).count();
    assert!(opened >= 20 && (1.0..=opened as f64).contains(&minted), "{minted} for {opened}");
}
