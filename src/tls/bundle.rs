//! The file of roots that an agent's process is pointed at: what its programs trusted before, plus our CA.
//!
//! Invariant: the bundle only ever adds our root to what the caller trusted already.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::files::{PUBLIC, write_file};
use super::roots::{self, RootsError, pem_of};

/// Why the bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file or directory that the caller's environment names cannot be used.
    #[error("{variable} is set, but {source}")]
    Inherited {
        /// The variable, or `the inherited bundle`.
        variable: &'static str,
        /// What is wrong.
        source: RootsError,
    },
    /// The bundle could not be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// Where it was to be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl BundleError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Inherited { variable, .. } => format!("unset {variable}, or point it at a file of PEM certificates"),
            Self::Write { path, .. } => {
                format!("check the space on, and the permissions of, the directory of {}", path.display())
            }
        }
    }
}

/// The roots that the caller's own programs use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    file: Option<(&'static str, PathBuf)>,
    directories: Vec<PathBuf>,
}

impl Inherited {
    /// What the environment names: a file (`SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`) in the place of the system's
    /// roots, and the directories of `SSL_CERT_DIR` in addition.
    #[must_use]
    pub fn from_environment(vars: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| vars(name).filter(|value| !value.is_empty());
        let file = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
            .into_iter()
            .find_map(|name| set(name).map(|value| (name, PathBuf::from(value))));
        let directories = set("SSL_CERT_DIR").map(|list| std::env::split_paths(&list).collect()).unwrap_or_default();
        // Requests takes a directory in its variable as well.
        match file {
            Some((_, path)) if path.is_dir() => {
                let directories: Vec<PathBuf> = std::iter::once(path).chain(directories).collect();
                Self { file: None, directories }
            }
            file => Self { file, directories },
        }
    }
}

/// A file that takes the place of the system's roots.
impl From<Option<&Path>> for Inherited {
    fn from(file: Option<&Path>) -> Self {
        Self { file: file.map(|path| ("the inherited bundle", path.to_owned())), directories: Vec::new() }
    }
}

/// Writes the bundle to `path`, mode 644: inherited or system roots, then `root_pem`; no certificate twice.
///
/// # Errors
/// [`BundleError`] when a file that the caller's environment names is unusable, or the bundle cannot be written.
pub fn write_bundle_to(path: &Path, inherited: &Inherited, root_pem: &str) -> Result<(), BundleError> {
    let mut roots = match &inherited.file {
        None => roots::system(),
        Some((variable, file)) => {
            roots::from_file(file).map_err(|source| BundleError::Inherited { variable, source })?
        }
    };
    for directory in inherited.directories.iter().filter(|path| !path.as_os_str().is_empty()) {
        // OpenSSL passes over a directory that does not exist, and the default value often names one.
        if let Ok(more) = roots::from_directory(directory) {
            roots.extend(more);
        }
    }
    roots.extend(CertificateDer::pem_slice_iter(root_pem.as_bytes()).flatten());
    let mut seen = HashSet::new();
    roots.retain(|root| seen.insert(root.clone()));
    let text: String = roots.iter().map(pem_of).collect();
    write_file(path, text.as_bytes(), PUBLIC).map_err(|source| BundleError::Write { path: path.to_owned(), source })
}
