//! The certificates as they are made: which extensions, which lifetimes.
//!
//! Invariant: everything that rcgen would fill in by itself (name, dates, serial, key identifiers) is set here, because
//! its defaults are refused by strict verifiers (Python 3.13, Apple).

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::error::CaError;
use super::subtree::Subtrees;
use crate::clock::WallTime;

/// How the subject of every root of ours begins; upstream trust leaves such roots out.
pub(super) const ORGANISATION: &str = "Keyferry";
/// The root's common name before its key hash.
pub(super) const ROOT_NAME: &str = "Keyferry local CA";
const INTERMEDIATE_NAME: &str = "Keyferry session CA";

const DAY: Duration = Duration::from_hours(24);
/// One year: long enough not to be noticed, short enough for every platform (Apple caps at 825 days).
pub(super) const ROOT_LIFE: Duration = Duration::from_hours(24 * 365);
/// A root with less than this left is replaced.
pub(super) const ROOT_RENEWAL: Duration = Duration::from_hours(24 * 30);
/// An intermediate lives in memory; this bounds what a stolen one is good for.
pub(super) const INTERMEDIATE_LIFE: Duration = Duration::from_hours(24 * 90);
/// A leaf is valid for a day from when it is made.
pub(super) const LEAF_LIFE: Duration = DAY;
/// How far a leaf is backdated, for clients whose clock is behind.
pub(super) const LEAF_SKEW: Duration = Duration::from_hours(1);
/// How far the CAs are backdated.
pub(super) const CA_SKEW: Duration = DAY;
/// The upper bound of a common name (RFC 5280 appendix A.1, ub-common-name).
const COMMON_NAME_LIMIT: usize = 64;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: WallTime,
    pub(super) until: WallTime,
}

impl Validity {
    /// Backdated by `skew`, `life` long from now, and within `bounds`: a certificate that outlives its issuer or
    /// precedes it is refused by some verifiers and useless with the others.
    pub(super) fn new(now: WallTime, skew: Duration, life: Duration, bounds: Option<Self>) -> Self {
        let own = Self { from: minus(now, skew), until: now.plus(life) };
        match bounds {
            None => own,
            Some(bounds) => Self { from: own.from.max(bounds.from), until: own.until.min(bounds.until) },
        }
    }

    /// Whether `now` lies within.
    pub(super) fn contains(self, now: WallTime) -> bool {
        self.from <= now && now < self.until
    }
}

/// `time` less `duration`, not before the epoch.
pub(super) fn minus(time: WallTime, duration: Duration) -> WallTime {
    WallTime(time.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

/// The self-signed root.
pub(super) fn root(key: &KeyPair, permitted: &Subtrees, validity: Validity) -> Result<CertificateParams, CaError> {
    authority(key, ROOT_NAME, 1, permitted, validity)
}

/// The CA in memory that signs leaves.
pub(super) fn intermediate(
    key: &KeyPair,
    permitted: &Subtrees,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = authority(key, INTERMEDIATE_NAME, 0, permitted, validity)?;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The certificate that an agent sees for `host`.
pub(super) fn leaf(host: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = common(validity)?;
    // With an empty subject the alternative name becomes critical (RFC 5280 section 4.1.2.6); rcgen sees to that.
    if host.len() <= COMMON_NAME_LIMIT {
        params.distinguished_name.push(DnType::CommonName, host);
    }
    params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
    // Without "explicit", neither basicConstraints nor a subject key identifier would be written.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn authority(
    key: &KeyPair,
    name: &str,
    below: u8,
    permitted: &Subtrees,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = common(validity)?;
    params.distinguished_name.push(DnType::OrganizationName, ORGANISATION);
    // The key's hash makes the name unique: NSS and others take two CAs of one name for one CA.
    params.distinguished_name.push(DnType::CommonName, format!("{name} {}", key_hash(key)));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(permitted.constraints());
    Ok(params)
}

fn common(validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = date(validity.from)?;
    params.not_after = date(validity.until)?;
    Ok(params)
}

/// 127 random bits: positive, not zero, at most 20 octets (RFC 5280 section 4.1.2.2), and never derived from the key.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|_| CaError::Random)?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

fn date(time: WallTime) -> Result<OffsetDateTime, CaError> {
    let seconds = i64::try_from(time.unix_seconds()).map_err(|_| CaError::Clock { now: time })?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Clock { now: time })
}

fn key_hash(key: &KeyPair) -> String {
    Sha256::digest(key.subject_public_key_info()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
