//! What the operating system can do that has no safe wrapper: the one file with `unsafe` code.
//!
//! Memory for keys in pages of their own, kept out of swap and of core dumps, and namespaces for an agent's process.
//!
//! Invariant: each `unsafe` block says why it is sound; a [`KeyMemory`] is overwritten before it goes back to the system.

#![allow(unsafe_code, reason = "locking pages and leaving namespaces; nothing else in the crate is unsafe")]

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags};
use zeroize::Zeroize as _;

/// The length of a key in bytes.
pub const KEY_BYTES: usize = 32;

/// Becomes true when a page could not be locked, for lack of `RLIMIT_MEMLOCK` say.
static SWAPPABLE: AtomicBool = AtomicBool::new(false);

/// Whether every key so far is in memory that is never swapped.
#[must_use]
pub fn keys_are_locked() -> bool {
    !SWAPPABLE.load(Ordering::Relaxed)
}

/// One key in a page of its own.
///
/// The page is locked and left out of core dumps where the system allows it; where it does not, the key works all the
/// same and [`keys_are_locked`] says so.
pub struct KeyMemory {
    page: NonNull<[u8; KEY_BYTES]>,
    length: usize,
}

// SAFETY: the page belongs to this value alone, is written only while it is made and when it is dropped, and is read
// through shared references in between.
unsafe impl Send for KeyMemory {}
// SAFETY: as above; there is no way to write through a shared reference.
unsafe impl Sync for KeyMemory {}

impl KeyMemory {
    /// A key that `fill` writes where it will stay, so that no copy is left elsewhere.
    ///
    /// # Errors
    /// When the system gives no page, and what `fill` says.
    pub fn filled<E: From<io::Error>>(fill: impl FnOnce(&mut [u8; KEY_BYTES]) -> Result<(), E>) -> Result<Self, E> {
        let length = rustix::param::page_size();
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing that is in use.
        let mapped = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        };
        let address = mapped.map_err(io::Error::from)?;
        let page = NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mut memory = Self { page, length };
        // SAFETY: the range is exactly the mapping made above.
        let locked = unsafe { rustix::mm::mlock(address, length) };
        // A page that cannot be kept out of a core dump is still safe where processes make none, and ours do not.
        #[cfg(target_os = "linux")]
        // SAFETY: the range is exactly the mapping made above; the advice changes no byte of it.
        let _ = unsafe { rustix::mm::madvise(address, length, Advice::LinuxDontDump) };
        if locked.is_err() {
            SWAPPABLE.store(true, Ordering::Relaxed);
        }
        fill(memory.bytes_mut())?;
        Ok(memory)
    }

    /// The key.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        // SAFETY: the page is mapped as long as this value lives, is at least as long as a key, holds initialised
        // bytes (a new mapping is zeros), and bytes need no alignment.
        unsafe { self.page.as_ref() }
    }

    fn bytes_mut(&mut self) -> &mut [u8; KEY_BYTES] {
        // SAFETY: as in `bytes`, and the exclusive borrow of this value is one of the page.
        unsafe { self.page.as_mut() }
    }
}

impl Drop for KeyMemory {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        // SAFETY: this is the mapping that `filled` made, and nothing borrows from it any more.
        let _ = unsafe { rustix::mm::munmap(self.page.as_ptr().cast::<c_void>(), self.length) };
    }
}

impl std::fmt::Debug for KeyMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyMemory(..)")
    }
}

/// Puts this process into new namespaces of its own: of users and mounts, and of the network if asked.
///
/// # Errors
/// The kernel's: refused by its settings, by a security module, or because this process has more than one thread.
#[cfg(target_os = "linux")]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(byte: u8) -> KeyMemory {
        let fill = |key: &mut [u8; KEY_BYTES]| {
            key.fill(byte);
            Ok::<_, io::Error>(())
        };
        KeyMemory::filled(fill).unwrap()
    }

    #[test]
    fn keys_stand_apart_and_keep_what_was_written() {
        let keys: Vec<KeyMemory> = (0..10).map(of).collect();
        for (byte, key) in (0u8..).zip(&keys) {
            assert_eq!(key.bytes(), &[byte; KEY_BYTES]);
        }
        assert_eq!(format!("{:?}", keys[0]), "KeyMemory(..)");
    }

    #[test]
    fn a_key_that_was_not_filled_is_an_error() {
        let failed = KeyMemory::filled(|_| Err(io::Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }

    // VA-25
    #[cfg(target_os = "linux")]
    #[test]
    fn the_page_is_locked_and_in_no_core_dump() {
        let key = of(7);
        let start = format!("{:x}-", key.bytes().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entry = maps.split_once(&start).unwrap().1;
        let flags = entry.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.contains(" dd"), "{flags}");
        assert!(!keys_are_locked() || flags.contains(" lo"), "{flags}");
    }
}
