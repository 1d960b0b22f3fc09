//! What the JVM is told: it takes no proxy and no PEM file from a variable, and cannot authenticate to a proxy.
//!
//! Invariant: only certificates are written; the store's password protects nothing and is no secret.

use std::net::SocketAddr;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// What Java's own store of roots has; its tools ask for one.
const PASSWORD: &str = "changeit";

/// A Java key store ("JKS", version 2) with every certificate of `pem` as a trusted one.
#[must_use]
pub fn trust_store(pem: &str) -> Vec<u8> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect();
    let mut store = Vec::new();
    put(&mut store, 0xfeed_feed);
    put(&mut store, 2);
    put(&mut store, certificates.len());
    for (index, certificate) in certificates.iter().enumerate() {
        // A trusted certificate: its alias, when it was added (never mind), its form, itself.
        put(&mut store, 2);
        put_text(&mut store, &format!("root-{index}"));
        store.extend_from_slice(&[0; 8]);
        put_text(&mut store, "X.509");
        put(&mut store, certificate.len());
        store.extend_from_slice(certificate);
    }
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    PASSWORD.encode_utf16().for_each(|unit| digest.update(&unit.to_be_bytes()));
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    store.extend_from_slice(digest.finish().as_ref());
    store
}

/// The value of `JAVA_TOOL_OPTIONS`: the caller's, and the way through `proxy` with trust in `store`. Of two settings
/// of one property the later one counts.
#[must_use]
pub fn options(inherited: &str, proxy: SocketAddr, store: &Path) -> String {
    let (host, port) = (proxy.ip(), proxy.port());
    let store = store.display().to_string();
    let store = if store.contains(char::is_whitespace) { format!("\"{store}\"") } else { store };
    let ours = format!(
        "-Dhttps.proxyHost={host} -Dhttps.proxyPort={port} -Dhttp.proxyHost={host} -Dhttp.proxyPort={port} \
         -Dhttp.nonProxyHosts=localhost|127.*|[::1] -Djavax.net.ssl.trustStore={store} \
         -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword={PASSWORD}"
    );
    match inherited.trim() {
        "" => ours,
        before if before.ends_with(&ours) => before.to_owned(),
        before => format!("{before} {ours}"),
    }
}

/// A length or a number, which is never larger than the formats field.
fn put(store: &mut Vec<u8>, number: usize) {
    store.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_text(store: &mut Vec<u8>, text: &str) {
    store.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_options_come_first_and_ours_once() {
        let proxy = "127.0.0.1:7".parse().unwrap();
        let ours = options("", proxy, Path::new("/t/roots.jks"));
        assert!(ours.starts_with("-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=7 "));
        assert!(ours.contains(" -Djavax.net.ssl.trustStore=/t/roots.jks "));
        let with = options("-Xmx1g ", proxy, Path::new("/t/roots.jks"));
        assert_eq!(with, format!("-Xmx1g {ours}"));
        assert_eq!(options(&with, proxy, Path::new("/t/roots.jks")), with);
        assert!(options("", proxy, Path::new("/a b/c")).contains("trustStore=\"/a b/c\" "));
    }

    #[test]
    fn an_empty_store_has_its_header_and_digest() {
        let store = trust_store("");
        assert_eq!(&store[..12], [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(store.len(), 12 + 20);
    }
}
