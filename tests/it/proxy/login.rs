//! Logins (type `oauth2`): tokens that end and are renewed, once for all who wait, and on the disk before they are used.

use std::process::Command;

use serde_json::{Value, json};

use super::{ACME, CONFIG, Stage, get};
use crate::harness::{Answered, Canary, Home, LISTEN, until};
use crate::upstream::{Answer, Gate, Rule, Seen, TestUpstream};

/// The token endpoint; no provider has this host.
const AUTH: &str = "api.other.example";
const TOKEN: &str = "/oauth/token";

struct Login {
    stage: Stage,
    /// Tokens in the order in which the endpoint gives them.
    access: [Canary; 3],
    refresh: [Canary; 3],
}

fn config() -> String {
    let (start, _) = CONFIG.split_once("  other:").unwrap();
    format!("{start}agents: {{coder: {{}}, second: {{}}}}\ndefault: deny\n")
}

/// A daemon with one login, whose first access token is stored with it or not.
fn login(access: bool, more: &[&str]) -> Login {
    login_with(access, more, &config(), |_, _| {})
}

fn login_with(access: bool, more: &[&str], config: &str, prepare: impl FnOnce(&TestUpstream, &Home)) -> Login {
    let tokens = || [Canary::plain(), Canary::plain(), Canary::plain()];
    let (accesses, refreshes) = (tokens(), tokens());
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, "");
    home.write_config(&format!("{LISTEN}{}{config}", home.upstream_section(&upstream, "")));
    let mut value = json!({"refresh_token": refreshes[0].as_str(), "client_id": "cli"});
    if access {
        value["access_token"] = accesses[0].as_str().into();
    }
    store(&home, &value, more);
    accesses.iter().chain(&refreshes).for_each(|canary| home.guard(canary));
    prepare(&upstream, &home);
    let token = home.agent("coder");
    let daemon = home.serve();
    let (acme, other) = (Canary::plain(), Canary::plain());
    Login { stage: Stage { daemon, home, upstream, token, acme, other }, access: accesses, refresh: refreshes }
}

fn store(home: &Home, value: &Value, more: &[&str]) {
    let url = format!("token_url=https://{AUTH}{TOKEN}");
    let arguments = [&["secret", "set", "acme:me", "--type", "oauth2", "--set", &url][..], more].concat();
    home.finish(home.keyferry(&arguments), value.to_string().as_bytes()).assert_code(0);
}

impl Login {
    /// From now on the endpoint gives the tokens of this number for those of the one before.
    fn grants(&self, number: usize) -> &Self {
        let body = json!({"access_token": self.access[number].as_str(), "expires_in": 3600, "token_type": "bearer",
            "refresh_token": self.refresh[number].as_str()});
        self.answers(Rule::always(Answer::json(200, &body)).secret(self.refresh[number - 1].as_str()))
    }

    fn answers(&self, rule: Rule) -> &Self {
        self.stage.upstream.script(rule.host(AUTH).path(TOKEN));
        self
    }

    /// The provider refuses this token.
    fn refuses(&self, number: usize) -> &Self {
        let refused = Answer::json(401, &json!({"error": "expired"}));
        self.stage.upstream.script(Rule::always(refused).host(ACME).secret(self.access[number].as_str()));
        self
    }

    fn ask(&self) -> Answered {
        self.stage.get(ACME, "/v1/me")
    }

    fn calls(&self) -> Vec<Seen> {
        self.stage.upstream.seen_at(AUTH)
    }

    fn profile(&self) -> Value {
        let listed = self.stage.home.command(&["profile", "list", "--json"]);
        listed.assert_code(0);
        listed.json()[0].clone()
    }

    fn version(&self) -> u64 {
        let shown = self.stage.home.command(&["secret", "show", "acme:me", "--json"]);
        shown.json()["version"].as_u64().unwrap()
    }

    fn metric(&self, name: &str) -> Option<String> {
        let (_, metrics) = self.stage.daemon.admin_get("/metrics");
        metrics.lines().find(|line| line.starts_with(name)).map(str::to_owned)
    }
}

#[test]
fn a_refused_token_is_renewed_and_the_request_goes_out_again() {
    let login = login(true, &[]);
    login.grants(1).refuses(0);
    login.ask().assert_status(200);
    let calls = login.calls();
    assert_eq!(calls.len(), 1);
    let form = String::from_utf8(calls[0].body.to_vec()).unwrap();
    let expected = format!("grant_type=refresh_token&refresh_token={}&client_id=cli", login.refresh[0].as_str());
    assert_eq!((calls[0].method.as_str(), form.as_str()), ("POST", expected.as_str()));
    let sent: Vec<_> = login.stage.upstream.seen_at(ACME).iter().map(|s| s.value("authorization").unwrap()).collect();
    let bearer = |number: usize| format!("Bearer {}", login.access[number].as_str());
    assert_eq!(sent, [bearer(0), bearer(1)]);
    // It is used from now on, and nothing was held against the profile.
    login.ask().assert_status(200);
    assert_eq!(login.calls().len(), 1);
    assert_eq!((login.profile()["state"].as_str(), login.version()), (Some("ready"), 2));
    let counted = login.metric("keyferry_credential_refresh_total{").unwrap();
    assert!(counted.contains("acme:me") && counted.ends_with("result=\"ok\"} 1"), "{counted}");
    assert!(login.metric("keyferry_credential_expiry_seconds{").unwrap().contains("acme:me"));
}

#[test]
fn two_agents_at_once_make_one_renewal() {
    // AU-14
    let login = login(false, &[]);
    let gate = Gate::closed();
    let body = json!({"access_token": login.access[1].as_str(), "refresh_token": login.refresh[1].as_str()});
    login.answers(Rule::always(Answer::When(gate.clone(), Box::new(Answer::json(200, &body)))));
    let token = login.stage.home.agent("second");
    std::thread::scope(|scope| {
        let mut asked = Vec::new();
        for at in 0..8 {
            let (login, token) = (&login, &token);
            asked.push(scope.spawn(move || {
                if at % 2 == 0 {
                    return login.ask().status;
                }
                let (home, proxy) = (&login.stage.home, login.stage.daemon.proxy);
                let wire = crate::harness::Wire::tunnel(home, proxy, "second", token, &format!("{ACME}:443"));
                let mut wire = wire.tls(&login.stage.ca(), ACME, crate::harness::HTTP1).unwrap();
                wire.ask(&get(ACME, "/v1/me")).status
            }));
        }
        until("somebody asks for new tokens", || (!login.calls().is_empty()).then_some(()));
        gate.open();
        for one in asked {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    assert_eq!(login.calls().len(), 1, "one call for all of them");
    assert_eq!(login.version(), 2);
}

#[test]
fn a_replaced_refresh_token_is_used_the_next_time_also_after_a_restart() {
    let mut login = login(false, &[]);
    login.grants(1);
    login.ask().assert_status(200);
    login.stage.stop();
    login.stage.upstream.forget();
    login.stage.daemon = login.stage.home.serve();
    // The provider has thought better of the first token.
    login.stage.upstream.clear_script();
    login.grants(2).refuses(1);
    login.ask().assert_status(200);
    assert_eq!(login.calls().len(), 1);
    assert_eq!(login.calls()[0].occurrences(login.refresh[1].as_str()), 1);
    assert_eq!(login.version(), 3);
}

#[test]
fn a_process_that_is_killed_has_the_old_login_or_the_new() {
    let mut login = login(false, &[]);
    login.grants(1);
    login.ask().assert_status(200);
    // The answer came, so the tokens that it was asked for with are on the disk.
    login.stage.daemon.signal(rustix::process::Signal::KILL);
    login.stage.daemon.ended();
    login.stage.upstream.forget();
    login.stage.daemon = login.stage.home.serve();
    login.ask().assert_status(200);
    assert!(login.calls().is_empty(), "the new token is there");
    assert_eq!(login.version(), 2);
}

#[test]
fn tokens_are_renewed_ahead_of_their_end() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let login = login(true, &["--set", &format!("expires_at={}", now + 5)]);
    login.grants(1);
    login.ask().assert_status(200);
    assert_eq!(login.calls().len(), 1);
    let sent = login.stage.upstream.only(ACME);
    assert_eq!(sent.occurrences(login.access[1].as_str()), 1, "the request waited for the new one");
}

#[test]
fn an_ended_login_is_said_and_held_until_there_is_another() {
    let login = login(true, &[]);
    login.refuses(0).answers(Rule::always(Answer::json(400, &json!({"error": "invalid_grant"}))));
    let answered = login.ask();
    answered.assert_refused(502, "needs_login");
    assert_eq!(answered.value("x-should-retry"), Some("false"));
    let profile = login.profile();
    assert_eq!((profile["state"].as_str(), profile["reason"].as_str()), (Some("disabled"), Some("needs_login")));
    login.stage.upstream.forget();
    login.ask().assert_refused(502, "needs_login");
    assert!(login.stage.upstream.seen().is_empty(), "nobody is asked any more");
    assert!(login.metric("keyferry_credential_refresh_total{").unwrap().ends_with("result=\"needs_login\"} 1"));
    // A person logs in again.
    let value = json!({"access_token": login.access[2].as_str(), "refresh_token": login.refresh[2].as_str()});
    store(&login.stage.home, &value, &[]);
    until("the new login is used", || (login.ask().status == 200).then_some(()));
    assert_eq!(login.profile()["state"], "ready");
}

#[test]
fn a_token_that_somebody_else_used_first_is_no_end_of_the_login() {
    let login = login(false, &[]);
    let gate = Gate::closed();
    let reused = Answer::json(400, &json!({"error": "invalid_grant"}));
    login.answers(Rule::always(Answer::When(gate.clone(), Box::new(reused))));
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| login.ask());
        until("somebody asks for new tokens", || (!login.calls().is_empty()).then_some(()));
        let value = json!({"access_token": login.access[1].as_str(), "refresh_token": login.refresh[1].as_str(),
            "client_id": "cli"});
        store(&login.stage.home, &value, &[]);
        gate.open();
        asked.join().unwrap().assert_status(200);
    });
    assert_eq!(login.stage.upstream.only(ACME).occurrences(login.access[1].as_str()), 1);
    assert_eq!(login.profile()["state"], "ready");
}

#[test]
fn an_endpoint_that_fails_holds_nothing_against_the_login() {
    // AU-15
    let login = login(false, &[]);
    for failure in [Answer::json(500, &json!({"error": "server_error"})), Answer::text(200, "<html>")] {
        login.answers(Rule::always(failure).times(1));
    }
    login.grants(1);
    let answered = login.ask();
    answered.assert_refused(502, "upstream_unreachable");
    assert_eq!(answered.value("x-should-retry"), None, "it may work in a moment");
    assert_eq!(login.profile()["state"], "ready");
    until("the endpoint works again", || (login.ask().status == 200).then_some(()));
    assert_eq!(login.calls().len(), 3);
    assert_eq!(login.version(), 2);
}

#[test]
fn another_profile_takes_over_from_an_ended_login() {
    let key = Canary::plain();
    let stored = key.clone();
    let config = config().replace("agents:", "pools: {acme: {order: [me, key]}}\nagents:");
    let login = login_with(true, &[], &config, move |upstream, home| home.stock(upstream, "acme:key", &stored, &[]));
    login.refuses(0).answers(Rule::always(Answer::json(400, &json!({"error": "invalid_grant"}))));
    login.ask().assert_status(200);
    let sent = login.stage.upstream.seen_at(ACME);
    assert_eq!(sent.last().unwrap().occurrences(key.as_str()), 1);
}

#[test]
fn an_upstream_that_says_tokens_back_is_not_passed_on() {
    let login = login(true, &[]);
    let text = format!("{} and {}", login.access[0].as_str(), login.refresh[0].as_str());
    login.stage.upstream.script(Rule::always(Answer::text(200, text)).host(ACME));
    let answered = login.ask();
    answered.assert_status(200);
    assert!(!answered.text().contains(login.refresh[0].as_str()));
}

#[test]
fn an_agent_cannot_reach_the_token_endpoint_with_the_login() {
    let login = login(true, &[]);
    let refused = login.stage.connect(&format!("{AUTH}:443"));
    refused.assert_refused(403, "policy_denied");
}

#[test]
fn what_is_no_login_is_refused_with_what_to_write() {
    let home = Home::empty();
    home.write_config(&config());
    let set = |arguments: &[&str], value: &str| {
        let all = [&["secret", "set", "acme:me", "--type", "oauth2"][..], arguments].concat();
        let command: Command = home.keyferry(&all);
        home.finish(command, value.as_bytes())
    };
    set(&[], r#"{"refresh_token": "r"}"#).assert_code(2).assert_says(&["no token_url", "--set token_url="]);
    set(&["--set", "token_url=http://a.example/"], "r").assert_code(2).assert_says(&["token_url is not an https://"]);
    set(&["--set", "token_url"], "r").assert_code(2).assert_says(&["--set takes KEY=VALUE"]);
    set(&["--set", "token_url=https://a.example/t"], "just-a-refresh-token").assert_code(0);
}
