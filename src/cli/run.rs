//! `run`: a command with placeholders instead of keys.
//!
//! Invariant: the command starts only when its proxy does; it gets no variable with the value of a credential.

use std::ffi::OsString;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use super::agent;
use super::args::Run;
use super::context::Context;
use super::daemon::Daemon;
use super::output::{Failure, Outcome};
use super::process::{self, Managed, Wanted};
use super::shut::{Asked, Shut, open_beside};
use crate::admin::Session;
use crate::app::{Found, Mode, Options, Running, find_in_environment};
use crate::home::Home;
use crate::id::AgentName;
use crate::launch::child::{self, Ended};
use crate::provider::Catalogue;
use crate::proxy::Counts;
use crate::spawn::Spawner;
use crate::tls::Inherited;
use crate::upstream::chain::Chain;
use crate::vault::Vault;

/// A session lives as long as its child; this ends those whose `run` was killed.
const SESSION: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long exchanges may go on when the command has ended: nobody reads their answers.
const GRACE: Duration = Duration::from_millis(500);

/// `keyferry run -- CMD`
pub async fn run(command: Run, context: &mut Context) -> Outcome<u8> {
    if command.command.is_empty() {
        return Err(child::LaunchError::NoCommand.into());
    }
    let asked = Asked::of(&command)?;
    refuse_inside(context)?;
    let agent = agent::parse(&command.agent)?;
    let (home, config) = (context.home()?, context.config()?);
    let catalogue = context.catalogue(&config)?;
    let vault = context.vault(&home, &config).await?;
    let inherited = context.environment();
    let found = found(&catalogue, &inherited, &command.pass_env);
    let values: Vec<_> = found.iter().map(|found| Arc::clone(&found.value)).collect();
    let managed = Managed::of(vault.as_ref(), &values).await?;
    let wanted = Wanted {
        inherited: &inherited,
        pass: &command.pass_env,
        catalogue: &catalogue,
        config: &config,
        managed: &managed,
    };

    let daemon = if command.no_daemon { None } else { Daemon::connect(&home).await };
    match daemon {
        Some(daemon) => {
            let shut = asked.shut(&home, &config).await?;
            beside(daemon, &agent, (&command.command, &shut), &found, &wanted, context).await
        }
        None => {
            let parts = Parts { home, vault, found };
            own(parts, &agent, (&command.command, &asked), &wanted, context).await
        }
    }
}

/// A child of `run` that calls `run` again would reach the first proxy through nothing, and hold its placeholders for
/// keys.
fn refuse_inside(context: &Context) -> Outcome {
    if context.variable("KEYFERRY_ACTIVE").is_none() {
        return Ok(());
    }
    let agent = context.variable("KEYFERRY_AGENT").map(|agent| format!(" (agent {})", agent.to_string_lossy()));
    Err(Failure::new(format!("this shell is inside a keyferry environment already{}", agent.unwrap_or_default())).hint(
        "start the command directly, it has placeholders and proxy; or unset KEYFERRY_ACTIVE to start another proxy",
    ))
}

/// The caller's own proxy will be gone through; until then it is better said than missed.
fn warn_of_proxy(context: &mut Context) {
    let set = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if let Some(name) = set.into_iter().find(|name| context.variable(name).is_some()) {
        context.output.warn(&format!(
            "{name} is set, but going through another proxy is not available yet: hosts are reached directly"
        ));
    }
}

fn found(catalogue: &Catalogue, inherited: &[(OsString, OsString)], pass: &[String]) -> Vec<Found> {
    let texts =
        inherited.iter().filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())));
    find_in_environment(catalogue, texts.filter(|(name, _)| !pass.contains(name)))
}

struct Parts {
    home: Home,
    vault: Option<Vault>,
    found: Vec<Found>,
}

/// With a proxy in this process.
async fn own(
    parts: Parts,
    agent: &AgentName,
    (command, asked): (&[OsString], &Asked),
    wanted: &Wanted<'_>,
    context: &mut Context,
) -> Outcome<u8> {
    let Parts { home, vault, found } = parts;
    // The command's own screen should not be written over, so only what is broken is told.
    context.start_messages("error")?;
    warn_of_proxy(context);
    home.create()?;
    let nothing = vault.is_none() && found.is_empty();
    let vault = match vault {
        Some(vault) => vault,
        None => Vault::ephemeral().await?,
    };
    let guarded = home.clone();
    let options = Options {
        redactor: context.redactor(),
        config_file: context.config_file()?,
        home,
        config: wanted.config.clone(),
        mode: Mode::Run,
        vault,
        found,
        lines_to_stdout: false,
        companion: Some(agent.clone()),
        way_out: way_out(context)?,
        inherited: Inherited::from_environment(&|name| context.variable(name).map(ToOwned::to_owned)),
    };
    // What the machine allows is found out beside the start, which takes longer.
    let (shut, running) = tokio::join!(asked.shut(&guarded, wanted.config), Running::start(options));
    let running = running?;
    let shut = match shut {
        Ok(shut) => shut,
        Err(failure) => {
            running.stop(GRACE).await;
            return Err(failure);
        }
    };
    let mut session = running.session(agent, SESSION).await.map_err(refused)?;
    let pools: Vec<String> = running
        .pools(agent)
        .into_iter()
        .map(|(provider, count)| if count == 1 { provider } else { format!("{provider} ({count} profiles)") })
        .collect();
    say_start(&session, &pools, "", &shut, context);
    if nothing {
        context
            .output
            .next("nothing is stored: every host is reached as without keyferry. keyferry secret set anthropic:work");
    }
    let ended = launch(&mut session, (command, &shut), wanted, context).await;
    // The token is gone with the vault, or must not outlive its child.
    let _ = running.end_session(&session.token).await;
    let replaced = running.replaced();
    let counts = running.stop(GRACE).await;
    let ended = ended?;
    for provider in replaced {
        context.output.say(&format!(
            "a credential of the command's own for {provider} was replaced by the stored one; \
             pools.{provider}.foreign in keyferry.yaml can say pass or refuse"
        ));
    }
    context.output.say(&format!("keyferry: {}", in_words(&counts)));
    Ok(code(ended, context))
}

/// The proxies that the caller's environment names: what would have been taken without us.
fn way_out(context: &Context) -> Outcome<Option<Chain>> {
    let chain = Chain::from_environment(&|name| context.variable(name).map(|text| text.to_string_lossy().into_owned()));
    chain.map_err(|(variable, error)| {
        Failure::new(format!("{variable} names a proxy that cannot be used: {error}"))
            .hint(format!("unset {variable}, or set it to http://host:port"))
    })
}

/// With the daemon's proxy.
async fn beside(
    mut daemon: Daemon,
    agent: &AgentName,
    (command, shut): (&[OsString], &Shut),
    found: &[Found],
    wanted: &Wanted<'_>,
    context: &mut Context,
) -> Outcome<u8> {
    let mut session = daemon.session(agent.as_str(), SESSION).await?;
    let spawner = Spawner::default();
    open_beside(&mut session, &spawner).await?;
    let mut providers: Vec<String> = session.installed.iter().map(|installed| installed.provider.clone()).collect();
    providers.sort_unstable();
    providers.dedup();
    say_start(&session, &providers, " (the running daemon)", shut, context);
    for found in found {
        let provider = wanted.catalogue.by_env(&found.variable).map(|(provider, _)| provider.id.to_string());
        if let Some(provider) = provider.filter(|provider| !providers.contains(provider)) {
            context.output.warn(&format!(
                "{} is not passed on, and the daemon has no credential of {provider}. Store it: \
                 keyferry secret set {provider}:NAME --from-env {}",
                found.variable, found.variable
            ));
        }
    }
    let ended = launch(&mut session, (command, shut), wanted, context).await;
    spawner.stop();
    let _ = daemon.end_session(&session.token).await;
    Ok(code(ended?, context))
}

async fn launch(
    session: &mut Session,
    (command, shut): (&[OsString], &Shut),
    wanted: &Wanted<'_>,
    context: &mut Context,
) -> Outcome<Ended> {
    let files = process::child_files(session, wanted.inherited, context)?;
    let spawner = Spawner::default();
    let guard = shut.ways(session, &files, &spawner)?;
    let environment = process::environment(session, &files, wanted)?;
    for name in environment.hidden() {
        context.output.warn(&format!("{name} holds the value of a credential and is not passed on"));
    }
    let whole = environment.apply(wanted.inherited);
    let ended = child::run(command, &whole, &guard, &spawner, pending()).await;
    spawner.stop();
    Ok(ended?)
}

fn say_start(session: &Session, pools: &[String], more: &str, shut: &Shut, context: &mut Context) {
    let pools = if pools.is_empty() { "no credentials".to_owned() } else { pools.join(", ") };
    let (agent, proxy, said) = (&session.agent, session.listeners.proxy, &shut.said);
    context.output.done(&format!("keyferry: agent {agent} through {proxy}{more}: {pools} ({said})"));
}

fn code(ended: Ended, context: &mut Context) -> u8 {
    if ended == Ended::ProxyGone {
        context.output.warn("the proxy was gone, so the command was ended");
    }
    ended.exit_code()
}

/// What happened, as one line.
pub fn in_words(counts: &Counts) -> String {
    let mut text = format!("{} request{}", counts.exchanges, if counts.exchanges == 1 { "" } else { "s" });
    let parts = [
        (counts.injected, "with a credential"),
        (counts.rotations, "moved to another profile"),
        (counts.denied, "refused"),
        (counts.redactions, "secrets taken out of answers"),
    ];
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {what}"));
    }
    text
}

fn refused(error: crate::admin::ControlError) -> Failure {
    Failure::new(error.message).maybe_hint(error.hint)
}
