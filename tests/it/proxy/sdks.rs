//! The SDKs of OpenAI and Anthropic on every answer that a pool makes itself: they wait and succeed, or they stop.

use serde_json::{Value, json};

use super::Stage;
use crate::harness::{Canary, Tool, clients, need, script};
use crate::upstream::{Answer, Rule};

/// Without a wait of our own, so that the client is told.
const POOLS: &str = "\
pools:
  anthropic: {wait: off, warm_wait: off}
  openai: {wait: off, warm_wait: off}
default: deny
";

struct Sdk {
    tool: Tool,
    provider: &'static str,
    host: &'static str,
    path: &'static str,
}

/// A running daemon with one profile, and a client beside it.
struct Scene<'s> {
    sdk: &'s Sdk,
    stage: Stage,
    secret: Canary,
}

impl Sdk {
    fn scene(&self) -> Scene<'_> {
        let secret = if self.provider == "openai" { Canary::openai() } else { Canary::anthropic() };
        let (name, stored) = (format!("{}:only", self.provider), secret.clone());
        let stage = Stage::with(POOLS, move |upstream, home| home.stock(upstream, &name, &stored, &[]));
        Scene { sdk: self, stage, secret }
    }

    fn error(&self, kind: &str, code: &str, message: &str) -> Value {
        json!({"type": "error", "error": {"type": kind, "code": code, "message": message}})
    }

    fn limited(&self, seconds: &str) -> Answer {
        Answer::json(429, &self.error("rate_limit_error", "rate_limit_exceeded", "slow down"))
            .with("retry-after", seconds)
    }
}

impl Scene<'_> {
    fn script(&self, answer: Answer, times: usize) {
        let rule = Rule::always(answer).secret(self.secret.as_str()).path(self.sdk.path);
        self.stage.upstream.script(rule.times(times));
    }

    /// What the SDK made of it, and the status of each of its tries.
    fn run(mut self) -> (Value, Vec<u64>) {
        let program = need("SDKs on synthetic answers", self.sdk.tool).unwrap();
        let exported = self.stage.home.command(&["env", "--agent", "coder", "--format", "json"]);
        exported.assert_code(0);
        let variables = exported.json();
        let mut command = std::process::Command::new(program);
        command.env_clear().current_dir(self.stage.home.work_dir()).env("HOME", self.stage.home.user_dir());
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("PYTHONDONTWRITEBYTECODE", "1");
        let variables = variables.as_object().unwrap();
        command.envs(variables.iter().map(|(name, value)| (name, value.as_str().unwrap())));
        if self.sdk.tool == Tool::Python {
            command.arg(script("sdk_tries.py")).arg(self.sdk.provider);
        } else {
            command.arg(script("sdk_tries.cjs")).arg(self.sdk.provider).arg(clients().join("node"));
        }
        let finished = self.stage.home.finish(command, b"");
        assert_eq!(finished.code(), 0, "{}", finished.stderr());
        let said = serde_json::from_str(finished.stdout().trim()).unwrap();
        self.stage.stop();
        let lines = self.stage.home.access_log();
        let own = lines.iter().filter(|line| line["host"] == self.sdk.host && line["path"] == self.sdk.path);
        (said, own.map(|line| line["status"].as_u64().unwrap()).collect())
    }
}

/// All answers, with one SDK.
fn behaves_well(sdk: &Sdk) {
    if need(&format!("{} SDK on synthetic answers", sdk.provider), sdk.tool).is_none() {
        return;
    }
    // A short rest: it waits as long as it is told, and succeeds.
    let scene = sdk.scene();
    scene.script(sdk.limited("2"), 1);
    let (said, tries) = scene.run();
    assert!(said["text"].as_str().is_some_and(|text| text.starts_with("All keys stay home.")), "{said}");
    assert_eq!((tries.first(), tries.last()), (Some(&429), Some(&200)), "{tries:?}");
    // A long one: it stops at once and says why.
    let scene = sdk.scene();
    scene.script(sdk.limited("7200"), 9);
    stops(sdk, scene.run(), 429, "profiles_cooling");
    // No money.
    let scene = sdk.scene();
    let broke = if sdk.provider == "openai" {
        Answer::openai_quota()
    } else {
        let message = "Your credit balance is too low to access the Anthropic API.";
        Answer::json(400, &sdk.error("invalid_request_error", "x", message))
    };
    scene.script(broke, 9);
    stops(sdk, scene.run(), 402, "billing_exhausted");
    // A refused credential.
    let scene = sdk.scene();
    let refused = sdk.error("authentication_error", "invalid_api_key", "invalid x-api-key");
    scene.script(Answer::json(401, &refused), 9);
    stops(sdk, scene.run(), 502, "credentials_rejected");
    // An upstream that has no capacity for minutes, as earlier requests have found out.
    let scene = sdk.scene();
    let (status, code) = if sdk.provider == "openai" { (503, "server_is_overloaded") } else { (529, "overloaded") };
    let busy = Answer::json(status, &sdk.error("overloaded_error", code, "Overloaded")).with("retry-after", "500");
    scene.script(busy, 99);
    let overloaded = || {
        let body = "{\"model\":\"m\"}";
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            sdk.path,
            sdk.host,
            body.len()
        );
        let answered = scene.stage.open(sdk.host).ask(&request);
        (answered.value("x-keyferry-error") == Some("upstream_overloaded")).then_some(())
    };
    crate::harness::until("an upstream that rests", overloaded);
    let (said, tries) = scene.run();
    assert_eq!(said["status"], 503, "{said}");
    assert_eq!(tries.iter().filter(|status| **status == 503).count(), 2, "ours, and one of the SDK's: {tries:?}");
}

fn stops(sdk: &Sdk, (said, tries): (Value, Vec<u64>), status: u64, code: &str) {
    assert_eq!(said["status"], status, "{}: {said}", sdk.provider);
    assert!(said["message"].as_str().is_some_and(|text| text.contains(code)), "{said}");
    assert_eq!(tries, [status], "it must not try again");
}

const OPENAI: Sdk =
    Sdk { tool: Tool::Python, provider: "openai", host: "api.openai.com", path: "/v1/chat/completions" };
const ANTHROPIC: Sdk =
    Sdk { tool: Tool::Python, provider: "anthropic", host: "api.anthropic.com", path: "/v1/messages" };

#[test]
fn openai_for_python_behaves_well_on_every_answer_of_a_pool() {
    behaves_well(&OPENAI);
}

#[test]
fn anthropic_for_python_behaves_well_on_every_answer_of_a_pool() {
    behaves_well(&ANTHROPIC);
}

#[test]
fn openai_for_node_behaves_well_on_every_answer_of_a_pool() {
    behaves_well(&Sdk { tool: Tool::Node, ..OPENAI });
}

#[test]
fn anthropic_for_node_behaves_well_on_every_answer_of_a_pool() {
    behaves_well(&Sdk { tool: Tool::Node, ..ANTHROPIC });
}
