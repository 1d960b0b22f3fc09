//! Records, metrics and the audit log.
//!
//! One [`Record`] per exchange goes through the [`Recorder`] into the access log and the metrics, so the two never
//! disagree. The [`Audit`] log holds every change and every use of a credential, written before the use.
//!
//! Invariant: nothing that is written here holds a secret, a query, a field value or a body.

mod audit;
#[cfg(test)]
mod canary;
mod chain;
mod commit;
mod entry;
mod json;
mod labels;
mod log;
mod metrics;
mod record;
mod recorder;
mod sink;
pub mod trace;
mod verify;

pub use audit::{Audit, AuditUnavailable, Witness};
pub use entry::{Action, Change, Intent, Refused};
pub use log::AccessLog;
pub use metrics::{Connection, Metrics, ProfileState, RefreshResult, ReloadResult};
pub use record::{AttemptRecord, Decision, Protocol, Record};
pub use recorder::Recorder;
pub use verify::{Fault, Verified, verify};
