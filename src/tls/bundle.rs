//! The file of roots that an agent's process is pointed at: what its programs trusted before, plus our CA.
//!
//! Invariant: the bundle only ever adds our root to what the caller trusted already.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::files::write_public;
use super::roots::{self, RootsError, pem_of};
use crate::home::{Home, HomeError, create_private_dir};

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
    /// The directory is not as it must be.
    #[error(transparent)]
    Home(#[from] HomeError),
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
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Inherited { variable, .. } => {
                Some(format!("unset {variable}, or point it at a file of PEM certificates"))
            }
            Self::Home(error) => error.hint(),
            Self::Write { path, .. } => {
                Some(format!("check the space on, and the permissions of, the directory of {}", path.display()))
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
    /// What the environment names: a file (`SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`, else `CURL_CA_BUNDLE`) in the
    /// place of the system's roots, and the directories of `SSL_CERT_DIR` in addition.
    #[must_use]
    pub fn from_environment(vars: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| vars(name).filter(|value| !value.is_empty());
        let file = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]
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

/// Writes `ca/bundle.pem`, mode 644, and says where it is: what [`bundle_pem`] gives.
///
/// # Errors
/// [`BundleError`] when a file that the caller's environment names is unusable, or the bundle cannot be written.
pub fn write_bundle(home: &Home, inherited: impl Into<Inherited>, root_pem: &str) -> Result<PathBuf, BundleError> {
    let (path, text) = (home.ca_bundle(), bundle_pem(&inherited.into(), root_pem)?);
    create_private_dir(&home.ca_dir())?;
    match write_public(&path, text.as_bytes()) {
        Ok(()) => Ok(path),
        Err(source) => Err(BundleError::Write { path, source }),
    }
}

/// Inherited or system roots and then `root_pem`, in PEM form, no certificate twice.
///
/// # Errors
/// [`BundleError`] when a file that the caller's environment names is unusable.
pub fn bundle_pem(inherited: &Inherited, root_pem: &str) -> Result<String, BundleError> {
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
    Ok(roots.iter().map(pem_of).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::Authority;
    use super::super::testing::{certificates, hosts, now};
    use super::*;

    /// Any CA will do for a corporate one.
    fn root() -> String {
        Authority::ephemeral(&hosts(&["x.test"]), now()).unwrap().root_pem().to_owned()
    }

    fn written(inherited: &Inherited, root_pem: &str) -> Vec<CertificateDer<'static>> {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path());
        let path = write_bundle(&home, inherited.clone(), root_pem).unwrap();
        assert_eq!(path, home.ca_bundle());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(home.ca_dir()).unwrap().count(), 1, "nothing is left beside it");
        certificates(&fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn holds_the_systems_roots_and_then_ours() {
        let ours = root();
        let system = roots::system();
        assert!(!system.is_empty(), "install the package ca-certificates");
        let all = written(&Inherited::default(), &ours);
        assert_eq!(all.len(), system.len() + 1);
        assert_eq!(all.last(), certificates(&ours).first());
    }

    #[test]
    fn holds_what_the_caller_trusts_and_no_more() {
        let place = tempfile::tempdir().unwrap();
        let (corporate, other, requests, ours) = (root(), root(), root(), root());
        let at = |name: &str| place.path().join(name);
        let directory = at("directory");
        fs::create_dir(&directory).unwrap();
        // Comments, a copy of ours (a run within a run) and a duplicate.
        fs::write(at("file.pem"), format!("# corporate\n{corporate}\n{ours}{corporate}")).unwrap();
        fs::write(at("requests.pem"), &requests).unwrap();
        fs::write(directory.join("other.pem"), &other).unwrap();
        fs::write(directory.join("corporate.pem"), &corporate).unwrap();
        fs::write(directory.join("README"), "not a certificate").unwrap();
        let list = format!("{}:{}:", directory.display(), at("missing").display());
        let one = |pem: &str| certificates(pem).remove(0);
        for (what, variables, expected) in [
            ("a file", &[("SSL_CERT_FILE", at("file.pem"))][..], vec![&corporate, &ours]),
            (
                "a file before another",
                &[("SSL_CERT_FILE", at("file.pem")), ("REQUESTS_CA_BUNDLE", at("requests.pem"))],
                vec![&corporate, &ours],
            ),
            ("another alone", &[("REQUESTS_CA_BUNDLE", at("requests.pem"))], vec![&requests, &ours]),
            (
                "a file and a directory",
                &[("SSL_CERT_FILE", at("file.pem")), ("SSL_CERT_DIR", list.into())],
                vec![&corporate, &other, &ours],
            ),
        ] {
            let inherited = Inherited::from_environment(&|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, path)| path.into())
            });
            let mut all = written(&inherited, &ours);
            let mut expected: Vec<_> = expected.into_iter().map(|pem| one(pem)).collect();
            all.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            expected.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            assert_eq!(all, expected, "{what}");
        }
        // A directory alone adds to the system's roots, as it does for OpenSSL.
        for variable in ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"] {
            let inherited = Inherited::from_environment(&|name| (name == variable).then(|| directory.clone().into()));
            assert_eq!(written(&inherited, &ours).len(), roots::system().len() + 3, "{variable}");
        }
        assert_eq!(written(&Some(at("file.pem").as_path()).into(), &ours).len(), 2);
        assert_eq!(Inherited::from_environment(&|_| Some(OsString::new())), Inherited::default());
    }

    #[test]
    fn says_which_variable_is_at_fault() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(place.path().join("home"));
        let empty = place.path().join("empty.pem");
        fs::write(&empty, "nothing").unwrap();
        let damaged = place.path().join("damaged.pem");
        fs::write(&damaged, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").unwrap();
        for file in [place.path().join("missing.pem"), empty, damaged] {
            let inherited = Inherited::from_environment(&|name| (name == "SSL_CERT_FILE").then(|| file.clone().into()));
            let error = write_bundle(&home, inherited, &root()).unwrap_err();
            assert!(
                error.to_string().starts_with(&format!("SSL_CERT_FILE is set, but {}: ", file.display())),
                "{error}"
            );
            assert!(error.hint().unwrap().starts_with("unset SSL_CERT_FILE"));
            assert!(!home.ca_bundle().exists());
        }
        // A directory stands where the bundle should.
        fs::create_dir_all(home.ca_bundle()).unwrap();
        let error = write_bundle(&home, None, &root()).unwrap_err();
        assert!(matches!(error, BundleError::Write { .. }), "{error}");
    }
}
