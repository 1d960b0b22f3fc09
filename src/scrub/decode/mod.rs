//! Takes content codings off a stream, so that it can be searched.
//!
//! A [`Decoder`] is fed what has arrived and asked for pieces until it has none left. It does no I/O and never waits.
//!
//! Invariant: what comes out is all that the input so far determines, in pieces of bounded size; a stream that is
//! malformed, cut short, followed by anything, or that unfolds beyond all measure ends in an error.

mod layer;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use self::layer::Layer;

/// More codings on one response than this are refused: nobody needs them.
const MOST_LAYERS: usize = 2;
/// A stream may unfold to this much whatever its ratio is.
const FREE: u64 = 1024 * 1024;
/// Beyond that, to this many times its own size (DO-11). Text and JSON stay under 30, a repeated line under 150.
const RATIO: u64 = 200;

/// One content coding that can be taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 1950; some servers send RFC 1951 under the same name.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878 with the window of RFC 9659, one frame or several.
    Zstd,
}

/// Why a stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A coding that is not known here, or too many.
    #[error("the content coding is not known")]
    Unknown,
    /// Not what its coding says.
    #[error("the coded content is malformed")]
    Malformed,
    /// It ends in its middle.
    #[error("the coded content is cut short")]
    Truncated,
    /// Something follows its end.
    #[error("something follows the end of the coded content")]
    Leftover,
    /// It unfolds beyond all measure.
    #[error("the coded content unfolds to more than {RATIO} times its size")]
    Ratio,
}

/// The codings of a response, in the order in which they were put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Codings {
    /// Reads `Content-Encoding`. `None` where the content is as it is.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for what cannot be taken off.
    pub fn read(fields: &HeaderMap) -> Result<Option<Self>, DecodeError> {
        let mut codings = Vec::new();
        for value in fields.get_all(CONTENT_ENCODING) {
            let text = value.to_str().map_err(|_| DecodeError::Unknown)?;
            // RFC 9110 section 5.6.1: empty elements count for nothing.
            for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
                match word.to_ascii_lowercase().as_str() {
                    "identity" => {}
                    "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                    "deflate" => codings.push(Coding::Deflate),
                    "br" => codings.push(Coding::Brotli),
                    "zstd" => codings.push(Coding::Zstd),
                    _ => return Err(DecodeError::Unknown),
                }
            }
        }
        if codings.len() > MOST_LAYERS {
            return Err(DecodeError::Unknown);
        }
        Ok(Some(Self(codings)).filter(|codings| !codings.0.is_empty()))
    }
}

/// Takes the codings off one stream.
#[derive(Debug)]
pub struct Decoder {
    /// The first one takes the input, the last one gives the output.
    layers: Vec<Layer>,
    taken: u64,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// For a new stream.
    #[must_use]
    pub fn new(codings: &Codings) -> Self {
        Self { layers: codings.0.iter().rev().map(|coding| Layer::new(*coding)).collect(), taken: 0, failed: None }
    }

    /// Takes what has arrived. To be called when [`Decoder::next`] has no more to give, so that nothing piles up.
    pub fn feed(&mut self, data: Bytes) {
        self.taken = self.taken.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if let Some(first) = self.layers.first_mut() {
            first.feed(data);
        }
    }

    /// The next piece; `None` when more has to arrive first.
    ///
    /// # Errors
    /// [`DecodeError`], and the same again from then on.
    #[allow(clippy::should_implement_trait, reason = "an iterator would not end for good where this does not")]
    pub fn next(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let piece = pull(&mut self.layers).and_then(|piece| self.measured(piece));
        self.failed = piece.as_ref().err().copied();
        piece
    }

    fn measured(&self, piece: Option<Bytes>) -> Result<Option<Bytes>, DecodeError> {
        // What waits to be read does not count: the verdict must not depend on how the stream was cut.
        let read = self.layers.first().map_or(0, |first| self.taken.saturating_sub(first.waiting()));
        let allowed = FREE.max(read.saturating_mul(RATIO));
        let exceeds = self.layers.iter().any(|layer| layer.given() > allowed);
        if exceeds { Err(DecodeError::Ratio) } else { Ok(piece) }
    }

    /// Says that nothing more arrives. To be called when [`Decoder::next`] has no more to give.
    ///
    /// # Errors
    /// [`DecodeError`] when the stream is not complete. A stream without a single byte is: many servers send such.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.layers.iter().all(Layer::is_complete) => Ok(()),
            None => Err(DecodeError::Truncated),
        }
    }
}

/// A piece from the last of `layers`, fed by those before it.
fn pull(layers: &mut [Layer]) -> Result<Option<Bytes>, DecodeError> {
    let Some((last, before)) = layers.split_last_mut() else { return Ok(None) };
    loop {
        if let Some(piece) = last.step()? {
            return Ok(Some(piece));
        }
        match pull(before)? {
            Some(piece) => last.feed(piece),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
