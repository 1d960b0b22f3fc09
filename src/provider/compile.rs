//! Drafts become providers, or every fault of theirs is named.
//!
//! Invariant: no fault hides another one; a provider comes out only where there was none.

mod carrier;
mod derive;
mod overlay;

use http::Method;
use http::header::{self, HeaderName, HeaderValue};

pub(super) use overlay::overlay;

use self::carrier::{field_name, ways};
use self::derive::{add_slot, derived_id, form, slots};
use super::draft::{Draft, DraftFault, KindDraft, PlaceDraft, TestDraft};
use super::kind::{Kind, Looks, OAUTH2, Placement, Provider, TestCall, Way};
use super::scheme::Carrier;
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
    for (wire, path) in &draft.speaks {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            let hint = "the whole path, for example /v1/chat/completions";
            faults.add(format!("speaks.{}", wire.as_str()), format!("{path:?} is not a path"), Some(hint));
        }
    }
    if !faults.list.is_empty() {
        return Err(faults.list);
    }
    let login = login(&kinds);
    Ok(Provider {
        id: id.clone(),
        name: draft.name.clone().unwrap_or_else(|| id.to_string()),
        kinds,
        fungible: draft.fungible.unwrap_or(true),
        family: draft.family,
        speaks: draft.speaks.clone(),
        issuer: draft.issuer.clone(),
        login,
        aka: draft.aka.clone(),
        slots,
    })
}

/// How a login's token is sent: as a kind that is a bearer token. A kind that is for such tokens alone comes first.
fn login(kinds: &[Kind]) -> Option<(usize, Kind)> {
    let bears = |way: &Way| {
        matches!(way.0.as_slice(), [Carrier::Field(field)]
            if field.name == header::AUTHORIZATION && field.value.as_str().eq_ignore_ascii_case("bearer {secret}"))
    };
    let only = |kind: &&Kind| kind.placements.iter().all(|place| place.ways.iter().all(bears));
    let base = kinds.iter().position(|kind| only(&kind))?;
    let kind = kinds.get(base)?;
    let looks = Vec::new();
    Some((base, Kind { id: OAUTH2.to_owned(), rank: kind.rank.min(1), looks, ..kind.clone() }))
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
