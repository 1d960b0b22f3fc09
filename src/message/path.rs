//! The path of a target in the one form that policy judges and the upstream receives.
//!
//! Invariant: a path that passed [`Path::parse`] means the same to every reader: no dot segments, no encoded
//! separators, no backslashes, no control characters.

use std::fmt;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// Would be read differently by another server.
    #[error("the path has a dot segment, an encoded separator, a backslash or a control character")]
    Ambiguous,
}

/// A path and query as they go upstream. The query is opaque.
#[derive(Clone, PartialEq, Eq)]
pub struct Path {
    text: Box<str>,
    path_len: usize,
}

impl Path {
    /// Reads the path and query of a request target, without judging its form: the policy does that.
    ///
    /// # Errors
    /// [`PathError::NotAbsolute`] when it has no leading slash.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let path_len = text.find('?').unwrap_or(text.len());
        Ok(Self { text: text.into(), path_len })
    }

    /// The path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(..self.path_len).unwrap_or("/")
    }

    /// The query without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_len.saturating_add(1)..).filter(|_| self.path_len < self.text.len())
    }

    /// Path and query as one text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether every reader takes the path for the same: asked for wherever a rule looks at paths.
    ///
    /// # Errors
    /// [`PathError::Ambiguous`] when not.
    pub fn canonical(&self) -> Result<&str, PathError> {
        let path = self.path();
        if path.bytes().any(|b| b == b'\\' || b == b';' || b <= b' ' || b == 0x7f) {
            return Err(PathError::Ambiguous);
        }
        let mut rest = path;
        while let Some(at) = rest.find('%') {
            let code = rest.get(at.saturating_add(1)..at.saturating_add(3)).unwrap_or("");
            let byte = u8::from_str_radix(code, 16).map_err(|_| PathError::Ambiguous)?;
            // Separators, dots, backslashes, percent itself (double encoding), controls and NUL must not be encoded.
            if code.len() != 2
                || code.starts_with('+')
                || matches!(byte, b'/' | b'\\' | b'.' | b'%' | b';' | 0..=0x1f | 0x7f)
            {
                return Err(PathError::Ambiguous);
            }
            rest = rest.get(at.saturating_add(3)..).unwrap_or("");
        }
        let mut segments = path.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            if segment == "." || segment == ".." || (segment.is_empty() && !last) {
                return Err(PathError::Ambiguous);
            }
        }
        Ok(path)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query may hold a secret.
        f.write_str(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_off_the_query() {
        let path = Path::parse("/v1/models?key=x").unwrap();
        assert_eq!((path.path(), path.query()), ("/v1/models", Some("key=x")));
        assert_eq!(Path::parse("/v1").unwrap().query(), None);
        assert_eq!(format!("{path:?}"), "/v1/models");
    }

    #[test]
    fn refuses_paths_that_two_servers_read_differently() {
        // RT-17
        for bad in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/..;/admin",
            "//v1",
            "/v1//x",
            "/v1%2fadmin",
            "/v1\\admin",
            "/%5cx",
            "/a%00",
            "/%252e",
            "/a/.",
            "/a/..",
            "/%zz",
            "/%2",
            "/a b",
            "/%+1",
        ] {
            assert_eq!(Path::parse(bad).unwrap().canonical(), Err(PathError::Ambiguous), "{bad}");
        }
        for good in ["/", "/v1/", "/repos/a.b/c%20d", "/bot123:abc/sendMessage", "/a/...b"] {
            assert!(Path::parse(good).unwrap().canonical().is_ok(), "{good}");
        }
    }
}
