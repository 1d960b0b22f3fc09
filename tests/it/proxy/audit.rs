//! Used means audited: what the audit log cannot hold does not happen.

use std::path::Path;

use super::{ACME, CONFIG, Stage};
use crate::harness::until;

/// Puts something in the place of the audit log that no record can be written to.
fn block(path: &Path, how: &str) {
    let _ = std::fs::rename(path, path.with_extension("moved"));
    match how {
        "a directory" => std::fs::create_dir(path).unwrap(),
        "a pipe" => {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        }
        "a link" => std::os::unix::fs::symlink("/dev/full", path).unwrap(),
        other => panic!("{other}"),
    }
}

fn unblock(path: &Path) {
    if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) }.unwrap();
}

#[test]
fn without_an_audit_log_nothing_is_sent_and_it_comes_back_by_itself() {
    // FA-13
    for durability in ["written", "synced"] {
        let config = format!("{CONFIG}audit: {{durability: {durability}}}\n");
        let mut stage = Stage::with(&config, |_, _| {});
        let log = stage.home.path().join("logs/audit.jsonl");
        stage.get(ACME, "/before").assert_status(200);
        for how in ["a directory", "a pipe", "a link"] {
            block(&log, how);
            // The place is looked at ten times a second.
            let refused = until("a refusal", || {
                let answered = stage.get(ACME, &format!("/{}", how.replace(' ', "-")));
                (answered.status == 503).then_some(answered)
            });
            assert_eq!(refused.value("x-keyferry-error"), Some("audit_unavailable"), "{durability}, {how}");
            let before = stage.upstream.seen().len();
            let opened = decryptions(&stage);
            stage.get(ACME, "/never").assert_status(503);
            assert_eq!(stage.upstream.seen().len(), before, "nothing is sent");
            assert_eq!(decryptions(&stage), opened, "nothing is opened");
            unblock(&log);
            stage.get(ACME, "/after").assert_status(200);
        }
        stage.stop();
        let uses = |name: &str| stage.upstream.seen().iter().filter(|request| request.path() == name).count();
        assert_eq!(uses("/never"), 0);
        assert_eq!(uses("/after"), 3);
        assert!(stage.home.audit_log().iter().any(|line| line["kind"] == "use"), "the new log has the last use");
        assert!(stage.home.access_log().iter().any(|line| line["error"] == "audit_unavailable"));
    }
}

fn decryptions(stage: &Stage) -> String {
    let (_, text) = stage.daemon.admin_get("/metrics");
    text.lines().find(|line| line.starts_with("keyferry_vault_decryptions_total")).unwrap_or_default().to_owned()
}

#[test]
fn every_use_stands_in_the_log_before_its_answer() {
    let mut stage = Stage::with(&format!("{CONFIG}audit: {{durability: synced}}\n"), |_, _| {});
    let asked: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let stage = &stage;
                    move || {
                        let answered = stage.get(ACME, &format!("/plain/{n}"));
                        answered.assert_status(200);
                        let uses = stage.home.audit_log().iter().filter(|line| line["kind"] == "use").count();
                        assert!(uses > 0);
                    }
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    assert!(asked.iter().all(Result::is_ok));
    stage.stop();
    let uses = stage.home.audit_log().iter().filter(|line| line["kind"] == "use").count();
    assert_eq!(uses, 8, "one for each request");
}
