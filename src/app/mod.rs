//! The composition root: configuration becomes running parts.
//!
//! Invariant: parts are made here and nowhere else; a reload builds a whole new snapshot beside the old one and
//! swaps it in one step, or changes nothing.

mod control;
mod core;
mod errand;
mod error;
mod figures;
mod installed;
mod keep;
mod listen;
mod members;
mod options;
mod parts;
mod profiles;
mod refresh;
mod root;
mod running;
mod snapshot;
mod way_out;
mod why;

pub use errand::ErrandError;
pub use error::AppError;
pub use installed::certificate_hosts;
pub use members::{Found, find_in_environment};
pub use options::{Mode, Options};
pub use profiles::profile_json;
pub use running::Running;
pub use why::{Question, QuestionError, why};
