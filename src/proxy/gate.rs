//! What hyper reads silently in one way of several, and a proxy must refuse (RFC 9112 sections 2.2 and 6.3): two
//! lengths, a length beside a transfer coding, lines that end with a bare line feed.
//!
//! hyper drops the second length, and any length beside a coding, before a service sees the fields. Whatever is passed
//! on is framed anew, so nothing could be smuggled by it; but a sender of such a head is broken or hostile, and is told.
//!
//! Invariant: it only ever makes hyper refuse a head, never accept one. It looks at heads whose beginning it knows for
//! certain: the first of a connection, and those behind requests without a body that came one at a time.

use crate::proxy::limits::HEAD_BYTES;

/// Follows the heads of one connection.
#[derive(Debug, Default)]
pub struct Gate {
    state: State,
    head: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a head, or in it.
    #[default]
    Head,
    /// The head was passed on; nothing came behind it.
    Passed,
    /// Where the next head begins is not known.
    Lost,
}

impl Gate {
    /// The last request had a body, or was no HTTP any more: where the next one begins is not known here.
    pub fn lose(&mut self) {
        self.state = State::Lost;
        self.head = Vec::new();
    }

    /// Looks at bytes that just arrived; `between` says whether no request is being served. Whether they end a head
    /// that must be refused.
    pub fn refuses(&mut self, arrived: &[u8], between: bool) -> bool {
        match (self.state, between) {
            (State::Lost, _) => return false,
            // A request came before the answer to the one before it.
            (State::Passed, false) => {
                self.lose();
                return false;
            }
            (State::Passed, true) => self.state = State::Head,
            (State::Head, _) => {}
        }
        self.head.extend_from_slice(arrived);
        // Empty lines before a request line are skipped (RFC 9112 section 2.2).
        let blank = self.head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let head = self.head.get(blank..).unwrap_or_default();
        let Some(end) = end_of(head) else {
            if self.head.len() > HEAD_BYTES {
                self.lose();
            }
            return false;
        };
        let refused = head.get(..end).is_some_and(is_ambiguous);
        let more = head.len() > end;
        self.head.clear();
        self.state = if more { State::Lost } else { State::Passed };
        refused
    }
}

/// Behind the empty line.
fn end_of(head: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', head).find_map(|at| {
        let after = at.checked_add(1)?;
        match head.get(after..)? {
            [b'\n', ..] => after.checked_add(1),
            [b'\r', b'\n', ..] => after.checked_add(2),
            _ => None,
        }
    })
}

fn is_ambiguous(head: &[u8]) -> bool {
    let (mut lengths, mut codings) = (0_u8, 0_u8);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\r\n") {
            return true;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths = lengths.saturating_add(1);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings = codings.saturating_add(1);
        }
    }
    lengths.saturating_add(codings) > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Whether it was refused, for any cut into two reads.
    fn refused(head: &str) -> bool {
        let all: Vec<bool> = (0..head.len())
            .map(|cut| {
                let mut gate = Gate::default();
                let (first, second) = head.as_bytes().split_at(cut);
                (cut > 0 && gate.refuses(first, true)) | gate.refuses(second, true)
            })
            .collect();
        assert!(all.iter().all(|one| *one == all[0]), "{head:?}");
        all[0]
    }

    #[test]
    fn refuses_two_framings_and_bare_line_feeds() {
        // PX-11, PX-12, PX-17
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\n\n",
        ] {
            assert!(refused(head), "{head:?}");
        }
        for head in [
            PLAIN,
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nX-Content-Length: 6\r\n\r\n",
        ] {
            assert!(!refused(head), "{head:?}");
        }
    }

    #[test]
    fn what_may_be_a_body_is_never_judged() {
        let bad = b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n";
        let mut gate = Gate::default();
        assert!(!gate.refuses(PLAIN.as_bytes(), true));
        assert!(gate.refuses(bad, true), "one behind the other");
        let mut gate = Gate::default();
        assert!(!gate.refuses(PLAIN.as_bytes(), true));
        assert!(!gate.refuses(bad, false), "while one is served");
        assert!(!gate.refuses(bad, true));
        let mut gate = Gate::default();
        assert!(!gate.refuses(format!("{PLAIN}body").as_bytes(), true));
        assert!(!gate.refuses(bad, true));
        let mut gate = Gate::default();
        assert!(!gate.refuses(PLAIN.as_bytes(), true));
        gate.lose();
        assert!(!gate.refuses(bad, true));
    }

    #[test]
    fn a_head_without_end_is_not_kept() {
        let mut gate = Gate::default();
        for _ in 0..100 {
            assert!(!gate.refuses(&[b'x'; 4096], true));
        }
        assert_eq!(gate.head.capacity(), 0);
    }

    proptest::proptest! {
        #[test]
        fn how_a_head_is_cut_makes_no_difference(
            lines in proptest::collection::vec("(content-length: 1|Transfer-Encoding: chunked|x: y|host: a)(\r\n|\r\n|\r\n|\n)", 0..6),
            cuts in proptest::collection::vec(1..20_usize, 1..20),
        ) {
            let head = format!("POST / HTTP/1.1\r\n{}\r\n", lines.concat());
            let whole = Gate::default().refuses(head.as_bytes(), true);
            let (mut gate, mut rest, mut any) = (Gate::default(), head.as_bytes(), false);
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                if piece.is_empty() {
                    break;
                }
                any |= gate.refuses(piece, true);
                rest = after;
            }
            proptest::prop_assert_eq!(any, whole);
            let framings = lines.iter().filter(|line| line.contains("ength") || line.contains("ncoding")).count();
            let bare = lines.iter().any(|line| !line.ends_with("\r\n"));
            proptest::prop_assert_eq!(whole, framings > 1 || bare);
        }
    }
}
