//! The one place where a credential comes into a request.
//!
//! [`inject`] fills one way of one kind in a stripped request, so that exactly one credential leaves, and leaves for
//! an origin that both the channel and the credential's own audience name.
//!
//! Invariant: an [`Injected`] is made in this file only, from a stripped request and a verified channel.

use std::fmt;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::credential::Credential;
use super::kind::{Kind, OAUTH2, Placement, Provider, Way};
use super::request::{Stripped, elements, replace_list};
use super::scheme::{Carrier, Head, InjectError, PathSlot, Values};
use crate::message::origin::{Origin, Scheme};
use crate::secret::Secret;
use crate::telemetry::Witness;
use crate::tls::Verified;

/// A request that may leave: made by [`inject`] and [`forward`] only.
pub struct Injected {
    parts: Parts,
    origin: Origin,
    secret: Option<Arc<Secret>>,
    derived: Vec<Arc<Secret>>,
}

impl Injected {
    /// Where it may go, and nowhere else.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The credential in it.
    #[must_use]
    pub fn used_secret(&self) -> Option<&Arc<Secret>> {
        self.secret.as_ref()
    }

    /// Every text to look for in what comes back: the value, its secret fields, and the forms in which they were
    /// sent.
    #[must_use]
    pub fn secrets(&self) -> &[Arc<Secret>] {
        &self.derived
    }

    /// The head, its target in origin form, its `Host` field that of [`Injected::origin`].
    #[must_use]
    pub fn into_parts(self) -> Parts {
        self.parts
    }
}

/// Shows where it goes, and nothing of what is in it.
impl fmt::Debug for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injected")
            .field("origin", &self.origin)
            .field("method", &self.parts.method)
            .field("with_credential", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}

/// Puts `credential` into a copy of the request, for the far end of a verified channel, once the intent to use it
/// is written.
///
/// # Errors
/// [`InjectError`] when the credential is not for that origin or not the one of the written intent, or cannot stand
/// in this request.
pub fn inject(
    stripped: &Stripped,
    provider: &Provider,
    credential: &Credential,
    verified: &Verified,
    witness: &Witness,
) -> Result<Injected, InjectError> {
    if witness.profile() != &credential.profile {
        return Err(InjectError::Unwitnessed(credential.profile.clone()));
    }
    inject_for(stripped, provider, credential, verified.origin())
}

/// The request as it is, without a credential of ours, for the far end of a verified channel.
///
/// # Errors
/// [`InjectError::Unusable`] when the target is no target.
pub fn forward(stripped: Stripped, verified: &Verified) -> Result<Injected, InjectError> {
    let Stripped { method, version, head, .. } = stripped;
    sealed(method, version, head, verified.origin(), None, Vec::new())
}

/// The request as it is, for an origin that is spoken to in cleartext: it holds no credential of ours.
///
/// # Errors
/// [`InjectError::Unusable`] when the target is no target, or the origin is one for TLS.
pub fn forward_cleartext(stripped: Stripped, origin: &Origin) -> Result<Injected, InjectError> {
    if origin.scheme() != Scheme::Http {
        return Err(InjectError::Unusable("the origin is spoken to over TLS"));
    }
    let Stripped { method, version, head, .. } = stripped;
    sealed(method, version, head, origin, None, Vec::new())
}

/// Puts `credential` into a copy of the request, for the origin of a verified channel.
pub(super) fn inject_for(
    stripped: &Stripped,
    provider: &Provider,
    credential: &Credential,
    origin: &Origin,
) -> Result<Injected, InjectError> {
    let (kind_at, kind) = kind_for(provider, &credential.kind)?;
    let material = credential.expose_to(origin)?;
    let (place_at, placement) = kind.placement_at(origin, stripped.head.path.original()).ok_or(InjectError::NotHere)?;
    let way = choose(placement, stripped, (kind_at, place_at)).ok_or(InjectError::NotHere)?;
    let values = Values::read(kind.form, material)?;
    let mut head = stripped.head.clone();
    let mut secrets = vec![Arc::clone(credential.secret())];
    fill(way, &mut head, &values, &mut secrets)?;
    if matches!(head.path, PathSlot::Held { .. }) {
        // A path slot that this kind does not fill would go on with what the client had in it.
        return Err(InjectError::NotHere);
    }
    for name in way.0.iter().flat_map(Carrier::needs).filter(|name| !kind.is_public(name)) {
        let field = values.field(name)?;
        if !secrets.iter().any(|known| known.matches(field)) {
            secrets.push(Arc::new(Secret::new(field.to_vec())));
        }
    }
    adjust(placement, &mut head.fields);
    let (method, version) = (stripped.method.clone(), stripped.version);
    sealed(method, version, head, origin, Some(Arc::clone(credential.secret())), secrets)
}

/// Tries `values` in every way of `kind`, on a request that has every slot.
pub(super) fn rehearse(kind: &Kind, values: &Values<'_>) -> Result<(), InjectError> {
    for way in kind.placements.iter().flat_map(|place| &place.ways) {
        let mut head = Head { fields: HeaderMap::new(), path: PathSlot::Plain("/".to_owned()), query: None };
        if let Some(template) = way.0.iter().find_map(|carrier| match carrier {
            Carrier::Path(path) => Some(path.template.clone()),
            _ => None,
        }) {
            head.path = PathSlot::Held { template, held: "-".to_owned(), original: String::new(), rest: String::new() };
        }
        fill(way, &mut head, values, &mut Vec::new())?;
    }
    Ok(())
}

fn fill(way: &Way, head: &mut Head, values: &Values<'_>, secrets: &mut Vec<Arc<Secret>>) -> Result<(), InjectError> {
    for carrier in &way.0 {
        carrier.put(head, values, secrets)?;
    }
    Ok(())
}

fn kind_for<'p>(provider: &'p Provider, id: &str) -> Result<(usize, &'p Kind), InjectError> {
    let found = provider.kinds.iter().enumerate().find(|(_, kind)| kind.id == id);
    match (found, provider.kinds.as_slice()) {
        (Some(found), _) => Ok(found),
        (None, _) if id == OAUTH2 => {
            let login = provider.login.as_ref().map(|(base, kind)| (*base, kind));
            login.ok_or_else(|| InjectError::UnknownKind(id.to_owned()))
        }
        // The configuration may have renamed the only kind since the credential was stored.
        (None, [only]) => Ok((0, only)),
        (None, _) => Err(InjectError::UnknownKind(id.to_owned())),
    }
}

/// The way that the client used, where the placement has it, else the first.
fn choose<'p>(placement: &'p Placement, stripped: &Stripped, (kind, place): (usize, usize)) -> Option<&'p Way> {
    // A mark of another kind says that the client meant that one, and used its slot.
    let foreign = placement
        .remove
        .iter()
        .any(|(name, value)| elements(&stripped.head.fields, name).any(|element| element.eq_ignore_ascii_case(value)));
    let used = stripped.used.iter().find(|used| used.0 == kind && used.1 == place).filter(|_| !foreign);
    placement.ways.get(used.map_or(0, |used| used.2))
}

fn adjust(placement: &Placement, fields: &mut HeaderMap) {
    for (name, value) in &placement.remove {
        if fields.contains_key(name) {
            let kept: Vec<String> = elements(fields, name).filter(|e| !e.eq_ignore_ascii_case(value)).collect();
            replace_list(fields, name, &kept);
        }
    }
    for (name, value) in &placement.append {
        let mut list: Vec<String> = elements(fields, name).collect();
        if !list.iter().any(|element| element == value) {
            list.push(value.clone());
            replace_list(fields, name, &list);
        }
    }
    for (name, value) in &placement.add {
        fields.entry(name).or_insert_with(|| value.clone());
    }
}

fn sealed(
    method: Method,
    version: Version,
    mut head: Head,
    origin: &Origin,
    secret: Option<Arc<Secret>>,
    derived: Vec<Arc<Secret>>,
) -> Result<Injected, InjectError> {
    let path = head.path.original().to_owned();
    let target = match head.query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let target =
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(target)).map_err(|_| InjectError::Unusable("a target"))?;
    let authority = HeaderValue::from_str(&origin.authority()).map_err(|_| InjectError::Unusable("a host"))?;
    head.fields.insert(header::HOST, authority);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.version = version;
    parts.uri = Uri::from(target);
    parts.headers = head.fields;
    Ok(Injected { parts, origin: origin.clone(), secret, derived })
}
