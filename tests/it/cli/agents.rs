//! `agent`: tokens are shown once, and live until they are revoked.

use crate::harness::Home;

#[test]
fn create_shows_the_token_once() {
    let home = Home::empty();
    let created = home.command(&["agent", "create", "coder", "--json"]);
    created.assert_code(0);
    let json = created.json();
    assert_eq!(json["agent"], "coder");
    let token = json["token"].as_str().unwrap();
    // Usable in a proxy URL without escapes.
    assert!(token.len() >= 40 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)), "{token}");
    let listed = home.command(&["agent", "list", "--json"]);
    let list = listed.json();
    let one = &list.as_array().unwrap()[0];
    for field in ["agent", "created", "last_seen", "revoked"] {
        assert!(one.get(field).is_some(), "no {field} in {one}");
    }
    assert_eq!(one["agent"], "coder");
    assert!(!listed.stdout().contains(token));
    let search = crate::harness::Search::new([&crate::harness::Canary::of(token)]);
    assert_eq!(search.directory(&home.path()), [], "the token is stored hashed");
}

#[test]
fn names_fit_into_a_proxy_url() {
    let home = Home::empty();
    for name in ["", "a b", "a:b", "a/b", "ä", "a@b", "a%20b", "-x", &"x".repeat(300)] {
        let finished = home.command(&["agent", "create", "--", name]);
        assert!(matches!(finished.code(), 1 | 2), "{name:?}: {finished:?}");
    }
}

#[test]
fn revoking_is_final_and_said() {
    let home = Home::empty();
    home.agent("coder");
    home.command(&["agent", "revoke", "coder", "--yes"]).assert_code(0);
    let list = home.command(&["agent", "list", "--json"]).json();
    let one = list.as_array().unwrap().iter().find(|one| one["agent"] == "coder");
    assert!(one.is_none_or(|one| one["revoked"] != false && !one["revoked"].is_null()), "{list}");
    let unknown = home.command(&["agent", "revoke", "nobody", "--yes"]);
    unknown.assert_code(1).assert_says(&["nobody"]);
}
