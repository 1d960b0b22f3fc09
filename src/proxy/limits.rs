//! How much and how long, in one place, each with where its number comes from.

use std::time::Duration;

/// The bounds of one process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Wait for the head of an upstream's answer. Long thinking models take minutes; SDKs wait 600 s.
    pub response: Duration,
    /// Silence that ends a stream or a tunnel.
    pub idle: Duration,
    /// Bytes of one request body that are held for another attempt: agents send hundreds of KiB, rarely 16 MiB.
    pub replay: usize,
    /// Bytes that all held bodies share.
    pub replay_in_all: usize,
    /// Open connections, 80 % of the file descriptors or 16,384, whichever is less.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            response: Duration::from_secs(600),
            idle: Duration::from_secs(300),
            replay: 16 * 1024 * 1024,
            replay_in_all: 256 * 1024 * 1024,
            connections: 16_384,
        }
    }
}

/// A request head: fields and line together, the limit hyper's buffer enforces.
pub const HEAD_BYTES: usize = 64 * 1024;
/// A request line's target.
pub const LINE_BYTES: usize = 16 * 1024;
/// Fields of a request.
pub const HEAD_FIELDS: usize = 100;
/// An idle connection inside a tunnel; longer than what clients' own pools keep.
pub const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// An answer of known length up to this is scrubbed whole and keeps an exact `Content-Length`.
pub const SCRUB_WHOLE: u64 = 64 * 1024;
/// So much of a coded answer of known length is decoded before its head goes on; a bomb shows itself until then.
pub const DECODE_AHEAD: usize = 1024 * 1024 + 64 * 1024;
/// So much of an error answer's body is looked at before it is passed on.
pub const ERROR_BODY: usize = 64 * 1024;
/// A request body of known length up to this is read before a profile is chosen: it names the model.
pub const ASK_BODY: u64 = 1024 * 1024;
/// No further attempt and no waiting for a profile after this.
pub const ATTEMPTS: Duration = Duration::from_secs(60);
/// An event stream is held for this long at most until its first event with content.
pub const PEEK_WAIT: Duration = Duration::from_secs(2);
/// An error body that trickles is judged by what came in this time.
pub const ERROR_BODY_WAIT: Duration = Duration::from_secs(5);
