//! A credential with its own lock: the hosts that it may be shown to are a part of it.
//!
//! Invariant: the bytes are handed out only for an origin that the credential's own audience covers. No caller can
//! widen an audience; it comes from the sealed binding.

use std::fmt;
use std::sync::Arc;

use crate::id::ProfileId;
use crate::message::origin::{Origin, Scheme};
use crate::message::pattern::HostPattern;
use crate::secret::Secret;

/// The credential is not for this origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credential {profile} is not for {origin}")]
pub struct AudienceError {
    /// Whose.
    pub profile: ProfileId,
    /// Where it was asked for.
    pub origin: Origin,
}

/// One opened credential and the hosts that it is sealed to.
#[derive(Clone)]
pub struct Credential {
    /// Which member of which pool it is.
    pub profile: ProfileId,
    /// Its kind, as the provider names it.
    pub kind: String,
    /// Which version of the value.
    pub version: u64,
    audience: Vec<HostPattern>,
    material: Arc<Secret>,
}

impl Credential {
    /// Puts one together from a sealed binding.
    #[must_use]
    pub fn new(
        profile: ProfileId,
        kind: impl Into<String>,
        audience: Vec<HostPattern>,
        material: Arc<Secret>,
        version: u64,
    ) -> Self {
        Self { profile, kind: kind.into(), version, audience, material }
    }

    /// The bytes, for an origin that the credential is sealed to.
    ///
    /// # Errors
    /// [`AudienceError`] for every other host or port, and for cleartext.
    pub fn expose_to(&self, origin: &Origin) -> Result<&[u8], AudienceError> {
        let covered = self.audience.iter().any(|pattern| pattern.matches(origin));
        if origin.scheme() == Scheme::Https && covered {
            return Ok(self.material.expose());
        }
        Err(AudienceError { profile: self.profile.clone(), origin: origin.clone() })
    }

    /// The hosts that it is sealed to.
    #[must_use]
    pub fn audience(&self) -> &[HostPattern] {
        &self.audience
    }

    /// The value, for those who look for it in what comes back.
    #[must_use]
    pub fn secret(&self) -> &Arc<Secret> {
        &self.material
    }
}

/// Shows whose it is and where it may go.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("profile", &self.profile)
            .field("kind", &self.kind)
            .field("version", &self.version)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_to_its_own_hosts_only() {
        // EX-16, and the port is a part of the host.
        let audience = ["api.acme.test", "gate.acme.test:8443", "*.eu.acme.test"];
        let credential = Credential::new(
            ProfileId::parse("acme:work").unwrap(),
            "api-key",
            audience.iter().map(|text| HostPattern::parse(text).unwrap()).collect(),
            Arc::new(Secret::from("hunter2hunter2".to_owned())),
            1,
        );
        let expose = |scheme, authority| credential.expose_to(&Origin::from_authority(scheme, authority).unwrap());
        for good in ["api.acme.test", "API.acme.test.:443", "gate.acme.test:8443", "fra.eu.acme.test"] {
            assert_eq!(expose(Scheme::Https, good), Ok(&b"hunter2hunter2"[..]), "{good}");
        }
        for bad in [
            "api.acme.test:8443",
            "gate.acme.test",
            "eu.acme.test",
            "a.b.eu.acme.test",
            "evil.test",
            "api.acme.test.evil.test",
            "xapi.acme.test",
            "127.0.0.1",
        ] {
            assert!(expose(Scheme::Https, bad).is_err(), "{bad}");
        }
        assert!(expose(Scheme::Http, "api.acme.test:443").is_err(), "cleartext");
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
