//! The TLS handshake with an agent.
//!
//! Invariant: who gets past here asked for the host that the tunnel is for, or for none.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::leaf::sni_agrees;
use crate::message::origin::Host;

/// How long an agent has for the handshake (SECURITY section 4.8).
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A fatal `unrecognized_name` alert (RFC 6066 section 3) as a plaintext record (RFC 8446 section 5.1), which is how
/// an alert looks before any key is agreed upon.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why an agent's handshake did not come about.
#[derive(Debug, thiserror::Error)]
pub enum AcceptFailure {
    /// The agent asked for another host than the tunnel's.
    #[error("the TLS server name is not the tunnel's host")]
    OtherName,
    /// It took longer than 10 s.
    #[error("the agent's TLS handshake took too long")]
    Timeout,
    /// It failed, most often because the agent does not trust our CA.
    #[error("the agent's TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
}

/// Answers the ClientHello on `stream` as `host`, with a configuration made by [`Leaves`](super::Leaves).
///
/// # Errors
/// [`AcceptFailure`], after the agent was told by an alert where there is one for it.
pub async fn accept<S>(stream: S, host: &Host, config: Arc<ServerConfig>) -> Result<TlsStream<S>, AcceptFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(AcceptFailure::Failed)?;
        if !sni_agrees(host, start.client_hello().server_name()) {
            let mut stream = start.io;
            // The refusal stands whether or not the agent hears of it.
            let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
            let _ = stream.shutdown().await;
            return Err(AcceptFailure::OtherName);
        }
        start.into_stream(config).await.map_err(AcceptFailure::Failed)
    };
    tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await.unwrap_or(Err(AcceptFailure::Timeout))
}
