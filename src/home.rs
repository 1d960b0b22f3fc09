//! Where the files of one installation live, and who may read them.
//!
//! Invariant: every path of Keyferry's own is made here, and no file that holds a secret is read or written except
//! by the functions of this module, which look at its mode first.

mod files;
mod socket;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256};

pub use self::files::{
    check_secret_file, create_private_dir, open_secret_file, read_secret_file, sync_directory, write_new_private,
    write_private,
};
pub(crate) use self::files::{place_new, temporary_name};
pub use self::socket::bind_socket;

/// What is wrong with a place or a file of the home.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither `--home`, `KEYFERRY_HOME`, nor `HOME` says where the home is.
    #[error("there is no home directory: HOME is not set")]
    NoHome,
    /// A directory that others can change.
    #[error("{path} can be changed by others (mode {mode:04o})")]
    OpenDirectory {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory stands where a directory does not.
    #[error("{path} is not a directory")]
    NotADirectory {
        /// Which.
        path: PathBuf,
    },
    /// A secret file that others can read or change.
    #[error("{path} can be {deed} by others (mode {mode:04o})")]
    OpenFile {
        /// Which.
        path: PathBuf,
        /// `read` or `changed`.
        deed: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret file or directory that belongs to somebody else.
    #[error("{path} belongs to user {owner}")]
    ForeignOwner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A directory stands where a secret file should be.
    #[error("{path} is a directory, not a file")]
    IsADirectory {
        /// Which.
        path: PathBuf,
    },
    /// A symbolic link stands where a secret file should be.
    #[error("{path} is a symbolic link")]
    IsALink {
        /// Which.
        path: PathBuf,
    },
    /// A pipe, socket or device stands where a secret file should be.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
    /// More in it than any secret file holds.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The operating system refused.
    #[error("cannot {deed} {path}: {source}")]
    Io {
        /// What was tried.
        deed: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl HomeError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoHome => Some("name a directory with --home DIR or KEYFERRY_HOME".to_owned()),
            Self::OpenDirectory { path, .. } => Some(format!("chmod 700 {}", quoted(path))),
            Self::OpenFile { path, .. } => Some(format!("chmod 600 {}", quoted(path))),
            Self::ForeignOwner { path, .. } => Some(format!("chown $(id -u) {}", quoted(path))),
            Self::IsALink { path } => {
                Some(format!("name the file itself, or put the file in place of the link: {}", quoted(path)))
            }
            Self::IsADirectory { path } | Self::NotAFile { path } | Self::TooLarge { path, .. } => {
                Some(format!("move it away, or name another file than {}", quoted(path)))
            }
            Self::NotADirectory { path } => Some(format!("move {} away, or name another --home", quoted(path))),
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => Some("check the owner and mode of the directory".to_owned()),
                std::io::ErrorKind::StorageFull => Some("free some space on the disk".to_owned()),
                std::io::ErrorKind::ReadOnlyFilesystem => Some("name a writable directory with --home DIR".to_owned()),
                _ => None,
            },
        }
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Where everything of one installation lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
    state: PathBuf,
    runtime: PathBuf,
    /// Where a socket goes whose path in the runtime directory would be too long.
    short: PathBuf,
}

impl Home {
    /// `--home DIR` or `KEYFERRY_HOME=DIR`: everything is under one directory.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        let dir = std::path::absolute(&dir).unwrap_or(dir);
        let short = short_directory(&dir, &|name| std::env::var_os(name));
        Self { config: dir.clone(), data: dir.clone(), state: dir.clone(), runtime: dir.join("run"), short }
    }

    /// `KEYFERRY_HOME`, else the XDG base directories.
    ///
    /// # Errors
    /// [`HomeError::NoHome`] when the environment names no home directory at all.
    pub fn from_environment(vars: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HomeError> {
        if let Some(dir) = vars("KEYFERRY_HOME").filter(|dir| !dir.is_empty()) {
            return Ok(Self::at(PathBuf::from(dir)));
        }
        // XDG Base Directory Specification: "All paths set in these environment variables must be absolute. If an
        // implementation encounters a relative path in any of these variables it should [..] ignore it."
        let absolute = |name: &str| vars(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let under_home = |default: &str| absolute("HOME").map(|home| home.join(default)).ok_or(HomeError::NoHome);
        let base = |name: &str, default: &str| {
            absolute(name).map_or_else(|| under_home(default), Ok).map(|path| path.join("keyferry"))
        };
        let config = base("XDG_CONFIG_HOME", ".config")?;
        let data = base("XDG_DATA_HOME", ".local/share")?;
        let state = base("XDG_STATE_HOME", ".local/state")?;
        let runtime = absolute("XDG_RUNTIME_DIR").map_or_else(|| state.join("run"), |path| path.join("keyferry"));
        let short = short_directory(&data, vars);
        Ok(Self { config, data, state, runtime, short })
    }

    /// `keyferry.yaml`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join("keyferry.yaml")
    }

    /// `vault.db`.
    #[must_use]
    pub fn vault_db(&self) -> PathBuf {
        self.data.join("vault.db")
    }

    /// `master.key`, the default key source.
    #[must_use]
    pub fn master_key(&self) -> PathBuf {
        self.data.join("master.key")
    }

    /// `vault.reveal`: the permit of a vault that may show its values.
    #[must_use]
    pub fn reveal_permit(&self) -> PathBuf {
        self.vault_db().with_file_name("vault.reveal")
    }

    /// The directory of the local CA.
    #[must_use]
    pub fn ca_dir(&self) -> PathBuf {
        self.data.join("ca")
    }

    /// The root certificate.
    #[must_use]
    pub fn ca_cert(&self) -> PathBuf {
        self.ca_dir().join("ca.pem")
    }

    /// The root's private key.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.ca_dir().join("ca.key")
    }

    /// System roots and our root in one file.
    #[must_use]
    pub fn ca_bundle(&self) -> PathBuf {
        self.ca_dir().join("bundle.pem")
    }

    /// The directory of the logs.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// `logs/access.jsonl`.
    #[must_use]
    pub fn access_log(&self) -> PathBuf {
        self.logs_dir().join("access.jsonl")
    }

    /// `logs/audit.jsonl`.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.logs_dir().join("audit.jsonl")
    }

    /// The directory of sockets.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.runtime.clone()
    }

    /// The socket of the admin API; in a shorter directory where its path would not fit into a socket address.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.socket("admin.sock")
    }

    /// Where the socket called `name` goes.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        // unix(7): sun_path holds 108 bytes, the final NUL included.
        const LIMIT: usize = 107;
        let path = self.runtime.join(name);
        if path.as_os_str().as_bytes().len() <= LIMIT { path } else { self.short.join(name) }
    }

    /// Finds a path of the configuration file: absolute ones as they are, others in the home. With XDG directories
    /// the known names (`vault.db`, `logs/..`) are found where this home has them, everything else beside
    /// `keyferry.yaml`.
    #[must_use]
    pub fn resolve(&self, relative: &Path) -> PathBuf {
        let mut parts = relative.strip_prefix(".").unwrap_or(relative).components();
        let first = match parts.next() {
            Some(Component::Normal(first)) => first,
            _ => return self.config.join(relative),
        };
        let rest = parts.as_path();
        let base = match first.to_str() {
            Some("logs") => &self.state,
            Some("run") if rest.as_os_str().is_empty() => return self.runtime.clone(),
            Some("run") => return self.runtime.join(rest),
            Some("vault.db" | "master.key" | "ca") => &self.data,
            _ => &self.config,
        };
        if rest.as_os_str().is_empty() { base.join(first) } else { base.join(first).join(rest) }
    }

    /// Makes the directories that are missing, each with mode 0700.
    ///
    /// # Errors
    /// [`HomeError`] when one can't be made, or is there and others can change it.
    pub fn create(&self) -> Result<(), HomeError> {
        let socket_dir = self.admin_socket().parent().map_or_else(|| self.runtime.clone(), Path::to_path_buf);
        for dir in [&self.config, &self.data, &self.state, &socket_dir] {
            create_private_dir(dir)?;
        }
        for dir in [self.ca_dir(), self.logs_dir()] {
            create_private_dir(&dir)?;
        }
        Ok(())
    }

    /// Every directory of the installation, whether it exists or not.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.config.clone(), self.data.clone(), self.state.clone(), self.runtime.clone()];
        all.push(self.short.clone());
        all.dedup();
        all
    }

    /// Looks at the directories that exist, without making any.
    ///
    /// # Errors
    /// [`HomeError`] when others can change one of them.
    pub fn check(&self) -> Result<(), HomeError> {
        [&self.config, &self.data, &self.state].into_iter().try_for_each(|dir| files::check_directory(dir))
    }
}

/// A directory whose name is short whatever the home is called, the same for every process of this home and user.
fn short_directory(home: &Path, vars: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let digest = Sha256::digest(home.as_os_str().as_bytes());
    let mark = digest.iter().take(8).fold(0u64, |mark, byte| (mark << 8) | u64::from(*byte));
    match vars("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join(format!("keyferry-{mark:016x}")),
        None => PathBuf::from(format!("/tmp/keyferry-{}-{mark:016x}", rustix::process::geteuid().as_raw())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn one_directory_holds_everything() {
        let home = Home::at("/srv/kf");
        assert_eq!(home.config_file(), Path::new("/srv/kf/keyferry.yaml"));
        assert_eq!(home.vault_db(), Path::new("/srv/kf/vault.db"));
        assert_eq!(home.master_key(), Path::new("/srv/kf/master.key"));
        assert_eq!(home.ca_cert(), Path::new("/srv/kf/ca/ca.pem"));
        assert_eq!(home.ca_key(), Path::new("/srv/kf/ca/ca.key"));
        assert_eq!(home.ca_bundle(), Path::new("/srv/kf/ca/bundle.pem"));
        assert_eq!(home.access_log(), Path::new("/srv/kf/logs/access.jsonl"));
        assert_eq!(home.audit_log(), Path::new("/srv/kf/logs/audit.jsonl"));
        assert_eq!(home.admin_socket(), Path::new("/srv/kf/run/admin.sock"));
    }

    #[test]
    fn keyferry_home_wins_over_xdg() {
        let vars = environment(&[("KEYFERRY_HOME", "/k"), ("XDG_DATA_HOME", "/d"), ("HOME", "/h")]);
        assert_eq!(Home::from_environment(&vars).unwrap(), Home::at("/k"));
    }

    #[test]
    fn xdg_directories_are_used_in_the_same_way() {
        let vars = environment(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d"), ("XDG_CONFIG_HOME", "relative")]);
        let home = Home::from_environment(&vars).unwrap();
        assert_eq!(home.config_file(), Path::new("/h/.config/keyferry/keyferry.yaml"));
        assert_eq!(home.vault_db(), Path::new("/d/keyferry/vault.db"));
        assert_eq!(home.access_log(), Path::new("/h/.local/state/keyferry/logs/access.jsonl"));
        assert_eq!(home.admin_socket(), Path::new("/h/.local/state/keyferry/run/admin.sock"));
        for (written, found) in [
            ("vault.db", "/d/keyferry/vault.db"),
            ("./master.key", "/d/keyferry/master.key"),
            ("logs/access.jsonl", "/h/.local/state/keyferry/logs/access.jsonl"),
            ("run/proxy.sock", "/h/.local/state/keyferry/run/proxy.sock"),
            ("corp-ca.pem", "/h/.config/keyferry/corp-ca.pem"),
            ("/etc/ca.pem", "/etc/ca.pem"),
            ("../up.pem", "/h/.config/keyferry/../up.pem"),
        ] {
            assert_eq!(home.resolve(Path::new(written)), Path::new(found), "{written}");
        }
    }

    #[test]
    fn no_home_at_all_is_an_error_with_a_hint() {
        let error = Home::from_environment(&environment(&[])).unwrap_err();
        assert!(error.hint().unwrap().contains("KEYFERRY_HOME"));
    }

    #[test]
    fn a_socket_path_that_would_not_fit_moves_to_a_shorter_directory() {
        let long = Home::at(format!("/tmp/{}", "x".repeat(120)));
        let socket = long.admin_socket();
        assert!(socket.as_os_str().len() <= 107, "{socket:?}");
        assert_eq!(socket, Home::at(format!("/tmp/{}", "x".repeat(120))).admin_socket());
        assert_ne!(socket, Home::at(format!("/tmp/{}", "y".repeat(120))).admin_socket());
    }

    #[test]
    fn the_mending_command_is_one_that_a_shell_takes() {
        assert_eq!(quoted(Path::new("/home/a b/it's")), r"'/home/a b/it'\''s'");
    }
}
