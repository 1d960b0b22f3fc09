//! Drafts of slots become carriers.
//!
//! Invariant: no carrier stands in a field that frames or routes a message, and none is a constant alone.

use http::header::{COOKIE, HeaderName};

use super::Faults;
use crate::provider::draft::{InjectDraft, PlaceDraft};
use crate::provider::kind::Way;
use crate::provider::request::is_reserved;
use crate::provider::scheme::{
    BasicCarrier, Carrier, CookieCarrier, FieldCarrier, PathCarrier, QueryCarrier, Template,
};

pub(super) fn ways(draft: &PlaceDraft, at: &str, faults: &mut Faults<'_>) -> Vec<Way> {
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

pub(super) fn field_name(text: &str, at: &str, faults: &mut Faults<'_>) -> Option<HeaderName> {
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
