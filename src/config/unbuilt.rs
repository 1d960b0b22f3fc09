//! Parts of the grammar that are read and checked, and that nothing acts on yet.
//!
//! Invariant: a key that would do nothing is a fault. What is built is taken out of this one table, and reader and
//! schema follow.

use super::fault::{At, Report};

/// Keys, and `key: value` where only some values are meant.
pub(super) const NOT_AVAILABLE_YET: &[&str] =
    &["vault.url: postgres", "vault.url: elsewhere", "vault.master_key: keyring"];

pub(super) fn is_available(feature: &str) -> bool {
    !NOT_AVAILABLE_YET.contains(&feature)
}

impl Report {
    /// Reports the use of a part that is not built yet; `written` is how it stands in this file.
    pub(super) fn needs(&mut self, feature: &str, written: &str, at: At) {
        if !is_available(feature) {
            self.fault(at, format!("`{written}` is not available yet"), "leave it out for now");
        }
    }
}
