//! `providers.*.rules` and its neighbours: what the answers of a provider mean, before the built-in rules are asked.
//!
//! Invariant: each word is checked where it stands; what is handed on compiles.

use std::collections::BTreeMap;

use http::HeaderName;
use regex::Regex;
use serde_json::Value;

use crate::config::fault::{Report, shown, suggestion};
use crate::config::field::{Field, Section};
use crate::provider::outcome::{Class, Format, RuleDraft, RulesDraft, Scope, UntilDraft, Words};

pub(super) const RULE: &[&str] = &["name", "on", "field", "says", "text", "means", "of", "until", "latest"];
pub(super) const UNTIL: &[&str] = &["field", "body", "text", "spent", "rejected", "midnight", "windows", "as"];
const PLACES: [&str; 6] = ["field", "body", "text", "spent", "rejected", "midnight"];

/// What a provider's section says of its answers; nothing where it says nothing.
pub(super) fn read(section: &Section<'_>, report: &mut Report) -> Option<RulesDraft> {
    let mut draft = RulesDraft::default();
    if let Some(field) = section.get("rules") {
        draft.rules = rules(&field, report);
    }
    if let Some(field) = section.get("stream") {
        draft.stream = rules(&field, report);
    }
    if let Some(field) = section.get("status") {
        draft.status = by_status(&field, report);
    }
    if let Some(field) = section.get("until") {
        draft.until = ends(&field, report);
    }
    if let Some(field) = section.get("inspect") {
        draft.inspect = one_of(&field, &["hold", "aside"], report);
    }
    if let Some(events) = section.get("events").and_then(|field| report.word(&field)) {
        draft.events = events;
    }
    if let Some(field) = section.get("faults") {
        draft.faults = one_of(&field, &["transient"], report);
    }
    (draft != RulesDraft::default()).then_some(draft)
}

fn rules(field: &Field<'_>, report: &mut Report) -> Vec<RuleDraft> {
    let mut number = 0usize;
    report.each(field, |report, item| {
        number = number.saturating_add(1);
        rule(item, number, report)
    })
}

fn rule(field: &Field<'_>, number: usize, report: &mut Report) -> Option<RuleDraft> {
    let section = report.section(field, RULE)?;
    let mut draft = RuleDraft { name: format!("own-{number}"), ..RuleDraft::default() };
    if let Some(name) = section.get("name").and_then(|field| report.text(&field).map(str::to_owned)) {
        draft.name = name;
    }
    if let Some(field) = section.get("on") {
        draft.on = several(&field, report, status);
    }
    if let Some(field) = section.get("field") {
        for (name, field) in report.named(&field) {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                report.fault(field.key_at, format!("{} is not the name of a field", shown(name)), "x-limit: '^spent$'");
            }
            let value = if field.plain() == Some("*") { Some("*".to_owned()) } else { expression(&field, report) };
            draft.field.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    if let Some(field) = section.get("says") {
        for (at, field) in report.named(&field) {
            if !at.starts_with('/') {
                report.fault(field.key_at, format!("{} is not a JSON pointer", shown(at)), "begin with /: /error/code");
            }
            let words = several(&field, report, word);
            draft.says.insert(at.to_owned(), Words::Many(words));
        }
    }
    draft.text = section.get("text").and_then(|field| expression(&field, report));
    match section.get("means") {
        Some(field) => draft.means = class(&field, report)?,
        None => {
            let hint = "means: rate-limit, quota, billing, auth-invalid, overloaded, request-fault, ...";
            report.fault(field.at(), format!("`{}` does not say what it means", field.path), hint);
            return None;
        }
    }
    if let Some(field) = section.get("of") {
        draft.of = scope(&field, report)?;
    }
    if let Some(field) = section.get("until") {
        draft.until = ends(&field, report);
    }
    if let Some(latest) = section.get("latest").and_then(|field| report.word(&field)) {
        draft.latest = latest;
    }
    if !["on", "field", "says", "text"].iter().any(|key| section.has(key)) {
        let hint = "name statuses (on), fields (field), members of the body (says) or words (text)";
        report.fault(field.at(), format!("`{}` fits every answer", field.path), hint);
    }
    Some(draft)
}

fn by_status(field: &Field<'_>, report: &mut Report) -> BTreeMap<u16, String> {
    let mut all = BTreeMap::new();
    for (code, field) in report.named(field) {
        let number = code.parse().ok().filter(is_status);
        if number.is_none() {
            report.fault(field.key_at, format!("{} is not a status", shown(code)), "429: rate-limit");
        }
        let word = report.text(&field).and_then(|text| {
            let (class, of) = text.split_once('@').map_or((text, None), |(class, of)| (class, Some(of)));
            let known = known_class(class).and_then(|()| of.map_or(Ok(()), known_scope));
            match known {
                Ok(()) => Some(text.to_owned()),
                Err((wrong, hint)) => {
                    report.fault(field.at(), format!("`{}`: {} {wrong}", field.path, shown(text)), hint);
                    None
                }
            }
        });
        all.extend(number.zip(word));
    }
    all
}

fn ends(field: &Field<'_>, report: &mut Report) -> Vec<UntilDraft> {
    if field.is_mapping() {
        end(field, report).into_iter().collect()
    } else {
        report.each(field, |report, item| end(item, report))
    }
}

fn end(field: &Field<'_>, report: &mut Report) -> Option<UntilDraft> {
    let section = report.section(field, UNTIL)?;
    let places: Vec<&str> = PLACES.into_iter().filter(|place| section.has(place)).collect();
    if places.len() != 1 {
        let what = if places.is_empty() { "does not say where the end stands" } else { "names two places" };
        let hint = "one of field, body, text, spent, rejected, midnight";
        report.fault(field.at(), format!("`{}` {what}", field.path), hint);
        return None;
    }
    let mut draft = UntilDraft::default();
    let text =
        |key: &str, report: &mut Report| section.get(key).and_then(|field| report.text(&field).map(str::to_owned));
    draft.field = text("field", report);
    draft.body = text("body", report);
    draft.spent = text("spent", report);
    draft.rejected = text("rejected", report);
    draft.text = section.get("text").and_then(|field| expression(&field, report));
    if let Some(field) = section
        .get("field")
        .filter(|_| draft.field.as_ref().is_some_and(|name| HeaderName::from_bytes(name.as_bytes()).is_err()))
    {
        report.fault(field.at(), format!("`{}` is not the name of a field", field.path), "field: x-limit-reset");
    }
    if let Some(field) = section.get("body").filter(|_| draft.body.as_ref().is_some_and(|at| !at.starts_with('/'))) {
        report.fault(field.at(), format!("`{}` is not a JSON pointer", field.path), "begin with /: /error/resets_at");
    }
    if let Some(field) = section.get("midnight") {
        let hours = |text: &str| text.parse().ok().filter(|hours| *hours < 24u8);
        draft.midnight = report.parse(&field, "a number of hours behind UTC", "from 0 to 23", hours);
    }
    if let Some(field) = section.get("windows") {
        draft.windows = report.each(&field, |report, item| report.text(item).map(str::to_owned));
    }
    if let Some(field) = section.get("as") {
        let words = Format::NAMED.iter().map(|(name, _)| *name);
        draft.form = report.convert(&field, |text| {
            let known = Format::NAMED.iter().any(|(name, _)| *name == text);
            if known { Ok(text.to_owned()) } else { Err(("is no known form".to_owned(), suggestion(text, words))) }
        });
    }
    Some(draft)
}

fn class(field: &Field<'_>, report: &mut Report) -> Option<String> {
    report.convert(field, |text| known_class(text).map(|()| text.to_owned()))
}

fn scope(field: &Field<'_>, report: &mut Report) -> Option<String> {
    report.convert(field, |text| known_scope(text).map(|()| text.to_owned()))
}

fn known_class(text: &str) -> Result<(), (String, String)> {
    let words = Class::NAMED.iter().map(|class| class.as_str());
    if words.clone().any(|word| word == text) {
        Ok(())
    } else {
        Err(("is no known class".to_owned(), suggestion(text, words)))
    }
}

fn known_scope(text: &str) -> Result<(), (String, String)> {
    let words = Scope::ALL.iter().map(|scope| scope.as_str());
    if words.clone().any(|word| word == text) {
        Ok(())
    } else {
        Err(("is no known scope".to_owned(), suggestion(text, words)))
    }
}

fn expression(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let hint = "the syntax is that of the Rust crate regex: '(?i)too many'";
    report.parse(field, "a regular expression", hint, |text| Regex::new(text).is_ok().then(|| text.to_owned()))
}

/// A value of a body; one that begins with `~` is an expression.
fn word(field: &Field<'_>, report: &mut Report) -> Option<Value> {
    let text = report.text(field)?;
    if let Some(expression) = text.strip_prefix('~')
        && Regex::new(expression).is_err()
    {
        report.fault(field.at(), format!("`{}` is not a regular expression", field.path), "'~(?i)too many'");
        return None;
    }
    Some(text.into())
}

fn status(field: &Field<'_>, report: &mut Report) -> Option<u16> {
    report.parse(field, "a status", "a number from 100 to 599", |text| text.parse().ok().filter(is_status))
}

fn is_status(number: &u16) -> bool {
    (100..600).contains(number)
}

/// A list, or the one value that it would hold.
fn several<T>(
    field: &Field<'_>,
    report: &mut Report,
    mut read: impl FnMut(&Field<'_>, &mut Report) -> Option<T>,
) -> Vec<T> {
    if field.is_list() {
        report.each(field, |report, item| read(item, report))
    } else {
        read(field, report).into_iter().collect()
    }
}

fn one_of(field: &Field<'_>, words: &[&str], report: &mut Report) -> Option<String> {
    report.convert(field, |text| {
        let known = words.contains(&text);
        if known {
            Ok(text.to_owned())
        } else {
            Err(("is not one of its words".to_owned(), suggestion(text, words.iter().copied())))
        }
    })
}
