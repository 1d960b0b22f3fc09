//! A credential in a field of the head: `Authorization: Bearer {secret}`, `x-api-key: {secret}`.

use http::header::{AUTHORIZATION, HeaderName};

use super::{Head, InjectError, Template, Values, set_field, verbatim};

/// A field and the template of its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCarrier {
    /// The field's name.
    pub name: HeaderName,
    /// Its value.
    pub value: Template,
}

impl FieldCarrier {
    pub(super) fn read(&self, head: &Head) -> Option<String> {
        head.fields.get_all(&self.name).iter().find_map(|value| {
            let held = self.value.read(value.to_str().ok()?.trim())?;
            // A bare value in Authorization is one word; `Bearer x` there is another carrier's.
            let other_scheme = self.name == AUTHORIZATION && self.value.prefix().is_empty() && held.contains(' ');
            (!other_scheme).then(|| held.trim().to_owned())
        })
    }

    pub(super) fn put(&self, head: &mut Head, values: &Values<'_>) -> Result<(), InjectError> {
        let filled = self.value.fill(values, verbatim)?;
        set_field(head, &self.name, &filled)
    }
}
