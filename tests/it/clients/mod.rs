//! Real clients behind the program, started by `run`, and beside a daemon with what `env` prints.
//!
//! Each one works with the placeholder that it was given; the provider sees the real secret exactly once per request;
//! the client's environment and everything it received do not hold it. The provider says the credential back in
//! fields and text, so that a client which prints its answers would show it. What the suite found is published in
//! docs/clients.md, which it writes itself.

mod client;
mod page;
mod table;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Canary, Finished, Home, Tool, clients, need, private, script};
use crate::upstream::TestUpstream;
use client::{Client, Control};
use table::CLIENTS;

/// The user's own provider, and nothing reachable beside the test provider.
const CONFIG: &str = "\
providers:
  acme:
    hosts: [api.acme.example]
    inject: {header: Authorization, value: \"Bearer {secret}\"}
    env: ACME_API_KEY
default: deny
";

/// A client in its surroundings.
struct Scene {
    upstream: TestUpstream,
    home: Home,
    program: PathBuf,
    arguments: Vec<String>,
    secret: Canary,
}

impl Client {
    /// The scene, or nothing where the client is not installed.
    fn scene(&self, how: &str) -> Option<Scene> {
        let program = need(&format!("{} {how}", self.name), self.tool)?;
        let upstream = TestUpstream::start();
        upstream.echoes();
        if self.tool == Tool::Git {
            upstream.repository("acme/widgets", "README.md", "widgets\n");
        }
        let home = Home::with(&upstream, CONFIG);
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        std::fs::write(home.work_dir().join("upload.bin"), bytes).unwrap();
        let place = |text: &&str| {
            let text = text.replace("{work}", home.work_dir().to_str().unwrap());
            text.replace("{scripts}", script("").to_str().unwrap().trim_end_matches('/'))
        };
        let arguments = self.arguments.iter().map(place).collect();
        let secret = (self.secret)();
        upstream.knows(secret.as_str());
        Some(Scene { upstream, home, program, arguments, secret })
    }

    fn check(&self, scene: &Scene, finished: &Finished) {
        let output = finished.stdout();
        assert_eq!(finished.code(), 0, "{}: {}\n{output}", self.name, finished.stderr());
        for word in self.prints {
            assert!(output.contains(word), "{} did not print {word:?}: {output}", self.name);
        }
        if self.tool == Tool::Git {
            let cloned = scene.home.work_dir().join("widgets/README.md");
            assert_eq!(std::fs::read_to_string(cloned).unwrap(), "widgets\n");
        }
        scene.upstream.assert_carried(self.host, scene.secret.as_str());
        let count = scene.upstream.seen_at(self.host).len();
        assert!(count >= self.requests, "{}: {count} requests", self.name);
    }

    /// The placeholder that the client's environment holds.
    fn check_environment(&self, environment: &str, secret: &Canary) {
        let start = format!("{}=", self.variable);
        let line = environment.lines().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{}: no {} in {environment}", self.name, self.variable));
        assert!(line.contains("keyferry"), "{line} is no placeholder");
        assert!(!environment.contains(secret.as_str()));
    }
}

/// What keeps a client from doing anything but its task.
fn quiet(command: &mut Command) {
    command.envs([
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("IS_SANDBOX", "1"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("DENO_NO_UPDATE_CHECK", "1"),
        ("NO_COLOR", "1"),
    ]);
    command.env("NODE_PATH", clients().join("node/node_modules"));
}

fn through_run(client: &Client) {
    let Some(scene) = client.scene("through run") else { return };
    let home = &scene.home;
    home.set(client.profile, &scene.secret, client.stored);
    let file = home.work_dir().join("environment");
    let mut command = home.keyferry(&["run", "--"]);
    command.arg(script("with_env.sh")).arg(&file).arg(&scene.program).args(&scene.arguments);
    quiet(&mut command);
    let finished = home.finish(command, b"");
    client.check(&scene, &finished);
    client.check_environment(&std::fs::read_to_string(file).unwrap(), &scene.secret);
    let lines = home.access_log();
    assert!(!lines.is_empty(), "the lines of a run are written before it ends");
    let injected = lines.iter().filter(|line| line["decision"] == "injected");
    let spoken: Vec<&str> = injected.filter_map(|line| line["protocol"].as_str()).collect();
    // Codex asks for a WebSocket before anything else, and this provider has none.
    let told = |protocol: &&str| *protocol == client.speaks || client.tool == Tool::Codex;
    assert!(spoken.contains(&client.speaks) && spoken.iter().all(told), "{} speaks {spoken:?}", client.name);
}

fn through_serve(client: &Client) {
    let Some(scene) = client.scene("through serve") else { return };
    let home = &scene.home;
    home.set(client.profile, &scene.secret, client.stored);
    home.agent("coder");
    let mut daemon = home.serve();
    let exported = home.command(&["env", "--agent", "coder", "--format", "json"]);
    exported.assert_code(0);
    let variables: HashMap<String, String> = serde_json::from_str(&exported.stdout()).unwrap();
    let file = home.work_dir().join("environment");
    let mut command = Command::new(script("with_env.sh"));
    command.env_clear().current_dir(home.work_dir()).arg(&file).arg(&scene.program).args(&scene.arguments);
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.user_dir()).env("LANG", "C.UTF-8");
    command.envs(variables);
    quiet(&mut command);
    let finished = home.finish(command, b"");
    client.check(&scene, &finished);
    client.check_environment(&std::fs::read_to_string(file).unwrap(), &scene.secret);
    assert!(daemon.stop().success(), "{}", daemon.stderr.text());
    let injected = home.access_log().iter().filter(|line| line["decision"] == "injected").count();
    assert_eq!(injected, scene.upstream.seen_at(client.host).len(), "one line for each request");
}

/// The control: without the program the same client needs the secret, and then both ends have it.
fn without_the_program(client: &Client) {
    if client.control == Control::Impossible {
        return;
    }
    let Some(scene) = client.scene("without the program") else { return };
    let home = &scene.home;
    let relay = format!("http://{}", scene.upstream.relay());
    let mut command = Command::new(&scene.program);
    command.env_clear().current_dir(home.work_dir()).env("HOME", home.user_dir());
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("LANG", "C.UTF-8");
    quiet(&mut command);
    // Exactly the variables that the published table names, so that it tells the truth about them.
    for name in client.variables {
        command.env(name, meant(name, &scene, &relay));
    }
    command.env(client.variable, scene.secret.as_str());
    let mut arguments = scene.arguments.clone();
    if client.host == "github.com" {
        arguments[1] = format!("https://x:{}@github.com/acme/widgets.git", scene.secret.as_str());
    }
    command.args(arguments);
    let finished = crate::harness::run_command(command, b"");
    assert_eq!(finished.code(), 0, "{}: {}", client.name, finished.stderr());
    for word in client.prints {
        assert!(finished.stdout().contains(word), "{} did not print {word:?}: {}", client.name, finished.stdout());
    }
    let seen = scene.upstream.seen_at(client.host);
    assert!(seen.len() >= client.requests, "{}: {} requests", client.name, seen.len());
    if !client.host.ends_with(".example") {
        scene.upstream.knows(scene.secret.as_str());
        assert!(seen.iter().any(|seen| seen.occurrences(scene.secret.as_str()) == 1), "{seen:#?}");
    }
}

/// What a variable of the table is for, without the program.
fn meant(name: &str, scene: &Scene, relay: &str) -> std::ffi::OsString {
    let root = scene.upstream.root_file();
    let place = |file: &str, text: &str| {
        let path = scene.home.work_dir().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{text}{}\n", root.display())).unwrap();
        private(&path);
        path
    };
    match name {
        "WGETRC" => place("wgetrc", "ca_certificate = ").into(),
        "PHP_INI_SCAN_DIR" => {
            let file = place("php/roots.ini", "curl.cainfo = ");
            format!(":{}", file.parent().unwrap().display()).into()
        }
        "NODE_USE_ENV_PROXY" => "1".into(),
        name if name.to_ascii_lowercase().ends_with("_proxy") => relay.into(),
        _ => root.into(),
    }
}

macro_rules! clients {
    ($($test:ident: $name:literal,)*) => {
        mod run { $(#[test] fn $test() { super::through_run(super::named($name)); })* }
        mod serve { $(#[test] fn $test() { super::through_serve(super::named($name)); })* }
        mod control { $(#[test] fn $test() { super::without_the_program(super::named($name)); })* }

        #[test]
        fn every_client_is_run() {
            let run = [$($name),*];
            let listed: Vec<_> = CLIENTS.iter().map(|client| client.name).collect();
            assert_eq!(listed, run);
        }
    };
}

clients! {
    curl_http1: "curl with HTTP/1.1",
    curl_http2: "curl with HTTP/2",
    curl_own_field: "curl with its own credential field",
    curl_post: "curl that posts",
    curl_upload: "curl that uploads a file",
    curl_upload_http2: "curl that uploads a file over HTTP/2",
    curl_events: "curl that streams events",
    curl_events_http2: "curl that streams events over HTTP/2",
    wget: "wget",
    git_clone: "git",
    git_over_ssh: "git with an ssh remote",
    claude_code: "Claude Code",
    claude_code_setup_token: "Claude Code with a setup token",
    codex: "Codex",
    python_urllib: "urllib",
    python_requests: "requests",
    python_httpx: "httpx",
    python_httpx2: "httpx2",
    python_aiohttp: "aiohttp",
    python_openai: "the OpenAI SDK",
    python_anthropic: "the Anthropic SDK",
    python_genai: "the Google Gen AI SDK",
    python_boto3: "boto3",
    python_stripe: "stripe",
    python_websockets: "websockets",
    node_fetch: "Node's fetch",
    node_https: "Node's https",
    node_websocket: "Node's WebSocket",
    node_axios: "axios",
    node_axios_1_7: "axios 1.7",
    node_axios_0: "axios 0.27",
    node_openai: "the OpenAI SDK for JavaScript",
    node_anthropic: "the Anthropic SDK for JavaScript",
    node_ws: "ws with an agent",
    node_old: "the OpenAI SDK in a Node without proxies",
    deno_fetch: "Deno's fetch",
    deno_websocket: "Deno's WebSocket",
    bun_fetch: "Bun's fetch",
    go_http: "Go's net/http",
    rust_reqwest: "reqwest",
    ruby: "Ruby's Net::HTTP",
    php: "PHP's curl",
}

fn named(name: &str) -> &'static Client {
    CLIENTS.iter().find(|client| client.name == name).unwrap()
}
