//! The certificates that agents see, made when they are needed.
//!
//! Invariant: a leaf names exactly the one host that it was asked for, never what a ClientHello said, and only a host
//! that the intermediate permits. There are never more than [`CAPACITY`] of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use rcgen::{Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use zeroize::{Zeroize, Zeroizing};

use super::ca::{Authority, Intermediate};
use super::error::CaError;
use super::profile::{self, Validity, minus};
use super::subtree::Subtrees;
use crate::clock::WallTime;
use crate::message::origin::Host;

/// How many hosts have a leaf at once, since an agent can name any host below an allowed wildcard.
const CAPACITY: usize = 1024;
/// A leaf is made anew when it has less than this left, so that no client gets one that is about to end.
const LEAF_MARGIN: Duration = Duration::from_hours(2);
/// An intermediate is made anew when a leaf would no longer have its whole life under it.
const INTERMEDIATE_MARGIN: Duration = Duration::from_hours(25);
/// How far the clock may go back behind the moment at which something was made before it is made anew.
const CLOCK_MARGIN: Duration = Duration::from_mins(30);

/// Makes and keeps leaves.
pub struct Leaves {
    authority: Arc<Authority>,
    permitted: Subtrees,
    intermediate: Mutex<Option<Arc<Intermediate>>>,
    cache: Cache<Arc<str>, Leaf>,
    minted: AtomicU64,
}

impl Leaves {
    /// For the hosts that the authority was loaded for.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        let permitted = authority.in_use().clone();
        Self::with(authority, permitted)
    }

    /// For fewer hosts than the authority was loaded for: those in use. A smaller chain, and a smaller loss should the
    /// intermediate's key be read out of memory.
    ///
    /// # Errors
    /// [`CaError`] when a host is an address or malformed.
    pub fn constrained_to(authority: Arc<Authority>, hosts: &[String]) -> Result<Self, CaError> {
        let permitted = Subtrees::covering(hosts)?;
        Ok(Self::with(authority, permitted))
    }

    fn with(authority: Arc<Authority>, permitted: Subtrees) -> Self {
        Self {
            authority,
            permitted,
            intermediate: Mutex::new(None),
            cache: Cache::new(CAPACITY),
            minted: AtomicU64::new(0),
        }
    }

    /// The TLS configuration that answers for `host` and for nothing else. Calls for one host at one time make one leaf.
    ///
    /// # Errors
    /// [`CaError`] for an address, for a host outside of the constraints, and when the clock has left the CA's life.
    pub async fn config_for(&self, host: &Host, now: WallTime) -> Result<Arc<ServerConfig>, CaError> {
        self.config_or_new(host, now).await.map(|(config, _)| config)
    }

    /// The same, and whether the leaf was made for this call.
    ///
    /// # Errors
    /// As there.
    pub async fn config_or_new(&self, host: &Host, now: WallTime) -> Result<(Arc<ServerConfig>, bool), CaError> {
        let Host::Name(name) = host else { return Err(CaError::Address { host: host.to_string() }) };
        if !self.permitted.permits(name) {
            return Err(CaError::Outside { host: host.clone() });
        }
        loop {
            match self.cache.get_value_or_guard_async(name).await {
                Ok(leaf) if leaf.is_fresh(now) => return Ok((leaf.config, false)),
                Ok(stale) => {
                    self.cache.remove_if(name, |leaf| Arc::ptr_eq(&leaf.config, &stale.config));
                }
                Err(guard) => {
                    // A failure drops the guard, and the next caller tries for itself.
                    let leaf = self.mint(name, now)?;
                    // Only fails when the placeholder was evicted meanwhile: then it is merely not kept.
                    let _ = guard.insert(leaf.clone());
                    return Ok((leaf.config, true));
                }
            }
        }
    }

    /// Whether the host's leaf is there already.
    #[must_use]
    pub fn has(&self, host: &Host, now: WallTime) -> bool {
        let Host::Name(name) = host else { return false };
        self.cache.get(name).is_some_and(|leaf| leaf.is_fresh(now))
    }

    /// How many leaves were made since the start.
    #[must_use]
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    fn mint(&self, host: &Arc<str>, now: WallTime) -> Result<Leaf, CaError> {
        let intermediate = self.intermediate(now)?;
        let mut key = Zeroizing::new(KeyPair::generate()?);
        let validity = Validity::new(now, profile::LEAF_SKEW, profile::LEAF_LIFE, Some(intermediate.validity));
        let issuer = Issuer::from_ca_cert_der(&intermediate.certificate, &*intermediate.key)?;
        let certificate = profile::leaf(host, validity)?.signed_by(&*key, &issuer)?;
        let provider = super::provider();
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));
        let signing = provider.key_provider.load_private_key(pkcs8)?;
        key.zeroize();
        let chain = vec![certificate.into(), intermediate.certificate.clone()];
        let answer = OneHost { host: Arc::clone(host), key: Arc::new(CertifiedKey::new(chain, signing)) };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(answer));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets have a key per host: without SNI, nothing else would keep a ticket of one host from resuming at another.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // RFC 8446 section 8: early data can be replayed, and a replayed POST would carry a credential.
        config.max_early_data_size = 0;
        self.minted.fetch_add(1, Ordering::Relaxed);
        Ok(Leaf { config: Arc::new(config), made: now, until: validity.until })
    }

    fn intermediate(&self, now: WallTime) -> Result<Arc<Intermediate>, CaError> {
        let mut current = self.intermediate.lock();
        if let Some(intermediate) = current.as_ref().filter(|intermediate| is_usable(intermediate, now)) {
            return Ok(Arc::clone(intermediate));
        }
        let made = Arc::new(self.authority.intermediate(&self.permitted, now)?);
        *current = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves")
            .field("kept", &self.cache.len())
            .field("minted", &self.minted())
            .finish_non_exhaustive()
    }
}

/// Whether the name in a ClientHello, if there is one, is the host that the connection is for.
#[must_use]
pub fn sni_agrees(host: &Host, sni: Option<&str>) -> bool {
    // One spelling of a name: lower case, no trailing dot. An address is no server name (RFC 6066 section 3).
    sni.is_none_or(|sni| host.name().is_some() && Host::parse(sni).is_ok_and(|name| name == *host))
}

fn is_usable(intermediate: &Intermediate, now: WallTime) -> bool {
    let Validity { until, .. } = intermediate.validity;
    intermediate.validity.contains(now) && (intermediate.ends_with_root || now < minus(until, INTERMEDIATE_MARGIN))
}

#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    made: WallTime,
    until: WallTime,
}

impl Leaf {
    fn is_fresh(&self, now: WallTime) -> bool {
        // Near the root's end a leaf may be shorter than the margin: then it serves to its end.
        let margin = minus(self.until, LEAF_MARGIN);
        let fresh_until = if margin <= self.made { self.until } else { margin };
        minus(self.made, CLOCK_MARGIN) <= now && now < fresh_until
    }
}

/// Answers with one certificate, and only to those who ask for its host or for none.
struct OneHost {
    host: Arc<str>,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for OneHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = Host::Name(Arc::clone(&self.host));
        sni_agrees(&host, hello.server_name()).then(|| Arc::clone(&self.key))
    }
}

impl fmt::Debug for OneHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneHost").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
