//! `providers`: the user's own providers, and changes to built-in ones.
//!
//! Invariant: every template has balanced braces, and one of the places of a credential holds a field of it, so that
//! what is injected is never a constant of this file alone.

use http::{HeaderName, HeaderValue, Method};

use crate::config::fault::Report;
use crate::config::field::{Field, Section};
use crate::config::model::{DraftPlaces, Inject, ProviderDraft, TestCall};
use crate::id::ProviderId;
use crate::message::path::Path;
use crate::message::pattern::HostPattern;

use super::{access, storage};

pub(super) const PROVIDER: &[&str] = &["hosts", "inject", "env", "test"];
pub(super) const TEST: &[&str] = &["method", "path"];
const BASIC: &[&str] = &["user", "password"];

/// Fields that frame a message or name its target: no credential goes there.
const NOT_FOR_CREDENTIALS: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "proxy-authenticate",
    "proxy-connection",
    "content-encoding",
    "content-type",
    "cookie",
    "forwarded",
    "via",
];

pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Vec<ProviderDraft> {
    let mut drafts = Vec::new();
    for (name, field) in report.named(field) {
        let id = match ProviderId::parse(name) {
            Ok(id) => Some(id),
            Err(error) => {
                report.fault(field.key_at, error.to_string(), Some("write it as acme or acme-eu".to_owned()));
                None
            }
        };
        let draft = report.section(&field, PROVIDER).and_then(|section| draft(&field, &section, id, report));
        drafts.extend(draft);
    }
    drafts
}

fn draft(
    field: &Field<'_>,
    section: &Section<'_>,
    name: Option<ProviderId>,
    report: &mut Report,
) -> Option<ProviderDraft> {
    let mut places = vec![(String::new(), field.key_at.line, field.key_at.column)];
    for key in PROVIDER {
        if let Some(field) = section.get(key) {
            places.push(((*key).to_owned(), field.at().line, field.at().column));
        }
    }
    let hosts = section.get("hosts").map(|field| {
        let hosts = report.each(&field, host);
        if field.is_empty() {
            report.fault(field.at(), format!("`{}` is empty", field.path), None);
        }
        hosts
    });
    let inject = section.get("inject").map(|field| inject(&field, report));
    let env = section.get("env").and_then(|field| {
        let hint = "letters, digits and underscores: ACME_API_KEY";
        report.parse(&field, "the name of a variable", hint, |text| storage::is_variable(text).then(|| text.to_owned()))
    });
    let test = section.get("test").and_then(|field| test_call(&field, report));
    Some(ProviderDraft { name: name?, hosts, inject, env, test, at: DraftPlaces(places) })
}

/// A host that credentials go to.
fn host(report: &mut Report, field: &Field<'_>) -> Option<HostPattern> {
    let host = access::host(field, report)?.0;
    access::refuse_address(&host, field, report);
    if host.suffix().is_some_and(|suffix| !suffix.contains('.')) {
        let hint = "name the domain too: *.example.com".to_owned();
        report.fault(
            field.at(),
            format!("`{}` would match every domain under a top-level name", field.path),
            Some(hint),
        );
    }
    Some(host)
}

fn inject(field: &Field<'_>, report: &mut Report) -> Vec<Inject> {
    if field.is_empty() {
        report.fault(field.at(), format!("`{}` is empty", field.path), None);
        return Vec::new();
    }
    let places = if field.is_list() {
        report.each(field, |report, item| one_place(item, report))
    } else {
        one_place(field, report).into_iter().collect()
    };
    let templates = places.iter().flat_map(Inject::templates);
    if !places.is_empty() && !templates.into_iter().any(|template| fields_of(template).is_some_and(|n| n > 0)) {
        let hint = "write {secret} where the credential goes: \"Bearer {secret}\"".to_owned();
        report.fault(field.at(), format!("`{}` has no place for the credential", field.path), Some(hint));
    }
    places
}

fn one_place(field: &Field<'_>, report: &mut Report) -> Option<Inject> {
    const FORMS: [&str; 5] = ["header", "query", "path", "basic", "cookie"];
    const KEYS: [&str; 6] = ["header", "query", "path", "basic", "cookie", "value"];
    const HINT: &str = "one of {header, value}, {query, value}, {path}, {basic: {user, password}}, {cookie, value}";
    let section = report.section(field, &KEYS)?;
    let forms: Vec<&str> = FORMS.into_iter().filter(|form| section.has(form)).collect();
    let [form] = forms.as_slice() else {
        let what = if forms.is_empty() { "does not say where the credential goes" } else { "says it in two ways" };
        report.fault(field.at(), format!("`{}` {what}", field.path), Some(HINT.to_owned()));
        return None;
    };
    let target = section.get(form)?;
    let takes_value = !matches!(*form, "path" | "basic");
    let value = section.get("value");
    match (&value, takes_value) {
        (Some(value), false) => {
            report.fault(
                value.key_at,
                format!("`{}` has no `value` beside `{form}`", field.path),
                Some(HINT.to_owned()),
            );
        }
        (None, true) => {
            let hint = "value: \"{secret}\", or with a word in front: \"Bearer {secret}\"".to_owned();
            report.fault(field.at(), format!("`{}` has no `value`", field.path), Some(hint));
        }
        _ => {}
    }
    let value = value.filter(|_| takes_value).and_then(|field| template(&field, report));
    match *form {
        "header" => {
            let name = header_name(&target, report);
            if value.as_ref().is_some_and(|value| HeaderValue::from_str(value).is_err()) {
                report.fault(
                    field.at(),
                    format!("`{}.value` has characters that a field cannot have", field.path),
                    None,
                );
                return None;
            }
            Some(Inject::Header { name: name?, value: value? })
        }
        "query" => {
            let hint = "letters, digits, `-`, `_` and `.`";
            let name = report.parse(&target, "the name of a parameter", hint, |text| {
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~[]$".contains(&b)).then(|| text.to_owned())
            });
            Some(Inject::Query { name: name?, value: value? })
        }
        "path" => {
            let path = template(&target, report)?;
            if !path.starts_with('/') || fields_of(&path) == Some(0) {
                let hint = "write the beginning of the path with its field: \"/bot{secret}\"".to_owned();
                report.fault(target.at(), format!("`{}` is a path with a field in it", target.path), Some(hint));
                return None;
            }
            Some(Inject::Path(path))
        }
        "basic" => {
            let basic = report.section(&target, BASIC)?;
            let mut part = |key: &str| match basic.get(key) {
                Some(field) => template(&field, report),
                None => {
                    let hint = "basic: {user: \"{user}\", password: \"{secret}\"}".to_owned();
                    report.fault(target.at(), format!("`{}` has no `{key}`", target.path), Some(hint));
                    None
                }
            };
            let (user, password) = (part("user"), part("password"));
            Some(Inject::Basic { user: user?, password: password? })
        }
        _ => {
            let hint = "letters, digits, `-` and `_`";
            let name = report.parse(&target, "the name of a cookie", hint, |text| {
                text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)).then(|| text.to_owned())
            });
            Some(Inject::Cookie { name: name?, value: value? })
        }
    }
}

impl Inject {
    fn templates(&self) -> Vec<&str> {
        match self {
            Self::Header { value, .. } | Self::Query { value, .. } | Self::Cookie { value, .. } => vec![value],
            Self::Path(path) => vec![path],
            Self::Basic { user, password } => vec![user, password],
        }
    }
}

fn header_name(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let name = report.parse(field, "the name of a header field", "", |text| {
        HeaderName::from_bytes(text.as_bytes()).ok().map(|name| (text.to_owned(), name))
    });
    let (text, name) = name?;
    if NOT_FOR_CREDENTIALS.contains(&name.as_str()) {
        let hint = (name.as_str() == "cookie").then(|| "write {cookie: NAME, value: \"{secret}\"}".to_owned());
        report.fault(field.at(), format!("`{}`: `{name}` is no field that a credential goes into", field.path), hint);
        return None;
    }
    Some(text)
}

/// A text with `{field}` in it; the text itself is not shown in faults.
fn template(field: &Field<'_>, report: &mut Report) -> Option<String> {
    let text = report.text(field)?;
    if fields_of(text).is_none() {
        let hint = "a field is written {secret}; its name has small letters, digits and underscores".to_owned();
        report.fault(field.at(), format!("`{}` has braces that name no field", field.path), Some(hint));
        return None;
    }
    Some(text.to_owned())
}

/// How many fields a template has; nothing when its braces are not in order.
fn fields_of(template: &str) -> Option<usize> {
    let mut count: usize = 0;
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest.get(at..)?.strip_prefix('{')?;
        let (name, after) = inner.split_once('}')?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        count = count.saturating_add(1);
        rest = after;
    }
    Some(count)
}

fn test_call(field: &Field<'_>, report: &mut Report) -> Option<TestCall> {
    let section = report.section(field, TEST)?;
    let method = match section.get("method") {
        None => Some(Method::GET),
        Some(field) => access::method(report, &field),
    };
    let Some(target) = section.get("path") else {
        report.fault(field.at(), format!("`{}` has no `path`", field.path), Some("path: /v1/models".to_owned()));
        return None;
    };
    let path = report.parse(&target, "a path", "write it from the root: /v1/models", |text| {
        let path = Path::parse(text).ok()?;
        path.canonical().ok()?;
        text.bytes().all(|b| b.is_ascii_graphic()).then(|| text.to_owned())
    });
    Some(TestCall { method: method?, path: path? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_fields_of_a_template() {
        for (text, expected) in [
            ("", Some(0)),
            ("constant", Some(0)),
            ("{secret}", Some(1)),
            ("Bearer {secret}", Some(1)),
            ("{user}:{secret_2}", Some(2)),
            ("{", None),
            ("}", None),
            ("{}", None),
            ("{Secret}", None),
            ("{a b}", None),
            ("{{secret}}", None),
            ("{secret}}", None),
        ] {
            assert_eq!(fields_of(text), expected, "{text}");
        }
    }
}
