//! The certificate files that an agent's process reads, in a place that it can reach: outside the home.
//!
//! Invariant: only certificates and client settings are written, never a private key, a token or a secret; a file
//! of the caller's that cannot be read is left out, not an error.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::java::trust_store;
use super::variables::BUNDLE;

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// The usual roots and our CA.
    pub bundle: PathBuf,
    /// Our CA, with the certificates that the caller had added for Node or Deno.
    pub extra: PathBuf,
    /// wget's settings: the caller's, and the bundle.
    pub wgetrc: Option<PathBuf>,
    /// The bundle as a Java key store.
    pub java_store: Option<PathBuf>,
    /// A directory with PHP's settings that name the bundle.
    pub php_dir: Option<PathBuf>,
}

/// What the files are made from.
pub struct Sources<'a> {
    /// Our CA, PEM.
    pub ca: &'a str,
    /// The usual roots and our CA, PEM.
    pub bundle: &'a str,
    /// The caller's environment: its own CA files are folded in.
    pub inherited: &'a [(OsString, OsString)],
}

/// A directory with these files, removed when it goes out of scope unless it is to be kept.
#[derive(Debug)]
pub struct ChildFiles {
    dir: PathBuf,
    trust: TrustFiles,
    lasting: Lasting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    WithThisValue,
    ForGood,
}

impl ChildFiles {
    /// Writes into a fresh directory below `parent` that only this user can enter.
    ///
    /// # Errors
    /// When the directory or a file cannot be made.
    pub fn temporary(parent: &Path, sources: &Sources<'_>) -> io::Result<Self> {
        let contents = Contents::gather(sources);
        for _ in 0..16 {
            let mut random = [0u8; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let name = format!("keyferry-run-{}-{:016x}", std::process::id(), u64::from_ne_bytes(random));
            let dir = parent.join(name);
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => return Self::fill(dir, &contents, Lasting::WithThisValue),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Writes below `parent` into a directory that is named by its contents and stays: for exports that outlive
    /// this process. The same sources give the same directory.
    ///
    /// # Errors
    /// When the directory or a file cannot be made.
    pub fn kept(parent: &Path, sources: &Sources<'_>) -> io::Result<Self> {
        let contents = Contents::gather(sources);
        let dir = parent.join(format!("trust-{:016x}", contents.fingerprint()));
        DirBuilder::new().mode(0o700).recursive(true).create(&dir)?;
        Self::fill(dir, &contents, Lasting::ForGood)
    }

    fn fill(dir: PathBuf, contents: &Contents, lasting: Lasting) -> io::Result<Self> {
        // Built first, so that a failed write removes the directory again.
        let trust = TrustFiles {
            bundle: dir.join("bundle.pem"),
            extra: dir.join("ca.pem"),
            wgetrc: Some(dir.join("wgetrc")),
            java_store: Some(dir.join("roots.jks")),
            php_dir: Some(dir.join("php")),
        };
        let made = Self { dir, trust, lasting };
        let php_dir = made.dir.join("php");
        DirBuilder::new().mode(0o700).recursive(true).create(&php_dir)?;
        let bundle = made.trust.bundle.display();
        write_file(&made.trust.bundle, contents.bundle.as_bytes())?;
        write_file(&made.dir.join("roots.jks"), &trust_store(&contents.bundle))?;
        write_file(&made.trust.extra, contents.extra.as_bytes())?;
        write_file(&made.dir.join("wgetrc"), format!("{}ca_certificate = {bundle}\n", contents.wgetrc).as_bytes())?;
        let php = format!("curl.cainfo = \"{bundle}\"\nopenssl.cafile = \"{bundle}\"\n");
        write_file(&php_dir.join("keyferry.ini"), php.as_bytes())?;
        Ok(made)
    }

    /// A name in the directory, for a socket of the same life.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the files are.
    #[must_use]
    pub fn trust(&self) -> &TrustFiles {
        &self.trust
    }
}

impl Drop for ChildFiles {
    fn drop(&mut self) {
        if self.lasting == Lasting::WithThisValue {
            // Nothing secret is in it, so a directory that cannot be removed is only untidy.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Removes the directories below `parent` whose process is gone, left by a run that was killed.
pub fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("keyferry-run-")) else { continue };
        let pid = rest.split('-').next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
        let gone = pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH));
        if gone && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // Another user's directory cannot be removed by us; that is right.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The largest file of certificates that is read: the whole Mozilla store is under 300 KiB.
const FILE_LIMIT: u64 = 8 * 1024 * 1024;

/// The most files that are read from `SSL_CERT_DIR`: Debian has about 300.
const DIR_LIMIT: usize = 2000;

struct Contents {
    bundle: String,
    extra: String,
    wgetrc: String,
}

impl Contents {
    fn gather(sources: &Sources<'_>) -> Self {
        let value = |name: &str| {
            let found = sources.inherited.iter().rev().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
        };
        let mut bundle = Certificates::of(sources.bundle);
        for file in BUNDLE.iter().filter_map(|name| value(name)).collect::<BTreeSet<_>>() {
            bundle.add(&read_text(Path::new(file)));
        }
        for dir in value("SSL_CERT_DIR").into_iter().flat_map(std::env::split_paths) {
            for file in files_of(&dir) {
                bundle.add(&read_text(&file));
            }
        }
        let mut extra = Certificates::of(sources.ca);
        for file in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"].into_iter().filter_map(value) {
            let text = read_text(Path::new(file));
            extra.add(&text);
            bundle.add(&text);
        }
        // Last, so that the caller's bundle cannot push it out of a reader's limit unnoticed, and never twice.
        bundle.add(sources.ca);
        let home = value("HOME").map(|home| Path::new(home).join(".wgetrc"));
        let wgetrc = value("WGETRC").map(PathBuf::from).or(home).map(|file| read_text(&file)).unwrap_or_default();
        Self { bundle: bundle.text, extra: extra.text, wgetrc: client_settings(&wgetrc) }
    }

    fn fingerprint(&self) -> u64 {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        for part in [&self.bundle, &self.extra, &self.wgetrc] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        digest.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }
}

/// wget's settings without what would compete with ours, and without what may hold a password.
fn client_settings(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let key = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase().replace(['-', '_'], "");
        let dropped = key.contains("password")
            || key.contains("proxy")
            || key == "header"
            || key == "cacertificate"
            || key == "checkcertificate";
        if !dropped {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// PEM certificates, each once.
struct Certificates {
    text: String,
    seen: BTreeSet<String>,
}

impl Certificates {
    fn of(pem: &str) -> Self {
        let mut all = Self { text: String::new(), seen: BTreeSet::new() };
        all.add(pem);
        all
    }

    /// Takes the certificates of `pem` and nothing else: a file of the caller's may hold its private key too.
    fn add(&mut self, pem: &str) {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        for part in pem.split(BEGIN).skip(1) {
            let Some((body, _)) = part.split_once(END) else { continue };
            let body = body.split_whitespace().collect::<Vec<_>>().join("\n");
            if self.seen.insert(body.replace('\n', "")) {
                self.text.push_str(&format!("{BEGIN}\n{body}\n{END}\n"));
            }
        }
    }
}

fn read_text(path: &Path) -> String {
    let mut text = Vec::new();
    // A FIFO or device named in a variable must not hold the start up.
    if fs::metadata(path).is_ok_and(|meta| meta.is_file())
        && let Ok(file) = fs::File::open(path)
        && file.take(FILE_LIMIT).read_to_end(&mut text).is_ok()
    {
        return String::from_utf8_lossy(&text).into_owned();
    }
    String::new()
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.flatten().take(DIR_LIMIT).map(|entry| entry.path()).collect();
    files.sort_by(|a, b| OsStr::cmp(a.as_os_str(), b.as_os_str()));
    files
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----\n")
    }

    fn count(text: &str, what: &str) -> usize {
        text.matches(what).count()
    }

    #[test]
    fn folds_the_callers_certificates_in_once_and_never_a_private_key() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs");
        fs::create_dir(&certs).unwrap();
        fs::write(certs.join("b.pem"), pem("DIRB")).unwrap();
        fs::write(certs.join("a.pem"), pem("DIRA")).unwrap();
        let own = dir.path().join("own.pem");
        let key = "-----BEGIN PRIVATE KEY-----\nKEY\n-----END PRIVATE KEY-----\n";
        fs::write(&own, format!("{}{key}{}", pem("OWN"), pem("ROOT"))).unwrap();
        let node = dir.path().join("node.pem");
        fs::write(&node, pem("NODE")).unwrap();
        let variables = [
            ("SSL_CERT_DIR", format!("/nonexistent:{}", certs.display())),
            ("REQUESTS_CA_BUNDLE", own.display().to_string()),
            ("SSL_CERT_FILE", own.display().to_string()),
            ("NODE_EXTRA_CA_CERTS", node.display().to_string()),
            ("PIP_CERT", "/nonexistent".to_owned()),
        ];
        let inherited: Vec<(OsString, OsString)> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let bundle = format!("# a comment\n{}{}", pem("ROOT"), pem("OURS"));
        let sources = Sources { ca: &pem("OURS"), bundle: &bundle, inherited: &inherited };
        let files = ChildFiles::temporary(dir.path(), &sources).unwrap();
        let bundle = fs::read_to_string(&files.trust().bundle).unwrap();
        for name in ["ROOT", "OURS", "OWN", "DIRA", "DIRB", "NODE"] {
            assert_eq!(count(&bundle, &format!("\n{name}\n")), 1, "{name}");
        }
        assert!(!bundle.contains("PRIVATE") && !bundle.contains("KEY\n"));
        let extra = fs::read_to_string(&files.trust().extra).unwrap();
        assert_eq!(extra, format!("{}{}", pem("OURS"), pem("NODE")));
        let place = files.dir.clone();
        drop(files);
        assert!(!place.exists());
    }

    #[test]
    fn wget_and_php_are_told_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let wgetrc = "tries = 3\nhttps_proxy = http://elsewhere\nhttp_password = hunter2\nca-certificate=/x\n";
        fs::write(dir.path().join(".wgetrc"), wgetrc).unwrap();
        let inherited = [("HOME".into(), dir.path().into())];
        let sources = Sources { ca: &pem("OURS"), bundle: &pem("OURS"), inherited: &inherited };
        let files = ChildFiles::kept(dir.path(), &sources).unwrap();
        let bundle = files.trust().bundle.display().to_string();
        let wgetrc = fs::read_to_string(files.trust().wgetrc.as_ref().unwrap()).unwrap();
        assert_eq!(wgetrc, format!("tries = 3\nca_certificate = {bundle}\n"));
        let php = fs::read_to_string(files.trust().php_dir.as_ref().unwrap().join("keyferry.ini")).unwrap();
        assert_eq!(php, format!("curl.cainfo = \"{bundle}\"\nopenssl.cafile = \"{bundle}\"\n"));
        let again = ChildFiles::kept(dir.path(), &sources).unwrap();
        assert_eq!(again.trust(), files.trust());
        drop(again);
        assert!(files.trust().bundle.exists(), "a kept directory stays");
    }

    #[test]
    fn sweeps_what_a_killed_run_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mine = dir.path().join(format!("keyferry-run-{}-00", std::process::id()));
        // Above the largest pid that Linux gives out (2^22), so certainly gone.
        let gone = dir.path().join("keyferry-run-4194999-00");
        let other = dir.path().join("something-else");
        for path in [&mine, &gone, &other] {
            fs::create_dir(path).unwrap();
        }
        sweep(dir.path());
        assert!(mine.exists() && other.exists());
        assert!(!gone.exists());
    }
}
