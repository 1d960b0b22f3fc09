//! Placeholders that are on their way to a host which is not their credential's.
//!
//! Invariant: what is at home is decided by the sealed audience of the credential that a placeholder stands for.

use super::{Credentials, Member};
use crate::id::AgentName;
use crate::message::origin::Origin;

/// Who sends, where to, and who else could have been given a placeholder.
#[derive(Debug, Clone, Copy)]
pub struct Sending<'a> {
    /// The sender.
    pub agent: &'a AgentName,
    /// The destination.
    pub origin: &'a Origin,
    /// All agents.
    pub agents: &'a [AgentName],
}

impl Credentials {
    /// Whether `text` holds a placeholder, of whichever agent, that stands for no credential of this origin. One whose
    /// credential is gone counts: it is at home nowhere.
    #[must_use]
    pub fn holds_stray(&self, text: &[u8], sending: Sending<'_>) -> bool {
        self.minter.marks(text).any(|range| {
            let mark = text.get(range).unwrap_or_default();
            !self.is_at_home(sending, |placeholder| memchr::memmem::find(placeholder.as_bytes(), mark).is_some())
        })
    }

    /// The same for a placeholder that can only be recognised as a whole; for short texts.
    #[must_use]
    pub fn holds_hexadecimal_stray(&self, text: &str, sending: Sending<'_>) -> bool {
        self.hexadecimal
            && self.minter.marks(text.as_bytes()).next().is_none()
            && self.minter.looks_like_ours(text)
            && !self.is_at_home(sending, |placeholder| text.contains(placeholder))
    }

    /// Whether `text` holds a placeholder that the sender was given for a credential of other hosts only.
    #[must_use]
    pub fn is_of_elsewhere(&self, text: &str, sending: Sending<'_>) -> bool {
        self.minter.looks_like_ours(text)
            && !self.is_at_home(sending, |placeholder| text.contains(placeholder))
            && self.all().any(|member| text.contains(&self.placeholder(sending.agent, member)))
    }

    fn is_at_home(&self, sending: Sending<'_>, is_it: impl Fn(&str) -> bool) -> bool {
        let mut here = self.all().filter(|member| at(member, sending.origin));
        let others = || sending.agents.iter().filter(|agent| *agent != sending.agent);
        // The sender's own first: that is what nearly always stands there.
        here.clone().any(|member| is_it(&self.placeholder(sending.agent, member)))
            || here.any(|member| others().any(|agent| is_it(&self.placeholder(agent, member))))
    }
}

fn at(member: &Member, origin: &Origin) -> bool {
    member.audience.iter().any(|pattern| pattern.matches(origin))
}
