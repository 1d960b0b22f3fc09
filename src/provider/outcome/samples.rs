//! Answers as providers send them, against the built-in rules.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::*;
use crate::id::ProviderId;

#[derive(Debug, Deserialize)]
struct Sample {
    of: String,
    status: u16,
    means: Class,
    #[serde(default)]
    fields: BTreeMap<String, String>,
    body: String,
}

/// 2026-05-01T00:00:00Z
const NOW: WallTime = WallTime(1_777_593_600_000);

fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    pairs.iter().map(pair).collect()
}

fn judge(provider: &str, status: u16, pairs: &[(&str, &str)], body: &str) -> Outcome {
    let rules = Rulebook::embedded().of(&ProviderId::parse(provider).unwrap());
    let fields = fields(pairs);
    let answer = Answer { status: StatusCode::from_u16(status).unwrap(), fields: &fields, body: body.as_bytes() };
    rules.judge(&answer, NOW)
}

fn seconds(outcome: &Outcome) -> Option<u64> {
    outcome.reset.map(|reset| reset.at.since(NOW).as_secs())
}

#[test]
fn every_recorded_answer_means_what_is_written_beside_it() {
    let samples: Vec<Sample> = serde_saphyr::from_str(include_str!("../../../tests/fixtures/answers.yaml")).unwrap();
    assert!(samples.len() >= 38);
    for sample in samples {
        let pairs: Vec<_> = sample.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let outcome = judge(&sample.of, sample.status, &pairs, &sample.body);
        assert_eq!(outcome.class, sample.means, "{sample:?}: {outcome:?}");
    }
}

#[test]
fn an_answer_of_an_unknown_provider_is_read_by_the_standards_alone() {
    type Case<'a> = (u16, &'a [(&'a str, &'a str)], Class, Option<u64>);
    let cases: [Case; 9] = [
        (200, &[], Class::Success, None),
        (302, &[], Class::Success, None),
        (404, &[], Class::RequestFault, None),
        (403, &[], Class::RequestFault, None),
        (401, &[], Class::AuthSuspect, None),
        (503, &[], Class::Ambiguous, None),
        (429, &[("retry-after", "7")], Class::RateLimit, Some(7)),
        (429, &[("ratelimit-reset", "30")], Class::RateLimit, Some(30)),
        (429, &[("x-ratelimit-reset", "1777777777")], Class::RequestSuspect, None),
    ];
    for (status, pairs, class, until) in cases {
        let outcome = judge("acme", status, pairs, "");
        assert_eq!((outcome.class, seconds(&outcome)), (class, until), "{status} {pairs:?}");
    }
}

#[test]
fn a_bare_429_is_no_evidence_and_one_that_speaks_of_a_rate_is() {
    assert_eq!(judge("openai", 429, &[], "").class, Class::RequestSuspect);
    assert_eq!(judge("openai", 429, &[], "{\"error\":{\"code\":\"rate_limit_exceeded\"}}").class, Class::RateLimit);
    assert_eq!(judge("deepseek", 429, &[], "{\"error\":{\"message\":\"Rate limit reached\"}}").class, Class::RateLimit);
    // Anthropic says "rate_limit_error" in either case.
    assert_eq!(
        judge("anthropic", 429, &[], "{\"error\":{\"type\":\"rate_limit_error\"}}").class,
        Class::RequestSuspect
    );
    assert_eq!(judge("anthropic", 429, &[("retry-after", "9")], "").class, Class::RateLimit);
}

#[test]
fn the_more_exact_of_several_ends_counts() {
    let both = [("retry-after", "2"), ("retry-after-ms", "1500")];
    let body = "{\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"Please try again in 41.724s.\"}}";
    assert_eq!(judge("openai", 429, &both, body).reset.map(|reset| reset.at), Some(WallTime(NOW.0 + 1500)));
    assert_eq!(judge("openai", 429, &[], body).reset.map(|reset| reset.at), Some(WallTime(NOW.0 + 41_724)));
    // Two Retry-After fields: the longer one.
    assert_eq!(seconds(&judge("openai", 429, &[("retry-after", "2"), ("retry-after", "90")], body)), Some(90));
    // What is negative, absurd or over is no end.
    for bad in ["-5", "NaN", "1e309", "soon", "Thu, 01 Jan 2026 00:00:00 GMT"] {
        assert_eq!(seconds(&judge("telegram", 429, &[("retry-after", bad)], "too many requests")), None, "{bad}");
    }
}

#[test]
fn of_several_dimensions_only_the_spent_ones_count_and_the_latest_of_those() {
    let pairs = [
        ("anthropic-ratelimit-requests-remaining", "10"),
        ("anthropic-ratelimit-requests-reset", "2026-05-01T09:00:00Z"),
        ("anthropic-ratelimit-tokens-remaining", "0"),
        ("anthropic-ratelimit-tokens-reset", "2026-05-01T00:01:00Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-05-01T00:00:30Z"),
    ];
    let outcome = judge("anthropic", 429, &pairs, "");
    assert_eq!((outcome.class, seconds(&outcome)), (Class::RateLimit, Some(60)));
}

#[test]
fn the_end_of_a_subscription_window_is_the_latest_of_the_rejected_ones() {
    let pairs = [
        ("anthropic-ratelimit-unified-status", "rejected"),
        ("anthropic-ratelimit-unified-5h-status", "rejected"),
        ("anthropic-ratelimit-unified-5h-reset", "1777597200"),
        ("anthropic-ratelimit-unified-7d-status", "rejected"),
        ("anthropic-ratelimit-unified-7d-reset", "1777680000"),
        ("retry-after", "60"),
    ];
    let outcome = judge("anthropic", 429, &pairs, "");
    assert_eq!((outcome.class, outcome.scope, seconds(&outcome)), (Class::Quota, Scope::Profile, Some(86_400)));
}

#[test]
fn a_daily_quota_ends_at_midnight_on_the_pacific_coast_not_in_some_seconds() {
    let body = r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[
        {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"RequestsPerDayPerProject"}]},
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]"#;
    let outcome = judge("gemini", 429, &[], body);
    assert_eq!((outcome.class, outcome.scope, seconds(&outcome)), (Class::Quota, Scope::GroupModel, Some(8 * 3600)));
    let minute = body.replace("RequestsPerDayPerProject", "RequestsPerMinutePerProject");
    assert_eq!(seconds(&judge("gemini", 429, &[], &minute)), Some(34));
}

#[test]
fn a_request_that_has_an_error_quote_it_cannot_write_a_credential_off() {
    let echo = |message: &str| format!("{{\"error\":{{\"type\":\"invalid_request_error\",\"message\":{message:?}}}}}");
    let cases = [
        ("anthropic", "unknown role 'Your credit balance is too low'"),
        ("anthropic", "tools.0.name: 'You have reached your specified API usage limits' is too long"),
        ("gemini", "Invalid value at 'contents[0].role': \"API key not valid\""),
        ("gemini", "Unknown name \"API_KEY_INVALID\""),
        ("xai", "unknown field 'incorrect api key'"),
        ("linear", "Cannot query field 'RATELIMITED'"),
    ];
    for (provider, message) in cases {
        assert_eq!(judge(provider, 400, &[], &echo(message)).class, Class::RequestFault, "{provider} {message}");
    }
}

#[test]
fn a_success_says_who_owns_the_quota_and_how_much_is_left() {
    let pairs = [
        ("anthropic-organization-id", "org-1"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.99"),
        ("anthropic-ratelimit-unified-5h-reset", "1777597200"),
        ("anthropic-ratelimit-requests-remaining", "4"),
    ];
    let outcome = judge("anthropic", 200, &pairs, "");
    assert_eq!(outcome.class, Class::Success);
    assert_eq!(outcome.signs.organization.as_deref(), Some("org-1"));
    assert_eq!(outcome.signs.nearly_spent, Some(WallTime(1_777_597_200_000)));
}

#[test]
fn names_the_resource_of_a_limit() {
    let pairs =
        [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1777597200"), ("x-ratelimit-resource", "search")];
    let outcome = judge("github", 403, &pairs, "{\"message\":\"API rate limit exceeded\"}");
    assert_eq!((outcome.scope, outcome.key.as_deref()), (Scope::ProfileResource, Some("search")));
    // Without the fields a 403 is about the resource.
    assert_eq!(judge("github", 403, &[], "{\"message\":\"Resource not accessible\"}").class, Class::RequestFault);
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn judging_is_total(
            status in 100u16..=599,
            body in proptest::collection::vec(any::<u8>(), 0..300),
            names in proptest::collection::vec("retry-after|retry-after-ms|x-ratelimit-reset|anthropic-ratelimit-unified-status|x-ratelimit-remaining-tokens|x-ratelimit-reset-tokens", 0..6),
            values in proptest::collection::vec("[ -~]{0,24}", 6),
            now in any::<u64>(),
        ) {
            let pairs: Vec<_> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
            let fields = fields(&pairs);
            let book = Rulebook::embedded();
            for provider in book.providers() {
                let rules = book.of(provider);
                let answer = Answer { status: StatusCode::from_u16(status).unwrap(), fields: &fields, body: &body };
                let outcome = rules.judge(&answer, WallTime(now));
                if let Some(reset) = outcome.reset {
                    prop_assert!(reset.at.0 >= now);
                }
                let mut scanner = Scanner::default();
                let _ = scanner.peek(&body, &rules, &fields, WallTime(now));
            }
        }
    }
}
