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
mod anchor;
mod changes;
mod copies;
mod credentials;
mod error;
pub mod integrity;
pub mod key;
mod many;
mod model;
mod payload;
pub mod record;
mod rekey;
mod reveal;
mod root;
mod sqlite;
pub mod store;
mod value;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

pub use self::agents::TOKEN_PREFIX;
use self::anchor::Anchor;
pub use self::changes::{Journal, Unrecorded};
pub use self::copies::Restored;
pub use self::error::VaultError;
use self::integrity::{Guard, Manifest};
pub use self::key::KeySource;
use self::key::{Keys, Opened as By};
pub use self::model::{
    AgentRow, Draft, Opened, Opening, PoolRow, Scope, SealedCredential, Stored, TokenKind, TokenRow, Verification,
    VersionInfo,
};
pub use self::rekey::{RootChange, VaultState};
pub use self::root::{Asked, Unlock};
use self::root::{Made, RootKey};
use self::sqlite::SqliteStore;
use self::store::Store;
pub use self::value::{VALUE_LIMIT, ValueError, clean, parts, preview, reference, with_fields};
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
    /// The key that wraps the others. Kept, since another process may begin a new term.
    root: ArcSwap<RootKey>,
    /// Where it all came from; none for a vault in memory.
    place: Option<Place>,
    journal: OnceLock<Arc<dyn Journal>>,
}

/// Where an open vault is.
struct Place {
    home: Home,
    source: KeySource,
    unlock: Unlock,
    anchor: Anchor,
}

/// What to do with a database that is older than one that was in use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderCopy {
    /// Not to open it.
    Refuse,
    /// To take it from now on, as a person said.
    Accept,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Opens the vault of `home`, with a key that the environment of the process leads to.
    ///
    /// # Errors
    /// [`VaultError::Missing`] when there is none; [`VaultError::KeyMissing`] and [`VaultError::WrongKey`] when its key is
    /// gone or another one.
    pub async fn open(home: &Home, source: &KeySource) -> Result<Self, VaultError> {
        Self::open_with(home, source, &Unlock::default(), OlderCopy::Refuse).await
    }

    /// Opens the vault of `home`.
    ///
    /// # Errors
    /// As [`Vault::open`], and [`VaultError::RolledBack`] for a database that is older than the one that was in use.
    pub async fn open_with(
        home: &Home,
        source: &KeySource,
        unlock: &Unlock,
        older: OlderCopy,
    ) -> Result<Self, VaultError> {
        let (home, source, unlock) = (home.clone(), source.clone(), unlock.clone());
        let opened = blocking(move || open_existing(&home, &source, &unlock)).await?;
        Self::from_store(opened, older).await
    }

    /// Opens the vault of `home`, or makes one where there is neither a vault nor a trace of one.
    ///
    /// # Errors
    /// As [`Vault::open`], except for [`VaultError::Missing`].
    pub async fn open_or_create(home: &Home, source: &KeySource) -> Result<(Self, Opening), VaultError> {
        Self::open_or_create_with(home, source, &Unlock::default()).await
    }

    /// The same, with a key that `unlock` leads to.
    ///
    /// # Errors
    /// As [`Vault::open_or_create`].
    pub async fn open_or_create_with(
        home: &Home,
        source: &KeySource,
        unlock: &Unlock,
    ) -> Result<(Self, Opening), VaultError> {
        let (home, source, unlock) = (home.clone(), source.clone(), unlock.clone());
        let (opened, opening) = blocking(move || open_or_create(&home, &source, &unlock)).await?;
        let older = match opening {
            Opening::Existing => OlderCopy::Refuse,
            // What an earlier vault of this place left is not this one's.
            Opening::Created => OlderCopy::Accept,
        };
        Ok((Self::from_store(opened, older).await?, opening))
    }

    /// A vault in memory with keys of its own, gone with its last clone.
    ///
    /// # Errors
    /// [`VaultError::System`] when the operating system has no randomness.
    pub async fn ephemeral() -> Result<Self, VaultError> {
        let root = RootKey::ephemeral()?;
        let (identity, manifest) = founded(&root)?;
        let store = SqliteStore::in_memory(&identity, &manifest)?;
        Self::from_store(Found { store, root, place: None }, OlderCopy::Refuse).await
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

    async fn from_store(opened: Found, older: OlderCopy) -> Result<Self, VaultError> {
        let Found { store, root, place } = opened;
        let read = store.root().await?;
        let path = place.as_ref().map_or_else(PathBuf::new, |(home, ..)| home.vault_db());
        let (keys, by) = Keys::unwrap(&root, &read.found, path.clone())?;
        let epoch = keys.guard().check(read.manifest)?.epoch;
        let place = place.map(|(home, source, unlock)| {
            let anchor = Anchor::beside(&path, keys.vault());
            Place { home, source, unlock, anchor }
        });
        if let Some(place) = &place {
            match older {
                OlderCopy::Refuse => place.anchor.check(keys.guard(), epoch)?,
                OlderCopy::Accept => place.anchor.accept(keys.guard(), epoch)?,
            }
        }
        let inner =
            Inner { store: Box::new(store), keys, root: ArcSwap::from_pointee(root), place, journal: OnceLock::new() };
        let vault = Self { inner: Arc::new(inner) };
        if by == By::Present && read.found.before.is_some() {
            // The new root key is where it should be, so the one before is needed no more. What fails here is tried
            // again by whoever opens the vault next.
            let _ = vault.end_root_before().await;
        }
        Ok(vault)
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

/// A store, the root key that should fit it, and where they came from.
struct Found {
    store: SqliteStore,
    root: RootKey,
    place: Option<(Home, KeySource, Unlock)>,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VaultError::System("a task of the vault was lost"))?
}

fn open_existing(home: &Home, source: &KeySource, unlock: &Unlock) -> Result<Found, VaultError> {
    let path = home.vault_db();
    home.check()?;
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(match sqlite::leftover(&path) {
            Some(log) => VaultError::Leftover { path: log },
            None => VaultError::Missing { path },
        });
    }
    let (store, root) = if *source == KeySource::Passphrase {
        // How the key is made of the passphrase stands in the vault.
        let store = SqliteStore::open(&path)?;
        let root = RootKey::load(source, home, unlock, &Made::Stored(&store.root_now()?))?;
        (store, root)
    } else {
        let root = RootKey::load(source, home, unlock, &Made::New)?;
        (SqliteStore::open(&path)?, root)
    };
    Ok(Found { store, root, place: Some((home.clone(), source.clone(), unlock.clone())) })
}

fn open_or_create(home: &Home, source: &KeySource, unlock: &Unlock) -> Result<(Found, Opening), VaultError> {
    home.create()?;
    match open_existing(home, source, unlock) {
        Err(VaultError::Missing { .. }) => {}
        other => return Ok((other?, Opening::Existing)),
    }
    let root = RootKey::load_or_create(source, home, unlock)?;
    let (identity, manifest) = founded(&root)?;
    if !SqliteStore::create(&home.vault_db(), &identity, &manifest)? {
        return Ok((open_existing(home, source, unlock)?, Opening::Existing));
    }
    // The key is at hand: a person is not asked a second time.
    let store = SqliteStore::open(&home.vault_db())?;
    Ok((Found { store, root, place: Some((home.clone(), source.clone(), unlock.clone())) }, Opening::Created))
}

/// What a new vault starts with.
fn founded(root: &RootKey) -> Result<(store::Root, Manifest), VaultError> {
    let identity = key::found(root)?;
    let (keys, _) = Keys::unwrap(root, &identity, PathBuf::new())?;
    Ok((identity, keys.guard().seal(Manifest::empty())))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;
