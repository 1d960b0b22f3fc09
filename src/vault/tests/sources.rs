//! Root keys from a passphrase, a command and systemd.

use std::ffi::OsString;

use super::*;

fn with(variables: &[(&str, &str)]) -> Unlock {
    let all: Vec<(String, String)> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Unlock::with_variables(move |name| all.iter().find(|(known, _)| known == name).map(|(_, v)| OsString::from(v)))
}

async fn open(place: &Place, source: &KeySource, unlock: &Unlock) -> Result<Vault, VaultError> {
    Vault::open_with(&place.home, source, unlock, OlderCopy::Refuse).await
}

#[tokio::test]
async fn a_passphrase_opens_what_it_made_and_another_does_not() {
    let place = place();
    let source = KeySource::Passphrase;
    let error = Vault::open_or_create_with(&place.home, &source, &with(&[])).await.unwrap_err();
    assert!(matches!(error, VaultError::Locked { .. }), "{error}");
    assert_eq!(error.exit_code(), 4);
    let weak = with(&[("KEYFERRY_PASSPHRASE", "short")]);
    let error = Vault::open_or_create_with(&place.home, &source, &weak).await.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(!place.home.vault_db().exists());

    let file = place.dir.path().join("passphrase");
    std::fs::write(&file, "correct horse battery\n").unwrap();
    let by_file = with(&[("KEYFERRY_PASSPHRASE_FILE", file.to_str().unwrap())]);
    let (vault, _) = Vault::open_or_create_with(&place.home, &source, &by_file).await.unwrap();
    vault.set(draft("a"), secret(&canary()), NOW).await.unwrap();
    let seen = observe(&vault).await.unwrap();
    assert!(!place.home.master_key().exists());
    let typed = with(&[]).asking(|asked| {
        assert_eq!(asked, Asked::Present);
        Ok(Some(Secret::from("correct horse battery".to_owned())))
    });
    assert_eq!(observe(&open(&place, &source, &typed).await.unwrap()).await.unwrap(), seen);
    let error = open(&place, &source, &with(&[("KEYFERRY_PASSPHRASE", "incorrect horse")])).await.unwrap_err();
    assert!(matches!(error, VaultError::WrongKey { .. }), "{error}");
    assert!(!error.to_string().contains("horse"));
    for (unlock, words) in [
        (with(&[]), "nobody"),
        (with(&[("KEYFERRY_PASSPHRASE_FILE", "/nowhere")]), "/nowhere"),
        (with(&[("KEYFERRY_PASSPHRASE_FILE", "/dev/null")]), "empty"),
    ] {
        let error = open(&place, &source, &unlock).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 4);
    }
    // A vault with a key file does not ask.
    let error = Vault::open_with(&place.home, &KeySource::default(), &typed, OlderCopy::Refuse).await.unwrap_err();
    assert!(matches!(error, VaultError::KeyMissing { .. }), "{error}");
}

// VA-12
#[tokio::test]
async fn weaker_stored_parameters_are_refused() {
    let place = place();
    let unlock = with(&[("KEYFERRY_PASSPHRASE", "correct horse battery")]);
    Vault::open_or_create_with(&place.home, &KeySource::Passphrase, &unlock).await.unwrap();
    let weak = "UPDATE meta SET value = CAST(replace(value, '65536', '8') AS BLOB) WHERE name = 'kdf'";
    assert_eq!(place.database().execute(weak, []).unwrap(), 1);
    let error = open(&place, &KeySource::Passphrase, &unlock).await.unwrap_err();
    assert!(matches!(error, VaultError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_command_and_a_credential_of_systemd_give_the_key() {
    let key = "ab".repeat(32);
    let place = place();
    let source = KeySource::Command(format!("printf '%s\\n' {key}"));
    Vault::open_or_create(&place.home, &source).await.unwrap();
    Vault::open(&place.home, &source).await.unwrap();
    let error = Vault::open(&place.home, &KeySource::Command("exit 7".to_owned())).await.unwrap_err();
    assert_eq!(error.exit_code(), 4, "{error}");
    let error = Vault::open(&place.home, &KeySource::Command("echo short".to_owned())).await.unwrap_err();
    assert_eq!(error.exit_code(), 78, "{error}");

    let credentials = place.dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    crate::home::write_private(&credentials.join("kf"), key.as_bytes()).unwrap();
    let unlock = with(&[("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())]);
    open(&place, &KeySource::Credential("kf".to_owned()), &unlock).await.unwrap();
    for (name, unlock, code) in [("kf", with(&[]), 4), ("other", unlock.clone(), 4), ("../home/x", unlock, 78)] {
        let error = open(&place, &KeySource::Credential(name.to_owned()), &unlock).await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
    }
}
