//! The one type that a credential's bytes live in.
//!
//! Invariant: the bytes leave this type only through [`Secret::expose`], whose callers are listed by the
//! `architecture` test. There is no `Clone`, `Deref`, `Display`, `Serialize` or content-bearing `Debug`.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes that must never be printed, logged, cloned or compared in variable time.
///
/// The memory is overwritten when the value is dropped. Share one with `Arc<Secret>`.
pub struct Secret(Zeroizing<Box<[u8]>>);

impl Secret {
    /// Takes ownership of `bytes`. The vector's spare capacity is not copied, so callers should size it exactly.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let boxed: Box<[u8]> = bytes.as_slice().into();
        zeroize::Zeroize::zeroize(&mut bytes);
        Self(Zeroizing::new(boxed))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in time that depends on the lengths only.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }

    /// Compares two secrets, in time that depends on the lengths only.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// The bytes themselves: the one way out, greppable, its callers listed in `tests/it/architecture.rs`.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_byte_of_the_value() {
        let secret = Secret::from("hunter2hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn matches_only_the_whole_value() {
        let secret = Secret::from("abcdef".to_owned());
        assert!(secret.matches(b"abcdef"));
        assert!(!secret.matches(b"abcde"));
        assert!(!secret.matches(b"abcdeg"));
    }
}
