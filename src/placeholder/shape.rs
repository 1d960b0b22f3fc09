//! The forms that providers' keys have, as text says them.
//!
//! Invariant: a shape has a slot with room for a mark, so whatever is minted with it is recognised.

use std::fmt;

use super::{HALF, HEX, HEX_HALF, WORD};

/// Why the text of a shape was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A brace without its partner.
    #[error("a brace is not closed")]
    Brace,
    /// Between braces stands something else than `alphabet:count`.
    #[error("'{0}' is not one of {{alnum:N}}, {{word:N}}, {{lower:N}}, {{upper:N}}, {{hex:N}}, {{digit:N}}, {{uuid}}")]
    Slot(String),
    /// No part is long enough to recognise the result by.
    #[error("no part of it has room for a mark of 24 characters")]
    NoRoom,
}

/// The form of a provider's keys, written as `sk-ant-api03-{word:93}AA`: literal text and slots of random characters.
///
/// Alphabets: `alnum` (letters of both cases and digits), `word` (those, `_` and `-`), `lower`, `upper` (letters of
/// one case and digits), `hex` (lower case), `digit`; and `{uuid}` for a version 4 UUID.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape {
    pub(super) text: Box<str>,
    pub(super) pieces: Box<[Piece]>,
    pub(super) marked: usize,
}

impl Shape {
    /// Reads a shape.
    ///
    /// # Errors
    /// [`ShapeError`] when it is malformed, or when no slot has room for the mark that makes it recognisable.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            push_literal(&mut pieces, literal)?;
            let (slot, after) = after.split_once('}').ok_or(ShapeError::Brace)?;
            pieces.push(Piece::slot(slot)?);
            rest = after;
        }
        push_literal(&mut pieces, rest)?;
        let marked = pieces.iter().position(Piece::has_room).ok_or(ShapeError::NoRoom)?;
        Ok(Self { text: text.into(), pieces: pieces.into(), marked })
    }

    /// The shape for a provider whose keys have none: `kf-keyferry-...`.
    #[must_use]
    pub fn generic() -> Self {
        let pieces = [Piece::Literal("kf-".into()), Piece::Slot { alphabet: Alphabet::Word, count: GENERIC_LENGTH }];
        Self { text: "kf-{word:40}".into(), pieces: pieces.into(), marked: 1 }
    }

    /// Whether the mark has no word in it that could be searched for.
    #[must_use]
    pub fn is_hexadecimal(&self) -> bool {
        matches!(self.pieces.get(self.marked), Some(Piece::Uuid | Piece::Slot { alphabet: Alphabet::Hex, .. }))
    }

    /// The literal text in front of the first slot.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const GENERIC_LENGTH: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    Alnum,
    Word,
    Lower,
    Upper,
    Hex,
    Digit,
}

impl Alphabet {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "alnum" => Self::Alnum,
            "word" => Self::Word,
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "hex" => Self::Hex,
            "digit" => Self::Digit,
            _ => return None,
        })
    }

    /// What fills the rest of a slot. The punctuation of `word` is left out: a text that ends in it is easily cut.
    pub(super) fn filler(self) -> &'static [u8] {
        match self {
            Self::Alnum | Self::Word => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            Self::Lower => b"abcdefghijklmnopqrstuvwxyz0123456789",
            Self::Upper => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
            Self::Hex => HEX,
            Self::Digit => b"0123456789",
        }
    }

    /// How many characters a mark takes.
    fn mark_length(self) -> Option<usize> {
        match self {
            Self::Word => Some(WORD.len() + 1 + 2 * HALF),
            Self::Alnum | Self::Lower | Self::Upper => Some(WORD.len() + 2 * HALF),
            Self::Hex => Some(2 * HEX_HALF),
            Self::Digit => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(Box<str>),
    Slot { alphabet: Alphabet, count: usize },
    Uuid,
}

impl Piece {
    fn slot(text: &str) -> Result<Self, ShapeError> {
        if text == "uuid" {
            return Ok(Self::Uuid);
        }
        let parsed = text.split_once(':').and_then(|(alphabet, count)| {
            // No provider's keys come near 1,024 characters.
            let count = count.parse().ok().filter(|count| (1..=1024).contains(count))?;
            Some(Self::Slot { alphabet: Alphabet::parse(alphabet)?, count })
        });
        parsed.ok_or_else(|| ShapeError::Slot(text.to_owned()))
    }

    fn has_room(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Slot { alphabet, count } => alphabet.mark_length().is_some_and(|length| *count >= length),
            Self::Uuid => true,
        }
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) -> Result<(), ShapeError> {
    if text.contains('}') {
        return Err(ShapeError::Brace);
    }
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_shapes_that_could_not_be_recognised() {
        for (text, error) in [
            ("sk-{alnum:20}", ShapeError::NoRoom),
            ("{digit:100}", ShapeError::NoRoom),
            ("plain", ShapeError::NoRoom),
            ("sk-{alnum:30", ShapeError::Brace),
            ("sk-}{alnum:30}", ShapeError::Brace),
            ("sk-{alnum:0}", ShapeError::Slot("alnum:0".to_owned())),
            ("sk-{latin:40}", ShapeError::Slot("latin:40".to_owned())),
            ("sk-{alnum}", ShapeError::Slot("alnum".to_owned())),
        ] {
            assert_eq!(Shape::parse(text), Err(error), "{text}");
        }
    }
}
