//! How a profile's state is shown: the shape of `profile list --json`, for a daemon and for a home at rest.

use serde_json::{Value, json};

use crate::pool::ProfileState;

/// One row.
#[must_use]
pub fn profile_json(state: &ProfileState, kind: &str) -> Value {
    let holds = state.holds.iter().map(|hold| {
        json!({
            "lane": hold.lane.as_str(),
            "scope": hold.scope,
            "model": hold.part,
            "until": hold.until.to_string(),
            "source": hold.source.as_str(),
        })
    });
    json!({
        "profile": state.profile.to_string(),
        "provider": state.profile.provider.as_str(),
        "type": kind,
        "state": state.state.as_str(),
        "until": state.until.map(|until| until.to_string()),
        "reason": state.reason,
        "level": state.level,
        "last_used": state.last_used.map(|at| at.to_string()),
        "holds": holds.collect::<Vec<_>>(),
    })
}
