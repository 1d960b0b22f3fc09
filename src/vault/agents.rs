//! Agents, their tokens and their sessions.
//!
//! Invariant: a token is shown once, when it is made; what is kept is its digest under a key of this vault.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::Vault;
use super::error::VaultError;
use super::integrity::Manifest;
use super::key::random;
use super::model::{AgentRow, TokenKind, TokenRow};
use super::store::{AgentRecord, Change, Commit, Read, Roster, TokenRecord};
use crate::clock::WallTime;
use crate::id::AgentName;
use crate::secret::Secret;

/// How every token begins.
pub const TOKEN_PREFIX: &str = "kfa_";
/// How long an ended token is kept, so that a listing can still show it.
const KEEP_ENDED: Duration = Duration::from_hours(7 * 24);

impl Vault {
    /// Makes an agent, or another token for one that is there. A revoked agent is back with this token alone.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn create_agent(&self, agent: &AgentName, now: WallTime) -> Result<Secret, VaultError> {
        self.issue(agent, now, None, |_, changes, vault| {
            changes.put_agent(vault, AgentRecord { revoked: None, ..changes.agent(agent, now) })
        })
        .await
    }

    /// Gives an agent a new token and revokes all that it had, those of sessions included.
    ///
    /// # Errors
    /// [`VaultError::NoSuchAgent`], or what keeps the vault from writing.
    pub async fn rotate_agent(&self, agent: &AgentName, now: WallTime) -> Result<Secret, VaultError> {
        self.issue(agent, now, None, |known, changes, vault| {
            if !known {
                return Err(VaultError::NoSuchAgent { agent: agent.clone() });
            }
            changes.revoke_tokens(vault, |token| token.agent == agent.as_str(), now)?;
            changes.put_agent(vault, AgentRecord { revoked: None, ..changes.agent(agent, now) })
        })
        .await
    }

    /// Makes a token that ends after `ttl`. An agent that is not on file yet is made; one that was revoked stays so.
    ///
    /// # Errors
    /// [`VaultError::AgentRevoked`], or what keeps the vault from writing.
    pub async fn create_session(&self, agent: &AgentName, ttl: Duration, now: WallTime) -> Result<Secret, VaultError> {
        self.issue(agent, now, Some(now.plus(ttl)), |known, changes, vault| {
            let row = changes.agent(agent, now);
            match row.revoked {
                Some(_) => Err(VaultError::AgentRevoked { agent: agent.clone() }),
                None if known => Ok(()),
                None => changes.put_agent(vault, row),
            }
        })
        .await
    }

    /// Revokes an agent with all its tokens. `false` if there is no such agent.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn revoke_agent(&self, agent: &AgentName, now: WallTime) -> Result<bool, VaultError> {
        retrying!({
            let roster = self.roster().await?;
            let epoch = roster.manifest.epoch;
            let mut changes = Changes::new(roster);
            if !changes.known(agent) {
                return Ok(Some(false));
            }
            changes.revoke_tokens(self, |token| token.agent == agent.as_str(), now)?;
            changes.put_agent(self, AgentRecord { revoked: Some(now.0), ..changes.agent(agent, now) })?;
            let done = self.commit(epoch, changes.manifest, changes.list).await?;
            Ok((done == Commit::Done).then_some(true))
        })
    }

    /// Revokes one token, by its digest. `false` if it is not on file.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn revoke_token(&self, digest: [u8; 32], now: WallTime) -> Result<bool, VaultError> {
        retrying!({
            let roster = self.roster().await?;
            let epoch = roster.manifest.epoch;
            let mut changes = Changes::new(roster);
            if !changes.tokens.iter().any(|token| token.digest == digest) {
                return Ok(Some(false));
            }
            changes.revoke_tokens(self, |token| token.digest == digest, now)?;
            let done = self.commit(epoch, changes.manifest, changes.list).await?;
            Ok((done == Commit::Done).then_some(true))
        })
    }

    /// Every agent, by name.
    ///
    /// # Errors
    /// [`VaultError::Corrupt`] when a row is missing, forged or changed.
    pub async fn agents(&self) -> Result<Vec<AgentRow>, VaultError> {
        let roster = self.roster().await?;
        let seen: HashMap<String, u64> = self.store().seen().await?.into_iter().collect();
        let public = |row: AgentRecord| {
            Ok(AgentRow {
                agent: AgentName::parse(&row.name).map_err(|_| VaultError::corrupt("an agent"))?,
                created: WallTime(row.created),
                last_seen: seen.get(&row.name).copied().map(WallTime),
                revoked: row.revoked.is_some(),
            })
        };
        roster.found.agents.into_iter().map(public).collect()
    }

    /// Every token on file, revoked and ended ones included.
    ///
    /// # Errors
    /// As [`Vault::agents`].
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, VaultError> {
        let public = |row: TokenRecord| {
            Ok(TokenRow {
                digest: row.digest,
                agent: AgentName::parse(&row.agent).map_err(|_| VaultError::corrupt("a token"))?,
                kind: if row.session { TokenKind::Session } else { TokenKind::Agent },
                created: WallTime(row.created),
                expires: row.expires.map(WallTime),
                revoked: row.revoked.is_some(),
            })
        };
        self.roster().await?.found.tokens.into_iter().map(public).collect()
    }

    /// Notes when agents were last seen; a time before the noted one changes nothing. Cheap: one transaction for all.
    ///
    /// # Errors
    /// What keeps the vault from writing.
    pub async fn touch_agents(&self, seen: Vec<(AgentName, WallTime)>) -> Result<(), VaultError> {
        if seen.is_empty() {
            return Ok(());
        }
        self.store().touch(seen.into_iter().map(|(agent, at)| (agent.to_string(), at.0)).collect()).await
    }

    /// The digest under which `token` would be on file.
    #[must_use]
    pub fn digest(&self, token: &[u8]) -> [u8; 32] {
        self.keys().token_digest(token)
    }

    async fn issue(
        &self,
        agent: &AgentName,
        now: WallTime,
        expires: Option<WallTime>,
        prepare: impl Fn(bool, &mut Changes, &Self) -> Result<(), VaultError>,
    ) -> Result<Secret, VaultError> {
        let token = new_token()?;
        let digest = self.digest(token.expose());
        let row = TokenRecord {
            digest,
            agent: agent.to_string(),
            session: expires.is_some(),
            created: now.0,
            expires: expires.map(|at| at.0),
            revoked: None,
            mac: [0; 32],
        };
        let row = self.guard().protect(row);
        retrying!({
            let roster = self.roster().await?;
            let epoch = roster.manifest.epoch;
            let mut changes = Changes::new(roster);
            changes.forget_ended(self, now)?;
            prepare(changes.known(agent), &mut changes, self)?;
            self.guard().add(&mut changes.manifest, &row)?;
            changes.list.push(Change::PutToken(row.clone()));
            let done = self.commit(epoch, changes.manifest, changes.list).await?;
            Ok((done == Commit::Done).then_some(()))
        })?;
        Ok(token)
    }

    /// The agents and tokens of one moment, verified.
    async fn roster(&self) -> Result<Read<Roster>, VaultError> {
        let read = self.store().roster().await?;
        let guard = self.guard();
        let manifest = guard.check(read.manifest)?;
        guard.check_table(&manifest, read.found.agents.iter())?;
        guard.check_table(&manifest, read.found.tokens.iter())?;
        let agents = read.found.agents.into_iter();
        let agents = agents.map(|row| guard.verify(row, |row| called("agent", &row.name)));
        let tokens = read.found.tokens.into_iter();
        let tokens = tokens.map(|row| guard.verify(row, |row| called("a token of agent", &row.agent)));
        let found = Roster { agents: agents.collect::<Result<_, _>>()?, tokens: tokens.collect::<Result<_, _>>()? };
        Ok(Read { manifest, found })
    }
}

/// Changes being gathered, and the manifest that they lead to.
struct Changes {
    manifest: Manifest,
    agents: Vec<AgentRecord>,
    tokens: Vec<TokenRecord>,
    list: Vec<Change>,
}

impl Changes {
    fn new(read: Read<Roster>) -> Self {
        Self { manifest: read.manifest, agents: read.found.agents, tokens: read.found.tokens, list: Vec::new() }
    }

    fn row(&self, agent: &AgentName) -> Option<&AgentRecord> {
        self.agents.iter().find(|row| row.name == agent.as_str())
    }

    fn known(&self, agent: &AgentName) -> bool {
        self.row(agent).is_some()
    }

    /// The agent's row as it is, or as a new one.
    fn agent(&self, agent: &AgentName, now: WallTime) -> AgentRecord {
        let fresh = || AgentRecord { name: agent.to_string(), created: now.0, revoked: None, mac: [0; 32] };
        self.row(agent).cloned().unwrap_or_else(fresh)
    }

    fn put_agent(&mut self, vault: &Vault, row: AgentRecord) -> Result<(), VaultError> {
        if let Some(before) = self.agents.iter().find(|before| before.name == row.name) {
            vault.guard().remove(&mut self.manifest, before)?;
        }
        let row = vault.guard().protect(row);
        vault.guard().add(&mut self.manifest, &row)?;
        self.list.push(Change::PutAgent(row));
        Ok(())
    }

    fn revoke_tokens(
        &mut self,
        vault: &Vault,
        which: impl Fn(&TokenRecord) -> bool,
        now: WallTime,
    ) -> Result<(), VaultError> {
        for token in self.tokens.iter().filter(|token| token.revoked.is_none() && which(token)) {
            vault.guard().remove(&mut self.manifest, token)?;
            let revoked = vault.guard().protect(TokenRecord { revoked: Some(now.0), ..token.clone() });
            vault.guard().add(&mut self.manifest, &revoked)?;
            self.list.push(Change::PutToken(revoked));
        }
        Ok(())
    }

    /// Keeps the table from growing with every session that ever was.
    fn forget_ended(&mut self, vault: &Vault, now: WallTime) -> Result<(), VaultError> {
        let ended = |token: &TokenRecord| {
            let at = token.revoked.into_iter().chain(token.expires).min();
            at.is_some_and(|at| WallTime(at).plus(KEEP_ENDED) < now)
        };
        for token in self.tokens.extract_if(.., |token| ended(token)) {
            vault.guard().remove(&mut self.manifest, &token)?;
            self.list.push(Change::DeleteToken(token.digest));
        }
        Ok(())
    }
}

fn called(what: &str, name: &str) -> String {
    match AgentName::parse(name) {
        Ok(name) => format!("{what} {name}"),
        Err(_) => format!("{what} with a broken name"),
    }
}

/// `kfa_` and 32 random bytes as base64url.
fn new_token() -> Result<Secret, VaultError> {
    let random = random::<32>()?;
    let mut text = Zeroizing::new([0u8; 43]);
    URL_SAFE_NO_PAD
        .encode_slice(random.as_slice(), text.as_mut_slice())
        .map_err(|_| VaultError::System("a token could not be written"))?;
    Ok(Secret::new([TOKEN_PREFIX.as_bytes(), text.as_slice()].concat()))
}
