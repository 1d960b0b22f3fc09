//! The passphrase of the vault, asked for at the terminal.
//!
//! Invariant: it is asked without echo, a new one twice, and nobody is asked where `--no-input` forbids it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use zeroize::Zeroizing;

use super::hidden;
use crate::secret::Secret;
use crate::vault::{Asked, Unlock};

/// Looks in the caller's environment, then asks.
pub fn unlock(environment: &BTreeMap<OsString, OsString>, no_input: bool) -> Unlock {
    let environment = environment.clone();
    let unlock = Unlock::with_variables(move |name| environment.get(&OsString::from(name)).cloned());
    if no_input { unlock } else { unlock.asking(ask) }
}

fn ask(asked: Asked) -> io::Result<Option<Secret>> {
    let question = match asked {
        Asked::Present => "Passphrase of the vault (not shown): ",
        Asked::New => "New passphrase of the vault (not shown): ",
    };
    let first = match hidden::ask(question) {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
        // There is no terminal.
        Err(_) => return Ok(None),
    };
    if asked == Asked::New && first != hidden::ask("The same again: ")? {
        return Err(io::Error::other("the two were different"));
    }
    Ok(Some(taken(first)))
}

fn taken(mut typed: Zeroizing<Vec<u8>>) -> Secret {
    Secret::new(std::mem::take(&mut *typed))
}
