//! What is said of each client.

use crate::harness::{Canary, Tool};

/// What a client is, and what has to be true after it ran.
pub struct Client {
    pub name: &'static str,
    /// Its line of the published table; some clients have several cases.
    pub line: &'static str,
    /// Where its version stands.
    pub pin: Pin,
    pub tool: Tool,
    /// Arguments after the program; `{work}` is a directory of its own.
    pub arguments: &'static [&'static str],
    pub host: &'static str,
    /// The variable that holds the placeholder.
    pub variable: &'static str,
    pub profile: &'static str,
    /// More words for `secret set`.
    pub stored: &'static [&'static str],
    pub secret: fn() -> Canary,
    /// What stands in its output.
    pub prints: &'static [&'static str],
    pub requests: usize,
    /// The protocol of its exchanges, as the access log has it.
    pub speaks: &'static str,
    /// The variables that lead it to the proxy and make it trust, and no others.
    pub variables: &'static [&'static str],
    pub control: Control,
    /// What a user should know.
    pub note: &'static str,
}

/// Where a version is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// The distribution's.
    Debian,
    /// `requirements.txt`.
    Python(&'static str),
    /// `package.json`.
    Node(&'static str),
    /// The machine's own Go.
    Go,
    /// `rust/Cargo.toml`.
    Crate(&'static str),
    /// A module of `go/go.mod`.
    Module(&'static str),
    /// Any.
    Any,
}

/// Whether the client can do its task without the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Possible,
    /// It needs something of the program's: the base URL, a proxy that takes absolute targets, a rewritten remote.
    Impossible,
}
