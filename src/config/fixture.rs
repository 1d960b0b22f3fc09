//! The file of `config test`: exchanges, and what the rules should make of each.
//!
//! Invariant: the same reader as for the configuration, so a slip in this file is reported in the same way and never
//! makes a test that says nothing.

use std::path::Path;

use super::fault::{Faults, Report, shown};
use super::field::{Field, Section};
use super::read::access;
use super::words::Word;
use super::{read_file, too_large, yaml};
use crate::id::{AgentName, ProviderId};
use crate::message::pattern::HostPattern;
use crate::policy::{Fallback, Mark};

const FILE: &[&str] = &["command", "credentials", "tests"];
const CREDENTIAL: &[&str] = &["provider", "agent", "hosts"];
const TEST: &[&str] = &["agent", "method", "url", "expect", "rule", "provider"];

/// Everything that a file says.
#[derive(Debug, Clone)]
pub struct Fixtures {
    /// What becomes of what no rule speaks for, where the configuration says nothing: as `run` or as `serve` has it.
    pub fallback: Fallback,
    /// Credentials that are taken for stored; unset, a shared one of every provider.
    pub credentials: Option<Vec<Assumed>>,
    /// The exchanges.
    pub tests: Vec<Fixture>,
}

/// A credential that is taken for stored.
#[derive(Debug, Clone)]
pub struct Assumed {
    /// Whose.
    pub provider: ProviderId,
    /// For this agent alone; unset, for all.
    pub agent: Option<AgentName>,
    /// Hosts of its own, beside the provider's.
    pub hosts: Vec<HostPattern>,
}

/// One exchange.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Where it is written.
    pub at: Mark,
    /// Who asks.
    pub agent: String,
    /// How; unset, GET.
    pub method: String,
    /// For what.
    pub url: String,
    /// What should become of it.
    pub expect: Expected,
    /// The rule that should decide: its name, `routes[0]` or `agents.coder.allow`, or a route's own name.
    pub rule: Option<String>,
    /// Whose credential should be put in.
    pub provider: Option<ProviderId>,
}

/// What should become of an exchange, in the words of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A credential is put in.
    Injected,
    /// Sent on without one.
    Forwarded,
    /// Passed through unread.
    Tunnelled,
    /// Refused.
    Denied,
}

impl Expected {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.word()
    }
}

impl Word for Expected {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("injected", Self::Injected),
        ("forwarded", Self::Forwarded),
        ("tunnelled", Self::Tunnelled),
        ("denied", Self::Denied),
    ];
}

/// Which command's default is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommandWord {
    Serve,
    Run,
}

impl Word for CommandWord {
    const WORDS: &'static [(&'static str, Self)] = &[("serve", Self::Serve), ("run", Self::Run)];
}

/// Reads the file at `path`.
///
/// # Errors
/// [`Faults`]: everything that is wrong with it, or that it cannot be read.
pub fn load_fixtures(path: &Path) -> Result<Fixtures, Faults> {
    let name = path.to_string_lossy();
    match read_file(path)? {
        Some(text) => parse(&text, &name),
        None => Err(Faults::of_file(&name, "there is no such file", "its form stands in docs/policy.md")),
    }
}

fn parse(text: &str, name: &str) -> Result<Fixtures, Faults> {
    if text.len() as u64 > super::LARGEST_FILE {
        return Err(too_large(name));
    }
    let mut report = Report::new(name);
    let mut fixtures = Fixtures { fallback: Fallback::Deny, credentials: None, tests: Vec::new() };
    if let Some(root) = yaml::read(text, &mut report) {
        read(&Field::root(&root), &mut fixtures, &mut report);
    }
    report.finish().map(|_| fixtures)
}

fn read(root: &Field<'_>, fixtures: &mut Fixtures, report: &mut Report) {
    let Some(file) = report.section(root, FILE) else { return };
    if let Some(CommandWord::Run) = file.get("command").and_then(|field| report.word(&field)) {
        fixtures.fallback = Fallback::Tunnel;
    }
    if let Some(field) = file.get("credentials") {
        fixtures.credentials = Some(report.each(&field, |report, item| assumed(item, report)));
    }
    match file.get("tests") {
        Some(field) if !field.is_empty() => fixtures.tests = report.each(&field, |report, item| test(item, report)),
        _ => report.fault(root.at(), "there are no `tests`", "tests: [{agent: coder, url: .., expect: denied}]"),
    }
}

fn assumed(field: &Field<'_>, report: &mut Report) -> Option<Assumed> {
    if !field.is_mapping() {
        return Some(Assumed { provider: access::provider(field, report)?, agent: None, hosts: Vec::new() });
    }
    let section = report.section(field, CREDENTIAL)?;
    let provider = needed(field, &section, "provider", report).and_then(|field| access::provider(&field, report));
    let agent = section.get("agent").map(|field| agent(&field, report));
    let hosts = section
        .get("hosts")
        .map(|field| report.each(&field, |report, item| access::host(item, report).map(|(host, _)| host)));
    let agent = match agent {
        None => None,
        // A name that could not be read must not become everybody.
        Some(agent) => Some(agent?),
    };
    Some(Assumed { provider: provider?, agent, hosts: hosts.unwrap_or_default() })
}

fn test(field: &Field<'_>, report: &mut Report) -> Option<Fixture> {
    let at = report.mark(field.at());
    let section = report.section(field, TEST)?;
    let who = needed(field, &section, "agent", report).and_then(|field| agent(&field, report));
    let url = needed(field, &section, "url", report).and_then(|field| report.text(&field).map(str::to_owned));
    let expect = needed(field, &section, "expect", report).and_then(|field| report.word(&field));
    let method = section.get("method").map(|field| access::method(report, &field));
    let rule = section.get("rule").and_then(|field| report.text(&field).map(str::to_owned));
    let provider = section.get("provider").and_then(|field| access::provider(&field, report));
    let method = match method {
        None => "GET".to_owned(),
        Some(method) => method?.to_string(),
    };
    Some(Fixture { at, agent: who?.to_string(), method, url: url?, expect: expect?, rule, provider })
}

fn agent(field: &Field<'_>, report: &mut Report) -> Option<AgentName> {
    report.convert(field, |text| {
        AgentName::parse(text).map_err(|error| ("is no name for an agent".to_owned(), error.to_string()))
    })
}

fn needed<'n>(field: &Field<'n>, section: &Section<'n>, key: &str, report: &mut Report) -> Option<Field<'n>> {
    let found = section.get(key);
    if found.is_none() {
        report.fault(field.at(), format!("{} has no `{key}`", shown(&field.path)), "docs/policy.md has the form");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_page_shows() {
        let text = "command: run\ncredentials: [github, {provider: acme, agent: ada, hosts: [api.acme.test:8443]}]\n\
                    tests:\n  - {agent: coder, url: \"https://api.github.com/\", expect: injected, provider: github}\n  \
                    - {agent: coder, method: POST, url: \"https://gist.github.com/\", expect: denied, rule: default}\n";
        let read = parse(text, "t.yaml").unwrap();
        assert_eq!((read.fallback, read.tests.len()), (Fallback::Tunnel, 2));
        assert_eq!((&*read.tests[0].method, read.tests[0].expect), ("GET", Expected::Injected));
        assert_eq!(read.tests[1].at.0.as_ref().unwrap().line, 5);
        let [shared, private] = read.credentials.as_deref().unwrap() else { panic!() };
        assert!(shared.agent.is_none() && private.agent.is_some() && private.hosts[0].port() == 8443);
    }

    #[test]
    fn every_slip_is_a_fault_with_its_place() {
        for (text, line) in [
            ("", 1),
            ("tests: []\n", 1),
            ("tests:\n  - {agent: coder, url: \"https://a.test/\"}\n", 2),
            ("tests:\n  - {agent: coder, url: \"https://a.test/\", expect: inject}\n", 2),
            ("tests:\n  - {agent: \"a b\", url: \"https://a.test/\", expect: denied}\n", 2),
            ("tests:\n  - {agent: coder, url: \"https://a.test/\", expect: denied, metod: GET}\n", 2),
            ("credentials: [{agent: coder}]\ntests: [{agent: a, url: \"https://a.test/\", expect: denied}]\n", 1),
        ] {
            let faults = parse(text, "t.yaml").unwrap_err();
            assert!(faults.0.iter().any(|fault| fault.line == line || text.is_empty()), "{text}: {faults}");
        }
    }
}
