//! The vault as its callers see it.

mod damage;
mod keys;
mod lifecycle;
mod rekey;
mod roster;
mod sources;
mod tamper;
mod writers;

use super::*;
use crate::clock::WallTime;
use crate::id::{AgentName, CredentialName, ProviderId};

/// A home of its own in a directory that goes away.
struct Place {
    home: Home,
    dir: tempfile::TempDir,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    Place { home: Home::at(dir.path().join("home")), dir }
}

impl Place {
    async fn vault(&self) -> Vault {
        Vault::open_or_create(&self.home, &KeySource::default()).await.unwrap().0
    }

    async fn reopen(&self) -> Result<Vault, VaultError> {
        Vault::open(&self.home, &KeySource::default()).await
    }

    /// The database, as somebody sees it who has no key.
    fn database(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.home.vault_db()).unwrap();
        connection.pragma_update(None, "synchronous", "off").unwrap();
        connection
    }
}

const NOW: WallTime = WallTime(1_764_000_000_000);

fn later(seconds: u64) -> WallTime {
    WallTime(NOW.0 + seconds * 1000)
}

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn agent(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

/// A value that looks like a provider's key, made anew for every test.
fn canary() -> String {
    let mut random = [0u8; 24];
    getrandom::fill(&mut random).unwrap();
    let body: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sk-ant-api03-{body}")
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn draft(text: &str) -> Draft {
    let name = name(text);
    Draft {
        provider: name.provider().cloned(),
        name,
        kind: "api-key".to_owned(),
        scope: Scope::Shared,
        env: None,
        install: true,
        hosts: vec!["api.anthropic.com".to_owned()],
        description: Some("for work".to_owned()),
        label: None,
    }
}

async fn opened(vault: &Vault, text: &str) -> Result<Opened, VaultError> {
    let all = vault.snapshot().await?;
    vault.unseal(all.iter().find(|credential| credential.stored.name == name(text)).unwrap())
}

/// Everything that the vault says, read through every door that it has. Values are in it.
async fn observe(vault: &Vault) -> Result<String, VaultError> {
    let mut seen = String::new();
    for credential in vault.snapshot().await? {
        let opened = vault.unseal(&credential)?;
        let value = String::from_utf8_lossy(opened.secret.expose()).into_owned();
        let stored = &credential.stored;
        seen += &format!("{stored:?} {opened:?} {value}\n");
        seen += &format!("{:?}\n", vault.history(&stored.name, &stored.scope).await?);
    }
    seen += &format!("{:?}\n{:?}\n", vault.agents().await?, vault.tokens().await?);
    let verification = vault.verify().await?;
    match verification.faults.into_iter().next() {
        Some(fault) => Err(fault),
        None => Ok(format!("{seen}{}", verification.records)),
    }
}
