//! The admin interface: health and metrics over TCP, and what the command line asks of a running daemon over a
//! Unix socket in the home.
//!
//! Invariant: the TCP side shows no credential, agent or configuration and changes nothing; the socket is the
//! owner's alone (mode 600, peer credentials checked).

mod api;
pub mod client;
mod server;

pub use api::{Control, ControlError, Installed, Listeners, Session};
pub use server::{serve_socket, serve_tcp};
