//! Brings pools and metrics in line with what is stored.

use std::collections::HashSet;

use crate::pool::Readiness;
use crate::proxy::{Shared, View};
use crate::telemetry::ProfileState;

/// Tells the metrics which profiles there are.
pub(super) fn observe(shared: &Shared, view: &View) {
    let known: HashSet<_> = view.credentials.all().map(|member| &member.profile).collect();
    shared.pools.retain(|profile| known.contains(profile));
    for member in view.credentials.all() {
        shared.pools.know(&member.profile, member.fingerprint);
    }
    shared.books.recorder.metrics().forget_profiles();
    show_profiles(shared, view);
}

/// Brings the figures of the profiles up to date.
pub(super) fn show_profiles(shared: &Shared, view: &View) {
    let now = shared.clock.now();
    for member in view.credentials.all() {
        let state = shared.pools.state(&member.profile, now);
        let shown = match state.state {
            Readiness::Ready => ProfileState::Ready,
            Readiness::Cooling => ProfileState::Cooling,
            Readiness::HalfOpen => ProfileState::HalfOpen,
            Readiness::Disabled => ProfileState::Disabled,
        };
        if let Some(at) = view.credentials.expiry(member) {
            shared.books.recorder.metrics().set_credential_expiry(&member.profile, at);
        }
        shared.books.recorder.metrics().set_profile_state(&state.profile, shown, state.until);
    }
}
