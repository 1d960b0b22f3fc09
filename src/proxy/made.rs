//! Things that an answer tells of and that only the account has that made them: a stored response, a file, a batch.
//!
//! Invariant: an answer is looked at until its first identity and no longer; what is kept is a number, not the name.

use std::sync::LazyLock;

use bytes::BytesMut;
use http::{Method, StatusCode};
use regex::bytes::Regex;

use crate::clock::Clock;
use crate::id::{AgentName, ProfileId};
use crate::pool::Pools;
use crate::proxy::facts;

/// The identity stands at the beginning of such answers; a response that is streamed has it in its first event.
const LOOK: usize = 16 * 1024;

/// Requests to these make something.
const PATHS: [&str; 13] = [
    "/v1/responses",
    "/v1/files",
    "/v1/uploads",
    "/v1/batches",
    "/v1/messages/batches",
    "/v1/threads",
    "/v1/threads/runs",
    "/v1/assistants",
    "/v1/conversations",
    "/v1/vector_stores",
    "/v1/containers",
    "/v1/videos",
    "/v1/fine_tuning/jobs",
];

/// Looks for the identity of what was made.
pub struct Made {
    pools: Pools,
    clock: Clock,
    agent: AgentName,
    profile: ProfileId,
    held: BytesMut,
    done: bool,
}

impl Made {
    /// One, where the request may have made something.
    pub fn new(
        (method, path, status): (&Method, &str, StatusCode),
        pools: &Pools,
        clock: &Clock,
        agent: &AgentName,
        profile: &ProfileId,
    ) -> Option<Self> {
        let makes = *method == Method::POST && status.is_success() && PATHS.contains(&path);
        makes.then(|| Self {
            pools: pools.clone(),
            clock: clock.clone(),
            agent: agent.clone(),
            profile: profile.clone(),
            held: BytesMut::new(),
            done: false,
        })
    }

    /// Sees the next bytes.
    pub fn see(&mut self, data: &[u8]) {
        if self.done {
            return;
        }
        let room = LOOK.saturating_sub(self.held.len());
        self.held.extend_from_slice(data.get(..room.min(data.len())).unwrap_or(data));
        let found = identity(&self.held).map(|id| facts::key(&self.agent, id));
        if let Some(key) = found {
            self.pools.owns(&self.profile, key, self.clock.now());
        }
        if found.is_some() || self.held.len() >= LOOK {
            self.done = true;
            self.held = BytesMut::new();
        }
    }
}

/// The first identity in a text.
fn identity(text: &[u8]) -> Option<&[u8]> {
    static ID: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""id"\s*:\s*"([A-Za-z0-9_.:-]{1,128})""#).ok());
    let found = ID.as_ref()?.captures(text)?;
    found.get(1).map(|id| id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_identity_and_nothing_that_is_cut_off() {
        let whole = br#"{"object": "response", "id" : "resp_1", "output": [{"id": "msg_2"}]}"#;
        assert_eq!(identity(whole), Some(&b"resp_1"[..]));
        let event =
            b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_3\"}}\n\n";
        assert_eq!(identity(event), Some(&b"resp_3"[..]));
        for nothing in [&b"{\"id\": \"resp_"[..], b"{\"id\": 7}", b"", b"{\"uid\":\"x\"}"] {
            assert_eq!(identity(nothing), None);
        }
    }
}
