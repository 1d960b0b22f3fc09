//! Another provider of the same protocol, when every profile of one rests.

use super::Stage;
use crate::harness::{Answered, Canary};
use crate::upstream::{Answer, Rule, Seen};

const HOST: &str = "api.anthropic.com";
const OTHER: &str = "openrouter.ai";
const CONFIG: &str = "\
pools:
  anthropic:
    order: [first, second]
    fallback: [{provider: openrouter, models: {\"claude-sonnet-*\": anthropic/claude-sonnet-4}}]
default: deny
";
const BODY: &str = "{\"max_tokens\": 9,  \"model\":\"claude-sonnet-4-5\", \"messages\":[{\"role\":\"user\",\"content\":\"say \\\"model\\\"\"}]}";

struct Pool {
    stage: Stage,
    first: Canary,
    second: Canary,
    other: Canary,
}

fn pool(config: &str) -> Pool {
    let (first, second, other) = (Canary::anthropic(), Canary::anthropic(), Canary::openrouter());
    let (one, two, three) = (first.clone(), second.clone(), other.clone());
    let stage = Stage::with(config, move |upstream, home| {
        home.stock(upstream, "anthropic:first", &one, &[]);
        home.stock(upstream, "anthropic:second", &two, &[]);
        home.stock(upstream, "openrouter:spare", &three, &[]);
    });
    let answer = serde_json::json!({"id": "gen-1", "type": "message", "content": []});
    stage.upstream.script(Rule::always(Answer::json(200, &answer)).host(OTHER).path("/api/v1/messages").times(50));
    Pool { stage, first, second, other }
}

impl Pool {
    fn limit_both(&self) {
        let limited = |wait: &str| Answer::anthropic_rate_limited().with("retry-after", wait);
        self.stage.upstream.script(Rule::always(limited("600")).secret(self.first.as_str()));
        self.stage.upstream.script(Rule::always(limited("300")).secret(self.second.as_str()));
    }

    fn post(&self, body: &str) -> Answered {
        self.ask("/v1/messages?beta=true", &format!("content-length: {}\r\n", body.len()), body)
    }

    fn ask(&self, target: &str, fields: &str, body: &str) -> Answered {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {HOST}\r\nx-api-key: x\r\ncontent-type: application/json\r\n\
             anthropic-version: 2023-06-01\r\nanthropic-beta: some-beta\r\nx-app: cli\r\n{fields}\r\n{body}"
        );
        self.stage.open(HOST).ask(&request)
    }
}

fn field<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.fields.iter().find(|(field, _)| field == name).map(|(_, value)| std::str::from_utf8(value).unwrap())
}

#[test]
fn when_all_rest_another_provider_takes_the_request_with_its_own_path_credential_and_model() {
    let mut pool = pool(CONFIG);
    pool.limit_both();
    let answered = pool.post(BODY);
    answered.assert_status(200);
    assert_eq!(answered.json()["id"], "gen-1");
    assert_eq!(pool.stage.upstream.seen_at(HOST).len(), 2, "its own profiles come first");
    let seen = pool.stage.upstream.only(OTHER);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/api/v1/messages"));
    assert_eq!(field(&seen, "authorization"), Some(format!("Bearer {}", pool.other.as_str()).as_str()));
    let body = BODY.replace("claude-sonnet-4-5", "anthropic/claude-sonnet-4");
    assert_eq!(std::str::from_utf8(&seen.body).unwrap(), body, "nothing else of the body changes");
    assert_eq!(field(&seen, "content-length"), Some(body.len().to_string().as_str()));
    assert_eq!(field(&seen, "anthropic-version"), Some("2023-06-01"));
    assert_eq!(field(&seen, "x-app"), Some("cli"));
    for gone in ["x-api-key", "anthropic-beta"] {
        assert_eq!(field(&seen, gone), None, "{gone}");
    }
    for own in [&pool.first, &pool.second] {
        assert_eq!(seen.occurrences(own.as_str()), 0, "a credential goes to its own hosts only");
    }
    // The next request does not ask those that rest.
    pool.stage.upstream.forget();
    pool.post(BODY).assert_status(200);
    assert!(pool.stage.upstream.seen_at(HOST).is_empty());
    pool.stage.stop();
    let lines = pool.stage.home.access_log();
    let line = lines.iter().find(|line| line["attempts"].as_array().is_some_and(|list| list.len() == 3)).unwrap();
    let sent: Vec<_> =
        line["attempts"].as_array().unwrap().iter().map(|one| (&one["profile"], &one["status"])).collect();
    assert_eq!(
        serde_json::json!(sent),
        serde_json::json!([["anthropic:first", 429], ["anthropic:second", 429], ["openrouter:spare", 200]])
    );
    assert_eq!((&line["profile"], &line["provider"]), (&"openrouter:spare".into(), &"openrouter".into()));
    assert_eq!((&line["host"], &line["path"], &line["status"]), (&HOST.into(), &"/v1/messages".into(), &200.into()));
}

#[test]
fn what_another_provider_could_not_take_is_not_sent_there() {
    let pool = pool(CONFIG);
    pool.limit_both();
    let say = |body: &str, what: &str| {
        pool.post(body).assert_refused(429, "profiles_cooling");
        assert!(pool.stage.upstream.seen_at(OTHER).is_empty(), "{what}");
    };
    say(&BODY.replace("claude-sonnet-4-5", "claude-opus-4"), "no model there");
    let thinking = r#"{"model":"claude-sonnet-4-5","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"}]}]}"#;
    say(thinking, "signed by the provider that made it");
    say(&BODY.replacen('{', "{\"container\":\"c\",", 1), "state of one account");
    let tool =
        r#"{"model":"claude-sonnet-4-5","messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}"#;
    say(tool, "a tool that runs at its provider");
    say("{\"model\":\"claude-sonnet-4-5\"", "no JSON");
    // A body of unknown length may be larger than what is held.
    let chunked = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    let answered = pool.ask("/v1/messages", "transfer-encoding: chunked\r\n", &chunked);
    answered.assert_refused(429, "profiles_cooling");
    let answered = pool.ask("/v1/messages/count_tokens", &format!("content-length: {}\r\n", BODY.len()), BODY);
    answered.assert_refused(429, "profiles_cooling");
    assert!(pool.stage.upstream.seen_at(OTHER).is_empty());
    pool.post(BODY).assert_status(200);
}

#[test]
fn an_agent_falls_back_only_where_it_may_go_itself() {
    let pool = pool(&format!("{CONFIG}agents:\n  coder: {{allow: [anthropic]}}\n"));
    pool.limit_both();
    pool.post(BODY).assert_refused(429, "profiles_cooling");
    assert!(pool.stage.upstream.seen_at(OTHER).is_empty());
    let elsewhere = "{provider: openrouter, paths: [/api/v1/chat/**]}";
    let pool = self::pool(&format!("{CONFIG}agents:\n  coder: {{allow: [anthropic, {elsewhere}]}}\n"));
    pool.limit_both();
    pool.post(BODY).assert_refused(429, "profiles_cooling");
    assert!(pool.stage.upstream.seen_at(OTHER).is_empty(), "the path is not allowed there");
}

#[test]
fn a_fallbacks_failure_is_its_own() {
    let pool = pool(CONFIG);
    pool.stage.upstream.clear_script();
    pool.limit_both();
    let broke = serde_json::json!({"error": {"code": 402, "message": "Insufficient credits"}});
    pool.stage.upstream.script(Rule::always(Answer::json(402, &broke)).host(OTHER));
    let answered = pool.post(BODY);
    answered.assert_refused(429, "profiles_cooling");
    assert_eq!(answered.json()["error"]["type"], "rate_limit_error", "in the words of the provider that was asked for");
    let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
    assert!((200..=330).contains(&wait), "the earliest of all: {wait}");
    let listed = pool.stage.home.command(&["profile", "list", "--json"]).json();
    let of = |name: &str| listed.as_array().unwrap().iter().find(|one| one["profile"] == name).unwrap().clone();
    assert_eq!(of("openrouter:spare")["holds"][0]["lane"], "billing");
    assert_eq!(of("anthropic:first")["holds"][0]["lane"], "rate-limit");
}
