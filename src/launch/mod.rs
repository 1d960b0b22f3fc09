//! Starting an agent's process: the environment it gets, the files it needs, and the child itself.
//!
//! Invariant: no value of a managed credential goes into an environment or a file that is made here.

pub mod child;
pub mod environment;
pub mod exports;
pub mod files;
#[cfg(target_os = "linux")]
pub mod guard;
mod java;
#[cfg(target_os = "linux")]
pub mod lock;
mod step;
mod variables;

pub use variables::{is_reserved, upper_snake, variable_of};
