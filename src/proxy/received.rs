//! An upstream's answer as it came, with what was read of its body to judge it.
//!
//! Invariant: nothing of it has gone to the agent; so much is read as judging needs, and no more.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::proxy::limits::{ERROR_BODY, ERROR_BODY_WAIT};
use crate::scrub::{Codings, Decoder};
use crate::upstream::Kept;
use crate::upstream::body::was_reset;

/// An answer whose head has arrived, with what was read of its body.
pub struct Received {
    /// The head.
    pub head: http::response::Parts,
    /// Read already.
    pub prefix: Bytes,
    /// Whether it broke off while it was read.
    pub broken: bool,
    /// The rest.
    pub body: Incoming,
    /// The connection.
    pub kept: Kept,
}

/// Reads so much of a body as is needed to judge an answer.
pub async fn peek_body(received: &mut Received) {
    let mut buffer = BytesMut::new();
    let read = async {
        while buffer.len() < ERROR_BODY {
            match received.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return true,
                None => return was_reset(&received.body, received.head.version),
            }
        }
        false
    };
    received.broken = tokio::time::timeout(ERROR_BODY_WAIT, read).await.unwrap_or(false);
    received.prefix = buffer.freeze();
}

/// What was read of an answer's body, with its content codings taken off as far as that goes.
#[must_use]
pub fn readable(received: &Received) -> Bytes {
    let Ok(Some(codings)) = Codings::read(&received.head.headers) else { return received.prefix.clone() };
    plain(&mut Decoder::new(&codings), received.prefix.clone())
}

/// What `decoder` makes of the next bytes, as far as it is worth looking at.
#[must_use]
pub fn plain(decoder: &mut Decoder, data: Bytes) -> Bytes {
    decoder.feed(data);
    let mut text = BytesMut::new();
    while text.len() < ERROR_BODY
        && let Ok(Some(piece)) = decoder.next()
    {
        text.extend_from_slice(&piece);
    }
    text.freeze()
}
