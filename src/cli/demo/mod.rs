//! `demo`: the main job, shown on this machine: a provider, a proxy and an agent, each real, none of them outside.
//!
//! Invariant: it uses no file and no variable of the caller's installation, leaves nothing behind, and fails when one
//! of the things that it shows did not happen.

pub mod agent;
mod provider;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::agent::Seen;
use self::provider::{Arrived, Provider};
use super::context::{Context, catalogue_of};
use super::output::{Failure, Outcome};
use super::process::{self, Managed, Wanted};
use crate::app::{Mode, Options, Running};
use crate::config;
use crate::home::Home;
use crate::id::{AgentName, CredentialName, ProviderId};
use crate::launch::files::{ChildFiles, Sources};
use crate::secret::Secret;
use crate::spawn::Spawner;
use crate::tls::Inherited;
use crate::vault::{Draft, KeySource, Scope, Vault};

/// The first argument with which our binary is the demo's agent.
pub const AGENT: &str = "__demo-agent";

/// A host that the catalogue knows; in the demo it leads to this machine.
const HOST: &str = "api.anthropic.com";

/// What the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// An ordinary request.
    Models,
    /// One that the first key has no quota for.
    Message,
    /// One whose answer holds the key.
    Echo,
}

impl Call {
    const ALL: [Self; 3] = [Self::Models, Self::Message, Self::Echo];

    fn path(self) -> &'static str {
        match self {
            Self::Models => "/v1/models",
            Self::Message => "/v1/messages",
            Self::Echo => "/v1/echo",
        }
    }
}

/// `keyferry demo`
pub async fn demo(context: &mut Context) -> Outcome {
    context.start_messages("error")?;
    let place = Place::new().map_err(|error| Failure::new(format!("there is no place for the demo: {error}")))?;
    let spawner = Spawner::default();
    let result = story(&place, &spawner, context).await;
    spawner.stop();
    // Its connections have no reason to stay; a second is plenty.
    let _ = tokio::time::timeout(Duration::from_secs(1), spawner.ended()).await;
    let failed = result?;
    if failed == 0 {
        context.output.data("\nAll of it happened. Now with a key of yours:\n\n  keyferry secret set anthropic:work\n  keyferry run -- claude")
    } else {
        Err(Failure::new(format!("{failed} of the things that the demo shows did not happen")))
    }
}

async fn story(place: &Place, spawner: &Spawner, context: &mut Context) -> Outcome<usize> {
    let text = |error: String| Failure::new(error);
    let keys = [new_key()?, new_key()?];
    let [first, second] = &keys;
    let provider = Provider::start(first.clone(), spawner).await.map_err(text)?;
    let running = start(place, &provider, &keys, context).await?;
    let agent = AgentName::parse("demo")?;
    let session = running.session(&agent, Duration::from_secs(600)).await;
    let session = session.map_err(|error| Failure::new(error.message))?;
    let output = agent_process(place, &session).await?;
    let _ = running.stop(Duration::from_millis(500)).await;
    let seen: Vec<Seen> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let log = std::fs::read_to_string(place.home().access_log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let arrived = provider.arrived();
    let leaks = [output.as_str(), log.as_str()].iter().any(|text| keys.iter().any(|key| text.contains(key)));

    let mut report = Report { text: String::new(), failed: 0 };
    report.models(&seen, &arrived, first, &lines);
    report.message(&seen, &arrived, first, second, &lines);
    report.echo(&seen, &arrived, &keys, &lines);
    report.line(!leaks, "neither key stands in anything that the agent received, nor in the log");
    context.output.data(&report.text)?;
    Ok(report.failed)
}

async fn start(place: &Place, provider: &Provider, keys: &[String; 2], context: &Context) -> Outcome<Running> {
    let home = place.home();
    home.create()?;
    std::fs::write(place.dir.join("provider-root.pem"), &provider.root)
        .map_err(|error| Failure::new(format!("the provider's root cannot be written: {error}")))?;
    let text = format!(
        "upstream:\n  extra_roots: [provider-root.pem]\n  resolve: {{\"{HOST}:443\": \"{}\"}}\npools:\n  anthropic: {{order: [first, second]}}\ndefault: deny\n",
        provider.address
    );
    let config = config::parse(&text, "the demo's configuration")?;
    let (vault, _) = Vault::open_or_create(&home, &KeySource::File("master.key".into())).await?;
    for (name, key) in ["first", "second"].into_iter().zip(keys) {
        let draft = Draft {
            name: CredentialName::parse(&format!("anthropic:{name}"))?,
            provider: Some(ProviderId::parse("anthropic")?),
            kind: "api-key".to_owned(),
            scope: Scope::Shared,
            env: None,
            install: true,
            hosts: vec![HOST.to_owned()],
            description: None,
            label: None,
        };
        vault.set(draft, Secret::from(key.clone()), context.now()).await?;
    }
    let options = Options {
        redactor: context.redactor(),
        config_file: home.config_file(),
        home,
        config,
        mode: Mode::Run,
        vault,
        found: Vec::new(),
        lines_to_stdout: false,
        companion: None,
        way_out: None,
        inherited: Inherited::default(),
    };
    Ok(Running::start(options).await?)
}

/// Runs the agent in a process of its own, with the environment that `run` gives, and returns what it wrote.
async fn agent_process(place: &Place, session: &crate::admin::Session) -> Outcome<String> {
    let config = config::Config::default();
    let catalogue = catalogue_of(&config, "")?;
    let (ca, bundle) = process::read_trust(session)?;
    let inherited = [];
    let files = ChildFiles::temporary(&place.dir, &Sources { ca: &ca, bundle: &bundle, inherited: &[] });
    let files = files.map_err(|error| Failure::new(format!("the agent's files cannot be written: {error}")))?;
    let managed = Managed::of(None, &[]).await?;
    let wanted = Wanted { inherited: &inherited, pass: &[], catalogue: &catalogue, config: &config, managed: &managed };
    let environment = process::environment(session, &files, &wanted)?.apply(&inherited);
    let binary = std::env::current_exe().map_err(|error| Failure::new(format!("the agent does not start: {error}")))?;
    let output = tokio::process::Command::new(binary)
        .arg(AGENT)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), output).await;
    let output = output.map_err(|_| Failure::new("the demo's agent did not end"))?;
    let output = output.map_err(|error| Failure::new(format!("the agent does not start: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is shown, and how much of it went wrong.
struct Report {
    text: String,
    failed: usize,
}

impl Report {
    fn models(&mut self, seen: &[Seen], arrived: &[Arrived], first: &str, log: &[&str]) {
        self.title("A request leaves the agent with a placeholder and arrives with the key");
        let sent = seen.iter().find(|seen| seen.call == Call::Models);
        let came: Vec<&Arrived> = arrived.iter().filter(|arrived| arrived.call == Call::Models).collect();
        let placeholder = sent.map(|seen| seen.sent.as_str()).unwrap_or_default();
        self.detail("the agent sent    x-api-key:", &short(placeholder, 48));
        self.detail(
            "the provider got  x-api-key:",
            &masked(came.first().map(|arrived| arrived.key.as_str()).unwrap_or_default()),
        );
        let right = placeholder.contains("keyferry")
            && placeholder != first
            && sent.is_some_and(|seen| seen.status == 200)
            && matches!(came.as_slice(), [one] if one.key == first);
        self.line(right, "the key was put in between, over verified TLS");
        self.log(log, Call::Models);
    }

    fn message(&mut self, seen: &[Seen], arrived: &[Arrived], first: &str, second: &str, log: &[&str]) {
        self.title("A key runs out of quota, and the next one takes over within the same request");
        let came: Vec<&Arrived> = arrived.iter().filter(|arrived| arrived.call == Call::Message).collect();
        for one in &came {
            let name = if one.key == first { "anthropic:first " } else { "anthropic:second" };
            self.detail("the provider said", &format!("{} to {name} {}", one.status, masked(&one.key)));
        }
        let status = seen.iter().find(|seen| seen.call == Call::Message).map_or(0, |seen| seen.status);
        self.detail("the agent got", &status.to_string());
        let tried: Vec<(&str, u16)> = came.iter().map(|one| (one.key.as_str(), one.status)).collect();
        self.line(
            tried == [(first, 429), (second, 200)] && status == 200,
            "the agent sent one request and saw no failure",
        );
        self.log(log, Call::Message);
    }

    fn echo(&mut self, seen: &[Seen], arrived: &[Arrived], keys: &[String; 2], log: &[&str]) {
        self.title("An answer that holds the key comes back without it");
        let came = arrived.iter().find(|arrived| arrived.call == Call::Echo);
        let got = seen.iter().find(|seen| seen.call == Call::Echo);
        let body = got.and_then(|seen| seen.received.rsplit('\n').next()).unwrap_or_default();
        let held = came.map(|arrived| arrived.key.as_str()).unwrap_or_default();
        self.detail("the provider sent", &format!("{{\"your_key\":\"{}\"}}", masked(held)));
        self.detail("the agent got    ", &short(body, 72));
        let real = keys.iter().any(|key| key == held);
        let right = real && got.is_some_and(|seen| seen.status == 200 && !seen.received.contains(held));
        self.line(right && !body.is_empty(), "the placeholder stands where the key stood, in field and body");
        self.log(log, Call::Echo);
    }

    fn title(&mut self, text: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}{text}\n"));
    }

    fn detail(&mut self, what: &str, value: &str) {
        self.text.push_str(&format!("    {what} {value}\n"));
    }

    fn line(&mut self, right: bool, what: &str) {
        if !right {
            self.failed = self.failed.saturating_add(1);
        }
        self.text.push_str(&format!("  {} {what}\n", if right { "✓" } else { "✗" }));
    }

    /// The call's line of the access log, which must be there.
    fn log(&mut self, log: &[&str], call: Call) {
        let of_call = |line: &&&str| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|value| value.get("path").and_then(Value::as_str) == Some(call.path()))
        };
        match log.iter().find(of_call) {
            Some(line) => self.text.push_str(&format!("    {line}\n")),
            None => self.line(false, "the request has a line in the access log"),
        }
    }
}

/// A key in the shape of a real one, which opens nothing.
fn new_key() -> Outcome<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0u8; 93];
    getrandom::fill(&mut random).map_err(|error| Failure::new(format!("there is no randomness: {error}")))?;
    let body = random.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 64))).map(|byte| char::from(*byte));
    Ok(format!("sk-ant-api03-{}AA", body.collect::<String>()))
}

fn masked(key: &str) -> String {
    crate::vault::preview(&Secret::from(key.to_owned()))
}

/// The beginning of a text.
fn short(text: &str, most: usize) -> String {
    match text.get(..most) {
        Some(start) if text.len() > most => format!("{start}..."),
        _ => text.to_owned(),
    }
}

/// A throw-away home.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let dir = std::env::temp_dir().join(format!("keyferry-demo-{:016x}", u64::from_ne_bytes(random)));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    fn home(&self) -> Home {
        Home::at(AsRef::<Path>::as_ref(&self.dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Keys that open nothing; a directory that cannot be removed is only untidy.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
