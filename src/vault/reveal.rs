//! Whether a vault may show its values to a person: said when it is made, and never afterwards.
//!
//! Invariant: the permit is a code that only this vault's key makes, so nobody else can write one.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{Vault, VaultError};
use crate::home::{Home, read_secret_file, write_new_private};

/// A code of 32 bytes.
const PERMIT_LIMIT: u64 = 32;

impl Vault {
    /// Lets this vault's values be shown, to be called right after it was made.
    ///
    /// # Errors
    /// When the permit cannot be written.
    pub fn permit_reveal(&self, home: &Home) -> Result<(), VaultError> {
        let permit = self.permit()?.finalize().into_bytes();
        write_new_private(&home.reveal_permit(), &permit)
            .map_err(|_| VaultError::System("the permit to reveal could not be written"))
    }

    /// Whether this vault was made with the permit.
    #[must_use]
    pub fn may_reveal(&self, home: &Home) -> bool {
        let Ok(found) = read_secret_file(&home.reveal_permit(), PERMIT_LIMIT) else { return false };
        self.permit().is_ok_and(|permit| permit.verify_slice(&found).is_ok())
    }

    fn permit(&self) -> Result<Hmac<Sha256>, VaultError> {
        let key = self.derived_key("reveal");
        let mut code = Hmac::<Sha256>::new_from_slice(key.expose())
            .map_err(|_| VaultError::System("a key of the vault has a wrong length"))?;
        code.update(b"values may be shown");
        Ok(code)
    }
}
