//! A provider of the configuration that has the name of one that is known already.
//!
//! Invariant: where a credential stands is either all the catalogue's word or all the configuration's.

use super::short_form;
use crate::provider::draft::{Draft, KindDraft};

/// `over` laid upon the draft of a provider that is known already: what it names replaces, the rest stays.
pub(in crate::provider) fn overlay(base: &Draft, over: Draft) -> Draft {
    let mut merged = base.clone();
    merged.name = over.name.or(merged.name);
    merged.family = over.family.or(merged.family);
    merged.speaks.extend(over.speaks);
    merged.issuer = over.issuer.or(merged.issuer);
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
