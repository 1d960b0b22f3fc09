//! The demo's agent: a process of its own that knows its environment and nothing else, as any agent does.
//!
//! It takes the proxy from `HTTPS_PROXY`, the roots from `SSL_CERT_FILE` and the key from `ANTHROPIC_API_KEY`, sends
//! its requests, and writes what it sent and received to stdout, one JSON object per line.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Call, HOST};
use crate::spawn::Spawner;

/// The whole of the agent's work takes a second; this bounds a hung one.
const LIMIT: Duration = Duration::from_secs(30);

/// What one request looked like from the agent's side.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Which call.
    pub call: Call,
    /// The key that the agent sent, which is all it knows.
    pub sent: String,
    /// The answer's status.
    pub status: u16,
    /// The answer's fields and body.
    pub received: String,
}

/// Sends every call and returns what to print.
///
/// # Errors
/// What went wrong, for a person.
pub async fn work(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<String, String> {
    let text = |name: &str| {
        variable(name).and_then(|value| value.into_string().ok()).ok_or_else(|| format!("{name} is not set"))
    };
    let (proxy, roots, key) = (text("HTTPS_PROXY")?, text("SSL_CERT_FILE")?, text("ANTHROPIC_API_KEY")?);
    let mut lines = String::new();
    for call in Call::ALL {
        let answer = tokio::time::timeout(LIMIT, send(&proxy, &roots, &key, call)).await;
        let (status, received) =
            answer.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let seen = Seen { call, sent: key.clone(), status, received };
        lines.push_str(&serde_json::to_string(&seen).map_err(|error| error.to_string())?);
        lines.push('\n');
    }
    Ok(lines)
}

async fn send(proxy: &str, roots: &str, key: &str, call: Call) -> io::Result<(u16, String)> {
    let stream = tunnel(proxy).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client(roots)?));
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let stream = connector.connect(name, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    Spawner::default().spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(if call == Call::Message { Method::POST } else { Method::GET })
        .uri(call.path())
        .header("host", HOST)
        .header("x-api-key", key)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from_static(if call == Call::Message { b"{\"model\":\"demo\"}" } else { b"" })))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let fields = shown(response.headers());
    let body = Limited::new(response.into_body(), 64 * 1024).collect().await.map_err(io::Error::other)?;
    Ok((status, format!("{fields}\n{}", String::from_utf8_lossy(&body.to_bytes()))))
}

/// CONNECT through `http://agent:token@address`.
async fn tunnel(proxy: &str) -> io::Result<TcpStream> {
    let wrong = || io::Error::other("HTTPS_PROXY is not http://AGENT:TOKEN@ADDRESS");
    let (login, address) = proxy.strip_prefix("http://").and_then(|rest| rest.split_once('@')).ok_or_else(wrong)?;
    let mut stream = TcpStream::connect(address).await?;
    let login = base64::engine::general_purpose::STANDARD.encode(login);
    let head = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\nProxy-Authorization: Basic {login}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        // The first bytes after the head are the TLS server's, so no byte too many is read.
        answer.push(stream.read_u8().await?);
        if answer.len() > 8192 {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
    }
    let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    if first.split(' ').nth(1) == Some("200") {
        Ok(stream)
    } else {
        Err(io::Error::other(format!("the proxy said: {first}")))
    }
}

fn client(roots: &str) -> io::Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(roots).map_err(io::Error::other)?;
    store.add_parsable_certificates(certificates.flatten());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(io::Error::other)?.with_root_certificates(store).with_no_client_auth())
}

fn shown(fields: &HeaderMap) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))).collect()
}
