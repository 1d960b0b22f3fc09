//! Binds a Unix socket where a former process may have left one.
//!
//! Invariant: only a socket that nobody listens on is replaced, never another kind of file.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

/// A live listener on this machine accepts at once; one whose queue is full is alive too.
const PROBE: Duration = Duration::from_secs(1);

/// Binds `path` with `mode`.
///
/// # Errors
/// The operating system's; `AddrInUse` when somebody listens there or it is no socket.
pub async fn bind_socket(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        let dead = found.file_type().is_socket()
            && matches!(
                tokio::time::timeout(PROBE, UnixStream::connect(path)).await,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused
            );
        if !dead {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        super::create_private_dir(parent).map_err(io::Error::other)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("proxy.sock");
        let first = bind_socket(&path, 0o600).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_socket(&path, 0o600).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        drop(bind_socket(&path, 0o666).await.unwrap());
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert_eq!(bind_socket(&file, 0o600).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    }
}
