//! Reload: all or nothing, and what it may not change.

use rustix::process::Signal;

use super::{ACME, CONFIG, OTHER, Stage};
use crate::harness::{LISTEN, until};

fn metric(stage: &Stage, result: &str) -> f64 {
    let (_, text) = stage.daemon.admin_get("/metrics");
    let wanted = format!("result=\"{result}\"");
    let line = text.lines().find(|line| line.starts_with("keyferry_reloads_total{") && line.contains(&wanted));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

fn reloads(stage: &Stage) -> f64 {
    let (_, text) = stage.daemon.admin_get("/metrics");
    let lines = text.lines().filter(|line| line.starts_with("keyferry_reloads_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn rewrite(stage: &Stage, more: &str) {
    let section = stage.home.upstream_section(&stage.upstream, "");
    stage.home.write_config(&format!("{LISTEN}{section}{more}"));
}

#[test]
fn a_new_configuration_takes_effect_at_once() {
    let stage = Stage::new();
    stage.connect(&format!("{OTHER}:443")).assert_status(200);
    rewrite(&stage, &CONFIG.replace("routes:\n", "routes:\n  - {host: api.other.example, action: deny}\n"));
    stage.daemon.signal(Signal::HUP);
    until("the new rule", || (stage.connect(&format!("{OTHER}:443")).status == 403).then_some(()));
    stage.get(ACME, "/").assert_status(200);
    assert!(metric(&stage, "ok") + metric(&stage, "success") >= 1.0);
}

#[test]
fn hosts_that_a_reload_brings_have_certificates_at_once() {
    let stage = Stage::new();
    let before = std::fs::read(stage.ca()).unwrap();
    let bundle = || std::fs::read(stage.home.path().join("ca/bundle.pem")).unwrap();
    let old_bundle = bundle();
    rewrite(&stage, &CONFIG.replace("routes:\n", "routes:\n  - {host: new.somewhere.example, action: allow}\n"));
    stage.daemon.signal(Signal::HUP);
    until("the new rule", || (stage.connect("new.somewhere.example:443").status == 200).then_some(()));
    stage.open("new.somewhere.example");
    // The host lies outside of what the root could sign for, so there is a new one.
    assert_ne!(std::fs::read(stage.ca()).unwrap(), before);
    assert_ne!(bundle(), old_bundle);
    stage.daemon.stderr.line_with("root certificate");
    stage.get(ACME, "/").assert_status(200);
}

#[test]
fn a_host_that_a_secret_brings_has_a_certificate_at_once() {
    let stage = Stage::new();
    let canary = crate::harness::Canary::plain();
    stage.home.set("acme:elsewhere", &canary, &["--host", "own.elsewhere.example"]);
    until("the secret", || (stage.connect("own.elsewhere.example:443").status == 200).then_some(()));
    stage.open("own.elsewhere.example");
}

#[test]
fn a_faulty_file_changes_nothing_and_says_why() {
    // FA-10
    let stage = Stage::new();
    let before = reloads(&stage);
    rewrite(&stage, &format!("{CONFIG}unknown_key: 1\n"));
    stage.daemon.signal(Signal::HUP);
    until("the attempt", || (reloads(&stage) > before).then_some(()));
    stage.get(ACME, "/").assert_status(200);
    stage.connect(&format!("{OTHER}:443")).assert_status(200);
    let line = stage.home.config_file();
    let last = std::fs::read_to_string(line).unwrap().lines().count();
    let place = format!("keyferry.yaml:{last}:");
    until("the fault with its place", || {
        let said = format!("{}{}", stage.daemon.stdout.text(), stage.daemon.stderr.text());
        (said.contains(&place) && said.contains("unknown_key")).then_some(())
    });
    let status = stage.home.command(&["status", "--json"]).json();
    assert!(status["reload"].to_string().contains("unknown_key"), "{status}");
    // Mended, it is taken.
    rewrite(&stage, &CONFIG.replace("routes:\n", "routes:\n  - {host: api.other.example, action: deny}\n"));
    stage.daemon.signal(Signal::HUP);
    until("the mended file", || (stage.connect(&format!("{OTHER}:443")).status == 403).then_some(()));
}

#[test]
fn a_file_change_reloads_by_itself() {
    let stage = Stage::new();
    rewrite(&stage, &CONFIG.replace("routes:\n", "routes:\n  - {host: api.other.example, action: deny}\n"));
    until("the new rule", || (stage.connect(&format!("{OTHER}:443")).status == 403).then_some(()));
}

#[test]
fn a_swapped_link_reloads_too() {
    // A mounted ConfigMap: the file is a link into a directory, which is a link that is replaced.
    let stage = Stage::new();
    let section = stage.home.upstream_section(&stage.upstream, "");
    let changed = CONFIG.replace("routes:\n", "routes:\n  - {host: api.other.example, action: deny}\n");
    let home = stage.home.path();
    std::fs::create_dir(home.join("..2")).unwrap();
    let file = home.join("..2/keyferry.yaml");
    std::fs::write(&file, format!("{LISTEN}{section}{changed}")).unwrap();
    crate::harness::private(&file);
    std::os::unix::fs::symlink("..2", home.join("..data_tmp")).unwrap();
    std::fs::rename(home.join("..data_tmp"), home.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/keyferry.yaml", home.join("link")).unwrap();
    std::fs::rename(home.join("link"), stage.home.config_file()).unwrap();
    until("the new rule", || (stage.connect(&format!("{OTHER}:443")).status == 403).then_some(()));
    // Only the directory's link is replaced.
    std::fs::create_dir(home.join("..3")).unwrap();
    let file = home.join("..3/keyferry.yaml");
    std::fs::write(&file, format!("{LISTEN}{section}{CONFIG}")).unwrap();
    crate::harness::private(&file);
    std::os::unix::fs::symlink("..3", home.join("..data_tmp")).unwrap();
    std::fs::rename(home.join("..data_tmp"), home.join("..data")).unwrap();
    until("the old rules", || (stage.connect(&format!("{OTHER}:443")).status == 200).then_some(()));
}

#[test]
fn where_secrets_go_is_not_changed_by_a_reload() {
    // EX-44
    let stage = Stage::new();
    let elsewhere = crate::upstream::TestUpstream::start();
    std::fs::copy(elsewhere.root_file(), stage.home.path().join("provider-root.pem")).unwrap();
    let before = reloads(&stage);
    let section = stage.home.upstream_section(&elsewhere, "");
    stage.home.write_config(&format!("{LISTEN}{section}{CONFIG}"));
    stage.daemon.signal(Signal::HUP);
    until("the attempt", || (reloads(&stage) > before).then_some(()));
    stage.get(ACME, "/after").assert_status(200);
    assert!(elsewhere.connections().is_empty(), "a file edit must not redirect a secret");
    assert_eq!(stage.upstream.only(ACME).path(), "/after");
    until("the need of a restart", || {
        let said = format!("{}{}", stage.daemon.stdout.text(), stage.daemon.stderr.text());
        said.contains("restart needed").then_some(())
    });
    // It still waits after another reload, and the status shows what is in force.
    let before = reloads(&stage);
    stage.daemon.signal(Signal::HUP);
    until("the attempt", || (reloads(&stage) > before).then_some(()));
    let status = stage.home.command(&["status", "--json"]).json();
    assert!(status["restart_needed"].to_string().contains("upstream.resolve"), "{status}");
    assert!(status["upstream"]["resolve"].to_string().contains(&stage.upstream.address().to_string()), "{status}");
}

#[test]
fn a_new_secret_is_used_without_a_restart() {
    let stage = Stage::new();
    stage.get(ACME, "/old").assert_status(200);
    let newer = crate::harness::Canary::plain();
    stage.home.stock(&stage.upstream, "acme:work", &newer, &[]);
    until("the new version", || {
        stage.upstream.forget();
        stage.get(ACME, "/new").assert_status(200);
        (stage.upstream.only(ACME).occurrences(newer.as_str()) == 1).then_some(())
    });
    stage.home.command(&["secret", "delete", "acme:work", "--yes"]).assert_code(0);
    until("the end of the secret", || {
        stage.upstream.forget();
        (stage.connect(&format!("{ACME}:443")).status == 403).then_some(())
    });
}
