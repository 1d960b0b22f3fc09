//! Placeholders where they do not belong: a request that carries one to a host that is not its credential's is refused,
//! before anything is sent where it stands in the head or in a body that is read ahead, and cut off where it stands in a
//! body that streams.
//!
//! In the credential's own slot a placeholder is replaced, whoever it was given to: the slot is emptied and filled with
//! what the sender itself may use. Elsewhere at its own host it goes on as it is; it is worth nothing. Bodies in a
//! content coding are not looked into, and placeholders of hexadecimal shapes are known in heads only.
//!
//! Invariant: a refusal here is one audit line.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::code::Code;
use crate::id::{AgentName, RequestId};
use crate::message::origin::Origin;
use crate::placeholder::LONGEST_MARK;
use crate::proxy::carried::Carried;
use crate::proxy::limits::ASK_BODY;
use crate::proxy::respond::Answer;
use crate::proxy::state::{Shared, View};
use crate::source::Sending;
use crate::telemetry::Refused;
use crate::upstream::body::Look;

/// Looks at what one exchange sends.
#[derive(Clone)]
pub struct Guard {
    shared: Arc<Shared>,
    view: Arc<View>,
    agent: AgentName,
    origin: Origin,
    id: RequestId,
}

impl Guard {
    /// For the exchange `id`, in which `agent` sends to `origin`.
    #[must_use]
    pub fn new(shared: &Arc<Shared>, view: &Arc<View>, agent: &AgentName, origin: &Origin, id: RequestId) -> Self {
        let (shared, view) = (Arc::clone(shared), Arc::clone(view));
        Self { shared, view, agent: agent.clone(), origin: origin.clone(), id }
    }

    /// Looks at the target and the fields. `presented` is what stands in the slot of this host's credential.
    ///
    /// # Errors
    /// The refusal.
    pub fn head(&self, parts: &Parts, presented: Option<&str>) -> Result<(), Answer> {
        let credentials = &self.view.credentials;
        if presented.is_some_and(|text| credentials.is_of_elsewhere(text, self.sending())) {
            return Err(self.refuse());
        }
        let is_stray = |text: &[u8]| match presented.and_then(|slot| around(text, slot.as_bytes())) {
            // What is in the slot was looked at, and does not go on.
            Some((before, after)) => self.is_stray(before) || self.is_stray(after),
            None => self.is_stray(text),
        };
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let decoded: Vec<u8> = percent_decode_str(target).collect();
        let basic = parts.headers.get_all(AUTHORIZATION).iter().filter_map(|value| basic(value.as_bytes()));
        let stray = is_stray(&decoded)
            || parts.headers.values().any(|value| is_stray(value.as_bytes()))
            || basic.into_iter().any(|pair| is_stray(&pair));
        if stray { Err(self.refuse()) } else { Ok(()) }
    }

    /// What looks at the body.
    #[must_use]
    pub fn look(self) -> Look {
        // The end of what came before, shorter than a mark: with it no cut hides one.
        let mut tail: Vec<u8> = Vec::new();
        Box::new(move |data| {
            const KEPT: usize = LONGEST_MARK - 1;
            tail.extend_from_slice(data.get(..data.len().min(KEPT)).unwrap_or(data));
            let credentials = &self.view.credentials;
            let stray = credentials.holds_stray(&tail, self.sending()) || credentials.holds_stray(data, self.sending());
            if let Some(end) = data.len().checked_sub(KEPT).and_then(|from| data.get(from..)) {
                tail.clear();
                tail.extend_from_slice(end);
            } else {
                tail.drain(..tail.len().saturating_sub(KEPT));
            }
            if stray {
                self.refuse();
            }
            stray
        })
    }

    fn is_stray(&self, text: &[u8]) -> bool {
        let credentials = &self.view.credentials;
        let hexadecimal = |text: &str| credentials.holds_hexadecimal_stray(text, self.sending());
        credentials.holds_stray(text, self.sending()) || std::str::from_utf8(text).is_ok_and(hexadecimal)
    }

    fn sending(&self) -> Sending<'_> {
        Sending { agent: &self.agent, origin: &self.origin, agents: &self.view.names }
    }

    fn refuse(&self) -> Answer {
        let refused = Refused {
            at: self.shared.clock.now(),
            request_id: self.id,
            agent: Some(&self.agent),
            host: Some(self.origin.host()),
            code: Code::PlaceholderMisdirected,
        };
        if let Err(error) = self.shared.audit.refused(refused) {
            tracing::error!(%error, "the audit log cannot be written");
        }
        Answer::of(Code::PlaceholderMisdirected)
    }
}

/// Reads ahead what may be held of a body, so that a placeholder in it is found before anything is sent.
///
/// # Errors
/// The refusal.
pub async fn body(shared: &Shared, carried: &Carried) -> Result<(), Answer> {
    let gathered = tokio::time::timeout(shared.limits.idle, carried.upload.gather(ASK_BODY)).await;
    if gathered.is_err() {
        return Err(Answer::saying(Code::BadRequest, "the request's body did not come in time"));
    }
    if carried.upload.refused() { Err(Answer::of(Code::PlaceholderMisdirected)) } else { Ok(()) }
}

/// What stands before and after the first `part` of `text`.
fn around<'t>(text: &'t [u8], part: &[u8]) -> Option<(&'t [u8], &'t [u8])> {
    let at = memchr::memmem::find(text, part)?;
    Some((text.get(..at)?, text.get(at.checked_add(part.len())?..)?))
}

/// User and password of a Basic field value.
fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    engine.decode(encoded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))
}
