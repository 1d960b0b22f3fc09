//! Every answer that Keyferry makes itself.
//!
//! Invariant: outward go a code, constant words, and names that the agent already knows; detail goes to the record.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, PROXY_AUTHENTICATE, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use serde_json::json;

use crate::code::Code;
use crate::id::RequestId;
use crate::proxy::delivery::Delivery;

/// What is said to the agent in place of an upstream's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Which of our codes.
    pub code: Code,
    /// One sentence; names only what the agent sent or holds.
    pub message: String,
    /// What can be done, where something can.
    pub hint: Option<String>,
    /// When to come again.
    pub retry_after: Option<Duration>,
    /// The provider's own word for the class, where its family is known.
    pub word: Option<&'static str>,
}

impl Answer {
    /// An answer with the code's own explanation.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self { code, message: code.explanation().to_owned(), hint: None, retry_after: None, word: None }
    }

    /// An answer with a sentence of its own.
    #[must_use]
    pub fn saying(code: Code, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::of(code) }
    }

    /// Adds what can be done.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds when to come again.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// Adds the provider's own word.
    #[must_use]
    pub fn word(mut self, word: Option<&'static str>) -> Self {
        self.word = word;
        self
    }

    /// The response, for a proxy request (407 has no body) or, on the base-URL listener, with 401 in its place.
    #[must_use]
    pub fn response(&self, id: RequestId, manner: Manner) -> Response<Delivery> {
        let (status, fields, body) = self.parts(id, manner);
        let mut response = Response::new(if body.is_empty() { Delivery::empty() } else { Delivery::own(body) });
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        response
    }

    /// Its status, fields and body.
    #[must_use]
    pub fn parts(&self, id: RequestId, manner: Manner) -> (StatusCode, HeaderMap, Bytes) {
        let unauthenticated = self.code == Code::AgentUnauthenticated;
        let status = match manner {
            // A client that calls us as an origin server does not understand 407.
            Manner::Origin if unauthenticated => StatusCode::UNAUTHORIZED,
            Manner::Origin | Manner::Proxy => self.code.status(),
        };
        let mut fields = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                fields.insert(name, value);
            }
        };
        put(HeaderName::from_static("proxy-status"), &format!("keyferry; error={}", self.code.proxy_status()));
        put(HeaderName::from_static("x-keyferry-error"), self.code.as_str());
        put(HeaderName::from_static("x-keyferry-request-id"), &id.to_string());
        // Rounded up: coming a moment early would only be told the same again.
        let wait = self.retry_after.map(|wait| wait.as_millis().div_ceil(1000).max(1));
        if let Some(seconds) = wait {
            put(RETRY_AFTER, &seconds.to_string());
        }
        // SDKs sleep as long as they are told to, up to hours: beyond a minute they should stop instead.
        if !self.code.retry_can_help() || wait.is_some_and(|seconds| seconds > 60) {
            put(HeaderName::from_static("x-should-retry"), "false");
        }
        if unauthenticated && manner == Manner::Proxy {
            put(PROXY_AUTHENTICATE, "Basic realm=\"keyferry\"");
            put(CONTENT_LENGTH, "0");
            return (status, fields, Bytes::new());
        }
        let mut error = json!({
            "type": self.word.unwrap_or("keyferry_error"),
            "code": self.code.as_str(),
            "message": self.message,
        });
        if let (Some(hint), Some(object)) = (&self.hint, error.as_object_mut()) {
            object.insert("hint".to_owned(), json!(hint));
        }
        let body = json!({"type": "error", "error": error, "request_id": id.to_string()}).to_string();
        put(CONTENT_TYPE, "application/json");
        put(CONTENT_LENGTH, &body.len().to_string());
        (status, fields, Bytes::from(body))
    }
}

/// How the client took us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As a proxy.
    Proxy,
    /// As the origin server: inside a tunnel, or by base URL.
    Origin,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(response: &'a Response<Delivery>, name: &str) -> Option<&'a str> {
        response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    #[test]
    fn a_407_has_no_body_and_keeps_the_connection() {
        let response = Answer::of(Code::AgentUnauthenticated).response(RequestId::new(1), Manner::Proxy);
        assert_eq!(response.status(), 407);
        assert_eq!(field(&response, "content-length"), Some("0"));
        assert_eq!(field(&response, "connection"), None);
        assert_eq!(field(&response, "proxy-authenticate"), Some("Basic realm=\"keyferry\""));
        assert_eq!(Answer::of(Code::AgentUnauthenticated).response(RequestId::new(1), Manner::Origin).status(), 401);
    }

    #[test]
    fn a_long_wait_tells_sdks_to_stop() {
        let soon = Answer::of(Code::ProfilesCooling).after(Some(Duration::from_millis(2_001)));
        let response = soon.response(RequestId::new(1), Manner::Origin);
        assert_eq!((field(&response, "retry-after"), field(&response, "x-should-retry")), (Some("3"), None));
        let late = Answer::of(Code::ProfilesCooling).after(Some(Duration::from_secs(61)));
        let response = late.response(RequestId::new(1), Manner::Origin);
        assert_eq!((field(&response, "retry-after"), field(&response, "x-should-retry")), (Some("61"), Some("false")));
    }
}
