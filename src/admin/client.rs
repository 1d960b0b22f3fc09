//! Asks a running daemon, over the socket in its home.
//!
//! Invariant: every wait has a limit; a socket that nobody serves is no error but an absent daemon.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::admin::api::{ControlError, Session};
use crate::spawn::Spawner;

/// A daemon answers from memory, but for a profile's test, which its provider has 20 seconds for.
const LIMIT: Duration = Duration::from_secs(25);
/// More than any answer of the admin interface.
const MOST_ANSWER: usize = 16 * 1024 * 1024;

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is there, but did not answer in time or as expected.
    #[error("the daemon did not answer")]
    NoAnswer,
    /// It said no.
    #[error(transparent)]
    Refused(#[from] ControlError),
}

/// A connection to a daemon.
pub struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Connects to the daemon behind `socket`; `None` when none is running.
    pub async fn connect(socket: &Path, spawner: &Spawner) -> Option<Self> {
        let stream = tokio::time::timeout(LIMIT, UnixStream::connect(socket)).await.ok()?.ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        spawner.spawn(async move {
            let _ = connection.await;
        });
        Some(Self { sender })
    }

    /// `status` as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&mut self) -> Result<Value, ClientError> {
        self.ask(Method::GET, "/v1/status", Value::Null).await
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn config(&mut self) -> Result<Value, ClientError> {
        self.ask(Method::GET, "/v1/config", Value::Null).await
    }

    /// `profile list` as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profiles(&mut self) -> Result<Value, ClientError> {
        self.ask(Method::GET, "/v1/profiles", Value::Null).await
    }

    /// `why` as JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn why(&mut self, agent: &str, method: &str, url: &str) -> Result<Value, ClientError> {
        self.ask(Method::POST, "/v1/why", json!({"agent": agent, "method": method, "url": url})).await
    }

    /// Resets, disables or enables a profile.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile(&mut self, profile: &str, action: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/profiles", json!({"profile": profile, "action": action})).await.map(drop)
    }

    /// Tests a profile; the provider's answer takes a while.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn test(&mut self, profile: &str) -> Result<Value, ClientError> {
        self.ask(Method::POST, "/v1/profiles/test", json!({"profile": profile})).await
    }

    /// Has the configuration read anew.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reload(&mut self) -> Result<Value, ClientError> {
        self.ask(Method::POST, "/v1/reload", Value::Null).await
    }

    /// Has the vault read anew.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn refresh(&mut self) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/refresh", Value::Null).await.map(drop)
    }

    /// A session for `agent`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn session(&mut self, agent: &str, ttl: Duration) -> Result<Session, ClientError> {
        let asked = json!({"agent": agent, "ttl_seconds": ttl.as_secs()});
        let value = self.ask(Method::POST, "/v1/sessions", asked).await?;
        serde_json::from_value(value).map_err(|_| ClientError::NoAnswer)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn end_session(&mut self, token: &str) -> Result<(), ClientError> {
        self.ask(Method::POST, "/v1/sessions/end", json!({"token": token})).await.map(drop)
    }

    async fn ask(&mut self, method: Method, path: &str, body: Value) -> Result<Value, ClientError> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Full::new(body))
            .map_err(|_| ClientError::NoAnswer)?;
        let answered = tokio::time::timeout(LIMIT, async {
            self.sender.ready().await.map_err(|_| ClientError::NoAnswer)?;
            let response = self.sender.send_request(request).await.map_err(|_| ClientError::NoAnswer)?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MOST_ANSWER).collect().await.map_err(|_| ClientError::NoAnswer)?;
            Ok::<_, ClientError>((status, body.to_bytes()))
        });
        let (status, body) = answered.await.map_err(|_| ClientError::NoAnswer)??;
        let value: Value = serde_json::from_slice(&body).map_err(|_| ClientError::NoAnswer)?;
        if status.is_success() {
            return Ok(value);
        }
        let part = |key: &str| value.pointer(&format!("/error/{key}")).and_then(Value::as_str).map(str::to_owned);
        Err(ControlError {
            status: status.as_u16(),
            message: part("message").unwrap_or_else(|| "refused".to_owned()),
            hint: part("hint"),
        }
        .into())
    }
}
