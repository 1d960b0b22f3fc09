//! Patterns over paths, and the one reading of a path that they are compared with.
//!
//! Invariant: a path is compared only after it was found to mean the same to every server; escapes are compared by
//! what they stand for, so `%41` and `A`, or `%c3` and `%C3`, cannot be told apart by a rule.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::message::path::{Path, PathError};

/// Why a path pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// No leading slash.
    #[error("does not begin with a slash")]
    NotAbsolute,
    /// A `*` beside other characters.
    #[error("has a wildcard inside a segment")]
    Wildcard,
    /// Asks for a query or fragment.
    #[error("has a query or a fragment")]
    Query,
    /// Would never match, since such paths are refused.
    #[error("has a dot segment, an empty segment, an encoded separator, a backslash or a control character")]
    Ambiguous,
}

impl PathPatternError {
    /// What to write instead.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::NotAbsolute => "write it from the root: /v1/models",
            Self::Wildcard => "`*` is one whole segment and `**` any number of segments: /repos/*/issues/**",
            Self::Query => "rules judge the path alone; leave out everything from the question mark",
            Self::Ambiguous => "write the path in the plain form that a server sees",
        }
    }
}

/// A pattern over whole segments: `*` is one, `**` any number, also none. Case-sensitive.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    One,
    Many,
}

impl PathPattern {
    /// Reads `/repos/acme/*/issues/**`.
    ///
    /// # Errors
    /// [`PathPatternError`] where it could not match what it seems to say.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        if !text.starts_with('/') {
            return Err(PathPatternError::NotAbsolute);
        }
        if text.contains(['?', '#']) {
            return Err(PathPatternError::Query);
        }
        // With its wildcards replaced by an ordinary segment it must itself be a path that is not refused.
        let plain =
            text.split('/').map(|part| if is_wildcard(part) { "x" } else { part }).collect::<Vec<_>>().join("/");
        let ambiguous = |_| PathPatternError::Ambiguous;
        let plain = Path::parse(&plain).map_err(ambiguous)?;
        JudgedPath::read(&plain).map_err(ambiguous)?;
        let parts = text.split('/').skip(1).map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), parts })
    }

    /// Whether the whole path matches.
    #[must_use]
    pub fn matches(&self, path: &JudgedPath) -> bool {
        // Only the last `**` need ever give way: whatever an earlier one took, a later one can take up. So this is
        // linear in segments times parts, however many `**` there are.
        let (parts, segments) = (&self.parts, &path.segments);
        let (mut at_part, mut at_segment) = (0_usize, 0_usize);
        let mut retry: Option<(usize, usize)> = None;
        while let Some(segment) = segments.get(at_segment) {
            match parts.get(at_part) {
                Some(Part::Many) => {
                    retry = Some((at_part, at_segment));
                    at_part = at_part.saturating_add(1);
                }
                Some(part) if part.takes(segment) => {
                    at_part = at_part.saturating_add(1);
                    at_segment = at_segment.saturating_add(1);
                }
                _ => match retry {
                    None => return false,
                    Some((many, from)) => {
                        let next = from.saturating_add(1);
                        retry = Some((many, next));
                        (at_part, at_segment) = (many.saturating_add(1), next);
                    }
                },
            }
        }
        parts.iter().skip(at_part).all(|part| *part == Part::Many)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, PathPatternError> {
        match text {
            "*" => Ok(Self::One),
            "**" => Ok(Self::Many),
            _ if text.contains('*') => Err(PathPatternError::Wildcard),
            _ => Ok(Self::Literal(decode(text))),
        }
    }

    fn takes(&self, segment: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal.as_ref() == segment,
            // The empty segment behind a trailing slash is not one: `/x/*` does not match `/x/`.
            Self::One => !segment.is_empty(),
            Self::Many => false,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A path whose form leaves no doubt, cut into decoded segments.
pub struct JudgedPath {
    segments: Vec<Box<[u8]>>,
}

impl JudgedPath {
    /// Reads a path for comparison with patterns.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] where two servers might read it differently: what [`Path::canonical`] refuses, and
    /// beyond that escapes of unreserved characters and of `?`, bytes that are no UTF-8 (overlong forms), and
    /// segments that end in a dot or a space, which some file systems drop.
    pub fn read(path: &Path) -> Result<Self, PathError> {
        let text = path.canonical()?;
        if has_needless_escape(text) {
            return Err(PathError::Ambiguous);
        }
        let mut segments = Vec::new();
        for segment in text.split('/').skip(1) {
            let decoded = decode(segment);
            let plain = std::str::from_utf8(&decoded).map_err(|_| PathError::Ambiguous)?;
            if plain.ends_with(['.', ' ']) || plain.chars().any(char::is_control) {
                return Err(PathError::Ambiguous);
            }
            segments.push(decoded);
        }
        Ok(Self { segments })
    }
}

/// RFC 3986 section 6.2.2.2: an escaped unreserved character is the same as the character, so it is written plainly.
fn has_needless_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| {
        let byte = rest.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        byte.is_none_or(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'?'))
    })
}

fn decode(segment: &str) -> Box<[u8]> {
    percent_decode_str(segment).collect()
}

fn is_wildcard(part: &str) -> bool {
    part == "*" || part == "**"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let path = JudgedPath::read(&Path::parse(path).unwrap()).unwrap_or_else(|e| panic!("{path}: {e}"));
        PathPattern::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).matches(&path)
    }

    #[test]
    fn matches_whole_segments() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/x", "/x", true),
            ("/x", "/x/", false),
            ("/x/", "/x", false),
            ("/x", "/X", false),
            ("/x", "/xy", false),
            ("/x", "/x/y", false),
            ("/x", "/x?y=1", true),
            ("/*", "/x", true),
            ("/*", "/", false),
            ("/*", "/x/y", false),
            ("/x/*", "/x/", false),
            ("/x/*/z", "/x/y/z", true),
            ("/x/*/z", "/x/z", false),
            ("/**", "/", true),
            ("/**", "/x/y/z", true),
            ("/x/**", "/x", true),
            ("/x/**", "/x/", true),
            ("/x/**", "/x/y/z/", true),
            ("/x/**", "/xy", false),
            ("/x/**/z", "/x/z", true),
            ("/x/**/z", "/x/z/y/z", true),
            ("/x/**/z", "/x/z/y", false),
            ("/**/a/**/b", "/a/c/a/b/b", true),
            ("/**/a/**/b", "/b/a", false),
            ("/**/**", "/", true),
            ("/repos/acme/*/issues/**", "/repos/acme/api/issues/12/comments", true),
            ("/repos/acme/*/issues/**", "/repos/acme/api/issues", true),
            ("/repos/acme/*/issues/**", "/repos/acme/api/pulls", false),
            ("/repos/acme/*/issues/**", "/repos/acme/issues", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn compares_escapes_by_what_they_stand_for() {
        // RT-17
        assert!(matches("/a%20b", "/a%20b"));
        assert!(matches("/%c3%a4", "/%C3%A4"));
        assert!(matches("/a!b", "/a%21b"));
        assert!(matches("/%2A", "/*"), "an escaped star is a star, not a wildcard");
        assert!(!matches("/%2A", "/x"));
    }

    #[test]
    fn refuses_to_judge_what_two_servers_read_differently() {
        // RT-17
        let long = format!("/v1/{}/..", "a/".repeat(32_768));
        for bad in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/..;/admin",
            "//v1",
            "/v1%2fadmin",
            "/v1\\admin",
            "/v1%5cadmin",
            "/v1%00",
            "/%c0%af",
            "/%ff",
            "/%252e",
            "/v1;x=1",
            "/admin.",
            "/admin%20",
            "/admin./x",
            "/%61dmin",
            "/%7Eroot",
            "/admin%3f",
            "/%c2%85",
            long.as_str(),
        ] {
            assert!(JudgedPath::read(&Path::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_path_and_many_wildcards_take_linear_time() {
        let path = format!("/{}", "a/".repeat(32_768));
        let path = JudgedPath::read(&Path::parse(&path).unwrap()).unwrap();
        let pattern = PathPattern::parse(&format!("{}/b", "/**/a".repeat(16))).unwrap();
        assert!(!pattern.matches(&path));
    }

    #[test]
    fn refuses_patterns_that_cannot_mean_what_they_say() {
        for (text, error) in [
            ("", PathPatternError::NotAbsolute),
            ("x", PathPatternError::NotAbsolute),
            ("*", PathPatternError::NotAbsolute),
            ("/x*", PathPatternError::Wildcard),
            ("/***", PathPatternError::Wildcard),
            ("/a/b*c/d", PathPatternError::Wildcard),
            ("/x?y", PathPatternError::Query),
            ("/x#y", PathPatternError::Query),
            ("/a//b", PathPatternError::Ambiguous),
            ("/a/../b", PathPatternError::Ambiguous),
            ("/a%2fb", PathPatternError::Ambiguous),
            ("/%61", PathPatternError::Ambiguous),
            ("/a b", PathPatternError::Ambiguous),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
    }
}
