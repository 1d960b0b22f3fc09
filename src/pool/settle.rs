//! What an outcome does to the cells.
//!
//! Invariant: exactly the one cell that the outcome's scope names takes a failure; what is the request's or the
//! upstream's fault is never held against a credential.

use std::sync::Arc;
use std::time::Duration;

use super::cell::{Failure, Sent, Source};
use super::ladder::Lane;
use super::state::{Cover, Keys, Pool, Slot, State};
use super::{Doubt, Verdict};
use crate::clock::WallTime;
use crate::id::ProviderId;
use crate::provider::outcome::{Class, Outcome, Said, Scope};

/// The rule of a hold whose profile needs another login; the reason that people see.
pub(super) const NEEDS_LOGIN: &str = "needs_login";

/// One test of a doubted credential in this time, however often it is refused.
const DOUBT_EVERY: Duration = Duration::from_secs(300);

/// Two profiles whose upstream states the same ends within this time share a quota.
const SAME_ENDS: Duration = Duration::from_secs(60);

/// What a lease was for.
#[derive(Debug, Clone)]
pub(super) struct Used {
    pub(super) provider: ProviderId,
    pub(super) number: u64,
    pub(super) sent: WallTime,
    pub(super) cover: Cover,
    pub(super) path: Option<Arc<str>>,
    pub(super) probe: bool,
    pub(super) moved: bool,
}

/// Whether others may want to look again.
pub(super) type Wake = bool;

impl State {
    /// Takes what came of a lease.
    pub(super) fn record(&mut self, used: &mut Used, outcome: &Outcome, now: WallTime) -> Wake {
        self.read_signs(used, outcome, now);
        let sent = Sent { number: used.number, at: used.sent };
        let mut wake = match outcome.class {
            Class::Success => self.served(used, sent, now),
            Class::RateLimit | Class::Quota | Class::Billing => {
                let scope = outcome.scope;
                let wake = self.fail(used, scope, outcome, false, now);
                self.learn_group(used, outcome, now);
                wake
            }
            Class::Overloaded => self.strained(used, outcome, now),
            Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired => {
                self.doubt(used, now);
                // One refusal proves nothing; a credential that rested for one and is refused again is another matter.
                let resting = self.resting_for(used, Lane::Auth);
                match resting.filter(|_| used.probe) {
                    Some(source) => self.fail(used, Scope::Profile, outcome, source == Source::Confirmed, now),
                    None => false,
                }
            }
            Class::AuthForbidden => {
                // The same for a model.
                let resting = used.probe && used.cover.keys.model.is_some() && self.model_rests(used);
                resting && self.fail(used, Scope::ProfileModel, outcome, false, now)
            }
            Class::RequestSuspect | Class::Transient | Class::Ambiguous | Class::RequestFault => false,
            Class::TooLarge | Class::PolicyBlock | Class::Unreached | Class::Broken => false,
        };
        wake |= self.release(used, now);
        wake
    }

    /// A refusal that the same request's success with another profile has explained: it was the credential.
    pub(super) fn blame(&mut self, used: &Used, outcome: &Outcome, now: WallTime) -> Wake {
        let modelled = used.cover.keys.model.is_some();
        let scope = match outcome.class {
            Class::RequestSuspect => Scope::GroupModel,
            Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired => Scope::Profile,
            Class::AuthForbidden if modelled && outcome.scope != Scope::None => Scope::ProfileModel,
            Class::AuthForbidden | Class::Success | Class::RateLimit | Class::Quota | Class::Billing => return false,
            Class::Overloaded | Class::Transient | Class::Ambiguous | Class::RequestFault | Class::TooLarge => {
                return false;
            }
            Class::PolicyBlock | Class::Unreached | Class::Broken => return false,
        };
        self.fail(used, scope, outcome, false, now)
    }

    /// The login of a profile has ended: it rests until there is another value, and is tried again now and then.
    pub(super) fn ended(&mut self, used: &Used, now: WallTime) -> Wake {
        let failure = Failure { lane: Lane::Auth, stated: None, confirmed: true, rule: Arc::from(NEEDS_LOGIN) };
        // The newest of all leases: what is told here was learned now.
        let sent = Sent { number: self.number, at: now };
        self.fail_cell(&used.provider, &used.cover, Slot::Profile, &failure, sent, now)
    }

    /// The lease is over, whatever came of it: its probes are free, its place at the gates too.
    pub(super) fn release(&mut self, used: &Used, now: WallTime) -> Wake {
        let pool = self.pool(&used.provider);
        let mut wake = false;
        for slot in Slot::ALL {
            if let Some(cell) = pool.cell_mut(slot, &used.cover, false, now) {
                wake |= cell.end_probe(used.number);
                wake |= cell.leave(used.number);
            }
        }
        if used.moved
            && let Some(ramp) = pool.members.get_mut(used.cover.member).and_then(|member| member.arrivals.as_mut())
        {
            wake |= ramp.leave(used.number);
        }
        wake
    }

    fn served(&mut self, used: &Used, sent: Sent, now: WallTime) -> Wake {
        let number = self.number;
        let pool = self.pool(&used.provider);
        let mut closed = false;
        for slot in Slot::ALL {
            if let Some(cell) = pool.cell_mut(slot, &used.cover, false, now) {
                closed |= cell.succeed(sent, number, now);
            }
        }
        pool.strain.served(used.cover.keys.model.as_ref(), now);
        if closed {
            self.changed = true;
        }
        closed
    }

    fn fail(&mut self, used: &Used, scope: Scope, outcome: &Outcome, confirmed: bool, now: WallTime) -> Wake {
        let Some(lane) = Lane::of(outcome.class) else { return false };
        let Some(slot) = self.pool(&used.provider).slot(scope, &used.cover) else { return false };
        let failure =
            Failure { lane, stated: outcome.reset.map(|reset| reset.at), confirmed, rule: outcome.rule.clone() };
        self.fail_cell(&used.provider, &used.cover, slot, &failure, Sent { number: used.number, at: used.sent }, now)
    }

    fn fail_cell(
        &mut self,
        provider: &ProviderId,
        cover: &Cover,
        slot: Slot,
        failure: &Failure,
        sent: Sent,
        now: WallTime,
    ) -> Wake {
        let mut number = self.number;
        let mut jitter = self.jitter.clone();
        let pool = self.pool(provider);
        let settings = Arc::clone(&pool.settings);
        let opened = pool
            .cell_mut(slot, cover, true, now)
            .is_some_and(|cell| cell.fail(failure, sent, &mut number, &settings.ladders, &mut jitter, now));
        self.number = number;
        self.jitter = jitter;
        self.changed |= opened;
        opened
    }

    /// An upstream without capacity rests when it says for how long, when it was resting already, or when there is
    /// more than one sign of it.
    fn strained(&mut self, used: &Used, outcome: &Outcome, now: WallTime) -> Wake {
        let pool = self.pool(&used.provider);
        let Some(slot) = pool.slot(outcome.scope, &used.cover) else { return false };
        if !matches!(slot, Slot::Upstream | Slot::UpstreamModel) {
            return false;
        }
        let resting = pool.cell(slot, &used.cover).is_some_and(|cell| cell.hold.is_some());
        let model = used.cover.keys.model.clone().filter(|_| slot == Slot::UpstreamModel);
        let strained = pool.strain.refused(model.as_ref(), now);
        (outcome.reset.is_some() || resting || strained) && self.fail(used, outcome.scope, outcome, false, now)
    }

    fn resting_for(&mut self, used: &Used, lane: Lane) -> Option<Source> {
        let cell = self.pool(&used.provider).cell(Slot::Profile, &used.cover)?;
        cell.hold.as_ref().filter(|hold| hold.lane == lane).map(|hold| hold.source)
    }

    fn model_rests(&mut self, used: &Used) -> bool {
        let cell = self.pool(&used.provider).cell(Slot::ProfileModel, &used.cover);
        cell.and_then(|cell| cell.hold.as_ref()).is_some_and(|hold| hold.lane == Lane::Forbidden)
    }

    fn read_signs(&mut self, used: &mut Used, outcome: &Outcome, now: WallTime) {
        let path = used.path.clone();
        let pool = self.pool(&used.provider);
        if let Some(key) = &outcome.key {
            let slot = if outcome.scope == Scope::ProfileBucket { Slot::Bucket } else { Slot::Resource };
            pool.learn_key(slot, path.as_deref(), key, &mut used.cover);
        }
        if let Some(member) = pool.members.get_mut(used.cover.member) {
            match outcome.signs.nearly_spent {
                Some(until) => member.nearly_spent = Some(until),
                None if member.nearly_spent.is_some_and(|until| until <= now) => member.nearly_spent = None,
                None => {}
            }
        }
        if let Some(organization) = &outcome.signs.organization {
            pool.join(used.cover.member, organization);
        }
    }

    /// Two credentials that are told the same two ends within a minute have one quota.
    fn learn_group(&mut self, used: &Used, outcome: &Outcome, now: WallTime) {
        let grouped = matches!(outcome.scope, Scope::Group | Scope::GroupModel | Scope::Profile | Scope::ProfileModel);
        // A delay that two answers have in common is no coincidence worth a word; a moment is.
        let moment = outcome.reset.filter(|reset| grouped && reset.said == Said::Moment);
        let Some(at) = moment.map(|reset| reset.at) else { return };
        let pool = self.pool(&used.provider);
        if !pool.settings.learn_groups {
            return;
        }
        if let Some(member) = pool.members.get_mut(used.cover.member)
            && member.stated.first().is_none_or(|last| last.is_none_or(|(end, _)| end != at))
        {
            member.stated.rotate_right(1);
            if let Some(first) = member.stated.first_mut() {
                *first = Some((at, now));
            }
        }
        let ends = |at: usize| pool.members.get(at).map(|member| member.stated);
        let Some([Some(first), Some(second)]) = ends(used.cover.member) else { return };
        let same = |other: [Option<(WallTime, WallTime)>; 2]| {
            let near = |(end, seen): (WallTime, WallTime)| {
                other
                    .iter()
                    .flatten()
                    .any(|(their, at)| *their == end && seen.since(*at).max(at.since(seen)) <= SAME_ENDS)
            };
            near(first) && near(second)
        };
        let twin = (0..pool.members.len()).find(|at| *at != used.cover.member && ends(*at).is_some_and(same));
        if let Some(twin) = twin {
            let name =
                pool.members.get(twin).map(|member| Arc::<str>::from(format!("same-ends:{}", member.profile.name)));
            if let Some(name) = name {
                pool.join(twin, &name);
                let group = pool.members.get(twin).and_then(|member| member.group);
                if let Some(member) = pool.members.get_mut(used.cover.member) {
                    member.group = member.group.or(group);
                }
            }
        }
    }

    fn doubt(&mut self, used: &Used, now: WallTime) {
        let pool = self.pool(&used.provider);
        let Some(member) = pool.members.get_mut(used.cover.member) else { return };
        let due = member.doubted.is_none_or(|at| now.since(at) >= DOUBT_EVERY);
        if !due {
            return;
        }
        member.doubted = Some(now);
        let doubt = Doubt { profile: member.profile.clone(), fingerprint: member.fingerprint.unwrap_or_default() };
        // One for every profile at most, since each waits five minutes.
        self.doubts.retain(|other| other.profile != doubt.profile);
        self.doubts.push(doubt);
    }

    /// Takes what a test said of a doubted credential.
    pub(super) fn verdict(&mut self, doubt: &Doubt, verdict: Verdict, now: WallTime) -> Wake {
        let number = self.number;
        let pool = self.pool(&doubt.profile.provider);
        let Some(at) = pool.index.get(doubt.profile.name.as_str()).copied() else { return false };
        let Some(member) = pool.members.get_mut(at).filter(|member| member.fingerprint == Some(doubt.fingerprint))
        else {
            return false;
        };
        let whole = &mut member.cells.whole;
        let rests = whole.hold.as_ref().is_some_and(|hold| hold.lane == Lane::Auth);
        let cover = Cover { member: at, keys: Keys::default() };
        match verdict {
            Verdict::Unknown => false,
            Verdict::Works if rests => {
                let closed = whole.succeed(Sent { number, at: now }, number, now);
                self.changed |= closed;
                closed
            }
            Verdict::Works => false,
            Verdict::Refused => {
                let rule = Arc::from("confirmed");
                let failure = Failure { lane: Lane::Auth, stated: None, confirmed: true, rule };
                self.fail_cell(&doubt.profile.provider, &cover, Slot::Profile, &failure, Sent { number, at: now }, now)
            }
        }
    }
}

impl Pool {
    /// Puts a profile into the group of its organisation, unless the configuration has put it into one.
    fn join(&mut self, member: usize, name: &Arc<str>) {
        if !self.settings.learn_groups {
            return;
        }
        let Some(known) = self.members.get(member) else { return };
        let current = known.group.and_then(|at| self.groups.get(at));
        if current.is_some_and(|group| !group.learned || group.name == *name) {
            return;
        }
        // A profile has one group; a pool has no more groups than profiles, and a few that are left over.
        if self.groups.len() >= self.members.len().saturating_mul(2).saturating_add(16) {
            return;
        }
        let at = self.group(name, true);
        if let Some(member) = self.members.get_mut(member) {
            member.group = Some(at);
        }
    }
}
