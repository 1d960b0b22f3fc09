//! What can go wrong with the CA.

use std::io;
use std::path::PathBuf;

use crate::clock::WallTime;
use crate::home::HomeError;
use crate::message::origin::Host;

/// Why there is no CA, or no certificate for a host.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be written.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory or the key is not as a secret's place must be.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Nothing is there yet.
    #[error("{path}: there is no CA yet")]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// One of the two files is missing.
    #[error("{missing}: is missing, while {present} is there")]
    Half {
        /// The file that is missing.
        missing: PathBuf,
        /// The one that is there.
        present: PathBuf,
    },
    /// The key file holds no private key.
    #[error("{path}: is not a private key in PEM form")]
    KeyBroken {
        /// The key file.
        path: PathBuf,
    },
    /// The certificate file holds no root of ours.
    #[error("{path}: is not a CA certificate that Keyferry made: {what}")]
    CertificateBroken {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Key and certificate are of different pairs.
    #[error("{key}: does not belong to the certificate in {certificate}")]
    Mismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
    },
    /// Another process holds the CA's lock.
    #[error("{path}: another process has been changing the CA for too long")]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The clock is outside of the root's life.
    #[error("the CA certificate is valid from {from} to {until}, and it is {now}")]
    NotValidNow {
        /// Start of its validity.
        from: WallTime,
        /// End of its validity.
        until: WallTime,
        /// What the clock says.
        now: WallTime,
    },
    /// A date that no certificate can carry.
    #[error("the clock says {now}, which no certificate can carry")]
    Clock {
        /// What the clock says.
        now: WallTime,
    },
    /// An address where a name is needed.
    #[error("'{host}' is an address, and addresses cannot be intercepted")]
    Address {
        /// As it was given.
        host: String,
    },
    /// Not a host.
    #[error("'{host}' is not a host")]
    BadHost {
        /// As it was given.
        host: String,
    },
    /// The constraints don't permit the host.
    #[error("the CA may not sign for {host}")]
    Outside {
        /// The host.
        host: Host,
    },
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Sign(#[from] rcgen::Error),
    /// A TLS configuration could not be made.
    #[error("a TLS configuration could not be made: {0}")]
    Tls(#[from] rustls::Error),
}

impl CaError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Read { path, .. } => format!("check who owns {} and its permissions", path.display()),
            Self::Write { path, .. } => {
                format!("check the space on, and the permissions of, the directory of {}", path.display())
            }
            Self::Home(error) => return error.hint(),
            Self::Missing { .. } => "keyferry run or keyferry serve makes one".to_owned(),
            Self::Half { missing, present } => format!(
                "restore {} from a backup, or move {} away to have a new CA made",
                missing.display(),
                present.display()
            ),
            Self::KeyBroken { path } | Self::CertificateBroken { path, .. } => format!(
                "restore {} from a backup, or move ca.key and ca.pem away to have a new CA made",
                path.display()
            ),
            Self::Mismatch { .. } => {
                "restore the pair from a backup, or move both files away to have a new CA made".to_owned()
            }
            Self::Busy { path } => format!("see which process holds {}: fuser {}", path.display(), path.display()),
            Self::NotValidNow { .. } | Self::Clock { .. } => "check the clock: date --utc".to_owned(),
            Self::Address { .. } => "use the host's name, or a route with action: tunnel".to_owned(),
            Self::BadHost { .. } => {
                "hosts are written api.example.com, api.example.com:8443 or *.example.com".to_owned()
            }
            Self::Outside { .. } => "keyferry reload makes a CA that covers the configuration".to_owned(),
            Self::Random | Self::Sign(_) | Self::Tls(_) => return None,
        };
        Some(text)
    }
}
