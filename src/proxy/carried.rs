//! What an exchange is once it is permitted: the value that preparing it makes and carrying it takes.
//!
//! Invariant: it holds no credential of the agent's making.

use std::sync::Arc;

use crate::agent::Agent;
use crate::policy::Permit;
use crate::provider::{Provider, Stripped};
use crate::proxy::fallback::Spliced;
use crate::proxy::state::View;
use crate::proxy::websocket::Asked;
use crate::tls::Protocol;
use crate::upstream::Hop;
use crate::upstream::body::Upload;

/// Where one attempt of an exchange goes, and with which head and body.
#[derive(Clone, Copy)]
pub struct Aim<'a> {
    pub permit: &'a Permit,
    pub stripped: &'a Stripped,
    /// The path as it is sent, for choosing the placement; never logged.
    pub path: &'a str,
    /// The body in place of the agent's own.
    pub body: Option<&'a Spliced>,
}

/// A permitted exchange, stripped of everything that must not go on.
pub struct Carried {
    pub view: Arc<View>,
    pub agent: Agent,
    pub permit: Permit,
    pub provider: Option<Arc<Provider>>,
    pub stripped: Stripped,
    /// The path as it came, for choosing the placement; never logged.
    pub path: String,
    /// What the client put where its key would stand.
    pub presented: Option<String>,
    pub upload: Upload,
    /// What the agent speaks.
    pub spoken: Protocol,
    /// What is asked of the next hop alone.
    pub hop: Hop,
    /// The WebSocket that it is to become.
    pub socket: Option<Asked>,
}

impl Carried {
    /// Where it goes by itself.
    pub fn aim(&self) -> Aim<'_> {
        Aim { permit: &self.permit, stripped: &self.stripped, path: &self.path, body: None }
    }
}
