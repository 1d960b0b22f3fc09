//! The vault's keys: where the root key comes from, and the keys that it wraps.
//!
//! The root key seals nothing but the vault keys (records of kind 4). Term 0 is the identity key: tokens, placeholders,
//! row MACs and the manifest hang on keys derived from it, so that they outlive a rotation of the others. Terms from 1
//! on seal credentials; the highest one seals new ones.
//!
//! A root key is replaced in two steps: for a while the keyring is there twice, wrapped by the new root key and by the one
//! before, so that whatever happens in between one of the two opens it.
//!
//! Invariant: keys are in memory of their own that is not swapped, and are overwritten when the vault is closed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::engine::general_purpose::{self, GeneralPurpose};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::integrity::Guard;
use super::record::{self, Context};
use super::root::RootKey;
use super::store::{Root, WrappedKey, Wrapping};
use crate::home::Home;
use crate::secret::Secret;
use crate::sys::KeyMemory;

pub use crate::sys::KEY_BYTES;

/// The term of the key that identifies tokens and protects rows.
const IDENTITY: u32 = 0;

/// A key in memory that is not swapped.
pub(super) type Key = Arc<KeyMemory>;

/// Where the root key comes from, `vault.master_key` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `file:PATH`: 32 bytes, raw or as text; made on first use. A relative path is in the home.
    File(PathBuf),
    /// `env:VAR`: as base64 or hexadecimal text.
    Env(String),
    /// `passphrase`.
    Passphrase,
    /// `keyring`.
    Keyring,
    /// `command:COMMAND`.
    Command(String),
    /// `credential:NAME`, of systemd.
    Credential(String),
}

impl Default for KeySource {
    fn default() -> Self {
        Self::File(PathBuf::from("master.key"))
    }
}

impl KeySource {
    /// Reads it as the configuration writes it.
    ///
    /// # Errors
    /// [`VaultError::KeySource`] for anything else.
    pub fn parse(text: &str) -> Result<Self, VaultError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("command", command)) if !command.is_empty() => Ok(Self::Command(command.to_owned())),
            Some(("credential", name)) if !name.is_empty() => Ok(Self::Credential(name.to_owned())),
            None if text == "passphrase" => Ok(Self::Passphrase),
            None if text == "keyring" => Ok(Self::Keyring),
            _ => Err(VaultError::KeySource),
        }
    }

    /// As the configuration writes it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Env(name) => format!("env:{name}"),
            Self::Passphrase => "passphrase".to_owned(),
            Self::Keyring => "keyring".to_owned(),
            Self::Command(command) => format!("command:{command}"),
            Self::Credential(name) => format!("credential:{name}"),
        }
    }

    /// What it is called in messages.
    pub(super) fn name(&self, home: &Home) -> String {
        match self {
            Self::File(path) => home.resolve(path).display().to_string(),
            Self::Env(name) => format!("env:{name}"),
            Self::Passphrase => "passphrase".to_owned(),
            Self::Keyring => "keyring".to_owned(),
            Self::Command(_) => "command".to_owned(),
            Self::Credential(name) => format!("credential:{name}"),
        }
    }
}

/// Makes the identity of a new vault: its names, and its keys wrapped by `root`.
pub(super) fn found(root: &RootKey) -> Result<Root, VaultError> {
    let (deployment, vault) = (**random()?, **random()?);
    let wrap = |term| root.wrap(WrapName { term, generation: 1, deployment, vault }, &new_key()?);
    let keyring = vec![wrap(IDENTITY)?, wrap(1)?];
    Ok(Root { deployment, vault, wrapping: Wrapping { check: root.check(), kdf: root.kdf(), keyring }, before: None })
}

/// Which wrapped key is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct WrapName {
    pub(super) term: u32,
    pub(super) generation: u64,
    pub(super) deployment: [u8; 16],
    pub(super) vault: [u8; 16],
}

/// The vault's keys, unwrapped.
pub struct Keys {
    deployment: [u8; 16],
    vault: [u8; 16],
    identity: Key,
    /// Changes when a new term begins; the other keys never do.
    terms: ArcSwap<Terms>,
    token: Zeroizing<[u8; KEY_BYTES]>,
    guard: Guard,
}

type Terms = BTreeMap<u32, Key>;

/// By which of the keys that may open a vault it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// By the present root key.
    Present,
    /// By the one before, while a change of the root key is unfinished.
    Before,
}

impl Keys {
    /// Unwraps the keyring of `stored`.
    pub(super) fn unwrap(root: &RootKey, stored: &Root, vault_path: PathBuf) -> Result<(Self, Opened), VaultError> {
        let (all, opened) = unwrap_all(root, stored, vault_path)?;
        let (identity, terms) = parted(all)?;
        let (deployment, vault) = (stored.deployment, stored.vault);
        let guard =
            Guard::new(derive(identity.bytes(), "row-mac"), derive(identity.bytes(), "manifest"), deployment, vault);
        let token = derive(identity.bytes(), "token-id");
        let terms = ArcSwap::from_pointee(terms);
        Ok((Self { deployment, vault, identity, terms, token, guard }, opened))
    }

    /// Takes the terms of `stored`, which another process may have changed. What was sealed under a term that has just
    /// ended still opens here: a snapshot may hold it.
    pub(super) fn renew(&self, root: &RootKey, stored: &Root, vault_path: PathBuf) -> Result<(), VaultError> {
        let same_vault = (stored.deployment, stored.vault) == (self.deployment, self.vault);
        let (all, _) = unwrap_all(root, stored, vault_path)?;
        let (identity, mut terms) = parted(all)?;
        if !same_vault || !bool::from(identity.bytes().ct_eq(self.identity.bytes())) {
            return Err(VaultError::corrupt("the vault's keyring"));
        }
        let newest = terms.last_key_value().map(|(term, _)| *term);
        if let Some((term, key)) = self.terms.load().last_key_value().filter(|(term, _)| Some(**term) < newest) {
            terms.entry(*term).or_insert_with(|| Arc::clone(key));
        }
        self.terms.store(Arc::new(terms));
        Ok(())
    }

    /// Whether these terms are the ones that are here; an ended one before the newest may be here as well.
    pub(super) fn are(&self, stored: &[WrappedKey]) -> bool {
        let terms = self.terms.load();
        let newest = stored.iter().map(|wrapped| wrapped.term).max();
        stored.iter().all(|wrapped| wrapped.term == IDENTITY || terms.contains_key(&wrapped.term))
            && newest == terms.last_key_value().map(|(term, _)| *term)
    }

    /// Whether what was sealed under `term` opens here.
    pub(super) fn has(&self, term: u32) -> bool {
        self.terms.load().contains_key(&term)
    }

    /// Every key wrapped anew by `root`.
    pub(super) fn wrapped_by(&self, root: &RootKey, stored: &Wrapping) -> Result<Wrapping, VaultError> {
        let terms = self.terms.load();
        let wrap = |before: &WrappedKey| {
            let key = if before.term == IDENTITY { Some(&self.identity) } else { terms.get(&before.term) };
            let key = key.ok_or_else(|| VaultError::corrupt("the vault's keyring"))?;
            let generation = before.generation.checked_add(1).ok_or(VaultError::VersionsExhausted)?;
            root.wrap(self.wrap_name(before.term, generation), key)
        };
        let keyring = stored.keyring.iter().map(wrap).collect::<Result<_, _>>()?;
        Ok(Wrapping { check: root.check(), kdf: root.kdf(), keyring })
    }

    /// The key of another term, wrapped by `root`.
    pub(super) fn new_term(&self, root: &RootKey, term: u32) -> Result<WrappedKey, VaultError> {
        root.wrap(self.wrap_name(term, 1), &new_key()?)
    }

    fn wrap_name(&self, term: u32, generation: u64) -> WrapName {
        WrapName { term, generation, deployment: self.deployment, vault: self.vault }
    }

    /// Which vault this is.
    pub(super) fn vault(&self) -> [u8; 16] {
        self.vault
    }

    /// What protects the rows.
    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Under which a token is on file.
    pub(super) fn token_digest(&self, token: &[u8]) -> [u8; 32] {
        record::keyed(&self.token, &[token])
    }

    /// A key for a use outside the vault, told apart from all inner ones.
    pub(super) fn for_use(&self, label: &str) -> Arc<Secret> {
        Arc::new(Secret::new(derive(self.identity.bytes(), &format!("use/{label}")).to_vec()))
    }

    /// The term that seals new records.
    pub(super) fn current_term(&self) -> u32 {
        self.terms.load().last_key_value().map_or(1, |(term, _)| *term)
    }

    /// Seals a record under the current term.
    pub(super) fn seal(&self, name: RecordName, payload: &[u8]) -> Result<Vec<u8>, VaultError> {
        let terms = self.terms.load();
        let (term, key) = terms.last_key_value().ok_or_else(|| VaultError::corrupt("the vault's keyring"))?;
        record::seal(key.bytes(), &self.context(name, *term), payload, &**random()?)
            .map_err(|_| VaultError::System("the record is too large"))
    }

    /// Opens a record of any term that is still on the keyring. `None` for every reason.
    pub(super) fn open(&self, name: RecordName, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let term = record::term(sealed)?;
        let terms = self.terms.load();
        let key = terms.get(&term)?;
        match record::open(key.bytes(), &self.context(name, term), sealed) {
            Ok(payload) => Some(payload),
            Err(error) => {
                tracing::error!(reason = %error, "a vault record did not open");
                None
            }
        }
    }

    fn context(&self, name: RecordName, term: u32) -> Context {
        Context {
            deployment: self.deployment,
            vault: self.vault,
            record: name.record,
            kind: name.kind,
            term,
            version: name.version,
        }
    }
}

/// The keyring of `stored`, opened by `root`, which may be the present root key or the one before.
fn unwrap_all(root: &RootKey, stored: &Root, vault_path: PathBuf) -> Result<(Terms, Opened), VaultError> {
    let check = root.check();
    let fits = |wrapping: &&Wrapping| bool::from(check.ct_eq(&wrapping.check));
    let (wrapping, opened) = match (fits(&&stored.wrapping), stored.before.as_ref().filter(fits)) {
        (true, _) => (&stored.wrapping, Opened::Present),
        (false, Some(before)) => (before, Opened::Before),
        (false, None) => return Err(no_fit(root, stored, vault_path)),
    };
    let corrupt = || VaultError::corrupt("the vault's keyring");
    let mut all = Terms::new();
    for wrapped in &wrapping.keyring {
        let name = WrapName {
            term: wrapped.term,
            generation: wrapped.generation,
            deployment: stored.deployment,
            vault: stored.vault,
        };
        all.insert(wrapped.term, root.unwrap(name, wrapped).ok_or_else(corrupt)?);
    }
    Ok((all, opened))
}

/// A root key whose check value is not the stored one opens nothing, or the stored one was changed.
fn no_fit(root: &RootKey, stored: &Root, vault: PathBuf) -> VaultError {
    let opens = stored.wrapping.keyring.iter().any(|wrapped| {
        let (term, generation) = (wrapped.term, wrapped.generation);
        let name = WrapName { term, generation, deployment: stored.deployment, vault: stored.vault };
        root.unwrap(name, wrapped).is_some()
    });
    if opens {
        return VaultError::corrupt("the vault's keyring");
    }
    VaultError::WrongKey { source_name: root.source_name().to_owned(), vault }
}

/// The identity key, and the others.
fn parted(mut all: Terms) -> Result<(Key, Terms), VaultError> {
    let identity = all.remove(&IDENTITY).filter(|_| !all.is_empty());
    Ok((identity.ok_or_else(|| VaultError::corrupt("the vault's keyring"))?, all))
}

/// A new key from the operating system's generator.
pub(super) fn new_key() -> Result<Key, VaultError> {
    key_of(|key| getrandom::fill(key).map_err(|_| VaultError::System("the operating system gave no randomness")))
}

/// A key that `fill` writes.
pub(super) fn key_of(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), VaultError>) -> Result<Key, VaultError> {
    Ok(Arc::new(KeyMemory::filled(fill)?))
}

/// Which record is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordName {
    pub(super) record: [u8; 16],
    pub(super) kind: u16,
    pub(super) version: u64,
}

/// Bytes from the operating system's generator.
pub(super) fn random<const N: usize>() -> Result<Box<Zeroizing<[u8; N]>>, VaultError> {
    let mut bytes = Box::new(Zeroizing::new([0; N]));
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| VaultError::System("the operating system gave no randomness"))?;
    Ok(bytes)
}

pub(super) fn derive(key: &[u8; KEY_BYTES], label: &str) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut output = Zeroizing::new([0; KEY_BYTES]);
    // RFC 5869 section 2.3: 32 bytes are far below the limit of 255 blocks.
    let info = [b"keyferry/v1 ".as_slice(), label.as_bytes()];
    let _ = Hkdf::<Sha256>::new(Some(b""), key).expand_multi_info(&info, output.as_mut_slice());
    output
}

/// Base64 as records hold it.
pub(super) const BASE64: GeneralPurpose = general_purpose::STANDARD;
