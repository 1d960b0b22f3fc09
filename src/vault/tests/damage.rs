use super::*;
use crate::home::HomeError;

async fn stocked() -> (Place, String) {
    let place = place();
    let vault = place.vault().await;
    for text in ["anthropic:work", "anthropic:work", "openai:main"] {
        vault.set(draft(text), secret(&canary()), NOW).await.unwrap();
    }
    vault.create_agent(&agent("coder"), NOW).await.unwrap();
    let seen = observe(&vault).await.unwrap();
    (place, seen)
}

async fn opened_as(place: &Place) -> Result<String, VaultError> {
    observe(&place.reopen().await?).await
}

#[tokio::test]
async fn no_vault_is_an_error_of_its_own() {
    let place = place();
    let error = place.reopen().await.unwrap_err();
    assert!(matches!(error, VaultError::Missing { .. }), "{error}");
    assert!(!place.dir.path().join("home").exists(), "opening makes nothing");
}

// VA-14
#[tokio::test]
async fn a_cut_file_is_refused_and_never_taken_for_a_new_vault() {
    let (place, seen) = stocked().await;
    let path = place.home.vault_db();
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(4096).chain([1, 50, 100, 4000]) {
        std::fs::write(&path, &whole[..length]).unwrap();
        for error in [
            opened_as(&place).await.unwrap_err(),
            Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err(),
        ] {
            assert!(matches!(error, VaultError::Damaged { .. }), "{length}: {error}");
            assert!(error.hint().is_some());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length as u64, "the file was left as it is");
    }
    // SQLite reads what is missing of a last page as zeros, and pages often end with those.
    for length in (1..16).map(|short| whole.len() - short * 250) {
        std::fs::write(&path, &whole[..length]).unwrap();
        match opened_as(&place).await {
            Ok(now) => assert_eq!(now, seen, "{length}"),
            Err(error) => assert!(error.hint().is_some(), "{error}"),
        }
    }
}

// VA-14
#[tokio::test]
async fn changed_bytes_of_the_file_are_refused_or_change_nothing() {
    let (place, seen) = stocked().await;
    let path = place.home.vault_db();
    let whole = std::fs::read(&path).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut refused = 0;
    let rounds = std::env::var("KEYFERRY_PROOF_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    for round in 0..rounds {
        // xorshift64: the same places in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut changed = whole.clone();
        let at = (state % whole.len() as u64) as usize;
        if round % 4 == 0 {
            let end = (at + 64).min(changed.len());
            changed[at..end].fill((state >> 32) as u8);
        } else {
            changed[at] ^= 1 << (state >> 61);
        }
        std::fs::write(&path, &changed).unwrap();
        match opened_as(&place).await {
            Ok(now) => assert_eq!(now, seen, "byte {at}"),
            Err(_) => refused += 1,
        }
        for suffix in ["vault.db-wal", "vault.db-shm"] {
            let _ = std::fs::remove_file(path.with_file_name(suffix));
        }
    }
    assert!(refused > 20, "{refused}");
    let told = format!("{rounds} changed databases: {refused} refused, the others open with everything as it was\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes());
}

#[tokio::test]
async fn a_log_without_its_database_is_not_a_new_vault() {
    let (place, seen) = stocked().await;
    let path = place.home.vault_db();
    let aside = place.dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let log = path.with_file_name("vault.db-wal");
    std::fs::write(&log, b"x").unwrap();
    let error = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err();
    assert!(matches!(error, VaultError::Leftover { .. }), "{error}");
    assert!(error.hint().unwrap().contains("vault.db"));
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(opened_as(&place).await.unwrap(), seen);
}

// VA-24
#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let (place, seen) = stocked().await;
    place.database().execute("UPDATE schema_version SET version = version + 1", []).unwrap();
    let error = opened_as(&place).await.unwrap_err();
    assert!(matches!(error, VaultError::NewerSchema { found: 2, known: 1 }), "{error}");
    assert!(error.hint().unwrap().contains("newer"));
    place.database().execute("UPDATE schema_version SET version = 1", []).unwrap();
    assert_eq!(opened_as(&place).await.unwrap(), seen);
}

#[tokio::test]
async fn other_files_in_the_vaults_place_are_refused() {
    let place = place();
    place.vault().await;
    let path = place.home.vault_db();
    std::fs::write(&path, b"hello, this is not a database at all").unwrap();
    let error = opened_as(&place).await.unwrap_err();
    assert!(matches!(error, VaultError::Damaged { .. }), "{error}");

    std::fs::remove_file(&path).unwrap();
    place.database().execute_batch("CREATE TABLE t (x)").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let error = opened_as(&place).await.unwrap_err();
    assert!(matches!(error, VaultError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("another program"), "{error}");

    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::IsADirectory { .. })), "{error}");

    std::fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    let error = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::IsALink { .. })), "{error}");
}

#[tokio::test]
async fn a_file_where_the_home_should_be_is_refused() {
    let place = place();
    std::fs::write(place.dir.path().join("home"), b"").unwrap();
    let error = Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::NotADirectory { .. })), "{error}");
}

#[tokio::test]
async fn triggers_views_and_tables_of_somebody_else_are_refused() {
    for statement in [
        "CREATE TRIGGER t AFTER INSERT ON token BEGIN DELETE FROM token; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE extra (x)",
        "CREATE INDEX i ON token (agent)",
        "DROP TABLE pool",
        "ALTER TABLE seen ADD COLUMN x INTEGER",
    ] {
        let (place, _) = stocked().await;
        place.database().execute_batch(statement).unwrap();
        let error = opened_as(&place).await.unwrap_err();
        assert!(matches!(error, VaultError::Damaged { .. }), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_directory_above_the_home_may_be_a_link() {
    let (place, seen) = stocked().await;
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(place.dir.path(), &link).unwrap();
    let vault = Vault::open(&Home::at(link.join("home")), &KeySource::default()).await.unwrap();
    assert_eq!(observe(&vault).await.unwrap(), seen);
}
