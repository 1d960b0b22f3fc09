//! The sealed record, format version 1: a payload encrypted under a key that is used for this one write.
//!
//! ```text
//!  0  4  "VLT1"
//!  4  1  suite: 0x01 = HKDF-SHA-256, AES-256-GCM, 32-byte key commitment
//!  5  1  flags: 0
//!  6  2  kind, 8 4 term, 12 8 version (big-endian)
//! 20 32  salt
//! 52 32  commitment to the key and the context
//! 84  n  ciphertext of the payload, padded to a multiple of 256 bytes; then the 16-byte tag
//! ```
//!
//! Key, nonce and commitment are derived from the vault key, the salt and the context; the context names the record and
//! is never read from the blob. The salt is an HMAC over randomness, payload and context, so that a generator that
//! repeats itself still gives different keys to different payloads.
//!
//! Invariant: a blob opens only under the very key and context that it was sealed with, and unchanged; nothing of a
//! payload is seen before the tag was verified. This module is pure: randomness is given to it.

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const MAGIC: [u8; 4] = *b"VLT1";
const SUITE: u8 = 1;
const FLAGS: u8 = 0;
const HEAD: usize = 84;
const TAG: usize = 16;
const BLOCK: usize = 256;
const CONTEXT: usize = 71;
/// The payload's limit in bytes: far above any key, low enough that a record stays a row of a table.
pub const PAYLOAD_LIMIT: usize = 64 * 1024;
/// What a payload of [`PAYLOAD_LIMIT`] makes, so that nothing larger is looked at.
pub const BLOB_LIMIT: usize = HEAD + PAYLOAD_LIMIT + BLOCK + TAG;

/// A credential's value with its binding.
pub const KIND_SECRET: u16 = 1;
/// A vault key wrapped by the root key.
pub const KIND_WRAPPED_KEY: u16 = 4;
/// The masked preview of a credential's value.
pub const KIND_PREVIEW: u16 = 6;

/// Why a blob did not open, or was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a blob of this format, or not of this kind, term and version.
    #[error("malformed record")]
    Malformed,
    /// Sealed under another key or in another place.
    #[error("record of another key or place")]
    WrongKeyOrContext,
    /// The right key, but changed bytes.
    #[error("changed record")]
    Corrupt,
    /// More than [`PAYLOAD_LIMIT`] bytes.
    #[error("payload too large")]
    TooLarge,
}

/// Which record of which vault: everything that a blob is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The deployment.
    pub deployment: [u8; 16],
    /// The vault in it.
    pub vault: [u8; 16],
    /// The record in the vault.
    pub record: [u8; 16],
    /// What the payload is.
    pub kind: u16,
    /// Which vault key.
    pub term: u32,
    /// Which version of the record.
    pub version: u64,
}

impl Context {
    fn bytes(&self) -> [u8; CONTEXT] {
        let mut bytes = [0; CONTEXT];
        fill(
            &mut bytes,
            &[
                b"vault/v1\0",
                &self.deployment,
                &self.vault,
                &self.record,
                &self.kind.to_be_bytes(),
                &self.term.to_be_bytes(),
                &self.version.to_be_bytes(),
            ],
        );
        bytes
    }
}

/// Seals `payload`. `random` must come from the operating system's generator.
///
/// # Errors
/// [`RecordError::TooLarge`] over [`PAYLOAD_LIMIT`].
pub fn seal(key: &[u8; 32], context: &Context, payload: &[u8], random: &[u8; 32]) -> Result<Vec<u8>, RecordError> {
    if payload.len() > PAYLOAD_LIMIT {
        return Err(RecordError::TooLarge);
    }
    let about = context.bytes();
    let salt = salt(key, &about, payload, random);
    let keys = derive(key, &salt, &about)?;

    let mut head = [0; HEAD];
    fill(
        &mut head,
        &[
            &MAGIC,
            &[SUITE, FLAGS],
            &context.kind.to_be_bytes(),
            &context.term.to_be_bytes(),
            &context.version.to_be_bytes(),
            &salt,
            &keys.commitment,
        ],
    );
    // Sized at once: a buffer that grew would leave pieces of the payload behind.
    let padded = (payload.len() / BLOCK + 1) * BLOCK;
    let mut blob = Vec::with_capacity(HEAD + padded + TAG);
    blob.extend_from_slice(&head);
    blob.extend_from_slice(payload);
    blob.push(0x80);
    blob.resize(HEAD + padded, 0);

    let additional = [head.as_slice(), about.as_slice()].concat();
    let body = blob.get_mut(HEAD..).ok_or(RecordError::Malformed)?;
    let tag = keys
        .cipher
        .encrypt_inout_detached(&keys.nonce.into(), &additional, InOutBuf::from(body))
        .map_err(|_| RecordError::TooLarge)?;
    blob.extend_from_slice(&tag);
    Ok(blob)
}

/// Opens a blob that was sealed with exactly this key and context.
///
/// # Errors
/// [`RecordError`]; callers show one and the same message for all of them.
pub fn open(key: &[u8; 32], context: &Context, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, RecordError> {
    let parts = Parts::read(blob).ok_or(RecordError::Malformed)?;
    if (parts.kind, parts.term, parts.version) != (context.kind, context.term, context.version) {
        return Err(RecordError::Malformed);
    }
    let about = context.bytes();
    let keys = derive(key, parts.salt, &about)?;
    if !bool::from(keys.commitment.ct_eq(parts.commitment)) {
        return Err(RecordError::WrongKeyOrContext);
    }
    let additional = [parts.head, about.as_slice()].concat();
    let mut payload = Zeroizing::new(parts.body.to_vec());
    keys.cipher
        .decrypt_inout_detached(
            &keys.nonce.into(),
            &additional,
            InOutBuf::from(payload.as_mut_slice()),
            &(*parts.tag).into(),
        )
        .map_err(|_| RecordError::Corrupt)?;
    let end = payload.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Corrupt)?;
    // The padding is one 0x80 and zeros to the end of its block, never more than a block.
    if payload.get(end) != Some(&0x80) || payload.len() - end > BLOCK {
        return Err(RecordError::Corrupt);
    }
    payload.truncate(end);
    Ok(payload)
}

/// Which vault key a blob says it was sealed under; believed only once it has opened.
#[must_use]
pub fn term(blob: &[u8]) -> Option<u32> {
    Parts::read(blob).map(|parts| parts.term)
}

/// A blob, taken apart.
struct Parts<'a> {
    head: &'a [u8],
    kind: u16,
    term: u32,
    version: u64,
    salt: &'a [u8; 32],
    commitment: &'a [u8; 32],
    body: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Parts<'a> {
    fn read(blob: &'a [u8]) -> Option<Self> {
        if blob.len() > BLOB_LIMIT {
            return None;
        }
        let (head, rest) = blob.split_at_checked(HEAD)?;
        let (body, tag) = rest.split_last_chunk::<TAG>()?;
        let (magic, fields) = head.split_first_chunk::<4>()?;
        let (marks, fields) = fields.split_first_chunk::<2>()?;
        let (kind, fields) = fields.split_first_chunk::<2>()?;
        let (term, fields) = fields.split_first_chunk::<4>()?;
        let (version, fields) = fields.split_first_chunk::<8>()?;
        let (salt, fields) = fields.split_first_chunk::<32>()?;
        let (commitment, _) = fields.split_first_chunk::<32>()?;
        let sound = *magic == MAGIC && *marks == [SUITE, FLAGS] && !body.is_empty() && body.len() % BLOCK == 0;
        sound.then_some(Self {
            head,
            kind: u16::from_be_bytes(*kind),
            term: u32::from_be_bytes(*term),
            version: u64::from_be_bytes(*version),
            salt,
            commitment,
            body,
            tag,
        })
    }
}

struct Derived {
    cipher: Aes256Gcm,
    nonce: [u8; 12],
    commitment: [u8; 32],
}

fn derive(key: &[u8; 32], salt: &[u8; 32], about: &[u8; CONTEXT]) -> Result<Derived, RecordError> {
    let hkdf = Hkdf::<Sha256>::new(Some(salt), key);
    let mut cipher_key = Zeroizing::new([0u8; 32]);
    let mut nonce = [0u8; 12];
    let mut commitment = [0u8; 32];
    // No output here is longer than RFC 5869 section 2.3 allows, so none of these fails.
    let expand = |label: &[u8], output: &mut [u8]| {
        hkdf.expand_multi_info(&[label, about], output).map_err(|_| RecordError::Malformed)
    };
    expand(b"vault/v1 key\0", cipher_key.as_mut_slice())?;
    expand(b"vault/v1 nonce\0", &mut nonce)?;
    expand(b"vault/v1 commit\0", &mut commitment)?;
    Ok(Derived { cipher: Aes256Gcm::new((&*cipher_key).into()), nonce, commitment })
}

fn salt(key: &[u8; 32], about: &[u8; CONTEXT], payload: &[u8], random: &[u8; 32]) -> [u8; 32] {
    let mut hedge = Zeroizing::new([0u8; 32]);
    // RFC 5869 section 2.3: 32 bytes are far below the limit of 255 blocks.
    let _ = Hkdf::<Sha256>::new(Some(b""), key).expand(b"vault/v1 hedge", hedge.as_mut_slice());
    keyed(&hedge, &[random, &Sha256::digest(payload), about])
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(super) fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // RFC 2104 section 2: a key shorter than a block is filled up with zeros.
    let mut block = Zeroizing::new([0u8; 64]);
    fill(block.as_mut_slice(), &[key]);
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new((&*block).into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Writes `parts` one after the other into `target`; they fit by construction.
fn fill(target: &mut [u8], parts: &[&[u8]]) {
    let source = parts.iter().flat_map(|part| part.iter());
    target.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
