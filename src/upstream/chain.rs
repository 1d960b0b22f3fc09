//! The way through another proxy: which origins take it, and the CONNECT that opens it.
//!
//! Invariant: the proxy sees host names, ports and ciphertext; a credential passes it inside verified TLS only. Its own
//! password goes to it alone and into no message.

mod except;
mod url;

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use except::Exceptions;
pub use url::{ProxyUrl, ProxyUrlError};

use crate::code::Code;
use crate::message::origin::{Origin, Scheme};

/// A proxy connects to the origin before it answers; it may try several addresses.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// An answer to CONNECT is a few lines; a page of a captive portal begins after them.
const HEAD_LIMIT: usize = 16 * 1024;

/// Other proxies on the way out.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    https: Option<ProxyUrl>,
    http: Option<ProxyUrl>,
    except: Exceptions,
}

impl Chain {
    /// One proxy for everything but `except`.
    #[must_use]
    pub fn through(proxy: ProxyUrl, except: Exceptions) -> Self {
        Self { https: Some(proxy.clone()), http: Some(proxy), except }
    }

    /// The proxies that an environment names, by the rules that most clients share: the lower-case name before the
    /// upper-case one, `ALL_PROXY` after both, and `NO_PROXY`. A proxy of Keyferry's own, left over from an outer
    /// session, is none.
    ///
    /// # Errors
    /// [`ProxyUrlError`] with the variable, when it names what we cannot use: going past a proxy that was meant to be
    /// taken would be worse than stopping.
    pub fn from_environment(vars: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, (String, ProxyUrlError)> {
        let find = |names: [&str; 4]| {
            let found = names.iter().find_map(|name| {
                let value = vars(name).filter(|value| !value.trim().is_empty())?;
                Some(((*name).to_owned(), value))
            });
            let Some((name, value)) = found else { return Ok(None) };
            let url = ProxyUrl::parse(value.trim()).map_err(|error| (name, error))?;
            Ok(Some(url).filter(|url| !url.is_ours()))
        };
        let https = find(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])?;
        let http = find(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])?;
        if https.is_none() && http.is_none() {
            return Ok(None);
        }
        let except = vars("no_proxy").or_else(|| vars("NO_PROXY")).unwrap_or_default();
        Ok(Some(Self { https, http, except: Exceptions::parse(&except) }))
    }

    /// The proxy to take to `origin`; `None` is the direct way.
    #[must_use]
    pub fn to(&self, origin: &Origin) -> Option<&ProxyUrl> {
        let proxy = match origin.scheme() {
            Scheme::Https => &self.https,
            Scheme::Http => &self.http,
        };
        proxy.as_ref().filter(|_| !self.except.covers(origin.host(), origin.port()))
    }

    /// The proxies, as they may be shown.
    pub fn proxies(&self) -> impl Iterator<Item = &ProxyUrl> {
        self.https.iter().chain(&self.http)
    }
}

/// Why the way through the proxy did not open.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It is not there.
    #[error("the upstream proxy {proxy} cannot be reached: {source}")]
    Unreachable {
        /// Its address.
        proxy: String,
        /// Why not.
        source: io::Error,
    },
    /// It took too long.
    #[error("the upstream proxy {proxy} did not answer in time")]
    Timeout {
        /// Its address.
        proxy: String,
    },
    /// 407.
    #[error("the upstream proxy {proxy} wants other credentials (407, {method})")]
    Credentials {
        /// Its address.
        proxy: String,
        /// How it wants to be authenticated to.
        method: String,
    },
    /// Any other answer than 2xx.
    #[error("the upstream proxy {proxy} refused the connection ({status} {reason}, {kind})")]
    Refused {
        /// Its address.
        proxy: String,
        /// Its status.
        status: u16,
        /// Its words for it.
        reason: String,
        /// What its answer is made of: `text/html`, say.
        kind: String,
    },
    /// No HTTP.
    #[error("the upstream proxy {proxy} does not answer as an HTTP proxy")]
    NoProxy {
        /// Its address.
        proxy: String,
    },
}

impl ChainError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Timeout { .. } => Code::UpstreamTimeout,
            Self::Unreachable { .. } | Self::Credentials { .. } | Self::Refused { .. } | Self::NoProxy { .. } => {
                Code::UpstreamUnreachable
            }
        }
    }

    /// What the agent is told, in words that say nothing of the proxy's address.
    #[must_use]
    pub fn explanation(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "the operator's upstream proxy cannot be reached",
            Self::Timeout { .. } => "the operator's upstream proxy did not answer in time",
            Self::Credentials { .. } => {
                "the operator's upstream proxy did not accept Keyferry's credentials for it (407)"
            }
            Self::Refused { .. } => "the operator's upstream proxy refused the connection",
            Self::NoProxy { .. } => "the operator's upstream proxy does not answer as an HTTP proxy",
        }
    }
}

/// Connects to `proxy`.
///
/// # Errors
/// [`ChainError`].
pub async fn connect(proxy: &ProxyUrl, limit: Duration) -> Result<TcpStream, ChainError> {
    let unreachable = |source| ChainError::Unreachable { proxy: proxy.to_string(), source };
    // The operator's own proxy is where the operator says; the address guard is for what agents ask for.
    let connecting = TcpStream::connect((proxy.host().to_owned(), proxy.port()));
    let stream = timeout(limit, connecting)
        .await
        .map_err(|_| ChainError::Timeout { proxy: proxy.to_string() })?
        .map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// Has the proxy at the other end of `stream` connect to `origin` (RFC 9110 section 9.3.6).
///
/// # Errors
/// [`ChainError`].
pub async fn open(mut stream: TcpStream, proxy: &ProxyUrl, origin: &Origin) -> Result<TcpStream, ChainError> {
    let opening = async {
        let unreachable = |source| ChainError::Unreachable { proxy: proxy.to_string(), source };
        let target = format!("{}:{}", origin.host(), origin.port());
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        proxy.write_authorization(&mut request);
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(unreachable)?;
        let head = read_head(&mut stream).await.map_err(unreachable)?;
        judge(&head, proxy)
    };
    timeout(ANSWER_LIMIT, opening).await.map_err(|_| ChainError::Timeout { proxy: proxy.to_string() })??;
    Ok(stream)
}

/// Takes the head and not a byte of what follows it: that is the origin's.
async fn read_head(stream: &mut TcpStream) -> io::Result<BytesMut> {
    let mut head = BytesMut::with_capacity(1024);
    let mut window = [0u8; 1024];
    while head.len() < HEAD_LIMIT {
        let seen = stream.peek(&mut window).await?;
        let fresh = window.get(..seen).unwrap_or_default();
        if fresh.is_empty() {
            break;
        }
        let before = head.len();
        head.extend_from_slice(fresh);
        // The end may straddle what was read before.
        let from = before.saturating_sub(3);
        let end = memchr::memmem::find(head.get(from..).unwrap_or_default(), b"\r\n\r\n");
        let end = end.map(|at| at.saturating_add(from).saturating_add(4));
        let keep = end.unwrap_or(head.len());
        let mut consumed = keep.saturating_sub(before);
        head.truncate(keep);
        while consumed > 0 {
            let part = window.get_mut(..consumed).unwrap_or_default();
            let read = stream.read(part).await?;
            if read == 0 {
                break;
            }
            consumed = consumed.saturating_sub(read);
        }
        if end.is_some() {
            break;
        }
    }
    Ok(head)
}

fn judge(head: &[u8], proxy: &ProxyUrl) -> Result<(), ChainError> {
    let no_proxy = || ChainError::NoProxy { proxy: proxy.to_string() };
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(status) if status.is_complete() => {}
        _ => return Err(no_proxy()),
    }
    let status = response.code.ok_or_else(no_proxy)?;
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        printable(found.map_or(&b"unknown"[..], |field| field.value))
    };
    match status {
        200..=299 => Ok(()),
        407 => {
            let method = field("proxy-authenticate");
            let method = method.split(' ').next().unwrap_or_default().to_owned();
            Err(ChainError::Credentials { proxy: proxy.to_string(), method })
        }
        _ => Err(ChainError::Refused {
            proxy: proxy.to_string(),
            status,
            reason: printable(response.reason.unwrap_or_default().as_bytes()),
            kind: field("content-type"),
        }),
    }
}

/// The proxy's own words, as far as a line of our log should repeat them.
fn printable(bytes: &[u8]) -> String {
    let mut bytes = bytes.get(..80.min(bytes.len())).unwrap_or_default();
    let mut text = String::new();
    while bytes.has_remaining() {
        let letter = char::from(bytes.get_u8());
        text.push(if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tokio::net::TcpListener;

    fn origin(target: &str) -> Origin {
        Origin::from_connect_target(target).unwrap()
    }

    /// A proxy that answers with `pieces`, one write each; what it was asked, and what the client got.
    async fn asked(url_user: &str, pieces: &'static [&'static str]) -> (String, Result<String, ChainError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = ProxyUrl::parse(&format!("http://{url_user}{address}")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            for piece in pieces {
                stream.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            String::from_utf8(request).unwrap()
        };
        let client = async {
            let stream = connect(&proxy, Duration::from_secs(5)).await?;
            let mut stream = open(stream, &proxy, &origin("api.x.test:443")).await?;
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            Ok(rest)
        };
        tokio::join!(server, client)
    }

    #[tokio::test]
    async fn opens_a_way_and_takes_no_byte_of_the_origin() {
        let (request, rest) = asked("user:p%40ss@", &["HTTP/1.1 200 OK\r\nVia: x\r\n\r\nhello"]).await;
        assert_eq!(rest.unwrap(), "hello");
        let basic = "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n";
        assert_eq!(request, format!("CONNECT api.x.test:443 HTTP/1.1\r\nHost: api.x.test:443\r\n{basic}\r\n"));
        let (request, rest) = asked("", &["HTTP/1.0 200 Connection established\r", "\n\r", "\nhel", "lo"]).await;
        assert_eq!(rest.unwrap(), "hello");
        assert!(!request.contains("Authorization"));
    }

    #[tokio::test]
    async fn says_what_the_proxy_said() {
        let html = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<html>Blocked by policy</html>";
        let basic = "HTTP/1.1 407 Authentication Required\r\nProxy-Authenticate: NTLM\r\n\r\n";
        for (answer, words) in [
            (html, "refused the connection (403 Forbidden, text/html)"),
            (basic, "wants other credentials (407, NTLM)"),
            ("SSH-2.0-OpenSSH\r\n", "does not answer as an HTTP proxy"),
            ("<html>login</html>", "does not answer as an HTTP proxy"),
            ("", "does not answer as an HTTP proxy"),
        ] {
            let pieces: &'static [&'static str] = Box::leak(Box::new([answer]));
            let (_, failed) = asked("user:hunter2@", pieces).await;
            let failed = failed.unwrap_err();
            assert!(failed.to_string().contains(words), "{failed}");
            assert!(!failed.to_string().contains("hunter2"));
            assert_eq!(failed.code(), Code::UpstreamUnreachable);
        }
    }

    #[test]
    fn an_environment_is_read_as_most_clients_read_it() {
        let chain = |vars: &[(&str, &str)]| {
            let vars: HashMap<String, String> =
                vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Chain::from_environment(&|name| vars.get(name).cloned())
        };
        let shown = |vars: &[(&str, &str)], target: &str| {
            let chain = chain(vars).unwrap()?;
            chain.to(&origin(target)).map(ToString::to_string)
        };
        let one = "http://one:1";
        for (vars, expected) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "")], None),
            (&[("HTTPS_PROXY", one)], Some("one:1")),
            (&[("HTTPS_PROXY", one), ("https_proxy", "two:2")], Some("two:2")),
            (&[("ALL_PROXY", one), ("HTTP_PROXY", "http://two:2")], Some("one:1")),
            (&[("HTTP_PROXY", one)], None),
            (&[("HTTPS_PROXY", one), ("NO_PROXY", "x.test")], None),
            (&[("HTTPS_PROXY", one), ("NO_PROXY", "x.test"), ("no_proxy", "y.test")], Some("one:1")),
            (&[("HTTPS_PROXY", "http://coder:kfa_x@127.0.0.1:7878")], None),
        ] {
            assert_eq!(shown(vars, "api.x.test:443").as_deref(), expected, "{vars:?}");
        }
        for bad in ["socks5://one:1", "https://one:1"] {
            let (name, error) = chain(&[("HTTPS_PROXY", bad)]).unwrap_err();
            assert_eq!((name.as_str(), error), ("HTTPS_PROXY", ProxyUrlError::Scheme));
        }
    }
}
