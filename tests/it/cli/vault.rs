//! `vault` and `audit`: looking, new keys, copies, and what was changed behind Keyferry's back.

use std::path::PathBuf;

use rusqlite::Connection;

use crate::harness::{Canary, Home};

fn stocked() -> (Home, Canary) {
    let (home, canary) = (Home::empty(), Canary::anthropic());
    home.set("anthropic:work", &canary, &[]);
    home.agent("coder");
    (home, canary)
}

fn database(home: &Home) -> Connection {
    Connection::open(home.path().join("vault.db")).unwrap()
}

fn outside(home: &Home, name: &str) -> String {
    home.work_dir().join(name).to_str().unwrap().to_owned()
}

#[test]
fn status_and_verify_say_what_is_there() {
    let (home, _) = stocked();
    let status = home.command(&["vault", "status", "--json"]).json();
    assert_eq!(status["exists"], true);
    assert_eq!(status["credentials"], 1);
    assert_eq!(status["agents"], 1);
    assert_eq!(status["vault_key"], 1);
    assert_eq!(status["change"], status["noted_change"]);
    assert_eq!(status["rekey_unfinished"], false);
    let verified = home.command(&["vault", "verify", "--json"]).json();
    assert_eq!(verified, serde_json::json!({"ok": true, "records": 1, "faults": []}));
    home.command(&["vault", "status"]).assert_code(0);
    assert_eq!(Home::empty().command(&["vault", "status", "--json"]).json()["exists"], false);
    Home::empty().command(&["vault", "verify"]).assert_code(1).assert_says(&["there is no vault"]);
}

// VA-01, VA-04
#[test]
fn verify_finds_what_was_changed() {
    for (statement, words) in [
        ("UPDATE version SET sealed = zeroblob(612)", &["anthropic:work"][..]),
        ("UPDATE credential SET hosts = '[\"evil.test\"]'", &["anthropic:work", "integrity"]),
        ("UPDATE agent SET name = 'other'", &["agent"]),
        ("DELETE FROM token", &["tokens"]),
        ("DELETE FROM version", &["anthropic:work"]),
        (
            "INSERT INTO version SELECT zeroblob(16), version, term, created, sealed, preview, mac FROM version",
            &["versions"],
        ),
        ("UPDATE manifest SET epoch = epoch + 1", &["manifest"]),
        ("UPDATE keyring SET sealed = zeroblob(356)", &["keyring"]),
    ] {
        let (home, _) = stocked();
        database(&home).execute(statement, []).unwrap();
        let found = home.command(&["vault", "verify", "--json"]);
        found.assert_code(1).assert_says(words);
        assert_eq!(found.json()["ok"], false, "{statement}");
    }
}

// VA-18
#[test]
fn new_keys_beside_a_running_daemon() {
    let (home, _) = stocked();
    let key = std::fs::read(home.path().join("master.key")).unwrap();
    let daemon = home.serve();
    let rekeyed = home.command(&["vault", "rekey", "--json"]);
    rekeyed.assert_code(0);
    assert_eq!(rekeyed.json()["records"], 1);
    assert_eq!(rekeyed.json()["vault_key"], 2);
    assert_ne!(std::fs::read(home.path().join("master.key")).unwrap(), key);
    // The daemon takes the keys and goes on: it issues a session, which reads and writes the vault.
    home.command(&["env", "--agent", "coder", "--format", "json"]).assert_code(0);
    home.set("openai:work", &Canary::openai(), &[]);
    home.command(&["vault", "verify"]).assert_code(0);
    drop(daemon);
    home.command(&["vault", "rekey", "--to", "nonsense"]).assert_code(2);
    home.command(&["vault", "rekey", "--to", "command:exit 1"]).assert_code(4);
}

#[test]
fn the_master_key_moves_to_a_passphrase() {
    let (home, _) = stocked();
    let mut command = home.keyferry(&["vault", "rekey", "--to", "passphrase"]);
    command.env("KEYFERRY_NEW_PASSPHRASE", "correct horse battery");
    home.finish(command, b"").assert_code(0).assert_says(&["keyferry.yaml"]);
    home.command(&["vault", "verify"]).assert_code(0);
    home.write_config("vault: {master_key: passphrase}\n");
    let file = outside(&home, "passphrase");
    std::fs::write(&file, "correct horse battery\n").unwrap();
    home.command(&["vault", "verify", "--no-input"])
        .assert_code(4)
        .assert_says(&["passphrase", "KEYFERRY_PASSPHRASE_FILE"]);
    let with = |text: &str| {
        let mut command = home.keyferry(&["secret", "list", "--no-input"]);
        command.env("KEYFERRY_PASSPHRASE", text);
        home.finish(command, b"")
    };
    with("incorrect horse").assert_code(78);
    let mut command = home.keyferry(&["vault", "verify", "--no-input"]);
    command.env("KEYFERRY_PASSPHRASE_FILE", &file);
    home.finish(command, b"").assert_code(0);
    // The one before opens nothing from here on.
    home.write_config("");
    home.command(&["vault", "verify"]).assert_code(78);
}

#[test]
fn a_copy_is_sealed_and_comes_back() {
    let (home, _) = stocked();
    let copy = outside(&home, "copy");
    let made = home.command(&["vault", "backup", &copy, "--json"]);
    made.assert_code(0);
    assert_eq!(made.json()["credentials"], 1);
    home.command(&["vault", "backup", &copy, "--no-input"]).assert_code(2);
    home.command(&["vault", "backup", &copy, "--yes"]).assert_code(0);
    home.set("anthropic:later", &Canary::anthropic(), &[]);
    home.command(&["vault", "restore", &copy, "--no-input"]).assert_code(2);
    assert_eq!(home.command(&["secret", "list", "--json"]).json().as_array().unwrap().len(), 2);
    let restored = home.command(&["vault", "restore", &copy, "--yes", "--json"]);
    restored.assert_code(0);
    assert_eq!(restored.json()["records"], 1);
    assert_eq!(home.command(&["secret", "list", "--json"]).json().as_array().unwrap().len(), 1);
    home.command(&["vault", "verify"]).assert_code(0);
    home.command(&["audit", "verify"]).assert_code(0);
    std::fs::write(&copy, b"no copy").unwrap();
    home.command(&["vault", "restore", &copy, "--yes"]).assert_code(1).assert_says(&["not a SQLite database"]);
    home.command(&["vault", "restore", "/nowhere", "--yes"]).assert_code(78).assert_says(&["/nowhere"]);
    let daemon = home.serve();
    home.command(&["vault", "restore", &copy, "--yes"]).assert_code(1).assert_says(&["daemon", "stop it"]);
    drop(daemon);
}

// VA-07
#[test]
fn yesterdays_database_is_noticed() {
    let (home, _) = stocked();
    let copy = outside(&home, "copy");
    home.command(&["vault", "backup", &copy]).assert_code(0);
    home.set("anthropic:work", &Canary::anthropic(), &[]);
    std::fs::copy(&copy, home.path().join("vault.db")).unwrap();
    home.command(&["secret", "list"]).assert_code(1).assert_says(&["older copy", "--accept-rollback"]);
    home.command(&["vault", "verify"]).assert_code(1);
    home.command(&["vault", "verify", "--accept-rollback"]).assert_code(0);
    home.command(&["secret", "list"]).assert_code(0);
    let accepted = |line: &serde_json::Value| line["action"] == "vault.rollback_accepted";
    assert!(home.audit_log().iter().any(accepted));
}

#[test]
fn the_audit_log_is_checked_and_shown() {
    let (home, _) = stocked();
    let log = home.path().join("logs/audit.jsonl");
    let verified = home.command(&["audit", "verify", "--json"]);
    verified.assert_code(0);
    assert_eq!(verified.json()["ok"], true);
    let tail = home.command(&["audit", "tail", "-n", "2", "--json"]).json();
    assert_eq!(tail.as_array().unwrap().len(), 2);
    assert!(home.command(&["audit", "tail"]).assert_code(0).stdout().contains("agent.created"));
    let sound = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = sound.lines().collect();
    let changed = sound.replacen("anthropic:work", "anthropic:walk", 1);
    let at = lines.iter().position(|line| line.contains("anthropic:work")).unwrap() + 1;
    let deleted = [&lines[..1], &lines[2..]].concat().join("\n") + "\n";
    for (text, line) in [
        (changed, format!("audit.jsonl:{at}:")),
        (deleted, "audit.jsonl:".to_owned()),
        (format!("{{}}\n{sound}"), "audit.jsonl:1:".to_owned()),
    ] {
        std::fs::write(&log, &text).unwrap();
        let found = home.command(&["audit", "verify", "--json"]);
        found.assert_code(1).assert_says(&[&line]);
        assert_eq!(found.json()["ok"], false);
    }
}

// FA-13
#[test]
fn nothing_is_changed_that_cannot_be_recorded() {
    let (home, canary) = stocked();
    let log = home.path().join("logs/audit.jsonl");
    std::fs::rename(&log, log.with_extension("aside")).unwrap();
    std::fs::create_dir(&log).unwrap();
    let before = home.command(&["secret", "show", "anthropic:work", "--json"]).json();
    for arguments in [
        &["secret", "set", "anthropic:work"][..],
        &["secret", "delete", "anthropic:work", "--yes"],
        &["agent", "create", "other"],
        &["agent", "revoke", "coder", "--yes"],
        &["vault", "rekey"],
    ] {
        let finished = home.finish(home.keyferry(arguments), canary.as_str().as_bytes());
        assert_ne!(finished.code(), 0, "{arguments:?}");
        finished.assert_says(&["nothing was changed", "regular file"]);
    }
    assert_eq!(home.command(&["secret", "show", "anthropic:work", "--json"]).json(), before);
    assert_eq!(home.command(&["agent", "list", "--json"]).json().as_array().unwrap().len(), 1);
}

#[test]
fn each_bad_key_and_file_has_its_own_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let (home, _) = stocked();
    let (key, vault): (PathBuf, PathBuf) = (home.path().join("master.key"), home.path().join("vault.db"));
    let right = std::fs::read(&key).unwrap();
    let says = |code: i32, words: &[&str]| {
        home.command(&["secret", "list"]).assert_code(code).assert_says(words);
    };
    std::fs::write(&key, [9; 32]).unwrap();
    says(78, &["does not open"]);
    std::fs::write(&key, [9; 31]).unwrap();
    says(78, &["31 bytes instead of 32"]);
    std::fs::write(&key, &right).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    says(78, &["can be read by others", "chmod 600"]);
    std::fs::remove_file(&key).unwrap();
    says(78, &["its key", "is not"]);
    std::fs::create_dir(&key).unwrap();
    says(78, &["is a directory"]);
    std::fs::remove_dir(&key).unwrap();
    std::fs::write(&key, &right).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    database(&home).execute("UPDATE schema_version SET version = 99", []).unwrap();
    says(1, &["schema 99", "newer"]);
    database(&home).execute("UPDATE schema_version SET version = 1", []).unwrap();
    says(0, &[]);
    for (name, input, words) in [
        ("anthropic:big", "x".repeat(1 << 20), "bytes"),
        ("anthropic:empty", String::new(), "empty"),
        ("a\u{1b}[31mb", "value-of-some-length".to_owned(), "name"),
        ("x'; DROP TABLE credential; --", "value-of-some-length".to_owned(), "name"),
    ] {
        let finished = home.finish(home.keyferry(&["secret", "set", name]), input.as_bytes());
        finished.assert_code(2).assert_says(&[words]);
        assert!(!finished.stderr().contains('\u{1b}'));
    }
    std::fs::rename(&vault, vault.with_extension("aside")).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", vault.display()));
    }
    std::fs::create_dir(&vault).unwrap();
    says(78, &["is a directory"]);
}
