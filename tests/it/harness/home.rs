//! A throw-away installation: its home, its configuration, its secrets, and the final search for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::canary::{Canary, Search};
use super::process::{Finished, Serve, run_command};
use crate::upstream::{HOSTS, TestUpstream};

/// Bytes that an agent or a user received, by a name for the report.
pub type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// One installation. Dropping it searches everything it wrote and everything received for its secrets.
pub struct Home {
    dir: tempfile::TempDir,
    canaries: Mutex<Vec<Canary>>,
    received: Received,
}

impl Home {
    /// A home that knows nothing.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["home", "user", "tmp", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            private(&dir.path().join(name));
        }
        Self { dir, canaries: Mutex::default(), received: Arc::default() }
    }

    /// A home whose upstream is `upstream`, for all its host names; nothing else is reachable.
    pub fn new(upstream: &TestUpstream) -> Self {
        Self::with(upstream, "default: deny\n")
    }

    /// The same with more configuration: any sections beside `listen` and `upstream`.
    pub fn with(upstream: &TestUpstream, more: &str) -> Self {
        let home = Self::empty();
        std::fs::copy(upstream.root_file(), home.path().join("provider-root.pem")).unwrap();
        home.write_config(&format!("{LISTEN}{}{more}", home.upstream_section(upstream, "")));
        home
    }

    /// The `upstream` section: `more` is further lines of it, each indented by two.
    pub fn upstream_section(&self, upstream: &TestUpstream, more: &str) -> String {
        let address = upstream.address();
        let mut text = String::from("upstream:\n  extra_roots: [provider-root.pem]\n");
        text.push_str("  timeouts: {connect: 5s, response: 20s, idle: 20s}\n  resolve:\n");
        for host in HOSTS {
            text.push_str(&format!("    \"{host}:443\": \"{address}\"\n"));
        }
        text.push_str(&format!("    \"api.acme.example:8443\": \"{address}\"\n"));
        for host in ["plain.example", "api.acme.example", "api.anthropic.com"] {
            text.push_str(&format!("    \"{host}:80\": \"{}\"\n", upstream.plain_address()));
        }
        text.push_str(more);
        text
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config_file(), text).unwrap();
        private(&self.config_file());
    }

    /// `KEYFERRY_HOME`.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// `HOME` of the caller.
    pub fn user_dir(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// Where a child may write.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn config_file(&self) -> PathBuf {
        self.path().join("keyferry.yaml")
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// The program, with an environment that holds nothing of the caller's but `PATH`.
    pub fn keyferry(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", self.user_dir())
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("KEYFERRY_HOME", self.path())
            .current_dir(self.work_dir());
        command
    }

    /// Runs a command of the program to its end, with nothing on stdin.
    pub fn command(&self, arguments: &[&str]) -> Finished {
        self.finish(self.keyferry(arguments), b"")
    }

    /// Runs a command to its end with `input` on stdin; what it prints counts as received.
    pub fn finish(&self, command: Command, input: &[u8]) -> Finished {
        let finished = run_command(command, input);
        self.observe("stdout", &finished.stdout_bytes);
        self.observe("stderr", &finished.stderr_bytes);
        finished
    }

    /// A secret that must never be found anywhere.
    pub fn guard(&self, canary: &Canary) {
        self.canaries.lock().unwrap().push(canary.clone());
    }

    /// Stores a secret through stdin, as a script would.
    pub fn set(&self, name: &str, canary: &Canary, more: &[&str]) -> Finished {
        self.guard(canary);
        let arguments = [&["secret", "set", name], more].concat();
        let finished = self.finish(self.keyferry(&arguments), format!("{}\n", canary.as_str()).as_bytes());
        finished.assert_code(0);
        finished
    }

    /// Stores a secret that the upstream accepts.
    pub fn stock(&self, upstream: &TestUpstream, name: &str, canary: &Canary, more: &[&str]) {
        upstream.knows(canary.as_str());
        self.set(name, canary, more);
    }

    /// Creates an agent and returns its token.
    pub fn agent(&self, name: &str) -> String {
        let finished = self.command(&["agent", "create", name, "--json"]);
        finished.assert_code(0);
        let token = finished.json()["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("kfa_"), "an agent's token starts with kfa_");
        token
    }

    /// Starts `serve` and waits until it is ready.
    pub fn serve(&self) -> Serve {
        Serve::start(self, &[])
    }

    /// Remembers bytes that an agent or a user received.
    pub fn observe(&self, place: &str, bytes: &[u8]) {
        self.received.lock().unwrap().push((place.to_owned(), bytes.to_vec()));
    }

    pub fn received(&self) -> Received {
        Arc::clone(&self.received)
    }

    /// The lines of the access log.
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        lines(&self.file("logs/access.jsonl"))
    }

    /// The lines of the audit log.
    pub fn audit_log(&self) -> Vec<serde_json::Value> {
        lines(&self.file("logs/audit.jsonl"))
    }

    /// Fails if a secret stands in any file of the home or in anything received.
    pub fn assert_clean(&self) {
        let canaries = self.canaries.lock().unwrap();
        let search = Search::new(canaries.iter());
        let mut hits = search.directory(self.dir.path());
        for (place, bytes) in self.received.lock().unwrap().iter() {
            hits.extend(search.bytes(place, bytes));
        }
        let shown = hits.len().min(20);
        assert!(hits.is_empty(), "a secret was found {} times: {:#?}", hits.len(), &hits[..shown]);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

/// Free ports everywhere; the program says which it took.
pub const LISTEN: &str = "listen:\n  proxy: 127.0.0.1:0\n  base_url: 127.0.0.1:0\n  admin: 127.0.0.1:0\n";

pub fn lines(text: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in line {line:?}"));
    text.lines().map(parse).collect()
}

pub fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
