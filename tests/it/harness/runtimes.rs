//! The programs that the real-client suites need, and what is said when one is missing.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

/// Something that must be on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Curl,
    Git,
    Openssl,
    /// A pseudo-terminal for a command.
    Script,
    /// `unshare`, on a machine that allows user namespaces.
    Namespaces,
    /// Rules for the kernel's packets; `ip` comes with it.
    Nft,
    /// Starts a command as another user, where we are root.
    Setpriv,
    /// A JDK: it runs a source file as it stands.
    Java,
    /// The interpreter with the pinned packages of `tests/clients/requirements.txt`.
    Python,
    /// Claude Code at the version of `tests/clients/package.json`.
    Claude,
    /// So are these.
    Codex,
    Node,
    Deno,
    Bun,
    /// Any Node: the version does not matter where no proxy is used.
    SystemNode,
    Wget,
    /// The program of `tests/clients/go`.
    Go,
    /// The program of `tests/clients/rust`.
    Rust,
    Ruby,
    /// With its curl extension.
    Php,
}

impl Tool {
    fn path(self) -> Option<PathBuf> {
        match self {
            Self::Curl => in_path("curl"),
            Self::Git => in_path("git").filter(|_| git_has_http_backend()),
            Self::Openssl => in_path("openssl"),
            Self::Script => in_path("script"),
            Self::Namespaces => in_path("unshare").filter(|unshare| allows(unshare, &["-Ur", "-m", "true"])),
            Self::Nft => in_path("ip").and_then(|_| in_path("nft").or_else(|| existing("/usr/sbin/nft".as_ref()))),
            Self::Setpriv => in_path("setpriv"),
            Self::Java => in_path("java").filter(|_| in_path("javac").is_some()),
            Self::Python => existing(&clients().join("venv/bin/python")),
            Self::Claude => in_packages("@anthropic-ai", "claude"),
            Self::Codex => in_packages("@openai", "vendor").and_then(|vendor| {
                let targets = std::fs::read_dir(vendor).ok()?.flatten();
                targets.map(|target| target.path().join("bin/codex")).find(|path| path.exists())
            }),
            Self::Node => in_packages("", "bin/node"),
            Self::Deno => in_packages("@deno", "deno"),
            Self::Bun => in_packages("@oven", "bin/bun"),
            Self::SystemNode => in_path("node"),
            Self::Wget => in_path("wget"),
            Self::Go => existing(&clients().join("go/clients")),
            Self::Rust => existing(&clients().join("rust/debug/keyferry-client-tests")),
            Self::Ruby => in_path("ruby"),
            Self::Php => in_path("php").filter(|php| says(php, &["-m"]).lines().any(|line| line == "curl")),
        }
    }

    fn install(self) -> &'static str {
        match self {
            Self::Curl => "apt-get install curl",
            Self::Git => "apt-get install git",
            Self::Openssl => "apt-get install openssl",
            Self::Script => "apt-get install bsdutils",
            Self::Namespaces => {
                "apt-get install util-linux; and allow user namespaces: sysctl user.max_user_namespaces=10000"
            }
            Self::Setpriv => "apt-get install util-linux",
            Self::Nft => "apt-get install nftables iproute2",
            Self::Java => "apt-get install openjdk-17-jdk-headless",
            Self::Python => {
                "python3 -m venv target/clients/venv && target/clients/venv/bin/pip install -r tests/clients/requirements.txt"
            }
            Self::Wget => "apt-get install wget",
            Self::Ruby => "apt-get install ruby",
            Self::Php => "apt-get install php-cli php-curl",
            Self::SystemNode => "apt-get install nodejs",
            Self::Rust => {
                "cargo build --locked --manifest-path tests/clients/rust/Cargo.toml --target-dir target/clients/rust"
            }
            Self::Go => "install Go 1.26, then: go build -C tests/clients/go -o $PWD/target/clients/go/clients .",
            Self::Claude | Self::Codex | Self::Node | Self::Deno | Self::Bun => {
                "mkdir -p target/clients/node && cp tests/clients/package*.json target/clients/node/ \
                 && npm ci --ignore-scripts --prefix target/clients/node"
            }
        }
    }
}

/// The tool's path. Without it the suite is reported by name, and fails where nothing may be left out.
pub fn need(suite: &str, tool: Tool) -> Option<PathBuf> {
    static REPORT: Mutex<()> = Mutex::new(());
    if let Some(path) = tool.path() {
        return Some(path);
    }
    let line = format!("{suite}: needs {tool:?}; install it with: {}", tool.install());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "NOT RUN {line}");
    let _held = REPORT.lock().unwrap();
    eprintln!("NOT RUN {line}");
    let report = clients().join("not-run.txt");
    let _ = std::fs::create_dir_all(clients());
    if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(report) {
        let _ = writeln!(file, "{line}");
    }
    None
}

/// Where `tests/run` installs the clients.
pub fn clients() -> PathBuf {
    std::env::var_os("KEYFERRY_TEST_CLIENTS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients"), PathBuf::from)
}

/// A script of `tests/clients`.
pub fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A file of one of the npm packages below `scope`: those with a program have a package for each platform.
fn in_packages(scope: &str, file: &str) -> Option<PathBuf> {
    let packages = std::fs::read_dir(clients().join("node/node_modules").join(scope)).ok()?;
    let mut found: Vec<_> = packages.flatten().map(|entry| entry.path().join(file)).filter(|p| p.exists()).collect();
    found.sort();
    found.pop()
}

fn says(program: &std::path::Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn allows(program: &std::path::Path, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn existing(path: &std::path::Path) -> Option<PathBuf> {
    Some(path.to_owned()).filter(|path| path.exists())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn git_has_http_backend() -> bool {
    let output = Command::new("git").arg("--exec-path").output();
    output.is_ok_and(|o| PathBuf::from(String::from_utf8_lossy(&o.stdout).trim()).join("git-http-backend").exists())
}
