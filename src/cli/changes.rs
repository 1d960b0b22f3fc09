//! What happens after every change that the command line makes: the audit log has it, and a running daemon takes it.

use std::sync::Arc;

use super::context::Context;
use super::daemon::Daemon;
use super::output::{Failure, Outcome};
use crate::home::Home;
use crate::scrub::Redactor;
use crate::telemetry::{Action, Audit, Change};
use crate::vault::Vault;

/// Records a change that was made to `subject`, and tells the daemon of this home, if one runs.
///
/// # Errors
/// When the change stands but the audit log could not be written.
pub async fn record(home: &Home, vault: &Vault, action: Action, subject: &str, context: &mut Context) -> Outcome {
    if let Some(mut daemon) = Daemon::connect(home).await {
        // A daemon that cannot be told looks at the vault by itself every second.
        let _ = daemon.vault_changed().await;
    }
    let key = vault.derived_key("audit");
    let audit = Audit::open(&home.audit_log(), key, Arc::new(Redactor::new()));
    let change = Change { at: context.now(), action, subject, actor: "cli", detail: None };
    // A person waits for this one line anyway, so the disk has it, whatever the setting.
    let written = audit.and_then(|audit| audit.change(change).and_then(|()| audit.flush()));
    written.map_err(|error| Failure::new(format!("the change was made, but not recorded: {error}")).hint(error.hint()))
}
