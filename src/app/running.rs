//! A proxy that runs in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{self, Control as _, Listeners, Session};
use crate::app::control::AppControl;
use crate::app::core::Core;
use crate::app::error::AppError;
use crate::app::options::{Mode, Options};
use crate::app::parts;
use crate::app::{ErrandError, errand, installed, keep};
use crate::id::AgentName;
use crate::proxy::{self, Counts};

/// Longer than a disk needs, shorter than a person's patience.
const FLUSH: Duration = Duration::from_secs(3);

/// A running proxy; dropping it does not stop it, [`Running::stop`] does.
pub struct Running {
    pub(super) core: Arc<Core>,
    control: Arc<AppControl>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Running {
    /// Makes the parts and begins to listen.
    ///
    /// # Errors
    /// [`AppError`]; nothing is left running then.
    pub async fn start(options: Options) -> Result<Self, AppError> {
        let (core, bound) = parts::make(options).await?;
        let control = Arc::new(AppControl::new(Arc::clone(&core)));
        let spawner = core.shared.spawner.clone();
        if core.mode == Mode::Serve {
            let socket = core.home.admin_socket();
            let served = admin::serve_socket(&socket, Arc::clone(&control) as _, spawner.clone()).await;
            served.map_err(|source| match source.kind() {
                std::io::ErrorKind::AddrInUse => AppError::AlreadyRunning,
                _ => AppError::Socket { path: socket.display().to_string(), source },
            })?;
        }
        if let Some(listener) = bound.admin {
            spawner.spawn(admin::serve_tcp(listener, Arc::clone(&control) as _, spawner.clone()));
        }
        for listener in bound.proxies {
            spawner.spawn(proxy::serve(Arc::clone(&core.shared), listener));
        }
        if let Some(path) = bound.unix {
            let stopping = spawner.clone();
            spawner.spawn(async move {
                stopping.stopping().await;
                let _ = std::fs::remove_file(path);
            });
        }
        spawner.spawn(keep::run(Arc::clone(&core)));
        spawner.spawn(errand::settle_doubts(Arc::clone(&core)));
        Ok(Self { core, control })
    }

    /// Where it listens.
    #[must_use]
    pub fn listeners(&self) -> &Listeners {
        &self.core.listeners
    }

    /// The address of the proxy port.
    #[must_use]
    pub fn proxy_address(&self) -> SocketAddr {
        self.core.listeners.proxy
    }

    /// Providers with at least one usable credential for `agent`, with how many profiles.
    #[must_use]
    pub fn pools(&self, agent: &AgentName) -> Vec<(String, usize)> {
        let view = self.core.shared.view.load();
        let all = view
            .catalogue
            .iter()
            .map(|provider| (provider.id.to_string(), view.credentials.members(&provider.id, agent).len()));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// The variables that an agent gets.
    #[must_use]
    pub fn variables(&self, agent: &AgentName) -> Vec<crate::admin::Installed> {
        installed::variables(&self.core.shared.view.load(), agent)
    }

    /// A session for `agent`, with all that its process needs.
    ///
    /// # Errors
    /// [`crate::admin::ControlError`].
    pub async fn session(&self, agent: &AgentName, ttl: Duration) -> Result<Session, crate::admin::ControlError> {
        self.control.session(agent.as_str(), ttl.as_secs()).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`crate::admin::ControlError`].
    pub async fn end_session(&self, token: &str) -> Result<(), crate::admin::ControlError> {
        self.control.end_session(token).await
    }

    /// Makes the provider's test call with one profile: the word for what the answer means, and its status.
    ///
    /// # Errors
    /// [`ErrandError`].
    pub async fn test_profile(&self, profile: &str) -> Result<(&'static str, Option<u16>), ErrandError> {
        let outcome = errand::test(&self.core, profile).await?;
        Ok((outcome.label(), outcome.status.map(|status| status.as_u16())))
    }

    /// Reads the configuration anew; a faulty file changes nothing.
    ///
    /// # Errors
    /// [`crate::admin::ControlError`] with every fault.
    pub async fn reload(&self) -> Result<serde_json::Value, crate::admin::ControlError> {
        self.control.reload().await
    }

    /// The CA's certificate and the bundle, in the home.
    #[must_use]
    pub fn trust_files(&self) -> (&Path, &Path) {
        (&self.core.ca_file, &self.core.bundle_file)
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.core.shared.books.totals.counts()
    }

    /// Providers for which a credential of an agent's own was replaced.
    #[must_use]
    pub fn replaced(&self) -> Vec<String> {
        self.core.shared.books.totals.all_replaced().iter().map(ToString::to_string).collect()
    }

    /// Stops listening, lets exchanges finish for up to `grace`, writes what is owed.
    pub async fn stop(self, grace: Duration) -> Counts {
        let spawner = &self.core.shared.spawner;
        spawner.stop();
        // Connections that wait for a next exchange would keep their tasks until their idle end.
        self.core.shared.upstream.reuse().clear();
        self.core.shared.upstream.reuse().close();
        if tokio::time::timeout(grace, spawner.ended()).await.is_err() {
            tracing::warn!("some exchanges did not end within the grace period");
        }
        self.core.shared.renewals.landed().await;
        keep::save_pools(&self.core).await;
        keep::save_seen(&self.core).await;
        self.core.shared.books.recorder.flush(FLUSH);
        self.counts()
    }
}
