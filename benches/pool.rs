//! What choosing a profile and settling what came of it cost, with twenty profiles.
//!
//! `cargo bench --bench pool`, or with `--profile ci` for a build that takes a minute less. Beside criterion's means it
//! prints the 99th percentile of single requests.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use keyferry::clock::WallTime;
use keyferry::id::{ProfileId, ProviderId};
use keyferry::pool::{Ask, Candidate, Jitter, Pools, Session, Step, Target};
use keyferry::provider::outcome::{Class, Outcome, Reset, Said, Scope};

const START: WallTime = WallTime(1_777_593_600_000);
const PROFILES: usize = 20;

fn ask(session: u64, now: WallTime) -> Ask {
    let candidate = |at: usize| Candidate {
        profile: ProfileId::parse(&format!("acme:profile-{at}")).unwrap(),
        rank: 1,
        fingerprint: [1; 8],
        renewable: false,
    };
    let target = Target {
        provider: ProviderId::parse("acme").unwrap(),
        fungible: true,
        candidates: (0..PROFILES).map(candidate).collect(),
        there: None,
    };
    Ask {
        session: Session::Conversation(session),
        model: Some(Arc::from("model-one")),
        path: Some(Arc::from("/v1/messages")),
        ..Ask::to(target, now.plus(Duration::from_secs(60)))
    }
}

fn limited(until: WallTime, scope: Scope) -> Outcome {
    let reset = Some(Reset { at: until, said: Said::Delay });
    Outcome { class: Class::RateLimit, scope, reset, ..Outcome::success() }
}

/// Selection and settlement of one request that succeeds.
fn request(pools: &Pools, ask: Ask, now: WallTime) {
    let mut attempts = pools.attempts(ask);
    let Step::Send(lease) = attempts.begin(now) else { panic!("nothing to send with") };
    black_box(attempts.settle(lease, &Outcome::success(), now));
}

/// Twenty profiles of which some rest, for a model or as a whole.
fn pools(resting: usize) -> Pools {
    let pools = Pools::new(HashMap::new(), Jitter::none());
    for at in 0..resting {
        let mut ask = ask(u64::MAX, START);
        ask.targets[0].candidates = vec![ask.targets[0].candidates[at].clone()];
        let mut attempts = pools.attempts(ask);
        let Step::Send(lease) = attempts.begin(START) else { panic!("nothing to send with") };
        let scope = if at % 2 == 0 { Scope::Profile } else { Scope::ProfileModel };
        drop(attempts.settle(lease, &limited(START.plus(Duration::from_secs(3600)), scope), START));
    }
    pools
}

fn percentile(name: &str, pools: &Pools) {
    const REQUESTS: usize = 100_000;
    let now = START.plus(Duration::from_secs(60));
    let mut took: Vec<Duration> = Vec::with_capacity(REQUESTS);
    for at in 0..REQUESTS {
        let ask = ask(at as u64 % 5_000, now);
        let begun = Instant::now();
        request(pools, ask, now);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |share: usize| took[REQUESTS * share / 1000];
    println!("{name}: median {:?}, 99 % {:?}, 99.9 % {:?}", at(500), at(990), at(999));
}

fn selection(criterion: &mut Criterion) {
    for (name, resting) in [("all ready", 0), ("ten rest", 10), ("nineteen rest", 19)] {
        let pools = pools(resting);
        percentile(name, &pools);
        let now = START.plus(Duration::from_secs(60));
        let mut session = 0;
        criterion.bench_function(&format!("select and settle/{name}"), |bencher| {
            bencher.iter_batched(
                || {
                    session = (session + 1) % 5_000;
                    ask(session, now)
                },
                |ask| request(&pools, ask, now),
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, selection);
criterion_main!(benches);
