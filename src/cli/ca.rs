//! `ca show|path`.

use serde_json::json;

use super::args::{Ca, CaPath};
use super::context::Context;
use super::output::{Failure, Outcome};
use crate::tls::{Authority, CaError};

/// `keyferry ca ..`
pub fn ca(command: &Ca, context: &mut Context) -> Outcome {
    match command {
        Ca::Show => show(context),
        Ca::Path(which) => path(which, context),
        Ca::Trust(_) => Err(Failure::not_yet("keyferry ca trust")),
        Ca::Untrust(_) => Err(Failure::not_yet("keyferry ca untrust")),
        Ca::Rotate(_) => Err(Failure::not_yet("keyferry ca rotate")),
    }
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
