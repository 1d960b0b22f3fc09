//! The root key: got from its source, and what it is for.
//!
//! Invariant: a root key is made only where there is neither a key nor a vault, and never written over anything.

mod command;
mod given;
mod passphrase;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub use self::given::{Asked, Unlock};
pub(super) use self::passphrase::Kdf;
use super::error::VaultError;
use super::key::{KEY_BYTES, Key, KeySource, WrapName, derive, key_of, new_key, random};
use super::record::{self, Context, KIND_WRAPPED_KEY};
use super::store::{Root, WrappedKey};
use crate::home::{Home, HomeError, read_secret_file, write_new_private};
use crate::secret::Secret;

/// Long enough for any textual form of a key; what is longer is no key.
const LIMIT: u64 = 4096;

/// The root key.
pub struct RootKey {
    key: Key,
    /// How it was made of a passphrase, if it was.
    kdf: Option<Kdf>,
    source_name: String,
}

/// What the vault says of how its root key is made.
pub(super) enum Made<'a> {
    /// There is a vault, and this is what it says.
    Stored(&'a Root),
    /// There is none yet.
    New,
}

impl RootKey {
    /// Gets the key of a vault that exists. Blocks: a person or a command may be asked.
    pub(super) fn load(source: &KeySource, home: &Home, unlock: &Unlock, made: &Made<'_>) -> Result<Self, VaultError> {
        let name = source.name(home);
        match source {
            KeySource::File(path) => {
                let path = home.resolve(path);
                match read_secret_file(&path, LIMIT) {
                    Ok(bytes) => Self::from_bytes(&bytes, name),
                    Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        Err(VaultError::KeyMissing { key: path, vault: home.vault_db() })
                    }
                    Err(error) => Err(error.into()),
                }
            }
            KeySource::Env(variable) => {
                let text =
                    unlock.variable(variable).ok_or_else(|| VaultError::KeyNotGiven { source_name: name.clone() })?;
                Self::from_bytes(&Zeroizing::new(text.into_encoded_bytes()), name)
            }
            KeySource::Credential(credential) => Self::from_bytes(&credential_of(credential, &name, unlock)?, name),
            KeySource::Command(command) => Self::from_bytes(&command::output(command)?, name),
            KeySource::Passphrase => match made {
                Made::New => Self::of_passphrase(Kdf::new()?, &unlock.passphrase(Asked::New)?, name),
                Made::Stored(root) => Self::from_passphrase(root, home, unlock, &name),
            },
            KeySource::Keyring => Err(VaultError::NotAvailableYet { what: "vault.master_key: keyring" }),
        }
    }

    /// Gets the key for a vault that is to be made; a key file that is not there is made as well.
    pub(super) fn load_or_create(source: &KeySource, home: &Home, unlock: &Unlock) -> Result<Self, VaultError> {
        match Self::load(source, home, unlock, &Made::New) {
            Err(VaultError::KeyMissing { key, .. }) => {
                Self::make_file(&key)?;
                Self::load(source, home, unlock, &Made::New)
            }
            other => other,
        }
    }

    /// Makes a key file where there is none.
    pub(super) fn make_file(path: &Path) -> Result<(), VaultError> {
        match write_new_private(path, new_key()?.bytes()) {
            Ok(()) => Ok(()),
            // Another process was first: its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(HomeError::Io { deed: "write", path: path.to_owned(), source }.into()),
        }
    }

    /// The key of a vault that has a passphrase, or had one until a change of the root key that is unfinished.
    fn from_passphrase(root: &Root, home: &Home, unlock: &Unlock, name: &str) -> Result<Self, VaultError> {
        let wrappings = std::iter::once(&root.wrapping).chain(&root.before);
        let with_kdf: Vec<_> = wrappings.filter_map(|wrapping| Some((wrapping, wrapping.kdf.clone()?))).collect();
        let wrong = || VaultError::WrongKey { source_name: name.to_owned(), vault: home.vault_db() };
        if with_kdf.is_empty() {
            return Err(wrong());
        }
        let passphrase = unlock.passphrase(Asked::Present)?;
        for (wrapping, kdf) in with_kdf {
            let key = Self::of_passphrase(kdf, &passphrase, name.to_owned())?;
            if bool::from(key.check().ct_eq(&wrapping.check)) {
                return Ok(key);
            }
        }
        Err(wrong())
    }

    fn of_passphrase(kdf: Kdf, passphrase: &Secret, source_name: String) -> Result<Self, VaultError> {
        Ok(Self { key: kdf.key(passphrase)?, kdf: Some(kdf), source_name })
    }

    /// A key that is nowhere else, for a vault in memory.
    pub(super) fn ephemeral() -> Result<Self, VaultError> {
        Ok(Self { key: new_key()?, kdf: None, source_name: "memory".to_owned() })
    }

    fn from_bytes(bytes: &[u8], source_name: String) -> Result<Self, VaultError> {
        let decoded;
        let found = if bytes.len() == KEY_BYTES {
            Some(bytes)
        } else {
            decoded = decode(bytes.trim_ascii()).filter(|decoded| decoded.len() == KEY_BYTES);
            decoded.as_ref().map(|decoded| decoded.as_slice())
        };
        let Some(found) = found else {
            let newline = bytes.len() == KEY_BYTES + 1 && bytes.ends_with(b"\n");
            return Err(VaultError::KeyLength { source_name, found: bytes.len(), newline });
        };
        let key = key_of(|key| {
            key.copy_from_slice(found);
            Ok(())
        })?;
        Ok(Self { key, kdf: None, source_name })
    }

    /// Where it came from, for messages.
    pub(super) fn source_name(&self) -> &str {
        &self.source_name
    }

    /// How it is made of a passphrase.
    pub(super) fn kdf(&self) -> Option<Kdf> {
        self.kdf.clone()
    }

    /// Tells it from every other root key.
    pub(super) fn check(&self) -> [u8; 16] {
        derive(self.key.bytes(), "root-check").first_chunk().copied().unwrap_or_default()
    }

    /// Seals a vault key.
    pub(super) fn wrap(&self, name: WrapName, key: &Key) -> Result<WrappedKey, VaultError> {
        let record = **random::<16>()?;
        let sealed = record::seal(self.key.bytes(), &context(name, record), key.bytes(), &**random()?)
            .map_err(|_| VaultError::System("a vault key could not be sealed"))?;
        Ok(WrappedKey { term: name.term, record, generation: name.generation, sealed })
    }

    /// Opens a vault key. `None` for every reason.
    pub(super) fn unwrap(&self, name: WrapName, wrapped: &WrappedKey) -> Option<Key> {
        let opened = record::open(self.key.bytes(), &context(name, wrapped.record), &wrapped.sealed).ok()?;
        let bytes: &[u8; KEY_BYTES] = opened.as_slice().try_into().ok()?;
        let key = key_of(|key| {
            key.copy_from_slice(bytes);
            Ok(())
        });
        key.ok()
    }
}

fn context(name: WrapName, record: [u8; 16]) -> Context {
    Context {
        deployment: name.deployment,
        vault: name.vault,
        record,
        kind: KIND_WRAPPED_KEY,
        term: name.term,
        version: name.generation,
    }
}

/// A credential that systemd put into a directory for this service alone.
fn credential_of(credential: &str, name: &str, unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let not_given = || VaultError::KeyNotGiven { source_name: name.to_owned() };
    // systemd.exec(5): a credential's name is a file name.
    if credential.contains('/') || credential.starts_with('.') {
        return Err(VaultError::KeySource);
    }
    let directory: OsString = unlock.variable("CREDENTIALS_DIRECTORY").ok_or_else(not_given)?;
    match read_secret_file(&Path::new(&directory).join(credential), LIMIT) {
        Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(not_given()),
        other => Ok(other?),
    }
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
