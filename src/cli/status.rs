//! `status`: the state at a glance.

use serde_json::{Value, json};

use super::context::Context;
use super::daemon::Daemon;
use super::failure::NO_DAEMON;
use super::output::{Failure, Outcome};
use super::{offline, profile};
use crate::tls::Authority;

/// `keyferry status`
pub async fn status(context: &mut Context) -> Outcome {
    let home = context.home()?;
    let status = match Daemon::connect(&home).await {
        Some(mut daemon) => daemon.status().await?,
        None => without_daemon(context).await?,
    };
    let running = status.get("running").and_then(Value::as_bool).unwrap_or(false);
    if context.output.is_json() {
        context.output.json(&status)?;
    } else {
        show(&status, running, context)?;
    }
    if running { Ok(()) } else { Err(Failure::silent(NO_DAEMON)) }
}

/// `keyferry reload`
pub async fn reload(context: &mut Context) -> Outcome {
    let answer = Daemon::required(&context.home()?).await?.reload().await?;
    if context.output.is_json() {
        return context.output.json(&answer);
    }
    context.output.done("the configuration is read anew");
    let restart = answer.get("restart_needed").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for key in restart.iter().filter_map(Value::as_str) {
        context.output.warn(&format!("{key} takes effect at the next start: restart needed"));
    }
    Ok(())
}

/// What the home says by itself.
async fn without_daemon(context: &mut Context) -> Outcome<Value> {
    let home = context.home()?;
    let profiles = offline::profiles(context).await?;
    let vault = home.vault_db();
    let config = context.config()?;
    let agents = match context.vault(&home, &config).await? {
        Some(vault) => {
            vault.agents().await?.iter().filter(|row| !row.revoked).map(|row| row.agent.to_string()).collect()
        }
        None => Vec::new(),
    };
    let ca = Authority::load(&home).ok().map(|authority| {
        let info = authority.info();
        json!({ "not_after": info.not_after.to_string(), "fingerprint": info.fingerprint, "path": home.ca_cert() })
    });
    Ok(json!({
        "running": false,
        "pid": null,
        "version": env!("CARGO_PKG_VERSION"),
        "listeners": {},
        "profiles": profiles,
        "agents": agents,
        "vault": { "url": vault, "exists": vault.exists() },
        "ca": ca,
        "config": context.config_file()?,
        "socket": home.admin_socket(),
        "reload": null,
    }))
}

fn show(status: &Value, running: bool, context: &mut Context) -> Outcome {
    let text = |pointer: &str| status.pointer(pointer).map_or_else(|| "-".to_owned(), plain);
    if running {
        let mut rows = vec![
            (
                "daemon",
                format!("running, pid {}, version {}, since {}", text("/pid"), text("/version"), text("/started")),
            ),
            ("proxy", text("/listeners/proxy")),
            ("base URL", text("/listeners/base_url")),
            ("admin", text("/listeners/admin")),
        ];
        if let Some(reload) = status.get("reload").filter(|reload| !reload.is_null()) {
            let good = reload.get("ok").and_then(Value::as_bool).unwrap_or(false);
            let at = reload.get("at").map(plain).unwrap_or_default();
            let error = reload.get("error").map(plain).unwrap_or_default();
            rows.push(("reload", if good { format!("done {at}") } else { format!("refused {at}: {error}") }));
        }
        rows.extend(rest(&text));
        context.output.fields(&rows)?;
    } else {
        let mut rows = vec![("daemon", "not running".to_owned())];
        rows.extend(rest(&text));
        context.output.fields(&rows)?;
    }
    context.output.data("\n")?;
    profile::table(status.get("profiles").unwrap_or(&Value::Null), context)?;
    if !running {
        context.output.next("keyferry serve starts the daemon; keyferry run -- COMMAND needs none");
    }
    Ok(())
}

fn rest(text: &dyn Fn(&str) -> String) -> Vec<(&'static str, String)> {
    vec![("config", text("/config")), ("vault", text("/vault/url")), ("CA until", text("/ca/not_after"))]
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
