//! What the operating system can do that has no safe wrapper: the one file with `unsafe` code.
//!
//! Invariant: each `unsafe` block says why it is sound; nothing here knows what it is used for.

/// Puts this process into new namespaces of its own: of users and mounts, and of the network if asked.
///
/// # Errors
/// The kernel's: refused by its settings, by a security module, or because this process has more than one thread.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn unshare(network: Network) -> std::io::Result<()> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS;
    if network == Network::Own {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: unsound are the flags that take a thread's file descriptors from its siblings (`FILES`); none of those is
    // among these, and the kernel refuses NEWUSER to a process with several threads.
    unsafe { unshare_unsafe(flags) }.map_err(Into::into)
}

/// Whether the network is shared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// As it is.
    Shared,
    /// A new one with nothing in it.
    Own,
}
