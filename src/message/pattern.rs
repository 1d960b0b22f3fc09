//! Patterns over hosts.
