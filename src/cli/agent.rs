//! `agent create|list|rotate|revoke`.

use serde_json::json;

use super::args::Agent;
use super::context::Context;
use super::output::{Failure, Outcome};
use super::shapes::{AgentShape, ago};
use super::{changes, first_use, input};
use crate::id::AgentName;
use crate::secret::Secret;
use crate::telemetry::Action;
use crate::vault::{Vault, VaultError};

/// `keyferry agent ..`
pub async fn agent(command: Agent, context: &mut Context) -> Outcome {
    match command {
        Agent::Create(agent) => create(&parse(&agent.name)?, context).await,
        Agent::List => list(context).await,
        Agent::Rotate(change) => rotate(&parse(&change.name)?, change.yes, context).await,
        Agent::Revoke(change) => revoke(&parse(&change.name)?, change.yes, context).await,
    }
}

/// Reads an agent's name. One with a leading dash would be taken for an option wherever it is written.
///
/// # Errors
/// A usage fault with what is wrong.
pub fn parse(name: &str) -> Outcome<AgentName> {
    if name.starts_with('-') {
        return Err(Failure::usage(format!("'{name}' is no agent's name: it begins with a dash")));
    }
    AgentName::parse(name).map_err(|error| Failure::usage(format!("'{name}' is no agent's name: {error}")))
}

async fn create(agent: &AgentName, context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let vault = first_use::open(context, &home, &config).await?;
    let token = vault.create_agent(agent, context.now()).await?;
    changes::record(&home, &vault, Action::AgentCreated, agent.as_str(), context).await?;
    show(agent, &token, context)?;
    context.output.next("its proxy: HTTPS_PROXY=http://AGENT:TOKEN@ADDRESS, or let `keyferry env` write all variables");
    Ok(())
}

/// The token goes to stdout alone, so that a script can take it; it is never shown again.
fn show(agent: &AgentName, token: &Secret, context: &mut Context) -> Outcome {
    let text = String::from_utf8_lossy(token.expose());
    if context.output.is_json() {
        return context.output.json(&json!({ "agent": agent.as_str(), "token": text }));
    }
    context.output.done(&format!("token of agent {agent}, shown this once:"));
    context.output.data(&text)
}

async fn list(context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    let agents = match context.vault(&home, &config).await? {
        Some(vault) => vault.agents().await?,
        None => Vec::new(),
    };
    if context.output.is_json() {
        return context.output.json(&agents.iter().map(AgentShape::from).collect::<Vec<_>>());
    }
    if agents.is_empty() {
        context.output.say("there is no agent yet");
        context.output.next("keyferry agent create NAME");
        return Ok(());
    }
    let now = context.now();
    let rows = agents.iter().map(|row| {
        let seen = row.last_seen.map_or_else(|| "never".to_owned(), |time| ago(time, now));
        let state = if row.revoked { "revoked" } else { "active" };
        vec![row.agent.to_string(), state.to_owned(), ago(row.created, now), seen]
    });
    context.output.table(&["agent", "state", "created", "last seen"], rows)
}

async fn rotate(agent: &AgentName, yes: bool, context: &mut Context) -> Outcome {
    let home = context.home()?;
    let vault = known(agent, context).await?;
    if !input::confirm(context, &format!("The present tokens of agent {agent} stop working. Rotate?"), yes)? {
        return Err(Failure::new("nothing was changed"));
    }
    let token = vault.rotate_agent(agent, context.now()).await?;
    changes::record(&home, &vault, Action::AgentRotated, agent.as_str(), context).await?;
    show(agent, &token, context)
}

async fn revoke(agent: &AgentName, yes: bool, context: &mut Context) -> Outcome {
    let home = context.home()?;
    let vault = known(agent, context).await?;
    if !input::confirm(context, &format!("Agent {agent} loses its tokens and sessions. Revoke?"), yes)? {
        return Err(Failure::new("nothing was changed"));
    }
    vault.revoke_agent(agent, context.now()).await?;
    changes::record(&home, &vault, Action::AgentRevoked, agent.as_str(), context).await?;
    context.output.done(&format!("agent {agent} is revoked"));
    Ok(())
}

/// The vault, if the agent is on file.
async fn known(agent: &AgentName, context: &Context) -> Outcome<Vault> {
    let (home, config) = (context.home()?, context.config()?);
    let no_such = || Failure::from(VaultError::NoSuchAgent { agent: agent.clone() });
    let vault = context.vault(&home, &config).await?.ok_or_else(no_such)?;
    if vault.agents().await?.iter().any(|row| row.agent == *agent) { Ok(vault) } else { Err(no_such()) }
}
