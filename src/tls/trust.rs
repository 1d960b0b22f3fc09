//! Whom we believe to be an upstream.
//!
//! Invariant: [`Verified`] exists only for a connection whose certificate chain was verified for its origin's very
//! host, against the system's roots and those that the operator named. Keyferry's own CA is never among them: an agent
//! that got hold of its key must not be able to play upstream.
//!
//! Revocation is not looked up: no list is at hand at the time of a handshake, and a provider's certificate is short.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::TlsFailure;
use super::roots::{self, RootsError};
use crate::message::origin::{Host, Origin, Scheme};

/// How long an upstream has for the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Servers whose sessions are remembered, per configuration.
const SESSIONS: usize = 256;

/// Why the roots could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// An extra root file cannot be used.
    #[error(transparent)]
    Extra(#[from] RootsError),
    /// A certificate of an extra root file cannot be a root.
    #[error("{path}: holds a certificate that cannot be a root")]
    NotARoot {
        /// The file.
        path: PathBuf,
    },
    /// An extra root is a Keyferry's own CA.
    #[error("{path}: holds the CA of a Keyferry, which is never trusted as an upstream")]
    Ours {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to trust.
    #[error("no root certificates were found on this system")]
    NoRoots,
    /// The TLS library refused the set-up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl TrustError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Extra(_) | Self::NotARoot { .. } => {
                Some("upstream.extra_roots takes PEM files of CA certificates, relative to the configuration file")
            }
            Self::Ours { .. } => {
                Some("remove it from upstream.extra_roots; agents are given this CA, Keyferry itself is not")
            }
            Self::NoRoots => Some("install the ca-certificates package, or name a PEM file in upstream.extra_roots"),
            Self::Tls(_) => None,
        }
    }
}

/// Which application protocols are offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// `h2` and `http/1.1`.
    Both,
    /// `http/1.1` alone, for what HTTP/2 cannot carry.
    Http1,
}

/// What an upstream chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1, also where the upstream chose nothing.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The roots, and how we speak TLS to upstreams.
#[derive(Clone)]
pub struct Trust {
    both: TlsConnector,
    http1: TlsConnector,
}

impl Trust {
    /// The system's roots and those of the PEM files `extra`.
    ///
    /// # Errors
    /// [`TrustError`] when a file cannot be used, and when there is no root at all.
    pub fn load(extra: &[PathBuf]) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        // Distributions carry a root or two that webpki cannot parse; nobody chose those.
        store.add_parsable_certificates(roots::system());
        for path in extra {
            for root in roots::from_file(path)? {
                if roots::is_ours(&root) {
                    return Err(TrustError::Ours { path: path.clone() });
                }
                store.add(root).map_err(|_| TrustError::NotARoot { path: path.clone() })?;
            }
        }
        Self::with_store(store)
    }

    /// These roots and no others.
    ///
    /// # Errors
    /// [`TrustError`] when there is none, or one cannot be a root.
    pub fn with_roots(roots: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root)?;
        }
        Self::with_store(store)
    }

    /// Speaks TLS on `stream` and verifies that the other side is `origin`.
    ///
    /// # Errors
    /// [`TlsFailure`] when it is not, or after 10 s.
    pub async fn handshake<S>(
        &self,
        stream: S,
        origin: &Origin,
        alpn: Alpn,
    ) -> Result<(TlsStream<S>, Verified), TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if origin.scheme() != Scheme::Https {
            return Err(TlsFailure::protocol("the origin is not https"));
        }
        let name = server_name(origin.host())?;
        let connector = match alpn {
            Alpn::Both => &self.both,
            Alpn::Http1 => &self.http1,
        };
        let stream = match tokio::time::timeout(HANDSHAKE_LIMIT, connector.connect(name, stream)).await {
            Err(_) => return Err(TlsFailure::timeout()),
            Ok(Err(error)) => return Err(TlsFailure::from_io(&error)),
            Ok(Ok(stream)) => stream,
        };
        let (_, session) = stream.get_ref();
        let verified = Verified {
            origin: origin.clone(),
            version: version_word(session.protocol_version()),
            group: session.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            protocol: match session.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            },
        };
        Ok((stream, verified))
    }

    fn with_store(store: RootCertStore) -> Result<Self, TrustError> {
        if store.is_empty() {
            return Err(TrustError::NoRoots);
        }
        let store = Arc::new(store);
        Ok(Self {
            both: connector(Arc::clone(&store), &[b"h2", b"http/1.1"])?,
            http1: connector(store, &[b"http/1.1"])?,
        })
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust(..)")
    }
}

/// The proof that a connection is TLS and that its other end is the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    origin: Origin,
    version: &'static str,
    group: Option<&'static str>,
    protocol: Protocol,
}

/// A version as people write it.
fn version_word(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

/// Version and group of a connection, as logs name them: `TLSv1.3 X25519MLKEM768`.
#[must_use]
pub fn words(session: &rustls::CommonState) -> String {
    let group = session.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    format!("{} {}", version_word(session.protocol_version()), group.unwrap_or("resumed"))
}

impl Verified {
    /// Whom it was verified for.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// `TLSv1.3` or `TLSv1.2`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The key exchange, `X25519MLKEM768` say; none where a TLS 1.2 session was resumed.
    #[must_use]
    pub fn group(&self) -> Option<&'static str> {
        self.group
    }

    /// What is spoken on it.
    #[must_use]
    pub fn negotiated(&self) -> Protocol {
        self.protocol
    }

    /// A proof of nothing, for the unit tests of rooms that ask for one.
    #[cfg(test)]
    #[must_use]
    pub fn pretended(origin: Origin) -> Self {
        Self { origin, version: "TLSv1.3", group: Some("X25519MLKEM768"), protocol: Protocol::Http1 }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsFailure> {
    match host {
        Host::Name(name) => ServerName::try_from(name.to_string())
            .map_err(|_| TlsFailure::protocol("the origin's host cannot be a TLS server name")),
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
    }
}

fn connector(roots: Arc<RootCertStore>, alpn: &[&[u8]]) -> Result<TlsConnector, TrustError> {
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // The store belongs to this configuration and is keyed by the server's name: a session never moves to another host,
    // nor from one set of roots or protocols to another.
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    // RFC 8446 section 8: early data can be replayed.
    config.enable_early_data = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{certificates, host, hosts, now, origin};
    use super::super::{Authority, Leaves};
    use super::*;

    #[tokio::test]
    async fn the_proof_says_what_was_verified() {
        // Any CA will do for an upstream; ours is at hand.
        let authority = Authority::ephemeral(&hosts(&["api.x.test"]), now()).unwrap();
        let leaves = Leaves::new(Arc::clone(&authority));
        let trust = Trust::with_roots(certificates(authority.root_pem())).unwrap();
        let config = leaves.config_for(&host("api.x.test"), now()).await.unwrap();
        for (alpn, protocol) in [(Alpn::Both, Protocol::Http2), (Alpn::Http1, Protocol::Http1)] {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let asked = origin("api.x.test:8443");
            let server = tokio_rustls::TlsAcceptor::from(Arc::clone(&config));
            let (client, server) = tokio::join!(trust.handshake(ours, &asked, alpn), server.accept(theirs));
            server.unwrap();
            let (_, verified) = client.unwrap();
            assert_eq!(verified.origin(), &asked);
            assert_eq!(verified.negotiated(), protocol);
            assert_eq!(verified.version(), "TLSv1.3");
            assert_eq!(verified.group(), Some("X25519MLKEM768"));
        }
    }
}
