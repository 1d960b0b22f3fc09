//! The files of a home: who may read them, and what happens when somebody else may.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Canary, Home};

fn stocked() -> Home {
    let home = Home::empty();
    home.set("openai:work", &Canary::openai(), &[]);
    home
}

fn chmod(home: &Home, name: &str, mode: u32) {
    std::fs::set_permissions(home.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_secret_file_that_others_can_open_is_refused_with_its_mend() {
    for (name, mode) in [("master.key", 0o644), ("master.key", 0o620), ("vault.db", 0o606), ("vault.db", 0o660)] {
        let home = stocked();
        chmod(&home, name, mode);
        let finished = home.command(&["secret", "list"]);
        assert_ne!(finished.code(), 0, "{name} {mode:o}");
        finished.assert_says(&[name, "chmod"]);
        chmod(&home, name, 0o600);
        home.command(&["secret", "list"]).assert_code(0);
    }
}

#[test]
fn a_readable_configuration_is_fine_and_a_writable_one_is_not() {
    let home = stocked();
    home.write_config("scrub: on\n");
    chmod(&home, "keyferry.yaml", 0o644);
    home.command(&["config", "check"]).assert_code(0);
    chmod(&home, "keyferry.yaml", 0o666);
    let finished = home.command(&["run", "--quiet", "--", "true"]);
    assert_ne!(finished.code(), 0);
    finished.assert_says(&["keyferry.yaml", "chmod"]);
}

#[test]
fn a_key_that_is_no_key_is_refused_as_such() {
    // VA-11
    for bytes in [&b""[..], &[1u8; 31], &[1u8; 33], &[1u8; 32]] {
        let home = stocked();
        let path = home.path().join("master.key");
        std::fs::write(&path, bytes).unwrap();
        crate::harness::private(&path);
        let finished = home.command(&["secret", "list"]);
        finished.assert_code(78);
        assert!(finished.stderr().contains("key"), "{}", finished.stderr());
    }
    let home = stocked();
    std::fs::remove_file(home.path().join("master.key")).unwrap();
    std::fs::create_dir(home.path().join("master.key")).unwrap();
    assert_ne!(home.command(&["secret", "list"]).code(), 0);
}

#[test]
fn a_broken_database_is_said_and_kept() {
    // VA-14
    let home = stocked();
    let path = home.path().join("vault.db");
    for name in ["vault.db-wal", "vault.db-shm"] {
        let _ = std::fs::remove_file(home.path().join(name));
    }
    let whole = std::fs::read(&path).unwrap();
    for broken in [vec![0u8; whole.len()], whole[..whole.len() / 2].to_vec(), b"not a database at all".to_vec()] {
        std::fs::write(&path, &broken).unwrap();
        let finished = home.command(&["secret", "list", "--json"]);
        assert_ne!(finished.code(), 0, "{finished:?}");
        assert_eq!(std::fs::read(&path).unwrap(), broken, "nothing is written over it");
    }
}

#[test]
fn xdg_directories_are_used_without_a_home() {
    let home = Home::empty();
    let mut command = home.keyferry(&["secret", "set", "openai:work"]);
    let canary = Canary::openai();
    home.guard(&canary);
    command.env_remove("KEYFERRY_HOME");
    for (variable, dir) in [("XDG_CONFIG_HOME", "config"), ("XDG_DATA_HOME", "data"), ("XDG_STATE_HOME", "state")] {
        command.env(variable, home.user_dir().join(dir));
    }
    command.env("XDG_RUNTIME_DIR", home.user_dir());
    home.finish(command, canary.as_str().as_bytes()).assert_code(0);
    assert!(home.user_dir().join("data/keyferry/vault.db").exists());
    assert!(!home.path().join("vault.db").exists());
}

#[test]
fn the_home_option_wins_over_the_variable() {
    let home = Home::empty();
    let other = tempfile::tempdir().unwrap();
    let dir = other.path().join("home");
    home.command(&["--home", dir.to_str().unwrap(), "agent", "create", "coder"]).assert_code(0);
    assert!(dir.join("vault.db").exists());
    assert!(!home.path().join("vault.db").exists());
}
