//! What an exchange is once it is permitted: the value that preparing it makes and carrying it takes.
//!
//! Invariant: it holds no credential of the agent's making.

use std::sync::Arc;

use crate::agent::Agent;
use crate::policy::Permit;
use crate::provider::{Provider, Stripped};
use crate::proxy::state::View;
use crate::proxy::websocket::Asked;
use crate::tls::Protocol;
use crate::upstream::Hop;
use crate::upstream::body::Upload;

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
