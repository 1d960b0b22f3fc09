//! Upstreams with every defect that must stop a request before a credential is opened (TL-01 to TL-24), on a real
//! handshake.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{HandshakeKind, ServerConfig};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::failure::TlsFailureKind;
use super::testing::{certificates, host, hosts, now, origin};
use super::{Alpn, Authority, Leaves, TlsFailure, Trust, TrustError};
use crate::code::Code;

const HOST: &str = "api.x.test";

/// A certificate that can sign, or serve.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Made {
    fn root(name: &str) -> Self {
        let params = ca(name, BasicConstraints::Constrained(1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().into();
        Self { params, key, certificate }
    }

    fn sign(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap().into();
        Self { params, key, certificate }
    }
}

fn ca(name: &str, limit: BasicConstraints) -> CertificateParams {
    let mut params = leaf(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(limit);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages.clear();
    params
}

fn leaf(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = OffsetDateTime::now_utc() - Duration::from_hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::from_hours(1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names.iter().map(|name| dns(name)).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(name).unwrap())
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}

fn trusting(root: &Made) -> Trust {
    Trust::with_roots(vec![root.certificate.clone()]).unwrap()
}

/// What comes of a handshake with a server so configured, and whether the server saw as much as one byte of content.
async fn meet(trust: &Trust, authority: &str, config: ServerConfig) -> Result<HandshakeKind, TlsFailure> {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let upstream = async {
        // A server of TLS 1.3 may be done before the client refuses: then it reads, and must find nothing.
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(theirs).await else { return 0 };
        let _ = stream.write_all(b"x").await;
        let mut content = Vec::new();
        let _ = stream.read_to_end(&mut content).await;
        content.len()
    };
    let client = async {
        let asked = origin(authority);
        let (mut stream, verified) = trust.handshake(ours, &asked, Alpn::Both).await?;
        assert_eq!(verified.origin(), &asked);
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        Ok(stream.get_ref().1.handshake_kind().unwrap())
    };
    let (outcome, content) = tokio::join!(client, upstream);
    assert_eq!(content, 0, "{authority}: content was sent");
    outcome
}

#[tokio::test]
async fn a_sound_upstream_is_verified() {
    let root = Made::root("root");
    let middle = root.sign(ca("middle", BasicConstraints::Constrained(0)));
    for (authority, names) in [
        ("api.x.test:443", &["api.x.test"][..]),
        ("API.X.test.:443", &["other.test", "API.x.TEST"]),
        ("api.x.test:8443", &["*.x.test"]),
    ] {
        let end = middle.sign(leaf(names));
        let config = server(vec![end.certificate.clone(), middle.certificate.clone()], &end.key);
        meet(&trusting(&root), authority, config).await.unwrap();
    }
    // An address that the certificate names as an address.
    let end = root.sign(with(leaf(&[]), |p| p.subject_alt_names = vec![SanType::IpAddress([192, 0, 2, 1].into())]));
    meet(&trusting(&root), "192.0.2.1:443", server(vec![end.certificate.clone()], &end.key)).await.unwrap();
}

#[tokio::test]
async fn refuses_every_certificate_defect() {
    let root = Made::root("root");
    let middle = root.sign(ca("middle", BasicConstraints::Constrained(0)));
    let deeper = middle.sign(ca("deeper", BasicConstraints::Constrained(0)));
    let no_ca = root.sign(with(leaf(&["middle.test"]), |p| p.is_ca = IsCa::ExplicitNoCa));
    let constrained = root.sign(with(ca("constrained", BasicConstraints::Constrained(0)), |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("y.test".into())],
            excluded_subtrees: Vec::new(),
        });
    }));
    let excluding = root.sign(with(ca("excluding", BasicConstraints::Constrained(0)), |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![GeneralSubtree::DnsName("api.x.test".into())],
        });
    }));
    let stranger = Made::root("stranger");
    let alone = Made::root("alone");
    let hour = Duration::from_hours(1);
    let at = OffsetDateTime::now_utc();
    let another = "api.x.test:443";
    let expired = with(leaf(&[HOST]), |p| p.not_after = at - hour / 2);
    let early = with(leaf(&[HOST]), |p| p.not_before = at + hour / 2);
    let common_name = with(leaf(&[]), |p| p.distinguished_name.push(DnType::CommonName, HOST));
    let client_only = with(leaf(&[HOST]), |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    for (id, authority, issuer, params, rest, expected) in [
        ("TL-01 expired", another, &root, expired, vec![], "has expired"),
        ("TL-02 not yet valid", another, &root, early, vec![], "not valid yet"),
        ("TL-04 unknown root", another, &stranger, leaf(&[HOST]), vec![&stranger], "signed by nobody"),
        ("TL-05 wrong host", another, &root, leaf(&["other.test"]), vec![], "for another host"),
        ("TL-05 parent", another, &root, leaf(&["x.test"]), vec![], "for another host"),
        ("TL-06 CN only", another, &root, common_name, vec![], "for another host"),
        ("TL-07 whole top level", "x.test:443", &root, leaf(&["*"]), vec![], "for another host"),
        ("TL-07 below a top level", "x.test:443", &root, leaf(&["*.test"]), vec![], "for another host"),
        ("TL-07 partial label", another, &root, leaf(&["*pi.x.test"]), vec![], "for another host"),
        ("TL-07 partial label", another, &root, leaf(&["a*.x.test"]), vec![], "for another host"),
        ("TL-07 inner wildcard", "a.b.x.test:443", &root, leaf(&["a.*.x.test"]), vec![], "for another host"),
        ("TL-07 two labels", "a.b.x.test:443", &root, leaf(&["*.x.test"]), vec![], "for another host"),
        ("TL-08 address as name", "192.0.2.1:443", &root, leaf(&["192.0.2.1"]), vec![], "for another host"),
        ("TL-09 NUL", another, &root, leaf(&["api.x.test\0.evil.test"]), vec![], "for another host"),
        ("TL-09 trailing dot", another, &root, leaf(&["api.x.test."]), vec![], "for another host"),
        ("TL-10 issuer is no CA", another, &no_ca, leaf(&[HOST]), vec![&no_ca], "by one that is no CA"),
        ("TL-11 missing intermediate", another, &middle, leaf(&[HOST]), vec![], "signed by nobody"),
        ("TL-12 path too long", another, &deeper, leaf(&[HOST]), vec![&deeper, &middle], "longer than one"),
        (
            "TL-13 outside of the permitted",
            another,
            &constrained,
            leaf(&[HOST]),
            vec![&constrained],
            "may not sign for",
        ),
        ("TL-13 excluded", another, &excluding, leaf(&[HOST]), vec![&excluding], "may not sign for"),
        (
            "TL-13 wildcard over the excluded",
            another,
            &excluding,
            leaf(&["*.x.test"]),
            vec![&excluding],
            "may not sign for",
        ),
        ("TL-14 client authentication only", another, &root, client_only, vec![], "not for servers"),
    ] {
        let end = issuer.sign(params);
        let chain = std::iter::once(&end).chain(rest).map(|made| made.certificate.clone()).collect();
        let failure = meet(&trusting(&root), authority, server(chain, &end.key)).await.expect_err(id);
        assert_eq!(failure.kind(), TlsFailureKind::Certificate, "{id}: {failure}");
        assert!(failure.text().contains(expected), "{id}: {failure}");
        assert_eq!(
            (failure.code(), failure.proxy_status()),
            (Code::UpstreamTlsFailed, "tls_certificate_error"),
            "{id}"
        );
        // What a certificate says stays out of the logs.
        assert!(!failure.text().contains("test"), "{id}: {failure}");
    }
    // TL-03: a root that serves itself, and a leaf that signed itself.
    let own_key = KeyPair::generate().unwrap();
    let self_signed = leaf(&[HOST]).self_signed(&own_key).unwrap();
    for config in [
        server(vec![alone.certificate.clone()], &alone.key),
        server(vec![self_signed.into()], &own_key),
        server(vec![root.certificate.clone()], &root.key),
    ] {
        let failure = meet(&trusting(&root), another, config).await.unwrap_err();
        assert_eq!(failure.kind(), TlsFailureKind::Certificate, "TL-03: {failure}");
    }
}

#[tokio::test]
async fn refuses_weak_signatures() {
    // TL-15: what no library of ours can make, openssl can.
    for (id, bits, digest) in [("SHA-1", "2048", "-sha1"), ("RSA-1024", "1024", "-sha256")] {
        let place = tempfile::tempdir().unwrap();
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl")
                .args(arguments)
                .current_dir(place.path())
                .output()
                .expect("the openssl command is needed: install the package openssl");
            assert!(output.status.success(), "{id}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let read = |name: &str| CertificateDer::from_pem_file(place.path().join(name)).unwrap();
        let key = KeyPair::generate().unwrap();
        std::fs::write(place.path().join("leaf.key"), key.serialize_pem()).unwrap();
        std::fs::write(place.path().join("san"), format!("subjectAltName=DNS:{HOST}\n")).unwrap();
        let new_key = format!("rsa:{bits}");
        openssl(&[
            "req", "-x509", "-newkey", &new_key, "-nodes", "-sha256", "-days", "2", "-subj", "/CN=weak", "-keyout",
            "ca.key", "-out", "ca.pem",
        ]);
        openssl(&["req", "-new", "-key", "leaf.key", "-subj", "/CN=leaf", "-out", "leaf.csr"]);
        openssl(&[
            "x509",
            "-req",
            "-in",
            "leaf.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "1",
            digest,
            "-extfile",
            "san",
            "-out",
            "leaf.pem",
        ]);
        let trust = Trust::with_roots(vec![read("ca.pem")]).unwrap();
        let failure = meet(&trust, "api.x.test:443", server(vec![read("leaf.pem")], &key)).await.expect_err(id);
        assert_eq!(failure.kind(), TlsFailureKind::Certificate, "{id}: {failure}");
    }
}

#[tokio::test]
async fn refuses_our_own_ca_as_an_upstream() {
    // TL-22: an agent that has our CA's key plays upstream.
    let authority = Authority::ephemeral(&hosts(&[HOST]), now()).unwrap();
    let stolen = Leaves::new(Arc::clone(&authority));
    let config = stolen.config_for(&host(HOST), now()).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let corporate = place.path().join("corporate.pem");
    std::fs::write(&corporate, rcgen_pem(&Made::root("corporate"))).unwrap();
    let trust = Trust::load(std::slice::from_ref(&corporate)).unwrap();
    let failure = meet(&trust, "api.x.test:443", ServerConfig::clone(&config)).await.unwrap_err();
    assert_eq!(failure.kind(), TlsFailureKind::Certificate, "{failure}");

    // Not even an operator can add it.
    let ours = place.path().join("ca.pem");
    std::fs::write(&ours, authority.root_pem()).unwrap();
    let error = Trust::load(&[corporate, ours]).unwrap_err();
    assert!(matches!(error, TrustError::Ours { .. }), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn refuses_every_protocol_defect() {
    // TL-16, TL-17, TL-19: ServerHellos that no library would send.
    let hello = |version: [u8; 2], suite: [u8; 2], extensions: &[u8]| {
        let mut body = version.to_vec();
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&suite);
        body.push(0);
        if !extensions.is_empty() {
            body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend_from_slice(extensions);
        }
        let mut message = vec![2, 0];
        message.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&body);
        let mut record = vec![22, 3, 3];
        record.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        record.extend_from_slice(&message);
        record
    };
    let renegotiation = [0xff, 1, 0, 1, 0];
    let h3 = [0, 16, 0, 5, 0, 3, 2, b'h', b'3'];
    let trust = trusting(&Made::root("root"));
    for (id, answer) in [
        ("TL-16 SSL 3.0", hello([3, 0], [0xc0, 0x2f], &renegotiation)),
        ("TL-16 TLS 1.0", hello([3, 1], [0xc0, 0x2f], &renegotiation)),
        ("TL-16 TLS 1.1", hello([3, 2], [0xc0, 0x2f], &renegotiation)),
        ("TL-17 NULL", hello([3, 3], [0, 2], &renegotiation)),
        ("TL-17 EXPORT", hello([3, 3], [0, 3], &renegotiation)),
        ("TL-17 RC4", hello([3, 3], [0, 5], &renegotiation)),
        ("TL-17 3DES", hello([3, 3], [0, 10], &renegotiation)),
        ("TL-19 h3", hello([3, 3], [0xc0, 0x2f], &[&renegotiation[..], &h3].concat())),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40]),
        ("an unknown alert", vec![21, 3, 3, 0, 2, 2, 0xee]),
        ("no TLS", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("zeros", vec![0; 64 * 1024]),
    ] {
        let (ours, mut theirs) = tokio::io::duplex(1024 * 1024);
        theirs.write_all(&answer).await.unwrap();
        let asked = origin("api.x.test:443");
        let failure = trust.handshake(ours, &asked, Alpn::Both).await.map(|_| ()).expect_err(id);
        assert_eq!(failure.kind(), TlsFailureKind::Protocol, "{id}: {failure}");
        assert_eq!(failure.code(), Code::UpstreamTlsFailed, "{id}");
        assert!(failure.text().starts_with("the upstream "), "{id}: {failure}");
    }
}

#[tokio::test]
async fn refuses_chains_without_end() {
    // TL-18
    let root = Made::root("root");
    let end = root.sign(leaf(&[HOST]));
    let mut chain = vec![end.certificate.clone()];
    chain.extend(std::iter::repeat_n(root.certificate.clone(), 10_000));
    let failure = meet(&trusting(&root), "api.x.test:443", server(chain, &end.key)).await.unwrap_err();
    assert_eq!(failure.kind(), TlsFailureKind::Protocol, "{failure}");
    // Within what a message may hold: CAs of one name that could all have signed each other, for whom a verifier
    // without a budget would try every order.
    let twins: Vec<Made> = (0..60).map(|_| root.sign(ca("twin", BasicConstraints::Unconstrained))).collect();
    let end = twins[0].sign(leaf(&[HOST]));
    let mut chain = vec![end.certificate.clone()];
    chain.extend(twins.iter().skip(1).map(|twin| twin.certificate.clone()));
    let failure = meet(&trusting(&root), "api.x.test:443", server(chain, &end.key)).await.unwrap_err();
    assert_eq!(failure.kind(), TlsFailureKind::Certificate, "{failure}");
}

#[tokio::test(start_paused = true)]
async fn lets_go_of_an_upstream_that_stalls() {
    // TL-20: before and within its ServerHello.
    let trust = trusting(&Made::root("root"));
    for said in [&[][..], &[22, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3]] {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(said).await.unwrap();
        let started = tokio::time::Instant::now();
        let failure = trust.handshake(ours, &origin("api.x.test:443"), Alpn::Both).await.map(|_| ()).unwrap_err();
        assert_eq!((failure.kind(), failure.code()), (TlsFailureKind::Timeout, Code::UpstreamTimeout));
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_broken_connection_is_told_from_a_refusal() {
    let trust = trusting(&Made::root("root"));
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    drop(theirs);
    let failure = trust.handshake(ours, &origin("api.x.test:443"), Alpn::Both).await.map(|_| ()).unwrap_err();
    assert_eq!((failure.kind(), failure.code()), (TlsFailureKind::Io, Code::UpstreamUnreachable));
}

#[tokio::test]
async fn no_certificate_is_shown_to_an_upstream_that_asks() {
    // TL-21
    let root = Made::root("root");
    let end = root.sign(leaf(&[HOST]));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.certificate.clone()).unwrap();
    let asking = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), super::provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_client_cert_verifier(asking)
        .with_single_cert(vec![end.certificate.clone()], PrivatePkcs8KeyDer::from(end.key.serialize_der()).into())
        .unwrap();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let trust = trusting(&root);
    let asked = origin("api.x.test:443");
    let (client, upstream) =
        tokio::join!(trust.handshake(ours, &asked, Alpn::Both), TlsAcceptor::from(Arc::new(config)).accept(theirs));
    client.unwrap();
    assert!(upstream.unwrap().get_ref().1.peer_certificates().is_none());
}

#[tokio::test]
async fn a_session_is_resumed_at_its_own_host_and_with_its_own_configuration() {
    // TL-23, TL-24: both hosts are on one server, which would resume anything.
    let root = Made::root("root");
    let end = root.sign(leaf(&["a.x.test", "b.x.test"]));
    let mut config = server(vec![end.certificate.clone()], &end.key);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    config.max_early_data_size = 16 * 1024;
    let trust = trusting(&root);
    for (authority, expected) in [
        ("a.x.test:443", HandshakeKind::Full),
        ("a.x.test:443", HandshakeKind::Resumed),
        ("b.x.test:443", HandshakeKind::Full),
    ] {
        assert_eq!(meet(&trust, authority, config.clone()).await.unwrap(), expected, "{authority}");
    }
    assert_eq!(meet(&trusting(&root), "a.x.test:443", config).await.unwrap(), HandshakeKind::Full);
}

#[tokio::test]
async fn a_cleartext_origin_is_never_verified() {
    let trust = trusting(&Made::root("root"));
    let (ours, _theirs) = tokio::io::duplex(64);
    let cleartext = crate::message::origin::Origin::from_authority(crate::message::origin::Scheme::Http, HOST).unwrap();
    let failure = trust.handshake(ours, &cleartext, Alpn::Both).await.map(|_| ()).unwrap_err();
    assert_eq!(failure.kind(), TlsFailureKind::Protocol);
}

fn rcgen_pem(made: &Made) -> String {
    let text = super::roots::pem_of(&made.certificate);
    assert_eq!(certificates(&text).first(), Some(&made.certificate));
    text
}
