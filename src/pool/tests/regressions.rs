//! Defects of other engines, each as the case that shows it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::support::*;
use crate::clock::WallTime;
use crate::code::Code;
use crate::id::ProviderId;
use crate::pool::*;
use crate::provider::outcome::{Class, Outcome, Reset, Said, Scope};

fn until(pools: &Pools, name: &str, now: WallTime) -> Option<WallTime> {
    pools.state(&profile(name), now).until
}

fn level(pools: &Pools, name: &str, now: WallTime) -> u8 {
    pools.state(&profile(name), now).level
}

fn lease(pools: &Pools, names: &[&str], now: WallTime) -> (Attempts, Lease) {
    let mut attempts = pools.attempts(ask(names, now));
    let lease = send(attempts.begin(now));
    (attempts, lease)
}

fn conversation(names: &[&str], key: u64, now: WallTime) -> Ask {
    Ask { session: Session::Conversation(key), ..ask(names, now) }
}

#[test]
fn a_request_during_a_window_does_not_extend_it() {
    let pools = pools();
    let (mut early, first) = lease(&pools, &["a"], START);
    let (mut late, second) = lease(&pools, &["a"], START);
    early.settle(first, &limited(), START);
    assert_eq!(until(&pools, "a", START), Some(at(60)));
    late.settle(second, &limited(), at(30));
    assert_eq!(until(&pools, "a", at(30)), Some(at(60)));
}

#[test]
fn parallel_failures_are_one_failure() {
    let pools = pools();
    let all: Vec<_> = (0..12).map(|_| lease(&pools, &["a"], START)).collect();
    for (mut attempts, lease) in all {
        attempts.settle(lease, &limited(), at(1));
    }
    assert_eq!(level(&pools, "a", at(1)), 1);
    assert_eq!(until(&pools, "a", at(1)), Some(at(61)));
}

#[test]
fn only_a_later_stated_end_moves_a_window() {
    let pools = pools();
    let all: Vec<_> = (0..3).map(|_| lease(&pools, &["a"], START)).collect();
    for ((mut attempts, lease), (end, expected)) in all.into_iter().zip([(90, 90), (40, 90), (120, 120)]) {
        attempts.settle(lease, &limited_until(at(end)), at(1));
        assert_eq!(until(&pools, "a", at(1)), Some(at(expected)));
    }
}

#[test]
fn an_answer_that_began_before_the_limit_neither_ends_nor_renews_it() {
    let pools = pools();
    let (mut fine, long) = lease(&pools, &["a"], START);
    let (mut slow, slower) = lease(&pools, &["a"], START);
    let (mut bad, short) = lease(&pools, &["a"], START);
    bad.settle(short, &limited(), at(1));
    fine.settle(long, &Outcome::success(), at(2));
    assert_eq!(state(&pools, "a", at(2)), Readiness::Cooling);
    slow.settle(slower, &limited(), at(200));
    assert_eq!((state(&pools, "a", at(200)), level(&pools, "a", at(200))), (Readiness::HalfOpen, 1));
}

#[test]
fn levels_rise_over_windows_and_fall_after_a_probation() {
    let pools = pools();
    let fail = |now| {
        let _ = run(&pools, ask(&["a"], now), now, |_| limited());
    };
    fail(START);
    fail(at(60));
    assert_eq!(until(&pools, "a", at(60)), Some(at(360)));
    // A success on probation forgives nothing yet ...
    let _ = run(&pools, ask(&["a"], at(360)), at(360), |_| Outcome::success());
    fail(at(400));
    assert_eq!(until(&pools, "a", at(400)), Some(at(1900)));
    // ... one that lasted does.
    let _ = run(&pools, ask(&["a"], at(1900)), at(1900), |_| Outcome::success());
    fail(at(1900 + 601));
    assert_eq!(until(&pools, "a", at(2501)), Some(at(2561)));
    // And so does a day.
    fail(at(2561 + 25 * 3600));
    assert_eq!(level(&pools, "a", at(2561 + 25 * 3600)), 1);
}

#[test]
fn a_weekly_limit_is_believed_for_its_whole_length() {
    let pools = pools();
    let week = Outcome {
        reset: Some(Reset { at: at(6 * 86_400), said: Said::Moment }),
        ..outcome(Class::Quota, Scope::Profile)
    };
    let _ = run(&pools, ask(&["a"], START), START, |_| week.clone());
    assert_eq!(until(&pools, "a", START), Some(at(6 * 86_400)));
    // A short window that claims a month is cut to a day.
    let other = super::support::pools();
    let _ = run(&other, ask(&["a"], START), START, |_| limited_until(at(30 * 86_400)));
    assert_eq!(until(&other, "a", START), Some(at(86_400)));
}

#[test]
fn money_rests_longer_each_time_up_to_a_day() {
    let pools = pools();
    let mut now = START;
    for hours in [5, 10, 20, 24, 24] {
        let _ = run(&pools, ask(&["a"], now), now, |_| outcome(Class::Billing, Scope::Group));
        let end = until(&pools, "a", now).unwrap();
        assert_eq!(end.since(now).as_secs(), hours * 3600);
        now = end;
    }
}

#[test]
fn a_short_throttle_takes_a_conversation_around_not_away() {
    let pools = pools();
    let go = |now, answer: &dyn Fn(&str) -> Outcome| run(&pools, conversation(&["a", "b"], 7, now), now, answer).0;
    assert_eq!(go(START, &|_| Outcome::success()), ["a"]);
    assert_eq!(go(at(1), &|name| if name == "a" { limited_until(at(41)) } else { Outcome::success() }), ["a", "b"]);
    assert_eq!(go(at(2), &|_| Outcome::success()), ["b"]);
    assert_eq!(go(at(42), &|_| Outcome::success()), ["a"]);
    // A long rest moves it for good.
    assert_eq!(go(at(43), &|name| if name == "a" { limited_until(at(343)) } else { Outcome::success() }), ["a", "b"]);
    assert_eq!(go(at(350), &|_| Outcome::success()), ["b"]);
}

#[test]
fn a_warm_conversation_waits_for_its_own_profile_rather_than_hop() {
    let pools = pools();
    let patient = |now| Ask { patient: true, ..conversation(&["a", "b"], 7, now) };
    let _ = run(&pools, patient(START), START, |_| Outcome::success());
    let mut attempts = pools.attempts(patient(at(1)));
    let lease = send(attempts.begin(at(1)));
    assert_eq!(name(&lease), "a");
    let Step::Wait(wait) = attempts.settle(lease, &limited_until(at(4)), at(1)) else { panic!("not a wait") };
    assert_eq!(wait.until, at(4));
    let lease = send(attempts.resume(at(4)));
    assert_eq!(name(&lease), "a");
    // Once is enough.
    assert_eq!(name(&send(attempts.settle(lease, &limited_until(at(8)), at(5)))), "b");
}

#[test]
fn an_overload_is_held_against_the_upstream_alone_and_on_the_third_time() {
    let pools = pools();
    for second in 0..2 {
        let _ = run(&pools, ask(&["a"], at(second)), at(second), |_| outcome(Class::Overloaded, Scope::Upstream));
    }
    let (mut attempts, lease) = lease(&pools, &["a"], at(3));
    attempts.settle(lease, &outcome(Class::Overloaded, Scope::Upstream), at(3));
    let view = pools.state(&profile("a"), at(3));
    assert_eq!((view.state, view.holds.len(), view.holds[0].scope), (Readiness::Ready, 1, "upstream"));
    let mut next = pools.attempts(ask(&["a", "b"], at(4)));
    let shortage = shortage(next.begin(at(4)));
    assert_eq!((shortage.code, shortage.retry_after), (Code::UpstreamOverloaded, Some(Duration::from_secs(1))));
}

#[test]
fn after_a_rest_requests_come_back_one_by_one() {
    let pools = pools();
    let _ = run(&pools, ask(&["a"], START), START, |_| limited());
    let _ = run(&pools, ask(&["a"], at(60)), at(60), |_| Outcome::success());
    let mut under_way = Vec::new();
    for millis in [0u64, 100, 250, 400, 500, 2_000] {
        let now = at(60).plus(Duration::from_millis(millis));
        loop {
            let mut attempts = pools.attempts(ask(&["a"], now));
            match attempts.begin(now) {
                Step::Send(lease) => under_way.push((attempts, lease)),
                Step::Wait(wait) => {
                    assert!(wait.until > now);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(under_way.len() as u64, 1 + millis / 250, "after {millis} ms");
    }
    // After half a minute there is no gate.
    for _ in 0..100 {
        under_way.push(lease(&pools, &["a"], at(91)));
    }
}

#[test]
fn a_herd_that_moves_to_another_profile_arrives_one_by_one() {
    let pools = pools();
    let herd: Vec<_> = (0..20).map(|_| lease(&pools, &["a"], START)).collect();
    drop(herd);
    let both = ["a", "b"];
    let mut all: Vec<_> = (0..20)
        .map(|key| {
            let mut attempts = pools.attempts(conversation(&both, key, START));
            let lease = send(attempts.begin(START));
            (attempts, lease)
        })
        .collect();
    let mut arrived = 0;
    let mut leases = Vec::new();
    for (attempts, lease) in all.drain(..) {
        let mut attempts = attempts;
        if name(&lease) == "a" {
            match attempts.settle(lease, &limited_until(at(600)), at(1)) {
                Step::Send(lease) => {
                    arrived += 1;
                    leases.push((attempts, lease));
                }
                Step::Wait(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(arrived, 1);
}

#[test]
fn a_lost_probe_frees_itself_after_a_minute() {
    let pools = pools();
    let _ = run(&pools, ask(&["a"], START), START, |_| limited());
    let (_attempts, probe) = lease(&pools, &["a"], at(60));
    std::mem::forget(probe);
    let mut next = pools.attempts(ask(&["a"], at(119)));
    assert_eq!(shortage(next.begin(at(119))).code, Code::ProfilesCooling);
    assert_eq!(name(&send(next.begin(at(120)))), "a");
}

#[test]
fn of_many_threads_one_probes() {
    for _ in 0..50 {
        let pools = pools();
        let _ = run(&pools, ask(&["a"], START), START, |_| limited());
        let probes = AtomicU32::new(0);
        let held = parking_lot::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut attempts = pools.attempts(ask(&["a"], at(60)));
                    if let Step::Send(lease) = attempts.begin(at(60)) {
                        probes.fetch_add(1, Ordering::SeqCst);
                        held.lock().push(lease);
                    }
                });
            }
        });
        assert_eq!(probes.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn no_request_of_an_agent_alone_holds_a_profile_back() {
    for class in [Class::AuthInvalid, Class::AuthSuspect, Class::AuthForbidden, Class::RequestSuspect, Class::Transient]
    {
        let pools = pools();
        for second in 0..50 {
            let (sent, _) = run(&pools, ask(&["a", "b"], at(second)), at(second), |_| outcome(class, Scope::Profile));
            assert!(!sent.is_empty(), "{class}");
        }
        assert_eq!(state(&pools, "a", at(50)), Readiness::Ready, "{class}");
        assert_eq!(state(&pools, "b", at(50)), Readiness::Ready, "{class}");
    }
}

#[test]
fn a_refused_value_is_renewed_once_and_the_request_goes_on_with_it() {
    let pools = pools();
    let mut ask = ask(&["a"], START);
    ask.targets[0].candidates[0].renewable = true;
    let mut attempts = pools.attempts(ask);
    let lease = send(attempts.begin(START));
    let Step::Renew(renewal) = attempts.settle(lease, &outcome(Class::AuthSuspect, Scope::Profile), START) else {
        panic!("not a renewal")
    };
    let lease = send(attempts.renewed(&renewal, Renewed::Fresh, START));
    let end = attempts.settle(lease, &outcome(Class::AuthSuspect, Scope::Profile), START);
    assert_eq!(shortage(end).code, Code::CredentialsRejected);
}

#[test]
fn a_fallback_is_for_when_the_first_provider_has_nothing_left_and_its_failures_are_its_own() {
    let pools = pools();
    let other = ProviderId::parse("other").unwrap();
    let with_fallback = |now| {
        let mut ask = ask(&["a"], now);
        let candidate = Candidate {
            profile: crate::id::ProfileId::parse("other:x").unwrap(),
            rank: 1,
            fingerprint: [1; 8],
            renewable: false,
        };
        ask.targets.push(Target { provider: other.clone(), fungible: true, candidates: vec![candidate], there: None });
        ask
    };
    let (sent, _) = run(&pools, with_fallback(START), START, |_| Outcome::success());
    assert_eq!(sent, ["a"]);
    let (sent, end) = run(&pools, with_fallback(START), START, |name| {
        if name == "a" { limited_until(at(600)) } else { limited_until(at(60)) }
    });
    assert_eq!(sent, ["a", "x"]);
    assert_eq!(shortage(end).retry_after, Some(Duration::from_secs(60)));
    assert_eq!(until(&pools, "a", START), Some(at(600)));
    // What only one account has does not go to another company.
    let bound = Ask { bound: Bound::To(5), ..with_fallback(at(1)) };
    assert!(run(&pools, bound, at(1), |_| Outcome::success()).0.is_empty());
}

#[test]
fn what_a_profile_made_is_asked_of_that_profile() {
    let pools = pools();
    let _ = run(&pools, ask(&["a", "b"], START), START, |_| Outcome::success());
    pools.know(&profile("b"), [1; 8]);
    pools.owns(&profile("b"), 77, START);
    for _ in 0..3 {
        let bound = Ask { bound: Bound::To(77), ..ask(&["a", "b"], at(1)) };
        let (sent, end) = run(&pools, bound, at(1), |_| limited_until(at(2)));
        assert!(sent.is_empty() || sent == ["b"], "{sent:?}");
        assert!(matches!(end, Step::Forward(_) | Step::Answer(_)));
    }
}

#[test]
fn one_more_healthy_profile_never_makes_a_success_a_failure() {
    let answer = |name: &str| match name {
        "a" => limited(),
        "b" => outcome(Class::Billing, Scope::Group),
        "c" => outcome(Class::AuthInvalid, Scope::Profile),
        _ => Outcome::success(),
    };
    let sets: [&[&str]; 4] = [&["d"], &["a", "d"], &["a", "b", "d"], &["a", "b", "c", "d"]];
    for names in sets {
        let (sent, end) = run(&pools(), ask(names, START), START, answer);
        assert!(matches!(end, Step::Forward(_)), "{names:?}");
        assert_eq!(sent.last().map(String::as_str), Some("d"));
    }
}

#[test]
fn a_limit_on_one_endpoint_leaves_the_others_alone() {
    let pools = pools();
    let call = |path: &str| {
        let mut ask = ask(&["a"], START);
        ask.targets[0].fungible = false;
        ask.path = Some(path.into());
        ask
    };
    let _ = run(&pools, call("/api/chat.postMessage"), START, |_| outcome(Class::RateLimit, Scope::ProfileEndpoint));
    assert!(run(&pools, call("/api/chat.postMessage"), START, |_| Outcome::success()).0.is_empty());
    assert_eq!(run(&pools, call("/api/users.list"), START, |_| Outcome::success()).0, ["a"]);
}

#[test]
fn a_limit_on_a_resource_is_known_by_the_paths_that_use_it() {
    let pools = pools();
    let call = |path: &str| {
        let mut ask = ask(&["a"], START);
        ask.targets[0].fungible = false;
        ask.path = Some(path.into());
        ask
    };
    let spent = Outcome { key: Some("search".into()), ..outcome(Class::Quota, Scope::ProfileResource) };
    let _ = run(&pools, call("/search/code"), START, |_| spent.clone());
    assert!(run(&pools, call("/search/issues"), START, |_| Outcome::success()).0.is_empty());
    assert_eq!(run(&pools, call("/repos/acme/x"), START, |_| Outcome::success()).0, ["a"]);
}

#[test]
fn profiles_that_are_told_the_same_ends_twice_share_a_quota() {
    let pools = pools();
    let told =
        |end| Outcome { reset: Some(Reset { at: end, said: Said::Moment }), ..outcome(Class::Quota, Scope::Group) };
    for (now, end) in [(START, at(100)), (at(100), at(500))] {
        let _ = run(&pools, ask(&["a"], now), now, |_| told(end));
        let _ =
            run(&pools, ask(&["b"], now.plus(Duration::from_secs(5))), now.plus(Duration::from_secs(5)), |_| told(end));
    }
    // From now on what one is told is true of both.
    let _ = run(&pools, ask(&["a"], at(500)), at(500), |_| told(at(900)));
    assert!(run(&pools, ask(&["b"], at(501)), at(501), |_| Outcome::success()).0.is_empty());
}

#[test]
fn a_dead_credential_is_tried_again_now_and_then_and_at_once_with_a_new_value() {
    let pools = pools();
    let refuse = |now| run(&pools, ask(&["a"], now), now, |_| outcome(Class::AuthInvalid, Scope::Profile));
    let _ = refuse(START);
    let doubts = pools.doubts();
    pools.verdict(&doubts[0], Verdict::Refused, START);
    assert!(refuse(at(299)).0.is_empty());
    assert_eq!(refuse(at(300)).0, ["a"]);
    assert_eq!(until(&pools, "a", at(300)), Some(at(900)));
    pools.know(&profile("a"), [2; 8]);
    assert_eq!(state(&pools, "a", at(301)), Readiness::Ready);
    // A verdict on the old value says nothing of the new one.
    pools.verdict(&doubts[0], Verdict::Refused, at(301));
    assert_eq!(state(&pools, "a", at(301)), Readiness::Ready);
}
