//! Secrets made at run time, searched for in everything that this module writes.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use futures_util::FutureExt as _;
use http::Method;
use parking_lot::Mutex;

use super::record::tests::full;
use super::trace::tests::capture;
use super::*;
use crate::clock::WallTime;
use crate::id::{AgentName, ProfileId, RequestId};
use crate::message::origin::Host;
use crate::scrub::Redactor;
use crate::secret::Secret;

fn random(prefix: &str, len: usize) -> String {
    let mut bytes = vec![0u8; len];
    getrandom::fill(&mut bytes).unwrap();
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    bytes.iter().fold(prefix.to_owned(), |text, byte| text + &char::from(letters[usize::from(byte & 63)]).to_string())
}

/// Every listed encoding, in the surroundings in which it is met.
fn spellings(secret: &str) -> Vec<String> {
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>();
    let mut all = vec![
        secret.to_owned(),
        format!("Bearer {secret}"),
        each(&|byte| format!("{byte:02x}")),
        each(&|byte| format!("{byte:02X}")),
        each(&|byte| format!("%{byte:02x}")),
        each(&|byte| format!("%{byte:02X}")),
        each(&|byte| format!("\\u{byte:04x}")),
    ];
    for before in ["", "u", "us", "user:"] {
        all.push(base64::engine::general_purpose::STANDARD.encode(format!("{before}{secret}")));
        all.push(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{before}{secret}")));
    }
    all
}

/// Whether `text` holds the secret in any spelling, as it stands or behind JSON's escapes.
fn holds(text: &str, secret: &str) -> bool {
    let mut unescaped = text.to_owned();
    while unescaped.contains("\\\\") {
        unescaped = unescaped.replace("\\\\", "\\");
    }
    // A base64 spelling is looked for without its ends, which depend on what stands around it.
    spellings(secret).iter().any(|form| {
        let core = form.get(4..form.len() - 4).unwrap();
        text.contains(core) || unescaped.contains(core)
    })
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_sink_shows_a_known_value_in_any_encoding() {
    // EX-13, EX-18, EX-20
    let secret = random("", 43);
    let redactor = Arc::new(Redactor::new());
    redactor.know(&[Arc::new(Secret::from(secret.clone()))]);
    all_sinks(&secret, &spellings(&secret), &redactor);
}

#[test]
fn no_sink_shows_an_unknown_token_of_a_known_shape() {
    let redactor = Arc::new(Redactor::new());
    for prefix in
        ["sk-ant-api03-", "sk-proj-", "ghp_", "github_pat_11", "xoxb-1-", "AIza", "kfa_", "/bot123456:", "Bearer "]
    {
        let secret = random("", 35);
        all_sinks(&secret, &[format!("{prefix}{secret}")], &redactor);
    }
}

fn all_sinks(secret: &str, spellings: &[String], redactor: &Arc<Redactor>) {
    let dir = tempfile::tempdir().unwrap();
    let (access, trail) = (dir.path().join("access.jsonl"), dir.path().join("audit.jsonl"));
    let copy = Buffer::default();
    let log = AccessLog::new().with_file(&access).unwrap().with_copy(copy.clone()).unwrap();
    let recorder = Recorder::new(log, Metrics::new(), redactor.clone());
    let audit = Audit::open(&trail, Arc::new(Secret::new(vec![1; 32])), redactor.clone()).unwrap();
    let (agent, profile) = (AgentName::parse("coder").unwrap(), ProfileId::parse("acme:x").unwrap());
    let host = Host::parse("api.acme.example").unwrap();
    let mut traced = String::new();
    for text in spellings {
        let path = format!("/a/{text}/b?key={text}");
        let method = Method::from_bytes(text.as_bytes()).unwrap_or(Method::GET);
        recorder.emit(Record {
            path: Some(path.clone()),
            method: Some(method.clone()),
            rule: Some(text.clone()),
            detail: Some(format!("failed at {text}: {path}")),
            ..full()
        });
        audit
            .intent(Intent {
                at: WallTime(0),
                request_id: RequestId::new(0),
                agent: &agent,
                profile: &profile,
                version: 1,
                host: &host,
                port: 443,
                method: &method,
                path: &path,
            })
            .now_or_never()
            .unwrap()
            .unwrap();
        let (subject, actor) = (text.as_str(), text.as_str());
        let at = WallTime(0);
        audit.change(Change { at, action: Action::ConfigLoaded, subject, actor, detail: Some(text) }).unwrap();
        for format in [trace::Format::Text, trace::Format::Json] {
            traced += &capture("trace", format, redactor.clone(), || {
                tracing::trace!(value = %text, debug = ?text, "a message with {text}");
                tracing::error!(target: "hyper::proto", "{path}");
            });
        }
    }
    assert!(recorder.flush(Duration::from_secs(30)));
    let shown = [
        std::fs::read_to_string(&access).unwrap(),
        String::from_utf8(copy.0.lock().clone()).unwrap(),
        std::fs::read_to_string(&trail).unwrap(),
        recorder.render(WallTime(0)),
        traced,
    ];
    for (sink, text) in shown.iter().enumerate() {
        assert!(text.len() > 200, "sink {sink} was not used");
        assert!(!holds(text, secret), "sink {sink} shows {secret}:\n{text}");
    }
    assert_eq!(shown[0], shown[1]);
    assert!(shown[0].lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(shown[0].contains("***...***"));
}

#[test]
fn the_search_itself_finds_what_it_looks_for() {
    let secret = random("", 43);
    for form in spellings(&secret) {
        assert!(holds(&format!("{{\"a\":\"x{form}y\"}}"), &secret), "{form}");
    }
    assert!(!holds("nothing", &secret));
}
