//! `ca trust|untrust`: the system's trust store, as Debian and Fedora keep it.
//!
//! Invariant: one file with a name of our own is written or removed, and only when the caller asked for the system.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::output::{Failure, Outcome};

/// A directory for certificates of the machine's own, and the command that takes them up.
struct Store {
    directory: &'static str,
    extension: &'static str,
    command: &'static str,
    arguments: &'static [&'static str],
}

const STORES: [Store; 2] = [
    // Debian, Ubuntu, Alpine.
    Store {
        directory: "/usr/local/share/ca-certificates",
        extension: "crt",
        command: "update-ca-certificates",
        arguments: &[],
    },
    // Fedora and its relatives, Arch.
    Store {
        directory: "/etc/pki/ca-trust/source/anchors",
        extension: "pem",
        command: "update-ca-trust",
        arguments: &["extract"],
    },
];

/// The system's store, below `root`.
pub struct System {
    directory: PathBuf,
    store: &'static Store,
}

impl System {
    /// The store that this machine has.
    ///
    /// # Errors
    /// When it has none that is known here.
    pub fn find(root: &Path) -> Outcome<Self> {
        let found = STORES.iter().map(|store| (root.join(store.directory.trim_start_matches('/')), store));
        let found = found.into_iter().find(|(directory, _)| directory.is_dir());
        let (directory, store) = found.ok_or_else(|| {
            Failure::new("this system's trust store is not one that is known here")
                .hint("keyferry ca path names the certificate; add it by the system's own means")
        })?;
        Ok(Self { directory, store })
    }

    /// Where the certificate of the home with this fingerprint stands.
    pub fn file(&self, fingerprint: &str) -> PathBuf {
        let short: String = fingerprint.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        self.directory.join(format!("keyferry-{}.{}", short.to_ascii_lowercase(), self.store.extension))
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// When it cannot be written, or the system's command fails.
    pub fn add(&self, file: &Path, pem: &str) -> Outcome {
        std::fs::write(file, pem).map_err(|error| unwritable(file, &error))?;
        self.update()
    }

    /// Removes one; `false` when there was none.
    ///
    /// # Errors
    /// As for [`System::add`].
    pub fn remove(&self, file: &Path) -> Outcome<bool> {
        match std::fs::remove_file(file) {
            Ok(()) => self.update().map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(unwritable(file, &error)),
        }
    }

    fn update(&self) -> Outcome {
        let name = self.store.command;
        let ended = Command::new(name).args(self.store.arguments).output();
        match ended {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                Err(Failure::new(format!("{name} failed: {}", output.status)).hint(format!("run {name} yourself")))
            }
            Err(error) => {
                Err(Failure::new(format!("{name} cannot be run: {error}")).hint("install the package ca-certificates"))
            }
        }
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be changed: {error}", file.display()))
        .hint("the system's trust store is root's: sudo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_the_machine_is_found() {
        let root = tempfile::tempdir().unwrap();
        assert!(System::find(root.path()).is_err());
        for store in STORES.iter().rev() {
            std::fs::create_dir_all(root.path().join(&store.directory[1..])).unwrap();
            let system = System::find(root.path()).unwrap();
            let file = system.file("AB:CD:EF:01:23:45:67:89:AB");
            let name = format!("keyferry-abcdef0123456789.{}", store.extension);
            assert_eq!(file, root.path().join(&store.directory[1..]).join(name));
            assert!(!system.remove(&file).unwrap(), "nothing is there");
        }
    }
}
