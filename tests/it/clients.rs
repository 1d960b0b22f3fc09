//! Real clients behind the program, started by `run`, and beside a daemon with what `env` prints.
//!
//! Each one works with the placeholder that it was given; the provider sees the real secret exactly once per request;
//! the client's environment and everything it received do not hold it. The provider says the credential back in
//! fields and text, so that a client which prints its answers would show it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Canary, Finished, Home, Tool, need, script};
use crate::upstream::TestUpstream;

/// What a client is, and what has to be true after it ran.
struct Client {
    name: &'static str,
    tool: Tool,
    /// Arguments after the program; `{work}` is a directory of its own.
    arguments: &'static [&'static str],
    host: &'static str,
    /// The variable that holds the placeholder.
    variable: &'static str,
    profile: &'static str,
    secret: fn() -> Canary,
    /// What stands in its output.
    prints: &'static [&'static str],
    requests: usize,
}

const CURL: Client = Client {
    name: "curl",
    tool: Tool::Curl,
    arguments: &[],
    host: "api.acme.example",
    variable: "ACME_API_KEY",
    profile: "acme:work",
    secret: Canary::plain,
    prints: &[],
    requests: 1,
};

const PYTHON: Client = Client { name: "python", tool: Tool::Python, requests: 3, ..CURL };

const CLIENTS: &[Client] = &[
    Client {
        name: "curl with HTTP/1.1",
        arguments: &["-sS", "-i", "--http1.1", "https://api.acme.example/echo/fields"],
        prints: &["200", "/echo/fields"],
        ..CURL
    },
    Client {
        name: "curl with HTTP/2",
        arguments: &["-sS", "-i", "--http2", "https://api.acme.example/echo/fields"],
        prints: &["HTTP/2 200", "/echo/fields"],
        ..CURL
    },
    Client {
        name: "curl with its own credential field",
        arguments: &["-sS", "-i", "-H", "Authorization: Bearer mine", "https://api.acme.example/echo/in-fields"],
        prints: &["200", "x-echo"],
        ..CURL
    },
    Client {
        name: "curl that posts",
        arguments: &["-sS", "-i", "-d", "a=1&b=2", "https://api.acme.example/echo/body"],
        prints: &["200", "a=1&b=2"],
        ..CURL
    },
    Client {
        name: "curl that uploads a file",
        arguments: &["-sS", "-i", "-T", "{work}/upload.bin", "https://api.acme.example/upload"],
        prints: &["200", "\"bytes\":5000000"],
        ..CURL
    },
    Client {
        name: "curl that uploads a file over HTTP/2",
        arguments: &["-sS", "-i", "--http2", "-T", "{work}/upload.bin", "https://api.acme.example/upload"],
        prints: &["200", "\"bytes\":5000000"],
        ..CURL
    },
    Client {
        name: "curl that streams events",
        arguments: &["-sS", "-N", "--http1.1", "https://api.acme.example/sse?n=50"],
        prints: &["data: token-0\n", "data: token-49\n", "data: [DONE]\n"],
        ..CURL
    },
    Client {
        name: "curl that streams events over HTTP/2",
        arguments: &["-sS", "-N", "--http2", "https://api.acme.example/sse?n=50"],
        prints: &["data: token-0\n", "data: token-49\n", "data: [DONE]\n"],
        ..CURL
    },
    Client {
        name: "requests",
        arguments: &["{scripts}/client_requests.py", "https://api.acme.example"],
        prints: &["/echo/fields", "data: token-19"],
        ..PYTHON
    },
    Client {
        name: "httpx",
        arguments: &["{scripts}/client_httpx.py", "https://api.acme.example"],
        prints: &["/echo/fields", "data: token-19"],
        ..PYTHON
    },
    Client {
        name: "the OpenAI SDK",
        arguments: &["{scripts}/client_openai.py"],
        host: "api.openai.com",
        variable: "OPENAI_API_KEY",
        profile: "openai:work",
        secret: Canary::openai,
        prints: &["All keys stay home."],
        requests: 2,
        ..PYTHON
    },
    Client {
        name: "the Anthropic SDK",
        arguments: &["{scripts}/client_anthropic.py"],
        host: "api.anthropic.com",
        variable: "ANTHROPIC_API_KEY",
        profile: "anthropic:work",
        secret: Canary::anthropic,
        prints: &["All keys stay home."],
        requests: 2,
        ..PYTHON
    },
    Client {
        name: "git",
        tool: Tool::Git,
        arguments: &["clone", "https://github.com/acme/widgets.git", "{work}/widgets"],
        host: "github.com",
        variable: "GITHUB_TOKEN",
        profile: "github:work",
        secret: Canary::github,
        prints: &[],
        requests: 2,
    },
    Client {
        name: "Claude Code",
        tool: Tool::Claude,
        arguments: &["-p", "Where are the keys?"],
        host: "api.anthropic.com",
        variable: "ANTHROPIC_API_KEY",
        profile: "anthropic:work",
        secret: Canary::anthropic,
        prints: &["All keys stay home."],
        requests: 1,
    },
    Client {
        name: "Claude Code with a setup token",
        tool: Tool::Claude,
        arguments: &["-p", "Where are the keys?"],
        host: "api.anthropic.com",
        variable: "CLAUDE_CODE_OAUTH_TOKEN",
        profile: "anthropic:subscription",
        secret: Canary::setup_token,
        prints: &["All keys stay home."],
        requests: 1,
    },
];

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
    ]);
}

fn through_run(client: &Client) {
    let Some(scene) = client.scene("through run") else { return };
    let home = &scene.home;
    home.set(client.profile, &scene.secret, &[]);
    let file = home.work_dir().join("environment");
    let mut command = home.keyferry(&["run", "--"]);
    command.arg(script("with_env.sh")).arg(&file).arg(&scene.program).args(&scene.arguments);
    quiet(&mut command);
    let finished = home.finish(command, b"");
    client.check(&scene, &finished);
    client.check_environment(&std::fs::read_to_string(file).unwrap(), &scene.secret);
    assert!(!home.access_log().is_empty(), "the lines of a run are written before it ends");
}

fn through_serve(client: &Client) {
    let Some(scene) = client.scene("through serve") else { return };
    let home = &scene.home;
    home.set(client.profile, &scene.secret, &[]);
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
    let Some(scene) = client.scene("without the program") else { return };
    let home = &scene.home;
    let relay = format!("http://{}", scene.upstream.relay());
    let mut command = Command::new(&scene.program);
    command.env_clear().current_dir(home.work_dir()).env("HOME", home.user_dir());
    command.env("PATH", std::env::var_os("PATH").unwrap()).env("LANG", "C.UTF-8");
    command.envs([("HTTPS_PROXY", &relay), ("https_proxy", &relay)]);
    for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"] {
        command.env(name, scene.upstream.root_file());
    }
    command.env(client.variable, scene.secret.as_str());
    quiet(&mut command);
    let mut arguments = scene.arguments.clone();
    if client.host == "github.com" {
        arguments[1] = format!("https://x:{}@github.com/acme/widgets.git", scene.secret.as_str());
    }
    command.args(arguments);
    let finished = crate::harness::run_command(command, b"");
    assert_eq!(finished.code(), 0, "{}: {finished:?}", client.name);
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

macro_rules! clients {
    ($($test:ident: $name:literal,)*) => {
        mod run { $(#[test] fn $test() { super::through_run(super::client($name)); })* }
        mod serve { $(#[test] fn $test() { super::through_serve(super::client($name)); })* }
        mod control { $(#[test] fn $test() { super::without_the_program(super::client($name)); })* }

        #[test]
        fn every_client_is_run() {
            let run = [$($name),*];
            assert_eq!(CLIENTS.iter().map(|client| client.name).collect::<Vec<_>>(), run);
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
    python_requests: "requests",
    python_httpx: "httpx",
    python_openai: "the OpenAI SDK",
    python_anthropic: "the Anthropic SDK",
    git_clone: "git",
    claude_code: "Claude Code",
    claude_code_setup_token: "Claude Code with a setup token",
}

fn client(name: &str) -> &'static Client {
    CLIENTS.iter().find(|client| client.name == name).unwrap()
}
