use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::home::HomeError;

async fn stocked() -> (Place, String) {
    let place = place();
    let vault = place.vault().await;
    vault.set(draft("anthropic:work"), secret(&canary()), NOW).await.unwrap();
    let seen = observe(&vault).await.unwrap();
    (place, seen)
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn first_use_makes_everything_private() {
    let place = place();
    let vault = place.vault().await;
    vault.set(draft("a"), secret(&canary()), NOW).await.unwrap();
    assert_eq!(std::fs::read(place.home.master_key()).unwrap().len(), 32);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place.dir.path().join("home")).unwrap() {
        let path = entry.unwrap().path();
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{path:?}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["ca", "logs", "master.key", "run", "vault.anchor", "vault.db", "vault.db-shm", "vault.db-wal"]);
}

#[tokio::test]
async fn two_homes_have_different_keys() {
    let (one, two) = (place(), place());
    one.vault().await;
    two.vault().await;
    assert_ne!(std::fs::read(one.home.master_key()).unwrap(), std::fs::read(two.home.master_key()).unwrap());
}

// VA-11
#[tokio::test]
async fn another_key_is_a_wrong_key_and_nothing_is_made_or_changed() {
    let (place, seen) = stocked().await;
    let path = place.home.master_key();
    let right = std::fs::read(&path).unwrap();
    let before = std::fs::read(place.home.vault_db()).unwrap();
    let mut wrong = right.clone();
    wrong[31] ^= 1;
    std::fs::write(&path, &wrong).unwrap();
    for error in [
        place.reopen().await.unwrap_err(),
        Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err(),
    ] {
        assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
        assert_eq!(error.exit_code(), 78);
        assert!(error.hint().is_some());
    }
    assert_eq!(std::fs::read(place.home.vault_db()).unwrap(), before);
    std::fs::write(&path, &right).unwrap();
    assert_eq!(observe(&place.reopen().await.unwrap()).await.unwrap(), seen);
}

// VA-11
#[tokio::test]
async fn a_missing_key_beside_a_vault_never_makes_a_new_one() {
    let (place, _) = stocked().await;
    std::fs::remove_file(place.home.master_key()).unwrap();
    for error in [
        place.reopen().await.unwrap_err(),
        Vault::open_or_create(&place.home, &KeySource::default()).await.unwrap_err(),
    ] {
        assert!(matches!(error, VaultError::KeyMissing { .. }), "{error}");
        assert_eq!(error.exit_code(), 78);
        assert!(error.hint().unwrap().contains("master.key"));
    }
    assert!(!place.home.master_key().exists());
}

// VA-11
#[tokio::test]
async fn each_broken_key_file_has_its_own_error() {
    let (place, seen) = stocked().await;
    let path = place.home.master_key();
    let right = std::fs::read(&path).unwrap();
    let error_with = async |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        place.reopen().await.unwrap_err()
    };
    for bytes in [&right[..31], &[right.as_slice(), b"x"].concat(), b"", b"hello"] {
        let error = error_with(bytes).await;
        assert!(
            matches!(error, VaultError::KeyLength { found, newline: false, .. } if found == bytes.len()),
            "{error}"
        );
        assert_eq!(error.exit_code(), 78);
    }
    let error = error_with(&[right.as_slice(), b"\n"].concat()).await;
    assert!(matches!(error, VaultError::KeyLength { found: 33, newline: true, .. }), "{error}");
    assert!(error.to_string().contains("newline") && error.hint().unwrap().contains("newline"), "{error}");
    let error = error_with(&vec![b'x'; 1 << 20]).await;
    assert!(matches!(error, VaultError::Home(HomeError::TooLarge { .. })), "{error}");

    std::fs::write(&path, &right).unwrap();
    set_mode(&path, 0o644);
    let error = place.reopen().await.unwrap_err();
    assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
    assert_eq!(error.exit_code(), 78);
    set_mode(&path, 0o600);

    let aside = path.with_file_name("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = place.reopen().await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::IsADirectory { .. })), "{error}");
    std::fs::remove_dir(&path).unwrap();

    std::os::unix::fs::symlink(&aside, &path).unwrap();
    let error = place.reopen().await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::IsALink { .. })), "{error}");
    std::fs::remove_file(&path).unwrap();

    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let error = place.reopen().await.unwrap_err();
    assert!(matches!(error, VaultError::Home(HomeError::NotAFile { .. })), "{error}");
    std::fs::remove_file(&path).unwrap();

    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(observe(&place.reopen().await.unwrap()).await.unwrap(), seen);
}

#[tokio::test]
async fn a_key_may_be_written_as_text() {
    use base64::Engine as _;
    let (place, seen) = stocked().await;
    let path = place.home.master_key();
    let right = std::fs::read(&path).unwrap();
    let hex: String = right.iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [
        base64::engine::general_purpose::STANDARD.encode(&right) + "\n",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&right),
        hex.to_uppercase() + "\n",
        hex,
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(observe(&place.reopen().await.unwrap()).await.unwrap(), seen);
    }
}

#[tokio::test]
async fn a_key_may_stand_in_the_environment() {
    let place = place();
    let source = KeySource::parse("env:VAULT_KEY").unwrap();
    let text = "ab".repeat(32);
    let with = |key: Option<String>| {
        Unlock::with_variables(move |name| key.clone().filter(|_| name == "VAULT_KEY").map(std::ffi::OsString::from))
    };
    let (set, unset) = (with(Some(text)), with(None));
    let error = Vault::open_or_create_with(&place.home, &source, &unset).await.unwrap_err();
    assert!(matches!(error, VaultError::KeyNotGiven { .. }), "{error}");
    assert_eq!(error.exit_code(), 4);
    assert!(!place.home.vault_db().exists());

    let (_, opening) = Vault::open_or_create_with(&place.home, &source, &set).await.unwrap();
    assert_eq!(opening, Opening::Created);
    assert!(!place.home.master_key().exists(), "no key is written to the disk");
    Vault::open_with(&place.home, &source, &set, OlderCopy::Refuse).await.unwrap();
    let other = with(Some("cd".repeat(32)));
    let error = Vault::open_with(&place.home, &source, &other, OlderCopy::Refuse).await.unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    assert!(!error.to_string().contains("cdcd"));
    let error = Vault::open_with(&place.home, &source, &unset, OlderCopy::Refuse).await.unwrap_err();
    assert_eq!(error.exit_code(), 4);
}

#[tokio::test]
async fn key_sources_are_read_as_the_configuration_writes_them() {
    assert_eq!(KeySource::parse("file:master.key").unwrap(), KeySource::default());
    for bad in ["", "file:", "env:", "master.key", "passphrase:x", "keyring:x", "vault:x"] {
        assert!(matches!(KeySource::parse(bad), Err(VaultError::KeySource)), "{bad}");
    }
    let place = place();
    for later in ["keyring"] {
        let source = KeySource::parse(later).unwrap();
        let error = Vault::open_or_create(&place.home, &source).await.unwrap_err();
        assert!(matches!(error, VaultError::NotAvailableYet { .. }), "{error}");
        assert_eq!(error.exit_code(), 78);
    }
    assert!(!place.home.vault_db().exists());
}

#[tokio::test]
async fn an_open_vault_file_or_home_is_refused() {
    let (place, _) = stocked().await;
    for (path, hint) in
        [(place.home.vault_db(), "chmod 600 "), (place.home.vault_db().parent().unwrap().to_owned(), "chmod 700 ")]
    {
        let before = mode(&path);
        set_mode(&path, before | 0o022);
        let error = place.reopen().await.unwrap_err();
        assert_eq!(error.hint().unwrap(), format!("{hint}{}", path.display()));
        assert_eq!(error.exit_code(), 78);
        set_mode(&path, before);
    }
    place.reopen().await.unwrap();
}

#[tokio::test]
async fn a_key_file_may_have_another_place() {
    let place = place();
    std::fs::create_dir(place.dir.path().join("keys")).unwrap();
    let path = place.dir.path().join("keys/k");
    let source = KeySource::File(path.clone());
    Vault::open_or_create(&place.home, &source).await.unwrap();
    assert_eq!(mode(&path), 0o600);
    Vault::open(&place.home, &source).await.unwrap();
    assert!(matches!(place.reopen().await, Err(VaultError::KeyMissing { .. })));
    let nowhere = KeySource::File(place.dir.path().join("none/k"));
    std::fs::remove_file(place.home.vault_db()).unwrap();
    assert!(matches!(Vault::open_or_create(&place.home, &nowhere).await, Err(VaultError::Home(_))));
}
