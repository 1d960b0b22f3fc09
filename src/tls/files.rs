//! The CA's two files: `ca.key` and `ca.pem`.
//!
//! Invariant: at every moment, a crash included, what is on the disk is one whole pair or none. The new certificate is
//! written aside first, then the key is replaced, then the certificate is moved in; a reader that finds a key which fits
//! the one set aside takes that.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::error::CaError;
use super::facts::fits;
use crate::home::{self, Home, HomeError};

/// How long another process may take to make a CA, which takes it milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// More than any P-256 key in PEM form, comments included.
const KEY_LIMIT: u64 = 16 * 1024;

/// What a directory holds.
pub(super) enum Found {
    /// Neither file.
    Nothing,
    /// Both, and they fit: the first certificate is the key's.
    Pair {
        /// The root's key.
        key: Zeroizing<KeyPair>,
        /// The root, and former ones after it.
        certificates: Vec<CertificateDer<'static>>,
        /// Whether the certificate is where it belongs.
        place: CertificatePlace,
    },
}

/// Where the certificate of a pair was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificatePlace {
    /// In `ca.pem`.
    Proper,
    /// Still aside: a writer was stopped before it moved it in.
    Aside,
}

impl Found {
    /// The root and former ones.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Nothing => &[],
            Self::Pair { certificates, .. } => certificates,
        }
    }
}

/// Where the certificate waits for its key.
fn aside_path(home: &Home) -> PathBuf {
    home.ca_dir().join("ca.pem.next")
}

/// Reads and checks the pair.
pub(super) fn read(home: &Home) -> Result<Found, CaError> {
    match read_once(home) {
        // Another process may have replaced both files between our reading of one and of the other.
        Err(CaError::Half { .. } | CaError::Mismatch { .. }) => read_once(home),
        other => other,
    }
}

fn read_once(home: &Home) -> Result<Found, CaError> {
    let (key_path, certificate_path) = (home.ca_key(), home.ca_cert());
    let key = read_key(&key_path)?;
    let certificates = read_certificates(&certificate_path)?;
    let Some(key) = key else {
        return match certificates {
            None => Ok(Found::Nothing),
            Some(_) => Err(CaError::Half { missing: key_path, present: certificate_path }),
        };
    };
    if let Some(certificates) = certificates.as_ref().filter(|list| list.first().is_some_and(|root| fits(&key, root))) {
        return Ok(Found::Pair { key, certificates: certificates.clone(), place: CertificatePlace::Proper });
    }
    // A writer was stopped between the key and the certificate.
    if let Ok(Some(aside)) = read_certificates(&aside_path(home))
        && aside.first().is_some_and(|root| fits(&key, root))
    {
        return Ok(Found::Pair { key, certificates: aside, place: CertificatePlace::Aside });
    }
    Err(match certificates {
        None => CaError::Half { missing: certificate_path, present: key_path },
        Some(_) => CaError::Mismatch { key: key_path, certificate: certificate_path },
    })
}

/// Puts a new pair in the place of what is there.
pub(super) fn write(home: &Home, _lock: &Lock, key: &KeyPair, certificates_pem: &str) -> Result<(), CaError> {
    let (key_path, aside) = (home.ca_key(), aside_path(home));
    let key_pem = Zeroizing::new(key.serialize_pem());
    write_public(&aside, certificates_pem.as_bytes()).map_err(|source| CaError::Write { path: aside, source })?;
    home::write_private(&key_path, key_pem.as_bytes()).map_err(|source| CaError::Write { path: key_path, source })?;
    move_in(home)
}

/// Reads the pair, and first completes what a stopped writer left.
pub(super) fn read_to_change(home: &Home, _lock: &Lock) -> Result<Found, CaError> {
    let found = read(home)?;
    if matches!(found, Found::Pair { place: CertificatePlace::Aside, .. }) {
        move_in(home)?;
    }
    Ok(found)
}

fn move_in(home: &Home) -> Result<(), CaError> {
    let path = home.ca_cert();
    fs::rename(aside_path(home), &path)
        .and_then(|()| home::sync_directory(&home.ca_dir()))
        .map_err(|source| CaError::Write { path, source })
}

/// One process at a time changes the CA.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory and takes its lock.
    pub(super) fn take(home: &Home) -> Result<Self, CaError> {
        let dir = home.ca_dir();
        home::create_private_dir(&dir)?;
        let path = dir.join("ca.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| CaError::Write { path: path.clone(), source })?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_LIMIT => std::thread::sleep(LOCK_PAUSE),
                Err(fs::TryLockError::WouldBlock) => return Err(CaError::Busy { path }),
                Err(fs::TryLockError::Error(source)) => return Err(CaError::Write { path, source }),
            }
        }
    }
}

/// For everybody to read, whatever the umask.
const PUBLIC: u32 = 0o644;

/// Writes a file of mode 0644 whole or not at all.
pub(super) fn write_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut suffix = [0_u8; 8];
    getrandom::fill(&mut suffix).map_err(io::Error::other)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", u64::from_ne_bytes(suffix)));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(PUBLIC).open(&temporary)?;
        // The mode at creation is less the umask.
        file.set_permissions(fs::Permissions::from_mode(PUBLIC))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        home::sync_directory(dir)
    })();
    if written.is_err() {
        // The first failure is the one to tell; a leftover is only untidy.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<KeyPair>>, CaError> {
    let bytes = match home::read_secret_file(path, KEY_LIMIT) {
        Ok(bytes) => bytes,
        Err(HomeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let key = std::str::from_utf8(&bytes).ok().and_then(|text| KeyPair::from_pem(text).ok());
    key.map(|key| Some(Zeroizing::new(key))).ok_or_else(|| CaError::KeyBroken { path: path.to_owned() })
}

fn read_certificates(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, CaError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CaError::Read { path: path.to_owned(), source }),
    };
    let broken = |what| CaError::CertificateBroken { path: path.to_owned(), what };
    let list = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| broken("its PEM form is damaged"))?;
    if list.is_empty() {
        return Err(broken("no certificate in it"));
    }
    Ok(Some(list))
}
