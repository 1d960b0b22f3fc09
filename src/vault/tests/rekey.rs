//! New keys, with a crash at each step; copies; the anchor.

use super::*;

async fn stocked() -> (Place, String) {
    let place = place();
    let vault = place.vault().await;
    for text in ["a", "b", "c"] {
        vault.set(draft(text), secret(&canary()), NOW).await.unwrap();
        vault.set(draft(text), secret(&canary()), later(1)).await.unwrap();
    }
    let seen = observe(&vault).await.unwrap();
    (place, seen)
}

async fn sound(place: &Place, seen: &str) -> Vault {
    let vault = place.reopen().await.unwrap();
    assert_eq!(observe(&vault).await.unwrap(), seen);
    let verified = vault.verify().await.unwrap();
    assert!(verified.faults.is_empty(), "{verified:?}");
    vault
}

#[tokio::test]
async fn every_record_is_sealed_under_the_new_key_and_the_old_key_is_gone() {
    let (place, seen) = stocked().await;
    let (vault, other) = (place.reopen().await.unwrap(), place.reopen().await.unwrap());
    let snapshot = other.snapshot().await.unwrap();
    assert_eq!(vault.rekey_records().await.unwrap(), 6);
    assert_eq!(vault.state().await.unwrap().terms, [2]);
    sound(&place, &seen).await;
    // A process that had it open all the time: what it read before, what it reads now, and what it writes.
    other.snapshot().await.unwrap();
    snapshot.iter().for_each(|sealed| drop(other.unseal(sealed).unwrap()));
    assert_eq!(observe(&other).await.unwrap(), seen);
    other.set(draft("d"), secret(&canary()), later(2)).await.unwrap();
    let late = place.reopen().await.unwrap();
    assert_eq!(late.rekey_records().await.unwrap(), 7);
    assert!(place.reopen().await.unwrap().verify().await.unwrap().faults.is_empty());
}

#[tokio::test]
async fn a_writer_with_the_key_before_takes_the_new_one() {
    let (place, _) = stocked().await;
    let (vault, writer) = (place.reopen().await.unwrap(), place.reopen().await.unwrap());
    vault.rekey_records().await.unwrap();
    writer.set(draft("new"), secret(&canary()), later(5)).await.unwrap();
    writer.set(draft("a"), secret(&canary()), later(5)).await.unwrap();
    assert_eq!(vault.state().await.unwrap().terms, [2]);
    assert!(place.reopen().await.unwrap().verify().await.unwrap().faults.is_empty());
}

// VA-18
#[tokio::test]
async fn a_change_of_the_vault_key_goes_on_after_a_crash_at_any_step() {
    for steps in 0..=8 {
        let (place, seen) = stocked().await;
        let vault = place.reopen().await.unwrap();
        if steps > 0 {
            vault.begin_term().await.unwrap();
        }
        for _ in 1..steps {
            vault.reseal_some(1).await.unwrap();
        }
        drop(vault);
        let vault = sound(&place, &seen).await;
        let left = vault.rekey_records().await.unwrap();
        assert_eq!(left, if steps == 0 { 6 } else { 6 - (steps - 1).min(6) });
        assert_eq!(vault.state().await.unwrap().terms, [2], "{steps}");
        sound(&place, &seen).await;
    }
}

// VA-18
#[tokio::test]
async fn a_change_of_the_key_file_goes_on_after_a_crash_at_any_step() {
    for steps in 0..4 {
        let (place, seen) = stocked().await;
        let path = place.home.master_key();
        let before = std::fs::read(&path).unwrap();
        let vault = place.reopen().await.unwrap();
        let next = path.with_file_name("master.key.next");
        match steps {
            0 => {}
            // The next key is there, and wraps nothing yet.
            1 => std::fs::write(&next, [7; 32]).unwrap(),
            2 => vault.wrap_by_next_file(&path).await.unwrap(),
            _ => {
                vault.wrap_by_next_file(&path).await.unwrap();
                std::fs::rename(&next, &path).unwrap();
            }
        }
        crate::home::check_secret_file(&path).unwrap();
        if steps == 1 {
            std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        drop(vault);
        let vault = sound(&place, &seen).await;
        assert_eq!(vault.rekey_root(None).await.unwrap(), RootChange::Replaced);
        assert!(!next.exists(), "{steps}");
        assert!(!vault.state().await.unwrap().root_unfinished);
        assert_ne!(std::fs::read(&path).unwrap(), before);
        drop(vault);
        sound(&place, &seen).await;
        std::fs::write(&path, &before).unwrap();
        let error = place.reopen().await.unwrap_err();
        assert!(matches!(error, VaultError::WrongKey { .. }), "{steps}: {error}");
    }
}

#[tokio::test]
async fn a_move_to_another_source_lets_both_open_until_the_new_one_did() {
    let (place, seen) = stocked().await;
    let to = KeySource::Command(format!("echo {}", "cd".repeat(32)));
    let vault = place.reopen().await.unwrap();
    assert_eq!(vault.rekey_root(Some(&to)).await.unwrap(), RootChange::Moved { to: to.text() });
    drop(vault);
    let old = sound(&place, &seen).await;
    assert!(matches!(old.rekey_records().await, Err(VaultError::RootMoved)));
    let new = Vault::open(&place.home, &to).await.unwrap();
    assert_eq!(observe(&new).await.unwrap(), seen);
    assert!(!new.state().await.unwrap().root_unfinished);
    assert!(matches!(place.reopen().await, Err(VaultError::WrongKey { .. })));
    assert!(matches!(new.rekey_root(None).await, Err(VaultError::FixedRoot { .. })));
    new.rekey_records().await.unwrap();
    let back = KeySource::default();
    new.rekey_root(Some(&back)).await.unwrap();
    sound(&place, &seen).await;
}

// VA-07
#[tokio::test]
async fn an_older_database_is_refused_until_a_person_accepts_it() {
    let (place, seen) = stocked().await;
    let copy = place.dir.path().join("copy");
    place.reopen().await.unwrap().backup(&copy, false).await.unwrap();
    place.reopen().await.unwrap().set(draft("a"), secret(&canary()), later(9)).await.unwrap();
    for suffix in ["vault.db-wal", "vault.db-shm"] {
        let _ = std::fs::remove_file(place.home.vault_db().with_file_name(suffix));
    }
    std::fs::copy(&copy, place.home.vault_db()).unwrap();
    let error = place.reopen().await.unwrap_err();
    assert!(matches!(error, VaultError::RolledBack { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--accept-rollback"));
    let unlock = Unlock::default();
    Vault::open_with(&place.home, &KeySource::default(), &unlock, OlderCopy::Accept).await.unwrap();
    sound(&place, &seen).await;
    std::fs::write(place.home.vault_db().with_file_name("vault.anchor"), b"{}").unwrap();
    assert!(matches!(place.reopen().await, Err(VaultError::Anchor { .. })));
}

// VA-23
#[tokio::test]
async fn a_copy_is_put_back_whole_and_as_a_new_change() {
    let (place, seen) = stocked().await;
    let copy = place.dir.path().join("copy");
    let vault = place.reopen().await.unwrap();
    vault.backup(&copy, false).await.unwrap();
    assert!(vault.backup(&copy, false).await.is_err(), "a copy is never written over a file");
    vault.backup(&copy, true).await.unwrap();
    crate::home::check_secret_file(&copy).unwrap();
    vault.set(draft("later"), secret(&canary()), later(3)).await.unwrap();
    let (source, unlock) = (KeySource::default(), Unlock::default());
    // Over the vault that is there, which another process has open.
    let restored = Vault::restore(&place.home, &source, &unlock, &copy).await.unwrap();
    assert_eq!(restored.records, 6);
    assert!(restored.before.unwrap().exists());
    assert_eq!(observe(&vault).await.unwrap(), seen);
    drop(vault);
    sound(&place, &seen).await;
    // Over a broken one, and over none.
    std::fs::write(place.home.vault_db(), b"broken").unwrap();
    Vault::restore(&place.home, &source, &unlock, &copy).await.unwrap();
    sound(&place, &seen).await;
    std::fs::remove_file(place.home.vault_db()).unwrap();
    Vault::restore(&place.home, &source, &unlock, &copy).await.unwrap();
    sound(&place, &seen).await.set(draft("more"), secret(&canary()), later(4)).await.unwrap();

    let mut broken = std::fs::read(&copy).unwrap();
    let middle = broken.len() / 2;
    broken[middle..middle + 4096].fill(1);
    std::fs::write(&copy, broken).unwrap();
    assert!(Vault::restore(&place.home, &source, &unlock, &copy).await.is_err());
    let (other, _) = stocked().await;
    let foreign = place.dir.path().join("foreign");
    other.reopen().await.unwrap().backup(&foreign, false).await.unwrap();
    let error = Vault::restore(&place.home, &source, &unlock, &foreign).await.unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    assert_eq!(place.reopen().await.unwrap().list().await.unwrap().len(), 4, "nothing was changed");
    let names = std::fs::read_dir(place.dir.path().join("home")).unwrap().flatten();
    assert!(!names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains(".tmp")));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_changed() {
    struct Refusing;
    impl Journal for Refusing {
        fn announce(&self, _: u64, subjects: &[String]) -> Result<(), Unrecorded> {
            Err(Unrecorded { reason: subjects.join(", "), hint: "make room".to_owned() })
        }
    }
    let (place, seen) = stocked().await;
    let vault = place.reopen().await.unwrap();
    vault.keep_journal(Arc::new(Refusing));
    let error = vault.set(draft("a"), secret(&canary()), later(9)).await.unwrap_err();
    assert!(error.to_string().contains("credential a (shared) version 3"), "{error}");
    assert_eq!(error.hint().unwrap(), "make room");
    assert!(vault.create_agent(&agent("coder"), NOW).await.is_err());
    assert!(vault.rekey_records().await.is_err());
    assert!(vault.rekey_root(None).await.is_err());
    sound(&place, &seen).await;
}
