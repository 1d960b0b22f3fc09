//! What an answer of an upstream means.

use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not a failure of the credential.
    Success,
    /// A short window is spent.
    RateLimit,
    /// A window of hours, days or a month is spent.
    Quota,
    /// Somebody has to pay first.
    Billing,
    /// The credential was refused.
    AuthInvalid,
    /// A refusal without evidence of what was spent.
    RequestSuspect,
    /// A failure that is not the credential's: the request's, or the upstream's.
    NotOurs,
}

impl Class {
    /// The word for logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RateLimit => "rate-limit",
            Self::Quota => "quota",
            Self::Billing => "billing",
            Self::AuthInvalid => "auth-invalid",
            Self::RequestSuspect => "request-suspect",
            Self::NotOurs => "not-ours",
        }
    }
}

/// The meaning of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// What kind.
    pub class: Class,
    /// When it ends, as the upstream said.
    pub reset: Option<Duration>,
}

/// Judges an answer by its status, fields and the first part of its body.
#[must_use]
pub fn judge(head: &http::response::Parts, body: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(body);
    let reset = head
        .headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .map(Duration::from_secs);
    let has = |word: &str| text.contains(word);
    let class = match head.status {
        StatusCode::TOO_MANY_REQUESTS if has("insufficient_quota") => Class::Billing,
        StatusCode::TOO_MANY_REQUESTS if reset.is_some() || has("rate_limit") || has("RESOURCE_EXHAUSTED") => {
            Class::RateLimit
        }
        StatusCode::TOO_MANY_REQUESTS => Class::RequestSuspect,
        StatusCode::PAYMENT_REQUIRED => Class::Billing,
        StatusCode::BAD_REQUEST if has("credit balance is too low") => Class::Billing,
        StatusCode::UNAUTHORIZED => Class::AuthInvalid,
        status if status.is_client_error() || status.is_server_error() => Class::NotOurs,
        _ => Class::Success,
    };
    Outcome { class, reset }
}
