//! What an agent sends in a credential's place, or for the next hop only, never reaches the provider.

use super::{ACME, Stage};

fn send(stage: &Stage, fields: &str) -> u16 {
    stage.open(ACME).ask(&format!("GET /echo/fields HTTP/1.1\r\nHost: {ACME}\r\n{fields}\r\n")).status
}

#[test]
fn credentials_of_the_client_are_replaced() {
    // PX-21
    let stage = Stage::new();
    for fields in [
        "Authorization: Bearer mine-mine-mine\r\n",
        "authorization: bearer mine-mine-mine\r\nAUTHORIZATION: Basic mine-mine-mine\r\n",
        "X-Api-Key: mine-mine-mine\r\n",
        "api-key: mine-mine-mine\r\n",
        "x-goog-api-key: mine-mine-mine\r\n",
        "Cookie: session=mine-mine-mine\r\n",
        "Proxy-Authorization: Bearer mine-mine-mine\r\n",
    ] {
        stage.upstream.forget();
        assert_eq!(send(&stage, fields), 200, "{fields}");
        let seen = stage.upstream.only(ACME);
        assert_eq!(seen.values("authorization"), [format!("Bearer {}", stage.acme.as_str())], "{fields}");
        assert_eq!(seen.occurrences("mine-mine-mine"), 0, "{fields}: {seen:#?}");
        for name in ["x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization"] {
            assert_eq!(seen.values(name), Vec::<String>::new(), "{fields}");
        }
    }
}

#[test]
fn nominated_fields_are_removed_before_the_credential_is_put_in() {
    // PX-20
    let stage = Stage::new();
    let fields = "Connection: close, authorization, x-api-key, x-mark, proxy-status\r\nX-Mark: 1\r\n";
    assert_eq!(send(&stage, fields), 200);
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.value("authorization"), Some(format!("Bearer {}", stage.acme.as_str())));
    assert!(seen.values("x-mark").is_empty());
    stage.upstream.forget();
    for nominated in ["host", "content-length", "transfer-encoding"] {
        assert_eq!(send(&stage, &format!("Connection: {nominated}\r\n")), 400, "{nominated}");
    }
    assert!(stage.upstream.seen().is_empty());
}

#[test]
fn fields_of_the_agents_side_stay_there() {
    // PX-22
    let stage = Stage::new();
    let names = [
        "Proxy-Authorization",
        "Proxy-Connection",
        "Proxy",
        "Forwarded",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Via",
        "X-Real-IP",
        "Keep-Alive",
        "X-Original-URL",
        "X-HTTP-Method-Override",
    ];
    let fields: String = names.iter().map(|name| format!("{name}: from-the-agent\r\n")).collect();
    assert_eq!(send(&stage, &format!("{fields}X-Kept: yes\r\nTE: trailers\r\n")), 200);
    let seen = stage.upstream.only(ACME);
    for name in names {
        let left = seen.values(name).iter().any(|value| value.contains("from-the-agent"));
        assert!(!left, "{name} reached the provider");
    }
    assert_eq!(seen.value("x-kept").as_deref(), Some("yes"));
}

#[test]
fn ordinary_fields_and_bodies_arrive_unchanged() {
    let stage = Stage::new();
    let fields = "Accept: */*\r\nUser-Agent: test/1\r\nX-Twice: a\r\nX-Twice: b\r\nContent-Type: text/plain\r\n";
    let request =
        format!("POST /echo/body?x=%2F&y=a+b HTTP/1.1\r\nHost: {ACME}\r\n{fields}Content-Length: 5\r\n\r\nhello");
    let answered = stage.open(ACME).ask(&request);
    answered.assert_status(200);
    assert_eq!(answered.text(), "hello");
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.target, "/echo/body?x=%2F&y=a+b");
    assert_eq!(seen.values("x-twice"), ["a", "b"]);
    assert_eq!(seen.value("user-agent").as_deref(), Some("test/1"));
    assert_eq!(seen.body, "hello");
}

#[test]
fn what_a_response_says_to_a_proxy_stays_here() {
    // PX-48, EX-30: an upstream's 407 would make a client send its proxy token there.
    use crate::upstream::{Answer, Rule};
    let stage = Stage::new();
    let answer = Answer::text(200, "ok").with("alt-svc", "h3=\":443\"").with("proxy-authenticate", "Basic realm=x");
    let answer = answer.with("clear-site-data", "\"*\"").with("proxy-status", "someone").with("x-kept", "yes");
    stage.upstream.script(Rule::always(answer).path("/fields"));
    let asks = Answer::text(407, "authenticate").with("proxy-authenticate", "Basic realm=x");
    stage.upstream.script(Rule::always(asks).path("/asks"));
    let answered = stage.get(ACME, "/fields");
    answered.assert_status(200);
    assert_eq!(answered.value("x-kept"), Some("yes"));
    for name in ["alt-svc", "proxy-authenticate", "clear-site-data", "proxy-status"] {
        assert_eq!(answered.value(name), None, "{name}");
    }
    assert_eq!(stage.get(ACME, "/asks").status, 502);
}
