//! What every room knows of an HTTP message: its origin, its fields, its path.
//!
//! Invariant: these are values and rules of RFC 9110 and 9112; no IO, no policy, no provider.

pub mod field;
pub mod glob;
pub mod origin;
pub mod path;
pub mod pattern;
