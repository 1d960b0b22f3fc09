//! The guard of `run`: what the command cannot see, touch or reach, and what is said where that cannot be had.

use std::path::Path;
use std::process::Command;

use crate::harness::{Canary, Finished, Home, Tool, need, script};
use crate::upstream::TestUpstream;

/// A home with a secret, and a command in it.
fn guarded(home: &Home, arguments: &[&str]) -> Finished {
    home.command(&[&["run"], arguments].concat())
}

fn stocked() -> Home {
    let home = Home::empty();
    home.set("openai:work", &Canary::openai(), &[]);
    home
}

const HOLDS: &str = "guard: the command cannot see keyferry's home";

#[test]
fn the_home_is_empty_and_cannot_be_written_or_uncovered() {
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    assert!(home.path().join("master.key").exists());
    let script = "ls -A \"$KEYFERRY_HOME\"; cat \"$KEYFERRY_HOME\"/master.key \"$KEYFERRY_HOME\"/vault.db \
                  \"$KEYFERRY_HOME\"/ca/ca.key; umount \"$KEYFERRY_HOME\"; unshare -Urm umount \"$KEYFERRY_HOME\"; \
                  touch \"$KEYFERRY_HOME\"/new; ls -A \"$KEYFERRY_HOME\"; echo end";
    let finished = guarded(&home, &["--", "sh", "-c", script]);
    finished.assert_code(0).assert_says(&[HOLDS, "no such file", "read-only file system"]);
    assert_eq!(finished.stdout(), "end\n", "{}", finished.stderr());
    assert!(!home.path().join("new").exists());
}

#[test]
fn keyferry_itself_says_that_its_home_is_hidden() {
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    let own = env!("CARGO_BIN_EXE_keyferry");
    for command in ["secret list", "status", "profile list"] {
        let script = format!("{own} {command}");
        let finished = guarded(&home, &["--", "sh", "-c", &script]);
        finished.assert_code(1).assert_says(&["home is hidden from processes that keyferry run started"]);
    }
    guarded(&home, &["--", own, "explain", "policy_denied"]).assert_code(0);
}

#[test]
fn no_mount_of_its_own_shows_what_is_covered() {
    // In a namespace of its own the command may mount what it likes, but not without the covers that came with it.
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    let above = home.path().parent().unwrap().to_owned();
    let tries = "mkdir a b; mount --bind \"$1\" a; mount -t overlay overlay -o lowerdir=\"$1\",upperdir=b,workdir=c a; \
                 mount --rbind \"$1\" a; find a b -name master.key -o -name vault.db; find \"$1\" -name master.key; \
                 chroot \"$1\" /bin/true; echo end";
    let script = format!("mkdir c; unshare -Urm sh -c '{tries}' sh \"$0\" || echo no namespaces in namespaces");
    let finished = guarded(&home, &["--", "sh", "-c", &script, above.to_str().unwrap()]);
    finished.assert_code(0).assert_says(&[HOLDS]);
    assert_eq!(finished.stdout(), "end\n", "{}", finished.stderr());
}

#[test]
fn a_key_outside_of_the_home_is_covered_too() {
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = Home::empty();
    let key = home.work_dir().join("the.key");
    home.write_config(&format!("vault: {{master_key: \"file:{}\"}}\n", key.display()));
    home.set("openai:work", &Canary::openai(), &[]);
    let before = std::fs::read(&key).unwrap();
    let finished =
        guarded(&home, &["--", "sh", "-c", "wc -c <the.key; echo x >the.key; wc -c <the.key; rm -f the.key"]);
    finished.assert_says(&[HOLDS]);
    assert_eq!(finished.stdout().split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
    assert_eq!(std::fs::read(&key).unwrap(), before);
}

#[test]
fn a_command_that_starts_inside_of_the_home_does_not_see_it() {
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    let mut command = home.keyferry(&["run", "--", "sh", "-c", "cat master.key; ls -A ."]);
    command.current_dir(home.path());
    let finished = home.finish(command, b"");
    finished.assert_code(0).assert_says(&["no such file"]);
    assert_eq!(finished.stdout(), "");
    let mut command = home.keyferry(&["run", "--", "cat", "ca.key"]);
    command.current_dir(home.path().join("ca"));
    home.finish(command, b"").assert_code(125).assert_says(&["working directory is inside of keyferry's home"]);
}

#[test]
fn keyferrys_process_cannot_be_looked_into_or_signalled() {
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    // Root sees that files are open, and not which.
    let script = "for file in environ mem maps fd/0 fd/3 root/. cwd/.; do cat /proc/$PPID/$file >/dev/null 2>&1 && \
                  echo read $file; ls /proc/$PPID/$file/ >/dev/null 2>&1 && echo entered $file; done; \
                  readlink /proc/$PPID/fd/* /proc/$PPID/cwd /proc/$PPID/exe /proc/$PPID/ns/mnt; for signal in TERM KILL STOP 0; do kill -$signal $PPID 2>/dev/null && echo sent $signal; done; echo end";
    let finished = guarded(&home, &["--", "sh", "-c", script]);
    finished.assert_code(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if finished.stderr().contains("can signal it") {
        eprintln!("NOT RUN: signals, on Linux {kernel}");
        return;
    }
    assert_eq!(finished.stdout(), "end\n");
}

#[test]
fn a_way_around_through_other_processes_is_shut() {
    // A process of the same user outside, whose root would show the home uncovered.
    let Some(_) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    let mut outside = Command::new("sleep").arg("600").spawn().unwrap();
    let way = format!("/proc/{}/root{}", outside.id(), home.path().display());
    let finished = guarded(&home, &["--", "sh", "-c", &format!("ls {way}; cat {way}/master.key; echo end")]);
    outside.kill().unwrap();
    outside.wait().unwrap();
    finished.assert_code(0).assert_says(&["permission denied"]);
    assert_eq!(finished.stdout(), "end\n");
}

#[test]
fn an_ordinary_user_has_it_too() {
    // The suite may run as root, whose numbers are mapped in another way.
    let (Some(setpriv), Some(_)) = (need("guard", Tool::Setpriv), need("guard", Tool::Namespaces)) else { return };
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("keyferry");
    std::fs::copy(env!("CARGO_BIN_EXE_keyferry"), &binary).unwrap();
    let own = place.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let (user, group) = (rustix::fs::Uid::from_raw(54321), rustix::fs::Gid::from_raw(54321));
    rustix::fs::chown(&own, Some(user), Some(group)).unwrap();
    std::os::unix::fs::chown(place.path(), Some(54321), Some(54321)).unwrap();
    let mut command = Command::new(setpriv);
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups"]).arg(&binary);
    command.args(["run", "--", "sh", "-c", "id -u; ls -A \"$KEYFERRY_HOME\"; unshare -Urm umount \"$KEYFERRY_HOME\""]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", &own).current_dir(&own);
    command.env("KEYFERRY_HOME", own.join("kf")).env("TMPDIR", &own);
    let finished = crate::harness::run_command(command, b"");
    finished.assert_says(&[HOLDS]);
    assert_eq!(finished.stdout(), "54321\n", "{}", finished.stderr());
}

#[test]
fn where_it_cannot_be_had_that_is_said_and_lock_is_refused() {
    let Some(unshare) = need("guard", Tool::Namespaces) else { return };
    let home = stocked();
    let inside = |arguments: &[&str]| {
        let own = home.keyferry(&[&["run"], arguments].concat());
        let mut command = Command::new(&unshare);
        command.args(["-Ur", "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"]);
        command.arg(own.get_program()).args(own.get_args()).env_clear().current_dir(home.work_dir());
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        home.finish(command, b"")
    };
    let finished = inside(&["--", "sh", "-c", "ls -A \"$KEYFERRY_HOME\""]);
    finished.assert_code(0).assert_says(&["guard not enforced", "namespaces are refused here"]);
    assert!(finished.stdout().contains("master.key"));
    let finished = inside(&["--lock", "--", "echo", "started"]);
    finished.assert_code(125).assert_says(&["--lock cannot be had here", "namespaces are refused here"]);
    assert_eq!(finished.stdout(), "");
}

#[test]
fn it_can_be_left_out() {
    let home = stocked();
    let finished = guarded(&home, &["--no-guard", "--", "sh", "-c", "ls -A \"$KEYFERRY_HOME\""]);
    finished.assert_code(0).assert_says(&["guard off"]);
    assert!(finished.stdout().contains("master.key"));
    guarded(&home, &["--no-guard", "--lock", "--", "true"]).assert_code(2);
    guarded(&home, &["--allow-local", "80", "--", "true"]).assert_code(2);
}

#[test]
fn a_locked_command_reaches_the_proxy_and_what_was_allowed() {
    let (Some(curl), Some(_)) = (need("lock", Tool::Curl), need("lock", Tool::Namespaces)) else { return };
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let key = Canary::openai();
    home.stock(&upstream, "openai:work", &key, &[]);
    let (one, two) = (upstream.plain_address().port().to_string(), upstream.address().port());
    let script = format!(
        "{curl} -sS -f https://api.openai.com/v1/models && {curl} -sS -f \"$KEYFERRY_BASE_URL/openai/v1/models\" \
         -H \"Authorization: Bearer $OPENAI_API_KEY\" && {curl} -sS -f --noproxy '*' http://127.0.0.1:{one}/status/200 \
         && ! {curl} -sS --noproxy '*' http://127.0.0.1:{two}/ && echo only-these",
        curl = curl.display(),
    );
    let finished = home.command(&["run", "--lock", "--allow-local", &one, "--", "sh", "-c", &script]);
    finished.assert_code(0).assert_says(&["locked in"]);
    let output = finished.stdout();
    assert!(output.contains("gpt-test") && output.contains("status 200") && output.contains("only-these"), "{output}");
    upstream.assert_carried("api.openai.com", key.as_str());
    assert_eq!(upstream.seen_at("api.openai.com").len(), 2);
}

#[test]
fn a_locked_command_beside_a_daemon_has_the_same_ways() {
    let (Some(java), Some(curl)) = (need("lock", Tool::Java), need("lock", Tool::Curl)) else { return };
    let Some(_) = need("lock", Tool::Namespaces) else { return };
    let upstream = TestUpstream::start();
    let home = Home::new(&upstream);
    let key = Canary::openai();
    home.stock(&upstream, "openai:work", &key, &[]);
    let _daemon = home.serve();
    let url = "https://api.openai.com/v1/models";
    let script = format!(
        "ls -A \"$KEYFERRY_HOME\"; {} -sS -f {url} && {} {} {url}",
        curl.display(),
        java.display(),
        quoted(&script("HttpsClient.java"))
    );
    let finished = home.command(&["run", "--lock", "--", "sh", "-c", &script]);
    finished.assert_code(0).assert_says(&["the running daemon", "locked in"]);
    let output = finished.stdout();
    assert!(output.starts_with("{") && output.contains("HttpClient 200"), "{output}");
    upstream.assert_carried("api.openai.com", key.as_str());
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
