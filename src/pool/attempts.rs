//! The attempts of one request: what to do after each of them, within its budget.
//!
//! Invariant: a request is sent at most as often as its limits say, never again once an answer is on its way to the
//! client, and never with another identity.

use std::sync::Arc;
use std::time::Duration;

use super::ask::{Ask, Bound, Repeat, Session, Target};
use super::ladder::Lane;
use super::select::{Mark, Picked, Spot, Want};
use super::settings::{AttemptLimits, PoolSettings};
use super::settle::Used;
use super::step::{Committed, Renewal, Renewed, Step, Wait};
use super::{Lease, Occupied, Pools, Shortage};
use crate::clock::WallTime;
use crate::code::Code;
use crate::id::ProfileId;
use crate::provider::outcome::{Class, Outcome};

/// The attempts of one request.
#[derive(Debug)]
pub struct Attempts {
    pools: Pools,
    ask: Ask,
    settings: Arc<PoolSettings>,
    marks: Vec<Vec<Mark>>,
    from: usize,
    again: Option<Spot>,
    last_spot: Option<Spot>,
    repeatable: bool,
    limits: AttemptLimits,
    throttle_hops: u8,
    /// Refusals that are the credential's fault if the request succeeds with another one.
    suspects: Vec<(usize, Used, Outcome)>,
    renewing: Option<(Spot, Used)>,
    last: Option<(ProfileId, Class)>,
    sent: u8,
    /// The profile of the last attempt is occupied until there is another one.
    seat: Option<Occupied>,
}

/// Whether a wait for a profile that rests is welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Some,
    None,
}

/// What to do where no profile is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// Say so.
    Answer,
    /// Give the client what came.
    Forward,
    /// Say that the credentials were refused.
    Rejected,
    /// Say that a login has ended.
    Login,
    /// Say that a login was not renewed just now.
    Later,
}

impl Attempts {
    pub(super) fn new(pools: Pools, ask: Ask, settings: Arc<PoolSettings>) -> Self {
        let marks = ask.targets.iter().map(|target| vec![Mark::default(); target.candidates.len()]).collect();
        let mut limits = settings.limits;
        // Eight sends are the most that any setting allows.
        limits.attempts = limits.attempts.clamp(1, 8);
        let repeatable = ask.repeat != Repeat::Never;
        let throttle_hops = limits.throttle_hops;
        Self {
            pools,
            ask,
            settings,
            marks,
            from: 0,
            again: None,
            last_spot: None,
            repeatable,
            limits,
            throttle_hops,
            suspects: Vec::new(),
            renewing: None,
            last: None,
            sent: 0,
            seat: None,
        }
    }

    /// What it asked for.
    #[must_use]
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How often it was sent.
    #[must_use]
    pub fn sent(&self) -> u8 {
        self.sent
    }

    /// The first step.
    pub fn begin(&mut self, now: WallTime) -> Step {
        self.next(Patience::Some, now).unwrap_or_else(|| self.shortage(now))
    }

    /// The step after a wait.
    pub fn resume(&mut self, now: WallTime) -> Step {
        self.next(Patience::Some, now).unwrap_or_else(|| self.shortage(now))
    }

    /// The body is not kept any longer, or bytes went to the client: the request cannot go out again.
    pub fn cannot_repeat(&mut self) {
        self.repeatable = false;
    }

    /// The step after an attempt.
    pub fn settle(&mut self, lease: Lease, outcome: &Outcome, now: WallTime) -> Step {
        let spot = Spot { target: lease.target(), candidate: lease.candidate() };
        let warm = lease.warm;
        self.last = Some((lease.profile().clone(), outcome.class));
        let Some(mut used) = lease.finish() else { return self.forward(None) };
        self.again = None;
        if self.may_renew(spot, now) && is_refusal(outcome.class) {
            // A token that has ended is no sign of anything.
            self.pools.with(|state| state.release(&used, now));
        } else {
            self.pools.with(|state| state.record(&mut used, outcome, now));
        }
        match outcome.class {
            Class::Success => {
                self.explain(spot.target, now);
                self.forward(Some(used))
            }
            Class::RequestFault | Class::PolicyBlock | Class::Ambiguous => self.forward(Some(used)),
            Class::RateLimit => self.throttled(spot, used, outcome, warm, now),
            Class::Quota | Class::Billing => {
                self.mark(spot, |mark| mark.dead = true);
                if self.alone(spot) { self.forward(Some(used)) } else { self.go_on(Otherwise::Answer, Some(used), now) }
            }
            Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired => self.refused(spot, used, outcome, now),
            Class::AuthForbidden => {
                self.mark(spot, |mark| mark.dead = true);
                let otherwise = refusal(outcome);
                self.suspects.push((spot.target, used.clone(), outcome.clone()));
                self.go_on(otherwise, Some(used), now)
            }
            Class::TooLarge => {
                self.mark(spot, |mark| mark.dead = true);
                self.go_on(Otherwise::Forward, Some(used), now)
            }
            Class::RequestSuspect => self.suspicious(spot, used, outcome, now),
            Class::Overloaded => self.overloaded(spot, used, now),
            Class::Transient | Class::Broken => self.broken(spot, used, now),
            Class::Unreached => self.unreached(spot, used, now),
        }
    }

    /// The step after a renewal.
    pub fn renewed(&mut self, renewal: &Renewal, result: Renewed, now: WallTime) -> Step {
        let spot = Spot { target: renewal.target, candidate: renewal.candidate };
        let waiting = self.renewing.take();
        match result {
            Renewed::Fresh => {
                self.again = Some(spot);
                self.next(Patience::Some, now).unwrap_or_else(|| self.shortage(now))
            }
            Renewed::Refused | Renewed::Failed => {
                self.mark(spot, |mark| mark.dead = true);
                self.unrenewed(result, waiting.map(|(_, used)| used), now)
            }
        }
    }

    /// The step where a profile was chosen whose login had to be renewed first and was not.
    pub fn unready(&mut self, lease: Lease, result: Renewed, now: WallTime) -> Step {
        let spot = Spot { target: lease.target(), candidate: lease.candidate() };
        self.again = None;
        // Nothing was sent; the mark alone keeps it from being chosen again.
        self.sent = self.sent.saturating_sub(1);
        self.mark(spot, |mark| mark.dead = true);
        let used = lease.finish();
        if let Some(used) = &used {
            self.pools.with(|state| state.release(used, now));
        }
        self.unrenewed(result, used, now)
    }

    fn unrenewed(&mut self, result: Renewed, used: Option<Used>, now: WallTime) -> Step {
        if let Some(used) = used.as_ref().filter(|_| result == Renewed::Refused) {
            self.pools.with(|state| state.ended(used, now));
        }
        let otherwise = if result == Renewed::Refused { Otherwise::Login } else { Otherwise::Later };
        self.go_on(otherwise, used, now)
    }

    fn may_renew(&self, spot: Spot, now: WallTime) -> bool {
        self.candidate_renewable(spot) && !self.marked(spot).renewed && self.may_repeat(now)
    }

    fn throttled(&mut self, spot: Spot, used: Used, outcome: &Outcome, warm: bool, now: WallTime) -> Step {
        if self.alone(spot) {
            return self.forward(Some(used));
        }
        // A conversation's own profile is worth a short wait: its prompts are cached there.
        let wait = outcome.reset.map(|reset| reset.at).filter(|_| warm && self.ask.patient);
        if let Some(at) = wait.filter(|at| at.since(now) <= self.settings.warm_wait)
            && self.may_repeat(now)
            && at < self.ask.deadline
            && take(&mut self.limits.same_profile)
        {
            self.again = Some(spot);
            let release = self.pools.with_state(|state| state.release_of(&used, now)).unwrap_or(at);
            return self.wait(release.max(at));
        }
        let conversation = matches!(self.ask.session, Session::Conversation(_));
        let left = if conversation && warm {
            let spent = self.limits.throttle_hops.saturating_sub(self.throttle_hops);
            self.limits.warm_throttle_hops.saturating_sub(spent)
        } else {
            self.throttle_hops
        };
        self.mark(spot, |mark| mark.left = true);
        if left == 0 {
            // It has left as many profiles as it may. Where they all rest now, another provider is no hop among them.
            if self.has_fallback(spot) && self.all_rest(spot.target, now) {
                self.from = spot.target.saturating_add(1);
                return self.go_on(Otherwise::Answer, Some(used), now);
            }
            return self.shortage(now);
        }
        self.throttle_hops = self.throttle_hops.saturating_sub(1);
        self.go_on(Otherwise::Answer, Some(used), now)
    }

    fn refused(&mut self, spot: Spot, used: Used, outcome: &Outcome, now: WallTime) -> Step {
        if self.may_renew(spot, now) {
            self.mark(spot, |mark| mark.renewed = true);
            let profile = self.last.as_ref().map(|(profile, _)| profile.clone());
            self.renewing = Some((spot, used.clone()));
            if let Some(profile) = profile {
                return Step::Renew(Renewal { profile, target: spot.target, candidate: spot.candidate });
            }
        }
        self.mark(spot, |mark| mark.dead = true);
        self.suspects.push((spot.target, used.clone(), outcome.clone()));
        self.go_on(refusal(outcome), Some(used), now)
    }

    fn suspicious(&mut self, spot: Spot, used: Used, outcome: &Outcome, now: WallTime) -> Step {
        self.mark(spot, |mark| mark.left = true);
        if self.suspects.iter().any(|(_, _, other)| other.class == Class::RequestSuspect) {
            // Refused alike by two: it is about the request.
            return self.forward(Some(used));
        }
        self.suspects.push((spot.target, used.clone(), outcome.clone()));
        if take(&mut self.limits.suspect_hops) {
            self.go_on(Otherwise::Forward, Some(used), now)
        } else {
            self.forward(Some(used))
        }
    }

    fn overloaded(&mut self, spot: Spot, used: Used, now: WallTime) -> Step {
        if !self.may_repeat(now) {
            return self.forward(Some(used));
        }
        if self.limits.same_profile > 0 && self.may_burden(spot, now) {
            self.limits.same_profile = self.limits.same_profile.saturating_sub(1);
            self.again = Some(spot);
            return self.wait(now.plus(self.pause()));
        }
        self.mark(spot, |mark| mark.left = true);
        if !self.alone(spot) && self.limits.overload_hops > 0 && self.may_burden(spot, now) {
            self.limits.overload_hops = self.limits.overload_hops.saturating_sub(1);
            return self.go_on(Otherwise::Forward, Some(used), now);
        }
        self.leave_target(spot, used, now)
    }

    fn broken(&mut self, spot: Spot, used: Used, now: WallTime) -> Step {
        let may = self.ask.repeat == Repeat::Always && self.may_repeat(now);
        if may && self.limits.same_profile > 0 && self.may_burden(spot, now) {
            self.limits.same_profile = self.limits.same_profile.saturating_sub(1);
            self.again = Some(spot);
            return self.wait(now.plus(self.pause()));
        }
        self.forward(Some(used))
    }

    fn unreached(&mut self, spot: Spot, used: Used, now: WallTime) -> Step {
        if !self.may_repeat(now) {
            return self.forward(Some(used));
        }
        if take(&mut self.limits.same_profile) {
            self.again = Some(spot);
            return self.go_on(Otherwise::Forward, Some(used), now);
        }
        self.leave_target(spot, used, now)
    }

    /// The upstream itself fails: only another one can help.
    fn leave_target(&mut self, spot: Spot, used: Used, now: WallTime) -> Step {
        self.from = spot.target.saturating_add(1);
        if self.from >= self.ask.targets.len() {
            return self.forward(Some(used));
        }
        self.go_on(Otherwise::Forward, Some(used), now)
    }

    /// Goes on with another profile if the request may go out again.
    fn go_on(&mut self, otherwise: Otherwise, used: Option<Used>, now: WallTime) -> Step {
        let alone = self.again.is_none()
            && self.from == 0
            && self.ask.targets.first().is_some_and(|target| self.is_alone(target));
        let patience = if otherwise == Otherwise::Answer { Patience::Some } else { Patience::None };
        let next = if !alone && self.may_repeat(now) { self.next(patience, now) } else { None };
        next.unwrap_or_else(|| self.finish(otherwise, used, now))
    }

    fn finish(&mut self, otherwise: Otherwise, used: Option<Used>, now: WallTime) -> Step {
        match otherwise {
            Otherwise::Forward => self.forward(used),
            Otherwise::Rejected => {
                Step::Answer(Shortage { code: Code::CredentialsRejected, retry_after: None, profiles: self.profiles() })
            }
            Otherwise::Login => {
                Step::Answer(Shortage { code: Code::NeedsLogin, retry_after: None, profiles: self.profiles() })
            }
            Otherwise::Later => {
                let retry_after = Some(Duration::from_secs(1));
                Step::Answer(Shortage { code: Code::UpstreamUnreachable, retry_after, profiles: self.profiles() })
            }
            Otherwise::Answer => self.shortage(now),
        }
    }

    fn next(&mut self, patience: Patience, now: WallTime) -> Option<Step> {
        self.seat = None;
        let want = Want {
            ask: &self.ask,
            marks: &self.marks,
            from: self.from,
            again: self.again,
            only: self.last_spot.filter(|spot| self.alone(*spot)),
            last: self.last_spot,
            repeatable: self.repeatable && self.sent.saturating_add(1) < self.limits.attempts,
        };
        let picked = self.pools.with_state(|state| state.pick(&want, now));
        match picked {
            Picked::Chosen(chosen) => {
                let target = self.ask.targets.get(chosen.spot.target);
                let candidate = target.and_then(|target| target.candidates.get(chosen.spot.candidate));
                let (target, candidate) = target.zip(candidate)?;
                let used = Used {
                    provider: target.provider.clone(),
                    number: chosen.number,
                    sent: now,
                    cover: chosen.cover.clone(),
                    path: target.path(&self.ask).cloned(),
                    probe: chosen.probe,
                    moved: chosen.moved,
                };
                let from = self.last.clone().filter(|(profile, _)| *profile != candidate.profile);
                let lease =
                    Lease::new(self.pools.clone(), candidate.profile.clone(), chosen.spot, used, from, chosen.warm);
                self.seat = Some(Occupied::new(self.pools.clone(), &target.provider, chosen.cover.member));
                self.sent = self.sent.saturating_add(1);
                self.last_spot = Some(chosen.spot);
                self.again = None;
                Some(Step::Send(lease))
            }
            // A place at a ready profile is always worth the wait, within the request's time.
            Picked::Gate(until) => (until < self.ask.deadline).then(|| self.wait(until)),
            Picked::Wait(until) => {
                (patience == Patience::Some && take(&mut self.limits.waits)).then(|| self.wait(until))
            }
            Picked::Nothing => None,
        }
    }

    /// The answer that says why there is no profile and when there is one.
    fn shortage(&self, now: WallTime) -> Step {
        let outlook = self.pools.with_state(|state| state.outlook(&self.ask, now));
        let has = |lane: Lane| outlook.lanes.contains(&lane);
        let ready = outlook.earliest.is_some_and(|at| at <= now);
        let code = if outlook.earliest.is_none() {
            Code::CredentialsMissing
        } else if ready || has(Lane::RateLimit) || has(Lane::Quota) {
            Code::ProfilesCooling
        } else if has(Lane::Overload) {
            Code::UpstreamOverloaded
        } else if has(Lane::Billing) {
            Code::BillingExhausted
        } else if outlook.logins {
            Code::NeedsLogin
        } else {
            Code::CredentialsRejected
        };
        let retry_after = match code {
            Code::ProfilesCooling | Code::UpstreamOverloaded => {
                // Rounded up, and never at once: it was just refused.
                let wait = outlook.earliest.map_or(Duration::ZERO, |at| at.since(now));
                Some(Duration::from_secs(wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX).max(1)))
            }
            _ => None,
        };
        Step::Answer(Shortage { code, retry_after, profiles: self.profiles() })
    }

    fn profiles(&self) -> Vec<ProfileId> {
        let all = self.ask.targets.iter().flat_map(|target| target.candidates.iter());
        all.map(|candidate| candidate.profile.clone()).collect()
    }

    fn forward(&mut self, used: Option<Used>) -> Step {
        Step::Forward(Committed { pools: self.pools.clone(), used, seat: self.seat.take() })
    }

    fn wait(&self, until: WallTime) -> Step {
        Step::Wait(Wait { until: until.min(self.ask.deadline), woken: self.pools.woken() })
    }

    fn explain(&mut self, target: usize, now: WallTime) {
        let suspects = std::mem::take(&mut self.suspects);
        for (_, used, outcome) in suspects.iter().filter(|(at, _, _)| *at == target) {
            self.pools.with(|state| state.blame(used, outcome, now));
        }
    }

    fn may_repeat(&self, now: WallTime) -> bool {
        self.repeatable && self.sent < self.limits.attempts && now < self.ask.deadline
    }

    /// Whether the request is for one identity only.
    fn alone(&self, spot: Spot) -> bool {
        self.ask.targets.get(spot.target).is_some_and(|target| self.is_alone(target))
    }

    fn is_alone(&self, target: &Target) -> bool {
        !target.fungible || !self.settings.rotate || self.ask.bound != Bound::Free
    }

    fn has_fallback(&self, spot: Spot) -> bool {
        self.ask.bound == Bound::Free && spot.target.saturating_add(1) < self.ask.targets.len()
    }

    fn all_rest(&self, target: usize, now: WallTime) -> bool {
        self.pools.with_state(|state| state.outlook_at(&self.ask, target, now)).earliest.is_some_and(|at| at > now)
    }

    fn may_burden(&self, spot: Spot, now: WallTime) -> bool {
        let provider = self.ask.targets.get(spot.target).map(|target| target.provider.clone());
        provider.is_some_and(|provider| self.pools.with_state(|state| state.pool(&provider).retries.take(now)))
    }

    /// A quarter to three quarters of a second.
    fn pause(&self) -> Duration {
        let spread = self.pools.with_state(|state| state.jitter.up_to(Duration::from_millis(500)));
        Duration::from_millis(250).saturating_add(spread)
    }

    fn candidate_renewable(&self, spot: Spot) -> bool {
        let target = self.ask.targets.get(spot.target);
        target.and_then(|target| target.candidates.get(spot.candidate)).is_some_and(|candidate| candidate.renewable)
    }

    fn marked(&self, spot: Spot) -> Mark {
        self.marks.get(spot.target).and_then(|marks| marks.get(spot.candidate)).copied().unwrap_or_default()
    }

    fn mark(&mut self, spot: Spot, change: impl FnOnce(&mut Mark)) {
        if let Some(mark) = self.marks.get_mut(spot.target).and_then(|marks| marks.get_mut(spot.candidate)) {
            change(mark);
        }
    }
}

fn is_refusal(class: Class) -> bool {
    matches!(class, Class::AuthInvalid | Class::AuthSuspect | Class::AuthExpired)
}

fn take(budget: &mut u8) -> bool {
    let some = *budget > 0;
    *budget = budget.saturating_sub(1);
    some
}

/// A refused credential's own 401 or 403 would send the agent to a login; what else was refused is about its request.
fn refusal(outcome: &Outcome) -> Otherwise {
    match outcome.status.map(|status| status.as_u16()) {
        Some(401 | 403 | 407) => Otherwise::Rejected,
        _ => Otherwise::Forward,
    }
}
