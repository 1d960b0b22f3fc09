//! Takes secrets out of what comes back, and out of what we write ourselves.
//!
//! [`Patterns`] is compiled once for a set of secrets and shared; a [`Scrubber`] runs it over one stream, in whatever
//! pieces it arrives, and a [`Decoder`] takes content codings off before; [`scrub_fields`] over a field section; a
//! [`Redactor`] over the lines of our own sinks.
//!
//! What is found: the whole value raw, in base64 and base64url at every alignment, in hex, percent-
//! and JSON-escaped; and every run of 24 bytes of a longer value. Reversal, encryption and other codings are not.
//!
//! Invariant: the result does not depend on how a stream was cut, and no complete occurrence leaves this module.

mod anchor;
mod decode;
mod fields;
mod filter;
mod forms;
mod framing;
mod hunt;
mod patterns;
mod redact;
mod run;
mod stream;

pub use decode::{Coding, Codings, DecodeError, Decoder};
pub use fields::scrub_fields;
pub use filter::Filter;
pub use framing::Framing;
pub use hunt::{Finding, Hunter, What};
pub use patterns::{Item, Patterns};
pub use redact::Redactor;
pub use stream::Scrubber;

/// Secrets shorter than this are not looked for: shorter ones turn up in ordinary text by chance.
pub const SHORTEST_SECRET: usize = 8;

/// A run of this many bytes of a longer secret counts as the secret.
pub const WINDOW: usize = 24;
