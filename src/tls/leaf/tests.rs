use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, Error, HandshakeKind};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::super::AcceptFailure;
use super::super::testing::{agent, agent_speaking, exchange, host, hosts, now, shake, tls_error};
use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn make(names: &[&str]) -> (Arc<Authority>, Leaves) {
    let authority = Authority::ephemeral(&hosts(names), now()).unwrap();
    (Arc::clone(&authority), Leaves::new(authority))
}

async fn chain(authority: &Authority, config: Arc<ServerConfig>, name: &str) -> Vec<CertificateDer<'static>> {
    exchange(shake(Arc::new(agent(authority)), name, &host(name), config).await).await.1
}

#[tokio::test]
async fn an_agent_that_trusts_the_root_gets_through() {
    let (authority, leaves) = make(&["api.x.test"]);
    let config = leaves.config_for(&host("api.x.test"), now()).await.unwrap();
    for (version, name, group) in [(&TLS13, "TLSv1_3", "X25519MLKEM768"), (&TLS12, "TLSv1_2", "X25519")] {
        let client = Arc::new(agent_speaking(&authority, &[version]));
        let (client, server) = shake(client, "api.x.test", &host("api.x.test"), Arc::clone(&config)).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        let (client, server) = (client.get_ref().1, server.get_ref().1);
        assert_eq!(client.protocol_version().unwrap().as_str(), Some(name));
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.negotiated_key_exchange_group().unwrap().name().as_str(), Some(group));
        assert_eq!(client.peer_certificates().unwrap().len(), 2, "leaf and intermediate, not the root");
    }
}

#[tokio::test]
async fn an_agent_that_does_not_trust_the_root_does_not() {
    let (_, leaves) = make(&["api.x.test"]);
    let (stranger, _) = make(&["api.x.test"]);
    let config = leaves.config_for(&host("api.x.test"), now()).await.unwrap();
    let (client, server) = shake(Arc::new(agent(&stranger)), "api.x.test", &host("api.x.test"), config).await;
    let error = client.unwrap_err();
    assert_eq!(tls_error(&error), &Error::InvalidCertificate(CertificateError::UnknownIssuer));
    assert!(matches!(server.unwrap_err(), AcceptFailure::Distrusted));
}

#[tokio::test]
async fn the_leaf_has_the_profile_that_strict_verifiers_want() {
    // TL-40. A name of more than 64 characters leaves the subject empty.
    let long = format!("{}.{}.x.test", "a".repeat(40), "b".repeat(40));
    let (authority, leaves) = make(&["*.x.test"]);
    for (name, common_name) in [("api.x.test", Some("api.x.test")), (long.as_str(), None)] {
        let config = leaves.config_for(&host(name), now()).await.unwrap();
        let chain = chain(&authority, config, name).await;
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let (_, intermediate) = X509Certificate::from_der(&chain[1]).unwrap();

        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName(name)]);
        assert_eq!(names.critical, common_name.is_none());
        assert_eq!(leaf.subject().iter_common_name().next().map(|cn| cn.as_str().unwrap()), common_name);
        let basic = leaf.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && !basic.value.ca);
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1, "digitalSignature alone");
        let extended = leaf.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && !extended.value.client_auth && !extended.value.any);
        let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
        assert_eq!(life, 25 * 3600, "a day, and the hour that it is backdated");
        assert!(leaf.raw_serial().len() <= 20 && (1..0x80).contains(&leaf.raw_serial()[0]));
        assert_ne!(leaf.raw_serial(), intermediate.raw_serial());

        let key_id = |certificate: &X509Certificate<'_>, oid: &str| {
            let extension = certificate.extensions().iter().find(|e| e.oid.to_id_string() == oid).unwrap();
            extension.value[extension.value.len() - 20..].to_vec()
        };
        let (subject, authority) = ("2.5.29.14", "2.5.29.35");
        assert_eq!(key_id(&leaf, authority), key_id(&intermediate, subject));
        assert_ne!(key_id(&leaf, subject), key_id(&intermediate, subject));
    }
}

#[tokio::test]
async fn refuses_addresses_and_hosts_outside() {
    let (authority, leaves) = make(&["api.x.test", "*.y.test"]);
    for address in ["127.0.0.1", "[::1]"] {
        let error = leaves.config_for(&host(address), now()).await.unwrap_err();
        assert!(matches!(error, CaError::Address { .. }), "{error}");
    }
    for outside in ["x.test", "other.x.test", "evil.test", "test"] {
        // TL-35: nothing is made for a host that the constraints don't permit.
        let error = leaves.config_for(&host(outside), now()).await.unwrap_err();
        assert!(matches!(error, CaError::Outside { .. }), "{error}");
    }
    let narrow = Leaves::constrained_to(authority, &hosts(&["a.y.test"])).unwrap();
    assert!(narrow.config_for(&host("a.y.test"), now()).await.is_ok());
    assert!(matches!(narrow.config_for(&host("api.x.test"), now()).await.unwrap_err(), CaError::Outside { .. }));
    assert_eq!((leaves.minted(), narrow.minted()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_make_one_leaf() {
    // TL-36
    let (_, leaves) = make(&["api.x.test"]);
    let leaves = Arc::new(leaves);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let leaves = Arc::clone(&leaves);
        tasks.spawn(async move { leaves.config_for(&host("api.x.test"), now()).await.unwrap() });
    }
    let configs = tasks.join_all().await;
    assert_eq!(leaves.minted(), 1);
    assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
}

#[tokio::test]
async fn five_thousand_hosts_leave_no_more_than_the_cap() {
    // TL-36
    let (_, leaves) = make(&["*.x.test"]);
    for number in 0..5000 {
        leaves.config_for(&host(&format!("h{number}.x.test")), now()).await.unwrap();
        assert!(leaves.cache.len() <= CAPACITY);
    }
    assert_eq!(leaves.minted(), 5000);
    assert!(leaves.cache.len() > CAPACITY / 2, "{}", leaves.cache.len());
}

#[tokio::test]
async fn a_leaf_is_made_anew_before_its_end_and_when_the_clock_moves() {
    // TL-41
    let moment = now();
    let (_, leaves) = make(&["api.x.test"]);
    let api = host("api.x.test");
    let mut last = leaves.config_for(&api, moment).await.unwrap();
    let back = |duration| minus(moment, duration);
    for (what, at, anew) in [
        ("an hour later", moment.plus(HOUR), false),
        ("shortly before the margin", moment.plus(21 * HOUR), false),
        ("within the margin", moment.plus(22 * HOUR + HOUR / 2), true),
        ("back to where the new leaf is not valid yet", moment, true),
        ("a little further back", back(HOUR / 4), false),
        ("an hour back", back(HOUR), true),
        ("forward by ninety days, beyond the intermediate", moment.plus(90 * 24 * HOUR), true),
        ("and stays there", moment.plus(90 * 24 * HOUR + HOUR), false),
    ] {
        let config = leaves.config_for(&api, at).await.unwrap();
        assert_eq!(!Arc::ptr_eq(&config, &last), anew, "{what}");
        last = config;
    }
    for outside in [back(48 * HOUR), moment.plus(366 * 24 * HOUR)] {
        let error = leaves.config_for(&api, outside).await.unwrap_err();
        assert!(matches!(error, CaError::NotValidNow { .. }), "{error}");
    }
    // A failure leaves nothing behind that would stop the next call.
    assert!(leaves.config_for(&api, moment).await.is_ok());
}

#[tokio::test]
async fn the_roots_last_day_is_served_without_making_leaf_after_leaf() {
    let moment = now();
    let (authority, leaves) = make(&["api.x.test"]);
    let nearly = minus(authority.info().not_after, HOUR);
    for at in [nearly, nearly.plus(HOUR / 4), nearly.plus(HOUR / 2)] {
        leaves.config_for(&host("api.x.test"), at).await.unwrap();
    }
    assert_eq!(leaves.minted(), 1);
    assert!(nearly > moment);
}

#[tokio::test]
async fn answers_only_for_the_tunnels_host() {
    // TL-30
    let (authority, leaves) = make(&["*.x.test"]);
    let tunnel = host("api.x.test");
    let config = leaves.config_for(&tunnel, now()).await.unwrap();
    let trusting = Arc::new(agent(&authority));
    for same in ["api.x.test", "API.X.test", "api.x.test."] {
        let (client, server) = shake(Arc::clone(&trusting), same, &tunnel, Arc::clone(&config)).await;
        assert!(client.is_ok() && server.is_ok(), "{same}");
    }
    for other in ["other.x.test", "evil.test", "x.test"] {
        let (client, server) = shake(Arc::clone(&trusting), other, &tunnel, Arc::clone(&config)).await;
        assert!(matches!(server.unwrap_err(), AcceptFailure::OtherName), "{other}");
        let error = client.unwrap_err();
        assert_eq!(tls_error(&error), &Error::AlertReceived(AlertDescription::UnrecognisedName), "{other}");
    }
    // Without a name, or with an address for one, it is the tunnel's host that answers.
    let mut nameless = agent(&authority);
    nameless.enable_sni = false;
    let (client, server) = shake(Arc::new(nameless), "api.x.test", &tunnel, Arc::clone(&config)).await;
    assert!(client.is_ok() && server.is_ok());
    let (client, server) = shake(trusting, "127.0.0.1", &tunnel, config).await;
    let error = client.unwrap_err();
    assert!(
        matches!(tls_error(&error), Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
        "{error}"
    );
    assert!(server.is_err());
    assert_eq!(leaves.minted(), 1, "no certificate is ever made for what a ClientHello says");
}

#[tokio::test]
async fn the_configuration_alone_refuses_another_name_too() {
    let (authority, leaves) = make(&["*.x.test"]);
    let config = leaves.config_for(&host("api.x.test"), now()).await.unwrap();
    let (theirs, ours) = tokio::io::duplex(64 * 1024);
    let client = tokio_rustls::TlsConnector::from(Arc::new(agent(&authority)));
    let name = "other.x.test".try_into().unwrap();
    let (client, server) =
        tokio::join!(client.connect(name, theirs), tokio_rustls::TlsAcceptor::from(config).accept(ours));
    assert!(server.is_err());
    assert_eq!(tls_error(&client.unwrap_err()), &Error::AlertReceived(AlertDescription::AccessDenied));
}

#[test]
fn names_agree_in_any_spelling_and_addresses_never() {
    let name = host("api.x.test");
    for (tunnel, sni, agrees) in [
        (&name, None, true),
        (&name, Some("api.x.test"), true),
        (&name, Some("Api.X.TEST."), true),
        (&name, Some("api.x.test.."), false),
        (&name, Some("other.x.test"), false),
        (&name, Some(""), false),
        (&name, Some("api.x.test\0.evil.test"), false),
        (&name, Some("*.x.test"), false),
        (&host("127.0.0.1"), None, true),
        (&host("127.0.0.1"), Some("127.0.0.1"), false),
    ] {
        assert_eq!(sni_agrees(tunnel, sni), agrees, "{tunnel} {sni:?}");
    }
}

#[tokio::test]
async fn sessions_resume_at_their_own_host_and_nowhere_else() {
    // TL-23, from the agent's side: without a server name nothing but the ticket's key tells two hosts apart.
    let (authority, leaves) = make(&["*.x.test"]);
    let (a, b) = (host("a.x.test"), host("b.x.test"));
    let (at_a, at_b) = (leaves.config_for(&a, now()).await.unwrap(), leaves.config_for(&b, now()).await.unwrap());
    for version in [&TLS13, &TLS12] {
        let mut client = agent_speaking(&authority, &[version]);
        client.enable_sni = false;
        let client = Arc::new(client);
        let first = exchange(shake(Arc::clone(&client), "a.x.test", &a, Arc::clone(&at_a)).await).await;
        assert_eq!(first.0, HandshakeKind::Full);
        let second = exchange(shake(Arc::clone(&client), "a.x.test", &a, Arc::clone(&at_a)).await).await;
        assert_eq!(second.0, HandshakeKind::Resumed);
        // The agent offers its session with a to b.
        let (client, server) = shake(client, "a.x.test", &b, Arc::clone(&at_b)).await;
        let error = client.unwrap_err();
        assert!(
            matches!(tls_error(&error), Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
            "{error}"
        );
        assert!(server.is_err());
    }
}

#[tokio::test]
async fn early_data_is_never_accepted() {
    // TL-24
    let (authority, leaves) = make(&["a.x.test"]);
    let a = host("a.x.test");
    let config = leaves.config_for(&a, now()).await.unwrap();
    let mut client = agent(&authority);
    client.enable_early_data = true;
    let client = Arc::new(client);
    exchange(shake(Arc::clone(&client), "a.x.test", &a, Arc::clone(&config)).await).await;
    let mut session = rustls::ClientConnection::new(client, "a.x.test".try_into().unwrap()).unwrap();
    assert!(session.early_data().is_none(), "the ticket must not offer it");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stalls_is_let_go() {
    // TL-34, DO: ten seconds, whatever it has sent by then.
    let (_, leaves) = make(&["a.x.test"]);
    let a = host("a.x.test");
    let config = leaves.config_for(&a, now()).await.unwrap();
    let (mut theirs, ours) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut theirs, &[22, 3, 1, 2, 0, 1]).await.unwrap();
    let started = tokio::time::Instant::now();
    let failure = super::super::accept(ours, &a, config).await.unwrap_err();
    assert!(matches!(failure, AcceptFailure::Timeout));
    assert_eq!(started.elapsed().as_secs(), 10);
}
