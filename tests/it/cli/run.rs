//! `run`: the child gets its environment, its streams and its end, and nothing else of ours.

use crate::harness::{Canary, Finished, Home, Tool, need};
use crate::upstream::TestUpstream;

/// `run -- CMD..` in a home without anything.
fn run(home: &Home, arguments: &[&str], input: &[u8]) -> Finished {
    home.finish(home.keyferry(&[&["run"], arguments].concat()), input)
}

#[test]
fn the_childs_end_is_ours() {
    let home = Home::empty();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)] {
        let finished = run(&home, &["--quiet", "--", "sh", "-c", script], b"");
        assert_eq!(finished.code(), code, "{script}: {finished:?}");
    }
    assert_eq!(run(&home, &["--", "/no/such/command"], b"").code(), 127);
    let file = home.work_dir().join("not-executable");
    std::fs::write(&file, "text").unwrap();
    assert_eq!(run(&home, &["--", file.to_str().unwrap()], b"").code(), 126);
}

#[test]
fn streams_pass_through_and_messages_go_to_stderr() {
    let home = Home::empty();
    let finished = run(&home, &["--", "sh", "-c", "cat; echo to-stderr >&2"], b"from-stdin");
    finished.assert_code(0);
    assert_eq!(finished.stdout(), "from-stdin");
    assert!(finished.stderr().contains("to-stderr"));
    assert!(finished.stderr().lines().count() >= 2, "a line at the start and a summary: {}", finished.stderr());
    for quiet in ["-q", "--quiet"] {
        let finished = run(&home, &[quiet, "--", "sh", "-c", "echo to-stderr >&2"], b"");
        assert_eq!(finished.stderr(), "to-stderr\n");
    }
}

#[test]
fn signals_reach_the_child() {
    use rustix::process::Signal;
    let home = Home::empty();
    let script = "trap 'echo got-it; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let (mut child, stdout, _) = crate::harness::spawn(home.keyferry(&["run", "--quiet", "--", "sh", "-c", script]));
    stdout.line_with("ready");
    crate::harness::signal(&child, Signal::TERM);
    let status = crate::harness::wait(&mut child, crate::harness::PATIENCE).expect("an end");
    assert_eq!(status.code(), Some(5));
    stdout.line_with("got-it");
}

#[test]
fn known_variables_of_the_caller_become_placeholders() {
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let (anthropic, openai, github) = (Canary::anthropic(), Canary::openai(), Canary::github());
    let mut command = home.keyferry(&["run", "--", "sh", "-c", "env; cat /proc/self/environ"]);
    for (name, canary) in [("ANTHROPIC_API_KEY", &anthropic), ("OPENAI_API_KEY", &openai), ("GITHUB_TOKEN", &github)] {
        home.guard(canary);
        command.env(name, canary.as_str());
    }
    command.env("KEPT", "kept-value");
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    let text = finished.stdout();
    for name in ["ANTHROPIC_API_KEY=", "OPENAI_API_KEY=", "GITHUB_TOKEN="] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert!(line.contains("keyferry"), "{line}");
    }
    assert!(text.contains("KEPT=kept-value"));
    assert!(text.contains("KEYFERRY_ACTIVE=1"));
    assert!(!home.path().join("vault.db").exists(), "nothing is written for values of the environment");
}

#[test]
fn a_variable_of_the_caller_is_carried_to_its_provider() {
    let Some(curl) = need("run", Tool::Curl) else { return };
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let key = Canary::anthropic();
    upstream.knows(key.as_str());
    home.guard(&key);
    let mut command = home.keyferry(&["run", "--"]);
    command.arg(curl).args(["-sS", "https://api.anthropic.com/v1/models"]).env("ANTHROPIC_API_KEY", key.as_str());
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    assert!(finished.stdout().contains("claude-test"), "{}", finished.stdout());
    upstream.assert_carried("api.anthropic.com", key.as_str());
}

#[test]
fn stored_profiles_come_before_the_environment() {
    let Some(curl) = need("run", Tool::Curl) else { return };
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let (stored, own) = (Canary::anthropic(), Canary::anthropic());
    home.stock(&upstream, "anthropic:work", &stored, &[]);
    upstream.knows(own.as_str());
    home.guard(&own);
    let ask = || {
        upstream.forget();
        let mut command = home.keyferry(&["run", "--quiet", "--"]);
        command.arg(&curl).args(["-sS", "https://api.anthropic.com/v1/models"]).env("ANTHROPIC_API_KEY", own.as_str());
        home.finish(command, b"").assert_code(0);
        upstream.seen_at("api.anthropic.com")
    };
    let seen = ask();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].occurrences(stored.as_str()), 1);
    // The environment is the last resort, within the same request.
    let limited = crate::upstream::Answer::anthropic_rate_limited().with("retry-after", "60");
    upstream.script(crate::upstream::Rule::always(limited).secret(stored.as_str()));
    let seen = ask();
    assert_eq!(seen.len(), 2, "{seen:#?}");
    assert_eq!(seen[1].occurrences(own.as_str()), 1);
}

#[test]
fn a_host_without_a_credential_is_tunnelled() {
    let Some(curl) = need("run", Tool::Curl) else { return };
    let upstream = TestUpstream::start();
    let home = Home::with(&upstream, "");
    home.stock(&upstream, "anthropic:work", &Canary::anthropic(), &[]);
    let mut command = home.keyferry(&["run", "--quiet", "--"]);
    // The provider's own certificate arrives, so curl is told to trust its root.
    command.arg(curl).args(["-sS", "--cacert"]).arg(upstream.root_file());
    command.args(["-H", "Authorization: Bearer mine", "https://api.openai.com/echo/fields"]);
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    assert!(finished.stdout().contains("Bearer mine"), "{}", finished.stdout());
}

#[test]
fn a_living_daemon_is_used() {
    let Some(curl) = need("run", Tool::Curl) else { return };
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let key = Canary::anthropic();
    home.stock(&upstream, "anthropic:work", &key, &[]);
    let daemon = home.serve();
    let mut command = home.keyferry(&["run", "--", "sh", "-c"]);
    command.arg(format!("echo $HTTPS_PROXY; {} -sS https://api.anthropic.com/v1/models", curl.display()));
    let finished = home.finish(command, b"");
    finished.assert_code(0);
    assert!(finished.stdout().contains(&daemon.proxy.to_string()), "{}", finished.stdout());
    assert!(finished.stdout().contains("claude-test"));
    upstream.assert_carried("api.anthropic.com", key.as_str());
    let mut command = home.keyferry(&["run", "--no-daemon", "--", "sh", "-c", "echo $HTTPS_PROXY"]);
    command.env("LANG", "C");
    let alone = home.finish(command, b"");
    assert!(!alone.stdout().contains(&daemon.proxy.to_string()), "{}", alone.stdout());
}

#[test]
fn a_faulty_configuration_stops_it_before_the_child() {
    let home = Home::empty();
    home.write_config("unknown_key: 1\n");
    let finished = run(&home, &["--", "sh", "-c", "echo started"], b"");
    assert!(matches!(finished.code(), 78 | 125), "{finished:?}");
    assert!(!finished.stdout().contains("started"));
    assert!(finished.stderr().contains("keyferry.yaml:1:"), "{}", finished.stderr());
}

#[test]
fn the_child_cannot_reach_the_home() {
    // Where namespaces are to be had; where not, `run` says that the guard is not enforced.
    let home = Home::empty();
    home.set("openai:work", &Canary::openai(), &[]);
    let script = format!("cat {0}/master.key {0}/vault.db {0}/ca/ca.key; echo done", home.path().display());
    let finished = run(&home, &["--", "sh", "-c", &script], b"");
    let key = std::fs::read(home.path().join("master.key")).unwrap();
    let leaked = memchr::memmem::find(&finished.stdout_bytes, &key).is_some();
    assert!(!leaked || finished.stderr().contains("not enforced"), "{}", finished.stderr());
    assert!(finished.stdout().ends_with("done\n"));
}
