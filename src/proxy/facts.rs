//! What a request says about itself that matters for the choice of a profile: its conversation, its model, and
//! whether it names something that only one account has.
//!
//! Invariant: nothing here changes a request, and no text of it is kept beyond the model's name.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::id::AgentName;
use crate::pool::{Bound, Repeat, Session};

/// Fields in which clients name their conversation, the most telling first.
static SESSION_FIELDS: [HeaderName; 4] = [
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-session-affinity"),
];
static RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Paths whose last part is a thing of one account: a file, a batch, a thread, a stored response.
const BOUND_PATHS: [&str; 10] = [
    "/v1/files/",
    "/v1/batches/",
    "/v1/messages/batches/",
    "/v1/threads/",
    "/v1/responses/",
    "/v1/conversations/",
    "/v1/vector_stores/",
    "/v1/containers/",
    "/v1/videos/",
    "/v1/fine_tuning/jobs/",
];

/// The members of a JSON body that are looked at; all others are passed over.
#[derive(Debug, Default, Deserialize)]
struct Body {
    model: Option<String>,
    prompt_cache_key: Option<String>,
    previous_response_id: Option<String>,
    conversation: Option<Reference>,
    container: Option<Reference>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    user_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Reference {
    Id(String),
    Object {
        id: String,
    },
    /// A new one, or something unknown.
    Other(IgnoredAny),
}

impl Reference {
    fn id(&self) -> Option<&str> {
        match self {
            Self::Id(id) | Self::Object { id } => Some(id),
            Self::Other(_) => None,
        }
    }
}

/// Members deeper in a body that name a thing of one account, or hold what only that account can read.
fn named_inside(body: &[u8]) -> Option<&[u8]> {
    let names: [&[u8]; 5] =
        [b"\"file_id\"", b"\"input_file_id\"", b"\"container_id\"", b"\"encrypted_content\"", b"\"vector_store_ids\""];
    names.iter().find_map(|name| {
        let at = memchr::memmem::find(body, name)?.checked_add(name.len())?;
        let rest = body.get(at..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"[").unwrap_or(rest).trim_ascii_start().strip_prefix(b"\"")?;
        // So much of what is encrypted is enough to tell it from all else.
        let end = memchr::memchr(b'"', rest).unwrap_or(rest.len()).min(128);
        rest.get(..end).filter(|text| !text.is_empty())
    })
}

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// Its conversation.
    pub session: Session,
    /// Its model.
    pub model: Option<Arc<str>>,
    /// Whether it names a thing of one account.
    pub bound: Bound,
    /// Whether its client retries by itself and is at it already.
    pub retried: bool,
    /// Whether its client says that the account is part of its meaning.
    pub keyed: bool,
}

impl Facts {
    /// Reads them. `body` is what is held of it: the whole, or nothing.
    #[must_use]
    pub fn read(agent: &AgentName, path: &str, fields: &HeaderMap, body: &[u8]) -> Self {
        let text = Some(body).filter(|body| body.first() == Some(&b'{'));
        let body: Body =
            if text.is_some() { serde_json::from_slice(body).unwrap_or_default() } else { Body::default() };
        let field = |name: &HeaderName| fields.get(name).map(|value| value.as_bytes());
        let named = SESSION_FIELDS.iter().find_map(field);
        let in_body =
            [body.prompt_cache_key.as_deref(), body.metadata.as_ref().and_then(|data| data.user_id.as_deref())];
        let named = named.or_else(|| in_body.into_iter().flatten().map(str::as_bytes).next());
        let session = match named {
            Some(name) => Session::Conversation(key(agent, name)),
            None => Session::Agent(key(agent, b"")),
        };
        let reference = body.conversation.as_ref().and_then(Reference::id);
        let container = body.container.as_ref().and_then(Reference::id);
        let reference = body.previous_response_id.as_deref().or(reference).or(container).map(str::as_bytes);
        let reference = reference.or_else(|| text.and_then(named_inside));
        let in_path = BOUND_PATHS.iter().find_map(|start| path.strip_prefix(start));
        // What stands behind its name is a part of it, or something to do with it.
        let in_path = in_path.and_then(|rest| rest.split('/').next()).filter(|name| !name.is_empty());
        let bound = match reference.or(in_path.map(str::as_bytes)) {
            Some(thing) => Bound::To(key(agent, thing)),
            None => Bound::Free,
        };
        let retried = field(&RETRY_COUNT).is_some_and(|count| count != b"0");
        let keyed = fields.contains_key(&IDEMPOTENCY_KEY);
        Self { session, model: body.model.map(Arc::from), bound, retried, keyed }
    }
}

/// Whether a request may go out again: one that is idempotent also after its answer was lost (RFC 9110 section 9.2.2).
#[must_use]
pub fn repeat(method: &Method, held: bool) -> Repeat {
    if !held {
        Repeat::Never
    } else if method.is_idempotent() {
        Repeat::Always
    } else {
        Repeat::Refused
    }
}

/// Keys of one agent never meet those of another.
#[must_use]
pub fn key(agent: &AgentName, text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    agent.hash(&mut hasher);
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(path: &str, session: Option<&'static str>, body: &str) -> Facts {
        let mut fields = HeaderMap::new();
        if let Some(session) = session {
            fields.insert("x-session-id", HeaderValue::from_static(session));
        }
        Facts::read(&AgentName::parse("coder").unwrap(), path, &fields, body.as_bytes())
    }

    #[test]
    fn finds_model_conversation_and_account_bound_references() {
        let facts = read(
            "/v1/messages",
            None,
            r#"{"messages":[{"content":"x"}],"model":"claude-x","metadata":{"user_id":"u"}}"#,
        );
        assert_eq!(facts.model.as_deref(), Some("claude-x"));
        assert!(matches!(facts.session, Session::Conversation(_)));
        assert_eq!(facts.bound, Bound::Free);
        for body in [r#"{"previous_response_id":"r"}"#, r#"{"conversation":"c"}"#, r#"{"conversation":{"id":"c"}}"#] {
            assert!(matches!(read("/v1/responses", None, body).bound, Bound::To(_)), "{body}");
        }
        assert!(matches!(read("/v1/files/abc", None, "").bound, Bound::To(_)));
        assert_eq!(read("/v1/files/abc/content", None, "").bound, read("/v1/files/abc", None, "").bound);
        let named = r#"{"model":"m","input":[{"content":[{"type":"input_file","file_id" : "abc"}]}]}"#;
        assert_eq!(read("/v1/responses", None, named).bound, read("/v1/files/abc", None, "").bound);
        let sealed = r#"{"model":"m","input":[{"type":"reasoning","encrypted_content":"gAAAA"}]}"#;
        assert!(matches!(read("/v1/responses", None, sealed).bound, Bound::To(_)));
        let quoted = r#"{"model":"m","input":"say \"file_id\": \"abc\""}"#;
        assert_eq!(read("/v1/responses", None, quoted).bound, Bound::Free, "words of a text name nothing");
        assert_eq!(read("/v1/files", None, "").bound, Bound::Free);
    }

    #[test]
    fn a_body_that_is_no_object_says_nothing() {
        for body in ["", "[1]", "{", "{\"model\":7}", "\u{0}"] {
            let facts = read("/", None, body);
            assert_eq!((facts.model, facts.bound), (None, Bound::Free), "{body:?}");
        }
    }

    #[test]
    fn conversations_of_two_agents_never_meet() {
        let one = key(&AgentName::parse("a").unwrap(), b"s");
        let other = key(&AgentName::parse("b").unwrap(), b"s");
        assert_ne!(one, other);
    }
}
