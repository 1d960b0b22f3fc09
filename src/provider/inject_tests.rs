//! How a credential comes into a request, provider by provider and attack by attack.

use std::sync::Arc;

use http::request::Parts;
use proptest::prelude::*;

use super::inject::inject_for;
use super::kind::Provider;
use super::request::strip_for;
use super::{Catalogue, Credential, Draft, InjectDraft, InjectError, Stripped, forward, forward_cleartext, inject};
use crate::code::Code;
use crate::id::{ProfileId, ProviderId, RequestId};
use crate::message::origin::{Origin, Scheme};
use crate::message::pattern::HostPattern;
use crate::secret::Secret;
use crate::telemetry::Witness;
use crate::tls::Verified;

fn provider(id: &str) -> Arc<Provider> {
    Arc::clone(Catalogue::embedded().provider(&ProviderId::parse(id).unwrap()).unwrap())
}

fn own(inject: InjectDraft) -> Arc<Provider> {
    let id = ProviderId::parse("acme").unwrap();
    let draft = Draft { hosts: vec!["api.acme.test".to_owned()], inject: vec![inject], ..Draft::default() };
    let catalogue = Catalogue::embedded().with(vec![(id.clone(), draft)]).unwrap();
    Arc::clone(catalogue.provider(&id).unwrap())
}

fn credential(provider: &Provider, kind: &str, hosts: &[&str], value: &str) -> Credential {
    Credential::new(
        ProfileId::parse(&format!("{}:work", provider.id)).unwrap(),
        kind,
        hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
        Arc::new(Secret::from(value.to_owned())),
        1,
    )
}

fn written(credential: &Credential) -> Witness {
    Witness::for_test(RequestId::new(0), credential.profile.clone())
}

fn origin(authority: &str) -> Origin {
    Origin::from_authority(Scheme::Https, authority).unwrap()
}

fn stripped(provider: &Provider, target: &str, fields: &[(&str, &str)]) -> Stripped {
    let mut builder = http::Request::builder().uri(target);
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    strip_for(builder.body(()).unwrap().into_parts().0, Some(provider), true).unwrap()
}

fn field<'f>(parts: &'f Parts, name: &str) -> Option<&'f str> {
    parts.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn a_setup_token_is_always_a_bearer_with_its_mark() {
    let anthropic = provider("anthropic");
    let token = credential(&anthropic, "setup-token", &["api.anthropic.com"], "sk-ant-oat01-canary");
    for (fields, beta) in [
        (vec![], "oauth-2025-04-20"),
        (vec![("x-api-key", "p")], "oauth-2025-04-20"),
        (vec![("authorization", "Bearer p"), ("anthropic-beta", "a-1,b-2")], "a-1,b-2,oauth-2025-04-20"),
        (vec![("anthropic-beta", "a-1"), ("anthropic-beta", "b-2")], "a-1,b-2,oauth-2025-04-20"),
        (vec![("anthropic-beta", "oauth-2025-04-20, a-1")], "oauth-2025-04-20, a-1"),
    ] {
        let request = stripped(&anthropic, "/v1/messages?beta=true", &fields);
        let parts = inject_for(&request, &anthropic, &token, &origin("api.anthropic.com")).unwrap().into_parts();
        assert_eq!(field(&parts, "authorization"), Some("Bearer sk-ant-oat01-canary"), "{fields:?}");
        assert_eq!(field(&parts, "x-api-key"), None);
        assert_eq!(field(&parts, "anthropic-beta"), Some(beta), "{fields:?}");
        assert_eq!(field(&parts, "anthropic-version"), Some("2023-06-01"));
        assert_eq!(parts.headers.get_all("anthropic-beta").iter().count(), 1);
        assert_eq!(parts.uri, "/v1/messages?beta=true");
    }
}

#[test]
fn an_api_key_never_carries_the_mark_of_a_setup_token() {
    let anthropic = provider("anthropic");
    let key = credential(&anthropic, "api-key", &["api.anthropic.com"], "sk-ant-api03-canary");
    // A client that was told of a subscription, answered by a pool that has moved on to an API key.
    let fields = [
        ("authorization", "Bearer p"),
        ("anthropic-beta", "claude-code-20250219,oauth-2025-04-20,b-2"),
        ("anthropic-version", "2026-10-21"),
    ];
    let request = stripped(&anthropic, "/v1/messages", &fields);
    let parts = inject_for(&request, &anthropic, &key, &origin("api.anthropic.com")).unwrap().into_parts();
    assert_eq!(field(&parts, "x-api-key"), Some("sk-ant-api03-canary"));
    assert_eq!(field(&parts, "authorization"), None);
    assert_eq!(field(&parts, "anthropic-beta"), Some("claude-code-20250219,b-2"));
    assert_eq!(field(&parts, "anthropic-version"), Some("2026-10-21"));

    let alone = stripped(&anthropic, "/v1/messages", &[("anthropic-beta", "oauth-2025-04-20")]);
    let parts = inject_for(&alone, &anthropic, &key, &origin("api.anthropic.com")).unwrap().into_parts();
    assert_eq!(field(&parts, "anthropic-beta"), None);
}

#[test]
fn one_stripped_request_serves_several_attempts() {
    let anthropic = provider("anthropic");
    let request = stripped(&anthropic, "/v1/messages", &[("x-api-key", "p")]);
    let origin = origin("api.anthropic.com");
    for (kind, value, name) in
        [("setup-token", "one", "authorization"), ("api-key", "two", "x-api-key"), ("api-key", "three", "x-api-key")]
    {
        let credential = credential(&anthropic, kind, &["api.anthropic.com"], value);
        let injected = inject_for(&request, &anthropic, &credential, &origin).unwrap();
        assert!(injected.used_secret().unwrap().matches(value.as_bytes()));
        let parts = injected.into_parts();
        assert!(field(&parts, name).unwrap().ends_with(value));
        let slots = ["authorization", "x-api-key"].into_iter().filter(|name| parts.headers.contains_key(*name));
        assert_eq!(slots.count(), 1);
    }
}

#[test]
fn a_foreign_origin_gets_nothing() {
    // EX-16: the credential's own audience is asked again, whatever was decided before.
    let anthropic = provider("anthropic");
    let key = credential(&anthropic, "api-key", &["api.anthropic.com"], "canary");
    let request = stripped(&anthropic, "/v1/messages", &[]);
    for foreign in ["api.openai.com", "api.anthropic.com:8443", "evil.test", "console.api.anthropic.com"] {
        let error = inject_for(&request, &anthropic, &key, &origin(foreign)).unwrap_err();
        assert!(matches!(error, InjectError::Audience(_)), "{foreign}");
        assert_eq!(error.code(), Code::PolicyDenied);
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    let verified = Verified::pretended(origin("api.anthropic.com"));
    let injected = inject(&request, &anthropic, &key, &verified, &written(&key)).unwrap();
    assert_eq!(injected.origin(), verified.origin());
    assert_eq!(field(&injected.into_parts(), "host"), Some("api.anthropic.com"));
}

#[test]
fn the_intent_must_be_written_for_this_very_credential() {
    let anthropic = provider("anthropic");
    let key = credential(&anthropic, "api-key", &["api.anthropic.com"], "canary");
    let request = stripped(&anthropic, "/v1/messages", &[]);
    let verified = Verified::pretended(origin("api.anthropic.com"));
    let other = Witness::for_test(RequestId::new(0), ProfileId::parse("anthropic:other").unwrap());
    let refused = inject(&request, &anthropic, &key, &verified, &other).unwrap_err();
    assert_eq!(refused, InjectError::Unwitnessed(key.profile.clone()));
}

#[test]
fn a_host_of_ones_own_takes_it_as_the_provider_does() {
    let gitlab = provider("gitlab");
    let token = credential(&gitlab, "token", &["git.acme.test:8443"], "canary");
    for (target, name) in [("/api/v4/user", "private-token"), ("/acme/x.git/info/refs", "authorization")] {
        let request = stripped(&gitlab, target, &[]);
        let parts = inject_for(&request, &gitlab, &token, &origin("git.acme.test:8443")).unwrap().into_parts();
        assert!(field(&parts, name).is_some(), "{target}");
        assert_eq!(field(&parts, "host"), Some("git.acme.test:8443"));
    }
}

#[test]
fn pages_beside_the_repositories_take_no_credential() {
    let github = provider("github");
    let token = credential(&github, "token", &["github.com", "api.github.com"], "canary");
    let site = origin("github.com");
    for (path, takes) in [
        ("/acme/x.git/info/refs", true),
        ("/acme/x/info/lfs/objects/batch", true),
        ("/acme/x", false),
        ("/acme/x/info/refs/../../settings", false),
        ("/settings/tokens/info%2Frefs", false),
        ("/login", false),
    ] {
        assert_eq!(github.takes_credential(&site, path), takes, "{path}");
        let request = stripped(&github, path, &[("authorization", "Bearer own")]);
        let injected = inject_for(&request, &github, &token, &site);
        assert_eq!(injected.is_ok(), takes, "{path}");
        let parts = forward(request, &Verified::pretended(site.clone())).unwrap().into_parts();
        assert_eq!(field(&parts, "authorization"), None, "{path}");
    }
    assert!(github.takes_credential(&origin("api.github.com"), "/anything"));
}

#[test]
fn a_path_without_the_slot_is_refused() {
    let telegram = provider("telegram");
    let token = credential(&telegram, "path", &["api.telegram.org"], "123:canary");
    let api = origin("api.telegram.org");
    for target in ["/getMe", "/bot/getMe", "/%62otx/getMe", "/x/botx/getMe"] {
        let error = inject_for(&stripped(&telegram, target, &[]), &telegram, &token, &api).unwrap_err();
        assert_eq!(error.code(), Code::BadRequest, "{target}: {error}");
        assert!(!error.to_string().contains("canary"));
    }
}

#[test]
fn a_value_that_would_break_out_of_its_slot_is_refused_before_and_after_it_is_stored() {
    // EX-17
    let header = || InjectDraft::Header { header: "X-Key".to_owned(), value: "{secret}".to_owned() };
    let query = || InjectDraft::Query { query: "key".to_owned(), value: "{secret}".to_owned() };
    let path = || InjectDraft::Path { path: "/bot{secret}".to_owned() };
    let cookie = || InjectDraft::Cookie { cookie: "session".to_owned(), value: "{secret}".to_owned() };
    for (inject, value) in [
        (header(), "canary\r\nX-Other: y"),
        (header(), "canary\n"),
        (header(), "canary\0"),
        (query(), "canary\r\n"),
        (path(), "canary\n"),
        (path(), ".."),
        (cookie(), "canary; admin=1"),
        (cookie(), "canary\r\n"),
    ] {
        let acme = own(inject);
        let kind = &acme.kinds[0];
        let credential = credential(&acme, &kind.id, &["api.acme.test"], value);
        let request = stripped(&acme, "/botp/x", &[]);
        let error = inject_for(&request, &acme, &credential, &origin("api.acme.test")).unwrap_err();
        assert!(matches!(error, InjectError::Unusable(_)), "{value:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        assert_eq!(kind.check(credential.secret()), Err(error), "{value:?}");
    }
    for (inject, value) in [(header(), "a b+/="), (query(), "a&b=c#d"), (path(), "1:a/b?c"), (cookie(), "a=b+/")] {
        let acme = own(inject);
        assert_eq!(acme.kinds[0].check(&Secret::from(value.to_owned())), Ok(()), "{value}");
    }
    let jira = provider("jira");
    let basic = jira.kind("basic").unwrap();
    assert_eq!(basic.check(&Secret::from("no-colon".to_owned())), Err(InjectError::Malformed(basic.form)));
}

#[test]
fn what_stands_in_the_target_cannot_leave_its_part() {
    for (inject, form, target) in [
        (
            InjectDraft::Query { query: "key".to_owned(), value: "{secret}".to_owned() },
            "a%26b%3Dc%23d%3F%2F%20",
            "/botp/x?key=a%26b%3Dc%23d%3F%2F%20",
        ),
        (InjectDraft::Path { path: "/bot{secret}".to_owned() }, "a&b=c%23d%3F%2F%20", "/bota&b=c%23d%3F%2F%20/x"),
    ] {
        let acme = own(inject);
        let credential = credential(&acme, &acme.kinds[0].id, &["api.acme.test"], "a&b=c#d?/ ");
        let request = stripped(&acme, "/botp/x", &[]);
        let injected = inject_for(&request, &acme, &credential, &origin("api.acme.test")).unwrap();
        let known = injected.secrets().iter().any(|secret| secret.matches(form.as_bytes()));
        assert!(known, "the escaped form is looked for too");
        assert_eq!(injected.into_parts().uri, target);
    }
}

#[test]
fn values_are_marked_so_that_no_table_or_log_keeps_them() {
    // EX-25
    for (id, kind, host, value) in [
        ("anthropic", "api-key", "api.anthropic.com", "canary"),
        ("mailgun", "api-key", "api.mailgun.net", "canary"),
        ("jira", "basic", "acme.atlassian.net", "ann:canary"),
    ] {
        let provider = provider(id);
        let credential = credential(&provider, kind, &[host], value);
        let injected = inject_for(&stripped(&provider, "/", &[]), &provider, &credential, &origin(host)).unwrap();
        assert!(!format!("{injected:?}").contains("canary"));
        let parts = injected.into_parts();
        let slot = |name: &str| matches!(name, "authorization" | "x-api-key");
        let holding: Vec<_> = parts.headers.iter().filter(|(name, _)| slot(name.as_str())).collect();
        assert_eq!(holding.len(), 1, "{id}");
        assert!(holding.iter().all(|(_, value)| value.is_sensitive()), "{id}");
        assert!(!format!("{parts:?}").contains("canary"), "{id}");
    }
}

#[test]
fn says_what_it_would_send_without_the_value() {
    for (id, at, expected) in [
        ("anthropic", "/v1/messages", "x-api-key: {secret}"),
        ("gitlab", "/acme/x.git/info/refs", "authorization: Basic oauth2:{secret}"),
        ("telegram", "/botp/getMe", "/bot{secret}"),
        ("trello", "/1/members/me", "?key={key}, ?token={token}"),
    ] {
        let provider = provider(id);
        let host = provider.hosts()[0].to_string();
        let place = provider.kinds[0].placement(&origin(&host), at).unwrap();
        assert_eq!(place.ways[0].to_string(), expected, "{id}");
    }
}

#[test]
fn a_cookie_stands_alone() {
    let acme = own(InjectDraft::Cookie { cookie: "session".to_owned(), value: "{secret}".to_owned() });
    let credential = credential(&acme, "cookie", &["api.acme.test"], "canary");
    let request = stripped(&acme, "/", &[("cookie", "session=p; admin=1")]);
    let parts = inject_for(&request, &acme, &credential, &origin("api.acme.test")).unwrap().into_parts();
    assert_eq!(field(&parts, "cookie"), Some("session=canary"));
}

#[test]
fn without_a_credential_the_target_goes_on_as_it_came() {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.uri = "https://docs.test/bot1:x/a%2Fb?key=1&b".parse().unwrap();
    let stripped = strip_for(parts, None, true).unwrap();
    let forwarded = forward(stripped, &Verified::pretended(origin("docs.test"))).unwrap();
    assert!(forwarded.used_secret().is_none() && forwarded.secrets().is_empty());
    assert_eq!(forwarded.into_parts().uri, "/bot1:x/a%2Fb?key=1&b");
}

#[test]
fn cleartext_is_for_cleartext_origins() {
    let (parts, ()) = http::Request::new(()).into_parts();
    let stripped = strip_for(parts, None, true).unwrap();
    let plain = Origin::from_authority(Scheme::Http, "docs.test").unwrap();
    let forwarded = forward_cleartext(stripped.clone(), &plain).unwrap();
    assert!(forwarded.used_secret().is_none());
    assert!(forward_cleartext(stripped, &origin("docs.test")).is_err());
}

#[test]
fn a_kind_that_is_unknown_is_refused_unless_there_is_only_one() {
    let anthropic = provider("anthropic");
    let odd = credential(&anthropic, "odd", &["api.anthropic.com"], "canary");
    let error = inject_for(&stripped(&anthropic, "/", &[]), &anthropic, &odd, &origin("api.anthropic.com"));
    assert_eq!(error.unwrap_err(), InjectError::UnknownKind("odd".to_owned()));
    let groq = provider("groq");
    let odd = credential(&groq, "odd", &["api.groq.com"], "canary");
    assert!(inject_for(&stripped(&groq, "/", &[]), &groq, &odd, &origin("api.groq.com")).is_ok());
}

/// A field name of the provider's slots or of none, in any case.
fn any_name() -> impl Strategy<Value = String> {
    let known = prop_oneof![
        Just("authorization"),
        Just("x-api-key"),
        Just("api-key"),
        Just("x-goog-api-key"),
        Just("cookie"),
        Just("proxy-authorization"),
        Just("x-forwarded-for"),
        Just("x-other"),
    ];
    (known, any::<u32>()).prop_map(|(name, cases)| {
        let flip = |(at, c): (usize, char)| if cases >> (at % 32) & 1 == 1 { c.to_ascii_uppercase() } else { c };
        name.chars().enumerate().map(flip).collect()
    })
}

fn any_value() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![Just(""), Just("Bearer "), Just("bearer  "), Just("Basic "), Just("token "), Just("Key ")];
    (scheme, "[a-zA-Z0-9:+/=,; -]{0,24}").prop_map(|(scheme, rest)| format!("{scheme}{rest}junk"))
}

proptest! {
    /// PX-21: whatever an agent sends, one credential leaves, and nothing that the agent put beside it.
    #[test]
    fn one_credential_leaves_whatever_is_sent(
        id in prop_oneof![Just("anthropic"), Just("openai"), Just("gemini"), Just("supabase"), Just("serpapi")],
        fields in proptest::collection::vec((any_name(), any_value()), 0..8),
        query in proptest::collection::vec(("(?i)key|api_key|access_token|apikey|a|%6bey|monkey", "[a-z0-9%]{0,4}"), 0..6),
    ) {
        let provider = provider(id);
        let kind = &provider.kinds[0];
        let host = kind.placements[0].hosts[0].to_string().replace('*', "tenant");
        let credential = credential(&provider, &kind.id, &[&host], "s3cret~canary");
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}=junk{value}")).collect();
        let target = format!("/v1/x?{}", query.join("&"));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = stripped(&provider, &target, &fields);
        let parts = inject_for(&request, &provider, &credential, &origin(&host)).unwrap().into_parts();

        let lines = parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let whole = format!("{} {}", parts.uri, lines.collect::<Vec<_>>().join("\n"));
        // Supabase takes the key in two fields together.
        let expected = if id == "supabase" { 2 } else { 1 };
        prop_assert_eq!(whole.matches("s3cret~canary").count(), expected, "{}", whole);
        for name in parts.headers.keys() {
            let other = parts.headers.get_all(name).iter().any(|value| value.to_str().unwrap().contains("junk"));
            prop_assert!(!other || name == "x-other", "{}", whole);
        }
        let left = parts.uri.query().unwrap_or("").split('&').filter(|piece| piece.contains("junk"));
        for piece in left {
            let name = piece.split('=').next().unwrap().to_ascii_lowercase();
            let slot = match id {
                "gemini" => matches!(name.as_str(), "key" | "%6bey" | "access_token"),
                "serpapi" => name == "api_key",
                "supabase" => name == "apikey",
                _ => false,
            };
            prop_assert!(!slot, "{}", whole);
        }
    }
}
