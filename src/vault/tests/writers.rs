use std::io::{BufRead as _, Write as _};
use std::process::{Child, Command, Stdio};

use futures_util::future::{join_all, try_join_all};

use super::*;

// VA-20
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_writers_of_one_name_get_one_version_each() {
    let place = place();
    // Two openings of one home meet in the file, as two processes do.
    let vaults = [place.vault().await, place.vault().await];
    let values: Vec<String> = (0..64).map(|_| canary()).collect();
    let all =
        values.iter().enumerate().map(|(at, value)| {
            let vault = vaults[at % 2].clone();
            async move {
                vault.set(draft("anthropic:work"), secret(value), later(at as u64)).await.map(|stored| stored.version)
            }
        });
    let mut versions = try_join_all(all).await.unwrap();
    let last = versions.iter().position(|version| *version == 64).unwrap();
    assert!(opened(&vaults[0], "anthropic:work").await.unwrap().secret.matches(values[last].as_bytes()));
    versions.sort_unstable();
    assert!(versions.iter().copied().eq(1..=64), "{versions:?}");
    let verification = vaults[1].verify().await.unwrap();
    assert_eq!((verification.records, verification.faults.len()), (64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_of_different_things_do_not_lose_each_others_changes() {
    let place = place();
    let vault = place.vault().await;
    let sets = (0..12).map(|at| {
        let vault = vault.clone();
        async move {
            vault.set(draft(&format!("a{at}")), secret(&canary()), NOW).await.unwrap();
            vault.create_agent(&agent(&format!("agent{}", at % 3)), NOW).await.unwrap();
            vault.touch_agents(vec![(agent("agent0"), later(at))]).await.unwrap();
            if at % 4 == 0 {
                assert!(vault.delete(&name(&format!("a{at}")), &Scope::Shared).await.unwrap());
            }
        }
    });
    join_all(sets).await;
    assert_eq!(vault.list().await.unwrap().len(), 9);
    assert_eq!(vault.agents().await.unwrap().len(), 3);
    assert_eq!(vault.tokens().await.unwrap().len(), 12);
    assert!(vault.verify().await.unwrap().faults.is_empty());
}

// VA-21
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vault_that_many_make_at_once_is_one_vault() {
    let place = place();
    let source = KeySource::default();
    let all = join_all((0..16).map(|_| Vault::open_or_create(&place.home, &source))).await;
    let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
    assert_eq!(all.iter().filter(|(_, opening)| *opening == Opening::Created).count(), 1);
    let token = all[0].0.create_agent(&agent("coder"), NOW).await.unwrap();
    for (vault, _) in &all {
        assert_eq!(vault.tokens().await.unwrap()[0].digest, vault.digest(token.expose()));
    }
    let left: Vec<_> = std::fs::read_dir(place.dir.path().join("home")).unwrap().collect();
    assert!(left.into_iter().all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".tmp")));
}

/// Set for the process that a test starts of itself.
const HOME: &str = "KEYFERRY_TEST_HOME";
const ROUNDS: &str = "KEYFERRY_TEST_ROUNDS";

/// The other process: sets one name again and again and says which versions were acknowledged.
#[tokio::test]
#[ignore = "the other process of the tests below, which start it"]
async fn another_process_writes() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let rounds: u64 = std::env::var(ROUNDS).unwrap().parse().unwrap();
    let vault = Vault::open_or_create(&Home::at(home), &KeySource::default()).await.unwrap().0;
    for _ in 0..rounds {
        let stored = vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
        let mut output = std::io::stderr().lock();
        writeln!(output, "acknowledged {} {}", stored.version, stored.masked).unwrap();
        output.flush().unwrap();
    }
}

fn other_process(place: &Place, rounds: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "vault::tests::writers::another_process_writes"])
        .env(HOME, place.dir.path().join("home"))
        .env(ROUNDS, rounds.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it acknowledged, as `(version, masked)`, until it ended or `enough` were read.
fn acknowledged(child: &mut Child, enough: usize) -> Vec<(u64, String)> {
    let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let read = lines.filter_map(|line| {
        let (version, masked) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
        Some((version.parse().unwrap(), masked.to_owned()))
    });
    read.take(enough).collect()
}

// VA-21
#[tokio::test]
async fn two_processes_write_to_one_home() {
    const ROUNDS: u64 = 20;
    let place = place();
    let mut children = [other_process(&place, ROUNDS), other_process(&place, ROUNDS)];
    let mut versions = Vec::new();
    for child in &mut children {
        versions.extend(acknowledged(child, usize::MAX).into_iter().map(|(version, _)| version));
        assert!(child.wait().unwrap().success());
    }
    versions.sort_unstable();
    assert!(versions.iter().copied().eq(1..=2 * ROUNDS), "{versions:?}");
    assert!(place.reopen().await.unwrap().verify().await.unwrap().faults.is_empty());
}

// VA-16
#[tokio::test]
async fn a_writer_that_is_killed_loses_nothing_that_was_acknowledged() {
    let place = place();
    for round in 1..=8 {
        let mut child = other_process(&place, u64::MAX);
        let seen = acknowledged(&mut child, round);
        child.kill().unwrap();
        child.wait().unwrap();
        let vault = place.reopen().await.unwrap();
        let work = name("anthropic:work");
        let history = vault.history(&work, &Scope::Shared).await.unwrap().unwrap();
        for (version, masked) in &seen {
            let kept = history.iter().find(|kept| kept.version == *version).unwrap();
            assert_eq!(kept.masked, *masked);
        }
        let verification = vault.verify().await.unwrap();
        assert_eq!((verification.records, verification.faults.len()), (history.len() as u64, 0));
    }
}
