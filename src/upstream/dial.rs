//! Resolves, screens and connects: the connection is made to the very address that was screened.
//!
//! Invariant: no address reaches `connect` without having passed [`Screen::judge`] or standing in the operator's
//! `upstream.resolve`; address literals take the same way. Where the operator has another proxy on the way, that proxy
//! resolves names: literals are still judged, and names that mean this machine are refused.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::code::Code;
use crate::message::origin::{Host, Origin, Scheme};
use crate::upstream::chain::{self, Chain, ChainError, ProxyUrl};
use crate::upstream::screen::{self, Prohibited, Screen};

/// DNS answers beyond this many addresses are not looked at; more than four are never worth the wait.
const MOST_ADDRESSES: usize = 16;
/// A name that does not resolve in five seconds will not within a request's patience.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or the resolver failed or was too slow.
    #[error("the name did not resolve")]
    Unresolved,
    /// Every address was refused by the guard.
    #[error("{0}")]
    Prohibited(#[from] Prohibited),
    /// The operator's upstream proxy did not open the way.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No address answered in time.
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The last address tried refused.
    #[error("connection failed: {}", .0.kind())]
    Failed(#[source] io::Error),
}

impl DialError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unresolved => Code::UpstreamDnsFailed,
            Self::Prohibited(Prohibited::Ourselves) => Code::ProxyLoop,
            Self::Prohibited(_) => Code::DestinationProhibited,
            Self::Chain(error) => error.code(),
            Self::Timeout(_) => Code::UpstreamTimeout,
            Self::Failed(_) => Code::UpstreamUnreachable,
        }
    }
}

impl DialError {
    /// What the agent is told, in words that name nothing of the operator's.
    #[must_use]
    pub fn explanation(&self) -> &'static str {
        match self {
            Self::Chain(error) => error.explanation(),
            other => other.code().explanation(),
        }
    }
}

/// Makes TCP connections to origins.
#[derive(Debug)]
pub struct Dialer {
    screen: Screen,
    resolve: HashMap<(Host, u16), SocketAddr>,
    limit: Duration,
    chain: Option<Chain>,
}

impl Dialer {
    /// `resolve` holds the operator's own addresses, which are exempt from the guard; `limit` bounds one connect.
    #[must_use]
    pub fn new(screen: Screen, resolve: HashMap<(Host, u16), SocketAddr>, limit: Duration) -> Self {
        Self { screen, resolve, limit, chain: None }
    }

    /// With other proxies on the way.
    #[must_use]
    pub fn chained(self, chain: Option<Chain>) -> Self {
        Self { chain, ..self }
    }

    /// The other proxies on the way, host and port.
    pub(super) fn proxies(&self) -> Vec<String> {
        let mut shown: Vec<String> = self.chain.iter().flat_map(Chain::proxies).map(ToString::to_string).collect();
        shown.dedup();
        shown
    }

    /// The other proxy on the way to `origin`. The operator's own address for an origin is reached directly.
    pub(super) fn proxy_to(&self, origin: &Origin) -> Option<&ProxyUrl> {
        let chain = self.chain.as_ref()?;
        if self.resolve.contains_key(&(origin.host().clone(), origin.port())) {
            return None;
        }
        chain.to(origin)
    }

    /// Connects to `origin`, TCP_NODELAY set; through another proxy where there is one.
    ///
    /// # Errors
    /// [`DialError`]; a prohibited address beside permitted ones is left out, alone it is the error.
    pub async fn dial(&self, origin: &Origin) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.proxy_to(origin) else { return self.direct(origin).await };
        self.screen.judge_for_proxy(origin.host(), origin.port())?;
        let stream = chain::connect(proxy, self.limit).await?;
        Ok(chain::open(stream, proxy, origin).await?)
    }

    /// Connects to `origin`, or to the proxy that takes its requests in absolute-form.
    ///
    /// # Errors
    /// [`DialError`], as for [`Dialer::dial`].
    pub async fn dial_cleartext(&self, origin: &Origin) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.proxy_to(origin) else { return self.direct(origin).await };
        self.screen.judge_for_proxy(origin.host(), origin.port())?;
        Ok(chain::connect(proxy, self.limit).await?)
    }

    async fn direct(&self, origin: &Origin) -> Result<TcpStream, DialError> {
        let addresses = self.addresses(origin).await?;
        let mut last = DialError::Unresolved;
        for address in addresses {
            match timeout(self.limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // An address of this machine's own that no list of ours knows: both ends show it.
                    if let (Ok(near), Ok(far)) = (stream.local_addr(), stream.peer_addr()) {
                        self.screen.judge_connected(near, far)?;
                    }
                    // Without it the first answer of a tunnel waits 40 ms for a delayed acknowledgement.
                    stream.set_nodelay(true).map_err(DialError::Failed)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = DialError::Failed(error),
                Err(_) => last = DialError::Timeout(self.limit),
            }
        }
        Err(last)
    }

    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, DialError> {
        let port = origin.port();
        if let Some(own) = self.resolve.get(&(origin.host().clone(), port)) {
            self.screen.judge_own(*own)?;
            return Ok(vec![*own]);
        }
        let candidates = match origin.host() {
            Host::Address(ip) => vec![SocketAddr::new(*ip, port)],
            Host::Name(name) if screen::is_metadata(name) => return Err(Prohibited::Metadata.into()),
            // RFC 6761 section 6.3: these names mean this machine, whatever a resolver says.
            Host::Name(name) if screen::is_localhost(name) => {
                vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
            }
            Host::Name(name) => lookup(name, port, origin.scheme()).await?,
        };
        let mut refused = None;
        let mut permitted = Vec::new();
        for address in candidates {
            match self.screen.judge(address) {
                Ok(()) => permitted.push(address),
                // A name that leads to us by one of its addresses is meant to.
                Err(Prohibited::Ourselves) => return Err(Prohibited::Ourselves.into()),
                Err(reason) => refused = Some(reason),
            }
        }
        match refused {
            Some(reason) if permitted.is_empty() => Err(reason.into()),
            _ => Ok(permitted),
        }
    }
}

async fn lookup(name: &str, port: u16, scheme: Scheme) -> Result<Vec<SocketAddr>, DialError> {
    // The trailing dot keeps the resolver's search list out of it. Hosts files know no such dot, so where the
    // name alone fails it is tried as it stands; TLS then verifies the name, so not in cleartext.
    let absolute = timeout(RESOLVE_LIMIT, tokio::net::lookup_host((format!("{name}."), port))).await;
    let mut found: Vec<SocketAddr> = match absolute {
        Ok(Ok(addresses)) => addresses.take(MOST_ADDRESSES).collect(),
        Ok(Err(_)) => Vec::new(),
        Err(_) => return Err(DialError::Unresolved),
    };
    if found.is_empty() && scheme == Scheme::Https {
        let relative = timeout(RESOLVE_LIMIT, tokio::net::lookup_host((name, port))).await;
        found = relative.ok().and_then(Result::ok).map(|all| all.take(MOST_ADDRESSES).collect()).unwrap_or_default();
    }
    if found.is_empty() { Err(DialError::Unresolved) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn origin(target: &str) -> Origin {
        Origin::from_connect_target(target).unwrap()
    }

    fn dialer(resolve: HashMap<(Host, u16), SocketAddr>) -> Dialer {
        Dialer::new(Screen::default(), resolve, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn refuses_literals_and_names_that_lead_to_loopback() {
        // RT-01, RT-05: the guard stands behind the resolver and before literals alike.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "[::1]", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]"] {
            let error = dialer(HashMap::new()).dial(&origin(&format!("{host}:{port}"))).await.unwrap_err();
            assert!(matches!(error.code(), Code::DestinationProhibited | Code::UpstreamDnsFailed), "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn names_of_this_machine_and_of_metadata_services_need_no_resolver() {
        // RT-04, RT-05
        for host in ["localhost", "foo.localhost", "a.b.LocalHost.", "metadata.google.internal", "metadata.goog."] {
            let error = dialer(HashMap::new()).dial(&origin(&format!("{host}:443"))).await.unwrap_err();
            assert_eq!(error.code(), Code::DestinationProhibited, "{host}: {error}");
        }
    }

    #[tokio::test]
    async fn the_operators_own_address_is_exempt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let resolve = HashMap::from([((Host::parse("api.test").unwrap(), 443), own)]);
        let stream = dialer(resolve).dial(&origin("api.test:443")).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), own);
        assert!(stream.nodelay().unwrap());
    }
}
