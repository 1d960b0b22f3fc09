//! `secret reveal`: the one command that shows a value.
//!
//! Invariant: only of a vault that was made for it, only after a yes, and only once the audit log has it.

use super::find;
use crate::cli::args::SecretDelete;
use crate::cli::context::Context;
use crate::cli::output::{Failure, Outcome};
use crate::cli::{changes, input};
use crate::telemetry::Action;
use crate::vault::reference;

/// `keyferry secret reveal NAME`
pub(super) async fn reveal(command: &SecretDelete, context: &mut Context) -> Outcome {
    let (stored, vault) = find(&command.which, context).await?;
    let (home, name) = (context.home()?, stored.name.to_string());
    if !vault.may_reveal(&home) {
        return Err(Failure::new("this vault shows no values: it was not made with init --allow-reveal").hint(
            format!("agents use {name} without seeing it; a new value goes in with keyferry secret set {name}"),
        ));
    }
    if stored.by_reference {
        return Err(Failure::new(format!("the value of {name} is not stored here, but at {}", stored.masked)));
    }
    if !input::confirm(context, &format!("The value of {name} is shown on this screen. Show?"), command.yes)? {
        return Err(Failure::new("nothing was shown"));
    }
    let opened = vault.opened(&stored).await?;
    let opened = opened.ok_or_else(|| Failure::new(format!("{name} was changed meanwhile")))?;
    if reference(&opened.secret).is_some() {
        return Err(Failure::new(format!("the value of {name} is not stored here")));
    }
    changes::record(&home, &vault, Action::SecretRevealed, &name, context).await?;
    if context.output.is_json() {
        let value = String::from_utf8_lossy(opened.secret.expose());
        return context.output.json(&serde_json::json!({ "name": name, "value": value }));
    }
    context.output.bytes(opened.secret.expose())?;
    context.output.bytes(b"\n")
}
