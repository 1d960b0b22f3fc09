//! Where a credential goes: the catalogue's providers, and every form that a user's own provider can have.

use super::{ACME, Stage, get};
use crate::harness::Canary;
use crate::upstream::Seen;

/// A stage for one provider of the user's own, with this `inject` and this secret.
fn own(inject: &str, secret: &Canary) -> Stage {
    let config =
        format!("providers:\n  mine:\n    hosts: [{ACME}]\n    inject: {inject}\n    env: MINE_KEY\ndefault: deny\n");
    let secret = secret.clone();
    Stage::with(&config, move |upstream, home| home.stock(upstream, "mine:work", &secret, &[]))
}

fn ask(stage: &Stage, path: &str) -> Seen {
    stage.get(ACME, path).assert_status(200);
    stage.upstream.only(ACME)
}

#[test]
fn a_field_with_a_template() {
    let secret = Canary::plain();
    let seen = ask(&own("{header: X-Auth, value: \"Token token={secret}\"}", &secret), "/");
    assert_eq!(seen.value("x-auth"), Some(format!("Token token={}", secret.as_str())));
    assert!(seen.values("authorization").is_empty());
}

#[test]
fn a_query_parameter() {
    let secret = Canary::plain();
    let stage = own("{query: api_key, value: \"{secret}\"}", &secret);
    let seen = ask(&stage, "/search?q=a%20b&api_key=mine&x=1");
    assert_eq!(seen.query("api_key").as_deref(), Some(secret.as_str()));
    assert_eq!(seen.query("q").as_deref(), Some("a b"));
    assert_eq!(seen.query("x").as_deref(), Some("1"));
    assert_eq!(seen.target.matches("api_key=").count(), 1);
    let mut stage = stage;
    stage.stop();
    assert!(!stage.home.file("logs/access.jsonl").contains("api_key"), "the path has no query");
}

#[test]
fn a_path_segment() {
    let secret = Canary::telegram();
    let stage = own("{path: \"/bot{secret}\"}", &secret);
    let answered = stage.get(ACME, "/botPLACEHOLDER/getMe");
    answered.assert_status(200);
    let seen = stage.upstream.only(ACME);
    assert_eq!(seen.occurrences(secret.as_str()), 1, "{seen:#?}");
    assert!(seen.path().ends_with("/getMe") && seen.path().starts_with("/bot"), "{}", seen.path());
}

#[test]
fn basic_authentication() {
    let secret = Canary::plain();
    let seen = ask(&own("{basic: {user: api, password: \"{secret}\"}}", &secret), "/");
    assert_eq!(seen.basic(), Some(("api".to_owned(), secret.as_str().to_owned())));
}

#[test]
fn basic_authentication_with_the_secret_as_user() {
    let secret = Canary::plain();
    let seen = ask(&own("{basic: {user: \"{secret}\", password: \"\"}}", &secret), "/");
    assert_eq!(seen.basic(), Some((secret.as_str().to_owned(), String::new())));
}

#[test]
fn a_cookie() {
    let secret = Canary::plain();
    let seen = ask(&own("{cookie: session, value: \"{secret}\"}", &secret), "/");
    assert_eq!(seen.value("cookie"), Some(format!("session={}", secret.as_str())));
}

#[test]
fn several_places_at_once() {
    let secret = Canary::plain();
    let inject = "[{header: X-Key, value: \"{secret}\"}, {header: X-Client, value: keyferry}]";
    let seen = ask(&own(inject, &secret), "/");
    assert_eq!(seen.value("x-key").as_deref(), Some(secret.as_str()));
    assert_eq!(seen.value("x-client").as_deref(), Some("keyferry"));
}

#[test]
fn a_secret_with_awkward_characters_arrives_whole() {
    let secret = Canary::awkward();
    let seen = ask(&own("{query: k, value: \"{secret}\"}", &secret), "/");
    assert_eq!(seen.query("k").as_deref(), Some(secret.as_str()));
    let secret = Canary::awkward();
    let seen = ask(&own("{header: X-Key, value: \"{secret}\"}", &secret), "/");
    assert_eq!(seen.value("x-key").as_deref(), Some(secret.as_str()));
}

#[test]
fn a_port_of_its_own() {
    let config = "providers:\n  mine:\n    hosts: [\"api.acme.example:8443\"]\n    \
                  inject: {header: X-Key, value: \"{secret}\"}\n    env: MINE_KEY\ndefault: deny\n";
    let secret = Canary::plain();
    let stored = secret.clone();
    let stage = Stage::with(config, move |upstream, home| home.stock(upstream, "mine:work", &stored, &[]));
    let wire = stage.tunnel("api.acme.example:8443");
    let mut wire = wire.tls(&stage.ca(), ACME, crate::harness::HTTP1).unwrap();
    wire.ask(&get("api.acme.example:8443", "/")).assert_status(200);
    assert_eq!(stage.upstream.only(ACME).value("x-key").as_deref(), Some(secret.as_str()));
    // The binding includes the port: the same host's other port gets nothing.
    stage.connect("api.acme.example:443").assert_status(403);
}
