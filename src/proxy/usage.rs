//! How many tokens an answer says that it used.
//!
//! OpenAI's and Anthropic's answers have an object `usage`, in the one object of a whole answer as in the last events of
//! a stream; Anthropic's stream begins with one too. It is found by its key in the bytes as they pass. A text cannot be
//! taken for it: quotes are escaped there. The last number of each kind counts.
//!
//! Invariant: nothing is held back, and at most [`MOST`] bytes are kept.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use crate::telemetry::Record;

/// The longest object of known providers has about 400 bytes.
const MOST: usize = 4096;
const KEY: &[u8] = b"\"usage\"";

/// Looks for usage in one answer.
#[derive(Debug, Default)]
pub struct Usage {
    /// The end of what has passed: a key may come in two pieces.
    tail: Vec<u8>,
    /// What followed a key, until it is a whole value.
    value: Option<Vec<u8>>,
    last: Counts,
}

/// The members that count. A response of OpenAI says `input_tokens` of all that went in; Anthropic counts what its cache
/// took or gave apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Counts {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

/// What the bytes behind a key are.
enum Behind {
    /// A value that ends there.
    Whole(usize, Option<Counts>),
    /// The beginning of one.
    Part,
    /// Something else.
    Other,
}

impl Usage {
    /// A look-out, where an answer with these fields may say how much it used.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let kind = fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        matches!(kind, "application/json" | "text/event-stream").then(Self::default)
    }

    /// Sees the next bytes.
    pub fn see(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            data = match self.value.take() {
                Some(held) => self.read_on(held, data),
                None => self.seek(data),
            };
        }
    }

    /// Writes down what was found.
    pub fn note(&self, record: &mut Record) {
        let last = &self.last;
        let cached = [last.cache_creation_input_tokens, last.cache_read_input_tokens].into_iter().flatten().sum();
        let input = last.input_tokens.map(|tokens| tokens.saturating_add(cached));
        record.tokens_in = last.prompt_tokens.or(input).or(record.tokens_in);
        record.tokens_out = last.completion_tokens.or(last.output_tokens).or(record.tokens_out);
    }

    /// Looks for a key; gives back what follows it.
    fn seek<'d>(&mut self, data: &'d [u8]) -> &'d [u8] {
        let before = self.tail.len();
        let first = data.get(..KEY.len().saturating_sub(1).min(data.len())).unwrap_or(data);
        let seam = [self.tail.as_slice(), first].concat();
        let at_seam = memchr::memmem::find(&seam, KEY).map(|at| at.saturating_add(KEY.len()).saturating_sub(before));
        let found = at_seam.or_else(|| memchr::memmem::find(data, KEY).map(|at| at.saturating_add(KEY.len())));
        if let Some(rest) = found.and_then(|end| data.get(end..)) {
            self.tail.clear();
            self.value = Some(Vec::new());
            return rest;
        }
        let all = if data.len() < KEY.len() { seam.as_slice() } else { data };
        let keep = all.len().saturating_sub(KEY.len().saturating_sub(1));
        self.tail = all.get(keep..).unwrap_or_default().to_vec();
        &[]
    }

    /// Takes what follows a key until its value is whole; gives back what comes after that.
    fn read_on<'d>(&mut self, mut held: Vec<u8>, data: &'d [u8]) -> &'d [u8] {
        let before = held.len();
        let room = MOST.saturating_sub(before).min(data.len());
        held.extend_from_slice(data.get(..room).unwrap_or(data));
        match behind(&held) {
            Behind::Whole(length, counts) => {
                self.last.take(counts.unwrap_or_default());
                return data.get(length.saturating_sub(before)..).unwrap_or_default();
            }
            Behind::Part if held.len() < MOST => self.value = Some(held),
            // It was no key, or none of ours; a key may be in what followed.
            Behind::Part | Behind::Other => self.see(&held),
        }
        data.get(room..).unwrap_or_default()
    }
}

impl Counts {
    fn take(&mut self, newer: Self) {
        self.prompt_tokens = newer.prompt_tokens.or(self.prompt_tokens);
        self.completion_tokens = newer.completion_tokens.or(self.completion_tokens);
        self.input_tokens = newer.input_tokens.or(self.input_tokens);
        self.cache_creation_input_tokens = newer.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = newer.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.output_tokens = newer.output_tokens.or(self.output_tokens);
    }
}

fn behind(held: &[u8]) -> Behind {
    let text = held.trim_ascii_start();
    let value = match text.split_first() {
        None => return Behind::Part,
        Some((b':', value)) => value,
        Some(_) => return Behind::Other,
    };
    match value.trim_ascii_start().first() {
        None => return Behind::Part,
        Some(b'{' | b'n') => {}
        Some(_) => return Behind::Other,
    }
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Option<Counts>>();
    match values.next() {
        Some(Ok(counts)) => {
            let length = held.len().saturating_sub(value.len()).saturating_add(values.byte_offset());
            Behind::Whole(length, counts)
        }
        None => Behind::Part,
        Some(Err(error)) if error.is_eof() => Behind::Part,
        Some(Err(_)) => Behind::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::WallTime;
    use crate::id::RequestId;
    use crate::telemetry::Protocol;

    fn counted(pieces: &[&[u8]]) -> Said {
        let mut usage = Usage::default();
        pieces.iter().for_each(|piece| usage.see(piece));
        assert!(usage.tail.len() + usage.value.as_ref().map_or(0, Vec::len) <= MOST + KEY.len());
        let mut record = Record::new(WallTime(0), RequestId::new(1), "proxy", Protocol::Http1);
        usage.note(&mut record);
        (record.tokens_in, record.tokens_out)
    }

    type Said = (Option<u64>, Option<u64>);

    /// Answers in the shapes of the providers, with what they say.
    const ANSWERS: &[(&str, Said)] = &[
        (
            r#"{"type":"message","content":[{"type":"text","text":"the \"usage\": {\"input_tokens\": 9}"}],"usage":{"input_tokens":7,"cache_creation_input_tokens":2,"cache_read_input_tokens":1,"output_tokens":4}}"#,
            (Some(10), Some(4)),
        ),
        (
            r#"{"choices":[],"usage": {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 3}}, "x": 1}"#,
            (Some(7), Some(4)),
        ),
        (
            r#"{"object":"response","usage":{"input_tokens":7,"input_tokens_details":{"cached_tokens":3},"output_tokens":4}}"#,
            (Some(7), Some(4)),
        ),
        (
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":40}}\n\n",
            (Some(7), Some(40)),
        ),
        (
            "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n",
            (Some(7), Some(4)),
        ),
        (r#"{"a":"usage","usage":{"input_tokens":7,"output_tokens":4}}"#, (Some(7), Some(4))),
        (r#"{"usage":"usage","b":{"usage":{"output_tokens":4}}}"#, (None, Some(4))),
        (r#"{"usage":[1,2],"c":{"usage":-1}}"#, (None, None)),
        (r#"{"input_tokens":7}"#, (None, None)),
        (r#"{"usage":{"input_tokens":7"#, (None, None)),
        ("", (None, None)),
    ];

    #[test]
    fn finds_what_each_provider_says_however_it_comes() {
        for (text, expected) in ANSWERS {
            assert_eq!(counted(&[text.as_bytes()]), *expected, "{text}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(counted(&bytes), *expected, "{text} byte by byte");
        }
    }

    #[test]
    fn an_endless_value_is_given_up() {
        let text = format!("{{\"usage\":{{\"x\":\"{}\"}},\"usage\":{{\"output_tokens\":4}}}}", "y".repeat(3 * MOST));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
        assert_eq!(counted(&pieces), (None, Some(4)));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(which in 0..ANSWERS.len(), cuts in proptest::collection::vec(0usize..300, 0..6)) {
            let (text, expected) = ANSWERS[which];
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(counted(&pieces), expected);
        }

        #[test]
        fn any_bytes_will_do(bytes in proptest::collection::vec(proptest::sample::select(b"\"usage:{}[],01 \\".to_vec()), 0..200)) {
            counted(&[&bytes]);
        }
    }
}
