//! The very chain that agents see, before other people's verifiers, and what a stolen key is good for (TL-39,
//! TL-40).

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::profile::{self, Validity};
use super::roots::pem_of;
use super::testing::{agent, exchange, host, hosts, now, shake};
use super::{Authority, Inherited, Leaves, bundle_pem};

const HOST: &str = "api.x.test";
/// Longer than any of these programs takes to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A chain in files, the leaf first.
struct Files {
    place: tempfile::TempDir,
}

impl Files {
    fn new(authority: &Authority, chain: &[CertificateDer<'static>]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(place.path().join(name), text).unwrap();
        write("ca.pem", authority.root_pem().to_owned());
        write("leaf.pem", pem_of(&chain[0]));
        write("rest.pem", chain[1..].iter().map(pem_of).collect());
        write("bundle.pem", bundle_pem(&Inherited::default(), authority.root_pem()).unwrap());
        Self { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }
}

async fn run(package: &str, command: &mut Command) -> Output {
    let output = command.kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, output)
        .await
        .expect("it takes too long")
        .unwrap_or_else(|error| panic!("install the package {package}: {error}"))
}

/// `openssl verify` on what is in the files.
async fn openssl(files: &Files, roots: &str, name: &str) -> Result<(), String> {
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", "sslserver", "-no-CApath", "-no-CAstore"]);
    match name.parse::<std::net::IpAddr>() {
        Ok(_) => command.args(["-verify_ip", name]),
        Err(_) => command.args(["-verify_hostname", name]),
    };
    command.arg("-CAfile").arg(files.path(roots));
    if std::fs::metadata(files.path("rest.pem")).unwrap().len() > 0 {
        command.arg("-untrusted").arg(files.path("rest.pem"));
    }
    let output = run("openssl", command.arg(files.path("leaf.pem"))).await;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Python's ssl with the flag that is its default from 3.13 on, in a real handshake with `config` on loopback.
async fn python(roots: &Path, name: &str, config: Arc<ServerConfig>) -> Result<String, String> {
    const SCRIPT: &str = r"
import socket, ssl, sys
roots, name, port = sys.argv[1:]
context = ssl.create_default_context(cafile=roots)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
context.set_alpn_protocols(['http/1.1'])
with socket.create_connection(('127.0.0.1', int(port)), 30) as raw:
    try:
        with context.wrap_socket(raw, server_hostname=name) as tls:
            print(tls.version(), tls.selected_alpn_protocol(), tls.recv(1).decode())
    except ssl.SSLCertVerificationError as error:
        sys.exit(error.verify_message)
";
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
            let _ = stream.write_all(b"x").await;
            let _ = stream.shutdown().await;
        }
    };
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(roots).args([name, &port]);
    let client = run("python3", &mut command);
    tokio::pin!(client, server);
    // The client decides when it is over: it may end without having connected.
    let output = tokio::select! {
        output = &mut client => output,
        () = &mut server => client.await,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What the agents of `leaves` are shown for `name`.
async fn shown(
    authority: &Authority,
    leaves: &Leaves,
    name: &str,
) -> (Arc<ServerConfig>, Vec<CertificateDer<'static>>) {
    let config = leaves.config_for(&host(name), now()).await.unwrap();
    let ends = shake(Arc::new(agent(authority)), name, &host(name), Arc::clone(&config)).await;
    (config, exchange(ends).await.1)
}

#[tokio::test]
async fn strict_verifiers_accept_the_chain() {
    // TL-40
    // As many hosts as a large catalogue has: verifiers bound the work that constraints may cause.
    let mut covered = hosts(&[HOST, "*.y.test"]);
    covered.extend((0..500).map(|number| format!("api{number}.provider{number}.test")));
    let authority = Authority::ephemeral(&covered, now()).unwrap();
    let leaves = Leaves::new(Arc::clone(&authority));
    // The second has no room for a common name.
    let long = format!("{}.{}.y.test", "a".repeat(40), "b".repeat(40));
    for name in [HOST, &long] {
        let (config, chain) = shown(&authority, &leaves, name).await;
        let files = Files::new(&authority, &chain);
        for roots in ["ca.pem", "bundle.pem"] {
            openssl(&files, roots, name).await.unwrap();
            let seen = python(&files.path(roots), name, Arc::clone(&config)).await.unwrap();
            assert_eq!(seen, "TLSv1.3 http/1.1 x");
        }
        openssl(&files, "ca.pem", "other.test").await.unwrap_err();
        python(&files.path("ca.pem"), "other.test", config).await.unwrap_err();
    }
    let output = {
        let files = Files::new(&authority, &shown(&authority, &leaves, HOST).await.1);
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(files.path("ca.pem"));
        run("openssl", &mut command).await.stdout
    };
    let fingerprint = String::from_utf8(output).unwrap();
    assert_eq!(fingerprint.trim().split_once('=').unwrap().1, authority.info().fingerprint);
}

#[tokio::test]
async fn a_stolen_root_key_signs_for_nobody_else() {
    // TL-39: by itself, by an intermediate without limits, and for an address.
    let authority = Authority::ephemeral(&hosts(&[HOST]), now()).unwrap();
    let (root, root_key) = authority.stolen();
    let root_issuer = Issuer::from_ca_cert_der(root, root_key).unwrap();
    let validity = Validity::new(now(), profile::LEAF_SKEW, profile::LEAF_LIFE, None);

    let middle_key = KeyPair::generate().unwrap();
    let mut middle = CertificateParams::default();
    middle.distinguished_name.push(rcgen::DnType::CommonName, "unlimited");
    middle.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    middle.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    middle.use_authority_key_identifier_extension = true;
    let middle_certificate: CertificateDer<'static> = middle.signed_by(&middle_key, &root_issuer).unwrap().into();
    let middle_issuer = Issuer::from_ca_cert_der(&middle_certificate, &middle_key).unwrap();

    let address = SanType::IpAddress([127, 0, 0, 1].into());
    for (what, name, alternative, indirect, refused) in [
        ("within the limits", HOST, None, false, false),
        ("within the limits, indirectly", HOST, None, true, false),
        ("outside", "evil.test", None, false, true),
        ("outside, indirectly", "evil.test", None, true, true),
        ("a parent", "x.test", None, false, true),
        ("an address", "127.0.0.1", Some(address.clone()), false, true),
        ("an address, indirectly", "127.0.0.1", Some(address), true, true),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = profile::leaf(name, validity).unwrap();
        if let Some(alternative) = alternative {
            params.subject_alt_names = vec![alternative];
            params.distinguished_name = rcgen::DistinguishedName::new();
        }
        let chain: Vec<CertificateDer<'static>> = if indirect {
            vec![params.signed_by(&key, &middle_issuer).unwrap().into(), middle_certificate.clone()]
        } else {
            vec![params.signed_by(&key, &root_issuer).unwrap().into()]
        };
        let config = ServerConfig::builder_with_provider(super::provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        let config = Arc::new(config);

        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let client = tokio_rustls::TlsConnector::from(Arc::new(agent(&authority)));
        let (by_rustls, _) = tokio::join!(
            client.connect(name.to_owned().try_into().unwrap(), ours),
            tokio_rustls::TlsAcceptor::from(Arc::clone(&config)).accept(theirs)
        );
        let files = Files::new(&authority, &chain);
        let by_openssl = openssl(&files, "ca.pem", name).await;
        let by_python = python(&files.path("ca.pem"), name, config).await;
        let verdicts = [by_rustls.is_err(), by_openssl.is_err(), by_python.is_err()];
        assert_eq!(verdicts, [refused; 3], "{what}: {by_openssl:?} {by_python:?}");
        if refused {
            assert!(by_openssl.unwrap_err().contains("subtree violation"), "{what}");
            assert!(by_python.unwrap_err().contains("subtree violation"), "{what}");
        }
    }
}
