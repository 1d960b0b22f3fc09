//! Starts the program as a user would, asks it as an agent would, and searches what it left behind.

mod canary;
mod home;
mod process;
mod runtimes;
mod wire;

pub use canary::{Canary, Hit, Search};
pub use home::{Home, LISTEN, lines, private};
pub use process::{Finished, PATIENCE, Serve, Stream, plain_get, run_command, signal, spawn, until, wait};
pub use runtimes::{Tool, clients, need, script};
pub use wire::{Answered, HTTP1, HTTP2, Wire, client_config, connect_request};
