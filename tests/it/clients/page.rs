//! docs/clients.md: written from the suite's own tables, so that it says what is tested and nothing else.
//!
//! `KEYFERRY_WRITE_PAGES=1 cargo test --test it clients::page` writes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::client::{Client, Pin};
use super::table::CLIENTS;
use crate::harness::script;

/// A line for clients whose test stands elsewhere.
struct Elsewhere {
    line: &'static str,
    pin: Pin,
    speaks: &'static str,
    variables: &'static str,
    note: &'static str,
}

const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        line: "grpcio",
        pin: Pin::Python("grpcio"),
        speaks: "HTTP/2",
        variables: "`https_proxy` `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`",
        note: "unary calls, streams both ways, trailers, failures",
    },
    Elsewhere {
        line: "grpc-go",
        pin: Pin::Module("google.golang.org/grpc"),
        speaks: "HTTP/2",
        variables: "`HTTPS_PROXY` `SSL_CERT_FILE`",
        note: "unary calls and streams both ways, with trailers",
    },
    Elsewhere {
        line: "Java 17: HttpClient, HttpURLConnection",
        pin: Pin::Debian,
        speaks: "HTTP/1.1, HTTP/2",
        variables: "`JAVA_TOOL_OPTIONS`",
        note: "cannot authenticate to a proxy: `run` gives it a listener that knows its agent",
    },
];

/// What no variable leads through a proxy, why, and what to do.
const OTHERWISE: &[[&str; 3]] = &[
    ["Node before 22.21 and 24.5", "knows no proxy", "the base URL, or an agent in code"],
    [
        "urllib3's `PoolManager`",
        "reads no variables",
        "`urllib3.ProxyManager(os.environ[\"HTTPS_PROXY\"])`, or requests",
    ],
    ["aiohttp without `trust_env`, discord.py", "reads no variables", "`trust_env=True`, or the base URL"],
    ["stripe (Python)", "trusts only the roots that it brings", "the base URL, or `stripe.ca_bundle_path`"],
    ["`ws` without an agent", "reads no variables", "`agent: new HttpsProxyAgent(process.env.HTTPS_PROXY)`"],
    ["undici's `request()` on Node 22", "reads no variables", "`setGlobalDispatcher(new EnvHttpProxyAgent())`"],
    [
        "Bun's WebSocket",
        "reads no variables",
        "`new WebSocket(url, {proxy: process.env.HTTPS_PROXY})`, or `ws` with an agent",
    ],
    ["PHP's streams (`file_get_contents`)", "read no variables", "PHP's curl, or a stream context with `proxy`"],
    [
        "reqwest 0.12 with `rustls-tls`",
        "trusts only the roots that it brings",
        "`rustls-tls-native-roots`, or reqwest 0.13",
    ],
    ["Go, .NET and Chromium on macOS and Windows", "read the system's store alone", "`keyferry ca trust`"],
    ["Chromium, Playwright", "read no variables", "launch options `proxy` and the system's store"],
    [
        "the Docker daemon and containers",
        "have another environment",
        "`listen.proxy` on the bridge, `keyferry env --format docker`",
    ],
];

#[test]
fn the_published_table_is_what_the_suite_would_write() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md");
    let page = page();
    if std::env::var_os("KEYFERRY_WRITE_PAGES").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &page).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap_or_default();
    let hint = "KEYFERRY_WRITE_PAGES=1 cargo test --test it clients::page";
    assert!(published == page, "docs/clients.md is not what the suite would write; write it with: {hint}");
}

fn page() -> String {
    let mut text = String::from(HEAD);
    text.push_str("| client | version | speaks | variables that it needs | |\n|---|---|---|---|---|\n");
    let mut done: Vec<&str> = Vec::new();
    for client in CLIENTS.iter().filter(|client| client.line != "curl" || client.name.ends_with("HTTP/1.1")) {
        if done.contains(&client.line) {
            continue;
        }
        done.push(client.line);
        let variables: Vec<String> = client.variables.iter().map(|name| format!("`{name}`")).collect();
        let row = [client.line, &version(client.pin), &spoken(client), &variables.join(" "), client.note];
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    for row in ELSEWHERE {
        let row = [row.line, &version(row.pin), row.speaks, row.variables, row.note];
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text.push_str(MIDDLE);
    text.push_str("| client | why | instead |\n|---|---|---|\n");
    for row in OTHERWISE {
        writeln!(text, "| {} |", row.join(" | ")).unwrap();
    }
    text
}

/// Every protocol that the cases of one line speak.
fn spoken(client: &Client) -> String {
    let mut all: Vec<&str> = Vec::new();
    for case in CLIENTS.iter().filter(|case| case.line == client.line) {
        let protocol = match case.speaks {
            "h2" => "HTTP/2",
            "websocket" => "WebSocket",
            _ => "HTTP/1.1",
        };
        if !all.contains(&protocol) {
            all.push(protocol);
        }
    }
    all.join(", ")
}

fn version(pin: Pin) -> String {
    let read = |name: &str| std::fs::read_to_string(script(name)).unwrap();
    match pin {
        Pin::Debian => "Debian's".to_owned(),
        Pin::Any => "any".to_owned(),
        Pin::Python(name) => {
            let list = read("requirements.txt");
            let found = list.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=="));
            found.unwrap_or_else(|| panic!("{name} is not pinned")).to_owned()
        }
        Pin::Node(name) => {
            let list: serde_json::Value = serde_json::from_str(&read("package.json")).unwrap();
            let found = ["dependencies", "optionalDependencies"].into_iter().find_map(|kind| list[kind][name].as_str());
            let found = found.unwrap_or_else(|| panic!("{name} is not pinned"));
            found.rsplit('@').next().unwrap().to_owned()
        }
        Pin::Go => {
            let list = read("go/go.mod");
            let found = list.lines().find_map(|line| line.strip_prefix("go "));
            format!("{} or later", found.unwrap())
        }
        Pin::Crate(name) => {
            let list = read("rust/Cargo.toml");
            let found = list.lines().find_map(|line| line.strip_prefix(name)?.split('"').nth(1));
            found.unwrap_or_else(|| panic!("{name} is not pinned")).trim_start_matches('=').to_owned()
        }
        Pin::Module(name) => {
            let list = read("go/go.mod");
            let found = list.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(name));
            found.unwrap_or_else(|| panic!("{name} is not pinned")).trim().trim_start_matches('v').to_owned()
        }
    }
}

const HEAD: &str = "\
# Which clients work

Every line is a real client in the test suite, which writes this page: it was started by `keyferry run`, and beside a daemon with the
variables of `keyferry env`; the provider got the real credential once in each request, the client a good answer, and neither its
environment nor anything it received held the credential. Where it can, the same client also ran without Keyferry through a plain
proxy, with nothing but the variables of its line.

`run` sets all the variables for all clients at once; there is nothing to choose. `KEYFERRY_BASE_URL` is the address for programs
that name it themselves: `KEYFERRY_BASE_URL/PROVIDER/...`, with the placeholder where the key would be.

";

const MIDDLE: &str = "
## What no variable leads through a proxy

`run` says nothing about these, since they do not come by; their requests fail with the placeholder, or at a certificate.

";
