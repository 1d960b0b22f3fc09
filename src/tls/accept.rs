//! The TLS handshake with an agent.
//!
//! Invariant: who gets past here asked for the host that the tunnel is for, or for none.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::leaf::sni_agrees;
use crate::message::origin::Host;

/// How long an agent has for the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A ClientHello is about 2 KiB with post-quantum keys; RFC 8446 lets it be longer, no client is.
const HELLO_LIMIT: usize = 64 * 1024;

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
    /// The agent's program looked at our certificate and refused it.
    #[error("the agent does not trust Keyferry's CA")]
    Distrusted,
    /// It failed otherwise.
    #[error("the agent's TLS handshake failed: {0}")]
    Failed(#[source] io::Error),
}

impl AcceptFailure {
    fn from_io(error: io::Error) -> Self {
        use AlertDescription::{BadCertificate, CertificateUnknown, DecryptError, UnknownCA};
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            // OpenSSL says unknown_ca, Java certificate_unknown, Go bad_certificate, and some say decrypt_error.
            Some(rustls::Error::AlertReceived(UnknownCA | CertificateUnknown | BadCertificate | DecryptError)) => {
                Self::Distrusted
            }
            _ => Self::Failed(error),
        }
    }
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
        start.into_stream(config).await.map_err(AcceptFailure::from_io)
    };
    tokio::time::timeout(HANDSHAKE_LIMIT, handshake).await.unwrap_or(Err(AcceptFailure::Timeout))
}

/// A ClientHello that was looked at, and its bytes.
#[derive(Debug)]
pub struct Hello {
    /// The server name, if there is one.
    pub name: Option<String>,
    /// All that was read, to be answered by [`accept`] or passed on.
    pub bytes: Bytes,
}

/// Reads a ClientHello and no more than comes with it.
///
/// # Errors
/// [`AcceptFailure`] when it is none, or does not come in time.
pub async fn server_name<S>(stream: &mut S) -> Result<Hello, AcceptFailure>
where
    S: AsyncRead + Unpin,
{
    let reading = async {
        let mut acceptor = Acceptor::default();
        let mut bytes = BytesMut::new();
        loop {
            let begin = bytes.len();
            if bytes.len() >= HELLO_LIMIT || stream.read_buf(&mut bytes).await.map_err(AcceptFailure::Failed)? == 0 {
                return Err(AcceptFailure::Failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let mut fresh = bytes.get(begin..).unwrap_or_default();
            while !fresh.is_empty() {
                acceptor.read_tls(&mut fresh).map_err(AcceptFailure::Failed)?;
                let accepted = acceptor.accept();
                let accepted = accepted.map_err(|(error, _)| AcceptFailure::Failed(io::Error::other(error)))?;
                if let Some(accepted) = accepted {
                    let name = accepted.client_hello().server_name().map(str::to_owned);
                    return Ok(Hello { name, bytes: bytes.freeze() });
                }
            }
        }
    };
    tokio::time::timeout(HANDSHAKE_LIMIT, reading).await.unwrap_or(Err(AcceptFailure::Timeout))
}

/// The same configuration for somebody who is to speak HTTP/1.1 only: clients of the proxy itself.
#[must_use]
pub fn http1_only(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};

    use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf};
    use tokio_rustls::TlsConnector;

    use super::super::testing::{agent, host, hosts, now, shake};
    use super::super::{Authority, Leaves};
    use super::*;

    struct Side {
        authority: Arc<Authority>,
        host: Host,
        config: Arc<ServerConfig>,
    }

    /// Reads one byte at a time.
    struct Dripping(DuplexStream);

    impl AsyncRead for Dripping {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut self.0).poll_read(cx, &mut one))?;
            into.put_slice(one.filled());
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Dripping {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    async fn side() -> Side {
        let authority = Authority::ephemeral(&hosts(&["api.x.test"]), now()).unwrap();
        let host = host("api.x.test");
        let config = Leaves::new(Arc::clone(&authority)).config_for(&host, now()).await.unwrap();
        Side { authority, host, config }
    }

    #[tokio::test]
    async fn a_hello_in_single_bytes_is_answered() {
        // TL-34
        let side = side().await;
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        let ours = Dripping(ours);
        let client = TlsConnector::from(Arc::new(agent(&side.authority)));
        let name = "api.x.test".try_into().unwrap();
        let (client, server) = tokio::join!(client.connect(name, theirs), accept(ours, &side.host, side.config));
        client.unwrap();
        server.unwrap();
    }

    #[tokio::test]
    async fn distrust_is_told_from_other_failures() {
        let (side, stranger) = (side().await, side().await);
        let client = Arc::new(agent(&stranger.authority));
        let (_, server) = shake(client, "api.x.test", &side.host, Arc::clone(&side.config)).await;
        let failure = server.unwrap_err();
        assert!(matches!(failure, AcceptFailure::Distrusted), "{failure}");
        let (theirs, ours) = tokio::io::duplex(64);
        drop(theirs);
        assert!(matches!(accept(ours, &side.host, side.config).await.unwrap_err(), AcceptFailure::Failed(_)));
    }

    #[tokio::test]
    async fn malformed_server_names_and_other_protocols_are_refused() {
        // TL-30, TL-34
        let side = side().await;
        let entry = |name: &[u8]| {
            let length = u16::try_from(name.len()).unwrap().to_be_bytes();
            [&[0][..], &length, name].concat()
        };
        let good = entry(b"api.x.test");
        for (what, bytes) in [
            ("two names", hello(&side, &[&good[..], &entry(b"evil.test")].concat())),
            ("one name twice", hello(&side, &[&good[..], &good].concat())),
            ("256 characters", hello(&side, &entry(&[b'a'; 256]))),
            ("a NUL", hello(&side, &entry(b"api.x.test\0.evil.test"))),
            ("not ASCII", hello(&side, &entry("\u{e4}pi.x.test".as_bytes()))),
            ("an empty name", hello(&side, &entry(b""))),
            ("an empty list", hello(&side, b"")),
            ("a wildcard", hello(&side, &entry(b"*.x.test"))),
            ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10, 1, 0, 0x80, 2, 0, 0x80]),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: api.x.test\r\n\r\n".to_vec()),
            ("zeros", vec![0; 64 * 1024]),
        ] {
            let (mut theirs, ours) = tokio::io::duplex(128 * 1024);
            theirs.write_all(&bytes).await.unwrap();
            let failure = accept(ours, &side.host, Arc::clone(&side.config)).await.expect_err(what);
            assert!(matches!(failure, AcceptFailure::Failed(_) | AcceptFailure::OtherName), "{what}: {failure}");
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.unwrap();
            assert!(answer.is_empty() || (answer[0] == 21 && answer.len() == 7), "{what}: nothing but an alert");
        }
        // The helper makes hellos that are answered when their names are in order.
        let (mut theirs, ours) = tokio::io::duplex(128 * 1024);
        theirs.write_all(&hello(&side, &good)).await.unwrap();
        theirs.shutdown().await.unwrap();
        accept(ours, &side.host, side.config).await.unwrap_err();
        assert_eq!(theirs.read_u8().await.unwrap(), 22);
    }

    /// A ClientHello with `names` as its list of server names.
    fn hello(side: &Side, names: &[u8]) -> Vec<u8> {
        let mut client =
            rustls::ClientConnection::new(Arc::new(agent(&side.authority)), "api.x.test".try_into().unwrap()).unwrap();
        let mut record = Vec::new();
        client.write_tls(&mut record).unwrap();
        // Session, suites and compression follow version and random; then come the extensions (RFC 8446 section 4.1.2).
        let length_at = |at: usize, record: &[u8]| usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
        let session = 5 + 4 + 2 + 32;
        let suites = session + 1 + usize::from(record[session]);
        let compression = suites + 2 + length_at(suites, &record);
        let mut at = compression + 1 + usize::from(record[compression]) + 2;
        let extensions = at;
        let mut rebuilt = Vec::new();
        while at < record.len() {
            let end = at + 4 + length_at(at + 2, &record);
            if record[at..at + 2] != [0, 0] {
                rebuilt.extend_from_slice(&record[at..end]);
            }
            at = end;
        }
        let two = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
        // In front, since a pre-shared key would have to stay last.
        let list = [&[0, 0][..], &two(names.len() + 2), &two(names.len()), names].concat();
        let rebuilt = [list, rebuilt].concat();
        record.truncate(extensions - 2);
        record.extend_from_slice(&two(rebuilt.len()));
        record.extend_from_slice(&rebuilt);
        let whole = record.len();
        record[3..5].copy_from_slice(&two(whole - 5));
        record[7..9].copy_from_slice(&two(whole - 9));
        record
    }
}
