//! The test provider's own certificate authority: a root made at run time, and leaves on demand, good and bad.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// What is wrong with a leaf, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leaf {
    Good,
    Expired,
    NotYetValid,
    WrongHost,
    UnknownRoot,
    SelfSigned,
}

/// Which protocols the provider offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    Both,
    Http1,
    Http2,
    /// None of HTTP.
    Mail,
    /// It knows nothing of such offers.
    Nothing,
}

pub struct Ca {
    root: Issuer<'static, KeyPair>,
    stranger: Issuer<'static, KeyPair>,
    root_pem: String,
    made: Mutex<HashMap<(String, Leaf, Offer), Arc<ServerConfig>>>,
}

impl Ca {
    pub fn new() -> Self {
        let (root, certificate) = authority("Test Provider Root");
        let (stranger, _) = authority("Root That Nobody Trusts");
        Self { root, stranger, root_pem: certificate.pem(), made: Mutex::new(HashMap::new()) }
    }

    pub fn write_root(&self, path: &Path) {
        std::fs::write(path, &self.root_pem).unwrap();
    }

    /// The TLS configuration for one host name, made once per name, kind and offer.
    pub fn server_config(&self, host: &str, leaf: Leaf, offer: Offer) -> Arc<ServerConfig> {
        let key = (host.to_owned(), leaf, offer);
        if let Some(made) = self.made.lock().unwrap().get(&key) {
            return Arc::clone(made);
        }
        let (chain, private) = self.leaf(host, leaf);
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .unwrap();
        config.alpn_protocols = match offer {
            Offer::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Offer::Http1 => vec![b"http/1.1".to_vec()],
            Offer::Http2 => vec![b"h2".to_vec()],
            Offer::Mail => vec![b"smtp".to_vec()],
            Offer::Nothing => Vec::new(),
        };
        let config = Arc::new(config);
        self.made.lock().unwrap().insert(key, Arc::clone(&config));
        config
    }

    /// A good certificate and its key as PEM, for servers that are no part of this process.
    pub fn leaf_pem(&self, host: &str) -> (String, String) {
        let (chain, key) = self.leaf(host, Leaf::Good);
        let pem = |label: &str, der: &[u8]| {
            let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
        };
        (pem("CERTIFICATE", &chain[0]), pem("PRIVATE KEY", key.secret_der()))
    }

    fn leaf(&self, host: &str, leaf: Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let name = if leaf == Leaf::WrongHost { "wrong-host.example" } else { host };
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = named(name);
        (params.not_before, params.not_after) = match leaf {
            Leaf::Expired => (now - Duration::days(3), now - Duration::days(1)),
            Leaf::NotYetValid => (now + Duration::days(1), now + Duration::days(3)),
            _ => (now - Duration::hours(1), now + Duration::days(1)),
        };
        params.serial_number = Some(serial());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = match leaf {
            Leaf::SelfSigned => params.self_signed(&key).unwrap(),
            Leaf::UnknownRoot => params.signed_by(&key, &self.stranger).unwrap(),
            _ => params.signed_by(&key, &self.root).unwrap(),
        };
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![certificate.der().clone()], private)
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, rcgen::Certificate) {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = named(name);
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(30);
    params.serial_number = Some(serial());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), certificate)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn serial() -> SerialNumber {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).unwrap();
    bytes[0] = (bytes[0] & 0x7f) | 0x01;
    SerialNumber::from_slice(&bytes)
}
