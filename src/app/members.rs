//! The pools' members: what is stored, and what the caller's environment holds.

use std::fmt;
use std::sync::Arc;

use crate::clock::WallTime;
use crate::id::{ProfileId, ShortName};
use crate::message::pattern::HostPattern;
use crate::provider::{Catalogue, Kind};
use crate::secret::Secret;
use crate::source::{Member, MemberValue, fingerprint};
use crate::vault::{Scope, SealedCredential};

/// Profiles from the environment come after every stored one.
const ENVIRONMENT_RANK: u8 = 250;

/// A known provider's variable, found in the caller's environment.
pub struct Found {
    /// The variable.
    pub variable: String,
    /// Its value.
    pub value: Arc<Secret>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Found({})", self.variable)
    }
}

/// Picks the known providers' variables out of an environment.
pub fn find_in_environment(catalogue: &Catalogue, variables: impl Iterator<Item = (String, String)>) -> Vec<Found> {
    variables
        .filter(|(variable, value)| {
            // A placeholder of an outer `run` is no key.
            let text = value.trim();
            !text.is_empty() && !marked(text) && catalogue.by_env(variable).is_some()
        })
        .map(|(variable, value)| Found { variable, value: Arc::new(Secret::from(value.trim().to_owned())) })
        .collect()
}

fn marked(text: &str) -> bool {
    text.to_ascii_lowercase().contains("keyferry")
}

/// The members that one snapshot of the vault gives. Credentials without a provider are nobody's members.
pub(super) fn stored(catalogue: &Catalogue, sealed: Vec<SealedCredential>) -> Vec<Member> {
    sealed.into_iter().filter_map(|sealed| member(catalogue, sealed)).collect()
}

fn member(catalogue: &Catalogue, sealed: SealedCredential) -> Option<Member> {
    let stored = &sealed.stored;
    let provider = catalogue.provider(stored.provider.as_ref()?)?;
    let kind = provider.kind(&stored.kind)?;
    let audience: Vec<HostPattern> = stored.hosts.iter().filter_map(|host| HostPattern::parse(host).ok()).collect();
    Some(Member {
        profile: ProfileId { provider: provider.id.clone(), name: stored.name.short().clone() },
        kind: kind.id.clone(),
        rank: kind.rank,
        scope: stored.scope.clone(),
        audience,
        shape: kind.shape.clone(),
        env: stored.env.clone().or_else(|| kind.env.first().cloned()),
        install: stored.install,
        created: stored.created,
        version: stored.version,
        fingerprint: fingerprint(stored.id, stored.version),
        value: MemberValue::Stored(Arc::new(sealed)),
    })
}

/// The in-memory members that the caller's environment gives.
pub(super) fn environment(catalogue: &Catalogue, found: &[Found]) -> Vec<Member> {
    found.iter().filter_map(|found| from_variable(catalogue, found)).collect()
}

fn from_variable(catalogue: &Catalogue, found: &Found) -> Option<Member> {
    let (provider, conventional) = catalogue.by_env(&found.variable)?;
    let kind: &Kind = provider.kind_of(&found.value).unwrap_or(conventional);
    let audience = kind.hosts();
    if audience.is_empty() || kind.check(&found.value).is_err() {
        return None;
    }
    Some(Member {
        profile: ProfileId { provider: provider.id.clone(), name: ShortName::parse(&found.variable).ok()? },
        kind: kind.id.clone(),
        rank: ENVIRONMENT_RANK,
        scope: Scope::Shared,
        audience,
        shape: kind.shape.clone(),
        env: Some(found.variable.clone()),
        install: true,
        created: WallTime(0),
        version: 0,
        fingerprint: *b"environm",
        value: MemberValue::Environment(Arc::clone(&found.value)),
    })
}
