//! Streams of messages, in which nothing may wait for the next message.
//!
//! A search holds back bytes that could begin a secret. In a dialogue the next message may come only when this one
//! has arrived whole, so that both ends would wait for ever.
//!
//! Invariant: a boundary only lets bytes go sooner; where the framing is broken there is none, and the stream is
//! searched as plain bytes.

use http::header::{CONTENT_TYPE, HeaderMap};

/// What frames the messages of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    None,
    /// gRPC: one byte of flags and four of length before each message.
    Grpc,
}

impl Framing {
    /// The framing that a content type stands for; `grpc-web` has the same, `grpc-web-text` is base64 and has not.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Self {
        let text = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = text.split([';', '+']).next().unwrap_or_default().trim();
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        if is("application/grpc") || is("application/grpc-web") { Self::Grpc } else { Self::None }
    }

    pub(super) fn messages(self) -> Option<Messages> {
        (self == Self::Grpc).then(Messages::default)
    }
}

/// Where the messages of one stream end.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: [u8; 5],
    have: usize,
    left: usize,
}

impl Messages {
    /// How many of `bytes` belong to the message that is open, and whether it ends with them.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut used = 0usize;
        for byte in bytes {
            let Some(place) = self.head.get_mut(self.have) else { break };
            *place = *byte;
            self.have = self.have.saturating_add(1);
            used = used.saturating_add(1);
            if self.have == self.head.len() {
                let [_, a, b, c, d] = self.head;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            }
        }
        if self.have < self.head.len() {
            return (used, false);
        }
        let taken = self.left.min(bytes.len().saturating_sub(used));
        self.left = self.left.saturating_sub(taken);
        let ended = self.left == 0;
        if ended {
            self.have = 0;
        }
        (used.saturating_add(taken), ended)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;
    use crate::scrub::{Item, Patterns, Scrubber};
    use crate::secret::Secret;

    fn message(text: &str) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend_from_slice(text.as_bytes());
        out
    }

    #[test]
    fn a_message_that_ends_like_a_secret_begins_is_not_held_back() {
        // EX-04: a dialogue would stand still.
        let secret = format!("sk-{:040}", std::process::id());
        let item = Item { secret: Arc::new(Secret::from(secret.clone())), replacement: "stand-in".to_owned() };
        let patterns = Patterns::new(&[item]);
        let all: Vec<Vec<u8>> = ["ends in sk-0000", "", "s", "sk-"].map(message).to_vec();
        for size in [1, 3, 1000] {
            let mut scrubber = Scrubber::framed(Arc::clone(&patterns), Framing::Grpc);
            for whole in &all {
                let mut out = Vec::new();
                for piece in whole.chunks(size) {
                    out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
                }
                assert_eq!(&out, whole);
            }
            let echo = message(&format!("echo {secret}."));
            let two = [message("one s"), echo.clone(), message("three s")].concat();
            let mut out = Vec::new();
            for piece in two.chunks(size) {
                out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(piece)));
            }
            assert_eq!((out.len(), scrubber.hits()), (two.len(), 1));
            assert!(memchr::memmem::find(&out, secret.as_bytes()).is_none());
        }
    }

    #[test]
    fn knows_grpc_by_its_content_type() {
        for (text, expected) in [
            ("application/grpc", Framing::Grpc),
            ("application/grpc+proto", Framing::Grpc),
            ("Application/gRPC-Web+proto; x=1", Framing::Grpc),
            ("application/grpc-web-text", Framing::None),
            ("application/grpcx", Framing::None),
            ("text/event-stream", Framing::None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            assert_eq!(Framing::of(&fields), expected, "{text}");
        }
    }
}
