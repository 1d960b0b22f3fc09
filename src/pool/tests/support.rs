//! Pools, asks and outcomes in few words.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;

use crate::clock::WallTime;
use crate::id::{ProfileId, ProviderId};
use crate::pool::*;
use crate::provider::outcome::{Class, Outcome, Reset, Said, Scope};

pub const START: WallTime = WallTime(1_777_593_600_000);

pub fn at(seconds: u64) -> WallTime {
    START.plus(Duration::from_secs(seconds))
}

pub fn provider() -> ProviderId {
    ProviderId::parse("acme").unwrap()
}

pub fn profile(name: &str) -> ProfileId {
    ProfileId::parse(&format!("acme:{name}")).unwrap()
}

pub fn candidate(name: &str, rank: u8) -> Candidate {
    Candidate { profile: profile(name), rank, fingerprint: [1; 8], renewable: false }
}

pub fn pools() -> Pools {
    with(PoolSettings::default())
}

pub fn with(settings: PoolSettings) -> Pools {
    Pools::new(HashMap::from([(provider(), settings)]), Jitter::none())
}

pub fn ask(names: &[&str], now: WallTime) -> Ask {
    let candidates = names.iter().map(|name| candidate(name, 1)).collect();
    let target = Target { provider: provider(), fungible: true, candidates, there: None };
    Ask { patient: false, ..Ask::to(target, now.plus(Duration::from_secs(60))) }
}

pub fn outcome(class: Class, scope: Scope) -> Outcome {
    let status = match class {
        Class::RateLimit | Class::Quota | Class::RequestSuspect => 429,
        Class::Billing => 402,
        Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired => 401,
        Class::AuthForbidden => 403,
        Class::Overloaded => 529,
        Class::Transient | Class::Ambiguous => 500,
        _ => 400,
    };
    Outcome { class, scope, status: Some(StatusCode::from_u16(status).unwrap()), ..Outcome::success() }
}

pub fn limited() -> Outcome {
    outcome(Class::RateLimit, Scope::Profile)
}

pub fn limited_until(end: WallTime) -> Outcome {
    Outcome { reset: Some(Reset { at: end, said: Said::Delay }), ..limited() }
}

pub fn send(step: Step) -> Lease {
    match step {
        Step::Send(lease) => lease,
        other => panic!("not a send: {other:?}"),
    }
}

pub fn shortage(step: Step) -> Shortage {
    match step {
        Step::Answer(shortage) => shortage,
        other => panic!("not an answer: {other:?}"),
    }
}

pub fn name(lease: &Lease) -> &str {
    lease.profile().name.as_str()
}

/// One request whose attempts are answered by `answer`: the profiles it was sent with, and how it ended.
pub fn run(pools: &Pools, ask: Ask, now: WallTime, mut answer: impl FnMut(&str) -> Outcome) -> (Vec<String>, Step) {
    let mut attempts = pools.attempts(ask);
    let mut step = attempts.begin(now);
    let mut sent = Vec::new();
    loop {
        match step {
            Step::Send(lease) => {
                sent.push(name(&lease).to_owned());
                let outcome = answer(name(&lease));
                step = attempts.settle(lease, &outcome, now);
            }
            other => return (sent, other),
        }
    }
}

pub fn state(pools: &Pools, name: &str, now: WallTime) -> Readiness {
    pools.state(&profile(name), now).state
}
