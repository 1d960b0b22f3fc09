//! The URL of a proxy.
//!
//! Invariant: what is shown of it is host and port.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::message::origin::{Origin, Scheme};
use crate::secret::Secret;

/// Why a text is no proxy that we can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// Only HTTP proxies without TLS in between are spoken to.
    #[error("only http:// proxies can be chained through")]
    Scheme,
    /// No host, or a path, or worse.
    #[error("it is not of the form http://host:port")]
    Malformed,
}

/// An HTTP proxy, with what authenticates to it.
#[derive(Clone)]
pub struct ProxyUrl {
    host: String,
    port: u16,
    authorization: Option<Arc<Secret>>,
    ours: bool,
}

impl ProxyUrl {
    /// Reads `[http://][user[:password]@]host[:port][/]`; the parts of the user may be percent-encoded.
    ///
    /// # Errors
    /// [`ProxyUrlError`].
    pub fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(ProxyUrlError::Scheme),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = match rest.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, rest),
        };
        let origin = Origin::from_authority(Scheme::Http, authority).map_err(|_| ProxyUrlError::Malformed)?;
        let (host, port) = (origin.host().to_string(), origin.port());
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let user = user.filter(|user| !user.is_empty());
        let ours = user.is_some_and(|user| user.rsplit(':').next().is_some_and(|token| token.starts_with("kfa_")));
        Ok(Self { host, port, authorization: user.map(authorization), ours })
    }

    /// Its host, an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether somebody's name and password stand in it.
    #[must_use]
    pub fn has_user(&self) -> bool {
        self.authorization.is_some()
    }

    /// Whether it is a listener of Keyferry's with an agent's token.
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    /// The value of `Proxy-Authorization`, if there is one.
    pub fn authorization(&self) -> Option<&Arc<Secret>> {
        self.authorization.as_ref()
    }

    /// Appends the field that authenticates.
    pub(super) fn write_authorization(&self, request: &mut Vec<u8>) {
        if let Some(value) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(value.expose());
            request.extend_from_slice(b"\r\n");
        }
    }
}

/// `Basic`, as RFC 7617 section 2 puts it together.
fn authorization(user: &str) -> Arc<Secret> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode_str(name).collect());
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let encoded = Zeroizing::new(STANDARD.encode(&*pair));
    Arc::new(Secret::from(format!("Basic {}", &*encoded)))
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        if brackets { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_variables_hold() {
        for (text, shown, value) in [
            ("http://corp:3128", "corp:3128", None),
            ("HTTP://Corp.Example:3128/", "corp.example:3128", None),
            ("corp:3128", "corp:3128", None),
            ("http://corp", "corp:80", None),
            ("http://[::1]:3128", "[::1]:3128", None),
            ("http://u:p@127.0.0.1:1", "127.0.0.1:1", Some("Basic dTpw")),
            ("http://u@corp:1", "corp:1", Some("Basic dTo=")),
            ("http://u:p@ss@corp:1", "corp:1", Some("Basic dTpwQHNz")),
            ("http://u:p%40ss@corp:1", "corp:1", Some("Basic dTpwQHNz")),
            ("http://@corp:1", "corp:1", None),
        ] {
            let url = ProxyUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("ProxyUrl({shown})"));
            let found = url.authorization().map(|value| value.expose().to_vec());
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "{text}");
        }
        for bad in ["", "http://", "http://corp:x", "http://corp:3128/path", "http://a b:1", "http://corp:99999"] {
            assert_eq!(ProxyUrl::parse(bad).unwrap_err(), ProxyUrlError::Malformed, "{bad}");
        }
    }
}
