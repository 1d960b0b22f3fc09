//! What the test provider saw: every connection and every request, and questions about them.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use sha2::{Digest, Sha256};

/// One connection that reached the provider.
#[derive(Debug, Clone)]
pub struct Connection {
    pub id: u64,
    pub sni: Option<String>,
    /// What the peer offered in its hello, in order.
    pub offered: Vec<String>,
    pub tls: bool,
    /// Whether the TLS handshake ended well on the provider's side.
    pub established: bool,
}

/// One request that reached the provider, whole.
#[derive(Debug, Clone)]
pub struct Seen {
    pub connection: u64,
    pub sni: Option<String>,
    pub tls: bool,
    pub version: http::Version,
    pub method: String,
    /// The authority of HTTP/2, or the `Host` field of HTTP/1.1.
    pub host: String,
    /// Path and query, as sent.
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
    pub trailers: Vec<(String, Vec<u8>)>,
    /// When it was here, whole.
    pub at: Instant,
    /// The status that a script gave it.
    pub scripted: Option<u16>,
}

impl Seen {
    pub fn new(connection: &Connection, parts: &Parts, body: Bytes, trailers: Vec<(String, Vec<u8>)>) -> Self {
        let field = parts.headers.get("host").map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        Self {
            connection: connection.id,
            sni: connection.sni.clone(),
            tls: connection.tls,
            version: parts.version,
            method: parts.method.to_string(),
            host: parts.uri.authority().map(ToString::to_string).or(field).unwrap_or_default(),
            target: parts.uri.path_and_query().map_or("/", |pq| pq.as_str()).to_owned(),
            fields: parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect(),
            body,
            trailers,
            at: Instant::now(),
            scripted: None,
        }
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The value of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.target.split_once('?')?.1;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
        })
    }

    /// All values of a field, as text.
    pub fn values(&self, name: &str) -> Vec<String> {
        let wanted = name.to_ascii_lowercase();
        let same = self.fields.iter().filter(|(n, _)| *n == wanted);
        same.map(|(_, v)| String::from_utf8_lossy(v).into_owned()).collect()
    }

    /// The only value of a field.
    pub fn value(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        assert!(values.len() < 2, "{name} came {} times: {values:?}", values.len());
        values.pop()
    }

    /// The only value of a field, or nothing; never a failure, for the provider's own decisions.
    pub fn first(&self, name: &str) -> Option<String> {
        self.values(name).into_iter().next()
    }

    pub fn body_digest(&self) -> String {
        hex(&Sha256::digest(&self.body))
    }

    /// User and password of Basic authentication.
    pub fn basic(&self) -> Option<(String, String)> {
        let value = self.first("authorization")?;
        let (scheme, rest) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// How many times the secret stands in this request: target, fields (Basic decoded), trailers and body.
    pub fn occurrences(&self, secret: &str) -> usize {
        let needle = secret.as_bytes();
        let target = percent_encoding::percent_decode_str(&self.target).collect::<Vec<u8>>();
        let mut count = occurrences(&target, needle) + occurrences(&self.body, needle);
        for (_, value) in self.fields.iter().chain(&self.trailers) {
            count += occurrences(value, needle);
        }
        // Basic is encoded, so the search above cannot have counted it.
        if let Some((user, password)) = self.basic() {
            count += occurrences(format!("{user}:{password}").as_bytes(), needle);
        }
        count
    }

    /// The credential of this request by the provider's usual slots.
    pub fn credential(&self) -> Option<String> {
        if let Some((_, password)) = self.basic() {
            return Some(password);
        }
        if let Some(value) = self.first("authorization") {
            return Some(value.split_once(' ').map_or(value.clone(), |(_, rest)| rest.to_owned()));
        }
        for name in ["x-api-key", "x-goog-api-key", "api-key"] {
            if let Some(value) = self.first(name) {
                return Some(value);
            }
        }
        if let Some(rest) = self.path().strip_prefix("/bot") {
            let token = rest.split('/').next().unwrap_or_default();
            return Some(percent_encoding::percent_decode_str(token).decode_utf8_lossy().into_owned());
        }
        self.query("key")
    }
}

/// How often `needle` stands in `hay`, overlaps not counted.
pub fn occurrences(hay: &[u8], needle: &[u8]) -> usize {
    assert!(needle.len() >= 8, "a needle of {} bytes proves nothing", needle.len());
    memchr::memmem::find_iter(hay, needle).count()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
