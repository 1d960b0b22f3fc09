//! Binds what the configuration says.
//!
//! Invariant: nothing is served before everything is bound.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::TcpListener;

use crate::admin::Listeners;
use crate::app::error::AppError;
use crate::app::options::Mode;
use crate::config::{self, Config};
use crate::home::Home;
use crate::id::AgentName;
use crate::message::origin::Host;
use crate::proxy::{Listener, ListenerKind, Resident};

/// Bound sockets that nobody serves yet.
pub(super) struct Bound {
    pub proxies: Vec<Listener>,
    pub admin: Option<TcpListener>,
    /// A socket's file, to be removed in the end.
    pub unix: Option<PathBuf>,
}

/// The host that clients call the proxy behind TLS unless the configuration says another.
const LOCALHOST: &str = "localhost";

/// The host of `listen.proxy_tls`'s certificate, where it is used.
pub(super) fn tls_name(config: &Config, mode: Mode) -> Option<Host> {
    let listener = config.listen.proxy_tls.as_ref().filter(|_| mode == Mode::Serve)?;
    listener.name.clone().or_else(|| Host::parse(LOCALHOST).ok())
}

/// Binds everything. `companion` gets a listener that knows it without credentials, for programs that cannot
/// authenticate.
pub(super) async fn bind(
    config: &Config,
    home: &Home,
    mode: Mode,
    companion: Option<&AgentName>,
) -> Result<(Bound, Listeners), AppError> {
    match mode {
        Mode::Run => run(companion).await,
        Mode::Serve => serve(config, home).await,
    }
}

async fn run(companion: Option<&AgentName>) -> Result<(Bound, Listeners), AppError> {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (proxy, address) = tcp(free, ListenerKind::Proxy, "listen.proxy", None).await?;
    let (base, base_url) = tcp(free, ListenerKind::BaseUrl, "listen.base_url", None).await?;
    let mut listeners = Listeners::of(address);
    listeners.base_url = Some(base_url);
    let mut proxies = vec![proxy, base];
    if let Some(agent) = companion {
        let resident = Resident { agent: agent.clone(), uid: None };
        let (open, address) = tcp(free, ListenerKind::Proxy, "listen.proxy", Some(resident)).await?;
        listeners.open = Some(address);
        proxies.push(open);
    }
    Ok((Bound { proxies, admin: None, unix: None }, listeners))
}

async fn serve(config: &Config, home: &Home) -> Result<(Bound, Listeners), AppError> {
    let listen = &config.listen;
    let (proxy, address) = tcp(listen.proxy.addr, ListenerKind::Proxy, "listen.proxy", resident(&listen.proxy)).await?;
    let (base, base_url) =
        tcp(listen.base_url.addr, ListenerKind::BaseUrl, "listen.base_url", resident(&listen.base_url)).await?;
    let mut listeners = Listeners::of(address);
    listeners.base_url = Some(base_url);
    let mut proxies = vec![proxy, base];
    if let (Some(wanted), Some(name)) = (&listen.proxy_tls, tls_name(config, Mode::Serve)) {
        let kind = ListenerKind::ProxyTls(name.clone());
        let (tls, address) = tcp(wanted.addr, kind, "listen.proxy_tls", resident(wanted)).await?;
        listeners.proxy_tls = Some(format!("https://{name}:{}", address.port()));
        listeners.more.push(address);
        proxies.push(tls);
    }
    if let Some(wanted) = &listen.transparent {
        let (redirected, address) =
            tcp(wanted.addr, ListenerKind::Transparent, "listen.transparent", resident(wanted)).await?;
        listeners.transparent = Some(address);
        proxies.push(redirected);
    }
    let mut unix = None;
    if let Some(wanted) = &listen.unix {
        let path = home.resolve(&wanted.path);
        let shown = path.display().to_string();
        let bound = Listener::bind_unix(&path, wanted.agents.clone()).await;
        proxies.push(bound.map_err(|source| AppError::UnixSocket { path: shown, source })?);
        listeners.unix = Some(path.clone());
        unix = Some(path);
    }
    let wanted = listen.admin.addr;
    let fail = |source| AppError::Listen { address: wanted, key: "listen.admin", source };
    let admin = TcpListener::bind(wanted).await.map_err(fail)?;
    listeners.admin = Some(admin.local_addr().map_err(fail)?);
    Ok((Bound { proxies, admin: Some(admin), unix }, listeners))
}

fn resident(listener: &config::Listener) -> Option<Resident> {
    listener.agent.as_ref().map(|agent| Resident { agent: agent.clone(), uid: listener.uid })
}

async fn tcp(
    wanted: SocketAddr,
    kind: ListenerKind,
    key: &'static str,
    resident: Option<Resident>,
) -> Result<(Listener, SocketAddr), AppError> {
    let fail = |source| AppError::Listen { address: wanted, key, source };
    let listener = Listener::bind(wanted, kind).await.map_err(fail)?.with_resident(resident);
    let address = listener.address().ok_or_else(|| fail(std::io::ErrorKind::AddrNotAvailable.into()))?;
    Ok((listener, address))
}
