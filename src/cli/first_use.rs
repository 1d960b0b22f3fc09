//! What the first command of a new home makes: the directories, the master key, the vault, the CA.
//!
//! Invariant: what is there is never replaced, and whatever is made is said.

use super::changes;
use super::context::{Context, key_source};
use super::journal;
use super::output::Outcome;
use crate::app::certificate_hosts;
use crate::config::Config;
use crate::home::Home;
use crate::message::pattern::HostPattern;
use crate::telemetry::Action;
use crate::tls::{Authority, Inherited, Loaded, write_bundle};
use crate::vault::{Opening, Vault};

/// Opens the vault of the home, and makes what is missing.
///
/// # Errors
/// When something is there that does not fit, or cannot be made.
pub async fn open(context: &mut Context, home: &Home, config: &Config) -> Outcome<Vault> {
    let key_was_there = home.master_key().exists();
    let (vault, opening) = Vault::open_or_create_with(home, &key_source(config), &context.unlock()).await?;
    journal::keep(&vault, home);
    if opening == Opening::Created {
        context.output.done(&format!("new vault   {}", home.vault_db().display()));
        if !key_was_there && home.master_key().exists() {
            context
                .output
                .done(&format!("its key     {} (keep a copy: nothing else opens it)", home.master_key().display()));
        }
        changes::record(home, &vault, Action::VaultCreated, "vault", context).await?;
    }
    authority(context, home, config, &vault).await?;
    Ok(vault)
}

/// Makes the local CA, if there is none yet or it does not fit the hosts any more.
async fn authority(context: &mut Context, home: &Home, config: &Config, vault: &Vault) -> Outcome {
    let catalogue = context.catalogue(config)?;
    let stored = vault.list().await?;
    let sealed = stored.iter().flat_map(|stored| &stored.hosts).filter_map(|host| HostPattern::parse(host).ok());
    let hosts = certificate_hosts(&catalogue, config, sealed);
    let (authority, loaded) = Authority::load_or_create(home, &hosts, context.now())?;
    match loaded {
        Loaded::Existing => {}
        Loaded::Created => {
            write_bundle(home, Inherited::default(), authority.root_pem())?;
            context.output.done(&format!(
                "local CA    {} (trusted by no program but those that run starts)",
                home.ca_cert().display()
            ));
            changes::record(home, vault, Action::CaCreated, &authority.info().subject, context).await?;
        }
        Loaded::Renewed { reason } => {
            context.output.say(&format!("the local CA was renewed: {reason}"));
            changes::record(home, vault, Action::CaRenewed, &authority.info().subject, context).await?;
        }
    }
    Ok(())
}
