//! The daemon of this home, as commands ask it.
//!
//! Invariant: an absent daemon is no error of this module; a command decides what that means for it.

use std::time::Duration;

use serde_json::Value;

use super::failure::NO_DAEMON;
use super::output::{Failure, Outcome};
use crate::admin::Session;
use crate::admin::client::{Client, ClientError};
use crate::home::Home;
use crate::spawn::Spawner;

/// A daemon that lives.
pub struct Daemon {
    client: Client,
}

impl Daemon {
    /// The daemon of this home, if one runs.
    pub async fn connect(home: &Home) -> Option<Self> {
        // The connection's one task ends with the runtime of the command.
        let client = Client::connect(&home.admin_socket(), &Spawner::default()).await?;
        Some(Self { client })
    }

    /// The daemon of this home.
    ///
    /// # Errors
    /// Exit code 3 when none runs.
    pub async fn required(home: &Home) -> Outcome<Self> {
        Self::connect(home).await.ok_or_else(|| {
            Failure::new("no daemon of this home is running").hint("start it: keyferry serve").code(NO_DAEMON)
        })
    }

    /// What it says of itself.
    pub async fn status(&mut self) -> Outcome<Value> {
        Ok(self.client.status().await?)
    }

    /// The configuration in force.
    pub async fn config(&mut self) -> Outcome<Value> {
        Ok(self.client.config().await?)
    }

    /// The state of each profile.
    pub async fn profiles(&mut self) -> Outcome<Value> {
        Ok(self.client.profiles().await?)
    }

    /// What would become of an exchange.
    pub async fn why(&mut self, agent: &str, method: &str, url: &str) -> Outcome<Value> {
        Ok(self.client.why(agent, method, url).await?)
    }

    /// `reset`, `disable` or `enable` one profile.
    pub async fn profile(&mut self, profile: &str, action: &str) -> Outcome {
        Ok(self.client.profile(profile, action).await?)
    }

    /// Makes the provider's test call with one profile.
    pub async fn test(&mut self, profile: &str) -> Outcome<Value> {
        Ok(self.client.test(profile).await?)
    }

    /// Has it read its configuration anew.
    pub async fn reload(&mut self) -> Outcome<Value> {
        Ok(self.client.reload().await?)
    }

    /// Has it read the vault anew.
    pub async fn vault_changed(&mut self) -> Outcome {
        Ok(self.client.refresh().await?)
    }

    /// A session for an agent, with all that its process needs.
    pub async fn session(&mut self, agent: &str, ttl: Duration) -> Outcome<Session> {
        Ok(self.client.session(agent, ttl).await?)
    }

    /// Ends a session.
    pub async fn end_session(&mut self, token: &str) -> Outcome {
        Ok(self.client.end_session(token).await?)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = format!("the daemon: {error}");
        match error {
            ClientError::NoAnswer => Self::new(message).hint("keyferry status"),
            ClientError::Refused(refused) => Self::new(refused.message).maybe_hint(refused.hint),
        }
    }
}
