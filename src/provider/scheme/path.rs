//! A credential in the path: `/bot{secret}/getMe`.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use zeroize::Zeroizing;

use super::template::Piece;
use super::{Head, InjectError, Template, Values, remember};
use crate::secret::Secret;

/// The template of a path's beginning. What follows it is the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathCarrier {
    /// The beginning, without a slash at its end.
    pub template: Template,
}

/// A path whose credential slot, where it has one, is known.
#[derive(Clone, PartialEq, Eq)]
pub enum Slot {
    /// No slot.
    Plain(String),
    /// A path that begins with a template's form.
    Held {
        /// Which template.
        template: Template,
        /// What the client had in the first field.
        held: String,
        /// The whole path as it came.
        original: String,
        /// What follows the template: empty, or from a slash on.
        rest: String,
    },
}

impl Slot {
    /// Finds the slot of one of `templates` in `path`.
    pub fn find<'t>(path: &str, templates: impl IntoIterator<Item = &'t Template>) -> Self {
        templates
            .into_iter()
            .find_map(|template| {
                let (held, rest) = matched(template, path)?;
                Some(Self::Held {
                    template: template.clone(),
                    held: held.to_owned(),
                    original: path.to_owned(),
                    rest: rest.to_owned(),
                })
            })
            .unwrap_or_else(|| Self::Plain(path.to_owned()))
    }

    /// The path as it came, or as a credential was put into it.
    #[must_use]
    pub fn original(&self) -> &str {
        match self {
            Self::Plain(path) => path,
            Self::Held { original, .. } => original,
        }
    }

    /// The path as it may be shown: what stands in the slot is left out.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Plain(path) => path.clone(),
            Self::Held { template, rest, .. } => format!("{}{rest}", template.as_str()),
        }
    }
}

/// Shows what [`Slot::shown`] shows.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

impl PathCarrier {
    pub(super) fn read(&self, head: &Head) -> Option<String> {
        match &head.path {
            Slot::Held { template, held, .. } if *template == self.template => {
                Some(percent_decode_str(held).decode_utf8_lossy().into_owned())
            }
            _ => None,
        }
    }

    pub(super) fn put(
        &self,
        head: &mut Head,
        values: &Values<'_>,
        derived: &mut Vec<Arc<Secret>>,
    ) -> Result<(), InjectError> {
        let Slot::Held { template, rest, .. } = &head.path else {
            return Err(InjectError::NoSlot(self.template.as_str().to_owned()));
        };
        if *template != self.template {
            return Err(InjectError::NoSlot(self.template.as_str().to_owned()));
        }
        for name in self.template.fields() {
            let value = values.field(name)?;
            // A dot segment would be removed by the server, and the credential would take another part's place.
            if value.iter().any(u8::is_ascii_control) || matches!(value, b"." | b"..") {
                return Err(InjectError::Unusable("a path"));
            }
            let encoded = Zeroizing::new(percent_encode(value, SEGMENT).to_string());
            remember(derived, encoded.as_bytes(), value);
        }
        let filled = self.template.fill(values, |bytes, into| {
            percent_encode(bytes, SEGMENT).for_each(|part| into.extend_from_slice(part.as_bytes()));
        })?;
        let start = std::str::from_utf8(&filled).map_err(|_| InjectError::Unusable("a path"))?;
        head.path = Slot::Plain(format!("{start}{rest}"));
        Ok(())
    }
}

/// RFC 3986 section 3.3: what a segment may hold unescaped. Telegram's tokens have a colon that must stay one.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=');

/// What the first field holds in `path`, and what follows the template.
fn matched<'p>(template: &Template, path: &'p str) -> Option<(&'p str, &'p str)> {
    let mut rest = path;
    let mut held = None;
    let mut pieces = template.pieces().iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Literal(text) => rest = rest.strip_prefix(&**text)?,
            Piece::Field(_) => {
                let segment = rest.find('/').unwrap_or(rest.len());
                let end = match pieces.peek() {
                    Some(Piece::Literal(next)) if !next.starts_with('/') => {
                        rest.get(..segment)?.find(next.split('/').next().unwrap_or(next))?
                    }
                    _ => segment,
                };
                let (value, after) = rest.split_at_checked(end).filter(|(value, _)| !value.is_empty())?;
                held = held.or(Some(value));
                rest = after;
            }
        }
    }
    let whole_segment = rest.is_empty() || rest.starts_with('/');
    held.filter(|_| whole_segment).map(|held| (held, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_slot_and_nothing_that_only_looks_like_it() {
        let bot = Template::parse("/bot{secret}").unwrap();
        let file = Template::parse("/file/bot{secret}").unwrap();
        let hook = Template::parse("/api/webhooks/{id}/{secret}").unwrap();
        let templates = [bot, file, hook];
        for (path, shown) in [
            ("/bot123:abc/getMe", Some("/bot{secret}/getMe")),
            ("/bot123:abc", Some("/bot{secret}")),
            ("/file/bot123:abc/photos/a.jpg", Some("/file/bot{secret}/photos/a.jpg")),
            ("/api/webhooks/1/x", Some("/api/webhooks/{id}/{secret}")),
            ("/api/webhooks/1/x/messages", Some("/api/webhooks/{id}/{secret}/messages")),
            ("/bot/getMe", None),
            ("/Bot123/getMe", None),
            ("/%62ot123/getMe", None),
            ("/x/bot123/getMe", None),
            ("/api/webhooks/1", None),
        ] {
            let slot = Slot::find(path, &templates);
            assert_eq!(slot.shown(), shown.unwrap_or(path), "{path}");
            assert_eq!(matches!(slot, Slot::Held { .. }), shown.is_some(), "{path}");
            if shown.is_some() {
                assert!(!format!("{slot:?}").contains("abc"));
            }
        }
    }
}
