//! `secret set` with options and without a value: what stands beside a value is changed. And `secret rollback`.
//!
//! Invariant: the value stays what it is and is not shown.

use super::plan::{self, Request};
use super::{find, set};
use crate::cli::args::SecretRollback;
use crate::cli::changes;
use crate::cli::context::Context;
use crate::cli::input::{self, Origin};
use crate::cli::output::{Failure, Outcome};
use crate::cli::shapes::SecretShape;
use crate::secret::Secret;
use crate::telemetry::Action;
use crate::vault::{Draft, Stored, Vault, reference};

/// What a `secret set` asks for.
pub(super) enum Asked {
    /// To change what stands beside this one.
    Change(Box<Stored>, Vault),
    /// To store a value: the one that was piped in, or one that is still to be had.
    Store(Option<Secret>),
}

/// Finds out whether a value comes with the command. With options, a stored secret of the name and no value at hand,
/// the options are all there is to it.
pub(super) async fn value_or_target(request: &Request, origin: &Origin, context: &Context) -> Outcome<Asked> {
    if *origin != Origin::Usual || !says_something(request) {
        return Ok(Asked::Store(None));
    }
    let (home, config) = (context.home()?, context.config()?);
    let Some(vault) = context.vault(&home, &config).await? else { return Ok(Asked::Store(None)) };
    let Some(stored) = target(request, &vault).await? else { return Ok(Asked::Store(None)) };
    Ok(match input::piped()? {
        Some(value) => Asked::Store(Some(value)),
        None => Asked::Change(Box::new(stored), vault),
    })
}

fn says_something(request: &Request) -> bool {
    let texts = [&request.provider, &request.kind, &request.env, &request.description, &request.label];
    texts.iter().any(|text| text.is_some())
        || request.scope.is_some()
        || request.no_install
        || request.install
        || !request.hosts.is_empty()
}

/// The secret of that name and scope; one of another scope is meant where it is the only one of the name.
async fn target(request: &Request, vault: &Vault) -> Outcome<Option<Stored>> {
    let mut named = vault.list().await?;
    named.retain(|stored| stored.name == request.name);
    let here = named.iter().position(|stored| stored.scope == request.scope());
    Ok(match (here, named.len()) {
        (Some(at), _) => Some(named.swap_remove(at)),
        (None, 1) => named.pop(),
        (None, _) => None,
    })
}

/// Changes what the options say.
pub(super) async fn amend(request: &Request, stored: &Stored, vault: &Vault, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let catalogue = context.catalogue(&config)?;
    let scope = request.scope.clone().unwrap_or_else(|| stored.scope.clone());
    let request = Request { scope: Some(scope), force: true, ..request.clone() };
    let opened = vault.opened(stored).await?;
    let value = opened.as_ref().map(|opened| &opened.secret).filter(|value| reference(value).is_none());
    let plan = plan::plan(&request, value.map(AsRef::as_ref), Some(stored), &catalogue)?;
    // What nobody spoke of stays, even where it would be chosen differently today.
    let rebound = request.provider.is_some() || request.kind.is_some() || !request.hosts.is_empty();
    let draft = if rebound {
        plan.draft
    } else {
        Draft {
            provider: stored.provider.clone(),
            kind: stored.kind.clone(),
            hosts: stored.hosts.clone(),
            install: (stored.install || request.install) && !request.no_install,
            ..plan.draft
        }
    };
    let changed = changed(&stored.draft(), &draft);
    let what = stored.name.to_string();
    let after = vault.amend(&stored.name, &stored.scope, draft, context.now()).await?;
    let after = after.ok_or_else(|| Failure::new(format!("{what} was deleted meanwhile")))?;
    if !changed.is_empty() {
        changes::record(&home, vault, Action::SecretChanged, &what, context).await?;
    }
    if rebound {
        set::tell(&plan.notes, context);
    }
    if context.output.is_json() {
        context.output.json(&SecretShape::of(&after, &catalogue))?;
    }
    if changed.is_empty() {
        context.output.done(&format!("{what} is like that already"));
    } else {
        context.output.done(&format!(
            "changed {what}: {}; the value stays (version {})",
            changed.join(", "),
            after.version
        ));
    }
    context.output.next(&format!("to give it a new value: keyferry secret set {what}"));
    Ok(())
}

fn changed(before: &Draft, after: &Draft) -> Vec<&'static str> {
    let facts = [
        ("provider", before.provider == after.provider),
        ("type", before.kind == after.kind),
        ("scope", before.scope == after.scope),
        ("variable", before.env == after.env),
        ("install", before.install == after.install),
        ("hosts", before.hosts == after.hosts),
        ("description", before.description == after.description),
        ("label", before.label == after.label),
    ];
    facts.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}

/// `keyferry secret rollback NAME`
pub(super) async fn rollback(command: &SecretRollback, context: &mut Context) -> Outcome {
    let (stored, vault) = find(&command.which, context).await?;
    let name = stored.name.to_string();
    let history = format!("its versions: keyferry secret history {name}");
    let to = match command.to {
        Some(to) if to == stored.version => {
            return Err(Failure::usage(format!("{name} is at version {to}")).hint(history));
        }
        Some(to) => to,
        None if stored.version < 2 => {
            return Err(Failure::new(format!("{name} has no version before this one")).hint(history));
        }
        None => stored.version.saturating_sub(1),
    };
    let after = vault.rollback(&stored.name, &stored.scope, to, context.now()).await?;
    let after = after.ok_or_else(|| Failure::new(format!("{name} has no version {to}")).hint(history))?;
    let home = context.home()?;
    changes::record(&home, &vault, Action::SecretRolledBack, &name, context).await?;
    if context.output.is_json() {
        let catalogue = context.catalogue(&context.config()?)?;
        context.output.json(&SecretShape::of(&after, &catalogue))?;
    }
    let (version, masked) = (after.version, &after.masked);
    context.output.done(&format!("{name} has the value of version {to} again, as version {version}: {masked}"));
    if after.hosts != stored.hosts {
        context.output.warn(&format!("it goes to the hosts of that version again: {}", after.hosts.join(", ")));
    }
    Ok(())
}
