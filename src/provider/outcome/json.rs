//! Pointers into a JSON text, with a star for every member of a list.
//!
//! Invariant: total; a text that is not JSON has nothing at any pointer.

use serde_json::Value;

/// A pointer of RFC 6901 in which a segment `*` stands for every member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/error/details/*/reason`. `None` where it does not begin with a slash.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        Some(Self(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// Every value that it points to.
    pub(super) fn values<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for segment in &self.0 {
            found = found.into_iter().flat_map(|value| step(value, segment)).collect();
        }
        found
    }
}

fn step<'a>(value: &'a Value, segment: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(members) if segment == "*" => members.values().collect(),
        Value::Object(members) => members.get(segment).into_iter().collect(),
        Value::Array(items) if segment == "*" => items.iter().collect(),
        Value::Array(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)).into_iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// Reads a body as JSON. A list of one error (Gemini's streams answer so) counts as that error.
pub(super) fn read(body: &[u8]) -> Option<Value> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(items) if items.len() == 1 => items.into_iter().next(),
        value => Some(value),
    }
}

/// A scalar as text, so that `"60"` and `60` are one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_star_stands_for_every_member() {
        let root = json!({"a": [{"b": 1}, {"b": 2}, {"c": 3}]});
        let found = Pointer::parse("/a/*/b").unwrap();
        assert_eq!(found.values(&root), [&json!(1), &json!(2)]);
        assert!(Pointer::parse("/a/9/b").unwrap().values(&root).is_empty());
        assert!(Pointer::parse("a").is_none());
    }
}
