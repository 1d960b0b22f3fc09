//! Help, versions, exit codes, and what is not built yet.

use crate::harness::Home;

/// Commands of the contract, each with arguments that are right.
const COMMANDS: &[&str] = &[
    "demo",
    "run",
    "serve",
    "init",
    "setup",
    "secret",
    "profile",
    "agent",
    "admin",
    "env",
    "status",
    "doctor",
    "logs",
    "top",
    "why",
    "config",
    "reload",
    "ca",
    "vault",
    "audit",
    "redact",
    "scan",
    "dashboard",
    "login",
    "provider",
    "verify",
    "completion",
    "man",
    "explain",
    "version",
];

#[test]
fn help_leads_with_examples_and_names_every_command() {
    let home = Home::empty();
    let finished = home.command(&["--help"]);
    finished.assert_code(0);
    let text = finished.stdout();
    let example = text.find("keyferry run -- claude").expect("the first example");
    let commands = text.find("Commands:").or_else(|| text.find("COMMANDS")).expect("the commands");
    assert!(example < commands, "examples come first: {text}");
    for command in ["run", "serve", "secret", "agent", "status", "config"] {
        assert!(text.contains(command), "{command}");
    }
}

#[test]
fn every_command_of_the_contract_is_known() {
    let home = Home::empty();
    for command in COMMANDS {
        let finished = home.command(&[command, "--help"]);
        assert_eq!(finished.code(), 0, "{command}: {finished:?}");
    }
}

#[test]
fn usage_faults_end_with_2() {
    let home = Home::empty();
    for arguments in
        [&[][..], &["frobnicate"], &["secret"], &["secret", "set"], &["run"], &["agent", "create"], &["why"]]
    {
        let finished = home.command(arguments);
        assert_eq!(finished.code(), 2, "{arguments:?}: {finished:?}");
        assert!(finished.stdout().is_empty(), "messages go to stderr: {finished:?}");
        assert!(!finished.stderr().is_empty());
    }
}

#[test]
fn what_is_not_built_says_so() {
    let home = Home::empty();
    home.command(&["secret", "list"]);
    for arguments in [&["top"][..], &["dashboard"], &["login", "anthropic"], &["vault", "migrate"], &["verify"]] {
        let finished = home.command(arguments);
        if finished.code() != 0 {
            assert!(
                finished.stderr().contains("not available yet") || finished.code() == 3,
                "{arguments:?}: {finished:?}"
            );
        }
    }
}

#[test]
fn version_is_the_crates() {
    let home = Home::empty();
    for arguments in [&["version"][..], &["--version"]] {
        let finished = home.command(arguments);
        finished.assert_code(0);
        assert!(finished.stdout().contains(env!("CARGO_PKG_VERSION")), "{finished:?}");
    }
}

#[test]
fn completion_scripts_are_made() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish"] {
        let finished = home.command(&["completion", shell]);
        finished.assert_code(0);
        assert!(finished.stdout().contains("keyferry"));
    }
}

#[test]
fn codes_are_explained() {
    let home = Home::empty();
    let finished = home.command(&["explain", "policy_denied"]);
    finished.assert_code(0);
    assert!(finished.stdout().len() > 40);
    home.command(&["explain", "no_such_code"]).assert_code(1);
}

#[test]
fn without_a_daemon_the_answer_is_3() {
    let home = Home::empty();
    home.agent("coder");
    for arguments in [&["status"][..], &["reload"], &["env", "--agent", "coder"]] {
        let finished = home.command(arguments);
        assert_eq!(finished.code(), 3, "{arguments:?}: {finished:?}");
        assert!(finished.stderr().contains("keyferry serve"), "a hint: {}", finished.stderr());
    }
    let json = home.command(&["status", "--json"]);
    json.assert_code(3);
    assert_eq!(json.json()["running"], false);
}

#[test]
fn status_shows_the_daemon() {
    let upstream = crate::upstream::TestUpstream::start();
    let home = Home::new(&upstream);
    home.set("anthropic:work", &crate::harness::Canary::anthropic(), &[]);
    home.agent("coder");
    let daemon = home.serve();
    let status = home.command(&["status", "--json"]).json();
    for field in ["running", "pid", "version", "listeners", "profiles", "agents", "vault", "ca", "reload"] {
        assert!(status.get(field).is_some(), "no {field} in {status}");
    }
    assert_eq!(status["running"], true);
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let text = home.command(&["status"]);
    text.assert_code(0);
    assert!(text.stdout().contains("anthropic:work"), "{}", text.stdout());
    assert!(text.stdout().contains(&daemon.proxy.to_string()), "{}", text.stdout());
    // `upstream.resolve` and `extra_roots` stand in the status.
    assert!(status.to_string().contains("provider-root.pem"), "{status}");
}

#[test]
fn profiles_have_their_shape() {
    let upstream = crate::upstream::TestUpstream::start();
    let home = Home::new(&upstream);
    home.set("anthropic:work", &crate::harness::Canary::anthropic(), &[]);
    let _daemon = home.serve();
    let list = home.command(&["profile", "list", "--json"]).json();
    let one = &list.as_array().unwrap()[0];
    for field in ["profile", "provider", "type", "state", "until", "reason", "level", "last_used", "holds"] {
        assert!(one.get(field).is_some(), "no {field} in {one}");
    }
    assert_eq!(one["profile"], "anthropic:work");
    assert_eq!(one["state"], "ready");
    assert_eq!(one["holds"], serde_json::json!([]));
}

#[test]
fn why_names_the_rule_the_profile_and_the_place() {
    let upstream = crate::upstream::TestUpstream::start();
    let home = Home::with(&upstream, "agents:\n  coder:\n    allow: [anthropic]\ndefault: deny\n");
    home.set("anthropic:work", &crate::harness::Canary::anthropic(), &[]);
    home.agent("coder");
    let _daemon = home.serve();
    let why = |url: &str| {
        let finished = home.command(&["why", "coder", "POST", url, "--json"]);
        if finished.stderr().contains("not available yet") { None } else { Some(finished.json()) }
    };
    let Some(allowed) = why("https://api.anthropic.com/v1/messages") else { return };
    for field in ["decision", "rule", "profile", "inject", "reason"] {
        assert!(allowed.get(field).is_some(), "no {field} in {allowed}");
    }
    assert_eq!(allowed["profile"], "anthropic:work");
    let denied = why("https://nowhere.example/").unwrap();
    assert_eq!(denied["profile"], serde_json::Value::Null, "{denied}");
}
