//! Where a credential goes, and what an answer means.
//!
//! A [`Draft`] is what text says of a provider, a [`Provider`] is what was checked, a [`Catalogue`] holds them all.
//! [`strip`] takes everything out of a request that could compete with a credential, [`inject()`] puts one credential
//! into one slot.
//!
//! Invariant: the slots of a request come from the catalogue and the configuration, never from the request; a value
//! leaves a [`Credential`] only for an origin of its own audience.

mod catalogue;
mod compile;
mod credential;
mod draft;
mod inject;
mod kind;
pub mod outcome;
mod request;
mod scheme;

pub use catalogue::Catalogue;
pub use credential::{AudienceError, Credential};
pub use draft::{BasicDraft, Draft, DraftFault, InjectDraft, KindDraft, PlaceDraft, TestDraft};
pub use inject::{Injected, forward, forward_cleartext, inject};
pub use kind::{Family, Issuer, Kind, OAUTH2, Placement, Provider, TestCall, Way, Wire};
pub use request::{StripError, Stripped, errand, presented, strip, token_call};
pub use scheme::{Carrier, Form, InjectError, Template, TemplateError};

#[cfg(test)]
mod inject_tests;
#[cfg(test)]
mod wire_tests;
