//! `ca show|path|trust|untrust|rotate`.

use std::path::Path;

use serde_json::json;

use super::args::{Ca, CaPath, CaRotate, CaTrust};
use super::changes;
use super::context::Context;
use super::daemon::Daemon;
use super::input;
use super::output::{Failure, Outcome};
use super::trust::System;
use crate::telemetry::Action;
use crate::tls::{Authority, CaError, Inherited, write_bundle};

/// `keyferry ca ..`
pub async fn ca(command: &Ca, context: &mut Context) -> Outcome {
    match command {
        Ca::Show => show(context),
        Ca::Path(which) => path(which, context),
        Ca::Trust(command) => trust(command, context),
        Ca::Untrust(command) => untrust(command, context),
        Ca::Rotate(command) => rotate(command, context).await,
    }
}

fn trust(command: &CaTrust, context: &mut Context) -> Outcome {
    let home = context.home()?;
    let authority = Authority::load(&home).map_err(explained)?;
    asked_for_the_system(command)?;
    let info = authority.info();
    let system = System::find(Path::new("/"))?;
    let file = system.file(&info.fingerprint);
    // The present root alone: former ones are in the bundle for those who still need them.
    system.add(&file, &first(authority.root_pem()))?;
    context.output.done(&format!("{} is trusted by this system for {}", file.display(), info.permitted.join(", ")));
    context.output.next("keyferry ca untrust --system takes it out again");
    Ok(())
}

fn untrust(command: &CaTrust, context: &mut Context) -> Outcome {
    let home = context.home()?;
    let info = Authority::load(&home).map_err(explained)?.info();
    asked_for_the_system(command)?;
    let system = System::find(Path::new("/"))?;
    let file = system.file(&info.fingerprint);
    let what = if system.remove(&file)? { "is no longer trusted by this system" } else { "was not there" };
    context.output.done(&format!("{} {what}", file.display()));
    Ok(())
}

fn asked_for_the_system(command: &CaTrust) -> Outcome {
    if command.system {
        return Ok(());
    }
    let message = "the system's trust store is changed only with --system: every program of every user reads it";
    Err(Failure::usage(message).hint("keyferry run and keyferry env give agents the certificate without it"))
}

/// The first certificate of several.
fn first(pem: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_once(END).map_or_else(|| pem.to_owned(), |(body, _)| format!("{body}{END}\n"))
}

async fn rotate(command: &CaRotate, context: &mut Context) -> Outcome {
    let home = context.home()?;
    let present = Authority::load(&home).map_err(explained)?.info();
    let question = "programs that run with the present certificate have to be started again; go on?";
    if !input::confirm(context, question, command.yes)? {
        return Err(Failure::new("nothing was changed"));
    }
    let (authority, _) = Authority::rotate(&home, &present.permitted, context.now())?;
    let inherited = Inherited::from_environment(&|name| context.variable(name).map(ToOwned::to_owned));
    write_bundle(&home, inherited, authority.root_pem())?;
    let config = context.config()?;
    match context.vault(&home, &config).await? {
        Some(vault) => changes::record(&home, &vault, Action::CaRenewed, "ca.pem", context).await?,
        None => {
            if let Some(mut daemon) = Daemon::connect(&home).await {
                daemon.vault_changed().await?;
            }
        }
    }
    context.output.done(&format!("the new certificate is {}", authority.info().fingerprint));
    context.output.next("the old one stays in the bundle until its end; start agents again, and keyferry ca trust --system where the old one was trusted");
    Ok(())
}

fn show(context: &mut Context) -> Outcome {
    let home = context.home()?;
    let info = Authority::load(&home).map_err(explained)?.info();
    let path = home.ca_cert().display().to_string();
    if context.output.is_json() {
        return context.output.json(&json!({
            "path": path,
            "bundle": home.ca_bundle(),
            "subject": info.subject,
            "fingerprint": info.fingerprint,
            "not_before": info.not_before.to_string(),
            "not_after": info.not_after.to_string(),
            "permitted": info.permitted,
        }));
    }
    context.output.fields(&[
        ("path", path),
        ("subject", info.subject),
        ("sha-256", info.fingerprint),
        ("from", info.not_before.to_string()),
        ("until", info.not_after.to_string()),
        ("signs for", info.permitted.join(", ")),
    ])
}

fn path(which: &CaPath, context: &mut Context) -> Outcome {
    let home = context.home()?;
    Authority::load(&home).map_err(explained)?;
    let path = if which.bundle { home.ca_bundle() } else { home.ca_cert() };
    if context.output.is_json() {
        return context.output.json(&json!({ "path": path }));
    }
    context.output.data(&path.display().to_string())
}

fn explained(error: CaError) -> Failure {
    let missing = matches!(error, CaError::Missing { .. });
    let failure = Failure::from(error);
    if missing { failure.hint("it is made with the first secret: keyferry secret set anthropic:work") } else { failure }
}
