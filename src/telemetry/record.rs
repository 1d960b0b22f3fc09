//! What is known of one exchange when it has ended.
//!
//! Invariant: a line is valid JSON, at most [`Record::LIMIT`] bytes long, and every text in it that an agent or an
//! upstream chose went through the redactor before it was cut.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;

use super::json::Line;
use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{AgentName, ProfileId, ProviderId, RequestId};
use crate::message::origin::Host;
use crate::scrub::Redactor;

/// What was done with an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Sent with a credential.
    Injected,
    /// Sent without one.
    Forwarded,
    /// Passed through blindly.
    Tunnelled,
    /// Refused by policy or identification.
    Denied,
    /// Answered by Keyferry itself: a failure, or one of its own pages.
    Answered,
}

impl Decision {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Forwarded => "forwarded",
            Self::Tunnelled => "tunnelled",
            Self::Denied => "denied",
            Self::Answered => "answered",
        }
    }
}

/// What was spoken on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    H2,
    /// Frames after an upgrade.
    WebSocket,
    /// Bytes that were not looked at.
    Tunnel,
}

impl Protocol {
    /// The word in the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::H2 => "h2",
            Self::WebSocket => "websocket",
            Self::Tunnel => "tunnel",
        }
    }
}

/// One try at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// With which profile.
    pub profile: ProfileId,
    /// The upstream's status; `None` when there was no answer.
    pub status: Option<u16>,
    /// How it was judged: a word of the program, never of the upstream.
    pub outcome: &'static str,
    /// Until the judgement.
    pub took: Duration,
}

/// One exchange, as the access log and the metrics get it. Make one with [`Record::new`] and fill in what is known.
#[derive(Debug, Clone)]
pub struct Record {
    /// When the request began.
    pub ts: WallTime,
    /// Which exchange.
    pub request_id: RequestId,
    /// Who asked, once identified.
    pub agent: Option<AgentName>,
    /// The peer's address, or `uid:1000` on a Unix socket.
    pub client: Option<String>,
    /// Which listener took it: `proxy`, `base_url`, ...
    pub listener: &'static str,
    /// The method, `CONNECT` for a tunnel.
    pub method: Option<Method>,
    /// The host asked for.
    pub host: Option<Host>,
    /// The port asked for.
    pub port: Option<u16>,
    /// The path without its query; a query given by mistake is cut off.
    pub path: Option<String>,
    /// Whose credential.
    pub provider: Option<ProviderId>,
    /// The profile whose answer was passed on.
    pub profile: Option<ProfileId>,
    /// What was done.
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Whether that rule would have refused it, and denials are only noted.
    pub would_deny: bool,
    /// Every try, in order.
    pub attempts: Vec<AttemptRecord>,
    /// The status that the agent got.
    pub status: Option<u16>,
    /// The code of our own answer.
    pub error: Option<Code>,
    /// What an operator needs to know beyond the code; the agent never sees it.
    pub detail: Option<String>,
    /// Bytes of the request's body, or from the agent through a tunnel.
    pub bytes_in: u64,
    /// Bytes of the response's body, or to the agent through a tunnel.
    pub bytes_out: u64,
    /// From the request's head to the response's first byte.
    pub ttfb: Option<Duration>,
    /// How long the upstream took of it all.
    pub upstream: Option<Duration>,
    /// From the request's head to the response's end.
    pub total: Duration,
    /// What the agent spoke.
    pub protocol: Protocol,
    /// What the upstream spoke.
    pub upstream_protocol: Option<Protocol>,
    /// The TLS version and group on the agent's side, for example `TLSv1.3 X25519MLKEM768`.
    pub tls: Option<String>,
    /// The TLS version and group on the upstream's side.
    pub upstream_tls: Option<String>,
    /// How many secrets were taken out of the response.
    pub redactions: u64,
    /// Input tokens, as the provider counted them.
    pub tokens_in: Option<u64>,
    /// Output tokens, as the provider counted them.
    pub tokens_out: Option<u64>,
}

/// How grave an exchange was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Info,
    Warn,
    Error,
}

impl Record {
    /// The most bytes of a line, its line feed included.
    pub const LIMIT: usize = 8192;

    /// An exchange of which nothing is known yet.
    #[must_use]
    pub fn new(ts: WallTime, request_id: RequestId, listener: &'static str, protocol: Protocol) -> Self {
        Self {
            ts,
            request_id,
            agent: None,
            client: None,
            listener,
            method: None,
            host: None,
            port: None,
            path: None,
            provider: None,
            profile: None,
            decision: Decision::Answered,
            rule: None,
            would_deny: false,
            attempts: Vec::new(),
            status: None,
            error: None,
            detail: None,
            bytes_in: 0,
            bytes_out: 0,
            ttfb: None,
            upstream: None,
            total: Duration::ZERO,
            protocol,
            upstream_protocol: None,
            tls: None,
            upstream_tls: None,
            redactions: 0,
            tokens_in: None,
            tokens_out: None,
        }
    }

    /// The line of the access log, without its line feed.
    #[must_use]
    pub fn line(&self, redactor: &Redactor) -> String {
        // The sum of these limits, of the names (at most 128 each) and of the numbers stays under LIMIT.
        const CLIENT: usize = 64;
        const METHOD: usize = 32;
        const HOST: usize = 256;
        const PATH: usize = 2048;
        const RULE: usize = 256;
        const ATTEMPTS: usize = 2560;
        const DETAIL: usize = 512;
        const TLS: usize = 48;
        let host = self.host.as_ref().map(ToString::to_string);
        let path = self.path.as_deref().map(|path| path.split_once('?').map_or(path, |(path, _)| path));
        let level = match self.level() {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let mut line = Line::begin();
        line.shown("ts", Some(&Millis(self.ts)))
            .string("level", level, 8)
            .shown("request_id", Some(&self.request_id))
            .shown("agent", shown(&self.agent))
            .optional("client", self.client.as_deref(), CLIENT)
            .string("listener", self.listener, 32)
            .optional("method", clean(redactor, self.method.as_ref().map(Method::as_str)).as_deref(), METHOD)
            .optional("host", clean(redactor, host.as_deref()).as_deref(), HOST)
            .number("port", self.port.map(u64::from))
            .optional("path", clean(redactor, path).as_deref(), PATH)
            .shown("provider", shown(&self.provider))
            .shown("profile", shown(&self.profile))
            .string("decision", self.decision.as_str(), 16)
            .optional("rule", clean(redactor, self.rule.as_deref()).as_deref(), RULE);
        if self.would_deny {
            line.boolean("would_deny", true);
        }
        line.list("attempts", &self.attempts, ATTEMPTS, |line, attempt| {
            line.shown("profile", Some(&attempt.profile))
                .number("status", attempt.status.map(u64::from))
                .string("outcome", attempt.outcome, 64)
                .millis("ms", Some(attempt.took));
        })
        .number("status", self.status.map(u64::from))
        .shown("error", shown(&self.error));
        if let Some(detail) = clean(redactor, self.detail.as_deref()) {
            line.string("detail", &detail, DETAIL);
        }
        line.number("bytes_in", Some(self.bytes_in))
            .number("bytes_out", Some(self.bytes_out))
            .millis("ttfb_ms", self.ttfb)
            .millis("upstream_ms", self.upstream)
            .millis("total_ms", Some(self.total))
            .string("protocol", self.protocol.as_str(), 16)
            .optional("upstream_protocol", self.upstream_protocol.map(Protocol::as_str), 16);
        for (name, value) in [("tls", &self.tls), ("upstream_tls", &self.upstream_tls)] {
            if let Some(value) = value {
                line.string(name, value, TLS);
            }
        }
        line.number("redactions", Some(self.redactions))
            .number("tokens_in", self.tokens_in)
            .number("tokens_out", self.tokens_out);
        debug_assert!(line.len() < Self::LIMIT.saturating_sub(2), "the limits no longer add up");
        line.end()
    }

    fn level(&self) -> Level {
        match (self.decision, self.error) {
            (_, Some(Code::Internal | Code::VaultCorrupt | Code::VaultLocked | Code::AuditUnavailable)) => Level::Error,
            (Decision::Denied, _) | (_, Some(_)) => Level::Warn,
            (_, None) if self.would_deny => Level::Warn,
            (Decision::Injected | Decision::Forwarded | Decision::Tunnelled | Decision::Answered, None) => Level::Info,
        }
    }
}

fn clean<'a>(redactor: &Redactor, text: Option<&'a str>) -> Option<Cow<'a, str>> {
    text.map(|text| redactor.redact(text))
}

fn shown<T: std::fmt::Display>(value: &Option<T>) -> Option<&dyn std::fmt::Display> {
    value.as_ref().map(|value| value as &dyn std::fmt::Display)
}

/// RFC 3339 with exactly three digits behind the point, so that lines sort as text.
pub(super) struct Millis(pub(super) WallTime);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = i64::try_from(self.0.0 / 1000).unwrap_or(0);
        let millis = self.0.0 % 1000;
        match time::OffsetDateTime::from_unix_timestamp(seconds) {
            Ok(at) => {
                // Twice for each request: the general formatter takes as long as the rest of a line.
                let mut text = *b"0000-00-00T00:00:00.000Z";
                let mut put = |range: std::ops::Range<usize>, mut value: u32| {
                    for digit in text.get_mut(range).into_iter().flatten().rev() {
                        *digit = b'0'.saturating_add(u8::try_from(value % 10).unwrap_or(0));
                        value /= 10;
                    }
                };
                put(0..4, at.year().unsigned_abs());
                put(5..7, u32::from(u8::from(at.month())));
                put(8..10, u32::from(at.day()));
                put(11..13, u32::from(at.hour()));
                put(14..16, u32::from(at.minute()));
                put(17..19, u32::from(at.second()));
                put(20..23, u32::try_from(millis).unwrap_or(0));
                f.write_str(std::str::from_utf8(&text).unwrap_or("invalid"))
            }
            Err(_) => f.write_str("invalid"),
        }
    }
}

#[cfg(test)]
pub(in crate::telemetry) mod tests {
    use super::*;

    pub(in crate::telemetry) fn full() -> Record {
        let profile = ProfileId::parse("anthropic:titanium").unwrap();
        let attempt = |profile: &str, status, outcome| AttemptRecord {
            profile: ProfileId::parse(profile).unwrap(),
            status: Some(status),
            outcome,
            took: Duration::from_micros(1500),
        };
        Record {
            agent: Some(AgentName::parse("coder").unwrap()),
            client: Some("127.0.0.1:50000".to_owned()),
            method: Some(Method::POST),
            host: Some(Host::parse("api.anthropic.com").unwrap()),
            port: Some(443),
            path: Some("/v1/messages?beta=true".to_owned()),
            provider: Some(profile.provider.clone()),
            profile: Some(profile),
            decision: Decision::Injected,
            rule: Some("agents.coder.allow".to_owned()),
            attempts: vec![
                attempt("anthropic:work", 429, "rate_limited"),
                attempt("anthropic:titanium", 200, "success"),
            ],
            status: Some(200),
            bytes_in: 10,
            bytes_out: 20,
            ttfb: Some(Duration::from_micros(12_345)),
            upstream: Some(Duration::from_millis(30)),
            total: Duration::from_millis(31),
            upstream_protocol: Some(Protocol::H2),
            redactions: 1,
            tokens_in: Some(7),
            ..Record::new(WallTime(1_764_036_000_120), RequestId::new(1), "proxy", Protocol::Http1)
        }
    }

    #[test]
    fn a_line_has_every_field_of_the_contract_in_its_order() {
        let line = full().line(&Redactor::new());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let contract = "ts level request_id agent client listener method host port path provider profile decision rule \
                        attempts status error bytes_in bytes_out ttfb_ms upstream_ms total_ms protocol \
                        upstream_protocol redactions tokens_in tokens_out";
        assert_eq!(names.join(" "), contract);
        assert_eq!(value["ts"], "2025-11-25T02:00:00.120Z");
        assert_eq!(value["path"], "/v1/messages");
        assert_eq!(value["ttfb_ms"], 12.345);
        assert_eq!(value["error"], serde_json::Value::Null);
        assert_eq!(value["attempts"][0]["outcome"], "rate_limited");
        assert_eq!(value["attempts"][1]["profile"], "anthropic:titanium");
        assert_eq!(value["attempts"][0]["ms"], 1.5);
    }

    #[test]
    fn a_whole_second_has_its_milliseconds_too() {
        assert_eq!(Millis(WallTime(1_764_036_000_000)).to_string(), "2025-11-25T02:00:00.000Z");
    }

    #[test]
    fn the_longest_line_stays_under_the_limit_and_reads_back() {
        // EX-21
        let long = "x".repeat(128);
        let profile = ProfileId::parse(&format!("{long}:{long}")).unwrap();
        let hostile = "\u{1}\n\u{1b}]0;\u{202e}\"".repeat(20_000);
        let attempt =
            AttemptRecord { profile: profile.clone(), status: Some(429), outcome: "rate_limited", took: Duration::MAX };
        let mut record = Record {
            agent: Some(AgentName::parse(&long).unwrap()),
            client: Some(hostile.clone()),
            method: Some(Method::from_bytes(&[b'M'; 5000]).unwrap()),
            host: Some(Host::parse(&["a".repeat(61).as_str(); 4].join(".")).unwrap()),
            port: Some(65535),
            path: Some(format!("/{hostile}")),
            provider: Some(profile.provider.clone()),
            profile: Some(profile),
            rule: Some(hostile.clone()),
            attempts: vec![attempt; 500],
            error: Some(Code::ResponseUnscannable),
            detail: Some(hostile.clone()),
            tls: Some(hostile.clone()),
            upstream_tls: Some(hostile),
            ..full()
        };
        for number in [&mut record.bytes_in, &mut record.bytes_out, &mut record.redactions] {
            *number = u64::MAX;
        }
        (record.tokens_in, record.tokens_out) = (Some(u64::MAX), Some(u64::MAX));
        (record.total, record.ttfb, record.upstream) = (Duration::MAX, Some(Duration::MAX), Some(Duration::MAX));
        let line = record.line(&Redactor::new());
        assert!(line.len() < Record::LIMIT, "{}", line.len());
        assert!(!line.contains(|c: char| c.is_control()));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(value["path"].as_str().unwrap().ends_with("..."));
        assert!(value["attempts"].as_array().unwrap().len() > 3);
    }

    #[test]
    fn a_secret_in_a_path_is_masked_before_the_path_is_cut() {
        let secret = format!("/bot1234:{}/x", "Q".repeat(35));
        let mut record = full();
        record.path = Some(format!("/{}{secret}", "p".repeat(2030)));
        let line = record.line(&Redactor::new());
        assert!(!line.contains("QQQQ"), "{line}");
    }
}
