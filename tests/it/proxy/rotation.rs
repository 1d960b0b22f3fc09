//! Two profiles of one provider: what a limit does to the request, to the next one, and after a restart.

use super::Stage;
use crate::harness::{Answered, Canary, HTTP1, Home, Wire};
use crate::upstream::{Answer, Rule, Seen};

const HOST: &str = "api.anthropic.com";
const CONFIG: &str = "pools:\n  anthropic:\n    order: [first, second]\ndefault: deny\n";
const BODY: &str = r#"{"model":"claude-test","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

struct Pool {
    stage: Stage,
    first: Canary,
    second: Canary,
}

fn pool() -> Pool {
    let (first, second) = (Canary::anthropic(), Canary::anthropic());
    let (one, two) = (first.clone(), second.clone());
    let stage = Stage::with(CONFIG, move |upstream, home| {
        home.stock(upstream, "anthropic:first", &one, &[]);
        home.stock(upstream, "anthropic:second", &two, &[]);
    });
    Pool { stage, first, second }
}

fn limited(retry_after: &str) -> Answer {
    Answer::anthropic_rate_limited().with("retry-after", retry_after)
}

impl Pool {
    fn limit(&self, secret: &Canary, answer: Answer) {
        self.stage.upstream.script(Rule::always(answer).secret(secret.as_str()));
    }

    fn post(&self) -> Answered {
        post(&self.stage)
    }

    /// Which profile each request at the provider was sent with.
    fn sent(&self) -> Vec<&'static str> {
        let name = |seen: &Seen| match (seen.occurrences(self.first.as_str()), seen.occurrences(self.second.as_str())) {
            (1, 0) => "first",
            (0, 1) => "second",
            both => panic!("{both:?} in {seen:#?}"),
        };
        self.stage.upstream.seen_at(HOST).iter().map(name).collect()
    }

    fn profile(&self, name: &str) -> serde_json::Value {
        let listed = self.stage.home.command(&["profile", "list", "--json"]);
        listed.assert_code(0);
        let list = listed.json();
        let wanted = format!("anthropic:{name}");
        let found = list.as_array().unwrap().iter().find(|profile| profile["profile"] == wanted.as_str());
        found.unwrap_or_else(|| panic!("no {wanted} in {list}")).clone()
    }
}

fn post(stage: &Stage) -> Answered {
    let length = BODY.len();
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nx-api-key: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{BODY}"
    );
    stage.open(HOST).ask(&request)
}

/// Seconds from now to an RFC 3339 time.
fn seconds_until(time: &serde_json::Value) -> i64 {
    use time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(time.as_str().expect("a time"), &Rfc3339).unwrap();
    (time - time::OffsetDateTime::now_utc()).whole_seconds()
}

#[test]
fn a_limit_moves_the_same_request_to_the_next_profile() {
    // AU-18
    let pool = pool();
    pool.limit(&pool.first, limited("60"));
    let answered = pool.post();
    answered.assert_status(200);
    assert!(answered.text().contains("All keys stay home."));
    assert_eq!(pool.sent(), ["first", "second"]);
    for seen in pool.stage.upstream.seen_at(HOST) {
        assert_eq!(seen.body, BODY, "the body is sent again, whole");
    }
    // The first cools for the stated time and no more than a tenth longer; the next request does not try it.
    let first = pool.profile("first");
    assert_eq!(first["state"], "cooling");
    let left = seconds_until(&first["until"]);
    assert!((45..=90).contains(&left), "{left} s left of 60");
    assert_eq!(pool.profile("second")["state"], "ready");
    pool.stage.upstream.forget();
    pool.post().assert_status(200);
    assert_eq!(pool.sent(), ["second"]);
    let (_, metrics) = pool.stage.daemon.admin_get("/metrics");
    assert!(
        metrics.lines().any(|line| line.starts_with("keyferry_rotations_total{") && line.contains("anthropic")),
        "{metrics}"
    );
    let state = metrics.lines().find(|l| l.starts_with("keyferry_profile_state{") && l.contains("first")).unwrap();
    assert!(state.ends_with(" 1"), "{state}");
    let mut pool = pool;
    pool.stage.stop();
    let lines = pool.stage.home.access_log();
    let line = lines.iter().find(|line| line["attempts"].as_array().is_some_and(|a| a.len() == 2)).unwrap();
    assert_eq!(line["attempts"][0]["profile"], "anthropic:first");
    assert_eq!(line["attempts"][0]["status"], 429);
    assert_eq!(line["attempts"][1]["profile"], "anthropic:second");
    assert_eq!(line["attempts"][1]["status"], 200);
    assert_eq!(line["profile"], "anthropic:second");
    assert_eq!(line["status"], 200);
}

#[test]
fn what_remains_of_a_quota_is_shown_and_the_last_use_outlives_a_restart() {
    let mut pool = pool();
    let answer = Answer::json(200, &serde_json::json!({}))
        .with("anthropic-ratelimit-requests-remaining", "41")
        .with("anthropic-ratelimit-input-tokens-remaining", "20000")
        .with("anthropic-ratelimit-unified-5h-utilization", "0.25");
    pool.limit(&pool.first, answer);
    pool.post().assert_status(200);
    let (_, metrics) = pool.stage.daemon.admin_get("/metrics");
    for (kind, left) in [("requests", "41.0"), ("input_tokens", "20000.0"), ("window_5h", "0.75")] {
        let line = format!(
            "keyferry_profile_quota_remaining{{provider=\"anthropic\",profile=\"anthropic:first\",kind=\"{kind}\"}} {left}"
        );
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let used = pool.profile("first")["last_used"].clone();
    assert!(used.is_string());
    pool.stage.stop();
    assert_eq!(pool.profile("first")["last_used"], used, "shown without a daemon too");
    pool.stage.daemon = pool.stage.home.serve();
    assert_eq!(pool.profile("first")["last_used"], used);
}

#[test]
fn another_value_makes_a_profile_ready() {
    let pool = pool();
    pool.limit(&pool.first, limited("600"));
    pool.post().assert_status(200);
    assert_eq!(pool.profile("first")["state"], "cooling");
    pool.stage.home.stock(&pool.stage.upstream, "anthropic:first", &Canary::anthropic(), &[]);
    crate::harness::until("the new value is known", || (pool.profile("first")["state"] == "ready").then_some(()));
}

#[test]
fn another_value_makes_a_profile_ready_without_a_daemon_too() {
    let mut pool = pool();
    pool.limit(&pool.first, limited("600"));
    pool.post().assert_status(200);
    pool.stage.stop();
    assert_eq!(pool.profile("first")["state"], "cooling");
    pool.stage.home.stock(&pool.stage.upstream, "anthropic:first", &Canary::anthropic(), &[]);
    assert_eq!(pool.profile("first")["state"], "ready");
}

#[test]
fn a_profile_can_be_taken_out_and_put_back_without_a_daemon() {
    let mut pool = pool();
    pool.limit(&pool.second, limited("600"));
    pool.stage.home.command(&["profile", "disable", "anthropic:first"]).assert_code(0);
    pool.post().assert_refused(429, "profiles_cooling");
    assert_eq!(pool.sent(), ["second"]);
    pool.stage.stop();
    assert_eq!(pool.profile("first")["state"], "disabled");
    assert_eq!(pool.profile("second")["state"], "cooling");
    pool.stage.home.command(&["profile", "enable", "anthropic:first"]).assert_code(0);
    pool.stage.home.command(&["profile", "reset", "anthropic:second"]).assert_code(0);
    pool.stage.upstream.clear_script();
    pool.stage.daemon = pool.stage.home.serve();
    assert_eq!(
        (pool.profile("first")["state"].as_str(), pool.profile("second")["state"].as_str()),
        (Some("ready"), Some("ready"))
    );
}

#[test]
fn quota_and_billing_answers_move_on_too() {
    let quota = serde_json::json!({"type": "error", "error": {"type": "rate_limit_error", "message": "spend limit",
        "details": {"error_code": "enforced_spend_limit_reached"}}});
    let credit = serde_json::json!({"type": "error", "error": {"type": "invalid_request_error",
        "message": "Your credit balance is too low to access the Anthropic API."}});
    for answer in [Answer::json(429, &quota), Answer::json(400, &credit)] {
        let pool = pool();
        pool.limit(&pool.first, answer);
        pool.post().assert_status(200);
        assert_eq!(pool.sent(), ["first", "second"]);
        assert_eq!(pool.profile("first")["state"], "cooling");
    }
}

#[test]
fn an_exhausted_quota_of_openai_moves_on() {
    let (first, second) = (Canary::openai(), Canary::openai());
    let (one, two) = (first.clone(), second.clone());
    let stage = Stage::with("pools:\n  openai:\n    order: [first, second]\ndefault: deny\n", move |upstream, home| {
        home.stock(upstream, "openai:first", &one, &[]);
        home.stock(upstream, "openai:second", &two, &[]);
    });
    let host = "api.openai.com";
    stage.upstream.script(Rule::always(Answer::openai_quota()).host(host).secret(first.as_str()));
    stage.open(host).ask(&super::get(host, "/v1/models")).assert_status(200);
    let carried: Vec<usize> = stage.upstream.seen_at(host).iter().map(|s| s.occurrences(second.as_str())).collect();
    assert_eq!(carried, [0, 1]);
}

#[test]
fn all_cooling_is_answered_truthfully_and_without_a_request() {
    let pool = pool();
    pool.limit(&pool.first, limited("120"));
    pool.limit(&pool.second, limited("30"));
    let answered = pool.post();
    assert_eq!(pool.sent(), ["first", "second"]);
    let check = |answered: &Answered| {
        answered.assert_refused(429, "profiles_cooling");
        let wait: u64 = answered.value("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=40).contains(&wait), "the earliest release is in about 30 s, not {wait}");
        assert_eq!(answered.json()["error"]["type"], "rate_limit_error", "the provider's own word");
    };
    check(&answered);
    pool.stage.upstream.forget();
    check(&pool.post());
    assert!(pool.stage.upstream.seen().is_empty(), "nothing is sent while all profiles cool");
}

#[test]
fn a_long_wait_tells_the_sdks_not_to_retry() {
    let pool = pool();
    pool.limit(&pool.first, limited("7200"));
    pool.limit(&pool.second, limited("3600"));
    let answered = pool.post();
    answered.assert_refused(429, "profiles_cooling");
    assert_eq!(answered.value("x-should-retry"), Some("false"));
    let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
    assert!((3500..=4000).contains(&wait), "{wait}");
}

#[test]
fn cooldowns_outlive_a_restart() {
    let mut pool = pool();
    pool.limit(&pool.first, limited("600"));
    pool.limit(&pool.second, limited("600"));
    pool.post().assert_refused(429, "profiles_cooling");
    pool.stage.stop();
    pool.stage.upstream.forget();
    pool.stage.daemon = pool.stage.home.serve();
    let answered = pool.post();
    answered.assert_refused(429, "profiles_cooling");
    let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
    assert!((500..=680).contains(&wait), "{wait}");
    assert!(pool.stage.upstream.seen().is_empty());
}

#[test]
fn a_reset_makes_a_profile_ready() {
    let pool = pool();
    pool.limit(&pool.first, limited("600"));
    pool.post().assert_status(200);
    pool.stage.upstream.clear_script();
    pool.stage.upstream.forget();
    pool.stage.home.command(&["profile", "reset", "anthropic:first"]).assert_code(0);
    assert_eq!(pool.profile("first")["state"], "ready");
    pool.post().assert_status(200);
    assert_eq!(pool.sent(), ["first"]);
}

#[test]
fn a_bare_limit_hops_once_and_the_first_cools() {
    // No Retry-After, nothing in the body: the other profile's success is the evidence.
    let pool = pool();
    let bare = Answer::Whole { status: 429, fields: Vec::new(), body: bytes::Bytes::new() };
    pool.limit(&pool.first, bare);
    pool.post().assert_status(200);
    assert_eq!(pool.sent(), ["first", "second"]);
    let first = pool.profile("first");
    assert_eq!(first["state"], "cooling");
    let left = seconds_until(&first["until"]);
    assert!((40..=90).contains(&left), "the ladder starts with a minute, not {left} s");
}

#[test]
fn a_request_fault_is_the_agents_own() {
    let pool = pool();
    let fault = serde_json::json!({"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: required"}});
    pool.limit(&pool.first, Answer::json(400, &fault));
    let answered = pool.post();
    answered.assert_status(400);
    assert_eq!(answered.json()["error"]["message"], "max_tokens: required");
    assert_eq!(pool.sent(), ["first"]);
    assert_eq!(pool.profile("first")["state"], "ready");
}

#[test]
fn a_pools_rejection_is_no_401() {
    // A 401 would send an agent into a login flow.
    let pool = pool();
    let bad =
        serde_json::json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}});
    pool.limit(&pool.first, Answer::json(401, &bad));
    pool.limit(&pool.second, Answer::json(401, &bad));
    pool.post().assert_refused(502, "credentials_rejected");
}

#[test]
fn a_stream_that_began_is_not_sent_again() {
    // AU-18
    let pool = pool();
    let pieces = vec![
        "event: message_start\ndata: {\"type\":\"message_start\"}\n\n".into(),
        "event: content_block_delta\ndata: {}\n\n".into(),
    ];
    let fields = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    pool.limit(&pool.first, Answer::Broken { status: 200, fields, pieces });
    let answered = pool.post();
    answered.assert_status(200);
    assert!(!answered.complete, "a broken stream must not end cleanly");
    assert_eq!(pool.sent(), ["first"]);
}

#[test]
fn a_pool_of_identities_is_not_fungible() {
    // Another GitHub token is another identity: a limit is passed on, nothing is tried with the second.
    let (first, second) = (Canary::github(), Canary::github());
    let (one, two) = (first.clone(), second.clone());
    let stage = Stage::with("pools:\n  github:\n    order: [first, second]\ndefault: deny\n", move |upstream, home| {
        home.stock(upstream, "github:first", &one, &[]);
        home.stock(upstream, "github:second", &two, &[]);
    });
    let answer = Answer::text(403, "{\"message\":\"secondary rate limit\"}").with("retry-after", "60");
    stage.upstream.script(Rule::always(answer).secret(first.as_str()));
    let answered = stage.open("api.github.com").ask(&super::get("api.github.com", "/user"));
    assert!(answered.status == 403 || answered.status == 429, "{answered:?}");
    let seen = stage.upstream.seen_at("api.github.com");
    assert_eq!(seen.len(), 1, "{seen:#?}");
    assert_eq!(seen[0].occurrences(second.as_str()), 0);
}

#[test]
fn parallel_requests_survive_a_limit() {
    let pool = pool();
    pool.limit(&pool.first, limited("60"));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(|| pool.post().status)).collect();
        for one in asked {
            assert_eq!(one.join().unwrap(), 200);
        }
    });
    assert!(pool.sent().iter().filter(|name| **name == "second").count() == 12);
    assert_eq!(pool.profile("first")["level"], 1, "twelve failures of one moment are one");
}

#[test]
fn a_run_uses_the_same_pool() {
    let pool = pool();
    pool.limit(&pool.first, limited("600"));
    pool.post().assert_status(200);
    let Pool { mut stage, .. } = pool;
    stage.stop();
    let home: &Home = &stage.home;
    drop(Wire::connect(home, stage.upstream.plain_address()));
    let Some(curl) = crate::harness::need("rotation", crate::harness::Tool::Curl) else { return };
    stage.upstream.forget();
    let mut command = home.keyferry(&["run", "--quiet", "--"]);
    command.arg(curl).args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--json", BODY]);
    command.arg("https://api.anthropic.com/v1/messages");
    let finished = home.finish(command, b"");
    assert_eq!(finished.stdout(), "200", "{}", finished.stderr());
    assert_eq!(stage.upstream.seen_at(HOST).len(), 1, "the first profile still cools");
    let _ = HTTP1;
}

#[test]
fn a_pool_that_does_not_rotate_gives_the_agent_what_came() {
    let (first, second) = (Canary::anthropic(), Canary::anthropic());
    let (one, two) = (first.clone(), second.clone());
    let config = "pools:\n  anthropic: {order: [first, second], rotate: off}\ndefault: deny\n";
    let stage = Stage::with(config, move |upstream, home| {
        home.stock(upstream, "anthropic:first", &one, &[]);
        home.stock(upstream, "anthropic:second", &two, &[]);
    });
    let pool = Pool { stage, first, second };
    pool.limit(&pool.first, limited("60"));
    let answered = pool.post();
    answered.assert_status(429);
    assert_eq!(answered.json()["error"]["type"], "rate_limit_error");
    assert_eq!(answered.value("x-keyferry-error"), None, "the provider's own answer");
    assert_eq!(pool.sent(), ["first"]);
}

#[test]
fn a_users_own_rule_comes_before_the_built_in_ones() {
    let (first, second) = (Canary::anthropic(), Canary::anthropic());
    let (one, two) = (first.clone(), second.clone());
    let config = "providers:\n  anthropic:\n    rules:\n      - {name: plan, on: 418, says: {/error/code: plan_spent}, \
        means: quota, until: {body: /error/seconds, as: seconds}}\n\
        pools:\n  anthropic: {order: [first, second]}\ndefault: deny\n";
    let stage = Stage::with(config, move |upstream, home| {
        home.stock(upstream, "anthropic:first", &one, &[]);
        home.stock(upstream, "anthropic:second", &two, &[]);
    });
    let pool = Pool { stage, first, second };
    let spent = serde_json::json!({"error": {"code": "plan_spent", "seconds": 9000}});
    pool.limit(&pool.first, Answer::json(418, &spent));
    pool.post().assert_status(200);
    assert_eq!(pool.sent(), ["first", "second"]);
    let first = pool.profile("first");
    assert_eq!((&first["state"], &first["holds"][0]["lane"]), (&"cooling".into(), &"quota".into()), "{first}");
    assert!((8900..=9100).contains(&seconds_until(&first["until"])), "{first}");
}

#[test]
fn what_one_account_made_is_asked_of_that_account() {
    let (first, second) = (Canary::openai(), Canary::openai());
    let (one, two) = (first.clone(), second.clone());
    let config = "pools:\n  openai: {order: [first, second], strategy: round-robin}\ndefault: deny\n";
    let stage = Stage::with(config, move |upstream, home| {
        home.stock(upstream, "openai:first", &one, &[]);
        home.stock(upstream, "openai:second", &two, &[]);
    });
    let host = "api.openai.com";
    let event = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_2\"}}\n\n\
                 event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\"}\n\n";
    let stream = Answer::Whole {
        status: 200,
        fields: vec![("content-type".to_owned(), "text/event-stream".to_owned())],
        body: bytes::Bytes::from_static(event.as_bytes()),
    };
    let made = |id: &str| Answer::json(200, &serde_json::json!({"object": "response", "id": id}));
    stage.upstream.script(Rule::always(made("resp_1")).path("/v1/responses").times(1));
    stage.upstream.script(Rule::always(stream).path("/v1/responses").times(1));
    stage.upstream.script(Rule::always(made("resp_3")).path("/v1/responses"));
    let ok = serde_json::json!({"ok": true});
    for path in ["/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/responses/resp_2"] {
        stage.upstream.script(Rule::always(Answer::json(200, &ok)).path(path));
    }
    let ask = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let fields = "authorization: Bearer x\r\ncontent-type: application/json";
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\ncontent-length: {length}\r\n\r\n{body}");
        stage.open(host).ask(&request).assert_status(200);
    };
    let free = r#"{"model":"m","input":"x"}"#;
    ask("POST", "/v1/responses", free);
    ask("POST", "/v1/responses", free);
    for _ in 0..2 {
        // In another order than taking turns would give.
        ask("GET", "/v1/responses/resp_2", "");
        ask("POST", "/v1/responses", r#"{"model":"m","input":"x","previous_response_id":"resp_2"}"#);
        ask("GET", "/v1/responses/resp_1", "");
        ask("POST", "/v1/responses/resp_1/cancel", "");
        ask("POST", "/v1/responses", r#"{"model":"m","input":"x","previous_response_id":"resp_1"}"#);
    }
    let pool = Pool { stage, first, second };
    let seen = pool.stage.upstream.seen_at(host);
    let of = |seen: &Seen| if seen.occurrences(pool.first.as_str()) == 1 { "first" } else { "second" };
    let sent: Vec<_> = seen.iter().map(of).collect();
    assert_eq!(sent[..2], ["first", "second"]);
    let own = ["second", "second", "first", "first", "first"];
    assert_eq!(sent[2..], [own, own].concat(), "each is with the account that made it");
}
