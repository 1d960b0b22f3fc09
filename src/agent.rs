//! Who is calling: the one place where an [`Agent`] is made.
//!
//! Invariant: an [`Agent`] exists only because a token was presented whose digest is on file, or because the
//! operator gave a loopback listener an agent of its own.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, PROXY_AUTHORIZATION};

use crate::clock::WallTime;
use crate::id::AgentName;

/// The digest under which a token is on file.
pub type TokenDigest = [u8; 32];

/// What is on file for one token.
#[derive(Debug, Clone)]
pub struct TokenEntry {
    /// Whose it is.
    pub agent: AgentName,
    /// When it ends by itself; `None` is never.
    pub expires: Option<WallTime>,
}

/// Why a caller could not be identified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No credentials for the proxy at all.
    #[error("no proxy credentials")]
    Missing,
    /// Not Basic and not Bearer, or two of them, or not decodable.
    #[error("malformed proxy credentials")]
    Malformed,
    /// The token is unknown, expired or revoked, or belongs to another agent.
    #[error("unknown agent or token")]
    Unknown,
}

/// An identified caller.
#[derive(Clone)]
pub struct Agent {
    name: AgentName,
    digest: Option<TokenDigest>,
}

impl Agent {
    /// The agent that the operator gave to a listener. The caller has established that it was the listener's user who
    /// connected.
    #[must_use]
    pub fn of_listener(name: AgentName) -> Self {
        Self { name, digest: None }
    }

    /// Its name, as logs and policy use it.
    #[must_use]
    pub fn name(&self) -> &AgentName {
        &self.name
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agent({})", self.name)
    }
}

/// How the bytes of a token become its digest; the key stays with the vault.
pub type DigestOf = dyn Fn(&[u8]) -> TokenDigest + Send + Sync;

/// Every token on file, by digest.
pub struct Agents {
    digest: Arc<DigestOf>,
    tokens: HashMap<TokenDigest, TokenEntry>,
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agents({} tokens)", self.tokens.len())
    }
}

impl Agents {
    /// Takes the keyed digest function of the vault and what is on file (revoked tokens left out).
    pub fn new(digest: Arc<DigestOf>, tokens: impl IntoIterator<Item = (TokenDigest, TokenEntry)>) -> Self {
        Self { digest, tokens: tokens.into_iter().collect() }
    }

    /// Reads `Proxy-Authorization: Basic base64(agent:token)` or `Bearer token` (RFC 9110 section 11.7.2).
    ///
    /// # Errors
    /// [`IdentityError`]; the caller answers 407 to each of them alike.
    pub fn identify(&self, fields: &HeaderMap, now: WallTime) -> Result<Agent, IdentityError> {
        self.identify_by(fields, &PROXY_AUTHORIZATION, now)
    }

    /// The same on a listener with an agent of its own: who sends no credentials is that agent.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn identify_at(
        &self,
        fields: &HeaderMap,
        resident: Option<&Agent>,
        now: WallTime,
    ) -> Result<Agent, IdentityError> {
        match (self.identify(fields, now), resident) {
            (Err(IdentityError::Missing), Some(resident)) => Ok(resident.clone()),
            (identified, _) => identified,
        }
    }

    fn identify_by(&self, fields: &HeaderMap, field: &HeaderName, now: WallTime) -> Result<Agent, IdentityError> {
        let mut values = fields.get_all(field).iter();
        let value = values.next().ok_or(IdentityError::Missing)?;
        if values.next().is_some() {
            return Err(IdentityError::Malformed);
        }
        let (scheme, rest) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(IdentityError::Malformed)?;
        let rest = rest.trim();
        // 4 KiB is far beyond any token of ours and bounds the work for a stranger's bytes.
        if rest.len() > 4096 {
            return Err(IdentityError::Malformed);
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.by_token(rest.as_bytes(), None, now);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(IdentityError::Malformed);
        }
        let decoded = STANDARD.decode(rest).map_err(|_| IdentityError::Malformed)?;
        let text = std::str::from_utf8(&decoded).map_err(|_| IdentityError::Malformed)?;
        let (name, token) = text.split_once(':').ok_or(IdentityError::Malformed)?;
        self.by_token(token.as_bytes(), Some(name), now)
    }

    /// Finds the agent that holds `token`, and checks that it is `named` so where the caller said a name.
    ///
    /// # Errors
    /// [`IdentityError::Unknown`] for a token that is not on file, has expired or is another agent's.
    pub fn by_token(&self, token: &[u8], named: Option<&str>, now: WallTime) -> Result<Agent, IdentityError> {
        // The look-up is by a keyed digest, so its timing says nothing about the token.
        let digest = (self.digest)(token);
        let entry = self.tokens.get(&digest).ok_or(IdentityError::Unknown)?;
        if entry.expires.is_some_and(|end| end <= now) || named.is_some_and(|name| name != entry.agent.as_str()) {
            return Err(IdentityError::Unknown);
        }
        Ok(Agent { name: entry.agent.clone(), digest: Some(digest) })
    }

    /// Makes the agent of a request that carried one of our placeholders on the base-URL listener; the
    /// placeholder was checked against its keyed hash by the caller. Only agents on file can be made.
    #[must_use]
    pub fn by_placeholder(&self, name: &AgentName, now: WallTime) -> Option<Agent> {
        self.tokens
            .iter()
            .find(|(_, entry)| entry.agent == *name && entry.expires.is_none_or(|end| end > now))
            .map(|(digest, entry)| Agent { name: entry.agent.clone(), digest: Some(*digest) })
    }

    /// Whether an agent that was identified earlier still is one: asked once an exchange, so that a revocation
    /// reaches connections that are already open.
    #[must_use]
    pub fn still_valid(&self, agent: &Agent, now: WallTime) -> bool {
        match &agent.digest {
            None => true,
            Some(digest) => self.tokens.get(digest).is_some_and(|entry| entry.expires.is_none_or(|end| end > now)),
        }
    }

    /// The names on file, each once.
    #[must_use]
    pub fn names(&self) -> Vec<AgentName> {
        let mut names: Vec<AgentName> = self.tokens.values().map(|entry| entry.agent.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use sha2::{Digest as _, Sha256};

    const NOW: WallTime = WallTime(1_000_000);

    fn agents() -> Agents {
        let digest: Arc<DigestOf> = Arc::new(|token| Sha256::digest(token).into());
        let coder = TokenEntry { agent: AgentName::parse("coder").unwrap(), expires: None };
        let brief = TokenEntry { agent: AgentName::parse("brief").unwrap(), expires: Some(WallTime(999_999)) };
        Agents::new(digest.clone(), [(digest(b"kfa_one"), coder), (digest(b"kfa_two"), brief)])
    }

    fn with(value: &str) -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert(PROXY_AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        fields
    }

    fn basic(pair: &str) -> HeaderMap {
        with(&format!("Basic {}", STANDARD.encode(pair)))
    }

    #[test]
    fn knows_an_agent_by_basic_and_by_bearer() {
        for fields in [basic("coder:kfa_one"), with("Bearer kfa_one"), with("bearer kfa_one")] {
            assert_eq!(agents().identify(&fields, NOW).unwrap().name().as_str(), "coder");
        }
    }

    #[test]
    fn refuses_everything_else() {
        // AU-05
        let mut twice = basic("coder:kfa_one");
        twice.append(PROXY_AUTHORIZATION, HeaderValue::from_static("Bearer kfa_one"));
        for (fields, expected) in [
            (HeaderMap::new(), IdentityError::Missing),
            (twice, IdentityError::Malformed),
            (with("Basic"), IdentityError::Malformed),
            (with("Basic ###"), IdentityError::Malformed),
            (with("Digest kfa_one"), IdentityError::Malformed),
            (basic("kfa_one"), IdentityError::Malformed),
            (basic("other:kfa_one"), IdentityError::Unknown),
            (basic("kfa_one:coder"), IdentityError::Unknown),
            (basic("coder:kfa_none"), IdentityError::Unknown),
            (basic("brief:kfa_two"), IdentityError::Unknown),
            (with(&format!("Bearer {}", "x".repeat(70_000))), IdentityError::Malformed),
        ] {
            assert_eq!(agents().identify(&fields, NOW).unwrap_err(), expected);
        }
    }

    #[test]
    fn an_agent_whose_token_left_the_file_is_no_longer_valid() {
        let before = agents();
        let agent = before.identify(&with("Bearer kfa_one"), NOW).unwrap();
        assert!(before.still_valid(&agent, NOW));
        let after = Agents::new(Arc::new(|token| Sha256::digest(token).into()), []);
        assert!(!after.still_valid(&agent, NOW));
    }
}
