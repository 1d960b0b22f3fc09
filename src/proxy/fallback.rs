//! Other providers that can take the same request when every profile of its own rests.
//!
//! Only host, path, credential and the model's name change. A request that says anything that the other provider could
//! not have made or would not understand is not taken there.
//!
//! Invariant: the agent may use the provider for exactly the request that would be sent; nothing is taken over whose
//! meaning depends on the account or on the provider that it was made for.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::message::glob::globbed;
use crate::message::path::Path;
use crate::policy::Permit;
use crate::provider::{self, Provider, Stripped, Wire};
use crate::proxy::carried::{Aim, Carried};
use crate::proxy::state::{Fallback, View};

/// Fields that mean something to one provider only, or that are about the body as it was.
const DROPPED: [&str; 9] = [
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "openai-organization",
    "openai-project",
    "openai-beta",
    "content-digest",
    "content-md5",
    "digest",
    "x-goog-user-project",
];

/// Names of members that show state of an account, or what another provider signed or encrypted. As text they are
/// looked for with their quotes, which inside of strings have a backslash in front.
const MARKS: [&[u8]; 8] = [
    b"\"thinking\"",
    b"\"redacted_thinking\"",
    b"\"encrypted_content\"",
    b"\"encrypted_index\"",
    b"\"file_id\"",
    b"\"container\"",
    b"\"container_id\"",
    b"\"item_reference\"",
];

/// One other provider, ready to be sent to.
pub struct Other {
    /// Which.
    pub provider: Arc<Provider>,
    /// The model's name there.
    pub model: Arc<str>,
    permit: Permit,
    stripped: Stripped,
    path: String,
    body: Spliced,
}

impl Other {
    /// What is sent there.
    pub fn aim(&self) -> Aim<'_> {
        Aim { permit: &self.permit, stripped: &self.stripped, path: &self.path, body: Some(&self.body) }
    }
}

/// A body with another text in the place of one member's value; made only when it is sent.
pub struct Spliced {
    body: Bytes,
    place: Range<usize>,
    text: String,
}

impl Spliced {
    /// The whole.
    #[must_use]
    pub fn join(&self) -> Bytes {
        let (before, after) = (self.body.get(..self.place.start), self.body.get(self.place.end..));
        [before.unwrap_or_default(), self.text.as_bytes(), after.unwrap_or_default()].concat().into()
    }
}

/// The members of a body that decide whether it can go elsewhere.
#[derive(Deserialize)]
struct Body<'b> {
    #[serde(borrow)]
    model: &'b RawValue,
    #[serde(default)]
    tools: Vec<Tool>,
    previous_response_id: Option<IgnoredAny>,
    conversation: Option<IgnoredAny>,
    container: Option<IgnoredAny>,
    mcp_servers: Option<IgnoredAny>,
    context_management: Option<IgnoredAny>,
    web_search_options: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// The providers that can take this request, in the order of the configuration. `held` is its whole body.
pub fn others(view: &View, carried: &Carried, own: &Provider, held: Option<&Bytes>) -> Vec<Other> {
    let fallbacks = view.fallbacks.get(&own.id).map_or(&[][..], Vec::as_slice);
    let Some(held) = held.filter(|_| !fallbacks.is_empty()) else { return Vec::new() };
    let Some(wire) = spoken(own, carried) else { return Vec::new() };
    let Some((model, place)) = portable(held) else { return Vec::new() };
    let one = |fallback: &Fallback| other(view, carried, wire, fallback, held, &model, place.clone());
    fallbacks.iter().filter_map(one).collect()
}

/// The protocol that the request is in, where it is one that others speak.
fn spoken(own: &Provider, carried: &Carried) -> Option<Wire> {
    let fields = carried.stripped.fields();
    let json = fields.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"application/json"));
    let plain = json && !fields.contains_key(CONTENT_ENCODING) && carried.socket.is_none();
    let wire = own.speaks.iter().find(|(_, path)| **path == carried.path).map(|(wire, _)| *wire);
    wire.filter(|_| plain && *carried.stripped.method() == Method::POST)
}

fn other(
    view: &View,
    carried: &Carried,
    wire: Wire,
    fallback: &Fallback,
    held: &Bytes,
    model: &str,
    place: Range<usize>,
) -> Option<Other> {
    let (_, there) = fallback.models.iter().find(|(pattern, _)| globbed(pattern, model))?;
    let provider = view.catalogue.provider(&fallback.provider)?;
    let path = provider.speaks.get(&wire)?.clone();
    let canonical = Path::parse(&path).ok()?;
    let agent = carried.agent.name();
    let origin = view.own_origin(provider, agent)?;
    let permit = view.policy.decide_provider(agent, &provider.id, origin, &Method::POST, &canonical).ok()?;
    // Nobody asked for this provider, so a mode that only notes denials does not open it.
    if permit.would_deny() {
        return None;
    }
    let stripped = strip(carried.stripped.fields(), wire, &path, &permit, provider)?;
    let text = serde_json::to_string(there).ok()?;
    let body = Spliced { body: held.clone(), place, text };
    let (provider, model) = (Arc::clone(provider), Arc::from(there.as_str()));
    Some(Other { provider, model, permit, stripped, path, body })
}

fn strip(fields: &HeaderMap, wire: Wire, path: &str, permit: &Permit, provider: &Provider) -> Option<Stripped> {
    let mut request = Request::builder().method(Method::POST).uri(path).body(()).ok()?;
    *request.headers_mut() = fields.clone();
    let fields = request.headers_mut();
    DROPPED.iter().for_each(|name| drop(fields.remove(*name)));
    fields.remove(CONTENT_LENGTH);
    // Where a provider takes its key in several ways, it is the one that clients of this protocol use.
    match wire {
        Wire::Messages => fields.insert(HeaderName::from_static("x-api-key"), HeaderValue::from_static("-")),
        Wire::Chat => fields.insert(AUTHORIZATION, HeaderValue::from_static("Bearer -")),
    };
    provider::strip(request.into_parts().0, permit, Some(provider)).ok()
}

/// The model that a body names and where its name stands, where the body can go to another provider.
fn portable(held: &Bytes) -> Option<(String, Range<usize>)> {
    let body: Body<'_> = serde_json::from_slice(held).ok()?;
    let free = body.previous_response_id.is_none()
        && body.conversation.is_none()
        && body.container.is_none()
        && body.mcp_servers.is_none()
        && body.context_management.is_none()
        && body.web_search_options.is_none();
    // Other kinds of tools run at the provider that names them.
    let common = |tool: &Tool| tool.kind.as_deref().is_none_or(|kind| matches!(kind, "custom" | "function"));
    if !free || !body.tools.iter().all(common) || is_marked(held) {
        return None;
    }
    let text = body.model.get();
    let start = (text.as_ptr() as usize).checked_sub(held.as_ptr() as usize)?;
    let place = start..start.checked_add(text.len())?;
    let model = serde_json::from_str(text).ok().filter(|_| held.get(place.clone()) == Some(text.as_bytes()))?;
    Some((model, place))
}

/// Whether anything in it was signed, encrypted or stored by the provider that it was made for.
fn is_marked(held: &Bytes) -> bool {
    if !MARKS.iter().any(|mark| memchr::memmem::find(held, mark).is_some()) {
        return false;
    }
    // What a tool was given or has brought may hold the same words.
    serde_json::from_slice::<Value>(held).map_or(true, |value| holds_mark(&value))
}

fn holds_mark(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_mark),
        Value::Object(members) => {
            let kind = members.get("type").and_then(Value::as_str);
            if matches!(kind, Some("thinking" | "redacted_thinking" | "item_reference")) {
                return true;
            }
            let named = ["encrypted_content", "encrypted_index", "file_id", "container_id"];
            if named.iter().any(|name| members.contains_key(*name)) {
                return true;
            }
            let own = |name: &str| {
                name == "input" && kind == Some("tool_use") || name == "input_schema" || name == "parameters"
            };
            members.iter().any(|(name, value)| !own(name) && holds_mark(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(body: &str) -> Option<String> {
        portable(&Bytes::copy_from_slice(body.as_bytes())).map(|(model, _)| model)
    }

    #[test]
    fn only_the_name_of_the_model_changes() {
        let body =
            r#"{"max_tokens": 9, "messages": [{"content":"the \"model\": \"x\""}],  "model" : "claude-a", "n": 1.0}"#;
        let held = Bytes::copy_from_slice(body.as_bytes());
        let (model, place) = portable(&held).unwrap();
        assert_eq!(model, "claude-a");
        let spliced = Spliced { body: held, place, text: "\"vendor/claude-b\"".to_owned() };
        assert_eq!(spliced.join(), body.replace("claude-a", "vendor/claude-b"));
    }

    #[test]
    fn a_body_that_belongs_to_its_provider_stays_there() {
        let plain = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"text","text":"\"thinking\" {\"file_id\":1}"}]}]}"#;
        assert_eq!(model(plain).as_deref(), Some("m"));
        let tool = r#"{"model":"m","messages":[{"content":[{"type":"tool_use","input":{"file_id":"x","type":"thinking"}}]}],
            "tools":[{"name":"t","input_schema":{"properties":{"file_id":{"type":"string"}}}},{"type":"function","function":{}}]}"#;
        assert_eq!(model(tool).as_deref(), Some("m"));
        for bound in [
            r#"{"model":"m","messages":[{"content":[{"type":"thinking","thinking":"x","signature":"y"}]}]}"#,
            r#"{"model":"m","messages":[{"content":[{"type":"redacted_thinking","data":"x"}]}]}"#,
            r#"{"model":"m","messages":[{"content":[{"type":"document","source":{"type":"file","file_id":"f"}}]}]}"#,
            r#"{"model":"m","input":[{"type":"reasoning","encrypted_content":"x"}]}"#,
            r#"{"model":"m","container":"c"}"#,
            r#"{"model":"m","previous_response_id":"r"}"#,
            r#"{"model":"m","tools":[{"type":"web_search_20250305","name":"web_search"}]}"#,
            r#"{"model":"m","mcp_servers":[]}"#,
            r#"{"model":"m","model":"n"}"#,
            r#"{"model":7}"#,
            r#"{"messages":[]}"#,
            "[]",
            "",
            "{",
        ] {
            assert_eq!(model(bound), None, "{bound}");
        }
    }
}
