//! The system's roots, and PEM in and out.
//!
//! Invariant: what the environment says (`SSL_CERT_FILE`, `SSL_CERT_DIR`) is never read here: Keyferry sets these
//! variables for the processes that it starts, to a bundle that holds its own CA, and would trust itself if it
//! inherited them.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::profile::{ORGANISATION, ROOT_NAME};

/// Where distributions keep the roots as one file, in the order in which they are tried; the first that holds a
/// certificate is taken alone.
const FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo, NixOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",   // older RHEL, Amazon Linux
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/pki/tls/cacert.pem",            // OpenELEC
    "/etc/ssl/cert.pem",                  // Alpine, OpenBSD, macOS
    "/usr/local/etc/ssl/cert.pem",        // FreeBSD
];

/// Directories of single certificates, taken only where no file was found: they hold things that are no roots, such
/// as Debian's self-signed `ssl-cert-snakeoil.pem`.
const DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Why a file of roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It could not be read, or its PEM form is damaged.
    #[error("{path}: cannot be read as PEM certificates: {what}")]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is no certificate in it.
    #[error("{path}: holds no certificate in PEM form")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The system's roots, without those of a Keyferry that somebody installed there. Empty where there are none.
pub(super) fn system() -> Vec<CertificateDer<'static>> {
    of_system(FILES.iter().map(Path::new), DIRECTORIES.iter().map(Path::new))
}

fn of_system<'a>(
    mut files: impl Iterator<Item = &'a Path>,
    mut directories: impl Iterator<Item = &'a Path>,
) -> Vec<CertificateDer<'static>> {
    let load = |file, directory| {
        let mut found = rustls_native_certs::load_certs_from_paths(file, directory).certs;
        found.retain(|certificate| !is_ours(certificate));
        Some(found).filter(|found| !found.is_empty())
    };
    files
        .find_map(|path| load(Some(path), None))
        .or_else(|| directories.find_map(|path| load(None, Some(path))))
        .unwrap_or_default()
}

/// All certificates of a PEM file, of which there must be one.
pub(super) fn from_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let unreadable = |what: String| RootsError::Unreadable { path: path.to_owned(), what };
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let list = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(error.to_string()))?;
    if list.is_empty() {
        return Err(RootsError::Empty { path: path.to_owned() });
    }
    Ok(list)
}

/// All certificates of a directory's files; what is no certificate is passed over, as OpenSSL does.
pub(super) fn from_directory(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    if !path.is_dir() {
        return Err(RootsError::Unreadable { path: path.to_owned(), what: "not a directory".to_owned() });
    }
    Ok(rustls_native_certs::load_certs_from_paths(None, Some(path)).certs)
}

/// Whether this is the root of a Keyferry, here or elsewhere: by its name, since keys change.
pub(super) fn is_ours(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| {
        let subject = certificate.subject();
        let ours = subject.iter_organization().any(|name| name.as_str().is_ok_and(|name| name == ORGANISATION));
        ours && subject.iter_common_name().any(|name| name.as_str().is_ok_and(|name| name.starts_with(ROOT_NAME)))
    })
}

/// PEM form (RFC 7468 section 2: lines of 64 characters).
pub(super) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(certificate);
    let mut text = String::with_capacity(encoded.len().saturating_add(encoded.len() / 64).saturating_add(64));
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while let Some((line, tail)) = rest.split_at_checked(64) {
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::super::testing::{certificates, hosts, now};
    use super::*;

    #[test]
    fn pem_goes_out_as_it_comes_in() {
        let key = rcgen::KeyPair::generate().unwrap();
        // Names of growing length bring the last line through every length.
        for length in 1..64 {
            let name = "a".repeat(length);
            let certificate = rcgen::CertificateParams::new([name]).unwrap().self_signed(&key).unwrap();
            let text = pem_of(certificate.der());
            assert_eq!(text, certificate.pem());
            assert_eq!(certificates(&text), [certificate.der().clone()]);
        }
    }

    #[test]
    fn knows_the_root_of_a_keyferry_by_its_name() {
        let ours = Authority::ephemeral(&hosts(&["x.test"]), now()).unwrap();
        assert!(is_ours(&certificates(ours.root_pem())[0]));
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["x.test".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Keyferry local CA of somebody");
        assert!(!is_ours(params.self_signed(&key).unwrap().der()));
        assert!(!is_ours(&CertificateDer::from(vec![1, 2, 3])));
    }

    #[test]
    fn the_first_file_with_roots_is_taken_without_ours_and_a_directory_only_without_one() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let stranger = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
        };
        let (one, two, three) = (stranger("one.test"), stranger("two.test"), stranger("three.test"));
        let ours = Authority::ephemeral(&hosts(&["x.test"]), now()).unwrap().root_pem().to_owned();
        std::fs::create_dir(at("directory")).unwrap();
        for (name, text) in [
            ("empty.pem", ""),
            ("ours.pem", ours.as_str()),
            ("one.pem", &format!("{ours}{one}")),
            ("two.pem", &two),
            ("directory/three.pem", &three),
            ("directory/ours.pem", &ours),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        for (files, expected) in [
            (&["missing.pem", "empty.pem", "one.pem", "two.pem"][..], one.as_str()),
            (&["ours.pem", "two.pem", "one.pem"], &two),
            (&["missing.pem", "ours.pem"], &three),
        ] {
            let files: Vec<PathBuf> = files.iter().map(|name| at(name)).collect();
            let directories = [at("missing"), at("directory")];
            let found = of_system(files.iter().map(PathBuf::as_path), directories.iter().map(PathBuf::as_path));
            assert_eq!(found, certificates(expected), "{files:?}");
        }
        assert!(of_system(std::iter::empty(), std::iter::once(at("missing").as_path())).is_empty());
    }

    #[test]
    fn the_environment_does_not_choose_the_systems_roots() {
        // The variables are what `run` sets for its child; this very test is the child.
        const MARK: &str = "KEYFERRY_TEST_CHILD";
        if std::env::var_os(MARK).is_some() {
            let chosen = certificates(&std::fs::read_to_string(std::env::var_os("SSL_CERT_FILE").unwrap()).unwrap());
            let found = system();
            assert!(found.len() > 1 && !found.contains(&chosen[0]));
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let stranger = rcgen::CertificateParams::new(["stranger.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = place.path().join("stranger.pem");
        std::fs::write(&file, stranger.pem()).unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tls::roots::tests::the_environment_does_not_choose_the_systems_roots"])
            .env(MARK, "1")
            .env("SSL_CERT_FILE", &file)
            .env("SSL_CERT_DIR", place.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
