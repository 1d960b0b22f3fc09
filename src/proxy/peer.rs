//! Who is at the other end of a connection, by what the kernel says.
//!
//! Invariant: a listener's own agent is handed out only after the kernel named the user at the other end; where it
//! does not, or names another, the door is closed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::agent::Agent;
use crate::code::Code;
use crate::id::AgentName;

/// The other end of a connection, as logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Address(SocketAddr),
    /// Over a Unix socket: a user of this machine.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", address.ip()),
            Self::User(uid) => write!(f, "uid:{uid}"),
        }
    }
}

/// What a connection is without any credentials for the proxy.
#[derive(Debug, Clone)]
pub enum Door {
    /// Nobody: it must authenticate.
    Open,
    /// This agent, unless it says that it is another and proves it.
    Known(Agent),
    /// Nobody who may come in here, and why.
    Closed(Code),
}

impl Door {
    /// The agent that needs no credentials.
    #[must_use]
    pub fn resident(&self) -> Option<&Agent> {
        match self {
            Self::Known(agent) => Some(agent),
            Self::Open | Self::Closed(_) => None,
        }
    }
}

/// An agent that a listener on loopback has for the connections of one user.
#[derive(Debug, Clone)]
pub struct Resident {
    /// Who they are.
    pub agent: AgentName,
    /// Whose connections; without one, those of our own user.
    pub uid: Option<u32>,
}

impl Resident {
    /// Judges the connection from `peer` that was made to `target`.
    pub async fn door(&self, peer: SocketAddr, target: SocketAddr) -> Door {
        let wanted = self.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        match owner(peer, target).await {
            Some(owner) if owner.uid == wanted => {
                if owner.is_this_process().await {
                    tracing::warn!(%target, "a connection of our own came back to us: except our user, or our port, from the redirection");
                    return Door::Closed(Code::ProxyLoop);
                }
                Door::Known(Agent::of_listener(self.agent.clone()))
            }
            owner => {
                let uid = owner.map(|owner| owner.uid);
                tracing::warn!(%peer, ?uid, agent = %self.agent, "a listener with an agent of its own was called by another user");
                Door::Closed(Code::PolicyDenied)
            }
        }
    }
}

/// The agents that users have on a Unix socket.
#[must_use]
pub fn door_of_user(uid: u32, agents: &BTreeMap<u32, AgentName>) -> Door {
    agents.get(&uid).map_or(Door::Open, |agent| Door::Known(Agent::of_listener(agent.clone())))
}

/// What the kernel shows for a user that our namespace has no number for.
const OVERFLOW_UID: u32 = 65534;
/// The table is read bucket by bucket while connections come and go, so that an entry can be missed once.
const READS: usize = 3;

/// Whose socket is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    inode: u64,
}

impl Owner {
    /// Whether the socket is one of our own: a connection of ours that was redirected to us.
    async fn is_this_process(self) -> bool {
        if self.uid != rustix::process::geteuid().as_raw() {
            return false;
        }
        let wanted = format!("socket:[{}]", self.inode);
        let look = move || {
            let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return false };
            files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }
}

/// The user whose socket is at `peer` and connected to `target`, both on this machine and in our network namespace.
/// `None` where that cannot be established.
pub async fn owner(peer: SocketAddr, target: SocketAddr) -> Option<Owner> {
    // A program may reach an IPv4 address through an IPv6 socket, as Java does.
    let as_written = (if peer.is_ipv4() { "tcp" } else { "tcp6" }, peer, target);
    let mapped = peer.is_ipv4().then(|| ("tcp6", in_ipv6(peer), in_ipv6(target)));
    for _ in 0..READS {
        for (table, peer, target) in std::iter::once(as_written).chain(mapped) {
            // A machine without IPv6 has no table of it.
            let Ok(text) = tokio::fs::read_to_string(format!("/proc/self/net/{table}")).await else { continue };
            match find(&text, peer, target) {
                Found::Nobody => {}
                Found::Unclear => return None,
                Found::One(owner) => return Some(owner).filter(|owner| owner.uid != OVERFLOW_UID),
            }
        }
    }
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nobody,
    One(Owner),
    Unclear,
}

/// Looks for the peer's own end in the kernel's table: its address is the local one there.
fn find(table: &str, peer: SocketAddr, target: SocketAddr) -> Found {
    let ends = format!(" {} {} ", kernel_form(peer), kernel_form(target));
    let mut found = Found::Nobody;
    for line in table.lines().filter(|line| line.contains(&ends)) {
        // sl local remote state queues timer retransmits uid timeout inode
        let mut columns = line.split_ascii_whitespace().skip(3);
        let state = columns.next();
        let uid: Option<u32> = columns.nth(3).and_then(|text| text.parse().ok());
        let inode: Option<u64> = columns.nth(1).and_then(|text| text.parse().ok());
        // A socket that its program closed has no inode, and root's number where its owner's was.
        let (Some(state), Some(uid), Some(inode @ 1..)) = (state, uid, inode) else { continue };
        // Open for writing: established, or the peer of a half-closed connection.
        if !matches!(state, "01" | "04" | "05" | "08") {
            continue;
        }
        found = match found {
            Found::Nobody => Found::One(Owner { uid, inode }),
            Found::One(_) | Found::Unclear => Found::Unclear,
        };
    }
    found
}

/// An IPv4 address in IPv6 clothes.
fn in_ipv6(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// An address as the kernel's table writes it: words of 32 bits in the machine's order.
fn kernel_form(address: SocketAddr) -> String {
    let words = |octets: &[u8]| {
        octets
            .chunks_exact(4)
            .filter_map(|word| <[u8; 4]>::try_from(word).ok())
            .map(|word| format!("{:08X}", u32::from_ne_bytes(word)))
            .collect::<String>()
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    format!("{ip}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn the_kernel_names_the_owner_of_a_connection() {
        let own = rustix::process::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else { continue };
            let target = listener.local_addr().unwrap();
            let client = TcpStream::connect(target).await.unwrap();
            let (_server, peer) = listener.accept().await.unwrap();
            let found = owner(peer, target).await.unwrap();
            assert_eq!(found.uid, own, "{address}");
            assert!(found.is_this_process().await);
            assert!(!Owner { inode: u64::MAX, ..found }.is_this_process().await);
            let mut elsewhere = target;
            elsewhere.set_port(target.port() ^ 1);
            assert_eq!(owner(peer, elsewhere).await, None);
            // A peer that is gone is nobody's, not root's.
            drop(client);
            assert_eq!(owner(peer, target).await, None);
        }
    }

    #[tokio::test]
    async fn a_program_with_ipv6_sockets_is_found_on_an_ipv4_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let Ok(socket) = tokio::net::TcpSocket::new_v6() else { return };
        let client = socket.connect(in_ipv6(target));
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (Ok(_client), Ok((_server, peer))) = (client, accepted) else { panic!() };
        assert!(peer.is_ipv4());
        assert_eq!(owner(peer, target).await.unwrap().uid, rustix::process::geteuid().as_raw());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_closed_socket_is_not_roots() {
        let line = |state: &str, uid: u32, inode: u64| {
            format!(
                "   1: 0100007F:9C40 0100007F:1EC6 {state} 00000000:00000000 00:00000000 00000000 {uid:5}        0 {inode} 1 0\n"
            )
        };
        let (peer, target) = ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:7878".parse().unwrap());
        let one = |uid, inode| Found::One(Owner { uid, inode });
        for (table, expected) in [
            (line("01", 1000, 77), one(1000, 77)),
            (line("08", 1000, 77), one(1000, 77)),
            (line("05", 0, 0), Found::Nobody),
            (line("06", 0, 0), Found::Nobody),
            (line("01", 0, 0), Found::Nobody),
            (line("01", 1000, 77) + &line("06", 0, 0), one(1000, 77)),
            (line("01", 1000, 77) + &line("01", 1001, 78), Found::Unclear),
            (String::new(), Found::Nobody),
        ] {
            assert_eq!(find(&table, peer, target), expected, "{table}");
        }
    }
}
