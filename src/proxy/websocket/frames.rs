//! Frames (RFC 6455 section 5) on their way from an upstream to an agent, searched as they pass.
//!
//! Invariant: a message is searched across its fragments and never held whole; what cannot be searched, compressed
//! frames above all, ends the connection.

use std::io::Cursor;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::scrub::{Patterns, Scrubber};

/// A message goes on in pieces of this size when its frames are larger; a smaller frame stays one frame.
const PIECE: usize = 16 * 1024;
/// RFC 6455 section 5.5: what a control frame can hold.
const MOST_CONTROL: usize = 125;

/// Why the frames of an upstream end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// RFC 6455 section 5.1.
    #[error("a masked frame from a server")]
    Masked,
    /// An extension that nobody agreed on, so the payload cannot be searched.
    #[error("a frame of an extension that was not agreed on")]
    Extension,
    /// An unknown kind of frame, or a length that is none.
    #[error("a malformed frame")]
    Malformed,
    /// A control frame in fragments or too long.
    #[error("a malformed control frame")]
    Control,
    /// A continuation of nothing, or a message within a message.
    #[error("fragments in disorder")]
    Disorder,
}

/// One direction of one connection.
#[derive(Debug)]
pub struct Frames {
    patterns: Arc<Patterns>,
    frame: Option<Frame>,
    message: Option<Message>,
    closed: bool,
    redactions: u64,
}

/// A data frame whose payload is still arriving.
#[derive(Debug)]
struct Frame {
    left: u64,
    last: bool,
}

#[derive(Debug)]
struct Message {
    kind: Data,
    begun: bool,
    scrubber: Scrubber,
}

impl Frames {
    /// For the beginning of a connection.
    #[must_use]
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, frame: None, message: None, closed: false, redactions: 0 }
    }

    /// Takes what it can of `input` and adds to `output` what may go on, whole frames only.
    ///
    /// # Errors
    /// [`FrameError`]; `output` then ends with the last good frame.
    pub fn pass(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), FrameError> {
        loop {
            if self.closed {
                // Nothing counts after a Close (section 5.5.1).
                input.clear();
                return Ok(());
            }
            let went_on = match self.frame.take() {
                Some(frame) => self.payload(frame, input, output),
                None => self.head(input, output)?,
            };
            if !went_on {
                return Ok(());
            }
        }
    }

    /// Whether the upstream said goodbye.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether no message is open.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.message.is_none()
    }

    /// Places that were covered so far.
    #[must_use]
    pub fn redactions(&self) -> u64 {
        let open = self.message.as_ref().map_or(0, |message| message.scrubber.hits());
        self.redactions.saturating_add(open)
    }

    fn head(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<bool, FrameError> {
        let mut cursor = Cursor::new(&input[..]);
        let Some((head, length)) = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Malformed)? else {
            return Ok(false);
        };
        let size = usize::try_from(cursor.position()).map_err(|_| FrameError::Malformed)?;
        if head.mask.is_some() {
            return Err(FrameError::Masked);
        }
        if head.rsv1 || head.rsv2 || head.rsv3 {
            return Err(FrameError::Extension);
        }
        match head.opcode {
            OpCode::Control(kind) => {
                let length = usize::try_from(length).map_err(|_| FrameError::Control)?;
                if !head.is_final || length > MOST_CONTROL {
                    return Err(FrameError::Control);
                }
                if input.len() < size.saturating_add(length) {
                    return Ok(false);
                }
                let _ = input.split_to(size);
                let payload = input.split_to(length).freeze();
                self.control(kind, &payload, output)?;
            }
            OpCode::Data(kind) => {
                // Section 5.2: the most significant bit of a length is 0.
                if i64::try_from(length).is_err() {
                    return Err(FrameError::Malformed);
                }
                match (kind, &self.message) {
                    (Data::Continue, Some(_)) => {}
                    (Data::Text | Data::Binary, None) => {
                        let scrubber = Scrubber::new(Arc::clone(&self.patterns));
                        self.message = Some(Message { kind, begun: false, scrubber });
                    }
                    _ => return Err(FrameError::Disorder),
                }
                let _ = input.split_to(size);
                self.frame = Some(Frame { left: length, last: head.is_final });
            }
        }
        Ok(true)
    }

    fn payload(&mut self, mut frame: Frame, input: &mut BytesMut, output: &mut BytesMut) -> bool {
        let rest = usize::try_from(frame.left).unwrap_or(usize::MAX);
        if input.len() < rest.min(PIECE) {
            self.frame = Some(frame);
            return false;
        }
        let take = rest.min(PIECE);
        frame.left = frame.left.saturating_sub(u64::try_from(take).unwrap_or(u64::MAX));
        let (ended, last) = (frame.left == 0, frame.left == 0 && frame.last);
        self.data(input.split_to(take).freeze(), last, output);
        if !ended {
            self.frame = Some(frame);
        }
        true
    }

    fn data(&mut self, piece: Bytes, last: bool, output: &mut BytesMut) {
        let Some(message) = self.message.as_mut() else { return };
        let ready = message.scrubber.push(piece);
        let rest = if last { message.scrubber.finish() } else { Bytes::new() };
        let length = ready.len().saturating_add(rest.len());
        if length == 0 && !last {
            return;
        }
        let kind = if message.begun { Data::Continue } else { message.kind };
        message.begun = true;
        write_head(OpCode::Data(kind), last, length, output);
        output.extend_from_slice(&ready);
        output.extend_from_slice(&rest);
        if last {
            self.redactions = self.redactions();
            self.message = None;
        }
    }

    fn control(&mut self, kind: Control, payload: &Bytes, output: &mut BytesMut) -> Result<(), FrameError> {
        let (fixed, text) = match kind {
            Control::Close if payload.len() == 1 => return Err(FrameError::Control),
            Control::Close => payload.split_at(payload.len().min(2)),
            Control::Ping | Control::Pong => payload.split_at(0),
            Control::Reserved(_) => return Err(FrameError::Malformed),
        };
        let covered = self.patterns.scrub(text);
        let text = match &covered {
            Some((covered, hits)) => {
                self.redactions = self.redactions.saturating_add(*hits);
                shortened(covered, MOST_CONTROL.saturating_sub(fixed.len()))
            }
            None => text,
        };
        write_head(OpCode::Control(kind), true, fixed.len().saturating_add(text.len()), output);
        output.extend_from_slice(fixed);
        output.extend_from_slice(text);
        self.closed = kind == Control::Close;
        Ok(())
    }
}

/// A Close frame of our own, as a server sends it.
#[must_use]
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut frame = BytesMut::new();
    write_head(OpCode::Control(Control::Close), true, reason.len().saturating_add(2), &mut frame);
    frame.put_u16(code);
    frame.extend_from_slice(reason.as_bytes());
    frame.freeze()
}

fn write_head(opcode: OpCode, last: bool, length: usize, output: &mut BytesMut) {
    let head = FrameHeader { is_final: last, opcode, ..FrameHeader::default() };
    // Writing to memory does not fail.
    let _ = head.format(u64::try_from(length).unwrap_or(u64::MAX), &mut output.writer());
}

/// At most `most` bytes, and no half of a character: a Close reason is text.
fn shortened(text: &[u8], most: usize) -> &[u8] {
    let Some(cut) = text.get(..most) else { return text };
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.get(..error.valid_up_to()).unwrap_or(cut),
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::Item;
    use crate::secret::Secret;

    fn canary() -> String {
        let mut random = [0u8; 20];
        getrandom::fill(&mut random).unwrap();
        format!("ws-{}", random.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    fn patterns(secret: &str) -> Arc<Patterns> {
        let item = Item { secret: Arc::new(Secret::from(secret.to_owned())), replacement: "stand-in".to_owned() };
        Patterns::new(&[item])
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..126 => out.push(u8::try_from(short).unwrap()),
            middle @ 126..65_536 => {
                out.push(126);
                out.extend_from_slice(&u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                out.push(127);
                out.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    /// Every frame of `bytes`: its first byte and its payload.
    fn frames(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut cursor = Cursor::new(bytes);
        let mut all = Vec::new();
        while let Some((head, length)) = FrameHeader::parse(&mut cursor).unwrap() {
            let at = usize::try_from(cursor.position()).unwrap();
            let end = at + usize::try_from(length).unwrap();
            let first = u8::from(head.opcode) | if head.is_final { 0x80 } else { 0 };
            all.push((first, bytes[at..end].to_vec()));
            cursor.set_position(end as u64);
        }
        assert_eq!(cursor.position(), bytes.len() as u64);
        all
    }

    /// Passes `bytes` cut into pieces of `size`; gives the output and the number of redactions.
    fn through(secret: &str, bytes: &[u8], size: usize) -> Result<(Vec<u8>, u64), FrameError> {
        let mut passing = Frames::new(patterns(secret));
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut most = 0;
        for piece in bytes.chunks(size) {
            input.extend_from_slice(piece);
            passing.pass(&mut input, &mut output)?;
            most = most.max(input.len());
        }
        assert!(most < PIECE + size + 14, "{most} bytes were held");
        Ok((output.to_vec(), passing.redactions()))
    }

    fn text_of(bytes: &[u8]) -> Vec<u8> {
        frames(bytes).into_iter().filter(|(first, _)| first & 0x0f < 8).flat_map(|(_, payload)| payload).collect()
    }

    #[test]
    fn passes_frames_unchanged_when_there_is_nothing() {
        // EX-11
        let mut all = Vec::new();
        all.extend(frame(0x81, b"hello"));
        all.extend(frame(0x82, &[0, 255, 1]));
        all.extend(frame(0x89, b"ping"));
        all.extend(frame(0x01, b"one "));
        all.extend(frame(0x8a, b"pong"));
        all.extend(frame(0x00, b"two "));
        all.extend(frame(0x80, b""));
        all.extend(frame(0x82, b""));
        all.extend(frame(0x88, b"\x03\xe8bye"));
        for size in [1, 2, 3, 7, 1000] {
            let (out, hits) = through(&canary(), &all, size).unwrap();
            assert_eq!((frames(&out), hits), (frames(&all), 0), "in pieces of {size}");
        }
    }

    #[test]
    fn finds_a_secret_wherever_fragments_and_packets_cut_it() {
        // EX-11
        let secret = canary();
        let text = format!("{{\"echo\":\"{secret}\"}}");
        for first in [0x01u8, 0x02] {
            for cut in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let mut all = frame(first, head);
                // A control frame may stand between fragments (RFC 6455 section 5.4).
                all.extend(frame(0x89, b"x"));
                all.extend(frame(0x80, tail));
                all.extend(frame(0x81, b"next"));
                for size in [1, 5, 4096] {
                    let (out, hits) = through(&secret, &all, size).unwrap();
                    let out = String::from_utf8(text_of(&out)).unwrap();
                    assert!(!out.contains(&secret), "{out}");
                    assert!(out.ends_with("\"}next"), "{out}");
                    assert_eq!(hits, 1);
                }
            }
        }
    }

    #[test]
    fn covers_secrets_in_control_frames() {
        // EX-11
        let secret = canary();
        let long = format!("{}{secret}", "é".repeat(40));
        let mut all = frame(0x89, secret.as_bytes());
        all.extend(frame(0x8a, secret.as_bytes()));
        all.extend(frame(0x88, &[b"\x03\xf0", long.as_bytes()].concat()));
        let (out, hits) = through(&secret, &all, 3).unwrap();
        assert!(memchr::memmem::find(&out, secret.as_bytes()).is_none());
        assert_eq!(hits, 3);
        let (_, reason) = frames(&out).pop().unwrap();
        assert!(reason.starts_with(b"\x03\xf0"));
        assert!(std::str::from_utf8(&reason[2..]).unwrap().starts_with('é'));
    }

    #[test]
    fn a_frame_of_any_size_needs_little_memory() {
        // EX-11
        let secret = canary();
        let mut body = vec![b'.'; 300_000];
        body[PIECE - 5..PIECE - 5 + secret.len()].copy_from_slice(secret.as_bytes());
        let all = frame(0x81, &body);
        let (out, hits) = through(&secret, &all, 1000).unwrap();
        let text = text_of(&out);
        assert!(memchr::memmem::find(&text, secret.as_bytes()).is_none());
        assert_eq!((hits, text.iter().filter(|byte| **byte == b'.').count()), (1, body.len() - secret.len()));
        let all = frames(&out);
        assert_eq!((all[0].0, all.last().unwrap().0), (0x01, 0x80));
        assert!(all.iter().all(|(_, payload)| payload.len() <= PIECE + 2 * secret.len()));
    }

    #[test]
    fn refuses_what_cannot_be_searched_or_read() {
        // EX-11
        let masked = [0x81, 0x82, 1, 2, 3, 4, 5, 6].to_vec();
        let huge = [&[0x82u8, 127][..], &u64::MAX.to_be_bytes()].concat();
        for (bytes, expected) in [
            (frame(0xc1, b"deflated"), FrameError::Extension),
            (frame(0xa1, b"x"), FrameError::Extension),
            (frame(0x91, b"x"), FrameError::Extension),
            (masked, FrameError::Masked),
            (huge, FrameError::Malformed),
            (frame(0x83, b"x"), FrameError::Malformed),
            (frame(0x8b, b"x"), FrameError::Malformed),
            (frame(0x09, b"x"), FrameError::Control),
            (frame(0x89, &[b'x'; 126]), FrameError::Control),
            (frame(0x88, b"x"), FrameError::Control),
            (frame(0x80, b"x"), FrameError::Disorder),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), FrameError::Disorder),
        ] {
            assert_eq!(through(&canary(), &bytes, 1).unwrap_err(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn nothing_passes_after_a_close() {
        let all = [frame(0x88, b""), frame(0x81, b"more")].concat();
        let (out, _) = through(&canary(), &all, 100).unwrap();
        assert_eq!(frames(&out), [(0x88, Vec::new())]);
        assert_eq!(frames(&close(1001, "bye")), [(0x88, b"\x03\xe9bye".to_vec())]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            size in 1..50_usize,
        ) {
            let (secret, whole) = (canary(), through(&canary(), &bytes, 1000));
            let pieces = through(&secret, &bytes, size);
            match (whole, pieces) {
                (Ok((one, _)), Ok((other, _))) => proptest::prop_assert_eq!(text_of(&one), text_of(&other)),
                (one, other) => proptest::prop_assert_eq!(one.is_err(), other.is_err()),
            }
        }

        #[test]
        fn a_secret_in_text_never_gets_through(
            before in "[a-z]{0,40}", after in "[a-z]{0,40}", cuts in proptest::collection::vec(1..30_usize, 1..8), size in 1..40_usize,
        ) {
            // EX-11: whatever fragments and packets cut it, the search gives what it gives for the whole.
            let secret = canary();
            let text = format!("{before}{secret}{after}");
            let (mut all, mut rest, mut first) = (Vec::new(), text.as_bytes(), 0x01_u8);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                all.extend(frame(first, piece));
                (rest, first) = (more, 0x00);
            }
            all.extend(frame(0x80, rest));
            let (out, hits) = through(&secret, &all, size).unwrap();
            let out = String::from_utf8(text_of(&out)).unwrap();
            proptest::prop_assert!(!out.contains(&secret) && out.starts_with(&before) && out.ends_with(&after));
            proptest::prop_assert_eq!(hits, 1);
        }
    }
}
