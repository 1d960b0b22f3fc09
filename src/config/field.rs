//! Reading one value after the other: what is wrong is reported, what is right is handed on, and reading goes on.
//!
//! Invariant: `None` from a reader means that a fault was reported.

use super::fault::{At, Report, shown, suggestion};
use super::words::Word;
use super::yaml::{Entry, Kind, Node};

/// A value with the path of its keys, for messages.
#[derive(Clone)]
pub(super) struct Field<'n> {
    pub(super) path: String,
    /// Where the key stands; for what has no key, the value.
    pub(super) key_at: At,
    node: &'n Node,
}

/// A mapping with known keys.
pub(super) struct Section<'n> {
    pub(super) path: String,
    pub(super) at: At,
    entries: &'n [Entry],
}

impl<'n> Field<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self { path: String::new(), key_at: node.at, node }
    }

    /// Whether an empty text was written, as `""`.
    pub(super) fn is_empty_text(&self) -> bool {
        matches!(&self.node.kind, Kind::Scalar(text) if text.is_empty())
    }

    pub(super) fn at(&self) -> At {
        self.node.at
    }

    /// The text of a plain value, whatever it is.
    pub(super) fn plain(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    /// Nothing written, or a list or mapping with nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match &self.node.kind {
            Kind::Null => true,
            Kind::Scalar(_) => false,
            Kind::List(items) => items.is_empty(),
            Kind::Map(entries) => entries.is_empty(),
        }
    }

    fn child(&self, entry: &'n Entry) -> Self {
        Self { path: join(&self.path, &entry.key), key_at: entry.at, node: &entry.value }
    }
}

impl<'n> Section<'n> {
    /// The value of `key`, if the key is there.
    pub(super) fn get(&self, key: &str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Some(Field { path, key_at: entry.at, node: &entry.value })
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }
}

impl Report {
    /// A mapping with none but `keys`. Nothing written is an empty one.
    pub(super) fn section<'n>(&mut self, field: &Field<'n>, keys: &[&str]) -> Option<Section<'n>> {
        let entries = self.mapping(field)?;
        for entry in entries {
            if !keys.contains(&entry.key.as_str()) {
                self.fault(
                    entry.at,
                    format!("{} is not a key of {}", shown(&entry.key), place_of(&field.path)),
                    suggestion(&entry.key, keys.iter().copied()),
                );
            }
        }
        Some(Section { path: field.path.clone(), at: field.at(), entries })
    }

    /// A mapping whose keys are the user's own names.
    pub(super) fn named<'n>(&mut self, field: &Field<'n>) -> Vec<(&'n str, Field<'n>)> {
        let entries = self.mapping(field).unwrap_or_default();
        entries.iter().map(|entry| (entry.key.as_str(), field.child(entry))).collect()
    }

    /// The elements of a list. Nothing written is an empty one.
    pub(super) fn items<'n>(&mut self, field: &Field<'n>) -> Vec<Field<'n>> {
        match &field.node.kind {
            Kind::Null => Vec::new(),
            Kind::List(items) => {
                let item = |(index, node): (usize, &'n Node)| Field {
                    path: format!("{}[{index}]", field.path),
                    key_at: node.at,
                    node,
                };
                items.iter().enumerate().map(item).collect()
            }
            Kind::Scalar(_) => {
                let hint = "put it in brackets: [one, two]";
                self.fault(field.at(), format!("`{}` is a list", field.path), hint);
                Vec::new()
            }
            Kind::Map(_) => {
                self.fault(
                    field.at(),
                    format!("`{}` is a list, not a mapping", field.path),
                    "begin each element with `- `",
                );
                Vec::new()
            }
        }
    }

    /// Every element of a list that `read` accepts.
    pub(super) fn each<'n, T>(
        &mut self,
        field: &Field<'n>,
        mut read: impl FnMut(&mut Self, &Field<'n>) -> Option<T>,
    ) -> Vec<T> {
        self.items(field).iter().filter_map(|item| read(self, item)).collect()
    }

    /// One plain value.
    pub(super) fn text<'n>(&mut self, field: &Field<'n>) -> Option<&'n str> {
        let (wrong, hint) = match &field.node.kind {
            Kind::Scalar(text) if text.is_empty() => ("is empty", "give it a value, or leave the key out"),
            Kind::Scalar(text) if text.chars().any(char::is_control) => {
                ("has a line break or a control character in it", "write it in one line")
            }
            Kind::Scalar(text) => return Some(text),
            Kind::Null => ("has no value", "give it a value, or leave the key out"),
            Kind::List(_) => ("is one value, not a list", "leave out the brackets"),
            Kind::Map(_) => ("is one value, not a mapping", "write `key: value`"),
        };
        self.fault(field.at(), format!("`{}` {wrong}", field.path), hint);
        None
    }

    /// One plain value that `read` makes something of; `expected` completes "is not ...".
    pub(super) fn parse<T>(
        &mut self,
        field: &Field<'_>,
        expected: &str,
        hint: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(field)?;
        let value = read(text);
        if value.is_none() {
            let message = format!("`{}`: {} is not {expected}", field.path, shown(text));
            self.fault(field.at(), message, hint);
        }
        value
    }

    /// One plain value whose reader says itself what is wrong: a fragment that follows the text, and a hint.
    pub(super) fn convert<T>(
        &mut self,
        field: &Field<'_>,
        read: impl FnOnce(&str) -> Result<T, (String, String)>,
    ) -> Option<T> {
        let text = self.text(field)?;
        match read(text) {
            Ok(value) => Some(value),
            Err((wrong, hint)) => {
                self.fault(field.at(), format!("`{}`: {} {wrong}", field.path, shown(text)), hint);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<W: Word>(&mut self, field: &Field<'_>) -> Option<W> {
        let text = self.text(field)?;
        let value = W::read(text);
        if value.is_none() {
            let message = format!("`{}`: {} is not one of its words", field.path, shown(text));
            self.fault(field.at(), message, suggestion(text, W::WORDS.iter().map(|(word, _)| *word)));
        }
        value
    }

    fn mapping<'n>(&mut self, field: &Field<'n>) -> Option<&'n [Entry]> {
        match &field.node.kind {
            Kind::Null => Some(&[]),
            Kind::Map(entries) => Some(entries),
            Kind::Scalar(_) | Kind::List(_) => {
                let hint = "write `key: value`, one in a line";
                self.fault(field.at(), format!("{} is a mapping", place_of(&field.path)), hint);
                None
            }
        }
    }
}

fn place_of(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

/// Names that are no plain words stand in messages as `?`; they have a fault of their own.
fn join(path: &str, key: &str) -> String {
    let key = if shown(key).starts_with('`') { key } else { "?" };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
