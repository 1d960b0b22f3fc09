//! A client that sends exactly the bytes it is told to, and keeps every byte that it received.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::home::{Home, Received};
use super::process::PATIENCE;

/// One answer, whole.
#[derive(Debug, Clone)]
pub struct Answered {
    pub status: u16,
    pub reason: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing said.
    pub complete: bool,
}

impl Answered {
    pub fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        self
    }

    /// One of the program's own answers: status, code in field and body, request id, proxy status.
    pub fn assert_refused(&self, status: u16, code: &str) -> &Self {
        self.assert_status(status);
        assert_eq!(self.value("x-keyferry-error"), Some(code), "{self:?}");
        assert!(self.value("x-keyferry-request-id").is_some_and(|id| !id.is_empty()), "{self:?}");
        assert!(self.value("proxy-status").is_some_and(|v| v.starts_with("keyferry; error=")), "{self:?}");
        if status != 407 {
            let body = self.json();
            assert_eq!(body["type"], "error");
            assert_eq!(body["error"]["code"], code);
            assert!(body["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{body}");
            assert_eq!(body["request_id"].as_str(), self.value("x-keyferry-request-id"));
        }
        self
    }
}

enum Channel {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection of an agent.
pub struct Wire {
    channel: Option<Channel>,
    unread: Vec<u8>,
    all: Vec<u8>,
    received: Received,
}

/// Which protocols a hello offers.
pub const HTTP1: &[&[u8]] = &[b"http/1.1"];
pub const HTTP2: &[&[u8]] = &[b"h2"];

impl Wire {
    pub fn connect(home: &Home, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(home, stream)
    }

    /// Over a connection as it is, Nagle's algorithm included.
    pub fn over(home: &Home, stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let channel = Some(Channel::Plain(stream));
        Self { channel, unread: Vec::new(), all: Vec::new(), received: home.received() }
    }

    /// A tunnel to `target`, opened with the agent's token.
    pub fn tunnel(home: &Home, proxy: SocketAddr, agent: &str, token: &str, target: &str) -> Self {
        let mut wire = Self::connect(home, proxy);
        wire.send(connect_request(target, agent, token).as_bytes());
        wire.head_only().assert_status(200);
        wire
    }

    /// Sends what the peer takes: one that answers early may close before all of it went, and what it said is read next.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        match self.try_send(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            sent => sent.unwrap(),
        }
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.channel.as_mut().unwrap() {
            Channel::Plain(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Channel::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Starts TLS over what the connection is now.
    pub fn tls(mut self, roots: &Path, sni: &str, offers: &[&[u8]]) -> Result<Self, std::io::Error> {
        let Some(Channel::Plain(mut stream)) = self.channel.take() else { panic!("TLS twice") };
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let mut connection = ClientConnection::new(client_config(roots, offers), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        self.channel = Some(Channel::Tls(Box::new(StreamOwned::new(connection, stream))));
        Ok(self)
    }

    /// The chain that the peer presented.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let Some(Channel::Tls(stream)) = &self.channel else { panic!("no TLS") };
        stream.conn.peer_certificates().unwrap().iter().map(|c| c.clone().into_owned()).collect()
    }

    pub fn alpn(&self) -> Option<Vec<u8>> {
        let Some(Channel::Tls(stream)) = &self.channel else { panic!("no TLS") };
        stream.conn.alpn_protocol().map(<[u8]>::to_vec)
    }

    /// Sends a request and reads the answer.
    pub fn ask(&mut self, request: &str) -> Answered {
        let head = request.starts_with("HEAD ");
        self.send(request.as_bytes());
        if head { self.head_only() } else { self.answer() }
    }

    /// Reads a head, and no body.
    pub fn head_only(&mut self) -> Answered {
        loop {
            if let Some(answered) = self.parsed_head() {
                return answered;
            }
            assert!(self.fill() > 0, "the connection ended in a head: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// Reads a whole answer, interim ones skipped.
    pub fn answer(&mut self) -> Answered {
        let mut answered = self.head_only();
        while answered.status < 200 && answered.status != 101 {
            answered = self.head_only();
        }
        self.body_of(answered)
    }

    /// Reads the body that belongs to a head.
    pub fn body_of(&mut self, mut answered: Answered) -> Answered {
        // RFC 9110 section 15.4.5: a 304 may say a length and has no body all the same.
        if matches!(answered.status, 204 | 304) {
            return answered;
        }
        let chunked = answered.value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = answered.value("content-length").map(|v| v.parse::<usize>().unwrap());
        if chunked {
            answered.complete = self.chunked(&mut answered.body);
        } else if let Some(length) = length {
            while self.unread.len() < length && self.fill() > 0 {}
            let have = self.unread.len().min(length);
            answered.body = self.unread.drain(..have).collect();
            answered.complete = have == length;
        } else {
            while self.fill() > 0 {}
            answered.body = std::mem::take(&mut self.unread);
        }
        answered
    }

    /// Reads until at least `word` has come, and returns all that is unread so far.
    pub fn until(&mut self, word: &[u8]) -> Vec<u8> {
        while memchr::memmem::find(&self.unread, word).is_none() {
            assert!(self.fill() > 0, "the connection ended before {:?}", String::from_utf8_lossy(word));
        }
        std::mem::take(&mut self.unread)
    }

    /// Ends our side; what the peer says can still be read.
    pub fn half_close(&mut self) {
        match self.channel.as_mut().unwrap() {
            Channel::Plain(stream) => stream.shutdown(std::net::Shutdown::Write).unwrap(),
            Channel::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().unwrap();
                stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
            }
        }
    }

    /// Whether the peer closed, with nothing more to read.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.fill() == 0
    }

    /// What came and was not taken yet.
    pub fn seen(&self) -> &[u8] {
        &self.unread
    }

    /// Waits for more; false at the end.
    pub fn more(&mut self) -> bool {
        self.fill() > 0
    }

    /// Everything until the peer closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// The next answer, or nothing where the peer closes instead.
    pub fn rest_or_answer(&mut self) -> Option<Answered> {
        while self.unread.is_empty() {
            if self.fill() == 0 {
                return None;
            }
        }
        Some(self.answer())
    }

    /// Takes more bytes; 0 at the end or when the connection broke.
    fn fill(&mut self) -> usize {
        let mut buffer = [0u8; 16 * 1024];
        let read = match self.channel.as_mut().unwrap() {
            Channel::Plain(stream) => stream.read(&mut buffer),
            Channel::Tls(stream) => stream.read(&mut buffer),
        };
        let count = match read {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {PATIENCE:?}; unread: {:?}", String::from_utf8_lossy(&self.unread))
            }
            Err(_) => 0,
        };
        self.unread.extend_from_slice(&buffer[..count]);
        self.all.extend_from_slice(&buffer[..count]);
        count
    }

    fn parsed_head(&mut self) -> Option<Answered> {
        let mut slots = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Response::new(&mut slots);
        let parsed = head.parse(&self.unread);
        let parsed = parsed.unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.unread)));
        let httparse::Status::Complete(length) = parsed else { return None };
        let field = |f: &httparse::Header| (f.name.to_owned(), String::from_utf8_lossy(f.value).into_owned());
        let answered = Answered {
            status: head.code?,
            reason: head.reason.unwrap_or_default().to_owned(),
            fields: head.headers.iter().map(field).collect(),
            body: Vec::new(),
            complete: true,
        };
        self.unread.drain(..length);
        Some(answered)
    }

    fn chunked(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(line) = self.line() else { return false };
            let digits = line.split(';').next().unwrap_or_default().trim().to_owned();
            let size = usize::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                while self.line().is_some_and(|line| !line.is_empty()) {}
                return true;
            }
            while self.unread.len() < size + 2 {
                if self.fill() == 0 {
                    body.append(&mut self.unread);
                    return false;
                }
            }
            body.extend(self.unread.drain(..size));
            self.unread.drain(..2);
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.received.lock().unwrap().push(("an agent's connection".to_owned(), std::mem::take(&mut self.all)));
    }
}

/// A CONNECT as most clients send it.
pub fn connect_request(target: &str, agent: &str, token: &str) -> String {
    let basic = STANDARD.encode(format!("{agent}:{token}"));
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n")
}

/// Trust in the PEM file alone.
pub fn client_config(roots: &Path, offers: &[&[u8]]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots).unwrap() {
        store.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = offers.iter().map(|offer| offer.to_vec()).collect();
    Arc::new(config)
}
