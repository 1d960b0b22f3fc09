//! Makes the parts of a proxy, in the order in which they need each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::app::core::{Core, Root, State};
use crate::app::error::AppError;
use crate::app::figures;
use crate::app::installed;
use crate::app::listen::{self, Bound};
use crate::app::options::{Mode, Options};
use crate::app::root;
use crate::app::snapshot::{self, Ingredients};
use crate::app::way_out;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::id::{AgentName, ProviderId, ShortName};
use crate::policy::Fallback;
use crate::policy::limit::{Limits, Rations};
use crate::pool::{Jitter, Ladders, PoolSettings, Pools, Strategy};
use crate::proxy::{self, Books, Buckets, Guesses, Shared};
use crate::source::{Means, OpenValues, Renewals};
use crate::spawn::Spawner;
use crate::telemetry::{AccessLog, Audit, Change, Metrics, Recorder};
use crate::tls::{Authority, Leaves, Trust, write_bundle};
use crate::upstream::Upstream;
use crate::upstream::body::Budget;
use crate::upstream::dial::Dialer;
use crate::upstream::screen::Screen;

/// New certificates a second and agent, and at once (SECURITY TL-36).
const MINTS: u32 = 20;

/// Makes everything, and listens.
pub(super) async fn make(options: Options) -> Result<(Arc<Core>, Bound), AppError> {
    let Options {
        home,
        config_file,
        config,
        mode,
        vault,
        found,
        lines_to_stdout,
        inherited,
        redactor,
        companion,
        way_out,
    } = options;
    let clock = Clock::System;
    let now = clock.now();
    let config = Arc::new(config);
    // A hundred and more roots to parse, beside what follows.
    let roots: Vec<_> = config.upstream.extra_roots.iter().map(|path| home.resolve(path)).collect();
    let trust = tokio::task::spawn_blocking(move || Trust::load(&roots));
    let catalogue = snapshot::catalogue(&config)?;
    let open = OpenValues::new(Arc::clone(&redactor));
    let fallback = if mode == Mode::Run { Fallback::Tunnel } else { Fallback::Deny };
    let from =
        Ingredients { config: &config, fallback, catalogue: &catalogue, vault: &vault, found: &found, open: &open };

    // The logs first: what follows is written to them.
    home.create()?;
    let access = home.resolve(&config.log.access);
    let unwritable = |source| AppError::AccessLog { path: access.display().to_string(), source };
    let mut log = AccessLog::new().with_file(&access).map_err(unwritable)?;
    if lines_to_stdout {
        log = log.with_copy(std::io::stdout()).map_err(unwritable)?;
    }
    let chain = way_out::chain(&config, &home, way_out)?;
    let recorder = Arc::new(Recorder::new(log, Metrics::new(), Arc::clone(&redactor)));
    let audit = Audit::open(&home.audit_log(), vault.derived_key("audit"), redactor)?;
    let audit = match config.audit.durability {
        config::Durability::Written => audit,
        config::Durability::Synced => audit.synced()?,
    };

    let members = snapshot::all_members(&from).await?;
    let sealed = members.iter().flat_map(|member| member.audience.iter().cloned());
    let mut hosts = installed::certificate_hosts(&catalogue, &config, sealed);
    hosts.extend(listen::tls_name(&config, mode).map(|name| name.to_string()));
    let (authority, loaded) = Authority::load_or_create(&home, &hosts, now)?;
    if let Some((action, why)) = root::said(&loaded) {
        tracing::info!(%why, "a new root certificate");
        let fingerprint = authority.info().fingerprint;
        let change = Change { at: now, action, subject: "ca.pem", actor: "daemon", detail: Some(&fingerprint) };
        audit.change(change)?;
    }
    recorder.metrics().set_ca_not_after(authority.info().not_after);
    let bundle_file = write_bundle(&home, inherited.clone(), authority.root_pem())?;
    let leaves = Leaves::constrained_to(Arc::clone(&authority), &hosts)?;

    let trust = Arc::new(trust.await.map_err(|_| AppError::Lost)??);
    let (bound, listeners) = listen::bind(&config, &home, mode, companion.as_ref()).await?;
    let spawner = Spawner::default();
    let screen = Screen::new(config.upstream.allow_networks.clone(), listeners.addresses().collect());
    let resolve: HashMap<_, _> = config.upstream.resolve.iter().map(|(key, address)| (key.clone(), *address)).collect();
    let dialer = Dialer::new(screen, resolve, config.upstream.timeouts.connect).chained(chain);
    let upstream = Arc::new(Upstream::new(dialer, trust, spawner.clone()));

    let pools = Pools::new(pool_settings(&config), Jitter::random());
    let rows: Vec<_> = vault.pool_rows().await?.into_iter().map(|row| (row.scope, row.json)).collect();
    let rations = Rations::new(rations(&config));
    rations.restore(rows.iter().map(|(scope, json): &(String, String)| (scope.as_str(), json.as_str())));
    pools.restore(rows, now);

    let view = snapshot::build(from).await?;
    let limits = proxy::Limits {
        response: config.upstream.timeouts.response,
        idle: config.upstream.timeouts.idle,
        connections: most_connections(),
        ..proxy::Limits::default()
    };
    let books = Books { recorder, totals: Arc::default() };
    let audit = Arc::new(audit);
    let followed = pools.clone();
    let renewals = Renewals::new(Means {
        vault: vault.clone(),
        upstream: Arc::clone(&upstream),
        audit: Arc::clone(&audit),
        metrics: Arc::clone(books.recorder.metrics()),
        open: Arc::clone(&open),
        clock: clock.clone(),
        spawner: spawner.clone(),
        follows: Box::new(move |profile, first, second| followed.follows(profile, first, second)),
    });
    let shared = Arc::new(Shared {
        view: ArcSwap::from_pointee(view),
        pools,
        rations,
        renewals,
        upstream,
        leaves: ArcSwap::from_pointee(leaves),
        books,
        audit,
        clock,
        spawner,
        limits,
        budget: Budget::new(limits.replay_in_all),
        guesses: Guesses::default(),
        mints: Buckets::new(MINTS, Duration::from_secs(1) / MINTS),
        connections: Arc::new(Semaphore::new(limits.connections)),
    });
    figures::observe(&shared, &shared.view.load());
    let state = State { config, catalogue, last_reload: None, restart_needed: Vec::new() };
    let core = Core {
        shared,
        vault,
        open,
        found,
        root: Mutex::new(Root { authority, hosts }),
        inherited,
        ca_file: home.ca_cert(),
        bundle_file,
        home,
        config_file,
        mode,
        state: Mutex::new(state),
        listeners,
        started: now,
    };
    Ok((Arc::new(core), bound))
}

/// What agents may use.
pub(super) fn rations(config: &Config) -> HashMap<AgentName, Limits> {
    config.agents.iter().map(|(name, agent)| (name.clone(), agent.limits.clone())).collect()
}

/// The pools' settings, in the pools' own words.
pub(super) fn pool_settings(config: &Config) -> HashMap<ProviderId, PoolSettings> {
    let settings = |pool: &config::PoolConfig| PoolSettings {
        order: pool.order.clone(),
        strategy: match pool.strategy {
            config::Strategy::Sticky => Strategy::Sticky,
            config::Strategy::Priority => Strategy::Priority,
            config::Strategy::RoundRobin => Strategy::RoundRobin,
            config::Strategy::LeastUsed => Strategy::LeastUsed,
        },
        ladders: match &pool.cooldown {
            config::Cooldown::Argentos => Ladders::argentos(),
            config::Cooldown::Short => Ladders::short(),
            config::Cooldown::Ladder(steps) => Ladders::with_steps(steps.clone()),
            config::Cooldown::Lanes(lanes) => {
                lanes.iter().fold(Ladders::argentos(), |ladders, (lane, steps)| ladders.with_lane(*lane, steps.clone()))
            }
        },
        limits: pool.attempts,
        wait: pool.wait,
        warm_wait: pool.warm_wait,
        groups: pool.groups.iter().flat_map(|(name, members)| grouped(name, members)).collect(),
        learn_groups: pool.learn_groups,
        rotate: pool.rotate,
        each: pool.limits.clone(),
    };
    config.pools.iter().map(|(provider, pool)| (provider.clone(), settings(pool))).collect()
}

fn grouped(name: &ShortName, members: &[ShortName]) -> Vec<(ShortName, Arc<str>)> {
    let name: Arc<str> = Arc::from(name.as_str());
    members.iter().map(|member| (member.clone(), Arc::clone(&name))).collect()
}

/// 80 % of the file descriptors, half of that for agents since each may need one upstream; at most 16,384.
fn most_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(16_384);
    let share = usize::try_from(limit).unwrap_or(16_384).saturating_mul(2) / 5;
    share.clamp(16, proxy::Limits::default().connections)
}
