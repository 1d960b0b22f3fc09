//! Drafts become providers, or every fault of theirs is named.
//!
//! Invariant: no fault hides another one; a provider comes out only where there was none.

use std::collections::BTreeSet;

use http::Method;
use http::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue};

use super::draft::{Draft, DraftFault, InjectDraft, KindDraft, PlaceDraft, TestDraft};
use super::kind::{Kind, Looks, Placement, Provider, Slots, TestCall, Way};
use super::request::{is_reserved, known_fields};
use super::scheme::{BasicCarrier, Carrier, CookieCarrier, FieldCarrier, Form, PathCarrier, QueryCarrier, Template};
use crate::id::ProviderId;
use crate::message::pattern::HostPattern;
use crate::placeholder::Shape;
use crate::policy::path::PathPattern;

/// Makes a provider of `draft`.
pub(super) fn provider(id: &ProviderId, draft: &Draft) -> Result<Provider, Vec<DraftFault>> {
    let mut faults = Faults { provider: id, list: Vec::new() };
    let drafts = if draft.kinds.is_empty() { vec![short_form(draft)] } else { draft.kinds.clone() };
    let mut kinds: Vec<Kind> = Vec::new();
    for (at, kind_draft) in drafts.iter().enumerate() {
        let at = if draft.kinds.is_empty() { String::new() } else { format!("kinds[{at}].") };
        let kind = kind(kind_draft, &at, &mut faults);
        if kinds.iter().any(|other| other.id == kind.id) {
            faults.add(format!("{at}id"), format!("two kinds are called '{}'", kind.id), None);
        }
        kinds.push(kind);
    }
    let mut slots = slots(&kinds);
    for (at, text) in draft.strip.iter().enumerate() {
        if !add_slot(&mut slots, text) {
            let hint = "write header:NAME, query:NAME or subprotocol:PREFIX";
            faults.add(format!("strip[{at}]"), format!("'{text}' is not a slot"), Some(hint));
        }
    }
    if !faults.list.is_empty() {
        return Err(faults.list);
    }
    Ok(Provider {
        id: id.clone(),
        name: draft.name.clone().unwrap_or_else(|| id.to_string()),
        kinds,
        fungible: draft.fungible.unwrap_or(true),
        family: draft.family,
        aka: draft.aka.clone(),
        slots,
    })
}

/// `over` laid upon the draft of a provider that is known already: what it names replaces, the rest stays.
pub(super) fn overlay(base: &Draft, over: Draft) -> Draft {
    let mut merged = base.clone();
    merged.name = over.name.or(merged.name);
    merged.family = over.family.or(merged.family);
    merged.fungible = over.fungible.or(merged.fungible);
    merged.aka.extend(over.aka);
    merged.strip.extend(over.strip);
    if merged.kinds.is_empty() {
        merged.kinds.push(short_form(base));
    }
    if !over.kinds.is_empty() {
        merged.kinds = over.kinds;
        return merged;
    }
    if !over.inject.is_empty() {
        // A place of one's own: what the kinds of the catalogue said of places no longer holds.
        let first = merged.kinds.first().cloned().unwrap_or_default();
        let known = first.places.first().map_or_else(|| first.hosts.clone(), |place| place.hosts.clone());
        merged.kinds = vec![KindDraft {
            hosts: if over.hosts.is_empty() { known } else { over.hosts },
            inject: over.inject,
            env: if over.env.is_empty() { first.env } else { over.env },
            test: over.test.or(first.test),
            base_url_env: first.base_url_env,
            placeholder: first.placeholder,
            looks: first.looks,
            ..KindDraft::default()
        }];
        return merged;
    }
    for kind in &mut merged.kinds {
        if !over.hosts.is_empty() {
            let hosts = kind.places.first_mut().map_or(&mut kind.hosts, |place| &mut place.hosts);
            hosts.clone_from(&over.hosts);
        }
        if over.test.is_some() {
            kind.test.clone_from(&over.test);
        }
    }
    if let Some(first) = merged.kinds.first_mut().filter(|_| !over.env.is_empty()) {
        first.env = over.env;
    }
    merged
}

struct Faults<'a> {
    provider: &'a ProviderId,
    list: Vec<DraftFault>,
}

impl Faults<'_> {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>, hint: Option<&str>) {
        self.list.push(DraftFault {
            provider: self.provider.clone(),
            field: field.into(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }
}

fn short_form(draft: &Draft) -> KindDraft {
    KindDraft {
        hosts: draft.hosts.clone(),
        inject: draft.inject.clone(),
        env: draft.env.clone(),
        test: draft.test.clone(),
        ..KindDraft::default()
    }
}

fn kind(draft: &KindDraft, at: &str, faults: &mut Faults<'_>) -> Kind {
    let add = pairs(&draft.add, &format!("{at}add"), faults, |value| HeaderValue::from_str(value).ok());
    let append = pairs(&draft.append, &format!("{at}append"), faults, list_value);
    let remove = pairs(&draft.remove, &format!("{at}remove"), faults, list_value);
    let mut placements = Vec::new();
    let mut place = |draft: &PlaceDraft, at: &str, faults: &mut Faults<'_>| {
        placements.push(Placement {
            hosts: hosts(&draft.hosts, &format!("{at}hosts"), faults),
            paths: paths(&draft.paths, &format!("{at}paths"), faults),
            ways: ways(draft, at, faults),
            add: add.clone(),
            append: append.clone(),
            remove: remove.clone(),
        });
    };
    if draft.places.is_empty() {
        let only = PlaceDraft {
            hosts: draft.hosts.clone(),
            paths: Vec::new(),
            inject: draft.inject.clone(),
            or: draft.or.clone(),
        };
        place(&only, at, faults);
    }
    for (index, place_draft) in draft.places.iter().enumerate() {
        place(place_draft, &format!("{at}places[{index}]."), faults);
    }
    let field_env: Vec<String> = draft.field_env.iter().map(|(_, variable)| variable.clone()).collect();
    for (key, names) in [("env", &draft.env), ("base_url_env", &draft.base_url_env), ("field_env", &field_env)] {
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !is_variable(name)) {
            faults.add(format!("{at}{key}[{index}]"), format!("'{name}' is not a variable name"), None);
        }
    }
    let shape = draft.placeholder.as_deref().map_or_else(|| Ok(Shape::generic()), Shape::parse);
    let shape = shape.unwrap_or_else(|error| {
        faults.add(format!("{at}placeholder"), error.to_string(), None);
        Shape::generic()
    });
    Kind {
        id: draft.id.clone().unwrap_or_else(|| derived_id(&placements)),
        rank: draft.rank.unwrap_or(10),
        shape,
        env: draft.env.clone(),
        base_url_env: draft.base_url_env.clone(),
        test: draft.test.as_ref().and_then(|test| test_call(test, &format!("{at}test"), faults)),
        form: form(&placements),
        placements,
        public: draft.public.clone(),
        field_env: draft.field_env.clone(),
        looks: draft.looks.iter().map(|text| Looks::new(text)).collect(),
    }
}

fn hosts(texts: &[String], at: &str, faults: &mut Faults<'_>) -> Vec<HostPattern> {
    if texts.is_empty() {
        faults.add(
            at,
            "there are no hosts",
            Some("name the hosts that the credential may go to, such as api.example.com"),
        );
    }
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let field = format!("{at}[{index}]");
        match HostPattern::parse(text) {
            Err(error) => faults.add(field, format!("'{text}' {error}"), Some(error.hint())),
            Ok(pattern) => {
                if pattern.exact_host().is_some_and(|host| host.name().is_none()) {
                    let hint = "give it a name (in /etc/hosts, say): a certificate for an address cannot be made here";
                    faults.add(field, format!("'{text}' is an address, which cannot be intercepted"), Some(hint));
                }
                patterns.push(pattern);
            }
        }
    }
    patterns
}

fn paths(texts: &[String], at: &str, faults: &mut Faults<'_>) -> Vec<PathPattern> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match PathPattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => faults.add(format!("{at}[{index}]"), format!("'{text}' {error}"), Some(error.hint())),
        }
    }
    patterns
}

fn ways(draft: &PlaceDraft, at: &str, faults: &mut Faults<'_>) -> Vec<Way> {
    let mut ways = vec![way(&draft.inject, &format!("{at}inject"), faults)];
    for (index, alternative) in draft.or.iter().enumerate() {
        ways.push(way(alternative, &format!("{at}or[{index}]"), faults));
    }
    ways
}

fn way(drafts: &[InjectDraft], at: &str, faults: &mut Faults<'_>) -> Way {
    let mut carriers: Vec<Carrier> = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let at = if drafts.len() == 1 { at.to_owned() } else { format!("{at}[{index}]") };
        let Some(carrier) = carrier(draft, &at, faults) else { continue };
        if carriers.iter().any(|other| other.slot() == carrier.slot()) {
            faults.add(&at, format!("the slot {} is filled twice", carrier.slot()), None);
        }
        carriers.push(carrier);
    }
    if drafts.is_empty() {
        faults.add(at, "says nothing of where the credential goes", Some(INJECT_HINT));
    } else if carriers.len() == drafts.len() && carriers.iter().all(|carrier| carrier.needs().is_empty()) {
        faults.add(at, "never names {secret}", Some(INJECT_HINT));
    }
    Way(carriers)
}

const INJECT_HINT: &str = "for example inject: {header: Authorization, value: \"Bearer {secret}\"}";

fn carrier(draft: &InjectDraft, at: &str, faults: &mut Faults<'_>) -> Option<Carrier> {
    match draft {
        InjectDraft::Header { header, value } => {
            let name = field_name(header, &format!("{at}.header"), faults);
            let value = template(value, &format!("{at}.value"), faults);
            Some(Carrier::Field(FieldCarrier { name: name?, value: value? }))
        }
        InjectDraft::Query { query, value } => {
            if query.is_empty() || query.chars().any(|c| c.is_control() || c.is_whitespace()) {
                faults.add(format!("{at}.query"), "is not the name of a query parameter", None);
            }
            let value = template(value, &format!("{at}.value"), faults)?;
            Some(Carrier::Query(QueryCarrier { name: query.clone(), value }))
        }
        InjectDraft::Path { path } => {
            let field = format!("{at}.path");
            // A slash at the end belongs to what follows.
            let template = template(path.strip_suffix('/').unwrap_or(path), &field, faults)?;
            if !path.starts_with('/') || path.contains(['?', '#', '%', '\\', ' ']) {
                faults.add(field, format!("'{path}' is not the beginning of a path"), Some("for example /bot{secret}"));
                return None;
            }
            if template.fields().next().is_none() {
                faults.add(field, "never names {secret}", Some("for example /bot{secret}"));
                return None;
            }
            Some(Carrier::Path(PathCarrier { template }))
        }
        InjectDraft::Basic { basic } => {
            let user = template(&basic.user, &format!("{at}.basic.user"), faults);
            let password = template(&basic.password, &format!("{at}.basic.password"), faults);
            Some(Carrier::Basic(BasicCarrier { user: user?, password: password? }))
        }
        InjectDraft::Cookie { cookie, value } => {
            // RFC 6265 section 4.1.1: a cookie's name is a token, as a field's name is.
            if HeaderName::from_bytes(cookie.as_bytes()).is_err() {
                faults.add(format!("{at}.cookie"), format!("'{cookie}' is not a cookie name"), None);
            }
            let value = template(value, &format!("{at}.value"), faults)?;
            Some(Carrier::Cookie(CookieCarrier { name: cookie.clone(), value }))
        }
    }
}

fn field_name(text: &str, at: &str, faults: &mut Faults<'_>) -> Option<HeaderName> {
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        // EX-17: the name is not repeated raw, it may hold a line break.
        faults.add(at, format!("{text:?} is not a field name"), None);
        return None;
    };
    if is_reserved(&name) {
        faults.add(at, format!("'{name}' is not a field that a credential can stand in"), None);
        return None;
    }
    if name == COOKIE {
        faults.add(at, "a cookie is written {cookie: NAME, value: ...}", None);
        return None;
    }
    Some(name)
}

fn template(text: &str, at: &str, faults: &mut Faults<'_>) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => {
            faults.add(at, format!("{text:?} {error}"), Some("write fields as {secret}"));
            None
        }
    }
}

fn pairs<T>(
    pairs: &[(String, String)],
    at: &str,
    faults: &mut Faults<'_>,
    parse: impl Fn(&str) -> Option<T>,
) -> Vec<(HeaderName, T)> {
    let mut parsed = Vec::new();
    for (index, (name, value)) in pairs.iter().enumerate() {
        let field = format!("{at}[{index}]");
        let name = field_name(name, &field, faults);
        match (name, parse(value)) {
            (Some(name), Some(value)) => parsed.push((name, value)),
            (Some(_), None) => faults.add(field, "is not a field value", None),
            (None, _) => {}
        }
    }
    parsed
}

fn list_value(text: &str) -> Option<String> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',');
    plain.then(|| text.to_owned())
}

fn test_call(draft: &TestDraft, at: &str, faults: &mut Faults<'_>) -> Option<TestCall> {
    let method = match draft.method.as_str() {
        "GET" => Some(Method::GET),
        "HEAD" => Some(Method::HEAD),
        "POST" => Some(Method::POST),
        other => {
            faults.add(format!("{at}.method"), format!("{other:?} is not GET, HEAD or POST"), None);
            None
        }
    };
    let mut target = String::new();
    let mut rest = draft.path.as_str();
    while let Some((literal, after)) = rest.split_once('{') {
        target.push_str(literal);
        target.push('-');
        rest = after.split_once('}').map_or("", |(_, after)| after);
    }
    target.push_str(rest);
    let valid = target.starts_with('/') && http::uri::PathAndQuery::try_from(target.as_str()).is_ok();
    if !valid {
        faults.add(format!("{at}.path"), format!("{:?} is not a path", draft.path), Some("for example /v1/models"));
    }
    method.filter(|_| valid).map(|method| TestCall { method, target, body: draft.body.clone() })
}

fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(plain) && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// How people call a kind that stands there.
fn derived_id(placements: &[Placement]) -> String {
    let first = placements.first().and_then(|place| place.ways.first()).and_then(|way| way.0.first());
    let id = match first {
        Some(Carrier::Basic(_)) => "basic",
        Some(Carrier::Path(_)) => "path",
        Some(Carrier::Query(_)) => "query",
        Some(Carrier::Cookie(_)) => "cookie",
        Some(Carrier::Field(field)) if field.name == AUTHORIZATION => "bearer",
        Some(Carrier::Field(_)) | None => "api-key",
    };
    id.to_owned()
}

/// How a value is written follows from the fields that are asked of it.
fn form(placements: &[Placement]) -> Form {
    let carriers = || placements.iter().flat_map(|place| &place.ways).flat_map(|way| &way.0);
    let needs: BTreeSet<&str> = carriers().flat_map(Carrier::needs).collect();
    let has_basic = carriers().any(|carrier| matches!(carrier, Carrier::Basic(_)));
    let mut others = needs.iter().filter(|name| !matches!(**name, "secret" | "password"));
    match (others.next(), others.next()) {
        (None, _) => Form::Whole,
        (Some(&"user"), None) if has_basic => Form::UserSecret,
        _ => Form::Object,
    }
}

fn slots(kinds: &[Kind]) -> Slots {
    let mut slots = Slots { fields: known_fields().collect(), ..Slots::default() };
    let ways = kinds.iter().flat_map(|kind| &kind.placements).flat_map(|place| &place.ways);
    for carrier in ways.flat_map(|way| &way.0) {
        match carrier {
            Carrier::Field(field) => {
                slots.fields.insert(field.name.clone());
            }
            Carrier::Query(query) if !slots.queries.contains(&query.name) => slots.queries.push(query.name.clone()),
            Carrier::Path(path) if !slots.paths.contains(&path.template) => slots.paths.push(path.template.clone()),
            // Authorization and Cookie are emptied always.
            Carrier::Query(_) | Carrier::Path(_) | Carrier::Basic(_) | Carrier::Cookie(_) => {}
        }
    }
    slots
}

fn add_slot(slots: &mut Slots, text: &str) -> bool {
    match text.split_once(':') {
        Some(("header", name)) => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => {
                slots.fields.insert(name);
                true
            }
            Err(_) => false,
        },
        Some(("query", name)) if !name.is_empty() => {
            slots.queries.push(name.to_owned());
            true
        }
        Some(("subprotocol", prefix)) if !prefix.is_empty() => {
            slots.protocols.push(prefix.to_owned());
            true
        }
        _ => false,
    }
}
