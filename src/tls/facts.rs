//! What a certificate of ours says about itself.
//!
//! Invariant: a root is only accepted as ours when a verifier would read the same limits in it as we do.

use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::profile::Validity;
use super::subtree::Subtrees;
use crate::clock::WallTime;

/// What is read off a root.
pub(super) struct Facts {
    pub(super) subject: String,
    pub(super) validity: Validity,
    pub(super) permitted: Subtrees,
}

impl Facts {
    /// Reads a root; the error says why it is none of ours.
    pub(super) fn read(root: &CertificateDer<'_>) -> Result<Self, &'static str> {
        let (rest, certificate) = X509Certificate::from_der(root).map_err(|_| "it cannot be parsed")?;
        if !rest.is_empty() {
            return Err("bytes follow the certificate");
        }
        let constraints = certificate.basic_constraints().ok().flatten().ok_or("it has no basic constraints")?;
        if !constraints.value.ca || constraints.value.path_len_constraint == Some(0) {
            return Err("it may not sign an intermediate CA");
        }
        let usage = certificate.key_usage().ok().flatten().ok_or("it has no key usage")?;
        if !usage.value.key_cert_sign() {
            return Err("it may not sign certificates");
        }
        let names = certificate.name_constraints().ok().flatten().ok_or("it has no name constraints")?;
        let permitted: Vec<&str> = names
            .value
            .permitted_subtrees
            .iter()
            .flatten()
            .filter_map(|tree| match tree.base {
                GeneralName::DNSName(name) => Some(name),
                _ => None,
            })
            .collect();
        // An empty list would read as "nothing" here and as "everything" to a verifier.
        if !names.critical || permitted.is_empty() {
            return Err("its name constraints permit every host");
        }
        let subject = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            subject: subject.ok_or("it has no common name")?.to_owned(),
            validity: validity_of(&certificate),
            permitted: Subtrees::from_names(permitted.into_iter()),
        })
    }
}

/// Whether `key` is the one that `certificate` speaks of.
pub(super) fn fits(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.public_key().raw == key.subject_public_key_info())
}

/// Whether it has not ended by `now`.
pub(super) fn still_valid(certificate: &CertificateDer<'_>, now: WallTime) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| now < validity_of(&certificate).until)
}

fn validity_of(certificate: &X509Certificate<'_>) -> Validity {
    let millis = |seconds: i64| WallTime(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let validity = certificate.validity();
    Validity { from: millis(validity.not_before.timestamp()), until: millis(validity.not_after.timestamp()) }
}

/// SHA-256 in upper-case hex with colons.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let hex: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    hex.join(":")
}
