//! Every change of the vault is in the audit log before it is made.
//!
//! Invariant: what cannot be recorded is not changed.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Clock;
use crate::home::Home;
use crate::scrub::Redactor;
use crate::secret::Secret;
use crate::telemetry::{Action, Audit, AuditUnavailable, Change};
use crate::vault::{Journal, Unrecorded, Vault};

/// The audit log, opened when something is about to change.
struct AuditJournal {
    path: PathBuf,
    key: Arc<Secret>,
    open: Mutex<Option<Audit>>,
}

/// Has every change of `vault` recorded in the audit log of `home` first.
pub fn keep(vault: &Vault, home: &Home) {
    let journal = AuditJournal { path: home.audit_log(), key: vault.derived_key("audit"), open: Mutex::default() };
    vault.keep_journal(Arc::new(journal));
}

impl AuditJournal {
    fn write(&self, change: Change<'_>) -> Result<(), AuditUnavailable> {
        let mut open = self.open.lock();
        if open.is_none() {
            *open = Some(Audit::open(&self.path, Arc::clone(&self.key), Arc::new(Redactor::new()))?);
        }
        match open.as_ref() {
            Some(audit) => audit.change(change).and_then(|()| audit.flush()),
            None => Ok(()),
        }
    }
}

impl Journal for AuditJournal {
    fn announce(&self, epoch: u64, subjects: &[String]) -> Result<(), Unrecorded> {
        let (subject, detail) = (subjects.join(", "), format!("change {epoch}"));
        let change = Change {
            at: Clock::System.now(),
            action: Action::VaultChanging,
            subject: &subject,
            actor: "vault",
            detail: Some(&detail),
        };
        self.write(change).map_err(|error| Unrecorded { reason: error.to_string(), hint: error.hint() })
    }
}
