//! `config test`: the rules against a file of exchanges.
//!
//! Invariant: neither vault nor daemon is asked, so that the same files give the same answer everywhere.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::args::ConfigTest;
use super::context::Context;
use super::failure::CONFIGURATION;
use super::output::{Failure, Outcome};
use crate::app::Question;
use crate::config::{self, Config, Faults, Fixture, Fixtures};
use crate::policy::{Enforcement, Explanation, Holdings, Policy};
use crate::provider::Catalogue;

/// `keyferry config test [FILE..]`; ends with 1 where something differs.
pub fn test(command: &ConfigTest, context: &mut Context) -> Outcome {
    let config = context.config()?;
    let catalogue = context.catalogue(&config)?;
    let files = match command.files.as_slice() {
        [] => vec![beside(&context.config_file()?)],
        files => files.to_vec(),
    };
    let files: Outcome<Vec<Fixtures>> =
        files.iter().map(|file| config::load_fixtures(file).map_err(unreadable)).collect();
    let files = files?;
    let mut results = Vec::new();
    for fixtures in &files {
        known(fixtures, &catalogue)?;
        let policy = policy(&config, &catalogue, fixtures);
        results.extend(fixtures.tests.iter().map(|fixture| judge(fixture, &policy)));
    }
    let failed = results.iter().filter(|result| !result.differs.is_empty()).count();
    if context.output.is_json() {
        let rows: Vec<Value> = results.iter().map(Trial::to_json).collect();
        context.output.json(&json!({ "ok": failed == 0, "tests": rows }))?;
    } else {
        let text: String = results.iter().filter(|result| !result.differs.is_empty()).map(Trial::text).collect();
        context.output.data(&text)?;
        if failed == 0 {
            context.output.done(&format!("{} as expected", count(results.len())));
        } else {
            context.output.say(&format!("{failed} of {} not as expected", count(results.len())));
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::silent(1)) }
}

struct Trial<'f> {
    fixture: &'f Fixture,
    got: Got,
    /// `(what, expected, got)`.
    differs: Vec<(&'static str, String, String)>,
}

struct Got {
    decision: String,
    rule: String,
    reason: String,
}

impl Trial<'_> {
    fn at(&self) -> String {
        self.fixture.at.0.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// A diff, as `diff` writes one.
    fn text(&self) -> String {
        let Fixture { agent, method, url, .. } = self.fixture;
        let mut text = format!("{}: {agent} {method} {url}\n", self.at());
        for (what, expected, got) in &self.differs {
            text.push_str(&format!("  - {what}: {expected}\n  + {what}: {got}\n"));
        }
        text.push_str(&format!("    {}\n", self.got.reason));
        text
    }

    fn to_json(&self) -> Value {
        let Fixture { agent, method, url, expect, at, .. } = self.fixture;
        json!({
            "file": at.0.as_ref().map(|place| place.file.to_string()),
            "line": at.0.as_ref().map(|place| place.line),
            "agent": agent, "method": method, "url": url,
            "expected": expect.as_str(), "decision": self.got.decision,
            "rule": self.got.rule, "reason": self.got.reason,
            "ok": self.differs.is_empty(),
        })
    }
}

fn judge<'f>(fixture: &'f Fixture, policy: &Policy) -> Trial<'f> {
    let judged = Question::parse(&fixture.agent, &fixture.method, &fixture.url);
    let explained = match &judged {
        Err(error) => Err(error.to_string()),
        Ok(question) => {
            question.judge(policy).ok_or_else(|| "a CONNECT that is intercepted decides nothing".to_owned())
        }
    };
    let mut differs = Vec::new();
    let got = match explained {
        Err(reason) => {
            differs.push(("decision", fixture.expect.as_str().to_owned(), "none".to_owned()));
            Got { decision: "none".to_owned(), rule: String::new(), reason }
        }
        Ok(explained) => {
            compare(fixture, &explained, &mut differs);
            let (rule, reason) = (explained.rule.to_string(), explained.reason);
            Got { decision: explained.decision.as_str().to_owned(), rule, reason }
        }
    };
    Trial { fixture, got, differs }
}

fn compare(fixture: &Fixture, explained: &Explanation, differs: &mut Vec<(&'static str, String, String)>) {
    let decision = explained.decision.as_str();
    if fixture.expect.as_str() != decision {
        differs.push(("decision", fixture.expect.as_str().to_owned(), decision.to_owned()));
    }
    if let Some(rule) = &fixture.rule
        && !is_called(&explained.rule.name, rule)
    {
        differs.push(("rule", rule.clone(), explained.rule.to_string()));
    }
    if let Some(provider) = &fixture.provider
        && explained.provider.as_ref() != Some(provider)
    {
        let got = explained.provider.as_ref().map_or("none".to_owned(), ToString::to_string);
        differs.push(("provider", provider.to_string(), got));
    }
}

/// Whether a rule's full name (`routes[2] "issues-only"`) is meant by `routes[2]`, `issues-only` or all of it.
fn is_called(full: &str, short: &str) -> bool {
    let own = full.split_once(" \"").map(|(place, own)| (place, own.trim_end_matches('"')));
    full == short || own.is_some_and(|(place, own)| place == short || own == short)
}

/// The rules of the configuration, enforced, over the credentials that the file assumes.
fn policy(config: &Config, catalogue: &Catalogue, fixtures: &Fixtures) -> Policy {
    let mut rules = config.rules(fixtures.fallback);
    rules.enforcement = Enforcement::Enforce;
    let mut hosts = catalogue.hosts();
    let mut holdings = Holdings::default();
    match &fixtures.credentials {
        None => holdings.shared = catalogue.iter().map(|provider| provider.id.clone()).collect(),
        Some(assumed) => {
            for one in assumed {
                let provider = one.provider.clone();
                hosts.extend(one.hosts.iter().map(|host| (host.clone(), provider.clone())));
                match &one.agent {
                    None => holdings.shared.insert(provider),
                    Some(agent) => holdings.private.entry(agent.clone()).or_default().insert(provider),
                };
            }
        }
    }
    Policy::new(rules, holdings, hosts)
}

/// A slip in a provider's name would assume nothing, and a test would tell of another cause.
fn known(fixtures: &Fixtures, catalogue: &Catalogue) -> Outcome {
    let assumed = fixtures.credentials.iter().flatten().map(|one| &one.provider);
    let mut named = assumed.chain(fixtures.tests.iter().filter_map(|test| test.provider.as_ref()));
    match named.find(|provider| catalogue.provider(provider).is_none()) {
        None => Ok(()),
        Some(provider) => {
            let near = catalogue.suggest(provider.as_str()).map(|near| format!("did you mean {near}?"));
            let hint = near.unwrap_or_else(|| "all of them: keyferry provider list".to_owned());
            Err(Failure::new(format!("the tests name a provider that is not known: {provider}"))
                .hint(hint)
                .code(CONFIGURATION))
        }
    }
}

/// `keyferry.yaml` has its tests in `keyferry.test.yaml`.
fn beside(config: &std::path::Path) -> PathBuf {
    config.with_extension("test.yaml")
}

fn count(tests: usize) -> String {
    format!("{tests} test{}", if tests == 1 { "" } else { "s" })
}

fn unreadable(faults: Faults) -> Failure {
    let lines: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    Failure::new(format!("the tests are not valid\n{}", lines.join("\n"))).code(CONFIGURATION)
}
