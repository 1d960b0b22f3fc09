//! `profile list|test|reset|disable|enable`.

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
        Profile::Test(which) => test(&which.profile, context).await,
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

async fn test(text: &str, context: &mut Context) -> Outcome {
    let profile = parsed(text)?;
    let home = context.home()?;
    let result = match Daemon::connect(&home).await {
        Some(mut daemon) => daemon.test(&profile.to_string()).await?,
        None => offline::test(&profile, context).await?,
    };
    let word = result.get("outcome").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    if context.output.is_json() {
        context.output.json(&result)?;
    } else if word == "success" {
        context.output.done(&format!("{profile} works"));
    }
    if word == "success" {
        return Ok(());
    }
    let status = result.get("status").and_then(Value::as_u64).map_or_else(String::new, |status| format!(" ({status})"));
    Err(Failure::new(format!("{profile}: the provider's answer was {word}{status}"))
        .hint(format!("store another value: keyferry secret set {profile}")))
}

fn parsed(text: &str) -> Outcome<ProfileId> {
    ProfileId::parse(text).map_err(|_| {
        Failure::usage(format!("'{text}' is no profile")).hint("a profile is PROVIDER:NAME, see keyferry profile list")
    })
}

async fn change(text: &str, change: Change, context: &mut Context) -> Outcome {
    let profile = parsed(text)?;
    let home = context.home()?;
    match Daemon::connect(&home).await {
        Some(mut daemon) => daemon.profile(&profile.to_string(), change.word).await?,
        None => offline::change(&profile, change.action, context).await?,
    }
    context.output.done(&format!("{profile} is {}", change.done));
    Ok(())
}
