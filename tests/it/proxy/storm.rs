//! Fifty agents that stream through three profiles while the provider limits, overloads, refuses and wants money.
//!
//! `KEYFERRY_STORM_SECONDS` sets its length (`tests/long/run storm`); with `KEYFERRY_STORM_CHART=FILE` the run is drawn.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Stage;
use crate::harness::{Answered, Canary, until};
use crate::upstream::{Answer, Rule, Seen};

const HOST: &str = "api.anthropic.com";
const CONFIG: &str = "pools:\n  anthropic: {order: [one, two, three]}\ndefault: deny\n";
const AGENTS: usize = 50;
const NAMES: [&str; 3] = ["one", "two", "three"];
/// What a limit says, in seconds.
const REST: u64 = 2;
/// The default of `attempts.total`.
const SENDS: usize = 4;

/// One request as its agent saw it.
struct Told {
    begun: Instant,
    ended: Instant,
    status: u16,
    whole: bool,
    code: Option<String>,
    retry_after: bool,
}

/// The states of the profiles at a moment, as the metrics have them.
type Sample = (Instant, [bool; 3]);

fn seconds() -> u64 {
    std::env::var("KEYFERRY_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

#[test]
fn in_a_storm_every_request_ends_well_or_truthfully_and_nothing_is_sent_where_it_rests() {
    let secrets = [Canary::anthropic(), Canary::anthropic(), Canary::anthropic()];
    let stored = secrets.clone();
    let stage = Stage::with(CONFIG, move |upstream, home| {
        for (name, secret) in NAMES.iter().zip(&stored) {
            home.stock(upstream, &format!("anthropic:{name}"), secret, &[]);
        }
    });
    let (begun, told, done) = (Instant::now(), Mutex::new(HashMap::new()), AtomicUsize::new(0));
    let (over, samples) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let end = begun + Duration::from_secs(seconds());
    std::thread::scope(|scope| {
        for agent in 0..AGENTS {
            let (stage, told, done) = (&stage, &told, &done);
            scope.spawn(move || run(stage, agent, end, told, done));
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && Instant::now() < end + Duration::from_secs(60) {
                let (_, metrics) = stage.daemon.admin_get("/metrics");
                samples.lock().unwrap().push((Instant::now(), NAMES.map(|name| rests(&metrics, name))));
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        blow(&stage, &secrets, begun, end, &done);
        until("the agents' ends", || ended(&told).then_some(()));
        over.store(true, Ordering::Relaxed);
    });
    let told = told.into_inner().unwrap();
    let seen = sent(&stage, &secrets);
    check_told(&told);
    check_sends(&told, &seen);
    if let Ok(file) = std::env::var("KEYFERRY_STORM_CHART") {
        std::fs::write(file, chart(begun, &seen, &samples.into_inner().unwrap())).unwrap();
    }
}

/// Whether no agent can be at work any more.
fn ended(told: &Mutex<HashMap<usize, Told>>) -> bool {
    let told = told.lock().unwrap();
    (0..AGENTS).all(|agent| told.contains_key(&(agent << 32 | LAST)))
}

/// The number of an agent's last word.
const LAST: usize = 0xffff_ffff;

/// One agent: one conversation, one request after the other.
fn run(stage: &Stage, agent: usize, end: Instant, told: &Mutex<HashMap<usize, Told>>, done: &AtomicUsize) {
    let mut wire = stage.open(HOST);
    let mut number = 0;
    while Instant::now() < end {
        let id = agent << 32 | number;
        let body = json!({"model": "claude-test", "max_tokens": 9, "stream": true,
            "messages": [{"role": "user", "content": format!("agent {agent}, request {number}")}]})
        .to_string();
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nx-api-key: x\r\ncontent-type: application/json\r\n\
             x-session-id: agent-{agent}\r\nx-storm: {id}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        let answered = wire.ask(&request);
        let one = note(begun, &answered);
        let limited = one.retry_after;
        told.lock().unwrap().insert(id, one);
        done.fetch_add(1, Ordering::Relaxed);
        if limited {
            // An SDK waits as long as it is told; this one is impatient and comes early.
            std::thread::park_timeout(Duration::from_millis(200));
        }
        number += 1;
    }
    let now = Instant::now();
    let last = Told { begun: now, ended: now, status: 0, whole: true, code: None, retry_after: false };
    told.lock().unwrap().insert(agent << 32 | LAST, last);
}

fn note(begun: Instant, answered: &Answered) -> Told {
    Told {
        begun,
        ended: Instant::now(),
        status: answered.status,
        whole: answered.complete && (answered.status != 200 || answered.text().contains("message_stop")),
        code: answered.value("x-keyferry-error").map(str::to_owned),
        retry_after: answered.value("retry-after").is_some(),
    }
}

/// What the provider does to whom, from one step to the next.
fn blow(stage: &Stage, secrets: &[Canary; 3], begun: Instant, end: Instant, done: &AtomicUsize) {
    let overloaded =
        Answer::json(529, &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}));
    let refused = Answer::json(
        401,
        &json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
    );
    let money = Answer::json(
        400,
        &json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "Your credit balance is too low to access the Anthropic API."}}),
    );
    let limited = || Answer::anthropic_rate_limited().with("retry-after", &REST.to_string());
    let mut paid = false;
    for step in 0.. {
        let aim = done.load(Ordering::Relaxed) + 20;
        until("the next step", || (done.load(Ordering::Relaxed) >= aim || Instant::now() >= end).then_some(()));
        if Instant::now() >= end {
            return;
        }
        let (answer, times) = match step % 5 {
            0 | 2 => (limited(), 1),
            1 => (overloaded.clone(), 4),
            3 => (refused.clone(), 2),
            _ if !paid && begun.elapsed() > (end - begun) / 2 => {
                paid = true;
                let rule = Rule::always(money.clone()).secret(secrets[2].as_str());
                stage.upstream.script(rule.path("/v1/messages").times(1));
                continue;
            }
            _ => (limited(), 3),
        };
        let secret = secrets[step % 3].as_str();
        stage.upstream.script(Rule::always(answer).secret(secret).path("/v1/messages").times(times));
    }
}

/// Every send: when, with which profile, for which request, and what a script answered.
fn sent(stage: &Stage, secrets: &[Canary; 3]) -> Vec<(Instant, usize, usize, Option<u16>)> {
    let one = |seen: &Seen| {
        let profile = secrets.iter().position(|secret| seen.occurrences(secret.as_str()) == 1).unwrap();
        Some((seen.at, profile, seen.value("x-storm")?.parse().unwrap(), seen.scripted))
    };
    stage.upstream.seen_at(HOST).iter().filter_map(one).collect()
}

fn check_told(told: &HashMap<usize, Told>) {
    let mut counts: HashMap<(u16, Option<&str>), usize> = HashMap::new();
    for one in told.values().filter(|one| one.status != 0) {
        *counts.entry((one.status, one.code.as_deref())).or_default() += 1;
        match (one.status, one.code.as_deref()) {
            (200, None) => assert!(one.whole, "a stream that was cut off"),
            (429, Some("profiles_cooling")) | (503, Some("upstream_overloaded")) => assert!(one.retry_after),
            // The provider's own word where it has no capacity for anybody; ours where it refused every credential.
            (529, None) | (502, Some("credentials_rejected")) => {}
            other => panic!("{other:?}"),
        }
    }
    println!("answers: {counts:?}");
    // Not a share of all: how often agents that come early are refused meanwhile is a matter of the machine's speed.
    let good = counts.get(&(200, None)).copied().unwrap_or(0);
    assert!(good > 20, "{counts:?}");
}

fn check_sends(told: &HashMap<usize, Told>, sent: &[(Instant, usize, usize, Option<u16>)]) {
    let mut of: HashMap<usize, usize> = HashMap::new();
    sent.iter().for_each(|(_, _, id, _)| *of.entry(*id).or_default() += 1);
    assert!(of.values().all(|sends| *sends <= SENDS), "{:?}", of.values().max());
    for (at, profile, limited, _) in sent.iter().filter(|(_, _, _, scripted)| *scripted == Some(429)) {
        // Who begins after the limited request has ended begins after its limit is known.
        let known = told.get(limited).map(|one| one.ended).unwrap();
        let over = *at + Duration::from_secs(REST);
        let early = sent.iter().find(|(then, same, id, _)| {
            same == profile && *then < over && told.get(id).is_some_and(|one| one.begun > known)
        });
        assert!(early.is_none(), "sent to {} while it rests: {early:?}", NAMES[*profile]);
    }
    println!("{} requests, {} sends", told.len(), sent.len());
}

fn rests(metrics: &str, name: &str) -> bool {
    let state = metrics.lines().find(|line| line.starts_with("keyferry_profile_state{") && line.contains(name));
    state.is_some_and(|line| line.ends_with(" 1"))
}

/// The profiles over time: one lane each, grey where it rests, a mark for each answer.
fn chart(begun: Instant, sent: &[(Instant, usize, usize, Option<u16>)], samples: &[Sample]) -> String {
    let last = sent.iter().map(|(at, ..)| *at).max().unwrap_or(begun).duration_since(begun).as_secs_f64();
    let x = |at: Instant| 70.0 + 880.0 * at.duration_since(begun).as_secs_f64() / last;
    let lane = |profile: usize| 40 + profile * 70;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 970 300\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"970\" height=\"300\" fill=\"#fff\"/>\n",
    );
    let mut draw = |shape: std::fmt::Arguments<'_>| writeln!(svg, "{shape}").unwrap();
    for (profile, name) in NAMES.iter().enumerate() {
        draw(format_args!("<text x=\"8\" y=\"{}\">{name}</text>", lane(profile) + 29));
        let mut from = None;
        for (at, states) in samples {
            match (from, states[profile]) {
                (None, true) => from = Some(*at),
                (Some(start), false) => {
                    draw(format_args!("{}", bar(x(start), x(*at), lane(profile))));
                    from = None;
                }
                _ => {}
            }
        }
        if let Some(start) = from {
            draw(format_args!("{}", bar(x(start), 950.0, lane(profile))));
        }
    }
    for (at, profile, _, scripted) in sent {
        let (color, row) = match scripted {
            None => ("#2a9d4a", 40),
            Some(429) => ("#d97700", 4),
            Some(529) => ("#7a4fc9", 13),
            Some(401) => ("#c22f2f", 22),
            Some(_) => ("#111", 31),
        };
        let (x, y) = (x(*at), lane(*profile) + row);
        draw(format_args!("<rect x=\"{x:.1}\" y=\"{y}\" width=\"1.4\" height=\"8\" fill=\"{color}\"/>"));
    }
    let legend = [
        ("#2a9d4a", "served"),
        ("#d97700", "429"),
        ("#7a4fc9", "529"),
        ("#c22f2f", "401"),
        ("#111", "no credit"),
        ("#ddd", "resting"),
    ];
    for (at, (color, word)) in legend.iter().enumerate() {
        let x = 70 + at * 110;
        draw(format_args!(
            "<rect x=\"{x}\" y=\"270\" width=\"10\" height=\"10\" fill=\"{color}\"/><text x=\"{}\" y=\"279\">{word}</text>",
            x + 15
        ));
    }
    draw(format_args!("<text x=\"70\" y=\"20\">{AGENTS} streaming agents, three profiles, {last:.0} s</text>"));
    svg.push_str("</svg>\n");
    svg
}

fn bar(from: f64, to: f64, lane: usize) -> String {
    format!("<rect x=\"{from:.1}\" y=\"{lane}\" width=\"{:.1}\" height=\"50\" fill=\"#ddd\"/>", to - from)
}
