//! `profile list|reset|disable|enable`.

use serde_json::Value;

use super::args::Profile;
use super::context::Context;
use super::daemon::Daemon;
use super::offline;
use super::output::{Failure, Outcome};
use crate::id::ProfileId;
use crate::telemetry::Action;

/// `keyferry profile ..`
pub async fn profile(command: Profile, context: &mut Context) -> Outcome {
    match command {
        Profile::List => list(context).await,
        Profile::Reset(which) => change(&which.profile, Change::RESET, context).await,
        Profile::Disable(which) => change(&which.profile, Change::DISABLE, context).await,
        Profile::Enable(which) => change(&which.profile, Change::ENABLE, context).await,
        Profile::Test(_) => Err(Failure::not_yet("keyferry profile test")),
    }
}

async fn list(context: &mut Context) -> Outcome {
    let home = context.home()?;
    let profiles = match Daemon::connect(&home).await {
        Some(mut daemon) => daemon.profiles().await?,
        None => offline::profiles(context).await?,
    };
    if context.output.is_json() {
        return context.output.json(&profiles);
    }
    table(&profiles, context)
}

/// The table of profiles, which `status` shows too.
pub fn table(profiles: &Value, context: &mut Context) -> Outcome {
    let profiles = profiles.as_array().map(Vec::as_slice).unwrap_or_default();
    if profiles.is_empty() {
        context.output.say("no profile yet");
        context.output.next("keyferry secret set anthropic:work");
        return Ok(());
    }
    let rows = profiles.iter().map(|profile| {
        let text = |key: &str| profile.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        vec![text("profile"), text("type"), text("state"), text("until"), text("reason"), text("last_used")]
    });
    context.output.table(&["profile", "type", "state", "until", "reason", "last used"], rows)
}

/// A change to one profile.
struct Change {
    word: &'static str,
    action: Action,
    done: &'static str,
}

impl Change {
    const RESET: Self = Self { word: "reset", action: Action::ProfileReset, done: "ready again" };
    const DISABLE: Self = Self { word: "disable", action: Action::ProfileDisabled, done: "disabled" };
    const ENABLE: Self = Self { word: "enable", action: Action::ProfileEnabled, done: "enabled" };
}

async fn change(text: &str, change: Change, context: &mut Context) -> Outcome {
    let profile = ProfileId::parse(text).map_err(|_| {
        Failure::usage(format!("'{text}' is no profile")).hint("a profile is PROVIDER:NAME, see keyferry profile list")
    })?;
    let home = context.home()?;
    match Daemon::connect(&home).await {
        Some(mut daemon) => daemon.profile(&profile.to_string(), change.word).await?,
        None => offline::change(&profile, change.action, context).await?,
    }
    context.output.done(&format!("{profile} is {}", change.done));
    Ok(())
}
