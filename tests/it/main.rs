//! Integration tests: the built program, run as a user runs it, against a provider of our own.
//!
//! `upstream` is that provider, `harness` starts and questions the program, `instrument` tests the two themselves.
//! Every test that touches a credential uses a canary made at run time, and ends with a search for it in all that
//! the program wrote and all that the agent received.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

mod harness;
mod upstream;

mod architecture;
mod cases;
mod cli;
mod clients;
mod demo;
mod instrument;
mod proofs;
mod proxy;
