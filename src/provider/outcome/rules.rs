//! The rules of one provider, tried against an answer.
//!
//! Invariant: [`Rules::judge`] is pure and total.

use std::sync::{Arc, LazyLock, OnceLock};

use http::{HeaderMap, HeaderName, StatusCode};
use regex::Regex;
use serde_json::Value;

use super::json::{self, Pointer};
use super::reset::{self, Format, ResetSource};
use super::{Class, Outcome, Reset, Scope, Signs};
use crate::clock::WallTime;

/// How much of a decoded body is looked at: errors of all known providers fit, and a hostile one costs little.
pub const PREFIX: usize = 64 * 1024;

/// What is known of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: &'a HeaderMap,
    /// The first part of its body, without content coding; at most [`PREFIX`] bytes are looked at.
    pub body: &'a [u8],
}

/// How much of an answer has to be seen before it can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its head is enough.
    Head,
    /// The first [`PREFIX`] bytes of its body, before anything is passed on.
    Body,
    /// The body goes on at once; its first [`PREFIX`] bytes are judged afterwards, for later requests.
    Aside,
    /// It is an event stream: a [`Scanner`](super::Scanner) looks for the first event with content.
    Events,
}

/// The rules of one provider, ready to judge.
#[derive(Debug, Default)]
pub struct Rules {
    pub(super) inspect: Option<Need>,
    pub(super) events: bool,
    pub(super) transient: bool,
    pub(super) words: bool,
    pub(super) organization: Option<HeaderName>,
    pub(super) dimensions: Option<(String, Format)>,
    pub(super) key: Option<HeaderName>,
    pub(super) stream: Vec<Rule>,
    pub(super) rules: Vec<Rule>,
    pub(super) generic: Option<Arc<Rules>>,
}

impl Rules {
    /// How much of an answer with this head has to be seen.
    #[must_use]
    pub fn need(&self, status: StatusCode, fields: &HeaderMap) -> Need {
        if status.is_success() {
            let kind = fields.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
            if self.events && kind.starts_with("text/event-stream") {
                return Need::Events;
            }
            return match self.inspect {
                Some(need) if kind.starts_with("application/json") => need,
                Some(_) | None => Need::Head,
            };
        }
        if status.is_client_error() || status.is_server_error() { Need::Body } else { Need::Head }
    }

    /// What an answer means.
    #[must_use]
    pub fn judge(&self, answer: &Answer<'_>, now: WallTime) -> Outcome {
        let body = answer.body.get(..PREFIX).unwrap_or(answer.body);
        let seen = Sight::new(answer.status, answer.fields, body);
        let found = if answer.status.is_success() && self.inspect.is_none() { None } else { self.first(&seen, now) };
        let mut outcome = found.unwrap_or_else(|| self.unlisted(answer.status));
        outcome.status = Some(answer.status);
        outcome.signs = self.signs(answer.fields, now);
        outcome
    }

    /// What an event means that reports an error inside a stream. `status` is the one that it stands for, where it
    /// names one; `fields` are those of the answer that the stream belongs to.
    #[must_use]
    pub fn judge_event(&self, status: StatusCode, fields: &HeaderMap, data: &[u8], now: WallTime) -> Outcome {
        let data = data.get(..PREFIX).unwrap_or(data);
        let seen = Sight::new(status, fields, data);
        let own = self.stream.iter().find(|rule| rule.fits(&seen)).map(|rule| rule.outcome(self, &seen, now));
        let found = own.or_else(|| self.first(&seen, now));
        let mut outcome = found.unwrap_or_else(|| self.unlisted(status));
        outcome.status = Some(status);
        outcome.signs = self.signs(fields, now);
        outcome
    }

    /// How much of each kind of quota remains by these fields, where the provider says so.
    #[must_use]
    pub fn remaining(&self, fields: &HeaderMap) -> Vec<(&'static str, f64)> {
        self.dimensions.as_ref().map(|(prefix, _)| reset::remaining(prefix, fields)).unwrap_or_default()
    }

    fn first(&self, seen: &Sight<'_>, now: WallTime) -> Option<Outcome> {
        let own = self.rules.iter().find(|rule| rule.fits(seen)).map(|rule| rule.outcome(self, seen, now));
        own.or_else(|| {
            let generic = self.generic.as_ref()?;
            generic.rules.iter().find(|rule| rule.fits(seen)).map(|rule| rule.outcome(generic, seen, now))
        })
    }

    /// What no rule names: the request's fault, a failure of which nothing is known, or a success.
    fn unlisted(&self, status: StatusCode) -> Outcome {
        if status.is_client_error() {
            Outcome::plain(Class::RequestFault, "unlisted")
        } else if !status.is_server_error() {
            Outcome::success()
        } else if self.transient {
            Outcome { scope: Scope::Upstream, ..Outcome::plain(Class::Transient, "fault") }
        } else {
            Outcome::plain(Class::Ambiguous, "unlisted")
        }
    }

    fn signs(&self, fields: &HeaderMap, now: WallTime) -> Signs {
        let organization = self.organization.as_ref().and_then(|name| short(fields, name));
        let dimensions = self.dimensions.as_ref();
        let nearly_spent = dimensions.and_then(|(prefix, form)| reset::nearly_spent(prefix, *form, fields, now));
        Signs { organization, nearly_spent }
    }
}

/// A field's value as a name, where it is short enough to be one.
fn short(fields: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    fields.get(name)?.to_str().ok().filter(|text| !text.is_empty() && text.len() <= 128).map(Arc::from)
}

/// An answer with what was read out of it so far.
pub(super) struct Sight<'a> {
    status: StatusCode,
    pub(super) fields: &'a HeaderMap,
    body: &'a [u8],
    json: OnceLock<Option<Value>>,
    text: OnceLock<String>,
}

impl<'a> Sight<'a> {
    fn new(status: StatusCode, fields: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { status, fields, body, json: OnceLock::new(), text: OnceLock::new() }
    }

    pub(super) fn json(&self) -> Option<&Value> {
        self.json.get_or_init(|| json::read(self.body)).as_ref()
    }

    pub(super) fn text(&self) -> &str {
        self.text.get_or_init(|| String::from_utf8_lossy(self.body).into_owned())
    }
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) on: Vec<u16>,
    pub(super) fields: Vec<(HeaderName, Option<Regex>)>,
    pub(super) says: Vec<(Pointer, Vec<Word>)>,
    pub(super) text: Option<Regex>,
    pub(super) class: Class,
    pub(super) scope: Scope,
    pub(super) until: Vec<ResetSource>,
    pub(super) latest: bool,
}

/// One value that a rule accepts.
#[derive(Debug)]
pub(super) enum Word {
    Equal(String),
    Fits(Regex),
}

impl Word {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Equal(word) => word == text,
            Self::Fits(regex) => regex.is_match(text),
        }
    }
}

impl Rule {
    fn fits(&self, seen: &Sight<'_>) -> bool {
        (self.on.is_empty() || self.on.contains(&seen.status.as_u16()))
            && self.fields.iter().all(|(name, regex)| {
                seen.fields.get_all(name).iter().any(|value| match regex {
                    None => true,
                    Some(regex) => value.to_str().is_ok_and(|text| regex.is_match(text)),
                })
            })
            && self.says.iter().all(|(pointer, words)| {
                seen.json().is_some_and(|root| {
                    let mut found = pointer.values(root).into_iter().filter_map(json::text);
                    found.any(|text| words.iter().any(|word| word.fits(&text)))
                })
            })
            && self.text.as_ref().is_none_or(|regex| regex.is_match(seen.text()))
    }

    fn outcome(&self, rules: &Rules, seen: &Sight<'_>, now: WallTime) -> Outcome {
        let mut ends = self.until.iter().filter_map(|source| source.find(seen, now));
        let reset: Option<Reset> = if self.latest { ends.max_by_key(|end| end.at) } else { ends.next() };
        let plain = self.fields.is_empty() && self.says.is_empty() && self.text.is_none();
        // A 429 that names no end and does not even speak of a rate may be about the request alone.
        let bare = self.class == Class::RateLimit && plain && reset.is_none() && !(rules.words && speaks_of_rate(seen));
        let key = match self.scope {
            Scope::ProfileBucket | Scope::ProfileResource => {
                rules.key.as_ref().and_then(|name| short(seen.fields, name))
            }
            Scope::None | Scope::Profile | Scope::ProfileModel | Scope::ProfileEndpoint => None,
            Scope::Group | Scope::GroupModel | Scope::Upstream | Scope::UpstreamModel => None,
        };
        Outcome {
            class: if bare { Class::RequestSuspect } else { self.class },
            scope: if bare { Scope::None } else { self.scope },
            reset,
            status: None,
            rule: self.name.clone(),
            key,
            signs: Signs::default(),
        }
    }
}

fn speaks_of_rate(seen: &Sight<'_>) -> bool {
    static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?i)rate.?limit|too.?many|quota|throttl|resource.?exhausted|slow.?down|concurren").ok()
    });
    WORDS.as_ref().is_some_and(|regex| regex.is_match(seen.text()))
}
