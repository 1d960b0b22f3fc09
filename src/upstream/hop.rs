//! What a request asks of the next hop alone.
//!
//! Invariant: connection-level fields are made here from what was asked, never copied from the agent.

use http::header::{CONNECTION, HeaderMap, HeaderValue, TE, UPGRADE};

use crate::upstream::Freshness;

/// What is asked of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Nothing.
    Plain,
    /// Trailer fields are welcome (RFC 9110 section 10.1.4); gRPC servers insist on the word.
    Trailers,
    /// To become a WebSocket.
    Socket,
}

impl Hop {
    /// Whether `fields` welcome trailers.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Self {
        let texts = fields.get_all(TE).into_iter().filter_map(|value| value.to_str().ok());
        let welcome = texts.flat_map(|text| text.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"));
        if welcome { Self::Trailers } else { Self::Plain }
    }

    /// Which connection will do.
    #[must_use]
    pub fn freshness(self) -> Freshness {
        match self {
            Self::Plain | Self::Trailers => Freshness::Any,
            Self::Socket => Freshness::NewHttp1,
        }
    }

    pub(super) fn write_http1(self, fields: &mut HeaderMap) {
        match self {
            Self::Plain => {}
            Self::Trailers => {
                fields.insert(TE, HeaderValue::from_static("trailers"));
                fields.insert(CONNECTION, HeaderValue::from_static("te"));
            }
            Self::Socket => {
                fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
                fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            }
        }
    }

    pub(super) fn write_http2(self, fields: &mut HeaderMap) {
        if self == Self::Trailers {
            fields.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_trailers_is_passed_on() {
        for (text, expected) in
            [("trailers", Hop::Trailers), ("gzip, Trailers", Hop::Trailers), ("gzip;q=1", Hop::Plain), ("", Hop::Plain)]
        {
            let mut fields = HeaderMap::new();
            fields.insert(TE, HeaderValue::from_static(text));
            assert_eq!(Hop::of(&fields), expected, "{text}");
        }
        let mut fields = HeaderMap::new();
        Hop::Trailers.write_http2(&mut fields);
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[TE], "trailers");
    }
}
