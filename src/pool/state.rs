//! What is remembered of every pool: its profiles, groups and upstream, and the cells of each.
//!
//! Invariant: plain data under the one lock of [`Pools`](super::Pools); every collection has a bound.

use std::collections::HashMap;
use std::sync::Arc;

use super::ask::{Ask, Candidate, Target};
use super::cell::{Cell, Ramp};
use super::ladder::Jitter;
use super::settings::PoolSettings;
use super::sticky::Sticky;
use super::strain::{Retries, Strain};
use crate::clock::WallTime;
use crate::id::{ProfileId, ProviderId, ShortName};
use crate::policy::limit::Meter;
use crate::provider::outcome::Scope;

/// Models, endpoints and the like that one owner has cells for. An agent can name any model; beyond this the oldest
/// idle one goes.
const PARTS: usize = 64;

/// Everything that is remembered.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pools: HashMap<ProviderId, Pool>,
    pub(super) settings: HashMap<ProviderId, Arc<PoolSettings>>,
    /// Leases and windows are numbered in one sequence, so that "sent before that window" is a comparison.
    pub(super) number: u64,
    pub(super) jitter: Jitter,
    pub(super) changed: bool,
    pub(super) doubts: Vec<super::Doubt>,
}

#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) settings: Arc<PoolSettings>,
    pub(super) members: Vec<Member>,
    pub(super) index: HashMap<ShortName, usize>,
    pub(super) groups: Vec<Group>,
    pub(super) upstream: Cells,
    pub(super) strain: Strain,
    pub(super) retries: Retries,
    pub(super) sticky: Sticky,
    pub(super) owners: Sticky,
    /// Which bucket or resource a path belongs to, as answers have told.
    pub(super) keys: Vec<(Slot, Arc<str>, Arc<str>)>,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) learned: bool,
    pub(super) cells: Cells,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) profile: ProfileId,
    pub(super) fingerprint: Option<[u8; 8]>,
    /// Another version of the same login: the one before, or the one that is on its way.
    pub(super) kin: Option<[u8; 8]>,
    pub(super) cells: Cells,
    pub(super) endpoints: Cells,
    pub(super) buckets: Cells,
    pub(super) resources: Cells,
    pub(super) group: Option<usize>,
    pub(super) disabled: bool,
    pub(super) nearly_spent: Option<WallTime>,
    /// The number of its last lease.
    pub(super) dispatched: u64,
    pub(super) uses: u64,
    pub(super) last_used: Option<WallTime>,
    /// Exchanges that are under way with it, to the end of their answers.
    pub(super) running: u32,
    /// Its own rate, where it has one.
    pub(super) meter: Option<Meter>,
    /// What was stored of a daily rate, as long as nobody has set one here.
    pub(super) spent: Option<(u64, u64)>,
    /// Conversations that came over from another profile.
    pub(super) arrivals: Option<Ramp>,
    pub(super) doubted: Option<WallTime>,
    /// The last end that its upstream stated, and when: two profiles with the same ends share a quota.
    pub(super) stated: [Option<(WallTime, WallTime)>; 2],
}

/// A cell for the whole, and one for each part that had a reason.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) whole: Cell,
    pub(super) parts: Vec<(Arc<str>, Cell)>,
}

/// The kinds of cells that can cover one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Slot {
    Profile,
    ProfileModel,
    Endpoint,
    Bucket,
    Resource,
    Group,
    GroupModel,
    Upstream,
    UpstreamModel,
}

impl Slot {
    pub(super) const ALL: [Self; 9] = [
        Self::Profile,
        Self::ProfileModel,
        Self::Endpoint,
        Self::Bucket,
        Self::Resource,
        Self::Group,
        Self::GroupModel,
        Self::Upstream,
        Self::UpstreamModel,
    ];
}

/// Which cells cover a request with one profile.
#[derive(Debug, Clone)]
pub(super) struct Cover {
    pub(super) member: usize,
    pub(super) keys: Keys,
}

/// What the parts of cells are found by.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) model: Option<Arc<str>>,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) bucket: Option<Arc<str>>,
    pub(super) resource: Option<Arc<str>>,
}

impl Cells {
    pub(super) fn part(&self, name: &str) -> Option<&Cell> {
        self.parts.iter().find(|(part, _)| &**part == name).map(|(_, cell)| cell)
    }

    fn part_mut(&mut self, name: &Arc<str>, make: bool, now: WallTime) -> Option<&mut Cell> {
        let found = self.parts.iter().position(|(part, _)| part == name);
        if found.is_none() && make {
            if self.parts.len() >= PARTS {
                self.parts.retain(|(_, cell)| !cell.is_idle(now));
            }
            if self.parts.len() >= PARTS {
                self.parts.remove(0);
            }
            self.parts.push((name.clone(), Cell::default()));
        }
        let at = found.or(self.parts.len().checked_sub(1).filter(|_| make))?;
        self.parts.get_mut(at).map(|(_, cell)| cell)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (Option<&Arc<str>>, &Cell)> {
        std::iter::once((None, &self.whole)).chain(self.parts.iter().map(|(name, cell)| (Some(name), cell)))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl State {
    pub(super) fn pool(&mut self, provider: &ProviderId) -> &mut Pool {
        if !self.pools.contains_key(provider) {
            let settings = self.settings.get(provider).cloned().unwrap_or_default();
            self.pools.insert(provider.clone(), Pool { settings, ..Pool::default() });
        }
        self.pools.entry(provider.clone()).or_default()
    }
}

impl Pool {
    /// The member that a candidate is, made if it is new, with a clean record if its value is new.
    pub(super) fn seat(&mut self, candidate: &Candidate) -> usize {
        let at = match self.index.get(candidate.profile.name.as_str()) {
            Some(at) => *at,
            None => self.add(&candidate.profile),
        };
        if let Some(member) = self.members.get_mut(at)
            && member.fingerprint != Some(candidate.fingerprint)
        {
            if member.kin == Some(candidate.fingerprint) {
                member.kin = member.fingerprint;
            } else if member.fingerprint.is_some() {
                member.forget();
                member.kin = None;
            }
            member.fingerprint = Some(candidate.fingerprint);
        }
        at
    }

    pub(super) fn add(&mut self, profile: &ProfileId) -> usize {
        let at = self.members.len();
        let group = self.settings.groups.get(&profile.name).cloned().map(|name| self.group(&name, false));
        self.members.push(Member {
            profile: profile.clone(),
            fingerprint: None,
            kin: None,
            cells: Cells::default(),
            endpoints: Cells::default(),
            buckets: Cells::default(),
            resources: Cells::default(),
            group,
            disabled: false,
            nearly_spent: None,
            dispatched: 0,
            uses: 0,
            last_used: None,
            running: 0,
            meter: self.settings.each.requests.map(Meter::of),
            spent: None,
            arrivals: None,
            doubted: None,
            stated: [None, None],
        });
        self.index.insert(profile.name.clone(), at);
        at
    }

    /// An exchange with a profile has ended. Whether somebody may wait for that.
    pub(super) fn leave_seat(&mut self, member: usize) -> bool {
        if let Some(member) = self.members.get_mut(member) {
            member.running = member.running.saturating_sub(1);
        }
        self.settings.each.concurrency.is_some()
    }

    /// The group of this name, made if it is new.
    pub(super) fn group(&mut self, name: &Arc<str>, learned: bool) -> usize {
        self.groups.iter().position(|group| group.name == *name).unwrap_or_else(|| {
            self.groups.push(Group { name: name.clone(), learned, cells: Cells::default() });
            self.groups.len().saturating_sub(1)
        })
    }

    /// What the cells of a request are found by.
    pub(super) fn keys(&self, ask: &Ask, target: &Target) -> Keys {
        let path = |depth| target.path(ask).map(|path| prefix(path, depth));
        let known = |slot: Slot, depth| {
            let path = path(depth).filter(|_| !self.keys.is_empty())?;
            self.keys.iter().find(|(kind, at, _)| *kind == slot && **at == *path).map(|(_, _, key)| key.clone())
        };
        Keys {
            model: target.model(ask).cloned(),
            endpoint: path(ENDPOINT_DEPTH).map(Arc::from),
            bucket: known(Slot::Bucket, BUCKET_DEPTH),
            resource: known(Slot::Resource, RESOURCE_DEPTH),
        }
    }

    /// The cell of this kind, where there is one.
    pub(super) fn cell(&self, slot: Slot, cover: &Cover) -> Option<&Cell> {
        let member = self.members.get(cover.member)?;
        let group = || member.group.and_then(|at| self.groups.get(at));
        match slot {
            Slot::Profile => Some(&member.cells.whole),
            Slot::ProfileModel => member.cells.part(cover.keys.model.as_deref()?),
            Slot::Endpoint => member.endpoints.part(cover.keys.endpoint.as_deref()?),
            Slot::Bucket => member.buckets.part(cover.keys.bucket.as_deref()?),
            Slot::Resource => member.resources.part(cover.keys.resource.as_deref()?),
            Slot::Group => group().map(|group| &group.cells.whole),
            Slot::GroupModel => group()?.cells.part(cover.keys.model.as_deref()?),
            Slot::Upstream => Some(&self.upstream.whole),
            Slot::UpstreamModel => self.upstream.part(cover.keys.model.as_deref()?),
        }
    }

    /// The same to change; made if it is to be.
    pub(super) fn cell_mut(&mut self, slot: Slot, cover: &Cover, make: bool, now: WallTime) -> Option<&mut Cell> {
        let group = self.members.get(cover.member)?.group;
        let member = self.members.get_mut(cover.member)?;
        match slot {
            Slot::Profile => Some(&mut member.cells.whole),
            Slot::ProfileModel => member.cells.part_mut(cover.keys.model.as_ref()?, make, now),
            Slot::Endpoint => member.endpoints.part_mut(cover.keys.endpoint.as_ref()?, make, now),
            Slot::Bucket => member.buckets.part_mut(cover.keys.bucket.as_ref()?, make, now),
            Slot::Resource => member.resources.part_mut(cover.keys.resource.as_ref()?, make, now),
            Slot::Group => Some(&mut self.groups.get_mut(group?)?.cells.whole),
            Slot::GroupModel => self.groups.get_mut(group?)?.cells.part_mut(cover.keys.model.as_ref()?, make, now),
            Slot::Upstream => Some(&mut self.upstream.whole),
            Slot::UpstreamModel => self.upstream.part_mut(cover.keys.model.as_ref()?, make, now),
        }
    }

    /// The cell that a scope means for this request. A scope that the request or the profile has no name for falls
    /// back to the next wider one that it has.
    pub(super) fn slot(&self, scope: Scope, cover: &Cover) -> Option<Slot> {
        let grouped = self.members.get(cover.member).is_some_and(|member| member.group.is_some());
        let modelled = cover.keys.model.is_some();
        match scope {
            Scope::None => None,
            Scope::Profile => Some(Slot::Profile),
            Scope::ProfileModel if modelled => Some(Slot::ProfileModel),
            Scope::ProfileModel => Some(Slot::Profile),
            Scope::ProfileEndpoint if cover.keys.endpoint.is_some() => Some(Slot::Endpoint),
            Scope::ProfileBucket if cover.keys.bucket.is_some() => Some(Slot::Bucket),
            Scope::ProfileResource if cover.keys.resource.is_some() => Some(Slot::Resource),
            Scope::ProfileEndpoint | Scope::ProfileBucket | Scope::ProfileResource => Some(Slot::Profile),
            Scope::Group if grouped => Some(Slot::Group),
            Scope::Group => Some(Slot::Profile),
            Scope::GroupModel if grouped && modelled => Some(Slot::GroupModel),
            Scope::GroupModel if grouped => Some(Slot::Group),
            Scope::GroupModel if modelled => Some(Slot::ProfileModel),
            Scope::GroupModel => Some(Slot::Profile),
            Scope::UpstreamModel if modelled => Some(Slot::UpstreamModel),
            Scope::Upstream | Scope::UpstreamModel => Some(Slot::Upstream),
        }
    }
}

impl Member {
    /// A clean record: everything that was held against it alone is gone.
    pub(super) fn forget(&mut self) {
        self.cells.clear();
        self.endpoints.clear();
        self.buckets.clear();
        self.resources.clear();
        self.nearly_spent = None;
        self.doubted = None;
        self.stated = [None, None];
    }
}

/// A method of an API (`/api/chat.postMessage`), a route with its channel, an API's first word.
const ENDPOINT_DEPTH: usize = 2;
const BUCKET_DEPTH: usize = 4;
const RESOURCE_DEPTH: usize = 1;

/// The first segments of a path.
fn prefix(path: &str, depth: usize) -> &str {
    let end = path.match_indices('/').nth(depth).map_or(path.len(), |(at, _)| at);
    // No known API has an endpoint name near this; the bound keeps an agent from storing long keys here.
    path.get(..end.min(128)).unwrap_or("/")
}

impl Pool {
    /// Remembers which bucket or resource the path of a request belongs to, and covers it from now on.
    pub(super) fn learn_key(&mut self, slot: Slot, path: Option<&str>, key: &Arc<str>, cover: &mut Cover) {
        let depth = if slot == Slot::Bucket { BUCKET_DEPTH } else { RESOURCE_DEPTH };
        match slot {
            Slot::Bucket => cover.keys.bucket = Some(key.clone()),
            Slot::Resource => cover.keys.resource = Some(key.clone()),
            _ => return,
        }
        let Some(path) = path.map(|path| prefix(path, depth)) else { return };
        match self.keys.iter_mut().find(|(kind, at, _)| *kind == slot && **at == *path) {
            Some((_, _, known)) => *known = key.clone(),
            None => {
                // Enough for the routes of one bot; the oldest is learned again when it is needed.
                if self.keys.len() >= 256 {
                    self.keys.remove(0);
                }
                self.keys.push((slot, Arc::from(path), key.clone()));
            }
        }
    }
}
