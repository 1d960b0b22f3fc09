//! The figures of `/metrics`.
//!
//! Invariant: names and labels are those of the contract; labels come from configuration, and series are bounded.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::labels::{
    AgentLabels, Capped, ListenerLabels, OutcomeLabels, ProfileLabels, ProviderLabels, QuotaLabels, ReasonLabels,
    RefreshLabels, RequestLabels, ResultLabels, RotationLabels, WhereLabels, Word,
};
use super::record::{Decision, Record};
use crate::clock::WallTime;
use crate::id::{ProfileId, ProviderId};

type Seconds = Gauge<f64, AtomicU64>;

/// What a profile can do now; the value of `keyferry_profile_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileState {
    /// Can be used.
    Ready,
    /// Rests until a time.
    Cooling,
    /// Needs a person.
    Disabled,
    /// One request may try it.
    HalfOpen,
}

/// How a reload went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new configuration is in force.
    Applied,
    /// It was faulty and the old one stays.
    Refused,
}

/// How a renewal of a fetched credential went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshResult {
    /// A new value is there.
    Renewed,
    /// It failed and will be tried again.
    Failed,
    /// The provider wants a new login.
    NeedsLogin,
}

/// All figures of one process. Shared with `Arc`.
pub struct Metrics {
    registry: Registry,
    requests: Capped<RequestLabels, Counter>,
    duration: Capped<ProviderLabels, Histogram>,
    first_byte: Capped<ProviderLabels, Histogram>,
    overhead: Histogram,
    rotations: Capped<RotationLabels, Counter>,
    state: Capped<ProfileLabels, Gauge>,
    cooldown: Capped<ProfileLabels, Seconds>,
    quota: Capped<QuotaLabels, Seconds>,
    denied: Capped<ReasonLabels, Counter>,
    would_deny: Capped<AgentLabels, Counter>,
    redactions: Capped<WhereLabels, Counter>,
    connections: Capped<ListenerLabels, Gauge>,
    leaves: Counter,
    decryptions: Counter,
    attempts: Capped<OutcomeLabels, Counter>,
    ca_not_after: Seconds,
    expiry: Capped<ProfileLabels, Seconds>,
    refreshes: Capped<RefreshLabels, Counter>,
    reloads: Capped<ResultLabels, Counter>,
    lost: Gauge,
    /// Until when each profile cools, for the gauge of what remains.
    cooling: Mutex<Vec<(ProfileId, WallTime)>>,
}

/// From 5 ms to 10 s as OpenTelemetry has them, and on to the length of a long answer.
const DURATIONS: [f64; 19] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Our own share is far below a millisecond.
const OVERHEADS: [f64; 12] = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];

impl Metrics {
    /// The media type of [`Metrics::render`]'s text.
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All figures at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let durations: fn() -> Histogram = || Histogram::new(DURATIONS);
        let counter: fn() -> Counter = Counter::default;
        let gauge: fn() -> Gauge = Gauge::default;
        let seconds: fn() -> Seconds = Seconds::default;
        // The limits that an upstream or an agent could reach add up to less than 2,000 series; those by profile
        // grow with the configuration only.
        let mut metrics = Self {
            registry: Registry::with_prefix("keyferry"),
            requests: Capped::new(450, counter),
            duration: Capped::new(20, durations),
            first_byte: Capped::new(20, durations),
            overhead: Histogram::new(OVERHEADS),
            rotations: Capped::new(100, counter),
            state: Capped::new(100, gauge),
            cooldown: Capped::new(100, seconds),
            quota: Capped::new(200, seconds),
            denied: Capped::new(40, counter),
            would_deny: Capped::new(100, counter),
            redactions: Capped::new(10, counter),
            connections: Capped::new(10, gauge),
            leaves: Counter::default(),
            decryptions: Counter::default(),
            attempts: Capped::new(250, counter),
            ca_not_after: Seconds::default(),
            expiry: Capped::new(100, seconds),
            refreshes: Capped::new(100, counter),
            reloads: Capped::new(4, counter),
            lost: Gauge::default(),
            cooling: Mutex::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "Exchanges that have ended", self.requests.family());
        registry.register(
            "request_duration_seconds",
            "From the request's head to the response's end",
            self.duration.family(),
        );
        registry.register(
            "overhead_seconds",
            "The part of an exchange that the upstream did not take",
            self.overhead.clone(),
        );
        registry.register("rotations", "Moves from one profile to another", self.rotations.family());
        registry.register("profile_state", "0 ready, 1 cooling, 2 disabled, 3 half-open", self.state.family());
        registry.register("profile_cooldown_seconds", "How long a profile still rests", self.cooldown.family());
        registry.register("profile_quota_remaining", "What the provider says is left", self.quota.family());
        registry.register("denied", "Requests refused", self.denied.family());
        registry.register("would_deny", "Exchanges that the rules would have refused", self.would_deny.family());
        registry.register("redactions", "Secrets taken out", self.redactions.family());
        registry.register("connections", "Connections that are open", self.connections.family());
        registry.register("leaf_certificates", "Leaf certificates minted", self.leaves.clone());
        registry.register("vault_decryptions", "Values opened", self.decryptions.clone());
        registry.register("upstream_attempts", "Tries at an upstream", self.attempts.family());
        registry.register(
            "time_to_first_byte_seconds",
            "From the request's head to the response's first byte",
            self.first_byte.family(),
        );
        registry.register(
            "ca_not_after_seconds",
            "When the root certificate ends, as Unix time",
            self.ca_not_after.clone(),
        );
        registry.register(
            "credential_expiry_seconds",
            "When a fetched credential ends, as Unix time",
            self.expiry.family(),
        );
        registry.register("credential_refresh", "Renewals of fetched credentials", self.refreshes.family());
        registry.register("reloads", "Reloads of the configuration", self.reloads.family());
        registry.register("access_lines_lost", "Access lines that reached no file", self.lost.clone());
        registry.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    }

    /// The figures as text, at the moment `now`.
    #[must_use]
    pub fn render(&self, now: WallTime) -> String {
        for (profile, until) in self.cooling.lock().iter() {
            self.cooldown.with(&of(profile), |gauge| {
                gauge.set(until.since(now).as_secs_f64());
            });
        }
        let mut text = String::with_capacity(16 << 10);
        // Writing into a string cannot fail, and every value can be written.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts an exchange that has ended.
    pub(super) fn count(&self, record: &Record) {
        let provider = || Word::provider(record.provider.as_ref());
        let labels = RequestLabels {
            agent: Word::agent(record.agent.as_ref()),
            provider: provider(),
            profile: Word::profile(record.profile.as_ref()),
            status: Word::status(record.status),
        };
        self.requests.with(&labels, |counter| {
            counter.inc();
        });
        if record.would_deny {
            self.would_deny.with(&AgentLabels { agent: Word::agent(record.agent.as_ref()) }, |counter| {
                counter.inc();
            });
        }
        if record.decision == Decision::Denied {
            let reason = record.error.map_or("policy_denied", |code| code.as_str());
            self.denied(reason);
        } else if record.decision != Decision::Tunnelled {
            // How long a tunnel stays open says nothing about answers.
            let labels = ProviderLabels { provider: provider() };
            self.duration.with(&labels, |histogram| histogram.observe(record.total.as_secs_f64()));
            if let Some(ttfb) = record.ttfb {
                self.first_byte.with(&labels, |histogram| histogram.observe(ttfb.as_secs_f64()));
            }
            if let Some(upstream) = record.upstream {
                self.overhead.observe(record.total.saturating_sub(upstream).as_secs_f64());
            }
        }
        for attempt in &record.attempts {
            let labels = OutcomeLabels {
                provider: Word::Provider(attempt.profile.provider.clone()),
                profile: Word::Profile(attempt.profile.clone()),
                outcome: Word::Static(attempt.outcome),
            };
            self.attempts.with(&labels, |counter| {
                counter.inc();
            });
        }
        for (from, to) in record.attempts.iter().zip(record.attempts.iter().skip(1)) {
            if from.profile != to.profile {
                self.rotation(&from.profile.provider, &from.profile, &to.profile, from.outcome);
            }
        }
        if record.redactions > 0 {
            self.redacted("response", record.redactions);
        }
    }

    /// Counts a move from one profile to another. Moves within one exchange are counted by its record.
    pub fn rotation(&self, provider: &ProviderId, from: &ProfileId, to: &ProfileId, reason: &'static str) {
        let labels = RotationLabels {
            provider: Word::Provider(provider.clone()),
            from: Word::Profile(from.clone()),
            to: Word::Profile(to.clone()),
            reason: Word::Static(reason),
        };
        self.rotations.with(&labels, |counter| {
            counter.inc();
        });
    }

    /// Sets what a profile can do, and until when it rests.
    pub fn set_profile_state(&self, profile: &ProfileId, state: ProfileState, until: Option<WallTime>) {
        let value = match state {
            ProfileState::Ready => 0,
            ProfileState::Cooling => 1,
            ProfileState::Disabled => 2,
            ProfileState::HalfOpen => 3,
        };
        self.state.with(&of(profile), |gauge| {
            gauge.set(value);
        });
        let until = until.filter(|_| state == ProfileState::Cooling).unwrap_or(WallTime(0));
        let mut cooling = self.cooling.lock();
        match cooling.iter_mut().find(|(known, _)| known == profile) {
            Some((_, known)) => *known = until,
            None => cooling.push((profile.clone(), until)),
        }
    }

    /// Sets what the provider says is left of a quota of this kind (`requests`, `tokens`, ...).
    pub fn set_quota_remaining(&self, profile: &ProfileId, kind: &'static str, remaining: f64) {
        let ProfileLabels { provider, profile } = of(profile);
        self.quota.with(&QuotaLabels { provider, profile, kind: Word::Static(kind) }, |gauge| {
            gauge.set(remaining);
        });
    }

    /// Forgets every profile, so that those which a reload removed do not stay.
    pub fn forget_profiles(&self) {
        self.state.clear();
        self.cooldown.clear();
        self.quota.clear();
        self.expiry.clear();
        self.cooling.lock().clear();
    }

    /// Counts a refusal that has no record of its own.
    pub fn denied(&self, reason: &'static str) {
        self.denied.with(&ReasonLabels { reason: Word::Static(reason) }, |counter| {
            counter.inc();
        });
    }

    /// Counts secrets taken out at `place`: `response`, `websocket`, `terminal`, ...
    pub fn redacted(&self, place: &'static str, count: u64) {
        self.redactions.with(&WhereLabels(Word::Static(place)), |counter| {
            counter.inc_by(count);
        });
    }

    /// Counts a connection for as long as the value lives.
    #[must_use]
    pub fn connection(&self, listener: &'static str) -> Connection {
        let mut held = Gauge::default();
        self.connections.with(&ListenerLabels { listener: Word::Static(listener) }, |gauge| {
            gauge.inc();
            held = gauge.clone();
        });
        Connection(held)
    }

    /// Counts a minted leaf certificate.
    pub fn leaf_minted(&self) {
        self.leaves.inc();
    }

    /// Counts an opened value.
    pub fn vault_decrypted(&self) {
        self.decryptions.inc();
    }

    /// Sets when the root certificate ends.
    pub fn set_ca_not_after(&self, at: WallTime) {
        self.ca_not_after.set(seconds(at));
    }

    /// Sets when a fetched credential ends.
    pub fn set_credential_expiry(&self, profile: &ProfileId, at: WallTime) {
        self.expiry.with(&of(profile), |gauge| {
            gauge.set(seconds(at));
        });
    }

    /// Counts a renewal.
    pub fn credential_refreshed(&self, profile: &ProfileId, result: RefreshResult) {
        let result = match result {
            RefreshResult::Renewed => "ok",
            RefreshResult::Failed => "error",
            RefreshResult::NeedsLogin => "needs_login",
        };
        let ProfileLabels { provider, profile } = of(profile);
        self.refreshes.with(&RefreshLabels { provider, profile, result: Word::Static(result) }, |counter| {
            counter.inc();
        });
    }

    /// Counts a reload.
    pub fn reloaded(&self, result: ReloadResult) {
        let result = match result {
            ReloadResult::Applied => "ok",
            ReloadResult::Refused => "error",
        };
        self.reloads.with(&ResultLabels { result: Word::Static(result) }, |counter| {
            counter.inc();
        });
    }

    pub(super) fn set_lines_lost(&self, lost: u64) {
        self.lost.set(i64::try_from(lost).unwrap_or(i64::MAX));
    }
}

/// An open connection in `keyferry_connections`.
#[derive(Debug)]
pub struct Connection(Gauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn of(profile: &ProfileId) -> ProfileLabels {
    ProfileLabels { provider: Word::Provider(profile.provider.clone()), profile: Word::Profile(profile.clone()) }
}

fn seconds(at: WallTime) -> f64 {
    Duration::from_millis(at.0).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::record::Protocol;
    use super::super::record::tests::full;
    use super::*;
    use crate::id::{AgentName, RequestId};

    fn has(text: &str, expected: &str) {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }

    #[test]
    fn every_name_and_label_of_the_contract_is_there() {
        let metrics = Metrics::new();
        let profile = ProfileId::parse("anthropic:work").unwrap();
        let other = ProfileId::parse("anthropic:home").unwrap();
        let until = WallTime(90_000);
        metrics.count(&full());
        metrics.count(&Record { decision: Decision::Denied, ..full() });
        metrics.rotation(&profile.provider, &profile, &other, "quota");
        metrics.set_profile_state(&profile, ProfileState::Cooling, Some(until));
        metrics.set_profile_state(&other, ProfileState::HalfOpen, None);
        metrics.set_quota_remaining(&profile, "tokens", 5.0);
        metrics.set_ca_not_after(WallTime(1_000_500));
        metrics.set_credential_expiry(&profile, WallTime(2_000_000));
        metrics.credential_refreshed(&profile, RefreshResult::Renewed);
        metrics.reloaded(ReloadResult::Refused);
        metrics.leaf_minted();
        metrics.vault_decrypted();
        let open = metrics.connection("proxy");
        let closed = metrics.connection("proxy");
        drop(closed);
        let text = metrics.render(WallTime(30_000));
        for expected in [
            "keyferry_rotations_total{provider=\"anthropic\",from=\"anthropic:work\",to=\"anthropic:home\",reason=\"quota\"} 1",
            "keyferry_profile_state{provider=\"anthropic\",profile=\"anthropic:work\"} 1",
            "keyferry_profile_state{provider=\"anthropic\",profile=\"anthropic:home\"} 3",
            "keyferry_profile_cooldown_seconds{provider=\"anthropic\",profile=\"anthropic:work\"} 60.0",
            "keyferry_profile_cooldown_seconds{provider=\"anthropic\",profile=\"anthropic:home\"} 0.0",
            "keyferry_profile_quota_remaining{provider=\"anthropic\",profile=\"anthropic:work\",kind=\"tokens\"} 5.0",
            "keyferry_denied_total{reason=\"policy_denied\"} 1",
            "keyferry_redactions_total{where=\"response\"} 2",
            "keyferry_connections{listener=\"proxy\"} 1",
            "keyferry_leaf_certificates_total 1",
            "keyferry_vault_decryptions_total 1",
            "keyferry_upstream_attempts_total{provider=\"anthropic\",profile=\"anthropic:titanium\",outcome=\"success\"} 2",
            "keyferry_time_to_first_byte_seconds_count{provider=\"anthropic\"} 1",
            "keyferry_request_duration_seconds_count{provider=\"anthropic\"} 1",
            "keyferry_overhead_seconds_count 1",
            "keyferry_ca_not_after_seconds 1000.5",
            "keyferry_credential_expiry_seconds{provider=\"anthropic\",profile=\"anthropic:work\"} 2000.0",
            "keyferry_credential_refresh_total{provider=\"anthropic\",profile=\"anthropic:work\",result=\"ok\"} 1",
            "keyferry_reloads_total{result=\"error\"} 1",
            concat!("keyferry_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            has(&text, expected);
        }
        drop(open);
        metrics.forget_profiles();
        let text = metrics.render(WallTime(30_000));
        has(&text, "keyferry_connections{listener=\"proxy\"} 0");
        assert!(!text.contains("keyferry_profile_state{"));
    }

    #[test]
    fn no_stream_of_requests_makes_more_than_2000_series() {
        // DO-20
        let metrics = Metrics::new();
        let name = |n: u32| format!("n{n}");
        for n in 0..5_000u32 {
            let profile = ProfileId::parse(&format!("p{n}:{n}")).unwrap();
            let mut record = Record {
                agent: AgentName::parse(&name(n)).ok(),
                provider: Some(profile.provider.clone()),
                profile: Some(profile.clone()),
                status: u16::try_from(n % 1000).ok(),
                decision: if n % 3 == 0 { Decision::Denied } else { Decision::Injected },
                ..full()
            };
            for (index, attempt) in record.attempts.iter_mut().enumerate() {
                attempt.profile = ProfileId::parse(&format!("p{n}:{n}-{index}")).unwrap();
            }
            metrics.count(&record);
            metrics.set_profile_state(&profile, ProfileState::Ready, None);
        }
        let text = metrics.render(WallTime(0));
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 2_000, "{series}");
        let total: u64 = text
            .lines()
            .filter(|line| line.starts_with("keyferry_requests_total"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        assert_eq!(total, 5_000, "what is beyond the limit is still counted");
        has(&text, "keyferry_denied_total{reason=\"policy_denied\"} 1667");
    }

    #[test]
    fn a_made_up_status_and_an_unknown_caller_make_no_series_of_their_own() {
        let metrics = Metrics::new();
        for status in 600..=999 {
            let record = Record::new(WallTime(0), RequestId::new(0), "proxy", Protocol::Http1);
            metrics.count(&Record { status: Some(status), ..record });
        }
        let text = metrics.render(WallTime(0));
        has(&text, "keyferry_requests_total{agent=\"none\",provider=\"none\",profile=\"none\",status=\"other\"} 400");
    }
}
