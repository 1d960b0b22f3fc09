//! Whose credential, for how long, and from where: small cases of the catalogue.

use super::{ACME, CONFIG, OTHER, Stage, get};
use crate::harness::{Wire, until};

#[test]
fn an_agents_token_opens_nothing_of_the_operators() {
    // AU-10, RT-13
    let stage = Stage::new();
    for path in ["/v1/status", "/v1/config", "/v1/sessions", "/v1/reload"] {
        for method in ["GET", "POST"] {
            let mut wire = Wire::connect(&stage.home, stage.daemon.admin);
            let bearer = format!("Authorization: Bearer {}\r\n", stage.token);
            let asked = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}Content-Length: 0\r\n\r\n");
            let answered = wire.ask(&asked);
            assert!([403, 404, 405].contains(&answered.status), "{method} {path}: {answered:?}");
            assert!(!answered.text().contains("acme"), "{answered:?}");
        }
    }
    // Nor does the token of one home open another.
    let other = Stage::new();
    let mut wire = Wire::connect(&other.home, other.daemon.proxy);
    wire.send(crate::harness::connect_request(&format!("{ACME}:443"), "coder", &stage.token).as_bytes());
    wire.answer().assert_refused(407, "agent_unauthenticated");
}

#[test]
fn nothing_is_answered_from_memory() {
    // EX-28
    let stage = Stage::new();
    let answer = crate::upstream::Answer::text(200, "one").with("cache-control", "public, max-age=3600");
    stage.upstream.script(crate::upstream::Rule::always(answer).path("/cached"));
    for _ in 0..3 {
        stage.get(ACME, "/cached").assert_status(200);
    }
    assert_eq!(stage.upstream.seen_at(ACME).iter().filter(|seen| seen.path() == "/cached").count(), 3);
}

#[test]
fn a_deleted_credential_is_used_no_more_and_an_open_connection_notices() {
    // AU-09
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    wire.ask(&get(ACME, "/one")).assert_status(200);
    stage.home.command(&["secret", "delete", "acme:work", "--yes"]).assert_code(0);
    stage.upstream.forget();
    let refused = wire.ask(&get(ACME, "/two"));
    assert!([403, 502].contains(&refused.status), "{refused:?}");
    assert_eq!(stage.upstream.seen_at(ACME).len(), 0);
    // The other one is as it was.
    stage.get(OTHER, "/three").assert_status(200);
}

#[test]
fn an_upstream_that_cannot_be_verified_costs_no_decryption() {
    // FA-03
    let stage = Stage::new();
    stage.upstream.defect(ACME, crate::upstream::Defect::Closes);
    stage.get(ACME, "/never").assert_status(502);
    let (_, text) = stage.daemon.admin_get("/metrics");
    let line = text.lines().find(|line| line.starts_with("keyferry_vault_decryptions_total")).unwrap();
    assert!(line.ends_with(" 0"), "{line}");
    stage.upstream.mend(ACME);
    until("the upstream is well again", || (stage.get(ACME, "/well").status == 200).then_some(()));
}

#[test]
fn zones_and_names_that_are_none_are_refused() {
    // RT-20
    let stage = Stage::new();
    for target in ["[fe80::1%25eth0]:443", "[fe80::1%eth0]:443", "[::1]%00:443", "[::1%00]:443"] {
        let answered = stage.connect(target);
        assert_eq!(answered.status, 400, "{target}: {answered:?}");
    }
}

#[test]
fn a_resolver_of_the_web_is_a_host_like_any_other() {
    // RT-21: neither UDP nor a resolver over HTTPS goes through without a rule that names it.
    let stage = Stage::new();
    for target in ["cloudflare-dns.com:443", "dns.google:443", "1.1.1.1:443"] {
        stage.connect(target).assert_refused(403, "policy_denied");
    }
}

#[test]
fn debug_pages_of_an_upstream_are_searched_like_any_other() {
    // EX-10
    let stage = Stage::new();
    let page = format!("{{\"env\": {{\"KEY\": \"{}\"}}}}", stage.acme.as_str());
    for path in ["/debug/vars", "/actuator/env", "/.well-known/x"] {
        let answer = crate::upstream::Answer::text(200, page.clone());
        stage.upstream.script(crate::upstream::Rule::always(answer).path(path));
        let answered = stage.get(ACME, path);
        answered.assert_status(200);
        assert!(!answered.text().contains(stage.acme.as_str()));
    }
    let mut wire = stage.open(ACME);
    wire.ask(&format!("OPTIONS /x HTTP/1.1\r\nHost: {ACME}\r\nMax-Forwards: 0\r\n\r\n"));
}

#[test]
fn an_agent_cannot_lower_its_guard() {
    // EX-44, EX-15: fields that ask for less, and files where another user would look.
    let stage = Stage::with(CONFIG, |_, home| {
        let dir = home.user_dir().join(".config/keyferry");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("keyferry.yaml"), "scrub: off\ndefault: tunnel\n").unwrap();
    });
    let more = "X-Keyferry-Scrub: off\r\nX-Keyferry-Profile: other:work\r\nX-Keyferry-Header: X-Debug\r\n";
    let answered = stage.open(ACME).ask(&format!("GET /echo/fields HTTP/1.1\r\nHost: {ACME}\r\n{more}\r\n"));
    answered.assert_status(200);
    assert!(!answered.text().contains(stage.acme.as_str()));
    stage.connect("nowhere.example:443").assert_refused(403, "policy_denied");
}

#[test]
fn extensions_of_chunks_without_end_do_not_fill_memory() {
    // PX-15
    let stage = Stage::new();
    let mut wire = stage.open(ACME);
    let head = format!("POST /never HTTP/1.1\r\nHost: {ACME}\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send(head.as_bytes());
    let extended = format!("1;{}\r\nx\r\n", "e".repeat(4096));
    for _ in 0..2000 {
        if wire.try_send(extended.as_bytes()).is_err() {
            break;
        }
    }
    if let Some(answered) = wire.rest_or_answer() {
        assert!(answered.status >= 400, "{answered:?}");
    }
    assert!(stage.upstream.seen_at(ACME).is_empty());
    stage.get(ACME, "/fine").assert_status(200);
}

#[test]
fn fields_that_speak_of_another_method_or_target_stay_behind() {
    // RT-18
    let config =
        format!("{CONFIG}agents: {{coder: {{allow: [{{provider: acme, methods: [GET], paths: [\"/echo/**\"]}}]}}}}\n");
    let stage = Stage::with(&config, |_, _| {});
    let more = "X-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n\
                X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-Forwarded-Host: other.example\r\n";
    stage.open(ACME).ask(&format!("GET /echo/x HTTP/1.1\r\nHost: {ACME}\r\n{more}\r\n")).assert_status(200);
    let seen = stage.upstream.only(ACME);
    for (name, _) in &seen.fields {
        assert!(!name.contains("override") && !name.contains("original") && !name.contains("rewrite"), "{seen:?}");
        assert!(name != "x-http-method" && name != "x-forwarded-host", "{seen:?}");
    }
}

#[test]
fn each_agent_gets_its_own_credential_over_shared_connections() {
    // RT-22
    let (mine, theirs) = (crate::harness::Canary::plain(), crate::harness::Canary::plain());
    let stage = Stage::with(CONFIG, |upstream, home| {
        home.agent("ada");
        home.stock(upstream, "acme:own", &mine, &["--scope", "agent:coder"]);
        home.stock(upstream, "acme:own", &theirs, &["--scope", "agent:ada"]);
        home.command(&["secret", "list"]).assert_code(0);
    });
    let ada = stage.home.agent("ada");
    stage.home.command(&["secret", "delete", "acme:work", "--yes"]).assert_code(0);
    std::thread::scope(|scope| {
        for (agent, token, other) in [("coder", &stage.token, &theirs), ("ada", &ada, &mine)] {
            for thread in 0..4 {
                let stage = &stage;
                scope.spawn(move || {
                    let wire = Wire::tunnel(&stage.home, stage.daemon.proxy, agent, token, &format!("{ACME}:443"));
                    let mut wire = wire.tls(&stage.ca(), ACME, crate::harness::HTTP1).unwrap();
                    for n in 0..25 {
                        let path = format!("/of/{agent}/{thread}/{n}");
                        let answered = wire.ask(&get(ACME, &path));
                        answered.assert_status(200);
                        assert!(answered.text().contains(&path), "another's answer: {}", answered.text());
                        assert!(!answered.text().contains(other.as_str()));
                    }
                });
            }
        }
    });
    let seen = stage.upstream.seen_at(ACME);
    assert_eq!(seen.len(), 200);
    for seen in seen {
        let own = if seen.path().starts_with("/of/coder/") { &mine } else { &theirs };
        assert_eq!(seen.occurrences(own.as_str()), 1, "{}", seen.path());
    }
}
