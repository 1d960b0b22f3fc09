//! The local CA: a name-constrained root in the home, and the intermediates that it signs.
//!
//! Invariant: a root that is there is used, or replaced for a reason that is told, or refused with a hint; what is
//! broken is never replaced silently. Key and certificate always fit.

use std::fmt;
use std::sync::Arc;

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::error::CaError;
use super::facts::{Facts, fingerprint, still_valid};
use super::files::{self, CertificatePlace, Found};
use super::profile::{self, Validity};
use super::roots::pem_of;
use super::subtree::Subtrees;
use crate::clock::WallTime;
use crate::home::Home;

/// What [`Authority::load_or_create`] found or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The root that was there.
    Existing,
    /// The first root.
    Created,
    /// A new root in the place of an old one, which stays in the bundle until its end.
    Renewed {
        /// Why.
        reason: Renewal,
    },
}

/// Why a root was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// It had less than 30 days left, or none.
    Expiring {
        /// When it ends, or ended.
        until: WallTime,
    },
    /// These subtrees are needed and the old root does not permit them.
    Hosts(Vec<String>),
    /// Somebody asked for it.
    Asked,
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expiring { until } => write!(f, "the old CA certificate ends {until}"),
            Self::Hosts(hosts) => write!(f, "the old CA may not sign for {}", hosts.join(", ")),
            Self::Asked => f.write_str("a new CA was asked for"),
        }
    }
}

/// What there is to know of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaInfo {
    /// The subject's common name, unique to the key.
    pub subject: String,
    /// SHA-256 of the certificate, upper-case hex with colons, as `openssl x509 -fingerprint -sha256` writes it.
    pub fingerprint: String,
    /// Start of its validity.
    pub not_before: WallTime,
    /// End of its validity.
    pub not_after: WallTime,
    /// The DNS subtrees that it may sign for.
    pub permitted: Vec<String>,
}

/// The root, ready to sign intermediates.
pub struct Authority {
    root: CertificateDer<'static>,
    pem: String,
    key: Zeroizing<KeyPair>,
    permitted: Subtrees,
    in_use: Subtrees,
    validity: Validity,
    info: CaInfo,
}

impl Authority {
    /// Takes the root of `home`; makes one where there is none, where it ends within 30 days, and where a host
    /// lies outside of what it may sign for.
    ///
    /// # Errors
    /// [`CaError`] when a host is an address or malformed, or when what is there is broken.
    pub fn load_or_create(home: &Home, hosts: &[String], now: WallTime) -> Result<(Arc<Self>, Loaded), CaError> {
        let wanted = Subtrees::covering(hosts)?;
        // Most starts need no change, and a home may be mounted read-only: look before asking for the lock.
        if let Ok(found @ Found::Pair { place: CertificatePlace::Proper, .. }) = files::read(home)
            && let Ok(authority) = Self::from_found(home, found, &wanted)
            && authority.reason_to_renew(&wanted, now).is_none()
        {
            authority.check_valid(now)?;
            return Ok((Arc::new(authority), Loaded::Existing));
        }
        let lock = files::Lock::take(home)?;
        let (former, permitted, loaded) = match files::read_to_change(home, &lock)? {
            Found::Nothing => (Vec::new(), wanted.clone(), Loaded::Created),
            found @ Found::Pair { .. } => {
                let former = found.certificates().to_vec();
                let authority = Self::from_found(home, found, &wanted)?;
                match authority.reason_to_renew(&wanted, now) {
                    None => {
                        authority.check_valid(now)?;
                        return Ok((Arc::new(authority), Loaded::Existing));
                    }
                    // Another process of this home may need what this one does not: without the old hosts the two
                    // would renew in turn.
                    Some(reason @ Renewal::Hosts(_)) => {
                        (former, wanted.with(&authority.permitted), Loaded::Renewed { reason })
                    }
                    Some(reason) => (former, wanted.clone(), Loaded::Renewed { reason }),
                }
            }
        };
        let mut authority = Self::make(&permitted, &former, now)?;
        authority.in_use = wanted;
        files::write(home, &lock, &authority.key, &authority.pem)?;
        Ok((Arc::new(authority), loaded))
    }

    /// Makes a new root even though the old one would do. A pair that is broken is an error here as well.
    ///
    /// # Errors
    /// [`CaError`] as for [`Authority::load_or_create`].
    pub fn rotate(home: &Home, hosts: &[String], now: WallTime) -> Result<(Arc<Self>, Loaded), CaError> {
        let wanted = Subtrees::covering(hosts)?;
        let lock = files::Lock::take(home)?;
        let (former, loaded) = match files::read_to_change(home, &lock)? {
            Found::Nothing => (Vec::new(), Loaded::Created),
            found @ Found::Pair { .. } => {
                let former = found.certificates().to_vec();
                Self::from_found(home, found, &wanted)?;
                (former, Loaded::Renewed { reason: Renewal::Asked })
            }
        };
        let authority = Self::make(&wanted, &former, now)?;
        files::write(home, &lock, &authority.key, &authority.pem)?;
        Ok((Arc::new(authority), loaded))
    }

    /// Takes the root of `home` as it is, whatever its dates.
    ///
    /// # Errors
    /// [`CaError`] when there is none, or when it is broken.
    pub fn load(home: &Home) -> Result<Arc<Self>, CaError> {
        match files::read(home)? {
            Found::Nothing => Err(CaError::Missing { path: home.ca_cert() }),
            found @ Found::Pair { .. } => {
                let mut authority = Self::from_found(home, found, &Subtrees::covering::<&str>(&[])?)?;
                authority.in_use = authority.permitted.clone();
                Ok(Arc::new(authority))
            }
        }
    }

    /// A root that is never written anywhere.
    ///
    /// # Errors
    /// [`CaError`] when a host is an address or malformed, or when a certificate cannot be made.
    pub fn ephemeral(hosts: &[String], now: WallTime) -> Result<Arc<Self>, CaError> {
        Ok(Arc::new(Self::make(&Subtrees::covering(hosts)?, &[], now)?))
    }

    /// The root in PEM form and, after it, former roots that have not ended yet: what a client has to trust.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.pem
    }

    /// What there is to know of the root.
    #[must_use]
    pub fn info(&self) -> CaInfo {
        self.info.clone()
    }

    /// Why this root should be replaced by another [`Authority::load_or_create`], in a process that has been up for long
    /// or whose configuration has changed.
    ///
    /// # Errors
    /// [`CaError`] when a host is an address or malformed.
    pub fn outdated(&self, hosts: &[String], now: WallTime) -> Result<Option<Renewal>, CaError> {
        Ok(self.reason_to_renew(&Subtrees::covering(hosts)?, now))
    }

    /// The hosts that the process said it uses.
    pub(super) fn in_use(&self) -> &Subtrees {
        &self.in_use
    }

    /// Signs an intermediate for `permitted`, as long as the root lives, 90 days at most.
    pub(super) fn intermediate(&self, permitted: &Subtrees, now: WallTime) -> Result<Intermediate, CaError> {
        self.check_valid(now)?;
        let key = Zeroizing::new(KeyPair::generate()?);
        let validity = Validity::new(now, profile::CA_SKEW, profile::INTERMEDIATE_LIFE, Some(self.validity));
        let issuer = Issuer::from_ca_cert_der(&self.root, &*self.key)?;
        let certificate = profile::intermediate(&key, permitted, validity)?.signed_by(&*key, &issuer)?;
        Ok(Intermediate {
            certificate: certificate.into(),
            key,
            validity,
            ends_with_root: validity.until == self.validity.until,
        })
    }

    /// What somebody has who can read the key file.
    #[cfg(test)]
    pub(super) fn stolen(&self) -> (&CertificateDer<'static>, &KeyPair) {
        (&self.root, &self.key)
    }

    fn make(permitted: &Subtrees, former: &[CertificateDer<'static>], now: WallTime) -> Result<Self, CaError> {
        let key = Zeroizing::new(KeyPair::generate()?);
        let validity = Validity::new(now, profile::CA_SKEW, profile::ROOT_LIFE, None);
        let root: CertificateDer<'static> = profile::root(&key, permitted, validity)?.self_signed(&*key)?.into();
        let mut pem = pem_of(&root);
        for old in former.iter().filter(|old| still_valid(old, now)).take(FORMER_LIMIT) {
            pem.push_str(&pem_of(old));
        }
        let facts = Facts::read(&root).map_err(|what| CaError::CertificateBroken { path: "ca.pem".into(), what })?;
        Ok(Self::assemble(root, pem, key, facts, permitted.clone()))
    }

    fn from_found(home: &Home, found: Found, in_use: &Subtrees) -> Result<Self, CaError> {
        let Found::Pair { key, certificates, .. } = found else {
            return Err(CaError::Missing { path: home.ca_cert() });
        };
        let broken = |what| CaError::CertificateBroken { path: home.ca_cert(), what };
        let root = certificates.first().cloned().ok_or_else(|| broken("no certificate in it"))?;
        let facts = Facts::read(&root).map_err(broken)?;
        let pem = certificates.iter().map(pem_of).collect();
        Ok(Self::assemble(root, pem, key, facts, in_use.clone()))
    }

    fn assemble(
        root: CertificateDer<'static>,
        pem: String,
        key: Zeroizing<KeyPair>,
        facts: Facts,
        in_use: Subtrees,
    ) -> Self {
        let info = CaInfo {
            subject: facts.subject,
            fingerprint: fingerprint(&root),
            not_before: facts.validity.from,
            not_after: facts.validity.until,
            permitted: facts.permitted.names().map(str::to_owned).collect(),
        };
        Self { root, pem, key, permitted: facts.permitted, in_use, validity: facts.validity, info }
    }

    fn reason_to_renew(&self, wanted: &Subtrees, now: WallTime) -> Option<Renewal> {
        if self.validity.until < now.plus(profile::ROOT_RENEWAL) {
            return Some(Renewal::Expiring { until: self.validity.until });
        }
        let lacking = self.permitted.lacking(wanted);
        (!lacking.is_empty()).then_some(Renewal::Hosts(lacking))
    }

    fn check_valid(&self, now: WallTime) -> Result<(), CaError> {
        if self.validity.contains(now) {
            return Ok(());
        }
        Err(CaError::NotValidNow { from: self.validity.from, until: self.validity.until, now })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A CA in memory that signs leaves.
pub(super) struct Intermediate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: Zeroizing<KeyPair>,
    pub(super) validity: Validity,
    /// A new one would not live any longer.
    pub(super) ends_with_root: bool,
}

/// Hosts come and go; a bundle does not grow forever.
const FORMER_LIMIT: usize = 8;

#[cfg(test)]
mod tests;
