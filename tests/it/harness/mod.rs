//! Starts the program as a user would, asks it as an agent would, and searches what it left behind.

mod canary;
pub mod frames;
mod h2;
mod home;
mod process;
mod runtimes;
mod wire;

pub use canary::{Canary, Search, form_names, forms_of};
pub use h2::{H2, flowing, whole};
pub use home::{Home, LISTEN, private};
pub use process::{Finished, PATIENCE, Serve, Stream, run_command, signal, spawn, until, until_for, wait};
pub use runtimes::{Tool, clients, need, script};
pub use wire::{Answered, HTTP1, HTTP2, Wire, client_config, connect_request};
