//! Text with named holes: `Bearer {secret}`, `{user}/token`, `/bot{secret}`.
//!
//! Invariant: what fills a hole comes from one credential's value; a template never looks at a request.

use std::fmt;

use zeroize::Zeroizing;

use super::InjectError;
use super::values::Values;

/// Why the text of a template was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("has a brace that is not closed")]
    Brace,
    /// Between braces stands no name.
    #[error("has a field whose name is not made of a-z, 0-9 and _")]
    Name,
    /// Two holes side by side could not be told apart when reading.
    #[error("has two fields with nothing between them")]
    Adjacent,
    /// A control character, which no field of a message can hold.
    #[error("has a control character")]
    Control,
}

/// Literal text and named fields of a credential's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Box<str>),
    Field(Box<str>),
}

impl Template {
    /// Reads `literal {field} literal`.
    ///
    /// # Errors
    /// [`TemplateError`] on malformed braces and names, and on control characters.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        // EX-17: a template is the other way by which a line break could come into a field.
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Control);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            if literal.contains('}') {
                return Err(TemplateError::Brace);
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            } else if matches!(pieces.last(), Some(Piece::Field(_))) {
                return Err(TemplateError::Adjacent);
            }
            let (name, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if name.is_empty() || !name.bytes().all(plain) {
                return Err(TemplateError::Name);
            }
            pieces.push(Piece::Field(name.into()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Brace);
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.into()));
        }
        Ok(Self { text: text.into(), pieces: pieces.into() })
    }

    /// The names of its fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(name) => Some(&**name),
            Piece::Literal(_) => None,
        })
    }

    /// The literal text in front of the first field.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }

    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What the first field holds in `text`, where `text` has this form. The prefix compares without case, because
    /// it is mostly an authentication scheme (RFC 9110 section 11.1).
    pub(super) fn read<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (head, rest) = text.split_at_checked(self.prefix().len())?;
        if !head.eq_ignore_ascii_case(self.prefix()) {
            return None;
        }
        let after = self.pieces.iter().skip_while(|piece| matches!(piece, Piece::Literal(_))).nth(1);
        let held = match after {
            Some(Piece::Literal(literal)) => rest.split_once(&**literal)?.0,
            _ => rest,
        };
        (!held.is_empty()).then_some(held)
    }

    /// The text with every field filled, each passed through `escape`.
    pub(super) fn fill(
        &self,
        values: &Values<'_>,
        escape: impl Fn(&[u8], &mut Vec<u8>),
    ) -> Result<Zeroizing<Vec<u8>>, InjectError> {
        let mut length = 0usize;
        for piece in &self.pieces {
            length = length.saturating_add(match piece {
                Piece::Literal(text) => text.len(),
                // Escapes make a byte three at most; no growth means no copy left behind in freed memory.
                Piece::Field(name) => values.field(name)?.len().saturating_mul(3),
            });
        }
        let mut filled = Zeroizing::new(Vec::with_capacity(length));
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => filled.extend_from_slice(text.as_bytes()),
                Piece::Field(name) => escape(values.field(name)?, &mut filled),
            }
        }
        Ok(filled)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_fields_and_refuses_what_is_malformed() {
        let template = Template::parse("Token token={secret}, user={user}").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["secret", "user"]);
        assert_eq!(template.read("token TOKEN=abc, user=x"), Some("abc"));
        assert_eq!(template.read("Bearer abc"), None);
        for (text, error) in [
            ("{secret", TemplateError::Brace),
            ("secret}", TemplateError::Brace),
            ("}{secret}", TemplateError::Brace),
            ("{}", TemplateError::Name),
            ("{Secret}", TemplateError::Name),
            ("{a b}", TemplateError::Name),
            ("{a}{b}", TemplateError::Adjacent),
            ("Bearer {secret}\r\nX: y", TemplateError::Control),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text:?}");
        }
    }
}
