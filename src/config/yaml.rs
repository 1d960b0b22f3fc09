//! Reads YAML into a tree whose every key and value knows its line and column.
//!
//! Why not straight into structs: a deserializer stops at the first fault, and a person wants to see all of them.
//!
//! Invariant: anchors, aliases, merge keys and tags are refused, so a small file cannot become a large tree; depth is
//! bounded by the parser, size by the caller.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Options, Parser, ScalarStyle};

use super::fault::{At, Report, shown};

/// No part of the grammar is deeper than nine.
const DEPTH: usize = 24;

/// A value of the file.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing written, or `null`.
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) value: Node,
}

/// Reads the one document of `text`; nothing, and a fault, when it is no YAML.
pub(super) fn read(text: &str, report: &mut Report) -> Option<Node> {
    let mut options = Options::default();
    options.flow_nesting_limit = DEPTH;
    options.block_nesting_limit = DEPTH;
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.set_emit_comments(false);
    let mut tree = Tree { frames: Vec::new(), root: None, documents: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => tree.take(event, place(&span.start), report),
            Err(error) => {
                let hint = if text.contains('\t') {
                    "indent with spaces, not with tabs"
                } else {
                    "look at the indentation, and at quotes and brackets, from here upwards"
                };
                report.fault(place(error.marker()), format!("not YAML: {}", error.info()), hint);
                return None;
            }
        }
    }
    Some(tree.root.unwrap_or(Node { at: At { line: 1, column: 1 }, kind: Kind::Null }))
}

struct Tree {
    frames: Vec<Frame>,
    root: Option<Node>,
    documents: usize,
}

enum Frame {
    List(At, Vec<Node>),
    Map { at: At, entries: Vec<Entry>, seen: HashMap<String, u32>, key: Key },
}

/// The state of a mapping between its events.
enum Key {
    /// The next node is a key.
    Expected,
    /// The next node is the value of this key.
    Read(String, At),
    /// The next node is the value of a key that was at fault.
    Refused,
}

impl Tree {
    fn take(&mut self, event: Event<'_>, at: At, report: &mut Report) {
        if event.anchor_id().is_some_and(|id| id > 0) {
            report.fault(at, "an anchor stands here", "write the value out in each place");
        }
        if event.tag().is_some() {
            report.fault(at, "a tag stands here", "leave out what begins with `!`");
        }
        match event {
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let hint = "write the value out; a text that begins with `*` stands in quotes: \"*.example.com\"";
                report.fault(at, "an alias stands here", hint);
                self.complete(Node { at, kind: Kind::Null }, report);
            }
            Event::Scalar(text, style, ..) => {
                let kind = if style == ScalarStyle::Plain && is_null(&text) {
                    Kind::Null
                } else {
                    Kind::Scalar(text.into_owned())
                };
                self.complete(Node { at, kind }, report);
            }
            Event::SequenceStart(..) => self.frames.push(Frame::List(at, Vec::new())),
            Event::MappingStart(..) => {
                self.frames.push(Frame::Map { at, entries: Vec::new(), seen: HashMap::new(), key: Key::Expected })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                None => {}
                Some(Frame::List(at, items)) => self.complete(Node { at, kind: Kind::List(items) }, report),
                Some(Frame::Map { at, entries, .. }) => self.complete(Node { at, kind: Kind::Map(entries) }, report),
            },
            Event::DocumentStart(..) => {
                self.documents = self.documents.saturating_add(1);
                if self.documents == 2 {
                    report.fault(at, "a second document begins here", "one file holds one document");
                }
            }
            _ => {}
        }
    }

    fn complete(&mut self, node: Node, report: &mut Report) {
        match self.frames.last_mut() {
            None => {
                if self.root.is_none() {
                    self.root = Some(node);
                }
            }
            Some(Frame::List(_, items)) => items.push(node),
            Some(Frame::Map { entries, seen, key, .. }) => match std::mem::replace(key, Key::Expected) {
                Key::Expected => *key = read_key(node, seen, report),
                Key::Read(key, at) => entries.push(Entry { key, at, value: node }),
                Key::Refused => {}
            },
        }
    }
}

fn read_key(node: Node, seen: &mut HashMap<String, u32>, report: &mut Report) -> Key {
    let at = node.at;
    let Kind::Scalar(key) = node.kind else {
        report.fault(at, "a key is plain text", "write `key: value`");
        return Key::Refused;
    };
    match seen.get(&key) {
        None => {
            seen.insert(key.clone(), at.line);
            Key::Read(key, at)
        }
        Some(line) => {
            report.fault(at, format!("the key {} stands twice; first in line {line}", shown(&key)), "keep one of them");
            Key::Refused
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn place(marker: &Marker) -> At {
    let line = u32::try_from(marker.line()).unwrap_or(u32::MAX);
    // The parser counts columns from 0, a person from 1.
    At { line, column: u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(u32, u32, String)> {
        let mut report = Report::new("k.yaml");
        read(text, &mut report);
        match report.finish() {
            Ok(_) => Vec::new(),
            Err(faults) => faults.0.into_iter().map(|f| (f.line, f.column, f.message)).collect(),
        }
    }

    #[test]
    fn every_value_knows_its_place() {
        let mut report = Report::new("k.yaml");
        let tree = read("a: 1\nb:\n  - x\n  - {c: d}\n", &mut report).unwrap();
        let Kind::Map(entries) = tree.kind else { panic!("a mapping") };
        let Kind::List(items) = &entries[1].value.kind else { panic!("a list") };
        let Kind::Map(inner) = &items[1].kind else { panic!("a mapping") };
        assert_eq!((inner[0].at, inner[0].value.at), (At { line: 4, column: 6 }, At { line: 4, column: 9 }));
    }

    #[test]
    fn refuses_what_could_grow_or_be_read_in_two_ways() {
        for (text, at, part) in [
            ("a: &x 1\n", (1, 7), "anchor"),
            ("a: *x\n", (1, 4), "alias"),
            ("host: *.example.com\n", (1, 7), "alias"),
            ("a: !!str 1\n", (1, 10), "tag"),
            ("a: !secret x\n", (1, 12), "tag"),
            ("a: 1\nb: 2\na: 3\n", (3, 1), "twice"),
            ("{a: 1}: 2\n", (1, 1), "key is plain text"),
            ("? [a]\n: 2\n", (1, 3), "key is plain text"),
            ("~: 2\n", (1, 1), "key is plain text"),
            ("a: 1\n---\nb: 2\n", (2, 1), "second document"),
        ] {
            let found = faults(text);
            assert!(
                found.iter().any(|(line, column, message)| (*line, *column) == at && message.contains(part)),
                "{text:?} {found:?}"
            );
        }
        for text in ["%YAML 1.2\n---\na: 1\n", "a: [1\n", "a: b: c\n", "a:\n\tb: 1\n", "\u{0}", "a: 'x\n", "a: ]\n"] {
            assert!(faults(text).iter().any(|(.., message)| message.starts_with("not YAML")), "{text:?}");
        }
    }

    #[test]
    fn bounds_the_depth() {
        for text in ["[".repeat(100), (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()] {
            assert_eq!(faults(&text).len(), 1, "{text:.20}");
        }
    }

    #[test]
    fn does_not_take_words_for_booleans() {
        let mut report = Report::new("k.yaml");
        let tree = read("a: no\nb: on\nc: \"null\"\nd: null\ne: 0755\n", &mut report).unwrap();
        let Kind::Map(entries) = tree.kind else { panic!("a mapping") };
        let texts: Vec<Option<&str>> = entries
            .iter()
            .map(|entry| match &entry.value.kind {
                Kind::Scalar(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, [Some("no"), Some("on"), Some("null"), None, Some("0755")]);
    }
}
