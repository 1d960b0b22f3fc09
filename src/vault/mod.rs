//! The encrypted store of credentials, agents and their tokens, and the pools' state.
//!
//! Every value is sealed in a record of its own ([`record`]) under keys that a root key wraps ([`key`]); the rows beside
//! the records carry MACs and are counted by a manifest ([`integrity`]); a [`Store`] keeps all of it and is
//! not trusted. Requests never wait for the vault: they read a snapshot and open what they need from it.
//!
//! Invariant: no value, token or key leaves this room except as a [`Secret`], and the database holds none of them in any
//! readable form.

/// Does a block of work again until nobody else was first. The block gives `Ok(None)` when somebody was. It is no
/// function, since a future made by a borrowed closure could not be moved between threads.
macro_rules! retrying {
    ($attempt:block) => {{
        // Each round of losers has one winner, so this many is more writers at once than there will ever be.
        const ROUNDS: usize = 1000;
        let mut done = None;
        for _ in 0..ROUNDS {
            let attempt: Result<Option<_>, VaultError> = async { $attempt }.await;
            done = attempt?;
            if done.is_some() {
                break;
            }
        }
        done.ok_or(VaultError::Busy)
    }};
}

mod agents;
mod amend;
mod credentials;
mod error;
pub mod integrity;
pub mod key;
mod many;
mod model;
mod payload;
pub mod record;
mod reveal;
mod sqlite;
pub mod store;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::agents::TOKEN_PREFIX;
pub use self::error::VaultError;
use self::integrity::{Guard, Manifest};
pub use self::key::KeySource;
use self::key::{Keys, RootKey};
pub use self::model::{
    AgentRow, Draft, Opened, Opening, PoolRow, Scope, SealedCredential, Stored, TokenKind, TokenRow, Verification,
    VersionInfo,
};
use self::sqlite::SqliteStore;
use self::store::Store;
pub use self::value::{VALUE_LIMIT, ValueError, clean, parts, preview, reference};
use crate::home::Home;
use crate::secret::Secret;

/// An open vault. Clones share it.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    store: Box<dyn Store>,
    keys: Keys,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Opens the vault of `home`.
    ///
    /// # Errors
    /// [`VaultError::Missing`] when there is none; [`VaultError::KeyMissing`] and [`VaultError::WrongKey`] when its key is
    /// gone or another one.
    pub async fn open(home: &Home, source: &KeySource) -> Result<Self, VaultError> {
        let (home, source) = (home.clone(), source.clone());
        let opened = blocking(move || open_existing(&home, &source, &process_environment)).await?;
        Self::from_store(opened).await
    }

    /// Opens the vault of `home`, or makes one where there is neither a vault nor a trace of one.
    ///
    /// # Errors
    /// As [`Vault::open`], except for [`VaultError::Missing`].
    pub async fn open_or_create(home: &Home, source: &KeySource) -> Result<(Self, Opening), VaultError> {
        let (home, source) = (home.clone(), source.clone());
        let (opened, opening) = blocking(move || open_or_create(&home, &source, &process_environment)).await?;
        Ok((Self::from_store(opened).await?, opening))
    }

    /// A vault in memory with keys of its own, gone with its last clone.
    ///
    /// # Errors
    /// [`VaultError::System`] when the operating system has no randomness.
    pub async fn ephemeral() -> Result<Self, VaultError> {
        let root = RootKey::ephemeral()?;
        let (identity, manifest) = founded(&root)?;
        let store = SqliteStore::in_memory(&identity, &manifest)?;
        Self::from_store(Found { store, root, path: PathBuf::from(":memory:") }).await
    }

    /// 32 bytes for a use outside the vault, the same for every opening of this vault.
    #[must_use]
    pub fn derived_key(&self, label: &'static str) -> Arc<Secret> {
        self.keys().for_use(label)
    }

    /// The pools' state.
    ///
    /// # Errors
    /// What keeps the vault from reading.
    pub async fn pool_rows(&self) -> Result<Vec<PoolRow>, VaultError> {
        let rows = self.store().pool_rows().await?;
        Ok(rows.into_iter().map(|(scope, json)| PoolRow { scope, json }).collect())
    }

    /// Replaces the state of these scopes and leaves the others.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn save_pool_rows(&self, rows: Vec<PoolRow>) -> Result<(), VaultError> {
        self.store().save_pool_rows(rows.into_iter().map(|row| (row.scope, row.json)).collect()).await
    }

    /// Changes whenever credentials, agents or tokens were changed, by whatever process. The pools' state and the times
    /// at which agents were seen do not count.
    ///
    /// # Errors
    /// What keeps the vault from reading.
    pub async fn data_version(&self) -> Result<u64, VaultError> {
        Ok(self.store().manifest().await?.epoch)
    }

    async fn from_store(opened: Found) -> Result<Self, VaultError> {
        let stored = opened.store.root().await?;
        let keys = Keys::unwrap(&opened.root, &stored, opened.path)?;
        keys.guard().check(opened.store.manifest().await?)?;
        Ok(Self { inner: Arc::new(Inner { store: Box::new(opened.store), keys }) })
    }

    fn store(&self) -> &dyn Store {
        self.inner.store.as_ref()
    }

    fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    fn guard(&self) -> &Guard {
        self.inner.keys.guard()
    }
}

/// A store and the root key that should fit it.
struct Found {
    store: SqliteStore,
    root: RootKey,
    path: PathBuf,
}

type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn process_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VaultError::System("a task of the vault was lost"))?
}

fn open_existing(home: &Home, source: &KeySource, vars: Environment<'_>) -> Result<Found, VaultError> {
    let path = home.vault_db();
    home.check()?;
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(match sqlite::leftover(&path) {
            Some(log) => VaultError::Leftover { path: log },
            None => VaultError::Missing { path },
        });
    }
    let root = RootKey::load(source, home, vars)?;
    let store = SqliteStore::open(&path)?;
    Ok(Found { store, root, path })
}

fn open_or_create(home: &Home, source: &KeySource, vars: Environment<'_>) -> Result<(Found, Opening), VaultError> {
    home.create()?;
    match open_existing(home, source, vars) {
        Err(VaultError::Missing { .. }) => {}
        other => return Ok((other?, Opening::Existing)),
    }
    let root = RootKey::load_or_create(source, home, vars)?;
    let (identity, manifest) = founded(&root)?;
    let first = SqliteStore::create(&home.vault_db(), &identity, &manifest)?;
    let opening = if first { Opening::Created } else { Opening::Existing };
    Ok((open_existing(home, source, vars)?, opening))
}

/// What a new vault starts with.
fn founded(root: &RootKey) -> Result<(store::Root, Manifest), VaultError> {
    let identity = key::found(root)?;
    let keys = Keys::unwrap(root, &identity, PathBuf::new())?;
    Ok((identity, keys.guard().seal(Manifest::empty())))
}

#[cfg(test)]
mod tests;
