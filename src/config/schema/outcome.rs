//! The schema of rules for answers.
//!
//! Invariant: as the whole schema's.

use serde_json::{Value, json};

use super::{list, map_of, nonempty, object, switch};
use crate::provider::outcome::{Class, Format, Scope};

pub(super) fn rule() -> Value {
    let status = json!({ "type": "integer", "minimum": 100, "maximum": 599 });
    let text = json!({ "type": "string", "minLength": 1 });
    let value = json!({ "type": ["string", "number", "boolean"] });
    let class = json!({ "enum": Class::NAMED.iter().map(|class| class.as_str()).collect::<Vec<_>>() });
    let scope = json!({ "enum": Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>() });
    object(
        "providers.*.rules",
        vec![
            ("name", text.clone()),
            ("on", json!({ "anyOf": [status.clone(), nonempty(status)] })),
            ("field", map_of(&json!({}), text.clone())),
            ("says", map_of(&json!({ "pattern": "^/" }), json!({ "anyOf": [value.clone(), nonempty(value)] }))),
            ("text", text),
            ("means", class),
            ("of", scope),
            ("until", ends()),
            ("latest", switch()),
        ],
        &["means"],
    )
}

pub(super) fn by_status() -> Value {
    let join = |words: Vec<&str>| words.join("|");
    let classes = join(Class::NAMED.iter().map(|class| class.as_str()).collect());
    let scopes = join(Scope::ALL.iter().map(|scope| scope.as_str()).collect());
    let word = json!({ "type": "string", "pattern": format!("^({classes})(@({scopes}))?$") });
    map_of(&json!({ "pattern": "^[1-5][0-9][0-9]$" }), word)
}

pub(super) fn ends() -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let forms: Vec<&str> = Format::NAMED.iter().map(|(name, _)| *name).collect();
    let end = object(
        "providers.*.until",
        vec![
            ("field", text()),
            ("body", json!({ "type": "string", "pattern": "^/" })),
            ("text", text()),
            ("spent", text()),
            ("rejected", text()),
            ("midnight", json!({ "type": "integer", "minimum": 0, "maximum": 23 })),
            ("windows", list(text())),
            ("as", json!({ "enum": forms })),
        ],
        &[],
    );
    json!({ "anyOf": [end.clone(), list(end)] })
}
