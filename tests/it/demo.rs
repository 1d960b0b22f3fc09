//! `demo`: the first command of the README shows what it promises, offline, and leaves nothing behind.

use crate::harness::Home;

#[test]
fn shows_injection_rotation_and_redaction_and_ends_by_itself() {
    let home = Home::empty();
    let finished = home.command(&["demo"]);
    finished.assert_code(0);
    let text = format!("{}{}", finished.stdout(), finished.stderr());
    for word in ["placeholder", "429", "redact", "\"decision\""] {
        assert!(text.to_lowercase().contains(word), "the demo does not show {word:?}: {text}");
    }
}

#[test]
fn leaves_the_users_home_alone() {
    let home = Home::empty();
    home.command(&["demo"]).assert_code(0);
    for dir in [home.path(), home.user_dir(), home.work_dir()] {
        let left: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
