//! `env`: the variables for a process that talks to the running daemon.

use std::time::Duration;

use super::agent;
use super::args::{Env, EnvFormat};
use super::context::Context;
use super::daemon::Daemon;
use super::output::{Failure, Outcome};
use super::process::{self, Managed, Wanted};
use crate::launch::exports::{self, Format};
use crate::launch::files::{ChildFiles, Sources};
use crate::vault::VaultError;

/// `keyferry env --agent NAME`
pub async fn env(command: Env, context: &mut Context) -> Outcome {
    let agent = agent::parse(&command.agent)?;
    let ttl = lifetime(&command.ttl).ok_or_else(|| {
        Failure::usage(format!("'{}' is no length of time", command.ttl)).hint("30m, 12h or 7d, 31d at most")
    })?;
    let (home, config) = (context.home()?, context.config()?);
    let catalogue = context.catalogue(&config)?;
    let mut daemon = Daemon::required(&home).await?;
    // A vault that only the daemon can open is no reason to refuse; then names alone decide what is unset.
    let vault = context.vault(&home, &config).await.ok().flatten();
    if let Some(vault) = &vault
        && !config.agents.contains_key(&agent)
        && !vault.agents().await?.iter().any(|row| row.agent == agent)
    {
        // A slip of the pen would make an agent that no rule of the configuration is about.
        return Err(VaultError::NoSuchAgent { agent }.into());
    }
    let session = daemon.session(agent.as_str(), ttl).await?;
    let inherited = context.environment();
    let managed = Managed::of(vault.as_ref(), &[]).await?;
    let (ca, bundle) = process::read_trust(&session)?;
    let sources = Sources { ca: &ca, bundle: &bundle, inherited: &inherited };
    let place = home.runtime_dir();
    let files = ChildFiles::kept(&place, &sources).map_err(|error| {
        Failure::new(format!("certificate files cannot be written in {}: {error}", place.display()))
    })?;
    let wanted = Wanted {
        inherited: &inherited,
        pass: &command.pass_env,
        catalogue: &catalogue,
        config: &config,
        managed: &managed,
    };
    let environment = process::environment(&session, &files, &wanted)?;
    let format = if context.output.is_json() { Format::Json } else { command.format.into() };
    let text = exports::write(format, environment.set(), environment.unset())?;
    context.output.data(&text)?;
    for name in exports::left_over(format, environment.unset()) {
        context.output.warn(&format!("{name} must not be set for the agent, and this format cannot say so: unset it"));
    }
    Ok(())
}

impl From<EnvFormat> for Format {
    fn from(format: EnvFormat) -> Self {
        match format {
            EnvFormat::Sh => Self::Sh,
            EnvFormat::Fish => Self::Fish,
            EnvFormat::Json => Self::Json,
            EnvFormat::Dotenv => Self::Dotenv,
            EnvFormat::Docker => Self::Docker,
        }
    }
}

/// `30m`, `12h`, `7d`, `90s`; between a second and 31 days.
fn lifetime(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=31 * 86400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_of_time() {
        let cases = [("90s", Some(90)), ("30m", Some(1800)), ("12h", Some(43200)), ("7d", Some(604_800))];
        for (text, seconds) in cases {
            assert_eq!(lifetime(text), seconds.map(Duration::from_secs), "{text}");
        }
        for bad in ["", "12", "h", "0s", "-1h", "1.5h", "32d", "12 h", "99999999999999999999d", "1w"] {
            assert_eq!(lifetime(bad), None, "{bad}");
        }
    }
}
