use std::path::Path;

use super::super::{Draft, Found, Scope, Vault, VaultError, open_existing, open_or_create};
use super::*;
use crate::clock::WallTime;
use crate::home::Home;
use crate::id::CredentialName;
use crate::secret::Secret;
use crate::vault::KeySource;

struct Bench {
    vault: Vault,
    shared: Arc<Shared>,
    home: Home,
    _dir: tempfile::TempDir,
}

/// A vault with one credential, and a hand on its connection.
async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("home"));
    let (found, _) =
        open_or_create(&home, &KeySource::default(), &super::super::Unlock::with_variables(|_| None)).unwrap();
    let (shared, vault) = vault_of(found).await;
    set(&vault).await.unwrap();
    Bench { vault, shared, home, _dir: dir }
}

async fn vault_of(found: Found) -> (Arc<Shared>, Vault) {
    (Arc::clone(&found.store.shared), Vault::from_store(found, super::super::OlderCopy::Refuse).await.unwrap())
}

async fn set(vault: &Vault) -> Result<u64, VaultError> {
    let draft = Draft {
        name: CredentialName::parse("acme:main").unwrap(),
        provider: None,
        kind: "api-key".to_owned(),
        scope: Scope::Shared,
        env: None,
        install: true,
        hosts: Vec::new(),
        description: None,
        label: None,
    };
    let value = Secret::from("v".repeat(40_000));
    Ok(vault.set(draft, value, WallTime(1)).await?.version)
}

/// What was stored before a failed write is still there, and the next write works.
async fn goes_on(bench: &Bench) {
    let listed = bench.vault.list().await.unwrap();
    assert_eq!(listed.iter().map(|stored| stored.version).collect::<Vec<_>>(), [1]);
    assert!(bench.vault.unseal(&bench.vault.snapshot().await.unwrap()[0]).is_ok());
    assert_eq!(set(&bench.vault).await.unwrap(), 2);
    assert!(bench.vault.verify().await.unwrap().faults.is_empty());
}

// VA-15
#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let bench = bench().await;
    let pages = |count: i64| bench.shared.connection.lock().pragma_update(None, "max_page_count", count).unwrap();
    pages(1);
    let error = set(&bench.vault).await.unwrap_err();
    assert!(matches!(error, VaultError::DiskFull), "{error}");
    assert!(error.hint().unwrap().contains("unchanged"));
    pages(1 << 30);
    goes_on(&bench).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_said_and_still_read() {
    let bench = bench().await;
    let only_reads = |on: bool| bench.shared.connection.lock().pragma_update(None, "query_only", on).unwrap();
    only_reads(true);
    let error = set(&bench.vault).await.unwrap_err();
    assert!(matches!(error, VaultError::ReadOnly), "{error}");
    only_reads(false);
    goes_on(&bench).await;
}

// VA-20, VA-21
#[tokio::test]
async fn a_writer_that_does_not_end_is_waited_for_and_then_said() {
    let bench = bench().await;
    let mut other = Connection::open(bench.home.vault_db()).unwrap();
    let writing = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let asked: i64 = bench.shared.connection.lock().pragma_query_value(None, "busy_timeout", |row| row.get(0)).unwrap();
    assert_eq!(Duration::from_millis(asked.unsigned_abs()), BUSY);
    bench.shared.connection.lock().busy_timeout(Duration::ZERO).unwrap();
    let error = set(&bench.vault).await.unwrap_err();
    assert!(matches!(error, VaultError::Busy), "{error}");
    assert_eq!(bench.vault.list().await.unwrap().len(), 1, "readers do not wait for a writer");
    drop(writing);
    goes_on(&bench).await;
}

#[tokio::test]
async fn every_opening_has_the_settings_that_keep_what_is_promised() {
    let bench = bench().await;
    let (again, _vault) = vault_of(
        open_existing(&bench.home, &KeySource::default(), &super::super::Unlock::with_variables(|_| None)).unwrap(),
    )
    .await;
    for shared in [&bench.shared, &again] {
        let connection = shared.connection.lock();
        let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        assert_eq!(number("synchronous"), 2, "FULL");
        assert_eq!(number("secure_delete"), 1);
        assert_eq!(number("temp_store"), 2, "memory");
        assert!(connection.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
        for off in [
            DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER,
            DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW,
            DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA,
        ] {
            assert!(!connection.db_config(off).unwrap());
        }
    }
}

#[test]
fn a_vault_that_cannot_be_made_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vault.db");
    let wrapping = |keyring| super::super::store::Wrapping { check: [3; 16], kdf: None, keyring };
    let root = Root { deployment: [1; 16], vault: [2; 16], wrapping: wrapping(Vec::new()), before: None };
    let twice = |term| super::super::store::WrappedKey { term, record: [4; 16], generation: 1, sealed: Vec::new() };
    let broken = Root { wrapping: wrapping(vec![twice(1), twice(1)]), ..root.clone() };
    assert!(SqliteStore::create(&path, &broken, &Manifest::empty()).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(SqliteStore::create(&path, &root, &Manifest::empty()).unwrap());
    assert!(!SqliteStore::create(&path, &root, &Manifest::empty()).unwrap(), "the first one stays");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(SqliteStore::create(Path::new("/nowhere/at/all/vault.db"), &root, &Manifest::empty()).is_err());
}
