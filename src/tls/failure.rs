//! Why TLS to an upstream did not come about, as data.
//!
//! Invariant: no text in here comes from the peer: certificates may hold anything.

use std::borrow::Cow;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

use crate::code::Code;

/// Whose fault, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFailureKind {
    /// The certificate did not verify for the origin.
    Certificate,
    /// The two sides have no application protocol in common.
    Application,
    /// The handshake failed otherwise.
    Protocol,
    /// The handshake took too long.
    Timeout,
    /// The connection broke.
    Io,
}

/// Why there is no verified connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFailure {
    kind: TlsFailureKind,
    text: Cow<'static, str>,
    proxy_status: &'static str,
}

impl TlsFailure {
    /// Certificate, protocol, timeout or connection.
    #[must_use]
    pub fn kind(&self) -> TlsFailureKind {
        self.kind
    }

    /// What happened, in words that are safe in logs and answers.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.kind {
            TlsFailureKind::Certificate | TlsFailureKind::Application | TlsFailureKind::Protocol => {
                Code::UpstreamTlsFailed
            }
            TlsFailureKind::Timeout => Code::UpstreamTimeout,
            TlsFailureKind::Io => Code::UpstreamUnreachable,
        }
    }

    /// The error type of RFC 9209 section 2.3.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        self.proxy_status
    }

    pub(super) fn timeout() -> Self {
        Self::new(TlsFailureKind::Timeout, "the TLS handshake took longer than 10 s", "connection_timeout")
    }

    pub(super) fn protocol(text: &'static str) -> Self {
        Self::new(TlsFailureKind::Protocol, text, "tls_protocol_error")
    }

    pub(super) fn from_io(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::from_rustls(error),
            None => {
                let text = match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        "the upstream closed the connection during the TLS handshake".into()
                    }
                    kind => Cow::Owned(format!("the connection broke during the TLS handshake: {kind}")),
                };
                Self { kind: TlsFailureKind::Io, text, proxy_status: "connection_terminated" }
            }
        }
    }

    fn from_rustls(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => {
                Self::new(TlsFailureKind::Certificate, certificate(error), "tls_certificate_error")
            }
            Error::NoCertificatesPresented => {
                Self::new(TlsFailureKind::Certificate, "the upstream presented no certificate", "tls_certificate_error")
            }
            Error::AlertReceived(alert) => Self {
                kind: match alert {
                    AlertDescription::NoApplicationProtocol => TlsFailureKind::Application,
                    _ => TlsFailureKind::Protocol,
                },
                text: match alert.as_str() {
                    Some(name) => Cow::Owned(format!("the upstream refused the TLS handshake: {name}")),
                    None => Cow::Borrowed("the upstream refused the TLS handshake with an unknown alert"),
                },
                proxy_status: "tls_alert_received",
            },
            Error::PeerIncompatible(_) => {
                Self::protocol("the upstream has no TLS version or cipher suite in common with Keyferry")
            }
            Error::PeerMisbehaved(rustls::PeerMisbehaved::SelectedUnofferedApplicationProtocol) => {
                Self::protocol("the upstream chose an application protocol that was not offered")
            }
            Error::NoApplicationProtocol => {
                Self::protocol("the upstream has no application protocol in common with Keyferry")
            }
            Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
                Self::protocol("the upstream does not speak TLS, or speaks it wrongly")
            }
            _ => Self::protocol("the upstream broke the rules of TLS"),
        }
    }

    fn new(kind: TlsFailureKind, text: &'static str, proxy_status: &'static str) -> Self {
        Self { kind, text: Cow::Borrowed(text), proxy_status }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for TlsFailure {}

fn certificate(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the upstream's certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the upstream's certificate is not valid yet"
        }
        CertificateError::UnknownIssuer => "the upstream's certificate is signed by nobody that is trusted here",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the upstream's certificate is for another host"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the upstream's certificate is not for servers"
        }
        CertificateError::Revoked => "the upstream's certificate was revoked",
        CertificateError::BadSignature => "a signature of the upstream's certificates is wrong",
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the upstream's certificate uses an algorithm that is not accepted"
        }
        CertificateError::BadEncoding => "the upstream's certificate cannot be parsed",
        CertificateError::UnhandledCriticalExtension => {
            "the upstream's certificate has a critical extension that is not understood"
        }
        CertificateError::Other(other) => by_name(&other.to_string()),
        _ => "the upstream's certificate was not accepted",
    }
}

/// What rustls has no variant of its own for. The name of webpki's variant only chooses the text: it is never shown.
fn by_name(variant: &str) -> &'static str {
    match variant {
        "CaUsedAsEndEntity" => "the upstream presented a CA certificate as its own",
        "EndEntityUsedAsCa" => "the upstream's certificate is signed by one that is no CA",
        "PathLenConstraintViolated" => "the upstream's chain is longer than one of its CAs permits",
        "NameConstraintViolation" => "the upstream's certificate names a host that its CA may not sign for",
        "MaximumSignatureChecksExceeded"
        | "MaximumPathBuildCallsExceeded"
        | "MaximumPathDepthExceeded"
        | "MaximumNameConstraintComparisonsExceeded" => "the upstream's chain is too long or too tangled to be checked",
        _ => "the upstream's certificate was not accepted",
    }
}
