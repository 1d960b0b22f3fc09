//! What holds in every script of the world, whatever happens in which order.
//!
//! The numbers are those of the list that docs/rotation.md has.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::*;
use super::world::*;
use crate::clock::WallTime;
use crate::code::Code;
use crate::pool::cell::{Source, Status};
use crate::pool::*;
use crate::provider::outcome::{Class, Outcome, Scope};

/// Scripts of one run; a longer one is `KEYFERRY_SCRIPTS=1000000 cargo test --lib pool::tests::properties`.
fn scripts() -> u64 {
    std::env::var("KEYFERRY_SCRIPTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

#[test]
fn every_script_keeps_every_property() {
    let first = std::env::var("KEYFERRY_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let run = |seed: u64| {
        let result = std::panic::catch_unwind(|| script(seed));
        assert!(result.is_ok(), "script {seed}: run it alone with KEYFERRY_SEED={seed}");
    };
    if let Some(seed) = first {
        return run(seed);
    }
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || (1..=scripts()).filter(|seed| seed % 4 == part).for_each(run));
        }
    });
}

#[test]
fn a_script_is_the_same_every_time() {
    // 28
    for seed in 1..=200 {
        assert_eq!(script(seed), script(seed), "script {seed}");
    }
}

fn script(seed: u64) -> Vec<(usize, &'static str, u64)> {
    let mut world = World::new(seed);
    let events = 20 + world.dice.up_to(40);
    for _ in 0..events {
        let arrival = world.dice.one_in(2) || world.next_event().is_none();
        if arrival {
            let jump = [0, 5, 300, 5_000, 70_000, 2_000_000][world.dice.up_to(5) as usize];
            let later = world.now.plus(Duration::from_millis(world.dice.up_to(jump)));
            // Not past what happens before.
            world.now = world.next_event().map_or(later, |(at, _)| at.min(later)).max(world.now);
            let at = world.arrive();
            let step = world.requests[at].attempts.begin(world.now);
            follow(&mut world, at, step);
        } else if let Some((time, at)) = world.next_event() {
            world.now = world.now.max(time);
            happen(&mut world, at);
        }
    }
    while let Some((time, at)) = world.next_event() {
        world.now = world.now.max(time);
        happen(&mut world, at);
    }
    if seed.is_multiple_of(8) {
        restart(&world);
    }
    world.trace
}

fn happen(world: &mut World, at: usize) {
    match std::mem::replace(&mut world.requests[at].next, Next::Done) {
        Next::Done => {}
        Next::Wake { .. } => {
            let step = world.requests[at].attempts.resume(world.now);
            follow(world, at, step);
        }
        Next::Answer { lease, outcome, .. } => {
            let before = holds(&world.pools);
            if world.dice.one_in(25) {
                // The client went away: nothing is learned.
                drop(lease);
                assert_eq!(holds(&world.pools), before, "9");
                return;
            }
            let name = name(&lease).to_owned();
            let sent_at = lease.used.as_ref().unwrap().sent;
            if matches!(outcome.class, Class::Quota | Class::Billing | Class::TooLarge | Class::AuthForbidden) {
                world.requests[at].dead.push(name.clone());
            }
            let suspects = outcome.class == Class::Success;
            let step = world.requests[at].attempts.settle(*lease, &outcome, world.now);
            let after = holds(&world.pools);
            check_change(world, &name, sent_at, &outcome, suspects, &before, &after);
            follow(world, at, step);
        }
    }
}

/// What one outcome may have changed.
fn check_change(
    world: &World,
    name: &str,
    sent: WallTime,
    outcome: &Outcome,
    blamed: bool,
    before: &Holds,
    after: &Holds,
) {
    let now = world.now;
    let changed: BTreeSet<_> =
        before.keys().chain(after.keys()).filter(|key| before.get(*key) != after.get(*key)).cloned().collect();
    match outcome.class {
        // 9, 10
        Class::RequestFault | Class::PolicyBlock | Class::Transient | Class::Ambiguous | Class::TooLarge => {
            assert!(changed.is_empty(), "9: {outcome:?} changed {changed:?}");
        }
        Class::Unreached | Class::Broken | Class::RequestSuspect => assert!(changed.is_empty(), "9: {changed:?}"),
        Class::Overloaded => assert!(changed.iter().all(|(owner, _)| *owner == UPSTREAM), "10: {changed:?}"),
        Class::Success => {
            // What closes is the own profile's; what opens are suspects of the same request.
            for key in &changed {
                let opened = after.contains_key(key);
                let others = key.0 < GROUP && key.0 != place(name);
                assert!(opened == others || blamed, "8: {key:?}");
            }
        }
        _ => {
            // 8
            let mine = |owner: usize| owner == place(name) || (GROUP..UPSTREAM).contains(&owner);
            assert!(changed.iter().all(|(owner, _)| mine(*owner)), "8: {name} changed {changed:?}");
            assert!(changed.len() <= 1, "8: one scope, not {changed:?}");
        }
    }
    for key in changed {
        let (old, new) = (before.get(&key), after.get(&key));
        if let (Some(old), Some(new)) = (old, new) {
            // 4
            assert!(new.level <= old.level.saturating_add(1) || new.lane != old.lane, "4: {old:?} {new:?}");
            if now < old.until {
                // 3
                assert!(new.until > old.until && new.source == Source::Stated, "3: {old:?} {new:?}");
                assert!(sent.plus(Duration::from_secs(60)) >= old.opened, "7");
            } else {
                // 7: only what was sent after a window opened can open the next one.
                assert!(sent >= old.opened, "7: sent {sent}, before {old:?}");
            }
        }
        if let Some(new) = new {
            // 6
            if let (Source::Stated, Some(stated)) = (new.source, outcome.reset) {
                let stated = stated.at.min(now.plus(new.lane.cap()));
                let spread = (stated.since(now) / 10).min(Duration::from_secs(30));
                let most = if world.jitter { stated.plus(spread) } else { stated };
                assert!(stated <= new.until && new.until <= most, "6: {stated} {new:?}");
            }
            assert!(new.until <= now.plus(new.lane.cap()).plus(Duration::from_secs(30)), "29: {new:?}");
        }
    }
}

fn follow(world: &mut World, at: usize, step: Step) {
    let now = world.now;
    match step {
        Step::Send(lease) => {
            let name = name(&lease).to_owned();
            world.trace.push((at, NAMES[place(&name)], now.0));
            check_send(world, at, &lease);
            let request = &mut world.requests[at];
            request.sent.push(name.clone());
            let session = request.session;
            if let Some(session) = session.filter(|_| world.settings.strategy == Strategy::Sticky) {
                world.pins.insert(session, (name.clone(), now));
            }
            let outcome = world.answer(&name);
            let took = [20, 900, 40_000][world.dice.up_to(2) as usize];
            let answer = now.plus(Duration::from_millis(1 + world.dice.up_to(took)));
            world.requests[at].next = Next::Answer { lease: Box::new(lease), at: answer, outcome: Box::new(outcome) };
        }
        Step::Wait(wait) => {
            assert!(wait.until <= world.requests[at].attempts.ask().deadline, "14");
            world.trace.push((at, "wait", wait.until.0));
            world.requests[at].next = Next::Wake { at: wait.until.max(now) };
        }
        Step::Renew(_) => panic!("nothing is renewable here"),
        Step::Forward(_) => {
            world.trace.push((at, "forward", 0));
            assert!(!world.requests[at].sent.is_empty(), "nothing to forward");
        }
        Step::Answer(shortage) => {
            world.trace.push((at, shortage.code.as_str(), shortage.retry_after.map_or(0, |wait| wait.as_secs())));
            if world.requests[at].sent.is_empty() {
                // 25: without having been refused there is no shortage: somebody rests, or is being tried.
                let resting = world.statuses(at).iter().all(|(_, status)| *status != Status::Closed);
                assert!(resting || shortage.code == Code::ProfilesCooling, "25: {shortage:?}");
            }
            let delayed = matches!(shortage.code, Code::ProfilesCooling | Code::UpstreamOverloaded);
            assert_eq!(shortage.retry_after.is_some(), delayed, "{shortage:?}");
        }
    }
}

fn check_send(world: &World, at: usize, lease: &Lease) {
    let now = world.now;
    let request = &world.requests[at];
    let own = name(lease);
    let used = lease.used.as_ref().unwrap();
    let statuses = world.statuses(at);
    let of = |name: &str| statuses.iter().find(|(other, _)| *other == name).map(|(_, status)| *status).unwrap();
    let untried = |name: &str| !request.sent.iter().any(|sent| sent == name);
    // 2
    if !used.probe {
        assert_eq!(of(own), Status::Closed, "2: {own} at {now}");
    }
    // 1
    if let Status::Open(_) = of(own) {
        let closed = statuses.iter().find(|(name, status)| *status == Status::Closed && untried(name));
        assert_eq!(closed, None, "1: {own} rests");
    }
    // 14
    assert!(request.sent.len() < 4, "14");
    assert!(request.sent.iter().filter(|sent| *sent == own).count() <= 2, "14");
    assert!(!request.dead.iter().any(|dead| dead == own), "14: {own} is dead for this request");
    // 21
    assert!(request.fungible || request.sent.iter().all(|sent| sent == own), "21");
    // 11
    if used.probe {
        let mine = world.probes_of(lease);
        for other in &world.requests {
            if let Next::Answer { lease: other, .. } = &other.next
                && other
                    .used
                    .as_ref()
                    .is_some_and(|other| other.probe && now.since(other.sent) < Duration::from_secs(60))
                && other.used.as_ref().is_some_and(|other| other.number != used.number)
            {
                let shared = world.probes_of(other).into_iter().any(|probe| mine.contains(&probe));
                assert!(!shared || of(own) == Status::Closed, "11: {own} is probed twice");
            }
        }
    }
    let sticky = world.settings.strategy == Strategy::Sticky;
    let rank = |name: &str| world.ranks[place(name)];
    let pinned = request.attempts.ask().session != Session::None && sticky;
    let ordered = !world.settings.order.is_empty();
    // 15
    if let Some((pin, used)) = request.session.filter(|_| sticky).and_then(|session| world.pins.get(&session))
        && request.sent.is_empty()
        && of(pin) == Status::Closed
        && now.since(*used) < Duration::from_secs(300)
        && pin != own
    {
        // A detour ends when the conversation's own profile is free again: that is the only other place to be.
        assert!(used_before(world, request.session, own), "15: the conversation left {pin} for {own}");
    }
    if request.sent.is_empty() && !pinned && !used.probe {
        let closed = || statuses.iter().filter(|(_, status)| *status == Status::Closed).map(|(name, _)| *name);
        if !ordered {
            // 17
            assert!(closed().all(|name| rank(name) >= rank(own)), "17: {own}");
        } else if matches!(world.settings.strategy, Strategy::Sticky | Strategy::Priority) {
            // 18: the order is the names' reverse.
            assert_eq!(closed().max(), Some(own), "18");
        }
    }
}

/// Whether a conversation was with this profile at any time.
fn used_before(world: &World, session: Option<u64>, own: &str) -> bool {
    world.requests.iter().any(|other| other.session == session && other.sent.iter().any(|sent| sent == own))
}

/// 27
fn restart(world: &World) {
    let rows = world.pools.rows();
    let again = with(world.settings.clone());
    again.restore(rows.clone(), world.now);
    assert_eq!(again.rows(), rows, "27");
    assert_eq!(holds(&again), holds(&world.pools), "27");
    // A clock that was set back, a hand in the file: no longer than the lane allows.
    let earlier = WallTime(world.now.0 - 40 * 86_400_000);
    let back = with(world.settings.clone());
    back.restore(rows, earlier);
    for hold in holds(&back).values() {
        assert!(hold.until <= earlier.plus(hold.lane.cap()), "27: {hold:?}");
    }
}

#[test]
fn distinct_requests_spread_evenly_over_equals() {
    // 16
    let pools = pools();
    let names = ["a", "b", "c", "d"];
    let mut counts = [0i32; 4];
    for session in 0..403 {
        let mut ask = ask(&names, START);
        ask.session = Session::Conversation(session);
        let (sent, _) = run(&pools, ask, START, |_| Outcome::success());
        counts[names.iter().position(|name| *name == sent[0]).unwrap()] += 1;
    }
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
}

#[test]
fn a_model_that_is_spent_is_nobody_elses_matter() {
    // 19
    let pools = pools();
    let model = |name: &str| {
        let mut ask = ask(&["a"], START);
        ask.model = Some(name.into());
        ask
    };
    let _ = run(&pools, model("large"), START, |_| outcome(Class::Quota, Scope::ProfileModel));
    assert_eq!(run(&pools, model("small"), START, |_| Outcome::success()).0, ["a"]);
    assert!(run(&pools, model("large"), START, |_| Outcome::success()).0.is_empty());
    assert_eq!(pools.state(&profile("a"), START).holds[0].part.as_deref(), Some("large"));
}

#[test]
fn a_group_rests_together_and_nobody_else_does() {
    // 19
    let shared: std::sync::Arc<str> = "org".into();
    let groups = ["a", "b"].map(|name| (profile(name).name, shared.clone())).into();
    let pools = with(PoolSettings { groups, ..PoolSettings::default() });
    let (sent, _) = run(&pools, ask(&["a", "b", "c"], START), START, |name| {
        if name == "a" { outcome(Class::Billing, Scope::Group) } else { Outcome::success() }
    });
    assert_eq!(sent, ["a", "c"], "b is as poor as a");
    assert_eq!(state(&pools, "b", START), Readiness::Cooling);
    assert_eq!(state(&pools, "c", START), Readiness::Ready);
}

#[test]
fn when_an_upstream_accepts_again_somebody_finds_out() {
    // 24: a stated end of six hours turns out wrong after an hour.
    let pools = pools();
    let end = at(6 * 3600);
    let mut now = START;
    let mut served = None;
    while served.is_none() && now < at(7 * 3600) {
        let fine = now >= at(3600);
        let (sent, step) =
            run(&pools, ask(&["a", "b"], now), now, |_| if fine { Outcome::success() } else { limited_until(end) });
        if !sent.is_empty() && matches!(step, Step::Forward(_)) {
            served = Some(now);
        }
        now = now.plus(Duration::from_secs(20));
    }
    assert!(served.is_some_and(|at_last| at_last <= at(3600 + 1800 + 20)), "{served:?}");
}

#[test]
fn repeats_stay_a_fifth_while_the_upstream_is_down() {
    // 30
    let pools = pools();
    let mut sends = 0;
    let requests = 2_000u64;
    for number in 0..requests {
        let now = START.plus(Duration::from_millis(number * 5));
        let mut attempts = pools.attempts(ask(&["a", "b"], now));
        let mut step = attempts.begin(now);
        loop {
            step = match step {
                Step::Send(lease) => {
                    sends += 1;
                    // Each names no model, and none is held: single refusals far apart in kind.
                    attempts.settle(lease, &outcome(Class::Overloaded, Scope::None), now)
                }
                Step::Wait(_) => attempts.resume(now),
                _ => break,
            };
        }
    }
    assert!(sends <= requests + requests / 5 + 30 + 3, "{sends}");
}
