//! What an agent and a profile may use, and what happens beyond that.

use super::Stage;
use crate::harness::{Answered, Canary, Wire, until};
use crate::upstream::{Answer, Gate, Rule};

const HOST: &str = "api.anthropic.com";
const OPENAI: &str = "api.openai.com";
const BODY: &str = r#"{"model":"claude-test","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

fn stage(config: &str) -> (Stage, Canary, Canary) {
    let (first, second) = (Canary::anthropic(), Canary::anthropic());
    let (one, two) = (first.clone(), second.clone());
    let stage = Stage::with(&format!("{config}default: deny\n"), move |upstream, home| {
        home.stock(upstream, "anthropic:first", &one, &[]);
        home.stock(upstream, "anthropic:second", &two, &[]);
        home.stock(upstream, "openai:work", &Canary::openai(), &[]);
    });
    (stage, first, second)
}

fn request(host: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn post(stage: &Stage) -> Answered {
    stage.open(HOST).ask(&request(HOST, "/v1/messages", BODY))
}

/// Sends a request whose answer waits at the gate, and waits until it is at the provider.
fn pending(stage: &Stage, before: usize) -> Wire {
    let mut wire = stage.open(HOST);
    wire.send(request(HOST, "/v1/messages", BODY).as_bytes());
    until("the request is at the provider", || (stage.upstream.seen_at(HOST).len() > before).then_some(()));
    wire
}

#[test]
fn a_burst_is_served_and_the_next_request_is_told_when_to_come() {
    let (mut stage, ..) = stage("agents: {coder: {limits: {requests: 3/h}}}\n");
    for _ in 0..3 {
        post(&stage).assert_status(200);
    }
    let answered = post(&stage);
    answered.assert_refused(429, "agent_rate_limited");
    let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
    assert!((600..=1200).contains(&wait), "a third of an hour, not {wait} s");
    assert_eq!(answered.value("x-should-retry"), Some("false"), "an SDK would sleep as long as it is told to");
    assert_eq!(answered.json()["error"]["type"], "rate_limit_error", "the provider's own word");
    assert_eq!(stage.upstream.seen_at(HOST).len(), 3);
    let (_, metrics) = stage.daemon.admin_get("/metrics");
    assert!(metrics.contains("keyferry_denied_total{reason=\"agent_rate_limited\"} 1"), "{metrics}");
    stage.stop();
    let refused = stage.home.access_log().into_iter().find(|line| line["error"] == "agent_rate_limited").unwrap();
    assert_eq!((refused["decision"].as_str(), refused["status"].as_u64()), (Some("denied"), Some(429)));
}

#[test]
fn an_agent_has_so_many_requests_at_a_time_to_the_end_of_their_answers() {
    let (stage, ..) = stage("agents: {coder: {limits: {concurrency: 1}}}\n");
    let gate = Gate::closed();
    let pieces = vec!["data: {}\n\n".into(), "data: {\"x\":1}\n\n".into()];
    let fields = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    stage
        .upstream
        .script(Rule::always(Answer::Pieces { status: 200, fields, pieces, gate: Some(gate.clone()) }).times(1));
    let mut wire = stage.open(HOST);
    wire.send(request(HOST, "/v1/messages", BODY).as_bytes());
    // The head is there, its body is not at its end.
    assert_eq!(wire.head_only().status, 200);
    let answered = post(&stage);
    answered.assert_refused(429, "agent_rate_limited");
    assert_eq!(answered.value("retry-after"), Some("1"));
    assert_eq!(answered.value("x-should-retry"), None);
    gate.open();
    until("the first has ended", || (post(&stage).status == 200).then_some(()));
}

#[test]
fn a_profile_is_full_to_the_end_of_its_answers() {
    let (stage, first, second) = stage("pools: {anthropic: {order: [first, second], limits: {concurrency: 1}}}\n");
    let gate = Gate::closed();
    let pieces = vec!["data: {}\n\n".into(), "data: {\"x\":1}\n\n".into()];
    let fields = vec![("content-type".to_owned(), "text/event-stream".to_owned())];
    let answer = Answer::Pieces { status: 200, fields, pieces, gate: Some(gate.clone()) };
    stage.upstream.script(Rule::always(answer).secret(first.as_str()).times(1));
    let mut wire = stage.open(HOST);
    wire.send(request(HOST, "/v1/messages", BODY).as_bytes());
    assert_eq!(wire.head_only().status, 200);
    assert_eq!(post(&stage).status, 200);
    let sent = |at: usize, secret: &Canary| stage.upstream.seen_at(HOST)[at].occurrences(secret.as_str());
    assert_eq!((sent(0, &first), sent(1, &second)), (1, 1), "the first is full while its answer goes on");
    gate.open();
}

#[test]
fn a_day_of_tokens_is_counted_from_answers_and_survives_a_restart() {
    // Every answer of the provider here reports 7 and 4 tokens.
    let (mut stage, ..) = stage("agents: {coder: {limits: {tokens: 20/day}}}\n");
    post(&stage).assert_status(200);
    let streamed = BODY.replacen('{', r#"{"stream":true,"#, 1);
    stage.open(HOST).ask(&request(HOST, "/v1/messages", &streamed)).assert_status(200);
    let check = |stage: &Stage| {
        let answered = post(stage);
        answered.assert_refused(429, "agent_rate_limited");
        let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "until midnight in UTC, not {wait} s");
    };
    check(&stage);
    stage.stop();
    stage.daemon = stage.home.serve();
    check(&stage);
    stage.stop();
    let lines = stage.home.access_log();
    let counted: Vec<_> = lines.iter().filter(|line| line["status"] == 200 && line["method"] == "POST").collect();
    assert_eq!(counted.len(), 2);
    for line in counted {
        assert_eq!((line["tokens_in"].as_u64(), line["tokens_out"].as_u64()), (Some(7), Some(4)), "{line}");
    }
}

#[test]
fn an_openai_answer_and_its_stream_are_counted() {
    let (mut stage, ..) = stage("");
    let body = r#"{"model":"gpt-test","messages":[]}"#;
    stage.open(OPENAI).ask(&request(OPENAI, "/v1/chat/completions", body)).assert_status(200);
    let pieces: Vec<bytes::Bytes> =
        ["data: {\"choices\":[],\"usa", "ge\":{\"prompt_tokens\":21,\"comple", "tion_tokens\":5}}\n\n"]
            .into_iter()
            .map(Into::into)
            .collect();
    let fields = vec![("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())];
    stage.upstream.script(Rule::always(Answer::Pieces { status: 200, fields, pieces, gate: None }).host(OPENAI));
    stage.open(OPENAI).ask(&request(OPENAI, "/v1/chat/completions", body)).assert_status(200);
    stage.stop();
    let tokens = |line: &serde_json::Value| (line["tokens_in"].as_u64(), line["tokens_out"].as_u64());
    let found: Vec<_> = stage.home.access_log().iter().filter(|line| line["method"] == "POST").map(tokens).collect();
    assert_eq!(found, [(Some(7), Some(4)), (Some(21), Some(5))]);
}

#[test]
fn a_profile_that_is_full_is_passed_over_and_then_waited_for() {
    let config = "pools: {anthropic: {order: [first, second], limits: {concurrency: 1}}}\n";
    let (stage, first, second) = stage(config);
    let gates = (Gate::closed(), Gate::closed());
    for (secret, gate) in [(&first, &gates.0), (&second, &gates.1)] {
        let answer = Answer::When(gate.clone(), Box::new(Answer::Usual));
        stage.upstream.script(Rule::always(answer).secret(secret.as_str()).times(1));
    }
    let mut one = pending(&stage, 0);
    let mut two = pending(&stage, 1);
    let sent = |at: usize, secret: &Canary| stage.upstream.seen_at(HOST)[at].occurrences(secret.as_str());
    assert_eq!((sent(0, &first), sent(1, &second)), (1, 1), "the first is full, so the second is taken");
    std::thread::scope(|scope| {
        let third = scope.spawn(|| post(&stage).status);
        gates.1.open();
        assert_eq!(two.answer().status, 200);
        assert_eq!(third.join().unwrap(), 200, "it waited for a place");
    });
    assert_eq!(sent(2, &second), 1);
    gates.0.open();
    assert_eq!(one.answer().status, 200);
}

#[test]
fn a_profiles_rate_moves_requests_on_and_then_is_said() {
    let config = "pools: {anthropic: {order: [first, second], limits: {requests: 2/day}}}\n";
    let (mut stage, first, _) = stage(config);
    for expected in [1, 1, 0, 0] {
        stage.upstream.forget();
        post(&stage).assert_status(200);
        assert_eq!(stage.upstream.seen_at(HOST)[0].occurrences(first.as_str()), expected);
    }
    let check = |stage: &Stage| {
        let answered = post(stage);
        answered.assert_refused(429, "profiles_cooling");
        let wait: u64 = answered.value("retry-after").unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "{wait}");
    };
    check(&stage);
    stage.stop();
    stage.daemon = stage.home.serve();
    check(&stage);
}

#[test]
fn a_reload_changes_limits_and_keeps_what_is_used() {
    let (stage, ..) = stage("agents: {coder: {limits: {requests: 1/h, tokens: 2M/day}}}\n");
    post(&stage).assert_status(200);
    post(&stage).assert_refused(429, "agent_rate_limited");
    let file = stage.home.file("keyferry.yaml");
    stage.home.write_config(&file.replace("requests: 1/h, tokens: 2M/day", "tokens: 11/day"));
    stage.home.command(&["reload"]).assert_code(0);
    // Eleven tokens are used already.
    let answered = post(&stage);
    answered.assert_refused(429, "agent_rate_limited");
    assert!(answered.text().contains("11/day tokens"), "{}", answered.text());
}
