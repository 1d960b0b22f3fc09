//! What is done now and then, beside the exchanges: idle connections closed, opened values let go, pool state
//! written, a vault that another process changed read anew.
//!
//! Invariant: none of it is on an exchange's way, and each step is bounded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::core::Core;
use crate::vault::PoolRow;

/// Another process's change is seen within this time even if it told nobody.
const TICK: Duration = Duration::from_secs(1);
/// Idle connections and opened values are looked at this often.
const SWEEP_EVERY: u32 = 10;
/// A root certificate has 30 days left when it is renewed.
const ROOT_EVERY: u32 = 3600;

/// Runs until the process stops.
pub(super) async fn run(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    let mut version = core.vault.data_version().await.ok();
    loop {
        tokio::select! {
            () = core.shared.spawner.stopping() => return,
            _ = ticks.tick() => {}
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(SWEEP_EVERY) {
            core.shared.upstream.reuse().sweep();
            core.open.sweep(Instant::now());
            save_seen(&core).await;
        }
        if count.is_multiple_of(ROOT_EVERY) {
            let view = core.shared.view.load_full();
            core.suit_root(&view).await;
        }
        save_pools(&core).await;
        let now = core.vault.data_version().await.ok();
        if now.is_some() && now != version {
            match core.refresh().await {
                Ok(_) => version = now,
                // It is tried again: what was revoked must not stay in force because a disk was busy once.
                Err(error) => {
                    tracing::error!(%error, "the vault changed but could not be read; the earlier state stays in force");
                }
            }
        }
    }
}

/// Writes when agents were last seen.
pub(super) async fn save_seen(core: &Core) {
    if let Err(error) = core.vault.touch_agents(core.shared.books.totals.take_seen()).await {
        tracing::debug!(%error, "when agents were last seen could not be written");
    }
}

/// Writes the pools' state, and what agents have used, if it changed; a failure delays nothing but its next try.
pub(super) async fn save_pools(core: &Core) {
    let pools = core.shared.pools.changed_rows();
    let rations = core.shared.rations.changed_rows();
    if pools.is_none() && rations.is_none() {
        return;
    }
    let rows = pools.into_iter().chain(rations).flatten();
    let rows = rows.map(|(scope, json)| PoolRow { scope, json }).collect();
    if let Err(error) = core.vault.save_pool_rows(rows).await {
        tracing::warn!(%error, "the pools' state could not be written");
    }
}
