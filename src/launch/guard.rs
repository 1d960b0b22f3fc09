//! The guard of an agent's process: it cannot see Keyferry's home, nor trace, signal or call Keyferry's processes.
//!
//! Two user and mount namespaces, one in the other. In the first an empty, read-only file system covers every place
//! where the home can be reached; in the second, where the command runs, that cover is locked (`mount_namespaces(7)`:
//! mounts inherited from another user namespace "are locked together and may not be separated"), whatever the command
//! is allowed there, root of a container included. The same border keeps `/proc/PID/root`, `/proc/PID/mem` and ptrace of
//! every process outside shut (`user_namespaces(7)`). Landlock's scopes do the same for signals and abstract sockets.
//!
//! Invariant: the command starts with everything that was announced, or not at all.

mod ids;
mod places;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::launch::{lock, step};
use crate::sys::{Network, unshare};

pub use ids::map;
pub use places::is_covered;

/// The first argument with which our binary tries the guard and says what holds.
pub const TRY: &str = "__guard";
/// The first argument with which our binary gives another process its user numbers.
pub const MAP: &str = "__map";

/// What is kept from the command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    cover: Vec<PathBuf>,
    network: Option<lock::Inside>,
}

/// How much of the guard holds on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strength {
    /// All of it.
    Whole,
    /// The home is covered and the processes cannot be traced, but this kernel cannot keep signals in.
    WithoutSignals,
    /// None of it, and why.
    None(String),
}

impl Strength {
    /// Whether the home is out of the command's reach.
    #[must_use]
    pub fn covers(&self) -> bool {
        !matches!(self, Self::None(_))
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("guard: the command cannot see keyferry's home or touch its processes"),
            Self::WithoutSignals => {
                f.write_str("guard: the command cannot see keyferry's home, but can signal it (Linux before 6.12)")
            }
            Self::None(why) => write!(f, "guard not enforced: the command can read what you can ({why})"),
        }
    }
}

impl Guard {
    /// Covers these directories and files, where they exist, by every name that they have.
    #[must_use]
    pub fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut cover: Vec<PathBuf> = paths.into_iter().filter_map(|path| path.canonicalize().ok()).collect();
        cover.sort();
        cover.dedup();
        Self { cover, network: None }
    }

    /// With a network that has nothing but the listeners of `inside`.
    #[must_use]
    pub fn locked(mut self, inside: lock::Inside) -> Self {
        self.network = Some(inside);
        self
    }

    /// Tries it in a process that ends at once, and says what holds.
    pub async fn probe(&self) -> Strength {
        let mut command = match step::own_binary(TRY) {
            Ok(command) => command,
            Err(error) => return Strength::None(error.to_string()),
        };
        let tried = Self { cover: self.cover.clone(), network: None };
        // Where the command starts is its own matter, and found out then.
        command.args(tried.arguments()).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        let Ok(output) = command.output().await else { return Strength::None("it could not be tried".to_owned()) };
        let text = String::from_utf8_lossy(&output.stdout);
        match text.trim() {
            "whole" if output.status.success() => Strength::Whole,
            "signals" if output.status.success() => Strength::WithoutSignals,
            _ => {
                let why = String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("error: ").to_owned();
                Strength::None(if why.is_empty() { "it could not be tried".to_owned() } else { why })
            }
        }
    }

    /// The guard as arguments, for the step between us and the command.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all = vec![OsString::from("--guard")];
        for path in &self.cover {
            all.extend([OsString::from("--cover"), path.clone().into()]);
        }
        if let Some(inside) = &self.network {
            all.extend(inside.arguments());
        }
        all
    }

    /// Reads [`Self::arguments`] from the front of `rest`; none where there is no guard.
    #[must_use]
    pub fn parse(rest: &[OsString]) -> (Option<Self>, &[OsString]) {
        let Some((first, mut rest)) = rest.split_first().filter(|(first, _)| *first == "--guard") else {
            return (None, rest);
        };
        debug_assert_eq!(first, "--guard");
        let mut guard = Self::default();
        loop {
            match rest {
                [name, path, more @ ..] if name == "--cover" => {
                    guard.cover.push(path.into());
                    rest = more;
                }
                _ => {
                    (guard.network, rest) = lock::Inside::parse(rest);
                    return (Some(guard), rest);
                }
            }
        }
    }

    /// Puts this process behind the guard. It must have one thread, and cannot go back.
    ///
    /// # Errors
    /// What could not be done, for a person; this process is fit for nothing then.
    pub fn enforce(&self) -> Result<Strength, String> {
        let place = std::env::current_dir();
        let covers = places::everywhere(&self.cover);
        // The numbers are given by a process of the namespace that is left, where that is allowed to give more than
        // one: it must be there before.
        let network = if self.network.is_some() { Network::Own } else { Network::Shared };
        enter(network).map_err(|error| format!("namespaces are refused here: {error}"))?;
        let private = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
        rustix::mount::mount_change("/", private).map_err(|error| format!("mounts are refused here: {error}"))?;
        for path in &covers {
            cover(path).map_err(|error| format!("{} cannot be covered: {error}", path.display()))?;
        }
        if let Some(inside) = &self.network {
            inside.open()?;
        }
        let strength = scope()?;
        enter(Network::Shared).map_err(|error| format!("nested namespaces are refused here: {error}"))?;
        // The working directory may be one that is covered now: it is found anew by its name.
        match place {
            Ok(place) if std::env::set_current_dir(&place).is_ok() => {}
            _ => return Err("the working directory is inside of keyferry's home; start the command elsewhere".into()),
        }
        Ok(strength)
    }
}

/// Into namespaces of users and mounts in which everybody has the number that they had.
fn enter(network: Network) -> Result<(), String> {
    let mapper = ids::Mapper::prepare()?;
    unshare(network).map_err(|error| error.to_string())?;
    mapper.map_this_process()
}

/// An empty, read-only directory or file in place of `path`.
fn cover(path: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    if std::fs::metadata(path)?.is_dir() {
        rustix::mount::mount("keyferry", path, "tmpfs", flags, c"mode=0555,size=4k")?;
    } else {
        rustix::mount::mount_bind("/dev/null", path)?;
    }
    Ok(())
}

/// Keeps signals and abstract sockets within the command's own processes.
fn scope() -> Result<Strength, String> {
    use landlock::{CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope};
    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .and_then(Ruleset::create);
    let Ok(ruleset) = asked else { return Ok(Strength::WithoutSignals) };
    // Not needed by who may set up a namespace, and it would take setuid programs away.
    let restricted = ruleset.no_new_privs(false).restrict_self();
    restricted.map(|_| Strength::Whole).map_err(|error| format!("signals cannot be kept in: {error}"))
}

/// Tries the guard that `arguments` name: what our binary does when its first argument is [`TRY`].
///
/// # Errors
/// Why it does not hold, for a person.
pub fn tried(arguments: &[OsString]) -> Result<&'static str, String> {
    let (guard, _) = Guard::parse(arguments);
    match guard.unwrap_or_default().enforce()? {
        Strength::Whole => Ok("whole"),
        Strength::WithoutSignals => Ok("signals"),
        Strength::None(why) => Err(why),
    }
}

/// Whether `text` is one of the guard's own steps.
#[must_use]
pub fn is_step(text: &OsStr) -> bool {
    text == TRY || text == MAP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_itself_after_its_way_through_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let guard = Guard::of([dir.path().to_owned(), dir.path().join("missing"), dir.path().join(".")]);
        assert_eq!(guard.cover, [dir.path().canonicalize().unwrap()]);
        let words = [guard.arguments(), vec!["--".into(), "--cover".into(), "x".into()]].concat();
        let (parsed, rest) = Guard::parse(&words);
        assert_eq!(parsed, Some(guard));
        assert_eq!(rest, ["--", "--cover", "x"]);
        assert_eq!(Guard::parse(&["--".into(), "env".into()]).0, None);
    }
}
