//! What hyper refuses by itself: heads that do not read at all, or are too large.
//!
//! hyper answers them with a bare status, past every service. That answer is known by its form among the bytes that go
//! out, and ours takes its place: with a code, a body, and a line in the log.
//!
//! Invariant: only bytes that hyper wrote while no request was being served are replaced, and no answer that came
//! from an upstream has their form ([`mark`]).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};

use crate::code::Code;
use crate::id::AgentName;
use crate::message::origin::Origin;
use crate::proxy::account::Account;
use crate::proxy::peer::Peer;
use crate::proxy::respond::{Answer, Manner};
use crate::proxy::state::Shared;

/// What hyper answers by itself.
const BARE: [StatusCode; 3] =
    [StatusCode::BAD_REQUEST, StatusCode::URI_TOO_LONG, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE];

/// A bare answer is about 90 bytes long.
const LONGEST: usize = 200;

/// Makes the answer that takes the place of a bare one, and its line in the log.
pub type Refuse = Box<dyn FnOnce(StatusCode) -> Bytes + Send>;

/// Who sent a head that does not read, as far as is known.
#[derive(Debug)]
pub struct Sender {
    /// Who is at the other end.
    pub client: Peer,
    /// The listener, as logs name it.
    pub listener: &'static str,
    /// How the client took us.
    pub manner: Manner,
    /// Inside a tunnel: whose, and where to.
    pub tunnel: Option<(AgentName, Origin)>,
}

/// The answer of one connection.
#[must_use]
pub fn refusal(shared: &Arc<Shared>, sender: Sender) -> Refuse {
    let shared = Arc::clone(shared);
    Box::new(move |status| {
        let mut account = Account::open(&shared.books, shared.clock.now(), sender.listener, sender.client);
        if let Some((agent, origin)) = &sender.tunnel {
            account.agent(agent);
            account.origin(origin);
        }
        let answer = if status == StatusCode::BAD_REQUEST {
            Answer::saying(Code::BadRequest, "the request's head is malformed")
        } else {
            Answer::of(Code::HeadTooLarge)
        };
        let (status, mut fields, body) = answer.parts(account.id(), sender.manner);
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        account.answered(answer.code, Some(status.as_u16()));
        account.record().bytes_out = body.len() as u64;
        account.first_byte();
        let mut wire = format!("{:?} {status}\r\n", Version::HTTP_11).into_bytes();
        for (name, value) in &fields {
            wire.extend_from_slice(name.as_str().as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&body);
        wire.into()
    })
}

/// Where in `written` a bare answer begins, which then is the end of it.
#[must_use]
pub fn bare(written: &[u8]) -> Option<(usize, StatusCode)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let before = written.len().saturating_sub(LONGEST);
    let start = before.checked_add(memchr::memmem::rfind(written.get(before..)?, b"HTTP/1.")?)?;
    let text = std::str::from_utf8(written.get(start..)?).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let (_, status) = lines.next()?.split_once(' ')?;
    let status = BARE.into_iter().find(|bare| status == bare.to_string())?;
    let plain = |line: &str| matches!(line.split_once(':'), Some((name, _)) if is_plain(name));
    lines.all(plain).then_some((start, status))
}

/// Gives an answer that could be taken for a bare one a field that says whose it is (RFC 9209 section 2).
pub fn mark<B>(response: &mut Response<B>) {
    if BARE.contains(&response.status()) && response.headers().keys().all(|name| is_plain(name.as_str())) {
        response.headers_mut().insert(HeaderName::from_static("proxy-status"), HeaderValue::from_static("keyferry"));
    }
}

/// The fields of a bare answer.
fn is_plain(name: &str) -> bool {
    [CONNECTION, CONTENT_LENGTH, DATE].iter().any(|plain| plain.as_str().eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATED: &str = "connection: close\r\ncontent-length: 0\r\ndate: Wed, 25 Nov 2026 07:00:00 GMT\r\n\r\n";

    #[test]
    fn a_bare_answer_is_known_alone_and_behind_another() {
        let bare_400 = format!("HTTP/1.1 400 Bad Request\r\n{DATED}");
        assert_eq!(bare(bare_400.as_bytes()), Some((0, StatusCode::BAD_REQUEST)));
        let first = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let both = format!("{first}HTTP/1.1 431 Request Header Fields Too Large\r\n{DATED}");
        assert_eq!(bare(both.as_bytes()), Some((first.len(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)));
    }

    #[test]
    fn another_answer_is_not_taken_for_one() {
        for other in [
            format!("HTTP/1.1 200 OK\r\n{DATED}"),
            format!("HTTP/1.1 404 Not Found\r\n{DATED}"),
            format!("HTTP/1.1 400 Bad Request\r\nserver: x\r\n{DATED}"),
            format!("HTTP/1.1 400 Bad Request\r\n{DATED}x"),
            String::new(),
            "\r\n\r\n".to_owned(),
        ] {
            assert_eq!(bare(other.as_bytes()), None, "{other:?}");
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        mark(&mut response);
        assert!(response.headers().contains_key("proxy-status"));
    }
}
