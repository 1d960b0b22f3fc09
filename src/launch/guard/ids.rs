//! User and group numbers in a new namespace: the same as outside.
//!
//! A user may give itself its own number alone; who may set any number (root) gives all of them, from a process that
//! stayed outside.
//!
//! Invariant: nobody's number changes.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};

use super::MAP;
use crate::launch::step;

/// Gives this process its numbers after it left its namespace.
pub struct Mapper {
    helper: Option<Child>,
    user: u32,
    group: u32,
}

impl Mapper {
    /// Gets ready, before the namespace is left.
    ///
    /// # Errors
    /// When the helper of a privileged user cannot be started.
    pub fn prepare() -> Result<Self, String> {
        let user = rustix::process::geteuid();
        let helper = if user.is_root() {
            let mut command = step::own_binary(MAP).map_err(|error| error.to_string())?.into_std();
            command.arg(std::process::id().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
            Some(command.spawn().map_err(|error| error.to_string())?)
        } else {
            None
        };
        Ok(Self { helper, user: user.as_raw(), group: rustix::process::getegid().as_raw() })
    }

    /// Gives the numbers.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn map_this_process(self) -> Result<(), String> {
        let Some(mut helper) = self.helper else { return self.map_own() };
        if let Some(mut stdin) = helper.stdin.take() {
            let _ = stdin.write_all(b"now\n");
        }
        let mut said = String::new();
        if let Some(mut stdout) = helper.stdout.take() {
            let _ = stdout.read_to_string(&mut said);
        }
        let ended = helper.wait().map_err(|error| error.to_string())?;
        if ended.success() { Ok(()) } else { Err(said.trim().to_owned()) }
    }

    fn map_own(&self) -> Result<(), String> {
        let put = |name: &str, text: String| {
            fs::write(format!("/proc/self/{name}"), text).map_err(|error| format!("{name}: {error}"))
        };
        put("uid_map", format!("{0} {0} 1\n", self.user))?;
        // user_namespaces(7): without it, leaving a group could open what was shut to its members.
        put("setgroups", "deny".to_owned())?;
        put("gid_map", format!("{0} {0} 1\n", self.group))
    }
}

/// Waits for a word on stdin, then gives the process that `arguments` name all numbers of this one's namespace: what our
/// binary does when its first argument is [`MAP`].
///
/// # Errors
/// Why that was refused.
pub fn map(arguments: &[OsString]) -> Result<(), String> {
    let pid: u32 = arguments.first().and_then(|pid| pid.to_str()?.parse().ok()).ok_or("no process")?;
    let mut word = [0u8; 4];
    std::io::stdin().read_exact(&mut word).map_err(|error| error.to_string())?;
    for name in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{name}")).map_err(|error| error.to_string())?;
        fs::write(format!("/proc/{pid}/{name}"), same(&own)).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Every number that there is, onto itself: the first and third columns of a map.
fn same(map: &str) -> String {
    let lines = map.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (first, count) = (columns.next()?, columns.nth(1)?);
        Some(format!("{first} {first} {count}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_mapped_onto_itself() {
        assert_eq!(same("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
