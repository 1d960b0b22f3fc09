//! `providers`: the user's own providers, and changes to built-in ones.
//!
//! Invariant: only the shape is judged here. What a provider must be is judged by the catalogue, and what it finds is
//! reported at the place that is remembered here.

use std::collections::BTreeMap;

use crate::config::fault::{At, Report, shown};
use crate::config::field::{Field, Section};
use crate::id::ProviderId;
use crate::message::pattern::HostPattern;
use crate::provider::outcome::RulesDraft;
use crate::provider::{BasicDraft, Draft, InjectDraft, TestDraft, Wire};

use super::rules;

pub(super) const PROVIDER: &[&str] =
    &["hosts", "inject", "env", "test", "speaks", "rules", "stream", "status", "until", "inspect", "events", "faults"];
pub(super) const SPEAKS: &[&str] = &["messages", "chat"];
pub(super) const TEST: &[&str] = &["method", "path"];
const BASIC: &[&str] = &["user", "password"];
const FORMS: [&str; 5] = ["header", "query", "path", "basic", "cookie"];
const INJECT: &[&str] = &["header", "query", "path", "basic", "cookie", "value"];
const INJECT_HINT: &str =
    "one of {header, value}, {query, value}, {path}, {basic: {user, password}}, {cookie, value}, or a list of them";

/// What the file says of where credentials go, and of what answers mean.
pub(super) type Providers = (Vec<(ProviderId, Draft)>, Vec<(ProviderId, RulesDraft)>);

pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Providers {
    let (mut drafts, mut outcomes) = (Vec::new(), Vec::new());
    for (name, field) in report.named(field) {
        let id = match ProviderId::parse(name) {
            Ok(id) => Some(id),
            Err(error) => {
                let message = format!("{} is no name for a provider", shown(name));
                report.fault(field.key_at, message, format!("{error}: acme, acme-eu"));
                None
            }
        };
        let mut places = Places { list: vec![(String::new(), field.key_at)] };
        let Some(section) = report.section(&field, PROVIDER) else { continue };
        let draft = draft(&section, &mut places, report);
        let rules = rules::read(&section, report);
        let Some(id) = id else { continue };
        report.define_provider(&id, places.list);
        outcomes.extend(rules.map(|rules| (id.clone(), rules)));
        drafts.extend(draft.map(|draft| (id, draft)));
    }
    (drafts, outcomes)
}

/// Where the parts of a draft stand, by the paths that the catalogue calls them.
struct Places {
    list: Vec<(String, At)>,
}

impl Places {
    fn note(&mut self, part: impl Into<String>, field: &Field<'_>) {
        self.list.push((part.into(), field.at()));
    }
}

fn draft(section: &Section<'_>, places: &mut Places, report: &mut Report) -> Option<Draft> {
    let mut draft = Draft::default();
    if let Some(field) = section.get("rules") {
        places.note("rules", &field);
    }
    let mut whole = true;
    if let Some(field) = section.get("hosts") {
        places.note("hosts", &field);
        draft.hosts = strings(&field, "hosts", places, report);
        whole &= !draft.hosts.is_empty();
        for item in report.items(&field) {
            refuse_top_level(&item, report);
        }
    }
    if let Some(field) = section.get("inject") {
        places.note("inject", &field);
        match inject(&field, places, report) {
            Some(inject) => draft.inject = inject,
            None => whole = false,
        }
    }
    if let Some(field) = section.get("env") {
        places.note("env", &field);
        draft.env = if field.is_list() {
            strings(&field, "env", places, report)
        } else {
            report.text(&field).map(str::to_owned).into_iter().collect()
        };
    }
    if let Some(field) = section.get("test") {
        places.note("test", &field);
        match test_call(&field, places, report) {
            Some(test) => draft.test = Some(test),
            None => whole = false,
        }
    }
    if let Some(field) = section.get("speaks") {
        places.note("speaks", &field);
        draft.speaks = speaks(&field, places, report);
    }
    whole.then_some(draft)
}

fn speaks(field: &Field<'_>, places: &mut Places, report: &mut Report) -> BTreeMap<Wire, String> {
    let Some(section) = report.section(field, SPEAKS) else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for wire in Wire::ALL {
        let Some(field) = section.get(wire.as_str()) else { continue };
        places.note(format!("speaks.{}", wire.as_str()), &field);
        all.extend(report.text(&field).map(|path| (*wire, path.to_owned())));
    }
    all
}

/// A list with something in it.
fn strings(field: &Field<'_>, part: &str, places: &mut Places, report: &mut Report) -> Vec<String> {
    if field.is_empty() {
        report.fault(field.at(), format!("`{}` is empty", field.path), "name one, or leave the key out");
    }
    let mut strings = Vec::new();
    for (index, item) in report.items(field).iter().enumerate() {
        places.note(format!("{part}[{index}]"), item);
        strings.extend(report.text(item).map(str::to_owned));
    }
    strings
}

fn refuse_top_level(field: &Field<'_>, report: &mut Report) {
    let host = field.plain().and_then(|text| HostPattern::parse(text).ok());
    if host.is_some_and(|host| host.suffix().is_some_and(|suffix| !suffix.contains('.'))) {
        let message = format!("`{}` would match every domain under a top-level name", field.path);
        report.fault(field.at(), message, "name the domain too: *.example.com");
    }
}

fn inject(field: &Field<'_>, places: &mut Places, report: &mut Report) -> Option<Vec<InjectDraft>> {
    if field.is_empty() {
        report.fault(field.at(), format!("`{}` is empty", field.path), INJECT_HINT);
        return None;
    }
    if !field.is_list() {
        return slot(field, "inject", places, report).map(|slot| vec![slot]);
    }
    let items = report.items(field);
    let mut slots = Vec::new();
    for (index, item) in items.iter().enumerate() {
        // The catalogue counts only where there is more than one.
        let part = if items.len() == 1 { "inject".to_owned() } else { format!("inject[{index}]") };
        places.note(part.clone(), item);
        slots.extend(slot(item, &part, places, report));
    }
    (slots.len() == items.len()).then_some(slots)
}

fn slot(field: &Field<'_>, part: &str, places: &mut Places, report: &mut Report) -> Option<InjectDraft> {
    let section = report.section(field, INJECT)?;
    let forms: Vec<&str> = FORMS.into_iter().filter(|form| section.has(form)).collect();
    let [form] = forms.as_slice() else {
        let what = if forms.is_empty() { "does not say where the credential goes" } else { "says it in two ways" };
        report.fault(field.at(), format!("`{}` {what}", field.path), INJECT_HINT);
        return None;
    };
    let target = section.get(form)?;
    places.note(format!("{part}.{form}"), &target);
    let takes_value = !matches!(*form, "path" | "basic");
    let value = section.get("value");
    match &value {
        Some(value) if !takes_value => {
            let message = format!("`{}` has no `value` beside `{form}`", field.path);
            report.fault(value.key_at, message, INJECT_HINT);
            return None;
        }
        None if takes_value => {
            let hint = "value: \"{secret}\", or with a word in front: \"Bearer {secret}\"";
            report.fault(field.at(), format!("`{}` has no `value`", field.path), hint);
            return None;
        }
        Some(value) => places.note(format!("{part}.value"), value),
        None => {}
    }
    let value = value.map_or(Some(String::new()), |field| report.text(&field).map(str::to_owned));
    if *form == "basic" {
        let basic = report.section(&target, BASIC)?;
        let user = basic_part(&basic, "user", &target, part, places, report);
        let password = basic_part(&basic, "password", &target, part, places, report);
        return Some(InjectDraft::Basic { basic: BasicDraft { user: user?, password: password? } });
    }
    let target = report.text(&target).map(str::to_owned);
    let (target, value) = (target?, value?);
    Some(match *form {
        "header" => InjectDraft::Header { header: target, value },
        "query" => InjectDraft::Query { query: target, value },
        "path" => InjectDraft::Path { path: target },
        _ => InjectDraft::Cookie { cookie: target, value },
    })
}

fn basic_part(
    basic: &Section<'_>,
    key: &str,
    target: &Field<'_>,
    part: &str,
    places: &mut Places,
    report: &mut Report,
) -> Option<String> {
    let Some(field) = basic.get(key) else {
        let hint = "basic: {user: \"{user}\", password: \"{secret}\"}";
        report.fault(target.at(), format!("`{}` has no `{key}`", target.path), hint);
        return None;
    };
    places.note(format!("{part}.basic.{key}"), &field);
    // Some services take the secret on one side and nothing on the other.
    field.is_empty_text().then(String::new).or_else(|| report.text(&field).map(str::to_owned))
}

fn test_call(field: &Field<'_>, places: &mut Places, report: &mut Report) -> Option<TestDraft> {
    let section = report.section(field, TEST)?;
    let method = match section.get("method") {
        None => Some("GET"),
        Some(field) => {
            places.note("test.method", &field);
            report.text(&field)
        }
    };
    let Some(target) = section.get("path") else {
        report.fault(field.at(), format!("`{}` has no `path`", field.path), "path: /v1/models");
        return None;
    };
    places.note("test.path", &target);
    let path = report.text(&target)?;
    Some(TestDraft { method: method?.to_owned(), path: path.to_owned(), body: None })
}
