//! The demo's provider: a TLS server of its own that answers as Anthropic's API does, and remembers what it saw.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Call, HOST};
use crate::spawn::Spawner;

/// Everything here is on this machine; this bounds what hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Which call.
    pub call: Call,
    /// What stood in the key's field.
    pub key: String,
    /// What was answered.
    pub status: u16,
}

/// The running provider.
pub struct Provider {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its own root, which has nothing to do with Keyferry's.
    pub root: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Provider {
    /// Starts it; the key `exhausted` is out of quota for messages.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub async fn start(exhausted: String, spawner: &Spawner) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (root, acceptor) = certified().map_err(|error| text(&error))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| text(&error))?;
        let address = listener.local_addr().map_err(|error| text(&error))?;
        let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let (log, tasks) = (Arc::clone(&arrived), spawner.clone());
        spawner.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = tasks.stopping() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                // Without it the end of an answer waits 40 ms for the acknowledgement of what the handshake sent.
                let _ = stream.set_nodelay(true);
                let (acceptor, log, exhausted) = (acceptor.clone(), Arc::clone(&log), exhausted.clone());
                let stop = tasks.clone();
                tasks.spawn(async move {
                    let Ok(Ok(stream)) = tokio::time::timeout(LIMIT, acceptor.accept(stream)).await else { return };
                    let service = service_fn(move |request| {
                        let response = answer(&request, &exhausted, &log);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let mut builder = auto::Builder::new(stop.clone());
                    builder.http1().timer(TokioTimer::new()).header_read_timeout(LIMIT);
                    tokio::select! {
                        () = stop.stopping() => {}
                        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                    }
                });
            }
        });
        Ok(Self { address, root, arrived })
    }

    /// What arrived so far.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().clone()
    }
}

/// A root of the provider's own and a leaf for its host, as any provider's are: Keyferry trusts none of its own.
fn certified() -> Result<(String, TlsAcceptor), Box<dyn std::error::Error + Send + Sync>> {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "Demo Provider Root");
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let pem = root.self_signed(&key)?.pem();
    let issuer = Issuer::new(root, key);
    let mut leaf = CertificateParams::new(vec![HOST.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, HOST);
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let chain = vec![leaf.signed_by(&key, &issuer)?.into()];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((pem, TlsAcceptor::from(Arc::new(config))))
}

fn answer(request: &Request<Incoming>, exhausted: &str, log: &Mutex<Vec<Arrived>>) -> Response<Full<Bytes>> {
    let call = Call::ALL.into_iter().find(|call| call.path() == request.uri().path());
    let field = request.headers().get("x-api-key");
    let key = field.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default();
    let (status, body) = match call {
        None => (StatusCode::NOT_FOUND, json!({ "type": "error" })),
        Some(Call::Message) if key == exhausted => (
            StatusCode::TOO_MANY_REQUESTS,
            json!({ "type": "error", "error": { "type": "rate_limit_error", "message": "this key is out of quota" } }),
        ),
        Some(Call::Models) => (StatusCode::OK, json!({ "data": [{ "id": "demo" }] })),
        Some(Call::Message) => {
            (StatusCode::OK, json!({ "content": [{ "type": "text", "text": "hello from the demo" }] }))
        }
        Some(Call::Echo) => (StatusCode::OK, json!({ "your_key": key })),
    };
    if let Some(call) = call {
        log.lock().push(Arrived { call, key: key.clone(), status: status.as_u16() });
    }
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert("content-type", http::HeaderValue::from_static("application/json"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        fields.insert("retry-after", http::HeaderValue::from_static("60"));
    }
    if call == Some(Call::Echo)
        && let Ok(value) = http::HeaderValue::from_str(&key)
    {
        fields.insert("x-your-key", value);
    }
    response
}
