//! Every name that a directory has: the same file system may be mounted more than once.
//!
//! Invariant: what cannot be established is left out, and the path itself never.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// `paths`, which are canonical, and where else the same directories and files can be reached; none below another.
pub fn everywhere(paths: &[PathBuf]) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts: Vec<Mount> = table.lines().filter_map(Mount::parse).collect();
    let mut all: Vec<PathBuf> = paths.to_vec();
    for path in paths {
        let same = aliases(path, &mounts).into_iter().filter(|(alias, named)| is_same(alias, named));
        all.extend(same.map(|(alias, _)| alias));
    }
    all.sort();
    all.dedup();
    // A directory that is covered hides what is in it; covering that too would only be refused.
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in all {
        if !kept.iter().any(|above| path.starts_with(above)) {
            kept.push(path);
        }
    }
    kept
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|facts| (facts.dev(), facts.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Whether `path` is covered by a guard that this process is behind.
pub fn is_covered(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    covers(&table, &path)
}

fn covers(table: &str, path: &Path) -> bool {
    // proc_pid_mountinfo(5): after the hyphen come the file system's type and its source.
    let ours = table.lines().filter(|line| line.contains(" - tmpfs keyferry "));
    ours.filter_map(Mount::parse).any(|mount| path.starts_with(&mount.at))
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    root: PathBuf,
    at: PathBuf,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        // proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, ...
        let mut columns = line.split(' ').skip(2);
        let (device, root, at) = (columns.next()?, columns.next()?, columns.next()?);
        Some(Self { device: device.to_owned(), root: unescaped(root), at: unescaped(at) })
    }
}

/// Space, tab, newline and backslash stand as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

/// Other names of `path`, or of what lies in it, and the names of the same below `path`.
fn aliases(path: &Path, mounts: &[Mount]) -> Vec<(PathBuf, PathBuf)> {
    // Of mounts on one place the last covers the others.
    let over = mounts.iter().rev().filter(|mount| path.starts_with(&mount.at));
    let Some(own) = over.max_by_key(|mount| mount.at.as_os_str().len()) else { return Vec::new() };
    let Ok(below) = path.strip_prefix(&own.at) else { return Vec::new() };
    let inside = own.root.join(below);
    let others = mounts.iter().filter(|mount| mount.device == own.device && mount.at != own.at);
    // Either the path lies in what is mounted there, or what is mounted there lies in the path.
    let alias = |mount: &Mount| match inside.strip_prefix(&mount.root) {
        // Joining nothing would add a slash, which a file's name must not end with.
        Ok(below) if below.as_os_str().is_empty() => Some((mount.at.clone(), path.to_owned())),
        Ok(below) => Some((mount.at.join(below), path.to_owned())),
        Err(_) => Some((mount.at.clone(), path.join(mount.root.strip_prefix(&inside).ok()?))),
    };
    others.filter_map(alias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_on_a_file_system_that_is_mounted_twice_has_two_names() {
        let table = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
40 22 254:0 / /mnt/all rw - ext4 /dev/vda rw
41 22 254:0 /home/u /srv/my\\040home rw - ext4 /dev/vda rw
42 22 254:0 /var /opt/var rw - ext4 /dev/vda rw
43 22 0:33 / /home/u/.cache rw - tmpfs tmpfs rw
44 22 254:0 /home/u/.local/share/keyferry/vault.db /srv/vault.db rw - ext4 /dev/vda rw
45 22 254:0 /home/u/.local/share/keyferry-too /srv/too rw - ext4 /dev/vda rw";
        let mounts: Vec<Mount> = table.lines().filter_map(Mount::parse).collect();
        let found = aliases(Path::new("/home/u/.local/share/keyferry"), &mounts);
        let found: Vec<PathBuf> = found.into_iter().map(|(alias, _)| alias).collect();
        let expected = ["/mnt/all/home/u/.local/share/keyferry", "/srv/my home/.local/share/keyferry", "/srv/vault.db"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert!(aliases(Path::new("/home/u/.cache/keyferry"), &mounts).is_empty());
    }

    #[test]
    fn a_cover_is_known_by_its_source() {
        let table = "60 22 0:40 / /home/u/.config/keyferry ro,nosuid - tmpfs keyferry ro,size=4k,mode=555\n\
                     61 22 0:41 / /tmp rw - tmpfs tmpfs rw";
        assert!(covers(table, Path::new("/home/u/.config/keyferry")));
        assert!(!covers(table, Path::new("/tmp")) && !covers(table, Path::new("/home/u/.config")));
    }

    #[test]
    fn what_lies_in_a_covered_directory_is_not_covered_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let inner = dir.join("run");
        fs::create_dir(&inner).unwrap();
        assert_eq!(everywhere(&[inner, dir.clone()]).iter().filter(|path| path.starts_with(&dir)).count(), 1);
    }
}
