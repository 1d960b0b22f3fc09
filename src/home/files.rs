//! Reading and writing files that hold secrets.
//!
//! Invariant: a file that is read is looked at through its open descriptor, so that what was checked is what is read; a
//! symbolic link is not followed where it could have been put there by somebody else; a file appears under its name only when all its bytes are on the disk.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags, StatVfsMountFlags};
use zeroize::Zeroizing;

use super::HomeError;

/// Looks whether a file that holds a secret is closed to others, without opening it.
///
/// Refused are files that group or others can write, that others can read, that a group other than the process's own
/// can read, and that belong to neither this user nor root. Where nothing can be mended (a read-only mount,
/// `$CREDENTIALS_DIRECTORY`) the mode is only warned about.
///
/// # Errors
/// [`HomeError`]; its hint holds the `chmod` that mends it.
pub fn check_secret_file(path: &Path) -> Result<(), HomeError> {
    // fcntl(2): closing any descriptor of a file releases all record locks that the process holds on it. SQLite counts
    // on its locks, so its files must not be opened here.
    let look = |source| HomeError::Io { deed: "look at", path: path.to_owned(), source };
    let mut metadata = std::fs::symlink_metadata(path).map_err(look)?;
    if metadata.is_symlink() {
        if !cannot_be_mended(path) {
            return Err(HomeError::IsALink { path: path.to_owned() });
        }
        metadata = std::fs::metadata(path).map_err(look)?;
    }
    inspect(path, &metadata)
}

/// Opens a file that holds a secret for reading, and makes the checks of [`check_secret_file`] on what was opened.
///
/// # Errors
/// [`HomeError`] when the file is not a regular file, is open to others, or can't be opened.
pub fn open_secret_file(path: &Path) -> Result<File, HomeError> {
    let file = match open_for_reading(path, OFlags::NOFOLLOW) {
        // Kubernetes mounts each key of a secret as a link inside a read-only mount.
        Err(error) if is_link(&error) && cannot_be_mended(path) => open_for_reading(path, OFlags::empty()),
        other => other,
    };
    let file = file.map_err(|source| {
        if is_link(&source) {
            HomeError::IsALink { path: path.to_owned() }
        } else {
            HomeError::Io { deed: "open", path: path.to_owned(), source }
        }
    })?;
    let metadata =
        file.metadata().map_err(|source| HomeError::Io { deed: "look at", path: path.to_owned(), source })?;
    inspect(path, &metadata).map(|()| file)
}

/// Reads a whole file that holds a secret, at most `limit` bytes.
///
/// # Errors
/// As [`open_secret_file`], and [`HomeError::TooLarge`].
pub fn read_secret_file(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, HomeError> {
    let file = open_secret_file(path)?;
    // One more than the limit, so that a longer file is seen; sized at once, so that no copy is left behind by growth.
    let most = limit.saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(most).unwrap_or(usize::MAX)));
    file.take(most).read_to_end(&mut bytes).map_err(|source| HomeError::Io {
        deed: "read",
        path: path.to_owned(),
        source,
    })?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(HomeError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Writes a file of mode 0600 in one step: whoever looks sees the old bytes or the new ones, also after a crash.
///
/// # Errors
/// What the operating system says; the old file is then untouched.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    finish(path, &temporary, std::fs::rename(&temporary, path))
}

/// As [`write_private`], but never over a file that is there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the name is taken, else what the operating system says.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes)?;
    place_new(&temporary, path)
}

/// Gives the finished file at `temporary` the name `path`, unless that is taken. The temporary name is gone either way.
pub(crate) fn place_new(temporary: &Path, path: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    let placed = match rustix::fs::renameat_with(here, temporary, here, path, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; a hard link does not replace either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            std::fs::hard_link(temporary, path).and_then(|()| std::fs::remove_file(temporary))
        }
        other => other.map_err(io::Error::from),
    };
    finish(path, temporary, placed)
}

/// Puts the names of a directory on the disk.
///
/// # Errors
/// What the operating system says.
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory of mode 0700 (and its parents), or checks the one that is there.
///
/// # Errors
/// [`HomeError`] when it can't be made, or others can change it.
pub fn create_private_dir(dir: &Path) -> Result<(), HomeError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => check_directory(dir),
        Err(source) if matches!(source.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory) => {
            Err(HomeError::NotADirectory { path: dir.to_owned() })
        }
        Err(source) => Err(HomeError::Io { deed: "make", path: dir.to_owned(), source }),
    }
}

/// Looks whether others can change what is in a directory. One that is not there is fine.
pub(super) fn check_directory(dir: &Path) -> Result<(), HomeError> {
    let metadata = match std::fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|source| HomeError::Io { deed: "look at", path: dir.to_owned(), source })?,
    };
    if !metadata.is_dir() {
        return Err(HomeError::NotADirectory { path: dir.to_owned() });
    }
    let mode = metadata.mode() & 0o7777;
    let us = rustix::process::geteuid().as_raw();
    let verdict = if metadata.uid() != us && metadata.uid() != 0 {
        Err(HomeError::ForeignOwner { path: dir.to_owned(), owner: metadata.uid() })
    } else if mode & 0o022 != 0 {
        Err(HomeError::OpenDirectory { path: dir.to_owned(), mode })
    } else {
        Ok(())
    };
    match verdict {
        Err(error) if on_read_only_mount(dir) => {
            tracing::warn!(path = %dir.display(), "{error}");
            Ok(())
        }
        verdict => verdict,
    }
}

fn inspect(path: &Path, metadata: &Metadata) -> Result<(), HomeError> {
    if metadata.is_dir() {
        return Err(HomeError::IsADirectory { path: path.to_owned() });
    }
    if !metadata.is_file() {
        return Err(HomeError::NotAFile { path: path.to_owned() });
    }
    let us = Us { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() };
    match judge(path, Them { user: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o7777 }, us) {
        Err(error) if cannot_be_mended(path) => {
            tracing::warn!(path = %path.display(), "{error}");
            Ok(())
        }
        verdict => verdict,
    }
}

/// As whom we look.
#[derive(Clone, Copy)]
struct Us {
    user: u32,
    group: u32,
}

/// Whose the file is.
#[derive(Clone, Copy)]
struct Them {
    user: u32,
    group: u32,
    mode: u32,
}

fn judge(path: &Path, them: Them, us: Us) -> Result<(), HomeError> {
    let open = |deed| Err(HomeError::OpenFile { path: path.to_owned(), deed, mode: them.mode });
    if them.user != us.user && them.user != 0 {
        return Err(HomeError::ForeignOwner { path: path.to_owned(), owner: them.user });
    }
    if them.mode & 0o022 != 0 {
        return open("changed");
    }
    if them.mode & 0o004 != 0 || (them.mode & 0o040 != 0 && them.group != us.group) {
        return open("read");
    }
    Ok(())
}

fn open_for_reading(path: &Path, extra: OFlags) -> io::Result<File> {
    // Without O_NONBLOCK, opening a FIFO waits for a writer that may never come.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | extra).bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

fn is_link(error: &io::Error) -> bool {
    // open(2): "If the trailing component of path is a symbolic link, then the open fails, with the error ELOOP."
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn cannot_be_mended(path: &Path) -> bool {
    let parent = path.parent().unwrap_or(path);
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    credentials.is_some_and(|dir| dir.is_absolute() && parent.starts_with(dir)) || on_read_only_mount(parent)
}

fn on_read_only_mount(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Writes `bytes` into a new file in the directory of `path` and returns its name.
fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let temporary = temporary_name(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            let _ = std::fs::remove_file(&temporary);
            Err(error)
        }
    }
}

/// A name in the directory of `path` that nobody else uses.
pub(crate) fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{:016x}.tmp", u64::from_le_bytes(random))))
}

fn finish(path: &Path, temporary: &Path, placed: io::Result<()>) -> io::Result<()> {
    if placed.is_err() {
        let _ = std::fs::remove_file(temporary);
        return placed;
    }
    path.parent().map_or(Ok(()), sync_directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    // VA-11
    #[test]
    fn refuses_what_others_can_read_or_change() {
        let us = Us { user: 1000, group: 1000 };
        let cases = [
            (1000, 1000, 0o600, true),
            (1000, 1000, 0o400, true),
            (1000, 1000, 0o640, true),
            (1000, 50, 0o640, false),
            (1000, 50, 0o600, true),
            (1000, 1000, 0o660, false),
            (1000, 1000, 0o620, false),
            (1000, 1000, 0o644, false),
            (1000, 1000, 0o602, false),
            (0, 1000, 0o640, true),
            (0, 0, 0o640, false),
            (1001, 1000, 0o600, false),
        ];
        for (user, group, mode, fine) in cases {
            let verdict = judge(Path::new("k"), Them { user, group, mode }, us);
            assert_eq!(verdict.is_ok(), fine, "{user} {group} {mode:o}");
        }
    }

    #[test]
    fn the_hint_is_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        write_private(&path, b"x").unwrap();
        check_secret_file(&path).unwrap();
        set_mode(&path, 0o644);
        let error = check_secret_file(&path).unwrap_err();
        assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
        assert!(error.to_string().contains("0644"), "{error}");
    }

    #[test]
    fn refuses_what_is_not_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write_private(&at("file"), b"x").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for check in [check_secret_file, |path: &Path| open_secret_file(path).map(drop)] {
            assert!(check(&at("file")).is_ok());
            assert!(matches!(check(&at("link")), Err(HomeError::IsALink { .. })));
            assert!(matches!(check(&at("dir")), Err(HomeError::IsADirectory { .. })));
            assert!(matches!(check(&at("fifo")), Err(HomeError::NotAFile { .. })));
            assert!(matches!(check(&at("none")), Err(HomeError::Io { .. })));
        }
    }

    #[test]
    fn writes_with_mode_0600_whatever_stood_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"old").unwrap();
        set_mode(&path, 0o666);
        write_private(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_new_private(&path, b"first").unwrap();
        let error = write_new_private(&path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn reads_up_to_the_limit_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_private(&path, b"12345").unwrap();
        assert_eq!(read_secret_file(&path, 5).unwrap().as_slice(), b"12345");
        assert!(matches!(read_secret_file(&path, 4), Err(HomeError::TooLarge { limit: 4, .. })));
    }

    #[test]
    fn makes_directories_closed_and_refuses_open_ones() {
        let dir = tempfile::tempdir().unwrap();
        let home = super::super::Home::at(dir.path().join("deep/home"));
        home.create().unwrap();
        home.create().unwrap();
        assert_eq!(mode(&dir.path().join("deep/home")), 0o700);
        assert_eq!(mode(&home.logs_dir()), 0o700);
        set_mode(&dir.path().join("deep/home"), 0o755);
        home.create().unwrap();
        set_mode(&dir.path().join("deep/home"), 0o777);
        let error = home.create().unwrap_err();
        assert!(error.hint().unwrap().starts_with("chmod 700 "), "{error}");
        assert!(home.check().is_err());
        std::fs::write(dir.path().join("file"), b"").unwrap();
        let error = super::super::Home::at(dir.path().join("file")).create().unwrap_err();
        assert!(matches!(error, HomeError::NotADirectory { .. }), "{error}");
    }
}
