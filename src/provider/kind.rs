//! What is known of a provider: its kinds of credentials, and where each goes.
//!
//! Invariant: made by the catalogue only; everything in here was checked.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use http::Method;
use http::header::{HeaderName, HeaderValue};
use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::scheme::{Carrier, Form, InjectError, Template, Values};
use crate::code::Code;
use crate::id::ProviderId;
use crate::message::origin::Origin;
use crate::message::path::Path;
use crate::message::pattern::HostPattern;
use crate::placeholder::Shape;
use crate::policy::path::{JudgedPath, PathPattern};
use crate::secret::Secret;

/// Whose words a provider's errors use, so that our own answers can be read by its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `{"type":"error","error":{"type":"rate_limit_error"}}`
    Anthropic,
    /// `{"error":{"type":"rate_limit_error","code":...}}`
    OpenAi,
}

impl Family {
    /// The family's own word for what one of our codes says, where it has one.
    #[must_use]
    pub fn error_word(self, code: Code) -> Option<&'static str> {
        let word = match (self, code) {
            (_, Code::ProfilesCooling | Code::AgentRateLimited) => "rate_limit_error",
            (Self::Anthropic, Code::BillingExhausted) => "billing_error",
            (Self::OpenAi, Code::BillingExhausted) => "insufficient_quota",
            (Self::Anthropic, Code::UpstreamOverloaded | Code::Overloaded) => "overloaded_error",
            (Self::OpenAi, Code::UpstreamOverloaded | Code::Overloaded) => "server_error",
            _ => return None,
        };
        Some(word)
    }
}

/// A protocol that several providers speak, so that a request can go to another one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// `POST /v1/messages` of Anthropic.
    Messages,
    /// `POST /v1/chat/completions` of OpenAI.
    Chat,
}

impl Wire {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Messages, Self::Chat];

    /// The word for the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Chat => "chat",
        }
    }
}

/// The type of a login: tokens that end and are renewed.
pub const OAUTH2: &str = "oauth2";

/// Where a provider's logins are renewed, unless a login says another place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The address of the token endpoint.
    pub token: String,
    /// The client that the provider's own programs are.
    #[serde(default)]
    pub client: Option<String>,
    /// Whether it reads JSON, and no form.
    #[serde(default)]
    pub json: bool,
}

/// A service that agents call.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in configuration, profiles and logs.
    pub id: ProviderId,
    /// What people call it.
    pub name: String,
    /// The kinds of its credentials; the first is the one that is meant where none is named.
    pub kinds: Vec<Kind>,
    /// Whether a request may be repeated with another credential of the pool. Where it may not, another credential
    /// is another identity.
    pub fungible: bool,
    /// Whose words its errors use.
    pub family: Option<Family>,
    /// The protocols that others speak too, and the path of each here.
    pub speaks: BTreeMap<Wire, String>,
    /// Where its logins are renewed.
    pub issuer: Option<Issuer>,
    /// How the token of a login stands in a request: as this kind's does.
    pub(super) login: Option<(usize, Kind)>,
    pub(super) aka: Vec<String>,
    pub(super) slots: Slots,
}

impl Provider {
    /// A kind by its name.
    #[must_use]
    pub fn kind(&self, id: &str) -> Option<&Kind> {
        let login = || self.login.as_ref().map(|(_, kind)| kind).filter(|_| id == OAUTH2);
        self.kinds.iter().find(|kind| kind.id == id).or_else(login)
    }

    /// The kind that a value seems to be: by its form, else the one that is meant where none is named.
    #[must_use]
    pub fn kind_of(&self, value: &Secret) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.fits(value)).or_else(|| self.kinds.first())
    }

    /// Whether a request takes a credential of any kind. Where it does not, it goes as it is, without one: the pages
    /// of a site whose git repositories take one, say.
    #[must_use]
    pub fn takes_credential(&self, origin: &Origin, path: &str) -> bool {
        self.kinds.iter().any(|kind| kind.placement(origin, path).is_some())
    }

    /// The concrete hosts of all kinds.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPattern> {
        collect(&self.kinds, |pattern| !pattern.is_wildcard())
    }

    /// The wildcard hosts of all kinds: each asks for the concrete host that a credential is sealed to.
    #[must_use]
    pub fn templates(&self) -> Vec<HostPattern> {
        collect(&self.kinds, HostPattern::is_wildcard)
    }
}

/// One kind of credential of a provider.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Its name: `api-key`, `setup-token`, `bearer`, `basic` and so on.
    pub id: String,
    /// Its place in a pool that has no order; lower comes first.
    pub rank: u8,
    /// The form of its placeholders.
    pub shape: Shape,
    /// The variables that its clients read; the first is the conventional one.
    pub env: Vec<String>,
    /// The variables that move its clients to another base URL.
    pub base_url_env: Vec<String>,
    /// A cheap call that tells a good credential from a bad one.
    pub test: Option<TestCall>,
    /// Where it goes.
    pub placements: Vec<Placement>,
    /// How its value is written.
    pub form: Form,
    /// Fields of the value that are no secrets.
    pub public: Vec<String>,
    /// The variables of single fields of the value, where clients read one for each.
    pub field_env: Vec<(String, String)>,
    pub(super) looks: Vec<Looks>,
}

impl Kind {
    /// The concrete hosts, which a new credential is sealed to.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPattern> {
        collect(std::slice::from_ref(self), |pattern| !pattern.is_wildcard())
    }

    /// The wildcard hosts: each asks for the concrete host that a credential is sealed to.
    #[must_use]
    pub fn templates(&self) -> Vec<HostPattern> {
        collect(std::slice::from_ref(self), HostPattern::is_wildcard)
    }

    /// How a request to `origin` takes it.
    ///
    /// A host that the catalogue does not know was named when the credential was stored (a gateway, a server of
    /// one's own): there it stands as it does at the provider itself.
    #[must_use]
    pub fn placement(&self, origin: &Origin, path: &str) -> Option<&Placement> {
        self.placement_at(origin, path).map(|(_, place)| place)
    }

    pub(super) fn placement_at(&self, origin: &Origin, path: &str) -> Option<(usize, &Placement)> {
        let all = || self.placements.iter().enumerate();
        let mut here = all().filter(|(_, place)| place.hosts.iter().any(|host| host.matches(origin))).peekable();
        if here.peek().is_some() {
            return here.find(|(_, place)| place.covers(path));
        }
        let narrow = all().find(|(_, place)| !place.paths.is_empty() && place.covers(path));
        narrow.or_else(|| all().find(|(_, place)| place.paths.is_empty()))
    }

    /// Whether a field of the value is no secret.
    #[must_use]
    pub fn is_public(&self, field: &str) -> bool {
        field == "user" || self.public.iter().any(|public| public == field)
    }

    /// Whether the form of its values is known.
    #[must_use]
    pub fn has_form(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Whether a value has the form of this kind, and of no other that is known.
    #[must_use]
    pub fn fits(&self, value: &Secret) -> bool {
        self.looks.iter().any(|looks| looks.regex().is_some_and(|regex| regex.is_match(value.expose())))
    }

    /// Whether a value can be put into every slot that this kind uses, asked before it is stored (EX-17).
    ///
    /// # Errors
    /// [`InjectError`] when it cannot.
    pub fn check(&self, value: &Secret) -> Result<(), InjectError> {
        if self.id == OAUTH2 {
            // What is sent is a token in it, and that may not be there yet.
            return Ok(());
        }
        let values = Values::read(self.form, value.expose())?;
        super::inject::rehearse(self, &values)
    }
}

/// Hosts that take a kind of credential in the same way.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The paths, where not all.
    pub paths: Vec<PathPattern>,
    /// The ways in which it can stand there. The first is taken where the client used none of them.
    pub ways: Vec<Way>,
    /// Fields that are added where they are absent.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Values that are added to a comma list where they are missing.
    pub append: Vec<(HeaderName, String)>,
    /// Values that are taken out of a comma list: marks of another kind.
    pub remove: Vec<(HeaderName, String)>,
}

impl Placement {
    fn covers(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        // A path that two servers could read differently is not one of these paths.
        let judged = Path::parse(path).and_then(|path| JudgedPath::read(&path));
        judged.is_ok_and(|path| self.paths.iter().any(|pattern| pattern.matches(&path)))
    }
}

/// Slots that are filled together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way(pub Vec<Carrier>);

/// What would be sent, with the names of fields where the value would be.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Carrier::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

/// A cheap call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestCall {
    /// The method.
    pub method: Method,
    /// Path and query. A credential slot of the path holds a dash, for [`strip`](super::strip) to empty.
    pub target: String,
    /// The body, a JSON text.
    pub body: Option<String>,
}

/// Every place of a request where a credential of the provider, or one that would compete with it, can stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    pub(super) fields: HashSet<HeaderName>,
    pub(super) queries: Vec<String>,
    pub(super) paths: Vec<Template>,
    pub(super) protocols: Vec<String>,
}

/// A pattern of values, compiled when it is first asked for: most commands never ask.
#[derive(Clone)]
pub(super) struct Looks {
    text: Arc<str>,
    regex: Arc<std::sync::OnceLock<Option<Regex>>>,
}

impl Looks {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.into(), regex: Arc::default() }
    }

    pub(super) fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| Regex::new(&format!("^(?-u:{})$", self.text)).ok()).as_ref()
    }
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn collect(kinds: &[Kind], wanted: impl Fn(&HostPattern) -> bool) -> Vec<HostPattern> {
    let mut found: Vec<HostPattern> = Vec::new();
    for pattern in kinds.iter().flat_map(|kind| &kind.placements).flat_map(|place| &place.hosts) {
        if wanted(pattern) && !found.contains(pattern) {
            found.push(pattern.clone());
        }
    }
    found
}
