//! A real credential that a program sends itself: one that its own login made, or that it found in a file.
//!
//! Invariant: a placeholder, a token of ours and a word that fills a required field are no such thing; what is one is
//! never written down.

use crate::code::Code;
use crate::config::Foreign;
use crate::id::AgentName;
use crate::provider::Provider;
use crate::proxy::account::Books;
use crate::proxy::respond::Answer;
use crate::proxy::state::View;
use crate::secret::Secret;
use crate::vault::TOKEN_PREFIX;

/// A key of no known shape has so many characters at least, letters and digits.
const SHORTEST: usize = 20;

/// What is done with what stands in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// The stored credential takes its place.
    Inject,
    /// It goes on as it is.
    Pass,
}

/// Decides what becomes of `presented`, which stands where `provider`'s credential would.
///
/// # Errors
/// The refusal, where the operator wants none.
pub fn treat(
    view: &View,
    books: &Books,
    provider: &Provider,
    agent: &AgentName,
    presented: &str,
) -> Result<Treatment, Answer> {
    if !is_real(view, presented) {
        return Ok(Treatment::Inject);
    }
    let id = &provider.id;
    match view.foreign.get(id).copied().unwrap_or_default() {
        Foreign::Pass => Ok(Treatment::Pass),
        Foreign::Refuse => {
            let message = format!("the request carries a credential of its own for {id}, which is refused here");
            Err(Answer::saying(Code::PolicyDenied, message)
                .hint(format!("send the placeholder; the operator sets this with pools.{id}.foreign")))
        }
        Foreign::Replace => {
            if books.totals.replaced(agent, id) {
                tracing::warn!(%agent, provider = %id, "a credential of the agent's own was replaced by the stored one");
            }
            Ok(Treatment::Inject)
        }
    }
}

fn is_real(view: &View, text: &str) -> bool {
    if text.starts_with(TOKEN_PREFIX) || view.credentials.is_placeholder(text) {
        return false;
    }
    let secret = Secret::from(text.to_owned());
    let known = view.catalogue.iter().flat_map(|provider| &provider.kinds).any(|kind| kind.fits(&secret));
    let has = |of: fn(&char) -> bool| text.chars().any(|c| of(&c));
    let keylike = text.len() >= SHORTEST
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && has(char::is_ascii_alphabetic)
        && has(char::is_ascii_digit);
    known || keylike
}
