//! One JSON object on one line, with bounded strings.
//!
//! Invariant: what is written is one line of printable text whatever the values hold.

use std::fmt::{Display, Write as _};
use std::time::Duration;

/// Builds one line.
pub(super) struct Line {
    text: String,
}

impl Line {
    /// An object with nothing in it.
    pub(super) fn begin() -> Self {
        let mut text = String::with_capacity(768);
        text.push('{');
        Self { text }
    }

    /// How many bytes there are so far.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// A string of at most `limit` bytes as written; what is cut off is marked by `...`.
    pub(super) fn string(&mut self, name: &str, value: &str, limit: usize) -> &mut Self {
        self.name(name);
        self.quoted(value, limit);
        self
    }

    /// A string or null.
    pub(super) fn optional(&mut self, name: &str, value: Option<&str>, limit: usize) -> &mut Self {
        match value {
            Some(value) => self.string(name, value, limit),
            None => self.null(name),
        }
    }

    /// What is shown by `value`, which holds no character that needs an escape.
    pub(super) fn shown(&mut self, name: &str, value: Option<&dyn Display>) -> &mut Self {
        match value {
            Some(value) => {
                self.name(name);
                // Writing into a string cannot fail.
                let _ = write!(self.text, "\"{value}\"");
                self
            }
            None => self.null(name),
        }
    }

    /// A number or null.
    pub(super) fn number(&mut self, name: &str, value: Option<u64>) -> &mut Self {
        self.name(name);
        let _ = match value {
            Some(value) => write!(self.text, "{value}"),
            None => self.text.write_str("null"),
        };
        self
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.text.push_str(if value { "true" } else { "false" });
        self
    }

    /// Milliseconds with microseconds behind the point, or null.
    pub(super) fn millis(&mut self, name: &str, value: Option<Duration>) -> &mut Self {
        self.name(name);
        let _ = match value {
            Some(value) => {
                let micros = value.as_micros();
                write!(self.text, "{}.{:03}", micros / 1000, micros % 1000)
            }
            None => self.text.write_str("null"),
        };
        self
    }

    /// A list of objects, as many as fit into `limit` bytes.
    pub(super) fn list<T>(&mut self, name: &str, items: &[T], limit: usize, each: impl Fn(&mut Self, &T)) -> &mut Self {
        self.name(name);
        self.text.push('[');
        let end = self.text.len().saturating_add(limit);
        for item in items {
            let before = self.text.len();
            if self.text.ends_with('}') {
                self.text.push(',');
            }
            self.text.push('{');
            each(self, item);
            self.text.push('}');
            if self.text.len() > end {
                self.text.truncate(before);
                break;
            }
        }
        self.text.push(']');
        self
    }

    /// The finished line without its line feed.
    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }

    /// The line without its closing brace, for what is appended by hand.
    pub(super) fn open(self) -> String {
        self.text
    }

    fn null(&mut self, name: &str) -> &mut Self {
        self.name(name);
        self.text.push_str("null");
        self
    }

    fn name(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
    }

    fn quoted(&mut self, value: &str, limit: usize) {
        self.text.push('"');
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.len() <= limit && value.bytes().all(plain) {
            self.text.push_str(value);
            self.text.push('"');
            return;
        }
        let end = self.text.len().saturating_add(limit);
        for c in value.chars() {
            let before = self.text.len();
            escape(&mut self.text, c);
            if self.text.len() > end {
                self.text.truncate(before);
                self.text.push_str("...");
                break;
            }
        }
        self.text.push('"');
    }
}

/// RFC 8259 section 7, and beyond it everything that could move a terminal's cursor or turn its text around.
fn escape(text: &mut String, c: char) {
    match c {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        _ if c.is_control() || is_format(c) => {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
        _ => text.push(c),
    }
}

fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_one_line_and_reads_back() {
        // EX-21
        for text in
            ["a\n{\"fake\":1}", "\u{1b}]0;x\u{7}", "\u{9b}31m", "a\u{202e}b", "\"\\", "ä\u{2028}", "\u{0}\u{7f}"]
        {
            let mut line = Line::begin();
            line.string("a", text, 1000);
            let line = line.end();
            assert!(line.chars().all(|c| !c.is_control() && !is_format(c)), "{line:?}");
            let back: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(back["a"], text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut line = Line::begin();
        line.string("a", &"\u{1}ä".repeat(100_000), 99);
        let line = line.end();
        assert!(line.len() < 120, "{line}");
        let back: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(back["a"].as_str().unwrap().ends_with("..."));
    }

    #[test]
    fn a_long_list_is_cut_between_items() {
        let mut line = Line::begin();
        line.list("a", &[1u64; 50], 30, |line, n| {
            line.number("n", Some(*n));
        });
        let back: serde_json::Value = serde_json::from_str(&line.end()).unwrap();
        assert_eq!(back["a"].as_array().unwrap().len(), 3);
    }
}
