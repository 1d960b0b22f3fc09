//! What the test provider answers, and to whom: rules of a test first, then what the real provider would do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::ca::{Leaf, Offer};
use super::play::Play;
use super::record::Seen;

/// One scripted answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A whole answer.
    Whole { status: u16, fields: Vec<(String, String)>, body: Bytes },
    /// A body in pieces; from the second on, each waits until the test opens the gate.
    Pieces { status: u16, fields: Vec<(String, String)>, pieces: Vec<Bytes>, gate: Option<Gate> },
    /// A body with trailer fields behind it.
    Trailed { body: Bytes, trailers: Vec<(String, String)> },
    /// A body in pieces that breaks off without its end.
    Broken { status: u16, fields: Vec<(String, String)>, pieces: Vec<Bytes> },
    /// The connection ends before a status line.
    Reset,
    /// The answer follows after a delay.
    After(Duration, Box<Answer>),
    /// The answer follows when the gate opens.
    When(Gate, Box<Answer>),
    /// What the provider would answer without a script.
    Usual,
}

impl Answer {
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Whole {
            status,
            fields: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(body.to_string()),
        }
    }

    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Whole { status, fields: vec![("content-type".to_owned(), "text/plain".to_owned())], body: body.into() }
    }

    /// Its status, where it has one of its own.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Whole { status, .. } | Self::Pieces { status, .. } | Self::Broken { status, .. } => Some(*status),
            Self::After(_, inner) | Self::When(_, inner) => inner.status(),
            Self::Trailed { .. } | Self::Reset | Self::Usual => None,
        }
    }

    /// The same answer with one field more.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Self::Whole { fields, .. } | Self::Pieces { fields, .. } | Self::Broken { fields, .. } => {
                fields.push((name.to_owned(), value.to_owned()));
            }
            Self::After(_, inner) | Self::When(_, inner) => {
                let changed = inner.as_ref().clone().with(name, value);
                **inner = changed;
            }
            Self::Reset | Self::Usual | Self::Trailed { .. } => panic!("this answer has no fields"),
        }
        self
    }

    /// Anthropic's rate limit, as its API words it.
    pub fn anthropic_rate_limited() -> Self {
        let body = serde_json::json!({
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "This request would exceed your organization's rate limit"},
            "request_id": "req_test"
        });
        Self::json(429, &body)
    }

    /// OpenAI's exhausted quota, as its API words it.
    pub fn openai_quota() -> Self {
        let body = serde_json::json!({"error": {
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "type": "insufficient_quota", "param": null, "code": "insufficient_quota"
        }});
        Self::json(429, &body)
    }
}

/// Something that waits in the provider until the test says so.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets one waiter through, now or later.
    pub fn open(&self) {
        self.0.add_permits(1);
    }

    pub async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

/// When a rule applies, for how often, and its answer.
#[derive(Debug, Clone)]
pub struct Rule {
    host: Option<String>,
    path: Option<String>,
    secret: Option<String>,
    left: Option<usize>,
    answer: Answer,
}

impl Rule {
    pub fn always(answer: Answer) -> Self {
        Self { host: None, path: None, secret: None, left: None, answer }
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// An exact path, without the query.
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    pub fn secret(mut self, secret: &str) -> Self {
        self.secret = Some(secret.to_owned());
        self
    }

    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    /// The answer, if the rule applies; counts the use.
    pub fn take(&mut self, seen: &Seen) -> Option<Answer> {
        let host = seen.host.split(':').next().unwrap_or_default();
        let fits = self.host.as_deref().is_none_or(|wanted| wanted == host)
            && self.path.as_deref().is_none_or(|wanted| wanted == seen.path())
            && self.secret.as_deref().is_none_or(|secret| seen.occurrences(secret) > 0)
            && self.left != Some(0);
        if !fits {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(self.answer.clone())
    }
}

/// What is wrong with a whole host.
#[derive(Debug, Clone)]
pub enum Defect {
    /// Serves a bad certificate.
    Certificate(Leaf),
    /// Offers other protocols than both.
    Offers(Offer),
    /// Answers the TLS hello with plain text.
    PlainText,
    /// Closes the connection on the TLS hello.
    Closes,
    /// Never answers the TLS hello.
    StallsInHandshake,
    /// Reads the request's head over TLS and never answers.
    StallsAfterHead,
    /// Reads the request's head over TLS, sends these bytes and closes, cleanly or not.
    Raw(Bytes),
    /// A server of the test's own.
    Plays(Play),
}
