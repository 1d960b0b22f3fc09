//! The providers of the catalogue: where their credentials go, and which carrier a client may choose.

use super::Stage;
use crate::harness::{Answered, Canary};
use crate::upstream::Seen;

fn stage(name: &'static str, secret: &Canary) -> Stage {
    let secret = secret.clone();
    Stage::with("default: deny\n", move |upstream, home| home.stock(upstream, name, &secret, &[]))
}

fn ask(stage: &Stage, host: &str, request: &str) -> (Answered, Seen) {
    stage.upstream.forget();
    let answered = stage.open(host).ask(&request.replace("HOST", host));
    (answered, stage.upstream.only(host))
}

#[test]
fn anthropic_keeps_the_carrier_that_the_client_used() {
    let key = Canary::anthropic();
    let stage = stage("anthropic:work", &key);
    let host = "api.anthropic.com";
    for (fields, bearer) in [
        ("x-api-key: anything\r\n", false),
        ("Authorization: Bearer anything\r\n", true),
        ("", false),
        ("x-api-key: anything\r\nAuthorization: Bearer anything\r\n", false),
    ] {
        let (answered, seen) = ask(&stage, host, &format!("GET /v1/models HTTP/1.1\r\nHost: HOST\r\n{fields}\r\n"));
        answered.assert_status(200);
        assert_eq!(seen.occurrences(key.as_str()), 1, "{fields}");
        if !fields.contains("\r\nAuth") {
            let bearers = seen.values("authorization");
            assert_eq!(bearers.len(), usize::from(bearer), "{fields}: {bearers:?}");
            assert_eq!(seen.values("x-api-key").len(), usize::from(!bearer), "{fields}");
        }
        assert_eq!(seen.occurrences("anything"), 0);
        assert_eq!(seen.values("anthropic-version").len(), 1, "added where the client has none");
    }
    let versioned = "GET /v1/models HTTP/1.1\r\nHost: HOST\r\nanthropic-version: 2026-10-21\r\n\r\n";
    let (_, seen) = ask(&stage, host, versioned);
    assert_eq!(seen.value("anthropic-version").as_deref(), Some("2026-10-21"), "never overwritten");
}

#[test]
fn an_anthropic_setup_token_is_always_bearer_with_its_beta_value() {
    let token = Canary::setup_token();
    let stage = stage("anthropic:subscription", &token);
    for fields in ["x-api-key: anything\r\n", "Authorization: Bearer anything\r\n", ""] {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: HOST\r\nanthropic-beta: one,two\r\n{fields}\r\n");
        let (answered, seen) = ask(&stage, "api.anthropic.com", &request);
        answered.assert_status(200);
        assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", token.as_str())));
        assert!(seen.values("x-api-key").is_empty());
        let betas = seen.values("anthropic-beta").join(",");
        let betas: Vec<&str> = betas.split(',').map(str::trim).collect();
        assert_eq!(betas.iter().filter(|beta| **beta == "oauth-2025-04-20").count(), 1, "{betas:?}");
        assert!(betas.contains(&"one") && betas.contains(&"two"), "{betas:?}");
    }
}

#[test]
fn openai_and_openrouter_take_bearer() {
    for (name, secret, host, path) in [
        ("openai:work", Canary::openai(), "api.openai.com", "/v1/models"),
        ("openrouter:work", Canary::openrouter(), "openrouter.ai", "/api/v1/models"),
    ] {
        let stage = stage(name, &secret);
        let (answered, seen) = ask(&stage, host, &format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
        answered.assert_status(200);
        assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", secret.as_str())));
        assert_eq!(seen.occurrences(secret.as_str()), 1);
    }
}

#[test]
fn gemini_takes_a_field_or_a_query_parameter() {
    let key = Canary::gemini();
    let stage = stage("gemini:work", &key);
    let host = "generativelanguage.googleapis.com";
    let (answered, seen) =
        ask(&stage, host, "GET /v1beta/models HTTP/1.1\r\nHost: HOST\r\nx-goog-api-key: mine\r\n\r\n");
    answered.assert_status(200);
    assert_eq!(seen.value("x-goog-api-key").as_deref(), Some(key.as_str()));
    assert_eq!(seen.query("key"), None);
    let (answered, seen) = ask(&stage, host, "GET /v1beta/models?key=mine&pageSize=5 HTTP/1.1\r\nHost: HOST\r\n\r\n");
    answered.assert_status(200);
    assert_eq!(seen.query("key").as_deref(), Some(key.as_str()));
    assert_eq!(seen.query("pageSize").as_deref(), Some("5"));
    assert_eq!(seen.occurrences(key.as_str()), 1, "one carrier, not both");
    let (answered, seen) = ask(&stage, host, "GET /v1beta/models HTTP/1.1\r\nHost: HOST\r\n\r\n");
    answered.assert_status(200);
    assert_eq!(seen.occurrences(key.as_str()), 1);
}

#[test]
fn github_takes_bearer_at_its_api_and_basic_for_git() {
    let token = Canary::github();
    let stage = stage("github:work", &token);
    let (answered, seen) = ask(&stage, "api.github.com", "GET /user HTTP/1.1\r\nHost: HOST\r\nUser-Agent: t\r\n\r\n");
    answered.assert_status(200);
    let value = seen.value("authorization").unwrap();
    assert!(value == format!("Bearer {}", token.as_str()) || value == format!("token {}", token.as_str()));
    stage.upstream.repository("acme/widgets", "README.md", "widgets\n");
    let path = "/acme/widgets.git/info/refs?service=git-upload-pack";
    let (answered, seen) = ask(&stage, "github.com", &format!("GET {path} HTTP/1.1\r\nHost: HOST\r\n\r\n"));
    answered.assert_status(200);
    let (user, password) = seen.basic().expect("Basic on the first request");
    assert!(!user.is_empty());
    assert_eq!(password, token.as_str());
}

#[test]
fn telegram_takes_a_path_segment() {
    let token = Canary::telegram();
    let stage = stage("telegram:work", &token);
    let (answered, seen) =
        ask(&stage, "api.telegram.org", "GET /bot1234567890:placeholder/getMe HTTP/1.1\r\nHost: HOST\r\n\r\n");
    answered.assert_status(200);
    assert_eq!(seen.path(), format!("/bot{}/getMe", token.as_str()));
    let mut stage = stage;
    stage.stop();
    let lines = stage.home.access_log();
    let line = lines.iter().find(|line| line["host"] == "api.telegram.org").unwrap();
    assert!(line["path"].as_str().unwrap().ends_with("/getMe"), "{line}");
}

#[test]
fn slack_takes_bearer() {
    let token = Canary::slack();
    let stage = stage("slack:work", &token);
    let (answered, seen) =
        ask(&stage, "slack.com", "POST /api/auth.test HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n");
    answered.assert_status(200);
    assert_eq!(answered.json()["ok"], true);
    assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", token.as_str())));
}

#[test]
fn one_providers_credential_never_reaches_another() {
    let (anthropic, openai) = (Canary::anthropic(), Canary::openai());
    let (one, two) = (anthropic.clone(), openai.clone());
    let stage = Stage::with("default: deny\n", move |upstream, home| {
        home.stock(upstream, "anthropic:work", &one, &[]);
        home.stock(upstream, "openai:work", &two, &[]);
    });
    for host in ["api.anthropic.com", "api.openai.com"] {
        let answered = stage.open(host).ask(&super::get(host, "/v1/models"));
        answered.assert_status(200);
    }
    stage.upstream.assert_carried("api.anthropic.com", anthropic.as_str());
    stage.upstream.assert_carried("api.openai.com", openai.as_str());
}
