//! A provider as text says it, before anything was checked.
//!
//! The user's grammar is `hosts`, `inject`, `env`, `test`: one kind of credential at one place. The embedded
//! catalogue says more, by `kinds`.
//!
//! Invariant: nothing in here was checked; only [`Catalogue`](super::Catalogue) makes providers of drafts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kind::{Family, Issuer, Wire};
use crate::id::ProviderId;

/// One provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Draft {
    /// What people call it.
    pub name: Option<String>,
    /// The hosts where its credential may go: `api.x.com`, `host:8443`, `*.x.com`.
    pub hosts: Vec<String>,
    /// Where the credential stands in a request. Several stand there together.
    pub inject: Vec<InjectDraft>,
    /// The variables that its clients read.
    pub env: Vec<String>,
    /// A cheap call that tells a good credential from a bad one.
    pub test: Option<TestDraft>,
    /// Whose words its errors use.
    pub family: Option<Family>,
    /// The protocols that others speak too, and the path of each here.
    pub speaks: BTreeMap<Wire, String>,
    /// Whether another credential of the pool does as well. Unset: yes.
    pub fungible: Option<bool>,
    /// Where its logins are renewed.
    pub issuer: Option<Issuer>,
    /// Other names that people look for.
    pub aka: Vec<String>,
    /// Further slots to empty: `header:NAME`, `query:NAME`, `subprotocol:PREFIX`.
    pub strip: Vec<String>,
    /// The kinds of its credentials, best first. Empty: one kind of the fields above.
    pub kinds: Vec<KindDraft>,
}

/// One kind of credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KindDraft {
    /// Its name. Unset: derived from where it stands.
    pub id: Option<String>,
    /// Its place in a pool without an order; lower comes first. Unset: 10.
    pub rank: Option<u8>,
    /// The variables that its clients read.
    pub env: Vec<String>,
    /// The variables that move its clients to another base URL.
    pub base_url_env: Vec<String>,
    /// The form of a placeholder, see [`Shape`](crate::placeholder::Shape). Unset: the generic one.
    pub placeholder: Option<String>,
    /// Patterns that its values match as a whole, and other providers' values do not.
    pub looks: Vec<String>,
    /// Fields of the value that are no secrets.
    pub public: Vec<String>,
    /// The variables of single fields of the value, `[field, variable]`.
    pub field_env: Vec<(String, String)>,
    /// A cheap call that tells a good credential from a bad one.
    pub test: Option<TestDraft>,
    /// Where it goes, where there is one place.
    pub hosts: Vec<String>,
    /// How it stands there; several stand there together.
    pub inject: Vec<InjectDraft>,
    /// Other ways to stand there, kept where the client used them.
    pub or: Vec<Vec<InjectDraft>>,
    /// Where it goes, where there are several places.
    pub places: Vec<PlaceDraft>,
    /// Fields that are added where they are absent, `[name, value]`.
    pub add: Vec<(String, String)>,
    /// Values that are added to a comma list where they are missing, `[name, value]`.
    pub append: Vec<(String, String)>,
    /// Values that are taken out of a comma list, `[name, value]`.
    pub remove: Vec<(String, String)>,
}

/// Hosts that take a kind of credential in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlaceDraft {
    /// The hosts.
    pub hosts: Vec<String>,
    /// The paths; elsewhere on the hosts no credential is sent. Empty: all.
    pub paths: Vec<String>,
    /// How it stands there; several stand there together.
    pub inject: Vec<InjectDraft>,
    /// Other ways to stand there, kept where the client used them.
    pub or: Vec<Vec<InjectDraft>>,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum InjectDraft {
    /// `{header: Authorization, value: "Bearer {secret}"}`
    Header {
        /// The field's name.
        header: String,
        /// The template of its value.
        value: String,
    },
    /// `{query: key, value: "{secret}"}`
    Query {
        /// The parameter's name.
        query: String,
        /// The template of its value.
        value: String,
    },
    /// `{path: "/bot{secret}"}`
    Path {
        /// The template of the path's beginning.
        path: String,
    },
    /// `{basic: {user: api, password: "{secret}"}}`
    Basic {
        /// User name and password.
        basic: BasicDraft,
    },
    /// `{cookie: session, value: "{secret}"}`
    Cookie {
        /// The cookie's name.
        cookie: String,
        /// The template of its value.
        value: String,
    },
}

/// The templates of a user name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicDraft {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

/// A cheap call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestDraft {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The body, a JSON text.
    #[serde(default)]
    pub body: Option<String>,
}

/// One thing that is wrong with a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftFault {
    /// Whose draft.
    pub provider: ProviderId,
    /// Which part, as a path: `hosts[0]`, `inject[1].value`.
    pub field: String,
    /// What is wrong, a lowercase fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}
