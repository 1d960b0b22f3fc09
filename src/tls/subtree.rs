//! The names that a CA of ours may sign: a set of DNS subtrees.
//!
//! Invariant: never empty, so that the constraint made of it always exists (RFC 5280 section 4.2.1.10 lets a CA without
//! permitted subtrees sign every name), and minimal: no member lies within another.

use std::collections::BTreeSet;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};

use super::error::CaError;
use crate::message::origin::{Host, OriginError};

/// What stands in the constraint when there is no host at all (RFC 2606 section 2: it never exists).
const NOWHERE: &str = "keyferry.invalid";

/// DNS subtrees: each member permits itself and every name below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subtrees(BTreeSet<String>);

impl Subtrees {
    /// The smallest set that covers `hosts`, each `name`, `name:port` or `*.name`.
    pub(super) fn covering<S: AsRef<str>>(hosts: &[S]) -> Result<Self, CaError> {
        let names = hosts.iter().map(|host| subtree_of(host.as_ref())).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(Self::minimal(names))
    }

    /// What a certificate's constraint says.
    pub(super) fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self::minimal(names.map(str::to_ascii_lowercase).collect())
    }

    /// The smallest set that covers both.
    pub(super) fn with(&self, other: &Self) -> Self {
        Self::minimal(self.0.union(&other.0).filter(|name| name.as_str() != NOWHERE).cloned().collect())
    }

    fn minimal(names: BTreeSet<String>) -> Self {
        let mut kept: BTreeSet<String> =
            names.iter().filter(|name| !parents(name).any(|parent| names.contains(parent))).cloned().collect();
        if kept.is_empty() {
            kept.insert(NOWHERE.to_owned());
        }
        Self(kept)
    }

    /// Whether `name` lies in one of the subtrees.
    pub(super) fn permits(&self, name: &str) -> bool {
        self.0.contains(name) || parents(name).any(|parent| self.0.contains(parent))
    }

    /// The members of `other` that lie in none of these subtrees.
    pub(super) fn lacking(&self, other: &Self) -> Vec<String> {
        other.0.iter().filter(|name| name.as_str() != NOWHERE && !self.permits(name)).cloned().collect()
    }

    /// The members, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The certificate extension: these names, and no address whatever.
    pub(super) fn constraints(&self) -> NameConstraints {
        NameConstraints {
            permitted_subtrees: self.0.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            // A form without any subtree is unconstrained (RFC 5280 section 4.2.1.10): permitting DNS names alone would
            // let the CA sign every address.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        }
    }
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.').map(|(_, parent)| parent), |rest| {
        rest.split_once('.').map(|(_, parent)| parent)
    })
}

fn subtree_of(pattern: &str) -> Result<String, CaError> {
    let without_port = match pattern.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => pattern,
    };
    let name = without_port.strip_prefix("*.").unwrap_or(without_port);
    match Host::parse(name) {
        Ok(Host::Name(name)) => Ok(name.to_string()),
        Ok(Host::Address(_)) | Err(OriginError::DisguisedAddress) => Err(CaError::Address { host: pattern.to_owned() }),
        Err(OriginError::Malformed) if pattern.parse::<std::net::Ipv6Addr>().is_ok() => {
            Err(CaError::Address { host: pattern.to_owned() })
        }
        Err(OriginError::Malformed) => Err(CaError::BadHost { host: pattern.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covering(hosts: &[&str]) -> Vec<String> {
        Subtrees::covering(hosts).unwrap().names().map(str::to_owned).collect()
    }

    #[test]
    fn the_smallest_set_covers_every_host() {
        for (hosts, expected) in [
            (&["api.x.test"][..], &["api.x.test"][..]),
            (&["API.X.test.", "api.x.test:8443"], &["api.x.test"]),
            (&["*.x.test"], &["x.test"]),
            (&["*.x.test", "x.test", "a.b.x.test", "y.test"], &["x.test", "y.test"]),
            (&["a.x.test", "b.x.test"], &["a.x.test", "b.x.test"]),
            // Sharing the last letters is not lying within.
            (&["x.test", "ax.test"], &["ax.test", "x.test"]),
            (&[], &["keyferry.invalid"]),
        ] {
            assert_eq!(covering(hosts), expected, "{hosts:?}");
        }
    }

    #[test]
    fn refuses_addresses_and_malformed_hosts() {
        for address in ["127.0.0.1", "127.0.0.1:443", "[::1]", "[::1]:443", "::1", "0x7f.1", "127.1"] {
            assert!(matches!(Subtrees::covering(&[address]), Err(CaError::Address { .. })), "{address}");
        }
        for bad in ["", "*", "*.", "a b", "a..b", "https://a.test", "a.*.test", "*.*.test", "a.test:443:1"] {
            assert!(matches!(Subtrees::covering(&[bad]), Err(CaError::BadHost { .. })), "{bad}");
        }
    }

    #[test]
    fn permits_its_names_and_what_is_below_them() {
        let trees = Subtrees::covering(&["api.x.test", "*.y.test"]).unwrap();
        for (name, permitted) in [
            ("api.x.test", true),
            ("sub.api.x.test", true),
            ("x.test", false),
            ("other.x.test", false),
            ("evilapi.x.test", false),
            ("a.y.test", true),
            ("test", false),
        ] {
            assert_eq!(trees.permits(name), permitted, "{name}");
        }
        let wanted = Subtrees::covering(&["api.x.test", "z.test", "b.y.test"]).unwrap();
        assert_eq!(trees.lacking(&wanted), ["z.test"]);
        assert!(trees.lacking(&Subtrees::covering::<&str>(&[]).unwrap()).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_plain_reading_of_the_rule(
            hosts in proptest::collection::vec("(\\*\\.)?[ab](\\.[ab]){0,3}", 0..6),
            name in "[ab](\\.[ab]){0,4}",
        ) {
            let trees = Subtrees::covering(&hosts).unwrap();
            let bare: Vec<&str> = hosts.iter().map(|host| host.strip_prefix("*.").unwrap_or(host)).collect();
            let within = |name: &str, tree: &str| name == tree || name.ends_with(&format!(".{tree}"));
            proptest::prop_assert_eq!(trees.permits(&name), bare.iter().any(|tree| within(&name, tree)));
            for one in trees.names() {
                proptest::prop_assert!(trees.names().filter(|other| within(one, other)).count() == 1, "{} is covered", one);
            }
        }
    }
}
