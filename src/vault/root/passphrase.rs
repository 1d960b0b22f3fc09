//! A root key made of a passphrase: Argon2id.
//!
//! Invariant: parameters outside the floor and the ceiling are refused before any work is done, whoever wrote them; the
//! parameters go into the key, so that changed ones give another key.

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

use super::super::error::VaultError;
use super::super::key::{Key, key_of, random};
use crate::secret::Secret;

/// RFC 9106 section 4, second recommended option: 64 MiB, 3 passes, 4 lanes. It is the floor as well.
const MEMORY: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// 2 GiB: more would let a changed database use up the machine.
const MOST_MEMORY: u32 = 2 * 1024 * 1024;
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;

/// How a root key is made of a passphrase. Stored beside the keys that it wraps; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kdf {
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Kdf {
    /// A new salt and the recommended parameters.
    pub(in crate::vault) fn new() -> Result<Self, VaultError> {
        Ok(Self { salt: **random()?, memory_kib: MEMORY, passes: PASSES, lanes: LANES })
    }

    /// The key.
    pub(in crate::vault) fn key(&self, passphrase: &Secret) -> Result<Key, VaultError> {
        let sound = (MEMORY..=MOST_MEMORY).contains(&self.memory_kib)
            && (PASSES..=MOST_PASSES).contains(&self.passes)
            && (1..=MOST_LANES).contains(&self.lanes);
        let refused = || VaultError::corrupt("how the key is made of the passphrase");
        if !sound {
            return Err(refused());
        }
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None).map_err(|_| refused())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        key_of(|key| {
            let made = argon2.hash_password_into(passphrase.expose(), &self.salt, key);
            made.map_err(|_| VaultError::System("there is not enough memory for the passphrase"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kdf() -> Kdf {
        Kdf { salt: [1; 16], memory_kib: MEMORY, passes: PASSES, lanes: LANES }
    }

    fn key(kdf: &Kdf, passphrase: &str) -> Result<[u8; 32], VaultError> {
        kdf.key(&Secret::from(passphrase.to_owned())).map(|key| *key.bytes())
    }

    // RFC 9106 section 5.3
    #[test]
    fn the_crate_gives_the_vector_of_the_rfc() {
        let params = argon2::ParamsBuilder::new();
        let mut params = params;
        params.m_cost(32).t_cost(3).p_cost(4).data(argon2::AssociatedData::new(&[4; 12]).unwrap());
        let argon2 =
            Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params.build().unwrap()).unwrap();
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        let expected = [
            0x0d, 0x64, 0x0d, 0xf5, 0x8d, 0x78, 0x76, 0x6c, 0x08, 0xc0, 0x37, 0xa3, 0x4a, 0x8b, 0x53, 0xc9, 0xd0, 0x1e,
            0xf0, 0x45, 0x2d, 0x75, 0xb6, 0x5e, 0xb5, 0x25, 0x20, 0xe9, 0x6b, 0x01, 0xe6, 0x59,
        ];
        assert_eq!(tag, expected);
    }

    #[test]
    fn every_parameter_and_the_passphrase_go_into_the_key() {
        let right = key(&kdf(), "correct horse").unwrap();
        assert_eq!(key(&kdf(), "correct horse").unwrap(), right);
        for other in [
            Kdf { salt: [2; 16], ..kdf() },
            Kdf { memory_kib: MEMORY + 1024, ..kdf() },
            Kdf { passes: PASSES + 1, ..kdf() },
            Kdf { lanes: LANES + 1, ..kdf() },
        ] {
            assert_ne!(key(&other, "correct horse").unwrap(), right, "{other:?}");
        }
        assert_ne!(key(&kdf(), "correct horsf").unwrap(), right);
    }

    // VA-12
    #[test]
    fn parameters_below_the_floor_and_above_the_ceiling_are_refused() {
        for bad in [
            Kdf { memory_kib: 8, passes: 1, ..kdf() },
            Kdf { memory_kib: MEMORY - 1, ..kdf() },
            Kdf { memory_kib: 64 * 1024 * 1024, ..kdf() },
            Kdf { memory_kib: u32::MAX, ..kdf() },
            Kdf { passes: PASSES - 1, ..kdf() },
            Kdf { passes: MOST_PASSES + 1, ..kdf() },
            Kdf { lanes: 0, ..kdf() },
            Kdf { lanes: u32::MAX, ..kdf() },
        ] {
            assert!(matches!(key(&bad, "x"), Err(VaultError::Corrupt { .. })), "{bad:?}");
        }
    }
}
