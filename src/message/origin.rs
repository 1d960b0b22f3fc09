//! Where a request goes, read once: everything later (policy, TLS name, pool key, dial address, log) is taken
//! from the same [`Origin`].
//!
//! Invariant: a host is either a lower-case A-label name without a trailing dot, or an address in its canonical
//! text. Nothing that a resolver might read as an address is ever a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::code::Code;

/// Why a target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not an authority at all.
    #[error("the target is not a valid host and port")]
    Malformed,
    /// Looks like an address in an unusual spelling (`127.1`, `0x7f.1`, `2130706433`).
    #[error("the target is an address in a spelling that is not accepted")]
    DisguisedAddress,
}

impl OriginError {
    /// What the agent is told.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Malformed => Code::BadRequest,
            Self::DisguisedAddress => Code::DestinationProhibited,
        }
    }
}

/// How the upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Cleartext.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A host in its one canonical form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A lower-case DNS name without a trailing dot.
    Name(Arc<str>),
    /// An address literal.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as it stands in an authority: a name, an IPv4 address, or `[IPv6]`.
    ///
    /// # Errors
    /// [`OriginError`] for anything else, percent-escapes, userinfo, non-ASCII and empty labels included.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(OriginError::Malformed)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| OriginError::Malformed)?;
            return Ok(Self::Address(IpAddr::V6(address)));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // RFC 1035 section 2.3.4: names are at most 253 characters as text, labels at most 63.
        if name.is_empty() || name.len() > 253 {
            return Err(OriginError::Malformed);
        }
        for label in name.split('.') {
            let bytes = label.as_bytes();
            let edge_is_plain = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
            // An underscore is no host name character (RFC 1123), yet names in use have it; it is harmless here.
            if bytes.len() > 63
                || !edge_is_plain(bytes.first())
                || !edge_is_plain(bytes.last())
                || !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            {
                return Err(OriginError::Malformed);
            }
        }
        if ends_in_a_number(name) {
            return Err(OriginError::DisguisedAddress);
        }
        Ok(Self::Name(name.to_ascii_lowercase().into()))
    }

    /// The name, where it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

/// The rule of the URL standard ("ends in a number checker"): such a host is an address to somebody's resolver.
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    last.strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Scheme, host and port of the server that a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl Origin {
    /// Puts one together from checked parts.
    #[must_use]
    pub fn new(scheme: Scheme, host: Host, port: u16) -> Self {
        Self { scheme, host, port }
    }

    /// Reads the target of a CONNECT: `host:port`, the port required.
    ///
    /// # Errors
    /// [`OriginError`] when it is anything else (RFC 9110 section 9.3.6).
    pub fn from_connect_target(text: &str) -> Result<Self, OriginError> {
        let (host, port) = split_port(text)?;
        let port = port.ok_or(OriginError::Malformed)?;
        Ok(Self { scheme: Scheme::Https, host: Host::parse(host)?, port })
    }

    /// Reads an authority as `Host`, `:authority` or an absolute-form target has it; the port may be missing.
    ///
    /// # Errors
    /// [`OriginError`] on userinfo, lists, empty hosts and everything that is no host and port.
    pub fn from_authority(scheme: Scheme, text: &str) -> Result<Self, OriginError> {
        let (host, port) = split_port(text)?;
        Ok(Self { scheme, host: Host::parse(host)?, port: port.unwrap_or(scheme.default_port()) })
    }

    /// Cleartext or TLS.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The canonical host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never zero.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host`, or `host:port` where the port is not the scheme's own: the value of a `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// `https://host:port`, the port left out where it is the scheme's own.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), OriginError> {
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(OriginError::Malformed)?;
        let (host, rest) = text.split_at(end.saturating_add(1));
        match rest.strip_prefix(':') {
            None if rest.is_empty() => (host, None),
            None => return Err(OriginError::Malformed),
            Some(port) => (host, Some(port)),
        }
    } else {
        match text.split_once(':') {
            None => (text, None),
            Some((host, port)) => (host, Some(port)),
        }
    };
    let Some(port) = port else { return Ok((host, None)) };
    // Digits only, no sign, no leading zero, 1 to 65535.
    let plain = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
    let number = if plain { port.parse::<u16>().ok() } else { None };
    number.map(|number| (host, Some(number))).ok_or(OriginError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_malformed_connect_target() {
        // PX-05
        for bad in [
            "host",
            "host:0",
            ":443",
            "host:443:443",
            "host:65536",
            "host:+443",
            "host:0443",
            "[::1",
            "::1:443",
            "user@host:443",
            "http://host:443",
            "host:443/",
            "host:443?x",
            "host: 443",
            " host:443",
            "",
            ":",
            "[]:443",
            "[[::1]]:443",
            "[host]:443",
            "[fe80::1%25eth0]:443",
            "[::1]x:443",
            "a..b:443",
            ".a:443",
            "-a.test:443",
            "a-.test:443",
            "h\u{e4}.test:443",
            "api%2etest:443",
            "api.test%00.evil.test:443",
            "\u{212a}.test:443",
            "a,b:443",
            "*.test:443",
        ] {
            assert_eq!(Origin::from_connect_target(bad), Err(OriginError::Malformed), "{bad:?}");
        }
        let long = format!("{}:443", "a".repeat(65_536));
        assert_eq!(Origin::from_connect_target(&long), Err(OriginError::Malformed));
    }

    #[test]
    fn refuses_addresses_in_disguise() {
        // RT-01
        for bad in ["127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "0x7f000001", "127.0.0.0x1", "1.2.3.4.5"] {
            let target = format!("{bad}:443");
            assert_eq!(Origin::from_connect_target(&target), Err(OriginError::DisguisedAddress), "{bad}");
        }
    }

    #[test]
    fn one_name_has_one_form() {
        // RT-06
        let plain = Origin::from_connect_target("api.openai.com:443").unwrap();
        assert_eq!(Origin::from_connect_target("API.OpenAI.com.:443").unwrap(), plain);
        assert_eq!(Origin::from_authority(Scheme::Https, "Api.OpenAI.com").unwrap(), plain);
        assert_eq!(plain.authority(), "api.openai.com");
        assert_eq!(Origin::from_connect_target("[::1]:8443").unwrap().authority(), "[::1]:8443");
    }

    proptest::proptest! {
        #[test]
        fn a_host_has_one_form_whatever_was_written(text in "\\PC{0,40}|[a-zA-Z0-9.:%@\\[\\]_/-]{0,40}") {
            // RT-06: reading what was read changes nothing, and nothing but plain names and addresses is read.
            if let Ok(host) = Host::parse(&text) {
                let again = match &host {
                    Host::Address(std::net::IpAddr::V6(ip)) => Host::parse(&format!("[{ip}]")),
                    other => Host::parse(&other.to_string()),
                };
                proptest::prop_assert_eq!(again, Ok(host.clone()));
                if let Host::Name(name) = &host {
                    proptest::prop_assert!(name.bytes().all(|b| !b.is_ascii_uppercase() && b.is_ascii_graphic()));
                    proptest::prop_assert!(!name.ends_with('.') && !name.starts_with('.'));
                    // No resolver takes it for an address.
                    proptest::prop_assert!(name.parse::<std::net::IpAddr>().is_err());
                }
            }
        }

        #[test]
        fn the_same_name_is_the_same_host(name in "[a-z][a-z0-9-]{0,10}[a-z0-9](\\.[a-z][a-z0-9]{1,10}){1,3}", dot in proptest::bool::ANY) {
            let written = format!("{}{}", name.to_ascii_uppercase(), if dot { "." } else { "" });
            proptest::prop_assert_eq!(Host::parse(&written), Host::parse(&name));
            let other = Host::parse(&format!("{name}x"));
            proptest::prop_assert!(other != Host::parse(&name));
        }

        #[test]
        fn a_target_is_read_as_a_host_and_a_port_or_not_at_all(text in "[a-z0-9.:@/?#\\[\\]-]{0,30}") {
            // PX-05
            if let Ok(origin) = Origin::from_connect_target(&text) {
                let (host, port) = text.rsplit_once(':').unwrap();
                proptest::prop_assert_eq!(port.parse::<u16>(), Ok(origin.port()));
                proptest::prop_assert!(!port.starts_with('0') && !port.starts_with('+'));
                proptest::prop_assert_eq!(Host::parse(host), Ok(origin.host().clone()));
            }
        }
    }
}
