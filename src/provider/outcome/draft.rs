//! Rules as text has them.
//!
//! Invariant: plain values; nothing here is checked yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rules of one provider, as text has them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesDraft {
    /// Whether a 2xx can be a failure: `hold` its first bytes, or look `aside`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspect: Option<String>,
    /// Whether failures come inside event streams.
    #[serde(skip_serializing_if = "is_false")]
    pub events: bool,
    /// `transient` where a 5xx may be repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    /// Whether the words of a body are evidence of a spent rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<bool>,
    /// The field that names the owner of the quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The fields of the limit's dimensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<DimensionsDraft>,
    /// The field that names the bucket or resource of a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Tried in order against an event that reports an error, before `rules`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stream: Vec<RuleDraft>,
    /// Tried in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleDraft>,
    /// Tried after them: a class, or `class@scope`, by status.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<u16, String>,
    /// Ends that every rate-limit rule may find.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<UntilDraft>,
}

/// The fields that say what remains of a limit, as text has them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionsDraft {
    /// They begin with this.
    pub prefix: String,
    /// The form of their resets.
    #[serde(rename = "as")]
    pub form: String,
}

/// One rule as text has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleDraft {
    /// Its name in logs.
    pub name: String,
    /// The statuses; any where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on: Vec<u16>,
    /// Fields and the expressions that their values fit; `*` is any value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub field: BTreeMap<String, String>,
    /// Pointers into a JSON body, and the values there; one that begins with `~` is an expression.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub says: BTreeMap<String, Words>,
    /// An expression that the body fits somewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The class.
    pub means: String,
    /// The scope.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// Where the end is said, the most trusted first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<UntilDraft>,
    /// Whether the latest of all ends counts instead of the first that is there.
    #[serde(skip_serializing_if = "is_false")]
    pub latest: bool,
}

/// One value or several.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Words {
    /// Several. Read first: one value would take a list as it is.
    Many(Vec<Value>),
    /// One.
    One(Value),
}

/// One place where an end is said, as text has it. Exactly one of the first six is there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct UntilDraft {
    /// A field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// A pointer into a JSON body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// An expression whose first group it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The resets of those dimensions under this prefix of which nothing remains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<String>,
    /// The resets of those windows under this prefix whose status is `rejected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// The next midnight of a zone so many hours behind UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub midnight: Option<u8>,
    /// The windows of `rejected`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<String>,
    /// The form.
    #[serde(rename = "as")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
}

impl RulesDraft {
    /// `over` before these.
    pub(super) fn under(self, over: Self) -> Self {
        let chain = |mut first: Vec<RuleDraft>, second: Vec<RuleDraft>| {
            first.extend(second);
            first
        };
        let mut status = self.status;
        status.extend(over.status);
        let mut until = over.until;
        until.extend(self.until);
        Self {
            inspect: over.inspect.or(self.inspect),
            events: over.events || self.events,
            faults: over.faults.or(self.faults),
            words: over.words.or(self.words),
            organization: over.organization.or(self.organization),
            dimensions: over.dimensions.or(self.dimensions),
            key: over.key.or(self.key),
            stream: chain(over.stream, self.stream),
            rules: chain(over.rules, self.rules),
            status,
            until,
        }
    }
}

// The form that serde asks for.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(flag: &bool) -> bool {
    !flag
}
