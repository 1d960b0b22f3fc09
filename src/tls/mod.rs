//! Certificates of ours, and trust in those of others.
//!
//! Toward agents: a root that lives in the home ([`Authority`]), an intermediate in memory and short-lived leaves
//! ([`Leaves`]). Toward upstreams: the system's roots and those that the operator adds ([`Trust`]), and the proof that a
//! connection was verified for an origin ([`Verified`]).
//!
//! Invariant: the two sides never meet. No root of ours is ever trusted upstream, no key of ours ever leaves this room,
//! and a leaf is only made for a host that both name constraints permit.

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

mod accept;
mod bundle;
mod ca;
mod error;
mod facts;
mod failure;
mod files;
mod leaf;
mod profile;
mod roots;
mod subtree;
mod trust;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod upstream_defects;
#[cfg(test)]
mod verifiers;

pub use accept::{AcceptFailure, Hello, accept, http1_only, server_name};
pub use bundle::{BundleError, Inherited, bundle_pem, write_bundle};
pub use ca::{Authority, CaInfo, Loaded, Renewal};
pub use error::CaError;
pub use failure::{TlsFailure, TlsFailureKind};
pub use leaf::{Leaves, sni_agrees};
pub use roots::RootsError;
pub use trust::{Alpn, Protocol, Trust, TrustError, Verified, words as tls_words};

/// Has this process's random numbers seeded, on a thread of its own: AWS-LC takes tens of milliseconds of a processor's
/// noise for it, and the first handshake would wait for that.
pub fn prepare() {
    let seed = || {
        // Its errors come again where numbers are used.
        let _ = aws_lc_rs::rand::fill(&mut [0u8; 1]);
    };
    let _ = std::thread::Builder::new().name("keyferry-seed".to_owned()).spawn(seed);
}

/// The one set of algorithms, for both sides: aws-lc-rs with X25519MLKEM768 first.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
