//! Which profile a request goes out with, or how long it had better wait.
//!
//! Invariant: a profile that rests is not chosen while one that does not is left; one probe at a time for a profile
//! whose rest is over; nothing here waits.

use std::time::Duration;

use super::ask::{Ask, Bound, Candidate, Session, Target};
use super::cell::{Ramp, Source, Status};
use super::ladder::Lane;
use super::settings::Strategy;
use super::settle::NEEDS_LOGIN;
use super::state::{Cover, Pool, Slot, State};
use super::sticky::Pin;
use crate::clock::WallTime;

/// A running probe answers about then.
const PROBE_ANSWERS: Duration = Duration::from_secs(2);

/// When a profile was last used is stored as exactly as this.
const REMEMBERED: Duration = Duration::from_secs(60);

/// A profile that has enough under way is looked at again then, unless one of its exchanges ends before.
const BUSY: Duration = Duration::from_secs(1);

/// A rest of the pinned profile up to this is gone around, not moved away from: moving on every throttle makes a fleet
/// bounce between two profiles (teamclaude #306).
const DETOUR: Duration = Duration::from_secs(60);

/// What a request has tried of one candidate.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    /// Sent with it, and to be sent elsewhere now.
    pub(super) left: bool,
    /// Refused for good, as far as this request goes.
    pub(super) dead: bool,
    /// Its value was renewed for this request.
    pub(super) renewed: bool,
}

/// A place among the targets and their candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) target: usize,
    pub(super) candidate: usize,
}

/// What the loop of one request wants now.
#[derive(Debug)]
pub(super) struct Want<'a> {
    pub(super) ask: &'a Ask,
    pub(super) marks: &'a [Vec<Mark>],
    /// Targets before this one are done with.
    pub(super) from: usize,
    /// This candidate again, if it may be.
    pub(super) again: Option<Spot>,
    /// This candidate and no other: it was sent with that identity.
    pub(super) only: Option<Spot>,
    /// Where it was sent last.
    pub(super) last: Option<Spot>,
    /// Whether the request can go out once more if this attempt is refused.
    pub(super) repeatable: bool,
}

/// A chosen profile.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) spot: Spot,
    pub(super) number: u64,
    pub(super) cover: Cover,
    pub(super) probe: bool,
    pub(super) moved: bool,
    /// The conversation was with this profile already, and used within five minutes.
    pub(super) warm: bool,
}

#[derive(Debug)]
pub(super) enum Picked {
    Chosen(Chosen),
    /// A profile that rests is free then.
    Wait(WallTime),
    /// A profile is ready, but has enough on its way until then.
    Gate(WallTime),
    Nothing,
}

/// How things stand for a request's profiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The lanes of those that rest.
    pub(super) lanes: Vec<Lane>,
    /// When the first is free.
    pub(super) earliest: Option<WallTime>,
    /// Whether all of them need another login.
    pub(super) logins: bool,
}

struct Seat {
    candidate: usize,
    cover: Cover,
    status: Status,
    key: Key,
    gate: Option<WallTime>,
    /// By its own limits it has enough until then.
    full: Option<WallTime>,
    usable: bool,
    /// Whether the request, or its conversation, comes over from another profile.
    moved: bool,
}

/// The smaller, the earlier: place in the order or rank, nearly spent, waiting at a gate, turn, position.
type Key = (usize, bool, bool, u64, usize);

impl State {
    pub(super) fn pick(&mut self, want: &Want<'_>, now: WallTime) -> Picked {
        for (at, target) in want.ask.targets.iter().enumerate().skip(want.from) {
            if at > 0 && want.ask.bound != Bound::Free {
                continue;
            }
            match self.pick_at(want, at, target, now) {
                Picked::Nothing => {}
                found => return found,
            }
        }
        self.early(want, now).map_or(Picked::Nothing, Picked::Chosen)
    }

    fn pick_at(&mut self, want: &Want<'_>, at: usize, target: &Target, now: WallTime) -> Picked {
        let number = self.number.saturating_add(1);
        let pool = self.pool(&target.provider);
        let session = want.ask.session.key().filter(|_| pool.settings.strategy == Strategy::Sticky);
        let pin = session.and_then(|key| pool.sticky.find(key, now));
        let seats = pool.seats(want, at, target, pin, now);
        let Some((seat, probe)) = decide(&seats, pin, want, at, now) else {
            if let Some(until) = pool.room(&seats, now) {
                return Picked::Gate(until);
            }
            return pool.wait(want, &seats, pin, now).map_or(Picked::Nothing, Picked::Wait);
        };
        if let Some(gate) = seat.gate.filter(|_| !probe) {
            return Picked::Gate(gate);
        }
        let chosen = Chosen {
            spot: Spot { target: at, candidate: seat.candidate },
            number,
            cover: seat.cover.clone(),
            probe,
            moved: seat.moved,
            warm: pin.is_some_and(|pin| pin.member == seat.cover.member && pin.is_warm(now)),
        };
        let stored = pool.dispatch(&chosen, now);
        if want.last.is_none() {
            pool.retries.request(now);
        }
        if let Some(key) = session {
            pool.pin(key, pin, &seats, seat.cover.member, now);
        }
        self.number = number;
        self.changed |= stored;
        Picked::Chosen(chosen)
    }

    /// A probe before the end of a rest, where there is nothing else at all: a stated end can be wrong, and a ladder
    /// is a guess.
    fn early(&mut self, want: &Want<'_>, now: WallTime) -> Option<Chosen> {
        let mut best: Option<(WallTime, Spot, Cover)> = None;
        for (at, target) in want.ask.targets.iter().enumerate().skip(want.from) {
            if at > 0 && want.ask.bound != Bound::Free {
                continue;
            }
            let pool = self.pool(&target.provider);
            for seat in
                pool.seats(want, at, target, None, now).into_iter().filter(|seat| seat.usable && seat.full.is_none())
            {
                match seat.status {
                    Status::Open(until) if pool.may_probe_early(&seat.cover, now) => {
                        if best.as_ref().is_none_or(|(earliest, _, _)| until < *earliest) {
                            best = Some((until, Spot { target: at, candidate: seat.candidate }, seat.cover));
                        }
                    }
                    Status::Open(_) => {}
                    // Something is ready, or will say in a moment.
                    Status::Closed | Status::HalfOpen { .. } => return None,
                }
            }
        }
        let (_, spot, cover) = best?;
        self.number = self.number.saturating_add(1);
        let chosen = Chosen { spot, number: self.number, cover, probe: true, moved: false, warm: false };
        let provider = want.ask.targets.get(spot.target).map(|target| target.provider.clone())?;
        let pool = self.pool(&provider);
        for slot in Slot::ALL {
            if let Some(cell) = pool.cell_mut(slot, &chosen.cover, false, now)
                && matches!(cell.status(now), Status::Open(_))
            {
                cell.early_at = Some(now);
            }
        }
        let stored = pool.dispatch(&chosen, now);
        if let Some(key) = want.ask.session.key().filter(|_| pool.settings.strategy == Strategy::Sticky) {
            pool.sticky.put(key, Pin { member: chosen.cover.member, detour: None, used: now });
        }
        self.changed |= stored;
        Some(chosen)
    }
}

/// The seat to take, and whether that is a probe.
fn decide<'a>(
    seats: &'a [Seat],
    pin: Option<Pin>,
    want: &Want<'_>,
    at: usize,
    now: WallTime,
) -> Option<(&'a Seat, bool)> {
    let open = |seat: &&Seat| seat.usable && seat.full.is_none();
    let ready = |seat: &&Seat| open(seat) && seat.status == Status::Closed;
    let half = |seat: &&Seat| open(seat) && seat.status == Status::HalfOpen { probed: None };
    if let Some(spot) = want.again.filter(|spot| spot.target == at) {
        let seat = seats.iter().find(|seat| seat.candidate == spot.candidate);
        if let Some(seat) = seat.filter(|seat| ready(seat) || half(seat)) {
            return Some((seat, seat.status != Status::Closed));
        }
    }
    let best = seats.iter().filter(ready).min_by_key(|seat| seat.key);
    let proving = seats.iter().filter(half).min_by_key(|seat| seat.key);
    let of = |member: usize| seats.iter().find(|seat| seat.cover.member == member);
    if let Some(pin) = pin {
        let own = of(pin.member);
        // Its own profile's rest is over: what is cached there is worth the try.
        if let Some(seat) = own.filter(half).filter(|_| want.repeatable) {
            return Some((seat, true));
        }
        let seat = own.filter(ready).or_else(|| pin.detour.and_then(of).filter(ready));
        // An agent that is known for nothing but itself, and a conversation whose cache is cold, go back to a profile
        // that comes before theirs. A warm conversation stays.
        let loose = matches!(want.ask.session, Session::Agent(_)) || !pin.is_warm(now);
        let before = |other: &&Seat, seat: &Seat| other.key.0 < seat.key.0;
        if let Some(seat) = seat
            && !(loose && best.is_some_and(|best| before(&best, seat)))
            && !(loose && want.repeatable && proving.is_some_and(|proving| before(&proving, seat)))
        {
            return Some((seat, false));
        }
    }
    // A conversation that has a profile does not leave it to prove another.
    let free =
        pin.is_none() || matches!(want.ask.session, Session::Agent(_)) || pin.is_some_and(|pin| !pin.is_warm(now));
    match (best, proving) {
        (Some(best), Some(proving)) if want.repeatable && free && proving.key < best.key => Some((proving, true)),
        (Some(best), _) => Some((best, false)),
        (None, Some(proving)) => Some((proving, true)),
        (None, None) => None,
    }
}

fn release(seat: &Seat, now: WallTime) -> Option<WallTime> {
    match seat.status {
        Status::Open(until) => Some(until),
        Status::HalfOpen { probed: Some(_) } => Some(now.plus(PROBE_ANSWERS)),
        Status::HalfOpen { probed: None } | Status::Closed => None,
    }
}

impl Pool {
    fn seats(&mut self, want: &Want<'_>, at: usize, target: &Target, pin: Option<Pin>, now: WallTime) -> Vec<Seat> {
        let marks = want.marks.get(at);
        let keys = self.keys(want.ask, target);
        let mut seats = Vec::with_capacity(target.candidates.len());
        for (index, candidate) in target.candidates.iter().enumerate() {
            let member = self.seat(candidate);
            let cover = Cover { member, keys: keys.clone() };
            let mark = marks.and_then(|marks| marks.get(index)).copied().unwrap_or_default();
            let spot = Spot { target: at, candidate: index };
            let again = want.again == Some(spot);
            let allowed = want.only.is_none_or(|only| only == spot);
            let disabled = self.members.get(member).is_some_and(|member| member.disabled);
            let usable =
                allowed && !disabled && !mark.dead && (!mark.left || again) && self.owns(want.ask, member, now);
            let status = self.status(&cover, now);
            let elsewhere = want.last.is_some_and(|last| last != spot);
            let moved = elsewhere || pin.is_some_and(|pin| pin.member != member && pin.detour != Some(member));
            let gate = self.gate(&cover, moved, now);
            let key = self.key(candidate, index, member, gate, now);
            let full = self.full(member, now);
            seats.push(Seat { candidate: index, cover, status, key, gate, full, usable, moved });
        }
        seats
    }

    /// Until when a profile has enough by its own limits.
    fn full(&self, member: usize, now: WallTime) -> Option<WallTime> {
        let member = self.members.get(member)?;
        let busy = self.settings.each.concurrency.is_some_and(|most| member.running >= most);
        let spent = member.meter.as_ref().and_then(|meter| meter.free_at(now));
        busy.then(|| now.plus(BUSY)).max(spent)
    }

    /// When the first profile that is full and nothing else has room, where that is soon.
    fn room(&self, seats: &[Seat], now: WallTime) -> Option<WallTime> {
        let full = seats.iter().filter(|seat| seat.usable && seat.status == Status::Closed);
        full.filter_map(|seat| seat.full).min().filter(|until| until.since(now) <= self.settings.wait)
    }

    /// Whether what the request names can be there: the profile that made it is the only one that has it.
    fn owns(&self, ask: &Ask, member: usize, now: WallTime) -> bool {
        match ask.bound {
            Bound::Free => true,
            Bound::To(key) => self.owners.find(key, now).is_none_or(|owner| owner.member == member),
        }
    }

    /// The worst of all cells that cover it.
    pub(super) fn status(&self, cover: &Cover, now: WallTime) -> Status {
        let mut worst = Status::Closed;
        for slot in Slot::ALL {
            let Some(cell) = self.cell(slot, cover) else { continue };
            worst = match (worst, cell.status(now)) {
                (Status::Open(a), Status::Open(b)) => Status::Open(a.max(b)),
                (Status::Open(a), _) | (_, Status::Open(a)) => Status::Open(a),
                (Status::HalfOpen { probed: a }, Status::HalfOpen { probed: b }) => {
                    Status::HalfOpen { probed: a.max(b) }
                }
                (Status::HalfOpen { probed }, Status::Closed) | (Status::Closed, Status::HalfOpen { probed }) => {
                    Status::HalfOpen { probed }
                }
                (Status::Closed, Status::Closed) => Status::Closed,
            };
        }
        worst
    }

    fn gate(&self, cover: &Cover, moved: bool, now: WallTime) -> Option<WallTime> {
        let cells = Slot::ALL.into_iter().filter_map(|slot| self.cell(slot, cover)?.gate(now)).max();
        let arrivals = self.members.get(cover.member).and_then(|member| member.arrivals.as_ref());
        cells.max(arrivals.filter(|_| moved).and_then(|ramp| ramp.gate(now)))
    }

    fn key(&self, candidate: &Candidate, index: usize, member: usize, gate: Option<WallTime>, now: WallTime) -> Key {
        let settings = &self.settings;
        let Some(member) = self.members.get(member) else { return (usize::MAX, true, true, u64::MAX, index) };
        let place = settings.order.iter().position(|name| *name == candidate.profile.name);
        let rank = usize::from(candidate.rank);
        let behind = settings.order.len().saturating_add(rank);
        let turn = match settings.strategy {
            Strategy::Sticky | Strategy::RoundRobin => member.dispatched,
            Strategy::Priority => 0,
            Strategy::LeastUsed => member.uses,
        };
        let spent = member.nearly_spent.is_some_and(|until| now < until);
        match (settings.strategy, place) {
            // In turn among those that are named.
            (Strategy::RoundRobin | Strategy::LeastUsed, Some(_)) => (0, spent, gate.is_some(), turn, index),
            // Exactly in their order, whatever else.
            (Strategy::Sticky | Strategy::Priority, Some(place)) => (place, false, false, turn, index),
            (_, None) => (behind, spent, gate.is_some(), turn, index),
        }
    }

    /// Whether there is something new to store.
    fn dispatch(&mut self, chosen: &Chosen, now: WallTime) -> bool {
        for slot in Slot::ALL {
            if let Some(cell) = self.cell_mut(slot, &chosen.cover, false, now) {
                if chosen.probe && !cell.probe_running(now) {
                    cell.begin_probe(chosen.number, now);
                }
                cell.enter(now);
            }
        }
        let Some(member) = self.members.get_mut(chosen.cover.member) else { return false };
        member.dispatched = chosen.number;
        member.uses = member.uses.saturating_add(1);
        member.running = member.running.saturating_add(1);
        if let Some(meter) = &mut member.meter {
            meter.take(now);
        }
        let unstored = member.last_used.is_none_or(|at| now.since(at) >= REMEMBERED);
        member.last_used = Some(now);
        if chosen.moved {
            if member.arrivals.as_ref().is_none_or(|ramp| ramp.is_over(now)) {
                member.arrivals = Some(Ramp::begin(chosen.number.saturating_sub(1), now));
            }
            if let Some(ramp) = &mut member.arrivals {
                ramp.enter();
            }
        }
        unstored || member.meter.as_ref().is_some_and(|meter| meter.window().is_some())
    }

    /// How long a wait for the first of them is better than going elsewhere.
    fn wait(&self, want: &Want<'_>, seats: &[Seat], pin: Option<Pin>, now: WallTime) -> Option<WallTime> {
        let patience = match pin {
            _ if !want.ask.patient => return None,
            Some(pin) if pin.is_warm(now) => self.settings.warm_wait,
            Some(_) | None => self.settings.wait,
        };
        let release = seats.iter().filter(|seat| seat.usable).filter_map(|seat| release(seat, now)).min()?;
        (release.since(now) <= patience && release < want.ask.deadline).then_some(release)
    }

    /// Remembers where a conversation went: at its own profile, on a detour from it, or moved.
    fn pin(&mut self, key: u64, pin: Option<Pin>, seats: &[Seat], went: usize, now: WallTime) {
        let fresh = Pin { member: went, detour: None, used: now };
        let own = pin.and_then(|pin| seats.iter().find(|seat| seat.cover.member == pin.member));
        let next = match (pin, own) {
            (Some(pin), Some(own)) if pin.member != went => {
                let back_soon = match own.status {
                    Status::Open(until) => until.since(now) <= DETOUR,
                    Status::HalfOpen { .. } => true,
                    // It was good for this conversation, if not for this request.
                    Status::Closed => !own.usable || own.full.is_some(),
                };
                if back_soon { Pin { member: pin.member, detour: Some(went), used: now } } else { fresh }
            }
            _ => fresh,
        };
        self.sticky.put(key, next);
    }

    fn may_probe_early(&self, cover: &Cover, now: WallTime) -> bool {
        Slot::ALL.into_iter().filter_map(|slot| self.cell(slot, cover)).all(|cell| {
            let Some(hold) = cell.hold.as_ref().filter(|hold| now < hold.until) else {
                return !cell.probe_running(now);
            };
            let length = hold.until.since(hold.opened);
            let every = match hold.source {
                Source::Confirmed => return false,
                Source::Ladder => (length / 10).max(Duration::from_secs(60)),
                Source::Stated if length > Duration::from_secs(3600) => Duration::from_secs(1800),
                Source::Stated => return false,
            };
            !cell.probe_running(now) && now.since(cell.early_at.unwrap_or(hold.opened)) >= every
        })
    }

    /// How things stand here for a request, whatever it has tried.
    pub(super) fn outlook(
        &mut self,
        want: &Want<'_>,
        at: usize,
        target: &Target,
        now: WallTime,
        into: &mut Outlook,
        ended: &mut Option<bool>,
    ) {
        for seat in self.seats(want, at, target, None, now).iter().filter(|seat| seat.usable) {
            let free = match seat.status {
                Status::Closed | Status::HalfOpen { probed: None } => now,
                Status::Open(_) | Status::HalfOpen { probed: Some(_) } => release(seat, now).unwrap_or(now),
            };
            let free = seat.full.map_or(free, |full| full.max(free));
            into.lanes.extend(seat.full.map(|_| Lane::RateLimit));
            into.earliest = Some(into.earliest.map_or(free, |earliest| earliest.min(free)));
            let holds = Slot::ALL.into_iter().filter_map(|slot| self.cell(slot, &seat.cover)?.hold.as_ref());
            let longest = holds.max_by_key(|hold| hold.until);
            let this = longest.is_some_and(|hold| &*hold.rule == NEEDS_LOGIN);
            *ended = Some(ended.unwrap_or(true) && this);
            into.lanes.extend(longest.map(|hold| hold.lane));
        }
    }
}
