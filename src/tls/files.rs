//! The CA's two files: `ca.key` and `ca.pem`.
//!
//! Invariant: at every moment, a crash included, what is on the disk is one whole pair or none. The new certificate is
//! written aside first, then the key is replaced, then the certificate is moved in; a reader that finds a key which fits
//! the one set aside takes that.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::error::CaError;
use super::facts::fits;

/// How long another process may take to make a CA, which takes it milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

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
    },
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

/// Where the certificate is.
pub(super) fn certificate_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}

fn aside_path(dir: &Path) -> PathBuf {
    dir.join("ca.pem.next")
}

/// Reads and checks the pair.
pub(super) fn read(dir: &Path) -> Result<Found, CaError> {
    let (key_path, certificate_path) = (key_path(dir), certificate_path(dir));
    let key = read_key(&key_path)?;
    let certificates = read_certificates(&certificate_path)?;
    let Some(key) = key else {
        return match certificates {
            None => Ok(Found::Nothing),
            Some(_) => Err(CaError::Half { missing: key_path, present: certificate_path }),
        };
    };
    if let Some(certificates) = certificates.as_ref().filter(|list| list.first().is_some_and(|root| fits(&key, root))) {
        return Ok(Found::Pair { key, certificates: certificates.clone() });
    }
    // A writer was stopped between the key and the certificate.
    if let Ok(Some(aside)) = read_certificates(&aside_path(dir))
        && aside.first().is_some_and(|root| fits(&key, root))
    {
        return Ok(Found::Pair { key, certificates: aside });
    }
    Err(match certificates {
        None => CaError::Half { missing: certificate_path, present: key_path },
        Some(_) => CaError::Mismatch { key: key_path, certificate: certificate_path },
    })
}

/// Puts a new pair in the place of what is there.
pub(super) fn write(dir: &Path, _lock: &Lock, key: &KeyPair, certificates_pem: &str) -> Result<(), CaError> {
    let (key_path, aside) = (key_path(dir), aside_path(dir));
    let key_pem = Zeroizing::new(key.serialize_pem());
    write_file(&aside, certificates_pem.as_bytes(), PUBLIC).map_err(|source| CaError::Write { path: aside, source })?;
    write_file(&key_path, key_pem.as_bytes(), PRIVATE).map_err(|source| CaError::Write { path: key_path, source })?;
    move_in(dir)
}

/// Completes what a stopped writer left.
pub(super) fn finish(dir: &Path, _lock: &Lock) -> Result<(), CaError> {
    let aside = aside_path(dir);
    let Some(key) = read_key(&key_path(dir))? else { return Ok(()) };
    match read_certificates(&aside) {
        Ok(Some(list)) if list.first().is_some_and(|root| fits(&key, root)) => move_in(dir),
        _ => Ok(()),
    }
}

fn move_in(dir: &Path) -> Result<(), CaError> {
    let path = certificate_path(dir);
    fs::rename(aside_path(dir), &path)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|source| CaError::Write { path, source })
}

/// One process at a time changes the CA.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory and takes its lock.
    pub(super) fn take(dir: &Path) -> Result<Self, CaError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CaError::Write { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let path = dir.join("ca.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE)
            .open(&path)
            .map_err(failed(&path))?;
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

/// For the owner alone.
pub(super) const PRIVATE: u32 = 0o600;
/// For everybody to read.
pub(super) const PUBLIC: u32 = 0o644;

/// Writes a file whole or not at all.
pub(super) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut suffix = [0_u8; 8];
    getrandom::fill(&mut suffix).map_err(io::Error::other)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", u64::from_ne_bytes(suffix)));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode at creation is less the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        // The first failure is the one to tell; a leftover is only untidy.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<KeyPair>>, CaError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(CaError::KeyBroken { path: path.to_owned() });
        }
        Err(source) => return Err(CaError::Read { path: path.to_owned(), source }),
    };
    check_mode(path)?;
    match KeyPair::from_pem(&text) {
        Ok(key) => Ok(Some(Zeroizing::new(key))),
        Err(_) => Err(CaError::KeyBroken { path: path.to_owned() }),
    }
}

fn check_mode(path: &Path) -> Result<(), CaError> {
    let metadata = fs::metadata(path).map_err(|source| CaError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o026 != 0 {
        return Err(CaError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
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
