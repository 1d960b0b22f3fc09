//! What an answer of an upstream means: whose fault it is, how far the blame reaches, and when it ends.
//!
//! The knowledge is data (`config/rules.yaml`): rules of one provider are tried in their order, the first that fits
//! decides. [`Rulebook`] holds all of them, [`Rules`] those of one provider, and [`Rules::judge`] is a pure function
//! from status, fields and the first part of the body to an [`Outcome`].
//!
//! Invariant: nothing here reads a clock or changes anything, and every function is total on arbitrary bytes.

mod book;
mod compile;
mod draft;
mod json;
mod reset;
mod rules;
#[cfg(test)]
mod samples;
mod stream;

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;

use crate::clock::WallTime;

pub use book::{RuleFault, Rulebook};
pub use draft::{DimensionsDraft, RuleDraft, RulesDraft, UntilDraft, Words};
pub use reset::Format;
pub use rules::{Answer, Need, PREFIX, Rules};
pub use stream::{Peek, Scanner, Seen};

/// What kind of answer it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Not a failure.
    Success,
    /// A short window is spent.
    RateLimit,
    /// A window of hours, days or a month is spent.
    Quota,
    /// Somebody has to pay first.
    Billing,
    /// The credential is said to be dead.
    AuthInvalid,
    /// The credential was refused, without a word of why.
    AuthSuspect,
    /// The credential has to be renewed.
    AuthExpired,
    /// The credential may not use this model or resource.
    AuthForbidden,
    /// The upstream has no capacity; not the credential's fault.
    Overloaded,
    /// The upstream failed; the same request may work a moment later.
    Transient,
    /// The upstream failed, and whether it acted on the request is not known.
    Ambiguous,
    /// The request is at fault.
    RequestFault,
    /// A refusal without evidence of what was spent.
    RequestSuspect,
    /// The request is larger than this credential's limit.
    TooLarge,
    /// Moderation or region.
    PolicyBlock,
    /// Nothing was sent: no connection.
    Unreached,
    /// It was sent, but no whole answer came.
    Broken,
}

impl Class {
    /// Every class that a rule can name.
    pub const NAMED: &'static [Self] = &[
        Self::Success,
        Self::RateLimit,
        Self::Quota,
        Self::Billing,
        Self::AuthInvalid,
        Self::AuthSuspect,
        Self::AuthExpired,
        Self::AuthForbidden,
        Self::Overloaded,
        Self::Transient,
        Self::Ambiguous,
        Self::RequestFault,
        Self::RequestSuspect,
        Self::TooLarge,
        Self::PolicyBlock,
    ];

    /// The word for logs, metrics and rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RateLimit => "rate-limit",
            Self::Quota => "quota",
            Self::Billing => "billing",
            Self::AuthInvalid => "auth-invalid",
            Self::AuthSuspect => "auth-suspect",
            Self::AuthExpired => "auth-expired",
            Self::AuthForbidden => "auth-forbidden",
            Self::Overloaded => "overloaded",
            Self::Transient => "transient",
            Self::Ambiguous => "ambiguous",
            Self::RequestFault => "request-fault",
            Self::RequestSuspect => "request-suspect",
            Self::TooLarge => "too-large",
            Self::PolicyBlock => "policy-block",
            Self::Unreached => "unreached",
            Self::Broken => "broken",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the blame reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Nobody.
    None,
    /// The credential.
    Profile,
    /// The credential, for one model.
    ProfileModel,
    /// The credential, for one endpoint.
    ProfileEndpoint,
    /// The credential, for the bucket that the answer names.
    ProfileBucket,
    /// The credential, for the resource that the answer names.
    ProfileResource,
    /// Every credential that shares the quota.
    Group,
    /// Every credential that shares the quota, for one model.
    GroupModel,
    /// The upstream.
    Upstream,
    /// The upstream, for one model.
    UpstreamModel,
}

impl Scope {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::Profile,
        Self::ProfileModel,
        Self::ProfileEndpoint,
        Self::ProfileBucket,
        Self::ProfileResource,
        Self::Group,
        Self::GroupModel,
        Self::Upstream,
        Self::UpstreamModel,
    ];

    /// The word for logs and rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Profile => "profile",
            Self::ProfileModel => "profile-model",
            Self::ProfileEndpoint => "profile-endpoint",
            Self::ProfileBucket => "profile-bucket",
            Self::ProfileResource => "profile-resource",
            Self::Group => "group",
            Self::GroupModel => "group-model",
            Self::Upstream => "upstream",
            Self::UpstreamModel => "upstream-model",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When a failure ends, as the upstream said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// The moment; later than the judging one by a second at least.
    pub at: WallTime,
    /// How it was said.
    pub said: Said,
}

/// How sure a stated end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// As a moment, in a field or a member of the body that is made for it.
    Moment,
    /// As a delay, in the same.
    Delay,
    /// In a sentence, or by a rule of the calendar.
    Loosely,
}

/// The meaning of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What kind.
    pub class: Class,
    /// How far it reaches.
    pub scope: Scope,
    /// When it ends, where that was said.
    pub reset: Option<Reset>,
    /// The status, where there was an answer.
    pub status: Option<StatusCode>,
    /// The rule that decided.
    pub rule: Arc<str>,
    /// The bucket or resource that the answer named.
    pub key: Option<Arc<str>>,
    /// What the answer said beside its meaning.
    pub signs: Signs,
}

/// What any answer may say about the credential that it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signs {
    /// The organisation whose quota was used.
    pub organization: Option<Arc<str>>,
    /// The window is nearly spent, until this moment: conversations that begin better go elsewhere.
    pub nearly_spent: Option<WallTime>,
}

impl Outcome {
    fn plain(class: Class, rule: &'static str) -> Self {
        Self {
            class,
            scope: Scope::None,
            reset: None,
            status: None,
            rule: Arc::from(rule),
            key: None,
            signs: Signs::default(),
        }
    }

    /// An answer that is not a failure.
    #[must_use]
    pub fn success() -> Self {
        Self::plain(Class::Success, "success")
    }

    /// No connection was made, so nothing was sent.
    #[must_use]
    pub fn unreached() -> Self {
        Self::plain(Class::Unreached, "unreached")
    }

    /// The request was sent, and the connection or the time ended before an answer.
    #[must_use]
    pub fn broken() -> Self {
        Self::plain(Class::Broken, "broken")
    }

    /// The word for logs and metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.class.as_str()
    }
}
