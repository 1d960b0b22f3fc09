//! Two profiles and what moves between them.

use std::time::Duration;

use super::support::*;
use crate::code::Code;
use crate::pool::*;
use crate::provider::outcome::{Class, Outcome, Scope};

#[test]
fn a_limited_profile_is_left_within_the_request_and_rests_as_long_as_was_said() {
    let pools = pools();
    let (sent, end) = run(&pools, ask(&["a", "b"], START), START, |name| {
        if name == "a" { limited_until(at(90)) } else { Outcome::success() }
    });
    assert_eq!(sent, ["a", "b"]);
    assert!(matches!(end, Step::Forward(_)));
    let view = pools.state(&profile("a"), at(89));
    assert_eq!((view.state, view.until, view.reason), (Readiness::Cooling, Some(at(90)), Some("rate-limit")));
    assert_eq!(state(&pools, "a", at(90)), Readiness::HalfOpen);
    assert_eq!(state(&pools, "b", at(89)), Readiness::Ready);
}

#[test]
fn four_windows_in_turn_climb_the_ladder() {
    let pools = pools();
    let mut now = START;
    for expected in [60, 300, 1500, 3600, 3600] {
        let (_, _) = run(&pools, ask(&["a"], now), now, |_| limited());
        let until = pools.state(&profile("a"), now).until.unwrap();
        assert_eq!(until.since(now).as_secs(), expected);
        now = until;
    }
}

#[test]
fn when_all_rest_the_answer_says_when_the_first_is_free() {
    let pools = pools();
    let ends = |name: &str| limited_until(if name == "a" { at(90) } else { at(30) });
    let (sent, end) = run(&pools, ask(&["a", "b"], START), START, ends);
    assert_eq!(sent, ["a", "b"]);
    let shortage = shortage(end);
    assert_eq!((shortage.code, shortage.retry_after), (Code::ProfilesCooling, Some(Duration::from_secs(30))));
    let (sent, end) = run(&pools, ask(&["a", "b"], at(10)), at(10), ends);
    assert!(sent.is_empty());
    assert_eq!(super::support::shortage(end).retry_after, Some(Duration::from_secs(20)));
}

#[test]
fn a_bare_429_hops_once_and_cools_only_what_the_next_profile_contradicts() {
    let suspect = || outcome(Class::RequestSuspect, Scope::None);
    let both = pools();
    let (sent, end) = run(&both, ask(&["a", "b", "c"], START), START, |_| suspect());
    assert_eq!(sent, ["a", "b"]);
    assert!(matches!(end, Step::Forward(_)));
    assert_eq!(state(&both, "a", START), Readiness::Ready);
    let one = pools();
    let (sent, _) =
        run(&one, ask(&["a", "b"], START), START, |name| if name == "a" { suspect() } else { Outcome::success() });
    assert_eq!(sent, ["a", "b"]);
    assert_eq!(one.state(&profile("a"), START).until, Some(at(60)));
    let alone = pools();
    let (sent, end) = run(&alone, ask(&["a"], START), START, |_| suspect());
    assert_eq!(sent, ["a"]);
    assert!(matches!(end, Step::Forward(_)));
    assert_eq!(state(&alone, "a", START), Readiness::Ready);
}

#[test]
fn a_401_alone_holds_nothing_back_and_is_never_shown_to_the_client() {
    let pools = pools();
    let (sent, end) = run(&pools, ask(&["a", "b"], START), START, |_| outcome(Class::AuthInvalid, Scope::Profile));
    assert_eq!(sent, ["a", "b"]);
    assert_eq!(shortage(end).code, Code::CredentialsRejected);
    assert_eq!(state(&pools, "a", START), Readiness::Ready);
    let doubts = pools.doubts();
    assert_eq!(doubts.len(), 2);
    pools.verdict(&doubts[0], Verdict::Refused, START);
    assert_eq!(state(&pools, doubts[0].profile.name.as_str(), START), Readiness::Disabled);
    pools.verdict(&doubts[1], Verdict::Works, START);
    assert_eq!(state(&pools, doubts[1].profile.name.as_str(), START), Readiness::Ready);
}

#[test]
fn a_new_value_has_a_clean_record() {
    let pools = pools();
    let _ = run(&pools, ask(&["a"], START), START, |_| limited());
    let mut again = ask(&["a"], START);
    again.targets[0].candidates[0].fingerprint = [2; 8];
    let (sent, _) = run(&pools, again, START, |_| Outcome::success());
    assert_eq!(sent, ["a"]);
}

#[test]
fn setup_tokens_come_before_keys_and_an_order_before_both() {
    let ranked = |now| {
        let mut ask = ask(&["key", "token"], now);
        ask.targets[0].candidates[1].rank = 0;
        ask
    };
    let by_rank = pools();
    for _ in 0..3 {
        assert_eq!(run(&by_rank, ranked(START), START, |_| Outcome::success()).0, ["token"]);
    }
    let ordered = with(PoolSettings { order: vec![profile("key").name], ..PoolSettings::default() });
    assert_eq!(run(&ordered, ranked(START), START, |_| Outcome::success()).0, ["key"]);
}

#[test]
fn state_survives_a_restart_and_an_end_that_passed_meanwhile_is_half_open() {
    let before = pools();
    let _ =
        run(&before, ask(&["a", "b"], START), START, |name| limited_until(if name == "a" { at(90) } else { at(30) }));
    before.disable(&profile("c"));
    let rows = before.changed_rows().unwrap();
    assert_eq!(before.changed_rows(), None);
    let after = pools();
    after.restore(rows.clone(), at(40));
    assert_eq!(after.rows(), rows);
    assert_eq!(state(&after, "a", at(40)), Readiness::Cooling);
    assert_eq!(state(&after, "b", at(40)), Readiness::HalfOpen);
    assert_eq!(state(&after, "c", at(40)), Readiness::Disabled);
}

#[test]
fn another_identity_never_takes_over() {
    let pools = pools();
    let mut ask = ask(&["a", "b"], START);
    ask.targets[0].fungible = false;
    let (sent, end) = run(&pools, ask, START, |_| limited());
    assert_eq!(sent, ["a"]);
    assert!(matches!(end, Step::Forward(_)));
}

#[test]
fn a_dropped_lease_frees_its_probe() {
    let pools = pools();
    let _ = run(&pools, ask(&["a"], START), START, |_| limited());
    let mut first = pools.attempts(ask(&["a"], at(60)));
    let probe = send(first.begin(at(60)));
    let mut second = pools.attempts(ask(&["a"], at(60)));
    assert_eq!(shortage(second.begin(at(60))).code, Code::ProfilesCooling);
    drop(probe);
    assert_eq!(name(&send(second.begin(at(60)))), "a");
}

#[test]
fn each_in_turn_and_the_least_used_spread_the_requests() {
    for (strategy, expected) in [
        (Strategy::RoundRobin, ["a", "b", "c", "a", "b", "c"]),
        (Strategy::LeastUsed, ["a", "b", "c", "a", "b", "c"]),
        (Strategy::Priority, ["a"; 6]),
    ] {
        let pools = with(PoolSettings { strategy, ..PoolSettings::default() });
        // A conversation does not hold them back.
        let ask = || Ask { session: Session::Conversation(7), ..ask(&["a", "b", "c"], START) };
        let sent: Vec<String> = (0..6).flat_map(|_| run(&pools, ask(), START, |_| Outcome::success()).0).collect();
        assert_eq!(sent, expected, "{strategy:?}");
    }
    // One that was away catches up where use is what counts, and takes its turn where turns do.
    for (strategy, expected) in [(Strategy::LeastUsed, "a"), (Strategy::RoundRobin, "a")] {
        let pools = with(PoolSettings { strategy, ..PoolSettings::default() });
        run(&pools, ask(&["b"], START), START, |_| Outcome::success());
        run(&pools, ask(&["b"], START), START, |_| Outcome::success());
        let (first, _) = run(&pools, ask(&["a", "b"], START), START, |_| Outcome::success());
        assert_eq!(first, [expected], "{strategy:?}");
        let (second, _) = run(&pools, ask(&["a", "b"], START), START, |_| Outcome::success());
        assert_eq!(second, [if strategy == Strategy::LeastUsed { "a" } else { "b" }], "{strategy:?}");
    }
}

#[test]
fn a_pool_that_does_not_rotate_sends_each_request_once_and_passes_on_what_came() {
    let pools = with(PoolSettings { rotate: false, ..PoolSettings::default() });
    for refused in [limited_until(at(90)), outcome(Class::Billing, Scope::Profile)] {
        let (sent, end) = run(&pools, ask(&["a", "b"], START), START, |_| refused.clone());
        assert_eq!(sent.len(), 1);
        assert!(matches!(end, Step::Forward(_)), "{end:?}");
    }
}

#[test]
fn what_may_have_had_an_effect_is_sent_exactly_once() {
    // Property 22.
    for class in [Class::Ambiguous, Class::Broken, Class::Transient] {
        let pools = pools();
        let once = ask(&["a", "b"], START);
        let (sent, end) = run(&pools, once, START, |_| outcome(class, Scope::None));
        assert_eq!(sent, ["a"], "{class}");
        assert!(matches!(end, Step::Forward(_)), "{class}");
    }
}

#[test]
fn a_renewed_login_keeps_its_record_and_another_value_begins_anew() {
    let pools = pools();
    let with = |print: [u8; 8], now| {
        let mut ask = ask(&["a"], now);
        ask.targets[0].candidates[0].fingerprint = print;
        ask
    };
    let _ = run(&pools, with([1; 8], START), START, |_| limited_until(at(90)));
    pools.follows(&profile("a"), [1; 8], [2; 8]);
    // The snapshot has the new version, a request that is under way the old one.
    for print in [[2; 8], [1; 8], [2; 8]] {
        pools.know(&profile("a"), print);
        assert_eq!(state(&pools, "a", at(10)), Readiness::Cooling, "{print:?}");
    }
    let after = self::pools();
    after.restore(pools.rows(), at(20));
    after.know(&profile("a"), [1; 8]);
    assert_eq!(state(&after, "a", at(20)), Readiness::Cooling, "of a restart between the two");
    after.know(&profile("a"), [3; 8]);
    assert_eq!(state(&after, "a", at(20)), Readiness::Ready, "somebody stored another value");
}

#[test]
fn a_login_that_cannot_be_renewed_moves_on_and_only_an_ended_one_rests() {
    for (result, rests) in [(Renewed::Refused, true), (Renewed::Failed, false)] {
        let pools = pools();
        let mut ask = ask(&["a", "b"], START);
        ask.targets[0].candidates[0].renewable = true;
        let mut attempts = pools.attempts(ask);
        let lease = send(attempts.begin(START));
        assert_eq!(name(&lease), "a");
        let next = send(attempts.unready(lease, result, START));
        assert_eq!(name(&next), "b");
        let view = pools.state(&profile("a"), START);
        assert_eq!(view.state == Readiness::Disabled, rests, "{result:?}");
        assert_eq!(view.reason, rests.then_some("needs_login"));
        assert!(pools.doubts().is_empty());
    }
}

#[test]
fn a_token_that_has_ended_is_renewed_once_and_doubted_only_afterwards() {
    let pools = pools();
    let mut ask = ask(&["a"], START);
    ask.targets[0].candidates[0].renewable = true;
    let mut attempts = pools.attempts(ask);
    let refused = outcome(Class::AuthSuspect, Scope::Profile);
    let lease = send(attempts.begin(START));
    let Step::Renew(renewal) = attempts.settle(lease, &refused, START) else { panic!() };
    assert!(pools.doubts().is_empty(), "a token that has ended is no sign of anything");
    let lease = send(attempts.renewed(&renewal, Renewed::Fresh, START));
    let _ = attempts.settle(lease, &refused, START);
    assert_eq!(pools.doubts().len(), 1);
}

#[test]
fn a_full_profile_is_passed_over_whatever_the_order_and_its_seat_is_free_with_the_answers_end() {
    let each = crate::policy::limit::Limits { concurrency: Some(1), ..Default::default() };
    let order = vec![profile("a").name, profile("b").name];
    let pools = with(PoolSettings { each, order, strategy: Strategy::Priority, ..PoolSettings::default() });
    let mut first = pools.attempts(ask(&["a", "b"], START));
    let lease = send(first.begin(START));
    assert_eq!(name(&lease), "a");
    let Step::Forward(mut committed) = first.settle(lease, &Outcome::success(), START) else { panic!() };
    let seat = committed.take_seat();
    drop((first, committed));
    let mut second = pools.attempts(ask(&["a", "b"], START));
    let lease = send(second.begin(START));
    assert_eq!(name(&lease), "b");
    let mut third = pools.attempts(ask(&["a", "b"], START));
    assert!(matches!(third.begin(START), Step::Wait(_)), "it waits for a place");
    drop(seat);
    assert_eq!(name(&send(third.resume(START))), "a");
    drop(lease);
}
