//! Verified channels to upstreams.
pub mod screen;
