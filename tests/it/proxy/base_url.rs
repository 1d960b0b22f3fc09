//! The base-URL listener: `http://127.0.0.1:PORT/<provider>/...` for clients that know no proxy.

use super::{ACME, CONFIG, Stage};
use crate::harness::{Answered, Canary, Wire};

fn placeholder(stage: &Stage, variable: &str) -> String {
    let exported = stage.home.command(&["env", "--agent", "coder", "--format", "json"]);
    exported.assert_code(0);
    exported.json()[variable].as_str().unwrap_or_else(|| panic!("no {variable}: {}", exported.stdout())).to_owned()
}

fn ask(stage: &Stage, path: &str, fields: &str) -> Answered {
    let address = stage.daemon.base_url;
    let mut wire = Wire::connect(&stage.home, address);
    wire.ask(&format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n"))
}

#[test]
fn the_agents_placeholder_identifies_it() {
    let stage = Stage::new();
    let own = placeholder(&stage, "ACME_API_KEY");
    let answered = ask(&stage, "/acme/echo/fields?a=1", &format!("Authorization: Bearer {own}\r\n"));
    answered.assert_status(200);
    let seen = stage.upstream.only(ACME);
    assert!(seen.tls);
    assert_eq!(seen.target, "/echo/fields?a=1");
    assert_eq!(seen.host, ACME);
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn the_agents_token_identifies_it_too() {
    let stage = Stage::new();
    let token = stage.token.clone();
    ask(&stage, "/acme/echo/fields", &format!("Authorization: Bearer {token}\r\n")).assert_status(200);
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.occurrences(&token), 0, "the token is not sent on");
    stage.upstream.assert_carried(ACME, stage.acme.as_str());
}

#[test]
fn nobody_else_is_served() {
    let stage = Stage::new();
    for fields in ["", "Authorization: Bearer wrong-wrong-wrong\r\n", "x-api-key: wrong-wrong-wrong\r\n"] {
        let answered = ask(&stage, "/acme/", fields);
        assert_eq!(answered.status, 401, "{fields}: {answered:?}");
        assert_eq!(answered.value("x-keyferry-error"), Some("agent_unauthenticated"));
    }
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn other_names_and_pages_are_refused() {
    let stage = Stage::new();
    let own = placeholder(&stage, "ACME_API_KEY");
    let address = stage.daemon.base_url;
    for fields in ["Host: evil.example\r\n".to_owned(), format!("Host: {address}\r\nOrigin: https://evil.example\r\n")]
    {
        let mut wire = Wire::connect(&stage.home, address);
        let answered = wire.ask(&format!("GET /acme/ HTTP/1.1\r\n{fields}Authorization: Bearer {own}\r\n\r\n"));
        assert!(matches!(answered.status, 400 | 403 | 421), "{fields}: {answered:?}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn unknown_providers_and_bare_paths_are_refused() {
    let stage = Stage::new();
    let own = placeholder(&stage, "ACME_API_KEY");
    for path in ["/", "/nothing/v1", "/acme/../other/", "//acme/"] {
        let answered = ask(&stage, path, &format!("Authorization: Bearer {own}\r\n"));
        assert!((400..500).contains(&answered.status), "{path}: {answered:?}");
    }
    assert!(stage.upstream.seen_at(super::OTHER).is_empty());
}

#[test]
fn a_placeholder_serves_its_own_provider_only() {
    let stage = Stage::new();
    let own = placeholder(&stage, "ACME_API_KEY");
    let answered = ask(&stage, "/other/", &format!("X-Other-Key: {own}\r\n"));
    assert!((400..500).contains(&answered.status), "{answered:?}");
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn the_sdks_work_with_their_base_url_variable() {
    let Some(python) = crate::harness::need("base URL", crate::harness::Tool::Python) else { return };
    let (anthropic, openai) = (Canary::anthropic(), Canary::openai());
    let (one, two) = (anthropic.clone(), openai.clone());
    let stage = Stage::with(CONFIG, move |upstream, home| {
        upstream.echoes();
        home.stock(upstream, "anthropic:work", &one, &[]);
        home.stock(upstream, "openai:work", &two, &[]);
    });
    let address = stage.daemon.base_url;
    for (script, variable, base, path) in [
        ("client_anthropic.py", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic"),
        ("client_openai.py", "OPENAI_API_KEY", "OPENAI_BASE_URL", "openai/v1"),
    ] {
        let mut command = std::process::Command::new(&python);
        command.env_clear().arg(crate::harness::script(script));
        command.env(variable, placeholder(&stage, variable)).env(base, format!("http://{address}/{path}"));
        let finished = stage.home.finish(command, b"");
        finished.assert_code(0);
        assert!(finished.stdout().contains("All keys stay home."));
    }
    stage.upstream.assert_carried("api.anthropic.com", anthropic.as_str());
    stage.upstream.assert_carried("api.openai.com", openai.as_str());
}
