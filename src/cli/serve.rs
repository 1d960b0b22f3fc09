//! `serve`: the daemon in the foreground.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::daemon::Daemon;
use super::first_use;
use super::output::{Failure, Outcome};
use super::run::in_words;
use crate::app::{AppError, Mode, Options, Running};
use crate::config::Level;
use crate::tls::Inherited;

/// How long exchanges may go on after the first signal to stop; a second signal ends the wait.
const GRACE: Duration = Duration::from_secs(30);

/// How often the configuration file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// More than any configuration; what lies behind is not looked at.
const LARGEST: u64 = 16 * 1024 * 1024;

/// `keyferry serve`
pub async fn serve(context: &mut Context) -> Outcome {
    let (home, config) = (context.home()?, context.config()?);
    context.start_messages(level(config.log.level))?;
    config.warnings.0.iter().for_each(|warning| context.output.warn(&warning.to_string()));
    // Found here, it is named for what it is: its ports alone would look like another program's.
    if Daemon::connect(&home).await.is_some() {
        return Err(AppError::AlreadyRunning.into());
    }
    home.create()?;
    let vault = first_use::open(context, &home, &config).await?;
    let config_file = context.config_file()?;
    // Before the start, so that no signal falls between.
    let mut stop = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?];
    let mut reload = listen(SignalKind::hangup())?;
    let running = Running::start(Options {
        redactor: context.redactor(),
        home,
        config_file: config_file.clone(),
        config,
        mode: Mode::Serve,
        vault,
        found: Vec::new(),
        lines_to_stdout: true,
        companion: None,
        way_out: None,
        inherited: Inherited::from_environment(&|name| context.variable(name).map(ToOwned::to_owned)),
    })
    .await?;
    say_ready(&running, context);
    let mut watched = Watched::new(&config_file);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let [terminate, interrupt] = &mut stop;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The outcome is in the log, the metrics and the status.
            _ = reload.recv() => { let _ = running.reload().await; }
            _ = looks.tick() => if watched.changed(&config_file) { let _ = running.reload().await; },
        }
    }
    context.output.say("stopping; exchanges may finish");
    let summary = tokio::select! {
        summary = running.stop(GRACE) => Some(summary),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    match summary {
        Some(counts) => context.output.say(&format!("stopped: {}", in_words(&counts))),
        None => context.output.warn("stopped at once: exchanges were cut off"),
    }
    Ok(())
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn listen(kind: SignalKind) -> Outcome<tokio::signal::unix::Signal> {
    signal(kind).map_err(|error| Failure::new(format!("signals cannot be received: {error}")))
}

fn say_ready(running: &Running, context: &mut Context) {
    let listeners = running.listeners();
    context.output.done(&format!("proxy     {}", listeners.proxy));
    if let Some(base_url) = listeners.base_url {
        context.output.done(&format!("base URL  http://{base_url}/PROVIDER/"));
    }
    if let Some(url) = &listeners.proxy_tls {
        context.output.done(&format!("over TLS  {url}"));
    }
    if let Some(address) = listeners.transparent {
        context.output.done(&format!("redirect  {address}"));
    }
    if let Some(path) = &listeners.unix {
        context.output.done(&format!("socket    {}", path.display()));
    }
    if let Some(admin) = listeners.admin {
        context.output.done(&format!("admin     http://{admin}/metrics"));
    }
    context.output.next("a token for an agent: keyferry agent create NAME; or variables: keyferry env --agent NAME");
}

/// A file whose changes are noticed when it has come to rest: an editor may write it in several steps. What stands in it
/// counts, not its dates, and a link in its path may be swapped, as Kubernetes does.
struct Watched {
    taken: Option<Digest>,
    seen: Option<Digest>,
}

type Digest = [u8; 32];

impl Watched {
    fn new(path: &Path) -> Self {
        let digest = digest(path);
        Self { taken: digest, seen: digest }
    }

    /// Whether the file differs from what was taken last, and looks as it did at the previous look.
    fn changed(&mut self, path: &Path) -> bool {
        let now = digest(path);
        let rested = now == self.seen;
        self.seen = now;
        if !rested || now == self.taken {
            return false;
        }
        self.taken = now;
        true
    }
}

fn digest(path: &Path) -> Option<Digest> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(Sha256::digest(&bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_once_and_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keyferry.yaml");
        let mut watched = Watched::new(&file);
        assert!(!watched.changed(&file));
        std::fs::write(&file, "a").unwrap();
        assert!(!watched.changed(&file), "it may still be written");
        std::fs::write(&file, "ab").unwrap();
        assert!(!watched.changed(&file));
        assert!(watched.changed(&file));
        assert!(!watched.changed(&file));
        // The same again, and another of the same length, by the swap of a link.
        std::fs::write(&file, "ab").unwrap();
        assert!(!watched.changed(&file) && !watched.changed(&file));
        let other = dir.path().join("other");
        std::fs::write(&other, "xy").unwrap();
        std::os::unix::fs::symlink("other", dir.path().join("link")).unwrap();
        std::fs::rename(dir.path().join("link"), &file).unwrap();
        assert!(!watched.changed(&file) && watched.changed(&file));
        std::fs::remove_file(&file).unwrap();
        assert!(!watched.changed(&file));
        assert!(watched.changed(&file), "a file that is gone has changed too");
    }
}
