//! Names that users, configuration and logs use, each parsed once into its own type.
//!
//! Invariant: every name here is printable ASCII of a fixed alphabet, so it can stand in a log line, a metric
//! label or a proxy URL without escapes.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{what} cannot be empty")]
    Empty {
        /// Which kind of name.
        what: &'static str,
    },
    /// Longer than the limit.
    #[error("{what} is at most {limit} characters")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// The limit in characters.
        limit: usize,
    },
    /// A character outside the alphabet.
    #[error("{what} uses only {alphabet}")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The alphabet in words.
        alphabet: &'static str,
    },
}

fn check(text: &str, what: &'static str, alphabet: &'static str, allowed: fn(u8) -> bool) -> Result<(), NameError> {
    // 128 is long enough for any name a person types and keeps log lines within their bound.
    const LIMIT: usize = 128;
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > LIMIT {
        return Err(NameError::TooLong { what, limit: LIMIT });
    }
    if !text.bytes().all(allowed) {
        return Err(NameError::Character { what, alphabet });
    }
    Ok(())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $alphabet:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text` against the alphabet.
            ///
            /// # Errors
            /// [`NameError`] when it is empty, too long, or has another character.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $what, $alphabet, $allowed)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// An identified caller of the proxy. Its alphabet needs no escapes in a proxy URL.
    AgentName,
    "an agent's name",
    "A-Z a-z 0-9 . _ ~ -",
    is_name_byte
);
name!(
    /// A service that agents call, as the catalogue or the configuration names it.
    ProviderId,
    "a provider's name",
    "a-z 0-9 -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
);
name!(
    /// The name of a credential inside its provider's pool, the part after the colon of `anthropic:work`.
    ShortName,
    "a credential's name",
    "A-Z a-z 0-9 . _ ~ -",
    is_name_byte
);

/// A credential as a member of a provider's pool, written `provider:name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId {
    /// Whose pool.
    pub provider: ProviderId,
    /// Which member.
    pub name: ShortName,
}

impl ProfileId {
    /// Reads `provider:name`.
    ///
    /// # Errors
    /// [`NameError`] when a part is missing or has a foreign character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (provider, name) = text.split_once(':').ok_or(NameError::Empty { what: "profile's provider" })?;
        Ok(Self { provider: ProviderId::parse(provider)?, name: ShortName::parse(name)? })
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.provider, self.name)
    }
}

impl fmt::Debug for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a person calls a stored credential: `anthropic:work`, or `pagerduty.token` without a provider.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName {
    provider: Option<ProviderId>,
    name: ShortName,
}

impl CredentialName {
    /// Reads `name` or `provider:name`.
    ///
    /// # Errors
    /// [`NameError`] when a part is empty, too long or has a foreign character.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.split_once(':') {
            None => Ok(Self { provider: None, name: ShortName::parse(text)? }),
            Some((provider, name)) => {
                Ok(Self { provider: Some(ProviderId::parse(provider)?), name: ShortName::parse(name)? })
            }
        }
    }

    /// The part before the colon, where there is one.
    #[must_use]
    pub fn provider(&self) -> Option<&ProviderId> {
        self.provider.as_ref()
    }

    /// The part after the colon, or the whole name.
    #[must_use]
    pub fn short(&self) -> &ShortName {
        &self.name
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            None => write!(f, "{}", self.name),
            Some(provider) => write!(f, "{provider}:{}", self.name),
        }
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of one exchange: a ULID, 26 characters, ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(ulid::Ulid);

impl RequestId {
    /// A fresh one for an exchange that begins at `unix_millis`.
    #[must_use]
    pub fn new(unix_millis: u64) -> Self {
        Self(ulid::Ulid::from_parts(unix_millis, u128::from_le_bytes(random())))
    }
}

/// Random bytes, asked of the kernel for many exchanges at once: the call costs more than all else that an identifier
/// does. They need no secrecy; where the kernel has no randomness yet, time alone orders the identifiers.
fn random() -> [u8; 16] {
    thread_local! {
        static STOCK: RefCell<Vec<[u8; 16]>> = const { RefCell::new(Vec::new()) };
    }
    STOCK.with_borrow_mut(|stock| {
        stock.pop().unwrap_or_else(|| {
            stock.resize(64, [0; 16]);
            let _ = getrandom::fill(stock.as_flattened_mut());
            stock.pop().unwrap_or_default()
        })
    })
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_profile_and_writes_it_back() {
        let profile = ProfileId::parse("anthropic:titanium").unwrap();
        assert_eq!(profile.provider.as_str(), "anthropic");
        assert_eq!(profile.to_string(), "anthropic:titanium");
    }

    #[test]
    fn refuses_names_that_would_need_an_escape() {
        for bad in ["", "a b", "a/b", "a@b", "a\nb", "ä", "a:b:c:'--", &"x".repeat(129)] {
            assert!(CredentialName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(AgentName::parse("a:b").is_err());
        assert!(ProviderId::parse("Anthropic").is_err());
    }
}
