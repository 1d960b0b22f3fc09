//! A credential's value, taken apart into the fields that templates name.
//!
//! Invariant: errors say which field is missing, never what a value holds.

use std::collections::HashMap;
use std::fmt;

use super::InjectError;
use crate::secret::Secret;

/// How the value of a kind of credential is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The whole value is the secret.
    Whole,
    /// `user:secret`, or a JSON object that has both.
    UserSecret,
    /// One JSON object of texts.
    Object,
}

/// The fields of one value.
pub struct Values<'a> {
    whole: Option<&'a [u8]>,
    fields: HashMap<String, Secret>,
}

impl<'a> Values<'a> {
    /// Takes `value` apart.
    ///
    /// # Errors
    /// [`InjectError::Malformed`] when the value does not have the form.
    pub fn read(form: Form, value: &'a [u8]) -> Result<Self, InjectError> {
        if value.is_empty() {
            return Err(InjectError::Malformed(form));
        }
        match form {
            Form::Whole => Ok(Self { whole: Some(value), fields: HashMap::new() }),
            Form::Object => Ok(Self { whole: None, fields: object(value).ok_or(InjectError::Malformed(form))? }),
            Form::UserSecret => {
                if let Some(fields) = object(value) {
                    return Ok(Self { whole: None, fields });
                }
                // RFC 7617 section 2: a user name holds no colon, so the first one separates.
                let at = value.iter().position(|b| *b == b':').ok_or(InjectError::Malformed(form))?;
                let (user, rest) = value.split_at_checked(at).ok_or(InjectError::Malformed(form))?;
                let secret = rest.get(1..).filter(|secret| !secret.is_empty()).ok_or(InjectError::Malformed(form))?;
                let fields = HashMap::from([("user".to_owned(), Secret::new(user.to_vec()))]);
                Ok(Self { whole: Some(secret), fields })
            }
        }
    }

    /// One field.
    ///
    /// # Errors
    /// [`InjectError::FieldMissing`] when the value does not have it, or has it empty.
    pub fn field(&self, name: &str) -> Result<&[u8], InjectError> {
        if let Some(field) = self.fields.get(name).filter(|field| !field.is_empty()) {
            return Ok(field.expose());
        }
        match self.whole {
            Some(whole) if matches!(name, "secret" | "password") => Ok(whole),
            _ => Err(InjectError::FieldMissing(name.to_owned())),
        }
    }
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Values(..)")
    }
}

fn object(value: &[u8]) -> Option<HashMap<String, Secret>> {
    if value.first() != Some(&b'{') {
        return None;
    }
    let parsed: HashMap<String, String> = serde_json::from_slice(value).ok()?;
    Some(parsed.into_iter().map(|(name, text)| (name, Secret::from(text))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_each_form_apart() {
        let whole = Values::read(Form::Whole, b"a:b").unwrap();
        assert_eq!(whole.field("secret"), Ok(&b"a:b"[..]));
        assert_eq!(whole.field("user"), Err(InjectError::FieldMissing("user".to_owned())));

        for pair in [&b"ann:p:q"[..], br#"{"user":"ann","secret":"p:q"}"#] {
            let values = Values::read(Form::UserSecret, pair).unwrap();
            assert_eq!(values.field("user"), Ok(&b"ann"[..]));
            assert_eq!(values.field("secret"), Ok(&b"p:q"[..]));
        }

        let object = Values::read(Form::Object, br#"{"api_key":"k","app_key":"a"}"#).unwrap();
        assert_eq!(object.field("app_key"), Ok(&b"a"[..]));
        assert_eq!(format!("{object:?}"), "Values(..)");
    }

    #[test]
    fn says_the_form_and_not_the_value_when_it_is_malformed() {
        for (form, value) in [
            (Form::Whole, &b""[..]),
            (Form::UserSecret, b"hunter2"),
            (Form::UserSecret, b"hunter2:"),
            (Form::Object, b"hunter2"),
            (Form::Object, br#"{"hunter2":1}"#),
            (Form::Object, br#"["hunter2"]"#),
        ] {
            let error = Values::read(form, value).unwrap_err();
            assert_eq!(error, InjectError::Malformed(form));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
