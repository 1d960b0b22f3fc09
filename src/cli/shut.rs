//! How the command of `run` is shut in: what is kept from it, and the ways that are left.
//!
//! Invariant: what is announced holds, or the command does not start.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;

use super::args::{Lock, Run};
use super::output::{Failure, Outcome};
use super::process::reachable;
use crate::admin::Session;
use crate::config::{Config, MasterKey, VaultUrl};
use crate::home::Home;
use crate::id::AgentName;
use crate::launch::files::ChildFiles;
use crate::proxy::{Resident, Way, lead};
use crate::spawn::Spawner;

#[cfg(target_os = "linux")]
use crate::launch::guard::{Guard, Strength};
#[cfg(target_os = "linux")]
use crate::launch::lock;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    guard: bool,
    lock: bool,
    local: Vec<u16>,
}

impl Asked {
    /// Reads the options.
    ///
    /// # Errors
    /// For what is not built.
    pub fn of(command: &Run) -> Outcome<Self> {
        if command.lock == Some(Lock::Partial) {
            return Err(Failure::not_yet("keyferry run --lock=partial"));
        }
        let lock = command.lock.is_some();
        Ok(Self { guard: !command.no_guard, lock, local: command.allow_local.clone() })
    }

    /// Finds out what holds on this machine.
    ///
    /// # Errors
    /// When `--lock` cannot be had.
    #[cfg(target_os = "linux")]
    pub async fn shut(&self, home: &Home, config: &Config) -> Outcome<Shut> {
        if !self.guard {
            return Ok(Shut { guard: None, said: "guard off: the command can read what you can".to_owned() });
        }
        let guard = guard_of(home, config);
        let strength = guard.probe().await;
        match &strength {
            Strength::None(why) if self.lock => Err(Failure::new(format!("--lock cannot be had here: {why}"))
                .hint("allow user namespaces to this user, or run without --lock: hosts stay reachable then")),
            Strength::None(_) => Ok(Shut { guard: None, said: strength.to_string() }),
            _ if self.lock => {
                Ok(Shut { guard: Some((guard, Some(self.local.clone()))), said: format!("locked in; {strength}") })
            }
            _ => Ok(Shut { guard: Some((guard, None)), said: strength.to_string() }),
        }
    }

    /// Finds out what holds on this machine: nothing yet.
    ///
    /// # Errors
    /// When `--lock` cannot be had.
    #[cfg(not(target_os = "linux"))]
    pub async fn shut(&self, _home: &Home, _config: &Config) -> Outcome<Shut> {
        if self.lock {
            return Err(Failure::new("--lock needs Linux"));
        }
        Ok(Shut { said: "guard not enforced: the command can read what you can (it needs Linux)".to_owned() })
    }
}

/// Everything of this installation: its directories, and vault and key where they stand elsewhere.
#[cfg(target_os = "linux")]
pub fn guard_of(home: &Home, config: &Config) -> Guard {
    let mut paths = home.directories();
    if let VaultUrl::Sqlite(file) = &config.vault.url {
        let file = home.resolve(file);
        paths.extend(["", "-wal", "-shm"].map(|end| {
            let mut name = file.clone().into_os_string();
            name.push(end);
            PathBuf::from(name)
        }));
    }
    if let MasterKey::File(file) = &config.vault.master_key {
        paths.push(home.resolve(file));
    }
    Guard::of(paths)
}

/// What holds.
pub struct Shut {
    #[cfg(target_os = "linux")]
    guard: Option<(Guard, Option<Vec<u16>>)>,
    /// In words.
    pub said: String,
}

impl Shut {
    /// Gets the ways ready that the command has, and names them in `session`; what the step before the command is told.
    ///
    /// # Errors
    /// When the socket for them cannot be made.
    pub fn ways(&self, session: &mut Session, files: &ChildFiles, spawner: &Spawner) -> Outcome<Vec<OsString>> {
        #[cfg(target_os = "linux")]
        if let Some((guard, local)) = &self.guard {
            let Some(local) = local else { return Ok(guard.arguments()) };
            let ways = inside(session, local);
            let socket = files.place("lock.sock");
            let bound = lock::bind(&socket).map_err(|error| Failure::new(format!("{}: {error}", socket.display())))?;
            let ports = ways.iter().map(|(port, _)| *port).collect();
            let locked = guard.clone().locked(lock::Inside { socket: socket.clone(), ports });
            let own = spawner.clone();
            spawner.spawn(async move {
                let stopped = own.clone();
                let listeners = tokio::select! {
                    () = stopped.stopping() => return,
                    listeners = lock::listeners(&bound, ways.len()) => listeners,
                };
                // Without them the command does not start, and says so itself.
                let Ok(listeners) = listeners else { return };
                let _ = std::fs::remove_file(&socket);
                for (listener, (_, way)) in listeners.into_iter().zip(ways) {
                    own.spawn(lead(listener, way, own.clone()));
                }
            });
            return Ok(locked.arguments());
        }
        let _ = (session, files, spawner);
        Ok(Vec::new())
    }
}

/// The ports in a locked command's network and where they lead. The session names them afterwards.
#[cfg(target_os = "linux")]
fn inside(session: &mut Session, local: &[u16]) -> Vec<(u16, Way)> {
    let plain = |target| Way { target, authorization: None, resident: None };
    let on_loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let authorization = Some(authorization(session));
    let listeners = &mut session.listeners;
    let proxy = reachable(listeners.proxy);
    let mut ways = vec![(proxy.port(), plain(proxy))];
    listeners.proxy = on_loopback(proxy.port());
    if let Some(base) = listeners.base_url.map(reachable) {
        ways.push((base.port(), plain(base)));
        listeners.base_url = Some(on_loopback(base.port()));
    }
    if let Some(open) = listeners.open {
        // Nobody else is in that network, so who comes there is known.
        ways.push((open.port(), Way { target: proxy, authorization, resident: None }));
        listeners.open = Some(on_loopback(open.port()));
    }
    for port in local {
        if ways.len() < lock::MOST_PORTS && ways.iter().all(|(taken, _)| taken != port) {
            ways.push((*port, plain(on_loopback(*port))));
        }
    }
    ways
}

/// A listener of ours that leads programs without authentication to the daemon's proxy, as the session's agent; it ends
/// with this process.
///
/// # Errors
/// When there is no port.
pub async fn open_beside(session: &mut Session, spawner: &Spawner) -> Outcome {
    let failed =
        |error: std::io::Error| Failure::new(format!("no listener for programs without authentication: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let resident = Resident { agent: AgentName::parse(&session.agent)?, uid: None };
    let target = reachable(session.listeners.proxy);
    let way = Way { target, authorization: Some(authorization(session)), resident: Some(resident) };
    spawner.spawn(lead(listener, way, spawner.clone()));
    session.listeners.open = Some(address);
    Ok(())
}

fn authorization(session: &Session) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", session.agent, session.token)))
}
