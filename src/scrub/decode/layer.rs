//! One coding on one stream, over the decoders of other crates.
//!
//! Invariant: a step gives at most [`PIECE`] bytes, and none is left inside that could have been given.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder as ZstdDecoder, Operation as _};

use super::{Coding, DecodeError};

/// The most that one step gives.
pub(super) const PIECE: usize = 32 * 1024;
/// RFC 9659: a window of 8 MiB is all that a recipient of this content coding has to have.
const ZSTD_WINDOW_LOG: u32 = 23;
/// RFC 1952: the window of every gzip stream.
const GZIP_WINDOW_LOG: u8 = 15;

pub(super) struct Layer {
    coding: Coding,
    engine: Engine,
    input: Bytes,
    /// Where a step's output is made; kept, as small pieces are copied out of it.
    scratch: Vec<u8>,
    state: State,
    given: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has arrived.
    Fresh,
    /// In the middle of it.
    Open,
    /// The same, and the last step filled its piece: there may be more without further input.
    Full,
    /// A member, frame or stream is complete.
    Ended,
}

enum Engine {
    /// Not known before the first byte: `deflate` is two formats.
    None,
    Flate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(ZstdDecoder<'static>),
}

/// What one call of a decoder did.
struct Done {
    taken: usize,
    given: usize,
    ended: bool,
}

impl Layer {
    pub(super) fn new(coding: Coding) -> Self {
        Self { coding, engine: Engine::None, input: Bytes::new(), scratch: Vec::new(), state: State::Fresh, given: 0 }
    }

    pub(super) fn feed(&mut self, data: Bytes) {
        if self.input.is_empty() {
            self.input = data;
        } else {
            self.input = [self.input.as_ref(), data.as_ref()].concat().into();
        }
    }

    /// Bytes fed that were not read yet.
    pub(super) fn waiting(&self) -> u64 {
        u64::try_from(self.input.len()).unwrap_or(u64::MAX)
    }

    /// Bytes given so far.
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Whether the stream may end here.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.state, State::Fresh | State::Ended) && self.input.is_empty()
    }

    /// The next piece; `None` when more input is needed.
    pub(super) fn step(&mut self) -> Result<Option<Bytes>, DecodeError> {
        loop {
            if self.input.is_empty() && self.state != State::Full {
                return Ok(None);
            }
            match self.state {
                State::Fresh => self.begin()?,
                // RFC 1952 section 2.2 and RFC 8878 section 3: one after another is one content.
                State::Ended if matches!(self.coding, Coding::Gzip | Coding::Zstd) => self.begin()?,
                State::Ended => return Err(DecodeError::Leftover),
                State::Open | State::Full => {}
            }
            self.scratch.resize(PIECE, 0);
            let done = self.engine.run(&self.input, &mut self.scratch)?;
            self.input.advance(done.taken.min(self.input.len()));
            self.given = self.given.saturating_add(u64::try_from(done.given).unwrap_or(u64::MAX));
            let stuck = done.taken == 0 && done.given == 0 && !done.ended;
            self.state = match done {
                Done { ended: true, .. } => State::Ended,
                Done { given, .. } if given >= PIECE => State::Full,
                _ => State::Open,
            };
            if done.given > 0 {
                return Ok(Some(Bytes::copy_from_slice(self.scratch.get(..done.given).unwrap_or_default())));
            }
            if stuck && !self.input.is_empty() {
                return Err(DecodeError::Malformed);
            }
        }
    }

    fn begin(&mut self) -> Result<(), DecodeError> {
        self.state = State::Open;
        self.engine = match self.coding {
            Coding::Gzip => Engine::Flate(Decompress::new_gzip(GZIP_WINDOW_LOG)),
            Coding::Deflate => {
                // RFC 1950 section 2.2: method 8 and a window of at most 32 KiB. A raw stream would begin so only
                // with a stored block whose padding is not zero.
                let is_zlib = self.input.first().is_some_and(|byte| byte & 0x0f == 8 && byte >> 4 <= 7);
                Engine::Flate(Decompress::new(is_zlib))
            }
            Coding::Brotli => {
                // Strict: without the windows of up to 1 GiB that RFC 7932 does not have.
                let alloc = StandardAlloc::default;
                Engine::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| DecodeError::Malformed)?;
                let limit = DParameter::WindowLogMax(ZSTD_WINDOW_LOG);
                decoder.set_parameter(limit).map_err(|_| DecodeError::Malformed)?;
                Engine::Zstd(decoder)
            }
        };
        Ok(())
    }
}

impl Engine {
    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<Done, DecodeError> {
        match self {
            Self::None => Err(DecodeError::Malformed),
            Self::Flate(flate) => {
                let (taken, given) = (flate.total_in(), flate.total_out());
                // Sync: what the sender flushed comes out at once.
                let status = flate.decompress(input, output, FlushDecompress::Sync);
                let status = status.map_err(|_| DecodeError::Malformed)?;
                let size = |now: u64, before: u64| usize::try_from(now.saturating_sub(before)).unwrap_or(0);
                let (taken, given) = (size(flate.total_in(), taken), size(flate.total_out(), given));
                Ok(Done { taken, given, ended: status == Status::StreamEnd })
            }
            Self::Brotli(state) => {
                let (mut left, mut taken, mut room, mut given, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut room, &mut given, output, &mut total, state,
                );
                match result {
                    BrotliResult::ResultFailure => Err(DecodeError::Malformed),
                    BrotliResult::ResultSuccess => Ok(Done { taken, given, ended: true }),
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                        Ok(Done { taken, given, ended: false })
                    }
                }
            }
            Self::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).map_err(|_| DecodeError::Malformed)?;
                // Nothing is expected after a frame, and only then.
                Ok(Done { taken: status.bytes_read, given: status.bytes_written, ended: status.remaining == 0 })
            }
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer({:?}, {:?})", self.coding, self.state)
    }
}
