//! The vault under kill -9 and failing disks. A plain run does a few rounds; `tests/long/run` sets how many more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use keyferry::home::Home as Place;
use keyferry::vault::{KeySource, Vault};

use crate::harness::{Canary, Home};

fn rounds(short: u32) -> u32 {
    std::env::var("KEYFERRY_PROOF_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// The same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What is stored: names, and the value of each.
fn stored(home: &Path) -> BTreeMap<String, Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let vault = Vault::open(&Place::at(home), &KeySource::default()).await.unwrap();
        let verified = vault.verify().await.unwrap();
        assert!(verified.faults.is_empty(), "{:?}", verified.faults);
        let all = vault.snapshot().await.unwrap();
        let value = |sealed| vault.unseal(sealed).unwrap().secret.expose().to_vec();
        all.iter().map(|sealed| (sealed.stored.name.to_string(), value(sealed))).collect()
    })
}

// VA-16, VA-18
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let rounds = rounds(25);
    let home = Home::empty();
    let mut known: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    home.set("openai:first", &Canary::openai(), &[]);
    known.extend(stored(&home.path()));
    let (mut killed, mut acknowledged) = (0, 0);
    for round in 0..rounds {
        let canary = Canary::openai();
        home.guard(&canary);
        let name = format!("openai:k{}", dice.below(8));
        let what = dice.below(10);
        let arguments = match what {
            0 => vec!["vault", "rekey"],
            1 => vec!["secret", "delete", &name, "--yes"],
            _ => vec!["secret", "set", &name],
        };
        let mut child = home
            .keyferry(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), canary.as_str().as_bytes()).unwrap_or_default();
        // Random moments between the start and the usual end.
        std::thread::sleep(Duration::from_millis(dice.below(200)));
        let _ = child.kill();
        let done = child.wait().unwrap().success();
        if done {
            acknowledged += 1
        } else {
            killed += 1
        }
        let now = stored(&home.path());
        let mut with = known.clone();
        match what {
            0 => {}
            1 => drop(with.remove(&name)),
            _ => drop(with.insert(name, canary.as_str().into())),
        }
        assert!(now == with || (!done && now == known), "round {round}, {what}, acknowledged: {done}");
        known = now;
    }
    println!(
        "{rounds} rounds: {killed} killed before the answer, {acknowledged} acknowledged; none lost, none unreadable"
    );
    assert!(killed > 0);
}

/// Fails the Nth call of each kind that writes, for a program that is linked dynamically.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
static int is_file(int f) { struct stat s; return fstat(f, &s) == 0 && S_ISREG(s.st_mode); }
static int due(void) {
  static int left = -1;
  if (left < 0) { const char *n = getenv("FAIL_AT"); left = n ? atoi(n) : 0; }
  if (left > 0 && --left == 0) { const char *e = getenv("FAIL_WITH"); errno = e ? atoi(e) : EIO; return 1; }
  return 0;
}
#define NEXT(name) __typeof__(&name) next = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o);
ssize_t pwrite64(int f, const void *b, size_t n, off64_t o) { NEXT(pwrite64); return due() ? -1 : next(f, b, n, o); }
ssize_t pwrite(int f, const void *b, size_t n, off_t o) { NEXT(pwrite); return due() ? -1 : next(f, b, n, o); }
int fsync(int f) { NEXT(fsync); return due() ? -1 : next(f); }
int fdatasync(int f) { NEXT(fdatasync); return due() ? -1 : next(f); }
int ftruncate64(int f, off64_t n);
int ftruncate64(int f, off64_t n) { NEXT(ftruncate64); return due() ? -1 : next(f, n); }
ssize_t write(int f, const void *b, size_t n) { NEXT(write); return f > 2 && is_file(f) && due() ? -1 : next(f, b, n); }
int rename(const char *a, const char *b) { NEXT(rename); return due() ? -1 : next(a, b); }
int unlink(const char *a) { NEXT(unlink); return due() ? -1 : next(a); }
"#;

#[cfg(target_os = "linux")]
fn shim(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

// VA-15
#[cfg(target_os = "linux")]
#[test]
fn every_call_that_writes_may_fail_and_old_values_stay() {
    let step = if std::env::var_os("KEYFERRY_PROOF_ROUNDS").is_some() { 1 } else { 7 };
    let home = Home::empty();
    let library = shim(&home.work_dir());
    home.set("openai:k", &Canary::openai(), &[]);
    let mut known = stored(&home.path());
    let (mut failed, mut calls) = (0, 0);
    for errno in [28, 5] {
        for at in (1..).step_by(step) {
            let canary = Canary::openai();
            home.guard(&canary);
            let mut command = home.keyferry(&["secret", "set", "openai:k"]);
            command.env("LD_PRELOAD", &library).env("FAIL_AT", at.to_string()).env("FAIL_WITH", errno.to_string());
            let finished = home.finish(command, canary.as_str().as_bytes());
            assert!(!finished.stderr().contains("panicked"), "{}", finished.stderr());
            let now = stored(&home.path());
            let new = BTreeMap::from([("openai:k".to_owned(), canary.as_str().as_bytes().to_vec())]);
            if finished.code() == 0 {
                assert!(now == new, "call {at}, error {errno}: acknowledged and not there");
            } else {
                failed += 1;
                assert!(now == known || now == new, "call {at}, error {errno}");
            }
            known = now;
            calls += 1;
            // Far more calls than the command makes.
            if at > 200 {
                break;
            }
        }
    }
    println!("{calls} runs with one failing call each, {failed} said so; every value as before or as set");
    assert!(failed > 2, "the calls did fail");
}
