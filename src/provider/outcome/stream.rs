//! Event streams: which event is the first with content, and which reports an error.
//!
//! Lines and fields are those of the WHATWG event-stream format. The scanner is fed the decoded bytes as they come
//! and keeps at most one event's beginning.
//!
//! Invariant: memory is bounded whatever the stream holds; the bytes themselves are never changed or held back here.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::json;
use super::{Class, Outcome, Rules};
use crate::clock::WallTime;

/// How much of one event's data is kept: error events are short, content can be anything.
const KEPT: usize = 16 * 1024;

/// Handshake events that a peek waits through before it gives up and passes the stream on.
const PATIENCE_EVENTS: u32 = 16;

/// Bytes that a peek waits through.
const PATIENCE_BYTES: usize = 64 * 1024;

/// Finds events in a stream.
#[derive(Debug, Default)]
pub struct Scanner {
    line: Vec<u8>,
    line_cut: bool,
    after_return: bool,
    name: Option<String>,
    data: Vec<u8>,
    has_data: bool,
    events: u32,
    bytes: usize,
    content: bool,
    error: Option<(StatusCode, Vec<u8>)>,
}

/// What the beginning of a stream turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// Nothing yet but greetings: hold on.
    Waiting,
    /// Content, or enough that was not an error: pass it on.
    Content,
    /// An error before any content; it can be treated like a status.
    Failed(Box<Outcome>),
}

/// What an event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// A greeting, a keep-alive, an announcement.
    Handshake,
    /// Something that the client waits for.
    Content,
    /// An error, with the status that it stands for.
    Error(StatusCode),
}

impl Scanner {
    /// Takes the next bytes while nothing has been passed on.
    pub fn peek(&mut self, bytes: &[u8], rules: &Rules, fields: &HeaderMap, now: WallTime) -> Peek {
        self.feed(bytes);
        // What came first counts: an error after content cannot be undone.
        if self.content {
            return Peek::Content;
        }
        if let Some((status, data)) = self.error.take() {
            let outcome = rules.judge_event(status, fields, &data, now);
            let failed = outcome.class != Class::Success;
            return if failed { Peek::Failed(Box::new(outcome)) } else { Peek::Content };
        }
        if self.events >= PATIENCE_EVENTS || self.bytes >= PATIENCE_BYTES { Peek::Content } else { Peek::Waiting }
    }

    /// Takes the next bytes of a stream that is being passed on. An outcome is for later requests.
    pub fn watch(&mut self, bytes: &[u8], rules: &Rules, fields: &HeaderMap, now: WallTime) -> Option<Outcome> {
        self.feed(bytes);
        let (status, data) = self.error.take()?;
        Some(rules.judge_event(status, fields, &data, now)).filter(|outcome| outcome.class != Class::Success)
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        let mut rest = bytes;
        while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
            let (head, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            let end = tail.first().copied();
            rest = tail.get(1..).unwrap_or(&[]);
            // A line ends with CR, LF or both.
            let second_half = end == Some(b'\n') && head.is_empty() && self.after_return;
            self.after_return = end == Some(b'\r');
            if second_half {
                continue;
            }
            self.keep(head);
            self.end_line();
        }
        if !rest.is_empty() {
            self.after_return = false;
            self.keep(rest);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        let room = KEPT.saturating_sub(self.line.len());
        match part.get(..room) {
            Some(fitting) if fitting.len() < part.len() => {
                self.line.extend_from_slice(fitting);
                self.line_cut = true;
            }
            Some(_) | None => self.line.extend_from_slice(part),
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.end_event();
        } else if line.first() != Some(&b':') {
            let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
            let (field, value) = line.split_at_checked(colon).unwrap_or((&line, &[]));
            let value = value.strip_prefix(b":").unwrap_or(value);
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match field {
                b"event" => self.name = Some(String::from_utf8_lossy(value).into_owned()),
                b"data" => {
                    self.has_data = true;
                    let room = KEPT.saturating_sub(self.data.len());
                    self.data.extend_from_slice(value.get(..room).unwrap_or(value));
                }
                _ => {}
            }
        }
        // The buffer is used again.
        self.line = line;
        self.line.clear();
    }

    fn end_event(&mut self) {
        let name = self.name.take();
        let data = std::mem::take(&mut self.data);
        let cut = std::mem::take(&mut self.line_cut);
        if !std::mem::take(&mut self.has_data) && name.is_none() {
            return;
        }
        self.events = self.events.saturating_add(1);
        // An event that did not fit is no error report and no greeting.
        let plain = self.content && name.as_deref() != Some("error") && !may_report(&data);
        match if cut || plain { Seen::Content } else { look(name.as_deref(), &data) } {
            Seen::Handshake => {}
            Seen::Content => self.content = true,
            Seen::Error(status) => self.error = self.error.take().or(Some((status, data.clone()))),
        }
        self.data = data;
        self.data.clear();
    }
}

/// Whether an event's data has a word of an error report. Most events of a stream have none, and no JSON is read for
/// those once there was content.
fn may_report(data: &[u8]) -> bool {
    memchr::memmem::find(data, b"error").is_some()
        || memchr::memmem::find(data, b"base_resp").is_some()
        || memchr::memmem::find(data, b"response.failed").is_some()
}

/// What one event is. The shapes are those of Anthropic's messages, OpenAI's chat completions and responses,
/// OpenRouter and MiniMax; they do not contradict each other.
fn look(name: Option<&str>, data: &[u8]) -> Seen {
    let value = match name {
        Some("ping") => return Seen::Handshake,
        _ => match json::read(data) {
            Some(value) => value,
            None if name == Some("error") => return Seen::Error(StatusCode::INTERNAL_SERVER_ERROR),
            None => return Seen::Content,
        },
    };
    let kind = value.get("type").and_then(Value::as_str).or(name).unwrap_or("");
    let error = value.get("error").filter(|error| !error.is_null());
    let failed_response = value.pointer("/response/error").filter(|error| !error.is_null());
    let refused = value.pointer("/base_resp/status_code").and_then(Value::as_i64).is_some_and(|code| code != 0);
    if kind == "error" || kind == "response.failed" || error.is_some() || failed_response.is_some() || refused {
        let error = error.or(failed_response).unwrap_or(&value);
        return Seen::Error(if refused { StatusCode::OK } else { stands_for(error) });
    }
    match kind {
        "ping" | "message_start" | "response.created" | "response.in_progress" | "response.queued" => Seen::Handshake,
        "content_block_start" if empty_block(&value) => Seen::Handshake,
        _ if only_a_role(&value) => Seen::Handshake,
        _ => Seen::Content,
    }
}

fn empty_block(value: &Value) -> bool {
    let block = value.get("content_block");
    let text = |name: &str| block.and_then(|block| block.get(name)).and_then(Value::as_str);
    match text("type") {
        Some("text") => text("text") == Some(""),
        Some("thinking") => text("thinking") == Some(""),
        _ => false,
    }
}

/// A chunk of a chat completion that says who speaks, and nothing else.
fn only_a_role(value: &Value) -> bool {
    let Some(choices) = value.get("choices").and_then(Value::as_array) else { return false };
    let silent = |choice: &Value| {
        let delta = choice.get("delta").and_then(Value::as_object);
        let finished = choice.get("finish_reason").is_some_and(|reason| !reason.is_null());
        let empty = |value: &Value| value.is_null() || value.as_str() == Some("");
        !finished && delta.is_some_and(|delta| delta.iter().all(|(name, value)| name == "role" || empty(value)))
    };
    !choices.is_empty() && choices.iter().all(silent)
}

/// The status that an error inside a stream stands for.
fn stands_for(error: &Value) -> StatusCode {
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let status = error.get("code").and_then(number).or_else(|| error.get("status").and_then(number));
    let status = status.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    if let Some(status) = status.and_then(|code| StatusCode::from_u16(code).ok()) {
        return status;
    }
    let word = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("");
    let by_word = |word: &str| match word {
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" | "slow_down" => Some(429),
        "overloaded_error" => Some(529),
        "server_is_overloaded" => Some(503),
        "authentication_error" | "invalid_api_key" => Some(401),
        "permission_error" => Some(403),
        "billing_error" => Some(402),
        "not_found_error" => Some(404),
        "request_too_large" => Some(413),
        "invalid_request_error" | "invalid_prompt" => Some(400),
        _ => None,
    };
    let found = by_word(word("code")).or_else(|| by_word(word("type"))).unwrap_or(500);
    StatusCode::from_u16(found).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Class, Rulebook};
    use super::*;
    use crate::id::ProviderId;

    const NOW: WallTime = WallTime(1_777_593_600_000);

    fn peek(provider: &str, text: &str) -> Peek {
        let rules = Rulebook::embedded().of(&ProviderId::parse(provider).unwrap());
        Scanner::default().peek(text.as_bytes(), &rules, &HeaderMap::new(), NOW)
    }

    const GREETING: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n\
                            event: ping\ndata: {\"type\": \"ping\"}\n\n";
    const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

    #[test]
    fn errors_before_content_are_failures_of_their_class() {
        let cases = [
            ("anthropic", format!("{GREETING}{OVERLOADED}"), Class::Overloaded),
            ("anthropic", OVERLOADED.replace("overloaded_error", "rate_limit_error"), Class::RateLimit),
            ("anthropic", OVERLOADED.replace("overloaded_error", "api_error"), Class::Transient),
            ("anthropic", OVERLOADED.replace("overloaded_error", "invalid_request_error"), Class::RequestFault),
            ("anthropic", "event: error\ndata: not json\n\n".to_owned(), Class::Transient),
            (
                "openai",
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n\
                 event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\
                 \"rate_limit_exceeded\",\"message\":\"Please try again in 20s.\"}}}\n\n"
                    .to_owned(),
                Class::RateLimit,
            ),
            (
                "openai",
                "data: {\"type\":\"error\",\"error\":{\"code\":\"insufficient_quota\",\"message\":\"x\"}}\n\n"
                    .to_owned(),
                Class::Billing,
            ),
            (
                "openrouter",
                ": OPENROUTER PROCESSING\n\ndata: {\"error\":{\"code\":402,\"message\":\"Insufficient credits\"},\
                 \"choices\":[{\"finish_reason\":\"error\"}]}\n\n"
                    .to_owned(),
                Class::Billing,
            ),
            (
                "minimax",
                "data: {\"base_resp\":{\"status_code\":1002,\"status_msg\":\"rate limit\"}}\n\n".to_owned(),
                Class::RateLimit,
            ),
        ];
        for (provider, text, class) in cases {
            match peek(provider, &text) {
                Peek::Failed(outcome) => assert_eq!(outcome.class, class, "{text}"),
                other => panic!("{other:?}: {text}"),
            }
        }
    }

    #[test]
    fn greetings_wait_and_content_goes_on() {
        let role =
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
        let word = role.replace("\"content\":\"\"", "\"content\":\"Hi\"");
        let block = "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
        let tool = block.replace("\"text\",\"text\":\"\"", "\"tool_use\",\"id\":\"x\"");
        for text in [GREETING, role, block, ": keep-alive\n\n", "\n\n\n", "data: {\"half\":"] {
            assert_eq!(peek("anthropic", text), Peek::Waiting, "{text}");
        }
        let events = GREETING.repeat(8);
        let long = format!(": {}", "x".repeat(70_000));
        for text in [&word, &tool, "data: [DONE]\n\n", &events, &long, "data: {\"choices\":[]}\n\n"] {
            assert_eq!(peek("anthropic", text), Peek::Content, "{text}");
        }
        // What came first counts.
        assert_eq!(peek("anthropic", &format!("{word}{OVERLOADED}")), Peek::Content);
    }

    #[test]
    fn an_error_after_content_is_seen_and_words_about_errors_are_not() {
        let rules = Rulebook::embedded().of(&ProviderId::parse("anthropic").unwrap());
        let mut scanner = Scanner::default();
        let talk = "data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"an \\\"error\\\": {}\"}}\n\n";
        let fields = HeaderMap::new();
        assert_eq!(scanner.watch(talk.as_bytes(), &rules, &fields, NOW), None);
        let outcome = scanner.watch(OVERLOADED.as_bytes(), &rules, &fields, NOW);
        assert_eq!(outcome.map(|outcome| outcome.class), Some(Class::Overloaded));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn cuts_and_line_ends_do_not_matter(cuts in proptest::collection::vec(0usize..400, 0..12), ends in 0..3usize) {
            let text = format!("{GREETING}{OVERLOADED}").replace('\n', ["\n", "\r\n", "\r"][ends]);
            let rules = Rulebook::embedded().of(&ProviderId::parse("anthropic").unwrap());
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut scanner = Scanner::default();
            let mut last = Peek::Waiting;
            for pair in cuts.windows(2) {
                last = scanner.peek(&text.as_bytes()[pair[0]..pair[1]], &rules, &HeaderMap::new(), NOW);
                if last != Peek::Waiting {
                    break;
                }
            }
            prop_assert!(matches!(last, Peek::Failed(_)), "{last:?}");
        }

        #[test]
        fn is_total_and_bounded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let rules = Rulebook::embedded().of(&ProviderId::parse("openai").unwrap());
            let mut scanner = Scanner::default();
            for chunk in &chunks {
                scanner.watch(chunk, &rules, &HeaderMap::new(), NOW);
                prop_assert!(scanner.line.len() <= KEPT && scanner.data.len() <= KEPT);
            }
        }
    }

    #[test]
    fn keeps_no_more_than_the_beginning_of_an_endless_line() {
        let rules = Rulebook::embedded().of(&ProviderId::parse("openai").unwrap());
        let mut scanner = Scanner::default();
        for _ in 0..1000 {
            scanner.watch(&[b'x'; 4096], &rules, &HeaderMap::new(), NOW);
        }
        assert!(scanner.line.capacity() <= 4 * KEPT);
    }
}
