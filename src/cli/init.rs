//! `init`: a commented configuration.

use super::args::Init;
use super::context::Context;
use super::first_use;
use super::output::{Failure, Outcome};
use crate::home::write_private;

/// Loaded by a test, which also compares it with the defaults.
const EXAMPLE: &str = include_str!("../../config/keyferry.example.yaml");

/// `keyferry init`
pub async fn init(command: &Init, context: &mut Context) -> Outcome {
    if command.template.is_some() {
        return Err(Failure::not_yet("keyferry init --template"));
    }
    if command.allow_reveal && context.home()?.vault_db().exists() {
        return Err(Failure::new(
            "there is a vault already, and whether a vault shows its values is said when it is made",
        )
        .hint("for a vault that does, begin in a home of its own: --home DIR"));
    }
    let file = context.config_file()?;
    if file.exists() && !command.yes {
        return Err(Failure::new(format!("{} is there already", file.display()))
            .hint("keyferry config check judges it; keyferry init --yes replaces it"));
    }
    if context.global.config.is_none() {
        context.home()?.create()?;
    }
    write_private(&file, EXAMPLE.as_bytes())
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", file.display())))?;
    if command.allow_reveal {
        let (home, config) = (context.home()?, context.config()?);
        let vault = first_use::open(context, &home, &config).await?;
        vault.permit_reveal(&home)?;
        context.output.warn("whoever may run this program as you may see the values of this vault with secret reveal");
    }
    if context.output.is_json() {
        return context.output.json(&serde_json::json!({ "config": file }));
    }
    context.output.done(&format!("wrote {}", file.display()));
    context.output.next("every setting in it is optional; after a change: keyferry config check");
    Ok(())
}
