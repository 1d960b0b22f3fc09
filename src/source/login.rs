//! A login (type `oauth2`): tokens that end and are renewed, with where and how (RFC 6749 sections 4.4 and 6).
//!
//! Invariant: the address of the token endpoint is a part of the sealed value, and the refresh token is shown to no
//! other origin.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::WallTime;
use crate::message::origin::{Origin, Scheme};
use crate::provider::Issuer;
use crate::secret::Secret;

/// Everything but the characters that no form escapes (RFC 3986 section 2.3).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest token that is taken; JWTs with many claims have a few KiB.
const LONGEST: usize = 16 * 1024;

/// Why a value is no login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    /// It does not have the form.
    #[error("the value is no JSON object of texts with refresh_token, or with client_id and client_secret")]
    Form,
    /// Neither the value nor the provider says where tokens come from.
    #[error("the value has no token_url, and none is known for this provider")]
    NoEndpoint,
    /// The address is none that a refresh token may go to.
    #[error("token_url is not an https:// address of a host")]
    Endpoint,
    /// A token has characters that no field can hold.
    #[error("a token is empty, too long or has characters that cannot stand in a field")]
    Token,
}

impl LoginFault {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Form => {
                r#"{"refresh_token": "...", "token_url": "https://auth.example.com/token", "client_id": "..."}"#
            }
            Self::NoEndpoint => {
                "add --set token_url=https://auth.example.com/token (and --set client_id=... if it has one)"
            }
            Self::Endpoint => "for example https://auth.example.com/oauth/token",
            Self::Token => "copy the token again, without anything around it",
        }
    }
}

/// An opened login.
pub struct Login {
    /// The token that requests are sent with, once there is one.
    pub access: Option<Arc<Secret>>,
    /// When it ends, where that was said.
    pub expires: Option<WallTime>,
    refresh: Option<Arc<Secret>>,
    client_secret: Option<Arc<Secret>>,
    client: Option<String>,
    scope: Option<String>,
    address: String,
    origin: Origin,
    target: String,
    json: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("origin", &self.origin).field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(alias = "accessToken", alias = "access")]
    access_token: Option<String>,
    #[serde(alias = "refreshToken", alias = "refresh")]
    refresh_token: Option<String>,
    #[serde(alias = "clientSecret")]
    client_secret: Option<String>,
    #[serde(alias = "clientId")]
    client_id: Option<String>,
    #[serde(alias = "token_uri", alias = "tokenUrl", alias = "token_endpoint")]
    token_url: Option<String>,
    scope: Option<String>,
    #[serde(alias = "expiresAt", alias = "expires", alias = "expiry")]
    expires_at: Option<Value>,
    body: Option<&'a str>,
}

/// What a token endpoint gave.
pub struct Tokens {
    access: Secret,
    refresh: Option<Secret>,
    lasts: Option<u64>,
}

/// What the answer of a token endpoint means.
pub enum Granted {
    /// New tokens.
    Tokens(Tokens),
    /// Somebody has to log in again.
    Refused(String),
    /// Nothing now.
    Failed(&'static str),
}

impl Login {
    /// Reads a value; what it leaves out comes from what is known of the provider.
    ///
    /// # Errors
    /// [`LoginFault`], which shows no byte of it.
    pub fn read(value: &Secret, issuer: Option<&Issuer>) -> Result<Self, LoginFault> {
        let text: Text<'_> = serde_json::from_slice(value.expose()).map_err(|_| LoginFault::Form)?;
        let known = |url: &str| issuer.filter(|issuer| issuer.token == url);
        let address = text.token_url.or_else(|| issuer.map(|issuer| issuer.token.clone()));
        let address = address.ok_or(LoginFault::NoEndpoint)?;
        let (origin, target) = endpoint(&address).ok_or(LoginFault::Endpoint)?;
        let client = text.client_id.or_else(|| known(&address)?.client.clone());
        let json = text.body.map_or_else(|| known(&address).is_some_and(|issuer| issuer.json), |body| body == "json");
        let secret =
            |text: Option<String>| text.map(|text| token(text).map(Arc::new).ok_or(LoginFault::Token)).transpose();
        let login = Self {
            access: secret(text.access_token)?,
            expires: text.expires_at.as_ref().and_then(moment),
            refresh: secret(text.refresh_token)?,
            client_secret: secret(text.client_secret)?,
            client,
            scope: text.scope,
            address,
            origin,
            target,
            json,
        };
        let by_itself = login.client_secret.is_some() && login.client.is_some();
        if login.refresh.is_some() || by_itself { Ok(login) } else { Err(LoginFault::Form) }
    }

    /// The value to store: everything in it, the endpoint too.
    #[must_use]
    pub fn stored(&self) -> Secret {
        let mut object = Map::new();
        let mut put = |name: &str, text: Option<String>| {
            if let Some(text) = text {
                object.insert(name.to_owned(), Value::String(text));
            }
        };
        put("access_token", shown(self.access.as_ref()));
        put("refresh_token", shown(self.refresh.as_ref()));
        put("client_secret", shown(self.client_secret.as_ref()));
        put("client_id", self.client.clone());
        put("token_url", Some(self.address.clone()));
        put("scope", self.scope.clone());
        put("body", self.json.then(|| "json".to_owned()));
        put("expires_at", self.expires.map(|at| at.to_string()));
        Secret::from(Value::Object(object).to_string())
    }

    /// Where it is renewed.
    #[must_use]
    pub fn endpoint(&self) -> (&Origin, &str) {
        (&self.origin, &self.target)
    }

    /// The media type of [`Login::request`].
    #[must_use]
    pub fn media(&self) -> &'static str {
        if self.json { "application/json" } else { "application/x-www-form-urlencoded" }
    }

    /// The body of the call that renews it, for its own endpoint alone.
    #[must_use]
    pub fn request(&self, to: &Origin) -> Option<Bytes> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        match &self.refresh {
            Some(refresh) => {
                pairs.push(("grant_type", "refresh_token".to_owned()));
                pairs.push(("refresh_token", shown(Some(refresh))?));
            }
            None => pairs.push(("grant_type", "client_credentials".to_owned())),
        }
        pairs.extend(self.client.clone().map(|client| ("client_id", client)));
        pairs.extend(shown(self.client_secret.as_ref()).map(|secret| ("client_secret", secret)));
        pairs.extend(self.scope.clone().map(|scope| ("scope", scope)));
        if *to != self.origin {
            return None;
        }
        Some(Bytes::from(if self.json {
            let object: Map<String, Value> =
                pairs.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
            Value::Object(object).to_string()
        } else {
            let pair = |(name, text): &(&str, String)| format!("{name}={}", utf8_percent_encode(text, FORM));
            pairs.iter().map(pair).collect::<Vec<_>>().join("&")
        }))
    }

    /// All that must not be seen in answers and lines beside the token that is sent.
    pub fn companions(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.refresh.iter().chain(&self.client_secret)
    }

    /// This login with new tokens. The refresh token stays unless there is a new one.
    #[must_use]
    pub fn with(&self, tokens: Tokens, now: WallTime) -> Self {
        Self {
            access: Some(Arc::new(tokens.access)),
            expires: tokens.lasts.map(|seconds| now.plus(std::time::Duration::from_secs(seconds))),
            refresh: tokens.refresh.map(Arc::new).or_else(|| self.refresh.clone()),
            client_secret: self.client_secret.clone(),
            client: self.client.clone(),
            scope: self.scope.clone(),
            address: self.address.clone(),
            origin: self.origin.clone(),
            target: self.target.clone(),
            json: self.json,
        }
    }
}

/// Reads the answer of a token endpoint (RFC 6749 sections 5.1 and 5.2). Some say an error with 200.
#[must_use]
pub fn granted(status: http::StatusCode, body: &[u8]) -> Granted {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<Value>,
        error: Option<Value>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Granted::Failed("the token endpoint's answer is no JSON");
    };
    if let Some(error) = answer.error.filter(|error| !error.is_null()) {
        let word = |name: &str| error.get(name).and_then(Value::as_str);
        let words = [error.as_str(), word("code"), word("type")];
        let refusal = words.into_iter().flatten().find(|word| REFUSALS.contains(word));
        return refusal
            .map_or(Granted::Failed("the token endpoint said an error"), |word| Granted::Refused(word.to_owned()));
    }
    if !status.is_success() {
        return Granted::Failed("the token endpoint did not answer with tokens");
    }
    let access = answer.access_token.and_then(token);
    let Some(access) = access else { return Granted::Failed("the token endpoint's answer has no access_token") };
    let seconds = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    Granted::Tokens(Tokens {
        access,
        refresh: answer.refresh_token.and_then(token),
        // A month is the longest that is believed; who is wrong about it is renewed by the first 401.
        lasts: answer.expires_in.as_ref().and_then(seconds).map(|seconds| seconds.min(31 * 86_400)),
    })
}

/// After these only a person can help: another login, or another client.
const REFUSALS: &[&str] = &[
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "bad_refresh_token",
    "refresh_token_expired",
    "refresh_token_reused",
    "refresh_token_invalidated",
    "incorrect_client_credentials",
];

/// A token as it can stand in a field.
fn token(text: String) -> Option<Secret> {
    let fits = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::from(text))
}

fn shown(secret: Option<&Arc<Secret>>) -> Option<String> {
    secret.and_then(|secret| String::from_utf8(secret.expose().to_vec()).ok())
}

fn endpoint(address: &str) -> Option<(Origin, String)> {
    let uri: http::Uri = address.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    if uri.scheme_str() != Some("https") {
        return None;
    }
    let origin = Origin::from_authority(Scheme::Https, authority.as_str()).ok()?;
    origin.host().name()?;
    Some((origin, uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned()))
}

/// Seconds or milliseconds since 1970, or RFC 3339.
fn moment(value: &Value) -> Option<WallTime> {
    use time::format_description::well_known::Rfc3339;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    match number {
        // In seconds this would be the year 5138.
        Some(millis @ 100_000_000_000..) => Some(WallTime(millis)),
        Some(seconds) => Some(WallTime(seconds.saturating_mul(1000))),
        None => {
            let at = time::OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
            u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(WallTime)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, issuer: Option<&Issuer>) -> Result<Login, LoginFault> {
        Login::read(&Secret::from(text.to_owned()), issuer)
    }

    const URL: &str = "https://auth.acme.example/oauth/token?a=b";

    fn body(login: &Login) -> String {
        String::from_utf8(login.request(login.endpoint().0).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_value_is_read_and_stored_with_its_endpoint() {
        let login = read(&format!(r#"{{"refreshToken":"r t","token_uri":"{URL}"}}"#), None);
        assert_eq!(login.unwrap_err(), LoginFault::Token, "a blank cannot stand in a field");
        let text = format!(r#"{{"refresh_token":"r+t","client_id":"me","token_url":"{URL}","expires_at":1777593600}}"#);
        let login = read(&text, None).unwrap();
        assert_eq!(body(&login), "grant_type=refresh_token&refresh_token=r%2Bt&client_id=me");
        assert_eq!(login.endpoint().1, "/oauth/token?a=b");
        assert_eq!(login.expires, Some(WallTime(1_777_593_600_000)));
        let again = Login::read(&login.stored(), None).unwrap();
        assert_eq!((again.expires, body(&again)), (login.expires, body(&login)));
        let elsewhere = Origin::from_authority(Scheme::Https, "auth.acme.example:8443").unwrap();
        assert!(login.request(&elsewhere).is_none(), "the refresh token is for its own endpoint");
        assert!(!format!("{login:?}").contains("r+t"));
    }

    #[test]
    fn what_a_provider_is_known_for_fills_in() {
        let issuer = Issuer { token: "https://auth.known.example/t".into(), client: Some("theirs".into()), json: true };
        let login = read(r#"{"refresh_token":"r"}"#, Some(&issuer)).unwrap();
        assert_eq!(body(&login), r#"{"grant_type":"refresh_token","refresh_token":"r","client_id":"theirs"}"#);
        assert_eq!(body(&Login::read(&login.stored(), None).unwrap()), body(&login), "it is sealed with the value");
        let own = read(&format!(r#"{{"refresh_token":"r","token_url":"{URL}"}}"#), Some(&issuer)).unwrap();
        assert_eq!(body(&own), "grant_type=refresh_token&refresh_token=r", "another endpoint is another client");
    }

    #[test]
    fn a_client_can_be_its_own_login() {
        let text = format!(r#"{{"client_id":"me","client_secret":"s","scope":"a b","token_url":"{URL}"}}"#);
        let expected = "grant_type=client_credentials&client_id=me&client_secret=s&scope=a%20b";
        assert_eq!(body(&read(&text, None).unwrap()), expected);
    }

    #[test]
    fn what_is_no_login_is_refused_and_not_shown() {
        let known = format!(r#""token_url":"{URL}""#);
        for (text, fault) in [
            ("Zq7".to_owned(), LoginFault::Form),
            (format!(r#"{{"access_token":"Zq7",{known}}}"#), LoginFault::Form),
            (r#"{"refresh_token":"Zq7"}"#.to_owned(), LoginFault::NoEndpoint),
            (r#"{"refresh_token":"Zq7","token_url":"http://a.example/Zq7"}"#.to_owned(), LoginFault::Endpoint),
            (r#"{"refresh_token":"Zq7","token_url":"https://u:Zq7@a.example/"}"#.to_owned(), LoginFault::Endpoint),
            (r#"{"refresh_token":"Zq7","token_url":"https://127.0.0.1/Zq7"}"#.to_owned(), LoginFault::Endpoint),
            (format!(r#"{{"refresh_token":"",{known}}}"#), LoginFault::Token),
        ] {
            let found = read(&text, None).unwrap_err();
            assert_eq!(found, fault, "{text}");
            assert!(!format!("{found} {}", found.hint()).contains("Zq7"));
        }
    }

    #[test]
    fn answers_of_token_endpoints() {
        // AU-15
        let kind = |status: u16, body: &str| match granted(http::StatusCode::from_u16(status).unwrap(), body.as_bytes())
        {
            Granted::Tokens(tokens) => format!("tokens {} {:?}", tokens.refresh.is_some(), tokens.lasts),
            Granted::Refused(word) => format!("refused {word}"),
            Granted::Failed(_) => "failed".to_owned(),
        };
        for (status, body, expected) in [
            (200, r#"{"access_token":"a","expires_in":3600,"refresh_token":"r"}"#, "tokens true Some(3600)"),
            (200, r#"{"access_token":"a","expires_in":"60"}"#, "tokens false Some(60)"),
            (200, r#"{"access_token":"a"}"#, "tokens false None"),
            (200, r#"{"access_token":"a\r\nb"}"#, "failed"),
            (200, r#"{"token_type":"bearer"}"#, "failed"),
            (200, r#"{"error":"bad_refresh_token"}"#, "refused bad_refresh_token"),
            (400, r#"{"error":"invalid_grant"}"#, "refused invalid_grant"),
            (400, r#"{"error":{"type":"invalid_grant","message":"x"}}"#, "refused invalid_grant"),
            (401, r#"{"error":{"code":"refresh_token_reused"}}"#, "refused refresh_token_reused"),
            (400, r#"{"error":"temporarily_unavailable"}"#, "failed"),
            (429, r#"{"error":"slow_down"}"#, "failed"),
            (500, r#"{"access_token":"a"}"#, "failed"),
            (302, "", "failed"),
            (200, "<html>", "failed"),
        ] {
            assert_eq!(kind(status, body), expected, "{status} {body}");
        }
    }
}
