//! Our own binary, started again for a step that needs a process of its own.
//!
//! Invariant: it is the binary that runs now, even if its file was replaced meanwhile.

use std::io;
use std::path::Path;

use tokio::process::Command;

/// Our binary with `step` as its first argument.
///
/// # Errors
/// When it cannot be found.
pub fn own_binary(step: &str) -> io::Result<Command> {
    let linux = Path::new("/proc/self/exe");
    let binary = if linux.exists() { linux.to_owned() } else { std::env::current_exe()? };
    let mut command = Command::new(binary);
    command.arg0("keyferry").arg(step);
    Ok(command)
}
