//! What follows from where the credentials of a provider stand.
//!
//! Invariant: every slot that any kind fills is a slot that is emptied.

use std::collections::BTreeSet;

use http::header::{AUTHORIZATION, HeaderName};

use crate::provider::kind::{Kind, Placement, Slots};
use crate::provider::request::known_fields;
use crate::provider::scheme::{Carrier, Form};

/// How people call a kind that stands there.
pub(super) fn derived_id(placements: &[Placement]) -> String {
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
pub(super) fn form(placements: &[Placement]) -> Form {
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

pub(super) fn slots(kinds: &[Kind]) -> Slots {
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

pub(super) fn add_slot(slots: &mut Slots, text: &str) -> bool {
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
