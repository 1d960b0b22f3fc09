//! Verified channels to upstreams.
