//! The agent's process: started on our terminal, told our signals, and ended when the proxy is gone.
//!
//! The process is started through our own binary ([`enter`]), which asks the kernel to end it together with us
//! and then becomes the command. That step is also where the [guard](super::guard) goes up.
//!
//! Invariant: the process never outlives the proxy that it was given.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::launch::step::own_binary;
use crate::spawn::Spawner;

/// The first argument with which our binary is the step between us and the command.
pub const ENTER: &str = "__enter";

/// Our own failure before the command was started.
pub const OUR_FAILURE: u8 = 125;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code; 126 and 127 when it could not be started, as a shell has it.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// We ended it, because the proxy was gone.
    ProxyGone,
}

impl Ended {
    /// The code that we end with.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX),
            Self::ProxyGone => OUR_FAILURE,
        }
    }
}

/// Why the process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No command.
    #[error("there is no command to run")]
    NoCommand,
    /// Our own binary cannot be started again.
    #[error("the command could not be started: {0}")]
    Start(#[source] io::Error),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[source] io::Error),
}

/// Runs `command` with exactly `environment`, on our standard streams and in our process group, until it ends.
/// `guard` is what the step before it is told. When `proxy_gone` becomes ready first, the process is ended.
///
/// Start it on a thread that lives as long as the process: the kernel ends the process when that thread ends.
///
/// # Errors
/// [`LaunchError`] when nothing was started.
pub async fn run(
    command: &[OsString],
    environment: &[(OsString, OsString)],
    guard: &[OsString],
    spawner: &Spawner,
    proxy_gone: impl Future<Output = ()>,
) -> Result<Ended, LaunchError> {
    if command.is_empty() {
        return Err(LaunchError::NoCommand);
    }
    // Before the start, so that no signal falls between.
    let mut signals = Signals::listen(spawner).map_err(LaunchError::Signals)?;
    let mut child = start(command, environment, guard).map_err(LaunchError::Start)?;
    tokio::pin!(proxy_gone);
    loop {
        tokio::select! {
            status = child.wait() => return Ok(ended(status)),
            () = &mut proxy_gone => {
                end(&mut child).await;
                return Ok(Ended::ProxyGone);
            }
            Some(received) = signals.received.recv() => tell(&child, received),
        }
    }
}

/// Becomes the command: what our binary does when its first argument is [`ENTER`], with the arguments after it.
///
/// # Errors
/// Always an error, with the exit code a shell would give: what comes back was not started.
pub fn enter(arguments: &[OsString]) -> (u8, String) {
    let Some((parent, rest)) = arguments.split_first() else { return (OUR_FAILURE, "no command".to_owned()) };
    let (guarded, rest) = behind_guard(rest);
    let Some((program, arguments)) = rest.split_first().filter(|(word, _)| *word == "--").and_then(|_| {
        let (_, command) = rest.split_first()?;
        command.split_first()
    }) else {
        return (OUR_FAILURE, "no command".to_owned());
    };
    if let Err(error) = guarded.and_then(|()| tie_to(parent)) {
        return (OUR_FAILURE, format!("the command was not started: {error}"));
    }
    let error = match become_command(program, arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let name = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => (127, format!("{name}: command not found")),
        io::ErrorKind::PermissionDenied => (126, format!("{name}: permission denied")),
        _ => (126, format!("{name}: {error}")),
    }
}

/// Puts this process behind the guard that the front of `rest` names, if it names one.
#[cfg(target_os = "linux")]
fn behind_guard(rest: &[OsString]) -> (Result<(), String>, &[OsString]) {
    let (guard, rest) = super::guard::Guard::parse(rest);
    (guard.map_or(Ok(()), |guard| guard.enforce().map(drop)), rest)
}

#[cfg(not(target_os = "linux"))]
fn behind_guard(rest: &[OsString]) -> (Result<(), String>, &[OsString]) {
    (Ok(()), rest)
}

fn become_command(program: &OsStr, arguments: &[OsString]) -> Result<Infallible, io::Error> {
    // The standard library also gives the command the default disposition of SIGPIPE back.
    Err(std::process::Command::new(program).args(arguments).exec())
}

/// Asks the kernel to end this process with its parent, and makes sure that the parent was still there.
fn tie_to(parent: &OsStr) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    let alive = rustix::process::getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_pid().to_string()));
    if alive { Ok(()) } else { Err("keyferry has ended".to_owned()) }
}

fn start(command: &[OsString], environment: &[(OsString, OsString)], guard: &[OsString]) -> io::Result<Child> {
    let mut step = own_binary(ENTER)?;
    step.arg(std::process::id().to_string())
        .args(guard)
        .arg("--")
        .args(command)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        // If this future is dropped, by a panic say, the process goes too.
        .kill_on_drop(true);
    step.spawn()
}

fn ended(status: io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => Ended::Code(OUR_FAILURE),
        },
        Err(_) => Ended::Code(OUR_FAILURE),
    }
}

/// How long the process has to end by itself when its proxy is gone.
const GRACE: Duration = Duration::from_secs(5);

async fn end(child: &mut Child) {
    send(child, Signal::TERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        // It may have ended meanwhile; then there is nothing to do.
        let _ = child.kill().await;
    }
}

fn send(child: &Child, signal: Signal) {
    // Not reaped as long as `id` answers, so the number is still this process's own.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn tell(child: &Child, signal: Signal) {
    // Ctrl-C and Ctrl-\ reach the whole foreground group from the terminal. A second copy from us would count as
    // a second key press, which many agents take for "quit now".
    let from_keyboard = matches!(signal, Signal::INT | Signal::QUIT);
    if !(from_keyboard && in_the_foreground()) {
        send(child, signal);
    }
}

fn in_the_foreground() -> bool {
    let terminal = io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    terminal
        && File::open("/dev/tty")
            .ok()
            .and_then(|tty| rustix::termios::tcgetpgrp(tty).ok())
            .is_some_and(|group| group == rustix::process::getpgrp())
}

struct Signals {
    received: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Receives every signal that is passed on, but leaves those alone that our caller had ignored (`nohup`, a
    /// background job): the process inherits that.
    fn listen(spawner: &Spawner) -> io::Result<Self> {
        let kinds = [
            (Signal::INT, SignalKind::interrupt()),
            (Signal::QUIT, SignalKind::quit()),
            (Signal::TERM, SignalKind::terminate()),
            (Signal::HUP, SignalKind::hangup()),
            (Signal::USR1, SignalKind::user_defined1()),
            (Signal::USR2, SignalKind::user_defined2()),
        ];
        let ignored = ignored();
        // More than a few unread signals mean the same as a few.
        let (sender, received) = mpsc::channel(16);
        for (number, kind) in kinds {
            if ignored & (1u64 << number.as_raw().saturating_sub(1).clamp(0, 63)) != 0 {
                continue;
            }
            let mut stream = signal(kind)?;
            let sender = sender.clone();
            spawner.spawn(async move {
                loop {
                    tokio::select! {
                        () = sender.closed() => return,
                        got = stream.recv() => if got.is_none() || sender.send(number).await.is_err() { return },
                    }
                }
            });
        }
        Ok(Self { received })
    }
}

/// The signals that this process ignores, as a mask; none where the kernel does not say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(Ended::Code(7).exit_code(), 7);
        assert_eq!(Ended::Signal(15).exit_code(), 143);
        assert_eq!(Ended::Signal(9).exit_code(), 137);
        assert_eq!(Ended::ProxyGone.exit_code(), 125);
    }

    #[test]
    fn an_incomplete_step_is_our_failure() {
        assert_eq!(enter(&[]).0, OUR_FAILURE);
        assert_eq!(enter(&["1".into()]).0, OUR_FAILURE);
    }
}
