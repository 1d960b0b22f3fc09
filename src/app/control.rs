//! Carries out what the admin interface is asked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::admin::{Control, ControlError, Session};
use crate::app::core::Core;
use crate::app::profiles::profile_json;
use crate::app::why::{self, Question};
use crate::app::{errand, figures, installed, parts, snapshot};
use crate::config;
use crate::id::{AgentName, ProfileId};
use crate::pool::Pools;
use crate::telemetry::{Action, Change, ReloadResult};

/// The longest session: a month.
const MOST_TTL: u64 = 31 * 24 * 3600;

/// The running parts, as the admin interface may use them.
pub(super) struct AppControl {
    core: Arc<Core>,
}

impl AppControl {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn audit(&self, action: Action, subject: &str) -> Result<(), ControlError> {
        let shared = &self.core.shared;
        let change = Change { at: shared.clock.now(), action, subject, actor: "admin", detail: None };
        shared.audit.change(change).map_err(|error| refused(503, &error, Some(error.hint())))
    }
}

fn refused(status: u16, message: impl std::fmt::Display, hint: Option<String>) -> ControlError {
    ControlError { status, message: message.to_string(), hint }
}

#[async_trait]
impl Control for AppControl {
    fn ready(&self) -> bool {
        !self.core.shared.spawner.is_stopping()
    }

    fn metrics(&self) -> String {
        let shared = &self.core.shared;
        let now = shared.clock.now();
        figures::show_profiles(shared, &shared.view.load());
        shared.books.recorder.render(now)
    }

    fn status(&self) -> Value {
        let core = &self.core;
        let view = core.shared.view.load();
        let state = core.state.lock();
        let info = core.ca_info();
        let reload = state
            .last_reload
            .as_ref()
            .map(|(at, result)| json!({"at": at.to_string(), "ok": result.is_ok(), "error": result.as_ref().err()}));
        let resolve: Vec<String> =
            state.config.upstream.resolve.iter().map(|((host, port), to)| format!("{host}:{port} -> {to}")).collect();
        let proxies = core.shared.upstream.proxies();
        json!({
            "running": true,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "started": core.started.to_string(),
            "listeners": core.listeners,
            "profiles": self.profiles(),
            "agents": view.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "vault": {"url": core.home.vault_db().display().to_string(), "credentials": view.credentials.all().count()},
            "ca": {"not_after": info.not_after.to_string(), "fingerprint": info.fingerprint, "path": core.ca_file.display().to_string()},
            "upstream": {"proxy": proxies, "resolve": resolve, "extra_roots": state.config.upstream.extra_roots},
            "config": core.config_file.display().to_string(),
            "mode": if view.policy.observes() { "observe" } else { "enforce" },
            "reload": reload,
            "restart_needed": state.restart_needed,
        })
    }

    fn profiles(&self) -> Value {
        let now = self.core.shared.clock.now();
        let view = self.core.shared.view.load();
        let pools = &self.core.shared.pools;
        let mut members: Vec<_> = view.credentials.all().collect();
        members.sort_by(|a, b| a.profile.cmp(&b.profile));
        members.dedup_by(|a, b| a.profile == b.profile);
        let rows = members.iter().map(|member| profile_json(&pools.state(&member.profile, now), &member.kind));
        Value::Array(rows.collect())
    }

    fn why(&self, agent: &str, method: &str, url: &str) -> Result<Value, ControlError> {
        let question =
            Question::parse(agent, method, url).map_err(|error| refused(400, &error, Some(error.hint.clone())))?;
        let shared = &self.core.shared;
        Ok(why::live(&shared.view.load(), &shared.pools, self.core.mode, &question, shared.clock.now()))
    }

    fn profile(&self, profile: &str, action: &str) -> Result<(), ControlError> {
        let id = ProfileId::parse(profile).map_err(|error| refused(400, error, None))?;
        let view = self.core.shared.view.load();
        if !view.credentials.all().any(|member| member.profile == id) {
            let hint = Some("keyferry profile list shows the profiles".to_owned());
            return Err(refused(404, format!("there is no profile {profile}"), hint));
        }
        let pools = &self.core.shared.pools;
        let (done, change): (Action, fn(&Pools, &ProfileId)) = match action {
            "reset" => (Action::ProfileReset, |pools, id| {
                pools.reset(id);
            }),
            "disable" => (Action::ProfileDisabled, Pools::disable),
            "enable" => (Action::ProfileEnabled, Pools::enable),
            other => return Err(refused(400, format!("unknown action {other}"), None)),
        };
        self.audit(done, profile)?;
        change(pools, &id);
        Ok(())
    }

    async fn test(&self, profile: &str) -> Result<Value, ControlError> {
        let outcome = errand::test(&self.core, profile).await.map_err(|error| refused(422, error, None))?;
        let status = outcome.status.map(|status| status.as_u16());
        Ok(json!({"profile": profile, "outcome": outcome.label(), "status": status}))
    }

    fn config(&self) -> Value {
        self.core.state.lock().config.to_value()
    }

    async fn reload(&self) -> Result<Value, ControlError> {
        let core = &self.core;
        let now = core.shared.clock.now();
        let outcome = reload(core).await;
        let result = if outcome.is_ok() { ReloadResult::Applied } else { ReloadResult::Refused };
        core.shared.books.recorder.metrics().reloaded(result);
        let mut state = core.state.lock();
        state.last_reload = Some((now, outcome.as_ref().map(drop).map_err(|error| error.message.clone())));
        match outcome {
            Ok(restart) => {
                self.audit(Action::ConfigLoaded, &core.config_file.display().to_string())?;
                if restart.is_empty() {
                    tracing::info!("configuration reloaded");
                } else {
                    tracing::warn!(keys = %restart.join(", "), "configuration reloaded; restart needed for these keys");
                }
                state.restart_needed = restart.iter().map(ToString::to_string).collect();
                Ok(json!({"ok": true, "restart_needed": restart}))
            }
            Err(error) => {
                tracing::error!(error = %error.message, "the configuration was not reloaded; the earlier one stays in force");
                Err(error)
            }
        }
    }

    async fn refresh(&self) -> Result<(), ControlError> {
        self.core.refresh().await.map_err(|error| refused(500, &error, error.hint()))
    }

    async fn session(&self, agent: &str, ttl_seconds: u64) -> Result<Session, ControlError> {
        let core = &self.core;
        let name = AgentName::parse(agent).map_err(|error| refused(400, error, None))?;
        let ttl = Duration::from_secs(ttl_seconds.clamp(1, MOST_TTL));
        let token = core
            .vault
            .create_session(&name, ttl, core.shared.clock.now())
            .await
            .map_err(|error| refused(500, &error, error.hint()))?;
        self.refresh().await?;
        let view = core.shared.view.load();
        let plain = core.state.lock().config.agents.get(&name).map(|agent| agent.env.clone()).unwrap_or_default();
        Ok(Session {
            agent: name.to_string(),
            token: String::from_utf8_lossy(token.expose()).into_owned(),
            listeners: core.listeners.clone(),
            ca: core.ca_file.clone(),
            bundle: core.bundle_file.clone(),
            installed: installed::variables(&view, &name),
            plain: plain.into_iter().collect(),
            git_hosts: installed::git_hosts(&view, &name),
        })
    }

    async fn end_session(&self, token: &str) -> Result<(), ControlError> {
        let core = &self.core;
        let digest = core.vault.digest(token.as_bytes());
        let ended = core.vault.revoke_token(digest, core.shared.clock.now()).await;
        ended.map_err(|error| refused(500, &error, error.hint()))?;
        self.refresh().await
    }
}

/// A whole new snapshot from the file, or nothing.
async fn reload(core: &Arc<Core>) -> Result<Vec<&'static str>, ControlError> {
    let fresh = config::load_or_default(&core.config_file)
        .map_err(|faults| refused(422, &faults, Some("keyferry config check".to_owned())))?;
    let fail = |error: &crate::app::AppError| refused(422, error, error.hint());
    let catalogue = snapshot::catalogue(&fresh).map_err(|error| fail(&error))?;
    let restart = {
        let state = core.state.lock();
        config::restart_needed(&state.config, &fresh)
    };
    // What waits for the next start is not in force, and is still waiting at the next reload.
    let running = Arc::clone(&core.state.lock().config);
    let fresh = Arc::new(fresh.keeping_from(&running));
    let view = snapshot::build(core.ingredients(&fresh, &catalogue)).await.map_err(|error| fail(&error))?;
    core.shared.pools.reconfigure(parts::pool_settings(&fresh));
    core.shared.rations.reconfigure(parts::rations(&fresh));
    {
        let mut state = core.state.lock();
        state.config = fresh;
        state.catalogue = catalogue;
    }
    core.swap(view).await;
    Ok(restart)
}
