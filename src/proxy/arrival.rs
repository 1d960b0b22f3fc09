//! A connection that was accepted, as the rooms behind the listeners know it.
//!
//! Invariant: it holds its place among the open connections until the last of what it became has ended.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::proxy::peer::{Door, Peer};

/// A connection as it was accepted.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Who is at the other end.
    pub client: Peer,
    /// The listener, as logs name it.
    pub listener: &'static str,
    /// Whether it cannot have crossed a network.
    pub local: bool,
    /// Who it is without credentials.
    pub door: Door,
    /// Its place among the open connections; a tunnel keeps it.
    pub place: Arc<OwnedSemaphorePermit>,
}
