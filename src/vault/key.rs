//! The vault's keys: the root key, where it comes from, and the keys that it wraps.
//!
//! The root key seals nothing but the vault keys (records of kind 4). Term 0 is the identity key: tokens, placeholders,
//! row MACs and the manifest hang on keys derived from it, so that they outlive a rotation of the others. Terms from 1
//! on seal credentials; the highest one seals new ones.
//!
//! Invariant: a root key is made only where there is neither a key nor a vault, and never written over anything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::integrity::Guard;
use super::record::{self, Context, KIND_WRAPPED_KEY};
use super::store::{Root, WrappedKey};
use crate::home::{Home, HomeError, read_secret_file, write_new_private};
use crate::secret::Secret;

/// The length of every key here.
pub const KEY_BYTES: usize = 32;
/// The term of the key that identifies tokens and protects rows.
const IDENTITY: u32 = 0;

type KeyBytes = Box<Zeroizing<[u8; KEY_BYTES]>>;

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

    fn name(&self, home: &Home) -> String {
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

/// The root key.
pub struct RootKey {
    bytes: KeyBytes,
    source_name: String,
}

impl RootKey {
    /// Gets the key of a vault that exists.
    pub(super) fn load(
        source: &KeySource,
        home: &Home,
        vars: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, VaultError> {
        match source {
            KeySource::File(path) => {
                let path = home.resolve(path);
                // Long enough for any textual form; a longer file is no key.
                const LIMIT: u64 = 4096;
                match read_secret_file(&path, LIMIT) {
                    Ok(bytes) => Self::from_bytes(&bytes, source.name(home)),
                    Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        Err(VaultError::KeyMissing { key: path, vault: home.vault_db() })
                    }
                    Err(error) => Err(error.into()),
                }
            }
            KeySource::Env(variable) => {
                let text = vars(variable).filter(|text| !text.is_empty());
                let text = text.ok_or_else(|| VaultError::KeyNotGiven { source_name: source.name(home) })?;
                let bytes = Zeroizing::new(text.into_encoded_bytes());
                Self::from_bytes(&bytes, source.name(home))
            }
            KeySource::Passphrase => Err(VaultError::NotAvailableYet { what: "vault.master_key: passphrase" }),
            KeySource::Keyring => Err(VaultError::NotAvailableYet { what: "vault.master_key: keyring" }),
            KeySource::Command(_) => Err(VaultError::NotAvailableYet { what: "vault.master_key: command" }),
            KeySource::Credential(_) => Err(VaultError::NotAvailableYet { what: "vault.master_key: credential" }),
        }
    }

    /// Gets the key for a vault that is to be made; a key file that is not there is made as well.
    pub(super) fn load_or_create(
        source: &KeySource,
        home: &Home,
        vars: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, VaultError> {
        match Self::load(source, home, vars) {
            Err(VaultError::KeyMissing { key, .. }) => {
                match write_new_private(&key, random::<KEY_BYTES>()?.as_slice()) {
                    Ok(()) => {}
                    // Another process was first: its key is the key.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(source) => return Err(HomeError::Io { deed: "write", path: key, source }.into()),
                }
                Self::load(source, home, vars)
            }
            other => other,
        }
    }

    /// A key that is nowhere else, for a vault in memory.
    pub(super) fn ephemeral() -> Result<Self, VaultError> {
        Ok(Self { bytes: random()?, source_name: "memory".to_owned() })
    }

    fn from_bytes(bytes: &[u8], source_name: String) -> Result<Self, VaultError> {
        let mut key: KeyBytes = Box::new(Zeroizing::new([0; KEY_BYTES]));
        if bytes.len() == KEY_BYTES {
            key.copy_from_slice(bytes);
            return Ok(Self { bytes: key, source_name });
        }
        let text = bytes.trim_ascii();
        let decoded = decode(text).filter(|decoded| decoded.len() == KEY_BYTES);
        match decoded {
            Some(decoded) => {
                key.copy_from_slice(&decoded);
                Ok(Self { bytes: key, source_name })
            }
            None => Err(VaultError::KeyLength {
                source_name,
                found: bytes.len(),
                newline: bytes.len() == KEY_BYTES + 1 && bytes.ends_with(b"\n"),
            }),
        }
    }

    fn check_value(&self) -> [u8; 16] {
        let full = derive(&self.bytes, "root-check");
        full.first_chunk().copied().unwrap_or_default()
    }

    fn wrap(&self, term: u32, deployment: [u8; 16], vault: [u8; 16]) -> Result<WrappedKey, VaultError> {
        let name = random::<16>()?;
        let context = Context { deployment, vault, record: **name, kind: KIND_WRAPPED_KEY, term, version: 1 };
        let sealed = record::seal(&self.bytes, &context, random::<KEY_BYTES>()?.as_slice(), &**random()?)
            .map_err(|_| VaultError::System("a vault key could not be sealed"))?;
        Ok(WrappedKey { term, record: **name, generation: 1, sealed })
    }
}

/// Makes the identity of a new vault: its names, and its keys wrapped by `root`.
pub(super) fn found(root: &RootKey) -> Result<Root, VaultError> {
    let (deployment, vault) = (**random()?, **random()?);
    let keyring = vec![root.wrap(IDENTITY, deployment, vault)?, root.wrap(1, deployment, vault)?];
    Ok(Root { deployment, vault, root_check: root.check_value(), keyring })
}

/// The vault's keys, unwrapped.
pub struct Keys {
    deployment: [u8; 16],
    vault: [u8; 16],
    identity: KeyBytes,
    terms: BTreeMap<u32, KeyBytes>,
    token: Zeroizing<[u8; KEY_BYTES]>,
    guard: Guard,
}

impl Keys {
    /// Unwraps the keyring of `stored`.
    pub(super) fn unwrap(root: &RootKey, stored: &Root, vault_path: PathBuf) -> Result<Self, VaultError> {
        let right_root = bool::from(root.check_value().ct_eq(&stored.root_check));
        let mut terms = BTreeMap::new();
        for wrapped in &stored.keyring {
            let context = Context {
                deployment: stored.deployment,
                vault: stored.vault,
                record: wrapped.record,
                kind: KIND_WRAPPED_KEY,
                term: wrapped.term,
                version: wrapped.generation,
            };
            match record::open(&root.bytes, &context, &wrapped.sealed) {
                Ok(key) if right_root && key.len() == KEY_BYTES => {
                    let mut bytes: KeyBytes = Box::new(Zeroizing::new([0; KEY_BYTES]));
                    bytes.copy_from_slice(&key);
                    terms.insert(wrapped.term, bytes);
                }
                Err(_) if !right_root => {
                    return Err(VaultError::WrongKey { source_name: root.source_name.clone(), vault: vault_path });
                }
                _ => return Err(VaultError::corrupt("the vault's keyring")),
            }
        }
        let identity = terms.remove(&IDENTITY).ok_or_else(|| VaultError::corrupt("the vault's keyring"))?;
        if terms.is_empty() {
            return Err(VaultError::corrupt("the vault's keyring"));
        }
        let (deployment, vault) = (stored.deployment, stored.vault);
        let guard = Guard::new(derive(&identity, "row-mac"), derive(&identity, "manifest"), deployment, vault);
        let token = derive(&identity, "token-id");
        Ok(Self { deployment, vault, identity, terms, token, guard })
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
        Arc::new(Secret::new(derive(&self.identity, &format!("use/{label}")).to_vec()))
    }

    /// The term that seals new records.
    pub(super) fn current_term(&self) -> u32 {
        self.terms.last_key_value().map_or(1, |(term, _)| *term)
    }

    /// Seals a record under the current term.
    pub(super) fn seal(&self, name: RecordName, payload: &[u8]) -> Result<Vec<u8>, VaultError> {
        let term = self.current_term();
        let key = self.terms.get(&term).ok_or_else(|| VaultError::corrupt("the vault's keyring"))?;
        record::seal(key, &self.context(name, term), payload, &**random()?)
            .map_err(|_| VaultError::System("the record is too large"))
    }

    /// Opens a record of any term that is still on the keyring. `None` for every reason.
    pub(super) fn open(&self, name: RecordName, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let term = record::term(sealed)?;
        let key = self.terms.get(&term)?;
        match record::open(key, &self.context(name, term), sealed) {
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

fn derive(key: &[u8; KEY_BYTES], label: &str) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut output = Zeroizing::new([0; KEY_BYTES]);
    // RFC 5869 section 2.3: 32 bytes are far below the limit of 255 blocks.
    let info = [b"keyferry/v1 ".as_slice(), label.as_bytes()];
    let _ = Hkdf::<Sha256>::new(Some(b""), key).expand_multi_info(&info, output.as_mut_slice());
    output
}

/// Reads hexadecimal or base64 text of either alphabet, padded or not.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let decode_hex = || {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (pairs, rest) = text.as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok());
        rest.is_empty().then(|| bytes.collect::<Option<Vec<u8>>>().map(Zeroizing::new)).flatten()
    };
    if text.len() == 2 * KEY_BYTES {
        return decode_hex();
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [base64::alphabet::STANDARD, base64::alphabet::URL_SAFE]
        .iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, lenient).decode(text).ok().map(Zeroizing::new))
}

/// Base64 as records hold it.
pub(super) const BASE64: GeneralPurpose = general_purpose::STANDARD;
