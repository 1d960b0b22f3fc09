//! Patterns over hosts, as the catalogue, the configuration and a credential's binding write them, and a table that
//! finds the entries for a host without looking at the others.
//!
//! Invariant: a pattern is one exact host, or one whole label in front of an exact name. Embedded (`a*.x`), trailing
//! (`x.*`) and bare (`*`) wildcards have no representation, so nothing later can match them by accident.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::origin::{Host, Origin, OriginError, Scheme};

/// The port of a pattern that names none.
const DEFAULT_PORT: u16 = 443;

/// Why a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Not a host, with or without a port.
    #[error("is not a host or host:port")]
    Malformed,
    /// An address in an unusual spelling.
    #[error("is an address in a spelling that is not accepted")]
    DisguisedAddress,
    /// A wildcard anywhere but as the whole first label.
    #[error("has a wildcard in a place where none can stand")]
    Wildcard,
    /// `https://` in front, or a path behind.
    #[error("is a URL, not a host")]
    Url,
}

impl PatternError {
    /// What to write instead.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Malformed => "write a name such as api.example.com, or host:port",
            Self::DisguisedAddress => "write the address with four decimal numbers, or in brackets for IPv6",
            Self::Wildcard => {
                "a wildcard is one whole label in front of a name: *.example.com (the apex is not matched)"
            }
            Self::Url => "leave out the scheme and the path",
        }
    }
}

impl From<OriginError> for PatternError {
    fn from(error: OriginError) -> Self {
        match error {
            OriginError::Malformed => Self::Malformed,
            OriginError::DisguisedAddress => Self::DisguisedAddress,
        }
    }
}

/// One exact host, or one label in front of a name; and a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern {
    form: Form,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    Exact(Host),
    OneLabel(Arc<str>),
}

impl HostPattern {
    /// Reads `api.x.com`, `host:8443`, `*.x.com`, `*.x.com:8443`, or an address; the port is 443 unless written.
    ///
    /// # Errors
    /// [`PatternError`] for everything else.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::parse_with_port(text).map(|(pattern, _)| pattern)
    }

    /// As [`HostPattern::parse`], and says whether the port was written.
    ///
    /// # Errors
    /// [`PatternError`] as there.
    pub fn parse_with_port(text: &str) -> Result<(Self, PortWritten), PatternError> {
        if text.contains('/') {
            return Err(PatternError::Url);
        }
        let (name, one_label) = match text.strip_prefix("*.") {
            None => (text, false),
            Some(rest) => (rest, true),
        };
        if name.contains('*') {
            return Err(PatternError::Wildcard);
        }
        // The same reader as for targets, so that a pattern and a target cannot disagree on what a host is.
        let written = if has_port(name) { PortWritten::Yes } else { PortWritten::No };
        let origin = Origin::from_authority(Scheme::Https, name)?;
        let port = origin.port();
        if !one_label {
            return Ok((Self { form: Form::Exact(origin.host().clone()), port }, written));
        }
        match origin.host() {
            // A wildcard in front of an address means nothing.
            Host::Address(_) => Err(PatternError::Wildcard),
            Host::Name(suffix) => Ok((Self { form: Form::OneLabel(Arc::clone(suffix)), port }, written)),
        }
    }

    /// The pattern for exactly this host and port.
    #[must_use]
    pub fn exact(host: Host, port: u16) -> Self {
        Self { form: Form::Exact(host), port }
    }

    /// The same hosts on another port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Whether `origin` is one of the hosts, on the pattern's port.
    #[must_use]
    pub fn matches(&self, origin: &Origin) -> bool {
        self.port == origin.port() && self.matches_host(origin.host())
    }

    /// Whether `host` is one of the hosts, whatever the port.
    #[must_use]
    pub fn matches_host(&self, host: &Host) -> bool {
        match &self.form {
            Form::Exact(exact) => exact == host,
            Form::OneLabel(suffix) => parent(host) == Some(suffix),
        }
    }

    /// Whether every origin that `other` matches is matched by this pattern too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.port == other.port
            && match (&self.form, &other.form) {
                (_, Form::Exact(host)) => self.matches_host(host),
                (Form::OneLabel(mine), Form::OneLabel(theirs)) => mine == theirs,
                (Form::Exact(_), Form::OneLabel(_)) => false,
            }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The one host, where there is no wildcard.
    #[must_use]
    pub fn exact_host(&self) -> Option<&Host> {
        match &self.form {
            Form::Exact(host) => Some(host),
            Form::OneLabel(_) => None,
        }
    }

    /// The name behind the wildcard label, where there is one.
    #[must_use]
    pub fn suffix(&self) -> Option<&str> {
        match &self.form {
            Form::Exact(_) => None,
            Form::OneLabel(suffix) => Some(suffix),
        }
    }

    /// Whether it has a wildcard label.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.form, Form::OneLabel(_))
    }
}

/// The canonical spelling; the port is left out where it is 443.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.form {
            Form::Exact(host) => write!(f, "{host}")?,
            Form::OneLabel(suffix) => write!(f, "*.{suffix}")?,
        }
        if self.port == DEFAULT_PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a pattern's text named a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWritten {
    /// It did.
    Yes,
    /// The port is the default.
    No,
}

/// Values by host pattern. Looking up costs the same however many patterns there are; what is found comes in the
/// order in which it was put in.
#[derive(Clone, Debug)]
pub struct HostTable<T> {
    exact: HashMap<Host, Vec<Slot>>,
    one_label: HashMap<Arc<str>, Vec<Slot>>,
    values: Vec<T>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    at: usize,
    port: u16,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), one_label: HashMap::new(), values: Vec::new() }
    }
}

impl<T> HostTable<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` for the hosts of `pattern`, after all that are there.
    pub fn insert(&mut self, pattern: &HostPattern, value: T) {
        let slot = Slot { at: self.values.len(), port: pattern.port };
        self.values.push(value);
        match &pattern.form {
            Form::Exact(host) => self.exact.entry(host.clone()).or_default().push(slot),
            Form::OneLabel(suffix) => self.one_label.entry(Arc::clone(suffix)).or_default().push(slot),
        }
    }

    /// What was put in for patterns that match `origin`, port included.
    pub fn lookup(&self, origin: &Origin) -> impl Iterator<Item = &T> {
        let port = origin.port();
        self.slots(origin.host()).filter(move |slot| slot.port == port).filter_map(|slot| self.values.get(slot.at))
    }

    /// What was put in for patterns that match `host` on any port.
    pub fn lookup_host(&self, host: &Host) -> impl Iterator<Item = &T> {
        self.slots(host).filter_map(|slot| self.values.get(slot.at))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn slots(&self, host: &Host) -> impl Iterator<Item = Slot> {
        let exact = self.exact.get(host).map_or(&[][..], Vec::as_slice);
        let wild = parent(host).and_then(|parent| self.one_label.get(parent)).map_or(&[][..], Vec::as_slice);
        merge(exact, wild)
    }
}

impl<T> FromIterator<(HostPattern, T)> for HostTable<T> {
    fn from_iter<I: IntoIterator<Item = (HostPattern, T)>>(entries: I) -> Self {
        let mut table = Self::new();
        for (pattern, value) in entries {
            table.insert(&pattern, value);
        }
        table
    }
}

/// Two lists, each in rising order, as one in rising order.
fn merge<'a>(left: &'a [Slot], right: &'a [Slot]) -> impl Iterator<Item = Slot> + 'a {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if b.at < a.at => right.next().copied(),
        (Some(_), _) => left.next().copied(),
        (None, _) => right.next().copied(),
    })
}

/// A name without its first label.
fn parent(host: &Host) -> Option<&str> {
    host.name().and_then(|name| name.split_once('.')).map(|(_, rest)| rest)
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn origin(target: &str) -> Origin {
        Origin::from_connect_target(target).unwrap()
    }

    #[test]
    fn an_exact_host_matches_itself_and_nothing_that_looks_like_it() {
        // RT-07, TL-33
        let github = pattern("GitHub.com.");
        assert!(github.matches(&origin("github.com:443")));
        for other in [
            "evilgithub.com:443",
            "github.com.evil.test:443",
            "api.github.com:443",
            "github.co:443",
            "github.com:8443",
            "github.com:80",
        ] {
            assert!(!github.matches(&origin(other)), "{other}");
        }
        // The other spellings of RT-07 are no targets at all.
        for bad in ["api.github.com@evil.test:443", "evil.test#github.com:443", "evil.test\\@github.com:443"] {
            assert!(Origin::from_connect_target(bad).is_err(), "{bad}");
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label_and_not_the_apex() {
        // RT-08
        let wild = pattern("*.x.test");
        assert!(wild.matches(&origin("a.x.test:443")));
        for other in ["x.test:443", "a.b.x.test:443", "a.x.test:8443", "ax.test:443", "a.x.test.evil.test:443"] {
            assert!(!wild.matches(&origin(other)), "{other}");
        }
        for bad in [".x.test:443", "*.x.test:443"] {
            assert!(Origin::from_connect_target(bad).is_err(), "{bad}");
        }
        assert!(!wild.matches(&origin("10.0.0.1:443")));
    }

    #[test]
    fn refuses_patterns_that_could_match_too_much() {
        for (text, error) in [
            ("*", PatternError::Wildcard),
            ("**.x.test", PatternError::Wildcard),
            ("*.*.x.test", PatternError::Wildcard),
            ("a*.x.test", PatternError::Wildcard),
            ("*a.x.test", PatternError::Wildcard),
            ("x.*", PatternError::Wildcard),
            ("x.*.test", PatternError::Wildcard),
            ("*.10.0.0.1", PatternError::Wildcard),
            ("*.[::1]", PatternError::Wildcard),
            ("*.", PatternError::Malformed),
            ("", PatternError::Malformed),
            (":443", PatternError::Malformed),
            ("x.test:", PatternError::Malformed),
            ("x.test:0", PatternError::Malformed),
            ("x.test:99999", PatternError::Malformed),
            ("x..test", PatternError::Malformed),
            (".x.test", PatternError::Malformed),
            ("x test", PatternError::Malformed),
            ("b\u{fc}cher.test", PatternError::Malformed),
            ("::1", PatternError::Malformed),
            ("127.1", PatternError::DisguisedAddress),
            ("0x7f000001", PatternError::DisguisedAddress),
            ("*.1", PatternError::DisguisedAddress),
            ("https://x.test", PatternError::Url),
            ("x.test/v1", PatternError::Url),
        ] {
            assert_eq!(HostPattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn says_whether_the_port_was_written() {
        for (text, port, written) in [
            ("x.test", 443, PortWritten::No),
            ("x.test:443", 443, PortWritten::Yes),
            ("*.x.test:8443", 8443, PortWritten::Yes),
            ("[::1]", 443, PortWritten::No),
            ("[::1]:8443", 8443, PortWritten::Yes),
            ("127.0.0.1:1", 1, PortWritten::Yes),
        ] {
            let (pattern, found) = HostPattern::parse_with_port(text).unwrap();
            assert_eq!((pattern.port(), found), (port, written), "{text}");
        }
    }

    #[test]
    fn writes_itself_in_the_form_it_reads() {
        for text in ["x.test", "x.test:8443", "*.x.test", "*.x.test:80", "[::1]:8443", "10.0.0.1"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("X.Test.:443").to_string(), "x.test");
    }

    #[test]
    fn covers_what_it_matches() {
        for (wide, narrow, covered) in [
            ("x.test", "x.test", true),
            ("*.x.test", "a.x.test", true),
            ("*.x.test", "*.x.test", true),
            ("*.x.test", "*.a.x.test", false),
            ("a.x.test", "*.x.test", false),
            ("*.x.test", "a.x.test:8443", false),
        ] {
            assert_eq!(pattern(wide).covers(&pattern(narrow)), covered, "{wide} {narrow}");
        }
    }

    #[test]
    fn a_table_finds_in_the_order_of_insertion() {
        let table: HostTable<u8> = [
            (pattern("*.x.test"), 1),
            (pattern("a.x.test"), 2),
            (pattern("*.x.test:8443"), 3),
            (pattern("*.x.test"), 4),
            (pattern("b.x.test"), 5),
            (pattern("a.x.test"), 6),
        ]
        .into_iter()
        .collect();
        let found = |target: &str| table.lookup(&origin(target)).copied().collect::<Vec<_>>();
        assert_eq!(found("a.x.test:443"), [1, 2, 4, 6]);
        assert_eq!(found("b.x.test:443"), [1, 4, 5]);
        assert_eq!(found("c.x.test:8443"), [3]);
        assert_eq!(found("x.test:443"), [] as [u8; 0]);
        assert_eq!(found("a.b.x.test:443"), [] as [u8; 0]);
        let on_any_port: Vec<u8> = table.lookup_host(origin("a.x.test:1").host()).copied().collect();
        assert_eq!(on_any_port, [1, 2, 3, 4, 6]);
    }
}
