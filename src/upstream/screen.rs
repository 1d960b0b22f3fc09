//! The address guard: which addresses the proxy will never connect to for an agent.
//!
//! Invariant: asked with the very address that is connected to next; a name is never judged in its place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::message::origin::Host;

/// Why an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Prohibited {
    /// Private, loopback, link-local, multicast, documentation or otherwise special.
    #[error("the address is in a reserved network")]
    Reserved,
    /// A cloud's metadata service; refused even where its network is allowed.
    #[error("the address is a metadata service")]
    Metadata,
    /// One of our own listeners.
    #[error("the address is one of Keyferry's own listeners")]
    Ourselves,
}

/// The rules of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Screen {
    allowed: Vec<IpNet>,
    ourselves: Vec<SocketAddr>,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA's IPv4 special-purpose registry, multicast and class E.
const RESERVED_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// IANA's IPv6 special-purpose registry. What embeds an IPv4 address is refused whole.
const RESERVED_V6: [Ipv6Net; 14] = [
    // Unspecified, loopback, IPv4-mapped and -compatible, and the local-use NAT64 prefix's neighbours.
    v6(0, 0, 0, 8),
    v6(0x64, 0xff9b, 0, 96),
    v6(0x64, 0xff9b, 1, 48),
    v6(0x100, 0, 0, 64),
    v6(0x2001, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 32),
    v6(0x2002, 0, 0, 16),
    v6(0x3ffe, 0, 0, 16),
    v6(0x3fff, 0, 0, 20),
    v6(0x5f00, 0, 0, 16),
    v6(0xfc00, 0, 0, 7),
    v6(0xfe80, 0, 0, 10),
    v6(0xfec0, 0, 0, 10),
    v6(0xff00, 0, 0, 8),
];

/// All that IANA has given out for global unicast; the rest of IPv6 is nobody's, or special.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// Metadata services: AWS (instance, ECS, EKS), Azure's wire server (a public address), Alibaba, Oracle.
const METADATA: [IpAddr; 8] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

impl Screen {
    /// `allowed` are the operator's networks; `ourselves` the addresses that we listen on.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, ourselves: Vec<SocketAddr>) -> Self {
        Self { allowed, ourselves }
    }

    /// Judges one address.
    ///
    /// # Errors
    /// [`Prohibited`], the reason.
    pub fn judge(&self, address: SocketAddr) -> Result<(), Prohibited> {
        let ip = embedded(address.ip()).unwrap_or(address.ip());
        if METADATA.contains(&ip) || METADATA.contains(&address.ip()) {
            return Err(Prohibited::Metadata);
        }
        self.judge_own(address)?;
        // The operator's networks are compared with the address as written and with what it embeds.
        if self.allowed.iter().any(|net| net.contains(&address.ip()) || net.contains(&ip)) {
            return Ok(());
        }
        let reserved = match address.ip() {
            IpAddr::V4(ip) => RESERVED_V4.iter().any(|net| net.contains(&ip)),
            // ISATAP writes ::0:5efe:a.b.c.d below any prefix.
            IpAddr::V6(ip) => {
                !GLOBAL_V6.contains(&ip)
                    || RESERVED_V6.iter().any(|net| net.contains(&ip))
                    || matches!(ip.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _])
            }
        };
        if reserved { Err(Prohibited::Reserved) } else { Ok(()) }
    }
}

impl Screen {
    /// Judges an address that is exempt from everything else: it must not be one of our listeners.
    ///
    /// # Errors
    /// [`Prohibited::Ourselves`].
    pub fn judge_own(&self, address: SocketAddr) -> Result<(), Prohibited> {
        let ip = embedded(address.ip()).unwrap_or(address.ip());
        let same_host = |own: &SocketAddr| own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback());
        let ours = self.ourselves.iter().any(|own| own.port() == address.port() && same_host(own));
        if ours { Err(Prohibited::Ourselves) } else { Ok(()) }
    }

    /// Judges a connection by its two ends: a machine that connects to an address of its own has it at both.
    ///
    /// # Errors
    /// [`Prohibited::Ourselves`].
    pub fn judge_connected(&self, near: SocketAddr, far: SocketAddr) -> Result<(), Prohibited> {
        self.judge_own(far)?;
        let everywhere = |own: &SocketAddr| own.ip().is_unspecified() && own.port() == far.port();
        let ours = near.ip() == far.ip() && self.ourselves.iter().any(everywhere);
        if ours { Err(Prohibited::Ourselves) } else { Ok(()) }
    }

    /// Judges what another proxy is asked to connect to: addresses as they stand; names are that proxy's to resolve,
    /// save those that mean this machine or a metadata service.
    ///
    /// # Errors
    /// [`Prohibited`].
    pub fn judge_for_proxy(&self, host: &Host, port: u16) -> Result<(), Prohibited> {
        match host {
            Host::Address(ip) => self.judge(SocketAddr::new(*ip, port)),
            Host::Name(name) if is_localhost(name) => Err(Prohibited::Reserved),
            Host::Name(name) if is_metadata(name) => Err(Prohibited::Metadata),
            Host::Name(_) => Ok(()),
        }
    }
}

/// Whether a name means this machine.
#[must_use]
pub fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// Whether a name means a metadata service.
#[must_use]
pub fn is_metadata(name: &str) -> bool {
    ["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"].contains(&name)
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, NAT64, 6to4.
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let word = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => {
            Some(word(high, low))
        }
        [0x64, 0xff9b, .., high, low] => Some(word(high, low)),
        [0x2002, high, low, ..] => Some(word(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(screen: &Screen, ip: &str) -> Result<(), Prohibited> {
        screen.judge(SocketAddr::new(ip.parse().unwrap(), 443))
    }

    #[test]
    fn refuses_every_special_address() {
        // RT-01, RT-02, RT-03
        let screen = Screen::default();
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::127.0.0.1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "100::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2a00:1450:4001:81b:0:5efe:7f00:1",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(judge(&screen, bad), Err(Prohibited::Reserved), "{bad}");
        }
        for good in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "1.1.1.1"] {
            assert_eq!(judge(&screen, good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_metadata_even_where_its_network_is_allowed() {
        // RT-04
        let all = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap()).to_vec();
        let screen = Screen::new(all, Vec::new());
        for bad in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
        ] {
            assert_eq!(judge(&screen, bad), Err(Prohibited::Metadata), "{bad}");
        }
        assert_eq!(judge(&screen, "10.0.0.1"), Ok(()));
    }

    #[test]
    fn refuses_our_own_listeners_even_where_loopback_is_allowed() {
        // RT-12, RT-13
        let own: SocketAddr = "127.0.0.1:443".parse().unwrap();
        let screen = Screen::new(vec!["127.0.0.0/8".parse().unwrap()], vec![own]);
        assert_eq!(judge(&screen, "127.0.0.1"), Err(Prohibited::Ourselves));
        assert_eq!(judge(&screen, "127.0.0.2"), Ok(()));
        let everywhere = Screen::new(vec!["127.0.0.0/8".parse().unwrap()], vec!["0.0.0.0:443".parse().unwrap()]);
        assert_eq!(judge(&everywhere, "127.0.0.9"), Err(Prohibited::Ourselves));
        // By an address of the machine's own that is no loopback one.
        let at = |text: &str| text.parse().unwrap();
        let connected = |near, far| everywhere.judge_connected(at(near), at(far));
        assert_eq!(connected("10.0.0.7:50000", "10.0.0.7:443"), Err(Prohibited::Ourselves));
        assert_eq!(connected("10.0.0.7:50000", "10.0.0.7:444"), Ok(()));
        assert_eq!(connected("10.0.0.7:50000", "10.0.0.8:443"), Ok(()));
        assert_eq!(screen.judge_own("127.0.0.1:443".parse().unwrap()), Err(Prohibited::Ourselves));
    }

    #[test]
    fn another_proxy_is_not_asked_for_what_we_would_refuse() {
        let screen = Screen::default();
        let judge = |host: &str| screen.judge_for_proxy(&Host::parse(host).unwrap(), 443);
        for host in ["127.0.0.1", "[::1]", "10.0.0.1", "localhost", "x.localhost"] {
            assert_eq!(judge(host), Err(Prohibited::Reserved), "{host}");
        }
        for host in ["169.254.169.254", "metadata.google.internal"] {
            assert_eq!(judge(host), Err(Prohibited::Metadata), "{host}");
        }
        for host in ["8.8.8.8", "api.openai.com", "intranet"] {
            assert_eq!(judge(host), Ok(()), "{host}");
        }
    }

    /// An independent reading of the registries, in numbers.
    fn public(ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                !(a == 0
                    || a == 10
                    || a == 127
                    || a >= 224
                    || (a == 100 && (64..128).contains(&b))
                    || (a == 169 && b == 254)
                    || (a == 172 && (16..32).contains(&b))
                    || (a == 192 && b == 168)
                    || (a == 192 && b == 0 && (c == 0 || c == 2))
                    || (a == 192 && b == 88 && c == 99)
                    || (a == 198 && (b == 18 || b == 19))
                    || (a == 198 && b == 51 && c == 100)
                    || (a == 203 && b == 0 && c == 113)
                    || ip == Ipv4Addr::new(168, 63, 129, 16))
            }
            // Of IPv6 only global unicast is public, without what embeds, documents or tests.
            IpAddr::V6(ip) => {
                let [a, b, _, _, e, f, ..] = ip.segments();
                (0x2000..0x4000).contains(&a)
                    && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
                    && a != 0x2002
                    && a != 0x3ffe
                    && !(a == 0x3fff && b < 0x1000)
                    && !(matches!(e, 0 | 0x200) && f == 0x5efe)
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

        #[test]
        fn no_address_that_is_not_public_is_let_through(bits: u128, shape in 0..6_u8, near in 0..8_usize) {
            // RT-01, RT-02, RT-03, RT-04
            let low = u32::try_from(bits & 0xffff_ffff).unwrap();
            let edges = [0x0a00_0000, 0x7f00_0000, 0xa9fe_a9fe, 0xc0a8_0000, 0x6440_0000, 0xac10_0000, 0xa83f_8110, low];
            let v4 = edges[near] ^ if near == 7 { 0 } else { low & 0x3 };
            let ip = match shape {
                0 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
                1 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
                2 => IpAddr::V6(Ipv4Addr::from_bits(v4).to_ipv6_mapped()),
                3 => IpAddr::V6(Ipv6Addr::from_bits((0x0064_ff9b_u128 << 96) | u128::from(v4))),
                4 => IpAddr::V6(Ipv6Addr::from_bits((0x2002_u128 << 112) | (u128::from(v4) << 80))),
                _ => IpAddr::V6(Ipv6Addr::from_bits((bits & (u128::MAX >> 3)) | (1 << 125))),
            };
            if Screen::default().judge(SocketAddr::new(ip, 443)).is_ok() {
                proptest::prop_assert!(public(ip), "{} was let through", ip);
            } else if shape == 0 {
                proptest::prop_assert!(!public(ip), "{} was refused", ip);
            }
        }
    }
}
