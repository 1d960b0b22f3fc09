//! `secret`: how values come in, and that they never come out.

use crate::harness::{Canary, Home};

/// A home with one stored secret.
fn stocked() -> (Home, Canary) {
    let (home, canary) = (Home::empty(), Canary::anthropic());
    home.set("anthropic:work", &canary, &[]);
    (home, canary)
}

#[test]
fn the_first_secret_makes_the_home() {
    use std::os::unix::fs::PermissionsExt;
    let (home, _) = stocked();
    for (name, mode) in [
        ("vault.db", 0o600),
        ("master.key", 0o600),
        ("ca/ca.pem", 0o644),
        ("ca/ca.key", 0o600),
        ("ca/bundle.pem", 0o644),
    ] {
        let metadata = std::fs::metadata(home.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
    assert_eq!(std::fs::metadata(home.path().join("master.key")).unwrap().len(), 32);
}

#[test]
fn list_and_show_are_masked_and_have_their_shape() {
    let (home, canary) = stocked();
    let listed = home.command(&["secret", "list", "--json"]);
    listed.assert_code(0);
    let list = listed.json();
    let one = &list.as_array().unwrap()[0];
    let shown = home.command(&["secret", "show", "anthropic:work", "--json"]).json();
    assert_eq!(*one, shown);
    for field in [
        "name",
        "provider",
        "type",
        "scope",
        "env",
        "install",
        "description",
        "label",
        "masked",
        "version",
        "hosts",
        "created",
        "updated",
    ] {
        assert!(one.get(field).is_some(), "no {field} in {one}");
    }
    assert_eq!(one["name"], "anthropic:work");
    assert_eq!(one["provider"], "anthropic");
    assert_eq!(one["type"], "api-key");
    assert_eq!(one["scope"], "shared");
    assert_eq!(one["env"], "ANTHROPIC_API_KEY");
    assert_eq!(one["install"], true);
    assert_eq!(one["version"], 1);
    assert_eq!(one["hosts"], serde_json::json!(["api.anthropic.com"]));
    let masked = one["masked"].as_str().unwrap();
    assert!(masked.len() < 30 && !canary.as_str().contains(masked), "{masked}");
    let table = home.command(&["secret", "list"]);
    table.assert_code(0);
    assert!(table.stdout().contains("anthropic:work"));
    assert!(!table.stdout().contains('\u{1b}'), "no colour off a terminal");
}

#[test]
fn setting_again_makes_a_new_version() {
    let (home, _) = stocked();
    home.set("anthropic:work", &Canary::anthropic(), &[]);
    let shown = home.command(&["secret", "show", "anthropic:work", "--json"]).json();
    assert_eq!(shown["version"], 2);
}

#[test]
fn delete_wants_a_yes() {
    let (home, _) = stocked();
    let refused = home.command(&["secret", "delete", "anthropic:work", "--no-input"]);
    assert_ne!(refused.code(), 0);
    assert_eq!(home.command(&["secret", "list", "--json"]).json().as_array().unwrap().len(), 1);
    home.command(&["secret", "delete", "anthropic:work", "--yes"]).assert_code(0);
    assert_eq!(home.command(&["secret", "list", "--json"]).json(), serde_json::json!([]));
    let gone = home.command(&["secret", "show", "anthropic:work"]);
    gone.assert_code(1).assert_says(&["anthropic:work"]);
}

#[test]
fn a_value_in_an_argument_is_refused_and_not_repeated() {
    let home = Home::empty();
    let canary = Canary::openai();
    home.guard(&canary);
    for arguments in [
        &["secret", "set", "openai:work", canary.as_str()][..],
        &["secret", "set", "openai:work", "--value", canary.as_str()],
        &["secret", "set", canary.as_str()],
    ] {
        let finished = home.command(arguments);
        assert!(matches!(finished.code(), 1 | 2), "{finished:?}");
    }
    let listed = home.command(&["secret", "list", "--json"]);
    assert!(listed.code() != 0 || listed.json() == serde_json::json!([]));
}

#[test]
fn values_come_from_a_pipe_a_file_a_variable_or_a_dash() {
    let home = Home::empty();
    let upstream = crate::upstream::TestUpstream::start();
    let config =
        "providers:\n  acme: {hosts: [api.acme.example], inject: {header: X-Key, value: \"{secret}\"}, env: A}\n";
    std::fs::copy(upstream.root_file(), home.path().join("provider-root.pem")).unwrap();
    let section = home.upstream_section(&upstream, "");
    let order = "pools: {acme: {order: [pipe, dash, file, variable]}}\n";
    home.write_config(&format!("{}{section}{config}{order}default: deny\n", crate::harness::LISTEN));
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("value");
    let canaries: Vec<Canary> = (0..4).map(|_| Canary::plain()).collect();
    for canary in &canaries {
        home.guard(canary);
        upstream.knows(canary.as_str());
    }
    let input = |canary: &Canary| format!("{}\n", canary.as_str());
    home.finish(home.keyferry(&["secret", "set", "acme:pipe"]), input(&canaries[0]).as_bytes()).assert_code(0);
    home.finish(home.keyferry(&["secret", "set", "acme:dash", "-"]), input(&canaries[1]).as_bytes()).assert_code(0);
    std::fs::write(&file, input(&canaries[2])).unwrap();
    home.command(&["secret", "set", "acme:file", "--from-file", file.to_str().unwrap()]).assert_code(0);
    let mut command = home.keyferry(&["secret", "set", "acme:variable", "--from-env", "SOME_KEY"]);
    command.env("SOME_KEY", canaries[3].as_str());
    home.finish(command, b"").assert_code(0);
    let token = home.agent("coder");
    let daemon = home.serve();
    // Each in turn is the only one left, and arrives without the newline.
    for (name, canary) in [("pipe", 0), ("dash", 1), ("file", 2), ("variable", 3)] {
        upstream.forget();
        let ask = || {
            let target = "api.acme.example:443";
            let wire = crate::harness::Wire::tunnel(&home, daemon.proxy, "coder", &token, target);
            let mut wire = wire.tls(&home.path().join("ca/ca.pem"), "api.acme.example", crate::harness::HTTP1).unwrap();
            wire.ask("GET / HTTP/1.1\r\nHost: api.acme.example\r\n\r\n").status
        };
        crate::harness::until("the profile", || {
            upstream.forget();
            assert_eq!(ask(), 200);
            (upstream.only("api.acme.example").value("x-key").as_deref() == Some(canaries[canary].as_str()))
                .then_some(())
        });
        home.command(&["secret", "delete", &format!("acme:{name}"), "--yes"]).assert_code(0);
    }
}

#[test]
fn impossible_values_are_refused() {
    let home = Home::empty();
    for (input, words) in [
        (&b""[..], &["empty"][..]),
        (b"\n", &["empty"]),
        (b"first-line-of-it\nsecond-line-of-it\n", &["line"]),
        (b"carriage\rreturn-inside\n", &["line"]),
        (b"a-zero-\0-inside-it\n", &[]),
    ] {
        let finished = home.finish(home.keyferry(&["secret", "set", "openai:work"]), input);
        assert!(matches!(finished.code(), 1 | 2), "{input:?}: {finished:?}");
        finished.assert_says(words);
        assert!(!finished.stderr().contains("second-line-of-it"));
    }
}

#[test]
fn a_short_value_is_stored_with_a_warning() {
    let home = Home::empty();
    let finished = home.finish(home.keyferry(&["secret", "set", "openai:work", "--force"]), b"1234567\n");
    finished.assert_code(0).assert_says(&["short"]);
}

#[test]
fn an_unknown_provider_has_a_suggestion() {
    let home = Home::empty();
    let canary = Canary::anthropic();
    home.guard(&canary);
    let finished = home.finish(home.keyferry(&["secret", "set", "antropic:work"]), canary.as_str().as_bytes());
    assert!(matches!(finished.code(), 1 | 2), "{finished:?}");
    finished.assert_says(&["antropic", "anthropic"]);
}

#[test]
fn a_name_without_a_provider_is_matched_by_its_variable_or_its_shape() {
    let home = Home::empty();
    for (name, canary, provider) in [
        ("OPENAI_API_KEY", Canary::openai(), Some("openai")),
        ("my-claude-key", Canary::anthropic(), Some("anthropic")),
        ("mystery", Canary::plain(), None),
    ] {
        let finished = home.set(name, &canary, &[]);
        let shown = home.command(&["secret", "show", name, "--json"]).json();
        assert_eq!(shown["provider"].as_str(), provider, "{name}: {shown}");
        if provider.is_none() {
            assert_eq!(shown["install"], false);
            assert!(!finished.stderr().is_empty(), "that it is not installed is said");
        }
    }
}

#[test]
fn a_setup_token_is_a_kind_of_its_own() {
    let home = Home::empty();
    home.set("anthropic:subscription", &Canary::setup_token(), &[]);
    let shown = home.command(&["secret", "show", "anthropic:subscription", "--json"]).json();
    assert_eq!(shown["type"], "setup-token");
    assert_eq!(shown["provider"], "anthropic");
}

#[test]
fn facts_beside_the_value_are_kept() {
    let home = Home::empty();
    let more = [
        "--description",
        "the team's key",
        "--label",
        "team",
        "--scope",
        "agent:coder",
        "--env",
        "TEAM_KEY",
        "--no-install",
    ];
    home.set("openai:team", &Canary::openai(), &more);
    let shown = home.command(&["secret", "show", "openai:team", "--json"]).json();
    assert_eq!(shown["description"], "the team's key");
    assert_eq!(shown["label"], "team");
    assert_eq!(shown["scope"], "agent:coder");
    assert_eq!(shown["env"], "TEAM_KEY");
    assert_eq!(shown["install"], false);
}

#[test]
fn without_a_terminal_and_without_input_nothing_waits() {
    let home = Home::empty();
    let finished = home.command(&["secret", "set", "openai:work", "--no-input"]);
    assert!(matches!(finished.code(), 1 | 2), "{finished:?}");
    assert!(!finished.stderr().is_empty());
}

#[test]
fn a_changed_vault_is_refused() {
    // VA-01: a flipped bit inside a stored column.
    let (home, canary) = stocked();
    let path = home.path().join("vault.db");
    let whole = std::fs::read(&path).unwrap();
    let at = memchr::memmem::find(&whole, b"VLT1").expect("a record in the database");
    let mut changed = whole.clone();
    changed[at + 100] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    for name in ["vault.db-wal", "vault.db-shm"] {
        let _ = std::fs::remove_file(home.path().join(name));
    }
    let mut command = home.keyferry(&["run", "--quiet", "--", "sh", "-c", "echo started"]);
    command.env("ANTHROPIC_API_KEY", "unset-by-run");
    let finished = home.finish(command, b"");
    assert!(!finished.stdout().contains(canary.as_str()));
}
