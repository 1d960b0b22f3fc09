//! The ways in which a credential stands in a request, one file each.
//!
//! A [`Carrier`] reads what a client put into its slot and puts the credential there. Which slots there are comes
//! from the catalogue and the configuration, never from the request (EX-14, EX-15).
//!
//! Invariant: a carrier writes into its own slot only, and an error never holds a part of a value.

mod basic;
mod cookie;
mod field;
mod path;
mod query;
mod template;
mod values;

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use basic::BasicCarrier;
pub use cookie::CookieCarrier;
pub use field::FieldCarrier;
pub use path::{PathCarrier, Slot as PathSlot};
pub use query::QueryCarrier;
pub use template::{Template, TemplateError};
pub use values::{Form, Values};

pub(super) use basic::secret as basic_secret;
pub(super) use query::remove as remove_query;

use crate::code::Code;
use crate::id::ProfileId;
use crate::message::field::sensitive;
use crate::provider::credential::AudienceError;
use crate::secret::Secret;

/// Why a credential was not put into a request. No variant holds a part of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The credential is for other hosts.
    #[error(transparent)]
    Audience(#[from] AudienceError),
    /// What was written into the audit log is the use of another credential.
    #[error("the intent to use {0} was not written")]
    Unwitnessed(ProfileId),
    /// The provider does not know this kind of credential.
    #[error("the provider has no credential of kind '{0}'")]
    UnknownKind(String),
    /// The value does not have the form that its kind needs.
    #[error("the stored value is not {}", form_words(*.0))]
    Malformed(Form),
    /// The value lacks a field.
    #[error("the stored value has no field '{0}'")]
    FieldMissing(String),
    /// The value has bytes that its place in the request cannot hold.
    #[error("the stored value has characters that cannot stand in {0}")]
    Unusable(&'static str),
    /// Nothing of this kind is sent to that path.
    #[error("no credential of this kind is sent to this path")]
    NotHere,
    /// The request has no place for the credential.
    #[error("the request's path has no place for the credential; it begins with {0}")]
    NoSlot(String),
}

impl InjectError {
    /// What the agent is told.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Audience(_) => Code::PolicyDenied,
            Self::NotHere | Self::NoSlot(_) => Code::BadRequest,
            Self::Unwitnessed(_)
            | Self::UnknownKind(_)
            | Self::Malformed(_)
            | Self::FieldMissing(_)
            | Self::Unusable(_) => Code::Internal,
        }
    }
}

fn form_words(form: Form) -> &'static str {
    match form {
        Form::Whole => "a single text",
        Form::UserSecret => "of the form user:secret",
        Form::Object => "a JSON object of texts",
    }
}

/// One slot of a request that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// A field of the head.
    Field(FieldCarrier),
    /// A parameter of the query.
    Query(QueryCarrier),
    /// A part of the path.
    Path(PathCarrier),
    /// `Authorization: Basic`.
    Basic(BasicCarrier),
    /// One cookie.
    Cookie(CookieCarrier),
}

impl Carrier {
    /// The names of the value's fields that it needs.
    pub fn needs(&self) -> Vec<&str> {
        match self {
            Self::Field(carrier) => carrier.value.fields().collect(),
            Self::Query(carrier) => carrier.value.fields().collect(),
            Self::Path(carrier) => carrier.template.fields().collect(),
            Self::Basic(carrier) => carrier.user.fields().chain(carrier.password.fields()).collect(),
            Self::Cookie(carrier) => carrier.value.fields().collect(),
        }
    }

    /// What a client put into this slot, without scheme words and decoded, where it used the slot in this very way.
    #[must_use]
    pub fn read(&self, head: &Head) -> Option<String> {
        match self {
            Self::Field(carrier) => carrier.read(head),
            Self::Query(carrier) => carrier.read(head),
            Self::Path(carrier) => carrier.read(head),
            Self::Basic(carrier) => carrier.read(head),
            Self::Cookie(carrier) => carrier.read(head),
        }
    }

    /// Puts the credential into its slot; `derived` gets every form of the value that is not the value itself.
    ///
    /// # Errors
    /// [`InjectError`] when a field is missing, cannot stand there, or the path has no place for it.
    pub fn put(&self, head: &mut Head, values: &Values<'_>, derived: &mut Vec<Arc<Secret>>) -> Result<(), InjectError> {
        match self {
            Self::Field(carrier) => carrier.put(head, values),
            Self::Query(carrier) => carrier.put(head, values, derived),
            Self::Path(carrier) => carrier.put(head, values, derived),
            Self::Basic(carrier) => carrier.put(head, values, derived),
            Self::Cookie(carrier) => carrier.put(head, values),
        }
    }

    /// Which slot it is, to find two carriers that would overwrite each other.
    #[must_use]
    pub fn slot(&self) -> String {
        match self {
            Self::Field(carrier) => carrier.name.to_string(),
            Self::Query(carrier) => format!("query:{}", carrier.name),
            Self::Path(_) => "path".to_owned(),
            Self::Basic(_) => "authorization".to_owned(),
            Self::Cookie(carrier) => format!("cookie:{}", carrier.name),
        }
    }
}

/// As it stands in a request, with the names of its fields where the value would be.
impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(carrier) => write!(f, "{}: {}", carrier.name, carrier.value.as_str()),
            Self::Query(carrier) => write!(f, "?{}={}", carrier.name, carrier.value.as_str()),
            Self::Path(carrier) => f.write_str(carrier.template.as_str()),
            Self::Basic(carrier) => {
                write!(f, "authorization: Basic {}:{}", carrier.user.as_str(), carrier.password.as_str())
            }
            Self::Cookie(carrier) => write!(f, "cookie: {}={}", carrier.name, carrier.value.as_str()),
        }
    }
}

/// The parts of a request that carriers read and write.
#[derive(Clone)]
pub struct Head {
    /// The fields.
    pub fields: HeaderMap,
    /// The path without the query.
    pub path: PathSlot,
    /// The query without its question mark.
    pub query: Option<String>,
}

/// A field value made of secret bytes: sensitive, so that HPACK never indexes it (EX-25) and `Debug` never shows it.
fn field_value(bytes: &[u8]) -> Result<HeaderValue, InjectError> {
    // EX-17: `from_bytes` refuses line breaks and NUL; its error is dropped, because what it says is about the value.
    HeaderValue::from_bytes(bytes).map(sensitive).map_err(|_| InjectError::Unusable("a field"))
}

/// Sets `name` to exactly one value.
fn set_field(head: &mut Head, name: &HeaderName, bytes: &[u8]) -> Result<(), InjectError> {
    head.fields.insert(name.clone(), field_value(bytes)?);
    Ok(())
}

/// Remembers `bytes` as a form to look for in what comes back, where it differs from what it was made of.
fn remember(derived: &mut Vec<Arc<Secret>>, bytes: &[u8], original: &[u8]) {
    if bytes != original {
        derived.push(Arc::new(Secret::new(bytes.to_vec())));
    }
}

fn verbatim(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(bytes);
}
