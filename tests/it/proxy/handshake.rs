//! Both TLS sides as OpenSSL and a raw hello see them.

use std::process::Command;

use super::{ACME, Stage};
use crate::harness::{HTTP1, Tool, need, run_command};

/// `openssl s_client` through the proxy; what it prints.
fn s_client(stage: &Stage, more: &[&str]) -> Option<String> {
    let mut command = Command::new(need("handshake", Tool::Openssl)?);
    let proxy = stage.daemon.proxy.to_string();
    let target = format!("{ACME}:443");
    command.args(["s_client", "-proxy", &proxy, "-connect", &target, "-servername", ACME, "-proxy_user", "coder"]);
    command.args(["-proxy_pass", "env:KEYFERRY_TEST_TOKEN"]).env("KEYFERRY_TEST_TOKEN", &stage.token);
    command.args(["-CAfile", stage.ca().to_str().unwrap(), "-verify_return_error"]).args(more);
    let finished = run_command(command, b"Q\n");
    let text = format!("{}{}", finished.stdout(), finished.stderr());
    stage.home.observe("openssl", text.as_bytes());
    Some(text)
}

#[test]
fn agents_get_the_two_versions_that_are_sound_and_nothing_older() {
    let stage = Stage::new();
    for (version, taken) in [("-tls1_3", true), ("-tls1_2", true), ("-tls1_1", false), ("-tls1", false)] {
        // Security level 0 lets the client offer what the server must not take.
        let Some(text) = s_client(&stage, &[version, "-cipher", "ALL:@SECLEVEL=0"]) else { return };
        let agreed = text.contains("Cipher is TLS_AES")
            || text.contains("Cipher is TLS_CHACHA")
            || text.contains("Cipher is ECDHE");
        assert_eq!(agreed && text.contains("Verify return code: 0 (ok)"), taken, "{version}: {text}");
        if taken {
            for expected in ["Compression: NONE", "Verification: OK"] {
                assert!(text.contains(expected), "{version}: no {expected} in {text}");
            }
        }
    }
}

#[test]
fn weak_ciphers_and_unsafe_renegotiation_are_refused() {
    let stage = Stage::new();
    for ciphers in ["NULL", "RC4", "3DES", "EXPORT", "AES128-SHA", "AES256-GCM-SHA384", "DHE", "PSK", "aNULL"] {
        let Some(text) = s_client(&stage, &["-tls1_2", "-cipher", &format!("{ciphers}:@SECLEVEL=0")]) else { return };
        assert!(text.contains("Cipher is (NONE)") || text.contains("no cipher match"), "{ciphers}: {text}");
    }
    let mut command = Command::new(need("handshake", Tool::Openssl).unwrap());
    command.args(["s_client", "-proxy", &stage.daemon.proxy.to_string(), "-connect", &format!("{ACME}:443")]);
    command.args(["-proxy_user", "coder", "-proxy_pass", "env:T", "-servername", ACME, "-tls1_2"]);
    command.env("T", &stage.token).args(["-CAfile", stage.ca().to_str().unwrap()]);
    let finished = run_command(command, b"R\nQ\n");
    let text = format!("{}{}", finished.stdout(), finished.stderr());
    // rustls never renegotiates; the client is told or cut off.
    assert!(!text.contains("RENEGOTIATING\ndepth"), "{text}");
}

#[test]
fn the_protocol_of_the_application_is_agreed_upon() {
    // TL-37
    let stage = Stage::new();
    for (offer, agreed) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let Some(text) = s_client(&stage, &["-alpn", offer]) else { return };
        assert!(text.contains(&format!("ALPN protocol: {agreed}")), "{offer}: {text}");
    }
    let Some(text) = s_client(&stage, &["-alpn", "h3"]) else { return };
    assert!(!text.contains("ALPN protocol: h3"), "{text}");
}

#[test]
fn the_hybrid_group_is_preferred_upstream_and_taken_from_agents() {
    let mut stage = Stage::new();
    stage.get(ACME, "/plain").assert_status(200);
    let wire = stage.tunnel(&format!("{ACME}:443")).tls(&stage.ca(), ACME, HTTP1).unwrap();
    drop(wire);
    stage.stop();
    let lines = stage.home.access_log();
    let line = lines.iter().find(|line| line["path"] == "/plain").unwrap();
    assert_eq!(line["upstream_tls"], "TLSv1.3 X25519MLKEM768", "{line}");
    assert_eq!(line["tls"], "TLSv1.3 X25519MLKEM768", "{line}");
}
