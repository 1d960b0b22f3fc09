//! What is sealed for a credential: the value, and the binding that says what it is and where it may go.
//!
//! Invariant: the binding that is used is the sealed one. A row beside it that says something else makes the record
//! unusable.

use std::sync::Arc;

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::key::BASE64;
use super::model::{Draft, Opened, Scope, Stored};
use super::record::PAYLOAD_LIMIT;
use super::value::ValueError;
use crate::clock::WallTime;
use crate::id::{CredentialName, ProviderId};
use crate::secret::Secret;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    #[serde(borrow)]
    secret: &'a str,
    binding: Binding,
    kind: String,
    created: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    name: String,
    provider: Option<String>,
    scope: String,
    hosts: Vec<String>,
    version: u64,
}

/// Writes the payload of `version` of the credential that `draft` describes.
pub(super) fn encode(
    draft: &Draft,
    version: u64,
    created: WallTime,
    value: &Secret,
) -> Result<Zeroizing<Vec<u8>>, ValueError> {
    let too_large = || ValueError::TooLarge { found: value.len() };
    // Both buffers get their full size at once: one that grew would leave pieces of the value behind.
    let room = base64::encoded_len(value.len(), true).ok_or_else(too_large)?;
    let mut secret = Zeroizing::new(String::with_capacity(room));
    BASE64.encode_string(value.expose(), &mut secret);
    let payload = Payload {
        secret: &secret,
        binding: Binding {
            name: draft.name.to_string(),
            provider: draft.provider.as_ref().map(ToString::to_string),
            scope: draft.scope.to_string(),
            hosts: draft.hosts.clone(),
            version,
        },
        kind: draft.kind.clone(),
        created: created.0,
    };
    let mut bytes = Zeroizing::new(vec![0; PAYLOAD_LIMIT]);
    let mut rest = bytes.as_mut_slice();
    serde_json::to_writer(&mut rest, &payload).map_err(|_| too_large())?;
    let used = PAYLOAD_LIMIT - rest.len();
    bytes.truncate(used);
    Ok(bytes)
}

/// Reads a payload. `None` when it is not one.
pub(super) fn decode(payload: &[u8]) -> Option<Opened> {
    let payload: Payload<'_> = serde_json::from_slice(payload).ok()?;
    Some(Opened {
        secret: Arc::new(Secret::new(BASE64.decode(payload.secret).ok()?)),
        name: CredentialName::parse(&payload.binding.name).ok()?,
        provider: match payload.binding.provider {
            Some(provider) => Some(ProviderId::parse(&provider).ok()?),
            None => None,
        },
        kind: payload.kind,
        scope: Scope::parse(&payload.binding.scope).ok()?,
        hosts: payload.binding.hosts,
        version: payload.binding.version,
        created: WallTime(payload.created),
    })
}

/// Whether the sealed binding says what the row says.
pub(super) fn agrees(opened: &Opened, stored: &Stored) -> bool {
    opened.name == stored.name
        && opened.provider == stored.provider
        && opened.kind == stored.kind
        && opened.scope == stored.scope
        && opened.hosts == stored.hosts
        && opened.version == stored.version
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(hosts: Vec<String>) -> Draft {
        Draft {
            name: CredentialName::parse("acme:main").unwrap(),
            provider: Some(ProviderId::parse("acme").unwrap()),
            kind: "api-key".to_owned(),
            scope: Scope::Shared,
            env: None,
            install: true,
            hosts,
            description: None,
            label: None,
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            value in proptest::collection::vec(any::<u8>(), 1..400),
            hosts in proptest::collection::vec("[a-z\"\\\\é]{1,20}", 0..5),
            version in 1u64.., created: u64,
        ) {
            let payload = encode(&draft(hosts.clone()), version, WallTime(created), &Secret::new(value.clone())).unwrap();
            let opened = decode(&payload).unwrap();
            prop_assert!(opened.secret.matches(&value));
            prop_assert_eq!(opened.hosts, hosts);
            prop_assert_eq!(opened.version, version);
            prop_assert_eq!(opened.created, WallTime(created));
            prop_assert_eq!(opened.name.to_string(), "acme:main");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let value = Secret::new(vec![b'x'; 44 * 1024]);
        assert!(encode(&draft(Vec::new()), 1, WallTime(0), &value).is_ok());
        assert!(encode(&draft(vec!["x".repeat(8 * 1024)]), 1, WallTime(0), &value).is_err());
    }

    #[test]
    fn a_payload_with_something_else_in_it_is_refused() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"secret":"!","binding":{"name":"a","provider":null,"scope":"shared","hosts":[],"version":1},"kind":"k","created":1}"#,
            r#"{"secret":"YQ==","binding":{"name":"a","provider":null,"scope":"all","hosts":[],"version":1},"kind":"k","created":1}"#,
            r#"{"secret":"YQ==","binding":{"name":"a","provider":null,"scope":"shared","hosts":[],"version":1,"more":1},"kind":"k","created":1}"#,
        ] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }
}
