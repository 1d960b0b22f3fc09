//! `NO_PROXY`: the hosts that are reached without the proxy.
//!
//! Invariant: names are compared with names and addresses with addresses; nothing is resolved.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::message::origin::Host;

/// A list in the common dialect: `host` and `.host` with everything below, `*.host` the same, `host:port`, addresses,
/// networks, and `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    what: What,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    All,
    /// The name and what is below it.
    Name(String),
    Address(IpAddr),
    Network(IpNet),
}

impl Exceptions {
    /// Reads entries between commas or blanks; what makes no sense covers nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.split([',', ' ', '\t', '\n']).filter_map(Entry::parse).collect())
    }

    /// Whether `host` at `port` is reached directly.
    #[must_use]
    pub fn covers(&self, host: &Host, port: u16) -> bool {
        self.0.iter().any(|entry| entry.port.is_none_or(|wanted| wanted == port) && entry.what.covers(host))
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let plain = |what| Some(Self { what, port: None });
        match text {
            "" => return None,
            "*" => return plain(What::All),
            _ => {}
        }
        if let Ok(network) = text.parse() {
            return plain(What::Network(network));
        }
        if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
            return plain(What::Address(address));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self { what: What::Address(address), port });
        }
        let name = name.strip_prefix('*').unwrap_or(name).trim_start_matches('.');
        let name = Host::parse(name).ok()?.name()?.to_owned();
        Some(Self { what: What::Name(name), port })
    }
}

impl What {
    fn covers(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Name(own), Host::Name(name)) => {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Address(own), Host::Address(address)) => own == address,
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            (Self::Name(_), Host::Address(_)) | (Self::Address(_) | Self::Network(_), Host::Name(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::origin::Origin;

    #[test]
    fn the_common_dialect() {
        for (list, target, expected) in [
            ("", "x.test:443", false),
            ("*", "x.test:443", true),
            ("x.test", "x.test:443", true),
            ("x.test", "api.x.test:443", true),
            ("X.Test", "API.X.test.:443", true),
            (".x.test", "api.x.test:443", true),
            (".x.test", "x.test:443", true),
            ("*.x.test", "a.b.x.test:443", true),
            ("x.test", "ax.test:443", false),
            ("x.test", "x.test.evil:443", false),
            ("x.test:443", "x.test:443", true),
            ("x.test:8443", "x.test:443", false),
            ("a.test, x.test", "x.test:443", true),
            ("a.test x.test", "x.test:443", true),
            ("10.0.0.0/8", "10.1.2.3:443", true),
            ("10.0.0.0/8", "11.1.2.3:443", false),
            ("10.1.2.3", "10.1.2.3:443", true),
            ("10.1.2.3:80", "10.1.2.3:443", false),
            ("::1", "[::1]:443", true),
            ("[::1]:443", "[::1]:443", true),
            ("fd00::/8", "[fd12::1]:443", true),
            ("127.0.0.1", "localhost:443", false),
            ("localhost", "localhost:443", true),
            ("bad entry:x,,", "bad:443", true),
        ] {
            let origin = Origin::from_connect_target(target).unwrap();
            let covered = Exceptions::parse(list).covers(origin.host(), origin.port());
            assert_eq!(covered, expected, "{list:?} {target}");
        }
    }
}
