//! Keyferry carries the keys, so that agents don't have to.

pub mod clock;
pub mod code;
pub mod id;
pub mod message;
pub mod secret;
pub mod spawn;
