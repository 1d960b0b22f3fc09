//! What the tests of this room share: hosts, a moment, and both ends of a connection in memory.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsConnector, client, server};

use super::accept::{AcceptFailure, accept};
use super::ca::Authority;
use crate::clock::{Clock, WallTime};
use crate::message::origin::{Host, Origin};

pub(super) fn now() -> WallTime {
    Clock::System.now()
}

pub(super) fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

pub(super) fn origin(authority: &str) -> Origin {
    Origin::from_connect_target(authority).unwrap()
}

/// The certificates of PEM text.
pub(super) fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

/// An agent's TLS client that trusts `authority` and nobody else.
pub(super) fn agent(authority: &Authority) -> ClientConfig {
    agent_speaking(authority, rustls::ALL_VERSIONS)
}

/// The same, with these versions of TLS only.
pub(super) fn agent_speaking(
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in certificates(authority.root_pem()) {
        roots.add(root).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

pub(super) type Ends =
    (io::Result<client::TlsStream<DuplexStream>>, Result<server::TlsStream<DuplexStream>, AcceptFailure>);

/// What a client got from the server `name`, its chain, first sending one byte and reading one back so that tickets
/// arrive.
pub(super) async fn exchange(ends: Ends) -> (HandshakeKind, Vec<CertificateDer<'static>>) {
    let (mut client, mut server) = (ends.0.unwrap(), ends.1.unwrap());
    let mut byte = [0];
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
    let session = client.get_ref().1;
    (session.handshake_kind().unwrap(), session.peer_certificates().unwrap().to_vec())
}

/// The error of rustls within an IO error.
pub(super) fn tls_error(error: &io::Error) -> &rustls::Error {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

/// A handshake of `client`, asking for `name`, with our end of a tunnel to `tunnel`.
pub(super) async fn shake(client: Arc<ClientConfig>, name: &str, tunnel: &Host, config: Arc<ServerConfig>) -> Ends {
    let (agent_end, our_end) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::join!(TlsConnector::from(client).connect(name, agent_end), accept(our_end, tunnel, config))
}
