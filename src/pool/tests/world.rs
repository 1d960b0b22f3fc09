//! A small world for a pool: profiles with limits of their own, agents that ask, a clock that jumps from event to
//! event. Everything follows from a seed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::support::*;
use crate::clock::WallTime;
use crate::pool::cell::Source;
use crate::pool::state::Slot;
use crate::pool::*;
use crate::provider::outcome::{Class, Outcome, Reset, Said, Scope};

/// xorshift, the same on every machine.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.up_to(1);
        dice
    }

    pub fn up_to(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.up_to(n - 1) == 0
    }
}

/// What a hold looks like from outside, by its owner and part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub until: WallTime,
    pub opened: WallTime,
    pub source: Source,
    pub lane: Lane,
    pub level: u8,
}

/// A member's index, 100 and a group's, or 1000 for the upstream; and the part.
pub type Holds = BTreeMap<(usize, Option<Arc<str>>), Seen>;

pub const GROUP: usize = 100;
pub const UPSTREAM: usize = 1000;

/// Every hold of every cell, levels included.
pub fn holds(pools: &Pools) -> Holds {
    pools.with_state(|state| {
        let mut all = Holds::new();
        for pool in state.pools.values() {
            let mut add = |owner: usize, cells: &state::Cells| {
                for (part, cell) in cells.each() {
                    if let Some(hold) = &cell.hold {
                        let seen = Seen {
                            until: hold.until,
                            opened: hold.opened,
                            source: hold.source,
                            lane: hold.lane,
                            level: cell.level(hold.lane),
                        };
                        all.insert((owner, part.cloned()), seen);
                    }
                }
            };
            for (at, member) in pool.members.iter().enumerate() {
                add(at, &member.cells);
            }
            for (at, group) in pool.groups.iter().enumerate() {
                add(GROUP + at, &group.cells);
            }
            add(UPSTREAM, &pool.upstream);
        }
        all
    })
}

pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One request that is under way.
pub struct Request {
    pub attempts: Attempts,
    pub session: Option<u64>,
    pub fungible: bool,
    pub sent: Vec<String>,
    pub dead: Vec<String>,
    pub next: Next,
}

pub enum Next {
    Answer { lease: Box<Lease>, at: WallTime, outcome: Box<Outcome> },
    Wake { at: WallTime },
    Done,
}

pub struct World {
    pub pools: Pools,
    pub settings: PoolSettings,
    pub dice: Dice,
    pub now: WallTime,
    pub ranks: Vec<u8>,
    pub limited: HashMap<String, WallTime>,
    pub requests: Vec<Request>,
    pub pins: HashMap<u64, (String, WallTime)>,
    pub trace: Vec<(usize, &'static str, u64)>,
    pub jitter: bool,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let profiles = 1 + dice.up_to(4) as usize;
        let ranks: Vec<u8> = (0..profiles).map(|_| dice.up_to(2) as u8).collect();
        let mut settings = PoolSettings::default();
        if dice.one_in(4) {
            settings.order = NAMES[..profiles].iter().rev().map(|name| profile(name).name).collect();
        }
        settings.strategy = match dice.up_to(5) {
            0 => Strategy::Priority,
            1 => Strategy::RoundRobin,
            2 => Strategy::LeastUsed,
            _ => Strategy::Sticky,
        };
        if dice.one_in(3) {
            let group: Arc<str> = "shared".into();
            settings.groups =
                NAMES[..profiles].iter().take(2).map(|name| (profile(name).name, group.clone())).collect();
        }
        let jitter = dice.one_in(2);
        let spread = if jitter { Jitter::seeded(seed) } else { Jitter::none() };
        let pools = Pools::new(HashMap::from([(provider(), settings.clone())]), spread);
        Self {
            pools,
            settings,
            dice,
            now: START,
            ranks,
            limited: HashMap::new(),
            requests: Vec::new(),
            pins: HashMap::new(),
            trace: Vec::new(),
            jitter,
        }
    }

    pub fn arrive(&mut self) -> usize {
        let mut ask = ask(&[], self.now);
        ask.targets[0].candidates =
            self.ranks.iter().enumerate().map(|(at, rank)| candidate(NAMES[at], *rank)).collect();
        ask.targets[0].fungible = !self.dice.one_in(8);
        ask.repeat = match self.dice.up_to(3) {
            0 => Repeat::Never,
            1 => Repeat::Always,
            _ => Repeat::Refused,
        };
        ask.patient = self.dice.one_in(2);
        let key = self.dice.up_to(5);
        ask.session = match self.dice.up_to(2) {
            0 => Session::None,
            1 => Session::Agent(100 + key),
            _ => Session::Conversation(key),
        };
        let model = [None, Some("small"), Some("large")][self.dice.up_to(2) as usize];
        ask.model = model.map(Into::into);
        let session = match ask.session {
            Session::Conversation(key) => Some(key),
            _ => None,
        };
        let fungible = ask.targets[0].fungible;
        let attempts = self.pools.attempts(ask);
        self.requests.push(Request {
            attempts,
            session,
            fungible,
            sent: Vec::new(),
            dead: Vec::new(),
            next: Next::Done,
        });
        self.requests.len() - 1
    }

    /// What the upstream will say to a request with this profile.
    pub fn answer(&mut self, name: &str) -> Outcome {
        let now = self.now;
        if self.limited.get(name).is_some_and(|until| now < *until) {
            let end = self.limited[name];
            let scope = [Scope::Profile, Scope::ProfileModel, Scope::GroupModel, Scope::Group][name.len() % 4];
            let stated = self.dice.one_in(2);
            let reset = stated.then_some(Reset { at: end, said: Said::Delay });
            return Outcome { reset, ..outcome(Class::RateLimit, scope) };
        }
        match self.dice.up_to(29) {
            0 | 1 => {
                let length = Duration::from_secs(1 + self.dice.up_to(4000));
                self.limited.insert(name.to_owned(), now.plus(length));
                self.answer(name)
            }
            2 => Outcome {
                reset: self
                    .dice
                    .one_in(2)
                    .then_some(Reset { at: now.plus(Duration::from_secs(100_000)), said: Said::Moment }),
                ..outcome(Class::Quota, Scope::Group)
            },
            3 => outcome(Class::Billing, Scope::Group),
            4 => outcome(Class::AuthInvalid, Scope::Profile),
            5 => outcome(Class::AuthForbidden, Scope::ProfileModel),
            6 | 7 => outcome(Class::Overloaded, Scope::UpstreamModel),
            8 => outcome(Class::Transient, Scope::Upstream),
            9 => outcome(Class::RequestFault, Scope::None),
            10 => outcome(Class::RequestSuspect, Scope::None),
            11 => outcome(Class::TooLarge, Scope::None),
            12 => Outcome::unreached(),
            13 => Outcome::broken(),
            14 => outcome(Class::Ambiguous, Scope::None),
            _ => Outcome::success(),
        }
    }

    pub fn next_event(&self) -> Option<(WallTime, usize)> {
        let events = self.requests.iter().enumerate().filter_map(|(at, request)| match &request.next {
            Next::Answer { at: time, .. } | Next::Wake { at: time } => Some((*time, at)),
            Next::Done => None,
        });
        events.min()
    }

    /// The status of every candidate for a request, before it is sent: name, closed, half-open.
    pub fn statuses(&self, request: usize) -> Vec<(&'static str, cell::Status)> {
        let ask = self.requests[request].attempts.ask();
        let now = self.now;
        self.pools.with_state(|state| {
            let pool = state.pool(&provider());
            let all = ask.targets[0].candidates.iter().enumerate().map(|(at, candidate)| {
                let member = pool.seat(candidate);
                let cover = state::Cover { member, keys: pool.keys(ask, &ask.targets[0]) };
                (NAMES[at], pool.status(&cover, now))
            });
            all.collect()
        })
    }

    pub fn probes_of(&self, lease: &Lease) -> Vec<(Slot, Option<String>, String)> {
        let Some(used) = &lease.used else { return Vec::new() };
        let now = self.now;
        self.pools.with_state(|state| {
            let pool = state.pool(&provider());
            let half = |slot: &Slot| {
                pool.cell(*slot, &used.cover)
                    .is_some_and(|cell| matches!(cell.status(now), cell::Status::HalfOpen { .. }))
            };
            let owner = |slot: Slot| match slot {
                Slot::Upstream | Slot::UpstreamModel => String::new(),
                Slot::Group | Slot::GroupModel => "group".to_owned(),
                _ => lease.profile.name.to_string(),
            };
            let model = |slot: Slot| match slot {
                Slot::ProfileModel | Slot::GroupModel | Slot::UpstreamModel => {
                    used.cover.keys.model.as_deref().map(str::to_owned)
                }
                _ => None,
            };
            Slot::ALL.into_iter().filter(half).map(|slot| (slot, model(slot), owner(slot))).collect()
        })
    }
}

/// Where the world keeps what is known of a profile: members are made in the order of their names.
pub fn place(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}
