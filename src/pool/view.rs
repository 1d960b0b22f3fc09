//! What people and metrics see of a pool, and what an operator can change.
//!
//! Invariant: seeing changes nothing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ask::Bound;
use super::ask::{Ask, Candidate};
use super::cell::{Source, Status};
use super::ladder::Lane;
use super::select::{Outlook, Want};
use super::settings::PoolSettings;
use super::settle::{NEEDS_LOGIN, Used};
use super::state::{Cells, Member, Pool, State};
use crate::clock::WallTime;
use crate::id::ProfileId;
use crate::policy::limit::Meter;

/// Whether a profile can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// It rests, wholly or for a model.
    Cooling,
    /// Its rest is over, which the next request has to prove.
    HalfOpen,
    /// Taken out by hand, or confirmed as dead.
    Disabled,
}

impl Readiness {
    /// The word for listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cooling => "cooling",
            Self::HalfOpen => "half-open",
            Self::Disabled => "disabled",
        }
    }

    /// The number for metrics.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Cooling => 1,
            Self::Disabled => 2,
            Self::HalfOpen => 3,
        }
    }
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldState {
    /// What for.
    pub lane: Lane,
    /// What it covers: `profile`, `endpoint`, `bucket`, `resource`, `group` or `upstream`.
    pub scope: &'static str,
    /// The model, endpoint or the like, where it is for one.
    pub part: Option<String>,
    /// Its end.
    pub until: WallTime,
    /// Where the end comes from.
    pub source: Source,
    /// The rule that opened it.
    pub rule: String,
    /// How many windows in a row.
    pub level: u8,
}

/// One profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileState {
    /// Which.
    pub profile: ProfileId,
    /// Whether it can be used.
    pub state: Readiness,
    /// The end of its longest rest.
    pub until: Option<WallTime>,
    /// The lane of that, `disabled`, or nothing.
    pub reason: Option<&'static str>,
    /// How many windows in a row.
    pub level: u8,
    /// The last time it was chosen.
    pub last_used: Option<WallTime>,
    /// All holds, its group's and its upstream's too.
    pub holds: Vec<HoldState>,
}

impl ProfileState {
    /// The shape of `profile list --json`.
    #[must_use]
    pub fn to_json(&self, kind: &str) -> Value {
        let hold = |hold: &HoldState| {
            json!({
                "lane": hold.lane.as_str(),
                "scope": hold.scope,
                "model": hold.part,
                "until": hold.until.to_string(),
                "source": hold.source.as_str(),
                "rule": hold.rule,
            })
        };
        json!({
            "profile": self.profile.to_string(),
            "provider": self.profile.provider.as_str(),
            "type": kind,
            "state": self.state.as_str(),
            "until": self.until.map(|at| at.to_string()),
            "reason": self.reason,
            "level": self.level,
            "last_used": self.last_used.map(|at| at.to_string()),
            "holds": self.holds.iter().map(hold).collect::<Vec<_>>(),
        })
    }
}

impl State {
    pub(super) fn know(&mut self, candidate: &Candidate) {
        self.pool(&candidate.profile.provider).seat(candidate);
    }

    pub(super) fn views(&self, now: WallTime) -> Vec<ProfileState> {
        let members = self.pools.values().flat_map(|pool| pool.members.iter().map(move |member| (pool, member)));
        let mut views: Vec<_> = members.map(|(pool, member)| pool.view(member, now)).collect();
        views.sort_by(|a, b| a.profile.cmp(&b.profile));
        views
    }

    pub(super) fn view(&self, profile: &ProfileId, now: WallTime) -> ProfileState {
        let found = self.pools.get(&profile.provider).and_then(|pool| {
            let at = pool.index.get(profile.name.as_str())?;
            pool.members.get(*at).map(|member| pool.view(member, now))
        });
        found.unwrap_or_else(|| ProfileState {
            profile: profile.clone(),
            state: Readiness::Ready,
            until: None,
            reason: None,
            level: 0,
            last_used: None,
            holds: Vec::new(),
        })
    }

    pub(super) fn reset(&mut self, profile: &ProfileId) -> bool {
        let pool = self.pool(&profile.provider);
        let Some(at) = pool.index.get(profile.name.as_str()).copied() else { return false };
        let Some(member) = pool.members.get_mut(at) else { return false };
        let group = member.group;
        member.forget();
        if let Some(group) = group.and_then(|at| pool.groups.get_mut(at)) {
            group.cells.clear();
        }
        pool.upstream.clear();
        self.changed = true;
        true
    }

    pub(super) fn set_disabled(&mut self, profile: &ProfileId, disabled: bool) -> bool {
        let pool = self.pool(&profile.provider);
        let at = match pool.index.get(profile.name.as_str()) {
            Some(at) => *at,
            None => pool.add(profile),
        };
        let changed = pool.members.get_mut(at).is_some_and(|member| {
            let before = std::mem::replace(&mut member.disabled, disabled);
            before != disabled
        });
        self.changed |= changed;
        changed
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ProfileId) -> bool) -> bool {
        let mut changed = false;
        for pool in self.pools.values_mut() {
            let gone: Vec<_> = pool
                .members
                .iter()
                .filter(|member| !keep(&member.profile))
                .map(|member| member.profile.clone())
                .collect();
            for profile in gone {
                changed |= pool.remove(&profile);
            }
        }
        self.changed |= changed;
        false
    }

    /// How things stand for a request, whatever it has tried.
    pub(super) fn outlook(&mut self, ask: &Ask, now: WallTime) -> Outlook {
        let want = Want { ask, marks: &[], from: 0, again: None, only: None, last: None, repeatable: false };
        let mut outlook = Outlook::default();
        let reached = if ask.bound == Bound::Free { usize::MAX } else { 1 };
        let mut ended = None;
        for (at, target) in ask.targets.iter().enumerate().take(reached) {
            self.pool(&target.provider).outlook(&want, at, target, now, &mut outlook, &mut ended);
        }
        outlook.logins = ended.unwrap_or(false);
        outlook
    }

    /// The same for one target.
    pub(super) fn outlook_at(&mut self, ask: &Ask, at: usize, now: WallTime) -> Outlook {
        let want = Want { ask, marks: &[], from: 0, again: None, only: None, last: None, repeatable: false };
        let mut outlook = Outlook::default();
        let mut ended = None;
        if let Some(target) = ask.targets.get(at) {
            self.pool(&target.provider).outlook(&want, at, target, now, &mut outlook, &mut ended);
        }
        outlook.logins = ended.unwrap_or(false);
        outlook
    }

    /// When the cells that a lease used are free again.
    pub(super) fn release_of(&mut self, used: &Used, now: WallTime) -> Option<WallTime> {
        match self.pool(&used.provider).status(&used.cover, now) {
            Status::Open(until) => Some(until),
            Status::HalfOpen { .. } | Status::Closed => None,
        }
    }
}

impl Pool {
    fn view(&self, member: &Member, now: WallTime) -> ProfileState {
        let mut holds = Vec::new();
        collect("profile", &member.cells, &mut holds);
        collect("endpoint", &member.endpoints, &mut holds);
        collect("bucket", &member.buckets, &mut holds);
        collect("resource", &member.resources, &mut holds);
        if let Some(group) = member.group.and_then(|at| self.groups.get(at)) {
            collect("group", &group.cells, &mut holds);
        }
        let own = holds.len();
        collect("upstream", &self.upstream, &mut holds);
        let worst = holds.iter().take(own).max_by_key(|hold| (hold.source == Source::Confirmed, hold.until));
        let state = match worst {
            _ if member.disabled => Readiness::Disabled,
            None => Readiness::Ready,
            Some(hold) if hold.source == Source::Confirmed => Readiness::Disabled,
            Some(hold) if now < hold.until => Readiness::Cooling,
            Some(_) => Readiness::HalfOpen,
        };
        ProfileState {
            profile: member.profile.clone(),
            state,
            until: worst.map(|hold| hold.until),
            reason: if member.disabled { Some("disabled") } else { worst.map(reason) },
            level: worst.map_or(0, |hold| hold.level),
            last_used: member.last_used,
            holds,
        }
    }

    pub(super) fn reconfigure(&mut self, settings: Arc<PoolSettings>) {
        self.settings = settings;
        let rate = self.settings.each.requests;
        for member in self.members.iter_mut().filter(|member| member.meter.as_ref().map(Meter::rate) != rate) {
            member.meter = rate.map(Meter::of);
        }
        let configured: Vec<_> =
            self.members.iter().map(|member| self.settings.groups.get(&member.profile.name).cloned()).collect();
        for (at, name) in configured.into_iter().enumerate() {
            let group = name.map(|name| self.group(&name, false));
            if let (Some(member), Some(group)) = (self.members.get_mut(at), group) {
                member.group = Some(group);
            }
        }
    }

    /// A profile's number stands in pins and leases, so its place stays; only what is known of it goes.
    fn remove(&mut self, profile: &ProfileId) -> bool {
        let Some(at) = self.index.get(profile.name.as_str()).copied() else { return false };
        let Some(member) = self.members.get_mut(at) else { return false };
        let known = member.fingerprint.take().is_some();
        member.forget();
        member.disabled = false;
        member.group = None;
        member.last_used = None;
        known
    }
}

fn reason(hold: &HoldState) -> &'static str {
    if hold.rule == NEEDS_LOGIN { NEEDS_LOGIN } else { hold.lane.as_str() }
}

fn collect(scope: &'static str, cells: &Cells, into: &mut Vec<HoldState>) {
    into.extend(cells.each().filter_map(|(part, cell)| {
        let hold = cell.hold.as_ref()?;
        Some(HoldState {
            lane: hold.lane,
            scope,
            part: part.map(ToString::to_string),
            until: hold.until,
            source: hold.source,
            rule: hold.rule.to_string(),
            level: cell.level(hold.lane),
        })
    }));
}
