//! The daemon's listeners, as agents meet them.

mod address;
mod audit;
mod base_url;
mod canary;
mod carriers;
mod chain;
mod coded;
mod connect;
mod daemon;
mod distrust;
mod echo;
mod fallback;
mod foreign;
mod frames;
mod grpc;
mod guard;
mod handshake;
mod hostile;
mod hostile_h2;
mod identity;
mod java;
mod lifecycle;
mod limits;
mod log;
mod login;
mod mismatch;
mod misplaced;
mod names;
mod observe;
mod pairings;
mod pressure;
mod providers;
mod redirect;
mod reload;
mod request;
mod rotation;
mod scope;
mod scrubbing;
mod sdks;
mod stalls;
mod storm;
mod streams;
mod strip;
mod vectors;
mod verify;
mod ways;
mod websocket;
mod websocket_ends;

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Answered, Canary, Finished, HTTP1, Home, LISTEN, Serve, Tool, Wire, need};
use crate::upstream::TestUpstream;

pub const ACME: &str = "api.acme.example";
pub const OTHER: &str = "api.other.example";

/// Two providers of the user's own, a host that is tunnelled, one in cleartext, and nothing else.
pub const CONFIG: &str = "\
providers:
  acme:
    hosts: [api.acme.example]
    inject: {header: Authorization, value: \"Bearer {secret}\"}
    env: ACME_API_KEY
  other:
    hosts: [api.other.example]
    inject: {header: X-Other-Key, value: \"{secret}\"}
    env: OTHER_API_KEY
routes:
  - {host: tunnel.example, action: tunnel}
  - {host: plain.example, ports: [80], action: allow}
default: deny
";

/// A running daemon with an agent, and a provider behind it. Fields are dropped in this order.
pub struct Stage {
    pub daemon: Serve,
    pub home: Home,
    pub upstream: TestUpstream,
    pub token: String,
    pub acme: Canary,
    pub other: Canary,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(CONFIG, |_, _| {})
    }

    /// With sections of its own, and more stored before the daemon starts.
    pub fn with(config: &str, prepare: impl FnOnce(&TestUpstream, &Home)) -> Self {
        Self::listening(LISTEN, config, prepare)
    }

    /// With listeners of its own.
    pub fn listening(listen: &str, config: &str, prepare: impl FnOnce(&TestUpstream, &Home)) -> Self {
        let upstream = TestUpstream::start();
        let home = Home::with(&upstream, "");
        home.write_config(&format!("{listen}{}{config}", home.upstream_section(&upstream, "")));
        let (acme, other) = (Canary::plain(), Canary::plain());
        if config.contains("\n  acme:") {
            home.stock(&upstream, "acme:work", &acme, &[]);
        }
        if config.contains("\n  other:") {
            home.stock(&upstream, "other:work", &other, &[]);
        }
        prepare(&upstream, &home);
        let token = home.agent("coder");
        let daemon = home.serve();
        Self { daemon, home, upstream, token, acme, other }
    }

    /// A plain connection to the proxy listener.
    pub fn wire(&self) -> Wire {
        Wire::connect(&self.home, self.daemon.proxy)
    }

    /// A connection on which CONNECT was answered with 200.
    pub fn tunnel(&self, target: &str) -> Wire {
        Wire::tunnel(&self.home, self.daemon.proxy, "coder", &self.token, target)
    }

    /// What CONNECT is answered, whatever it is.
    pub fn connect(&self, target: &str) -> Answered {
        let mut wire = self.wire();
        wire.send(crate::harness::connect_request(target, "coder", &self.token).as_bytes());
        let head = wire.head_only();
        if head.status == 200 { head } else { wire.body_of(head) }
    }

    /// An intercepted HTTP/1.1 connection to `host`.
    pub fn open(&self, host: &str) -> Wire {
        self.tunnel(&format!("{host}:443")).tls(&self.ca(), host, HTTP1).unwrap()
    }

    /// One `GET` through an intercepted connection of its own.
    pub fn get(&self, host: &str, path: &str) -> Answered {
        self.open(host).ask(&get(host, path))
    }

    pub fn ca(&self) -> PathBuf {
        self.home.path().join("ca/ca.pem")
    }

    /// curl through the proxy listener, with trust in the local CA alone.
    pub fn curl(&self, arguments: &[&str]) -> Option<Finished> {
        let mut command = Command::new(need("proxy", Tool::Curl)?);
        let proxy = format!("http://coder:{}@{}", self.token, self.daemon.proxy);
        command.env_clear().current_dir(self.home.work_dir());
        command.args(["-sS", "--max-time", "50", "--proxy", &proxy, "--cacert"]).arg(self.ca()).args(arguments);
        Some(self.home.finish(command, b""))
    }

    /// The headers of a `Proxy-Authorization` that the daemon accepts.
    pub fn authorization(&self) -> String {
        use base64::Engine;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("coder:{}", self.token));
        format!("Proxy-Authorization: Basic {basic}\r\n")
    }

    /// Stops the daemon, so that all lines are written.
    pub fn stop(&mut self) {
        assert!(self.daemon.stop().success(), "{}", self.daemon.stderr.text());
    }
}

impl Drop for Stage {
    /// After each test: the sinks of the living process are kept for the home's search, and the positive control is
    /// made: each value went to its own host and nowhere else, at most once in a request.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.daemon.look_over();
        for (canary, own) in [(&self.acme, ACME), (&self.other, OTHER)] {
            for seen in self.upstream.seen() {
                let found = seen.occurrences(canary.as_str());
                let host = seen.host.split(':').next().unwrap_or_default();
                assert!(found == 0 || host.eq_ignore_ascii_case(own), "the value of {own} went to {host}: {seen:?}");
                assert!(found <= 1, "the value of {own} stands {found} times in one request: {seen:?}");
            }
        }
    }
}

pub fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}
