//! Clients: each does one thing after the other and finds its way by a cache of routes that may be old.
//!
//! A client never asks the world where something is. It believes what placement last heard and what stores answer, and
//! sometimes, on purpose, what it believed before that: stale routes, stale epochs, requests to followers. An answer
//! that comes after the client has lost its patience is still an answer; what never comes stays open.

use std::collections::{BTreeMap, VecDeque};

use check::history::{Action as Does, History, Operation, Seen};
use raftstore::store::{Request, RequestKind, Token};
use runtime::Rng;
use types::{Bytes, KeyRange, Peer, PeerRole, Region, RegionError, StoreId};

use super::{
    Action,
    command::{Command, value_of},
    options::Options,
    placement::Placement,
    world::{Fate, World},
};
use crate::{
    checker::Verdict,
    rng::{index, pick},
    world::network::exponential,
};

/// Routes that were true once and are kept to be used again.
const OLD_ROUTES: usize = 16;

/// What was answered, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    pub(super) written: u64,
    pub(super) undetermined: u64,
    pub(super) read: u64,
    pub(super) read_by_followers: u64,
    pub(super) scanned: u64,
    pub(super) not_leader: u64,
    pub(super) epoch_not_match: u64,
    pub(super) region_not_found: u64,
    pub(super) key_not_in_region: u64,
    pub(super) refused: u64,
}

/// A region and who is believed to lead it.
#[derive(Clone, Debug)]
struct Route {
    region: Region,
    leader: Option<Peer>,
}

/// What is under way.
#[derive(Clone, Debug)]
struct Pending {
    thread: usize,
    region: Region,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Write {
        key: usize,
        operation: Operation,
    },
    /// Keys of a range, each with its read.
    Read {
        keys: Vec<(usize, Operation)>,
        end: Bytes,
        by_follower: bool,
    },
}

/// One client.
#[derive(Debug, Default)]
struct Thread {
    /// By their first keys. They may overlap.
    routes: BTreeMap<Bytes, Route>,
    old: VecDeque<Route>,
    waits_for: Option<Token>,
    /// A scan that goes on from here to there.
    scan: Option<KeyRange>,
}

/// All clients, and what they saw.
#[derive(Debug)]
pub(super) struct Clients {
    rng: Rng,
    options: Options,
    names: Vec<Bytes>,
    histories: Vec<History>,
    /// What each key was last seen to hold.
    last: Vec<u64>,
    threads: Vec<Thread>,
    pending: BTreeMap<Token, Pending>,
    last_value: u64,
    last_moment: u64,
    /// Keys that still have to be written and read, in the end.
    todo: BTreeMap<usize, (bool, bool)>,
    stops: bool,
    pub(super) answers: Answers,
}

/// The name of a key.
fn name(key: usize) -> Bytes {
    format!("k{key:04}").into()
}

impl Clients {
    pub(super) fn new(options: &Options, rng: Rng) -> Clients {
        Clients {
            rng,
            options: options.clone(),
            names: (0..options.keys).map(name).collect(),
            histories: vec![History::default(); options.keys],
            last: vec![0; options.keys],
            threads: (0..options.threads).map(|_| Thread::default()).collect(),
            pending: BTreeMap::new(),
            last_value: 0,
            last_moment: 0,
            todo: BTreeMap::new(),
            stops: false,
            answers: Answers::default(),
        }
    }

    pub(super) fn names(&self) -> &[Bytes] {
        &self.names
    }

    /// A moment that was never before.
    fn moment(&mut self) -> u64 {
        self.last_moment += 1;
        self.last_moment
    }

    /// Every client begins.
    pub(super) fn begin(&mut self, world: &mut World) {
        for thread in 0..self.threads.len() {
            self.later(world, thread);
        }
    }

    /// Nothing new is begun.
    pub(super) fn stop(&mut self) {
        self.stops = true;
    }

    /// From now on these keys have to be written and read, each once at least.
    pub(super) fn demand(&mut self, keys: impl Iterator<Item = usize>) {
        self.todo = keys.map(|key| (key, (false, false))).collect();
    }

    /// Keys that were demanded and not yet served.
    pub(super) fn unserved(&self) -> usize {
        self.todo.len()
    }

    /// A key that was not served yet, and whether it was written and read.
    pub(super) fn first_unserved(&self) -> Option<(Bytes, (bool, bool))> {
        self.todo.iter().next().map(|(key, done)| (self.names[*key].clone(), *done))
    }

    fn later(&mut self, world: &mut World, thread: usize) {
        let mean = if self.todo.is_empty() { self.options.think } else { 2_000 };
        let delay = exponential(&mut self.rng, mean) + 1;
        world.schedule(delay, Action::Client(thread));
    }

    /// A client that has thought enough does something.
    pub(super) fn act(&mut self, world: &mut World, placement: &Placement, thread: usize) {
        if self.stops {
            return;
        }
        if self.threads[thread].waits_for.is_some() {
            return;
        }
        let (key, wants_read) = match (&self.threads[thread].scan, self.todo.is_empty()) {
            (Some(range), true) => {
                let start = range.start.clone();
                (self.names.partition_point(|name| *name < start), true)
            }
            (_, true) => (index(&mut self.rng, self.names.len()), self.rng.chance(0.45)),
            (_, false) => {
                self.threads[thread].scan = None;
                let at = index(&mut self.rng, self.todo.len());
                let (key, (written, _)) = self.todo.iter().nth(at).expect("it is not empty");
                (*key, *written)
            }
        };
        let Some(name) = self.names.get(key).cloned() else {
            self.threads[thread].scan = None;
            return self.later(world, thread);
        };
        let Some(route) = self.route(placement, thread, &name) else {
            return self.later(world, thread);
        };
        if wants_read {
            self.read(world, placement, thread, key, route);
        } else {
            self.write(world, placement, thread, key, route);
        }
    }

    /// How to get to a key, as this client believes.
    fn route(&mut self, placement: &Placement, thread: usize, key: &Bytes) -> Option<Route> {
        let stale = self.rng.chance(self.options.stale_routes);
        let client = &mut self.threads[thread];
        if stale {
            let old: Vec<&Route> =
                client.old.iter().filter(|route| route.region.range.contains(key)).collect();
            if !old.is_empty() {
                return Some((*pick(&mut self.rng, &old)).clone());
            }
        }
        let cached = client
            .routes
            .values()
            .filter(|route| route.region.range.contains(key))
            .max_by_key(|route| route.region.epoch.version);
        if let Some(route) = cached {
            return Some(route.clone());
        }
        let (region, leader) = placement.find(key)?;
        let route = Route { region, leader: Some(leader) };
        self.learn(thread, route.clone());
        Some(route)
    }

    fn learn(&mut self, thread: usize, route: Route) {
        let client = &mut self.threads[thread];
        let start = route.region.range.start.clone();
        let replaced = match client.routes.get(&start) {
            Some(known) if route.region.epoch.version < known.region.epoch.version => return,
            Some(_) => client.routes.insert(start, route),
            None => {
                client.routes.insert(start, route);
                None
            }
        };
        client.retire(replaced);
    }

    fn write(
        &mut self,
        world: &mut World,
        placement: &Placement,
        thread: usize,
        key: usize,
        route: Route,
    ) {
        self.last_value += 1;
        let value = self.last_value;
        let last = Some(self.last[key]).filter(|value| *value > 0);
        let (does, command) = match self.rng.range(0..10) {
            0 | 1 => (Does::Delete, Command::Delete),
            2..5 => {
                let expected = if self.rng.chance(0.8) { last } else { None };
                let new = value;
                (Does::Swap { expected, new }, Command::Swap { expected, new })
            }
            _ => (Does::Put(value), Command::Put(value)),
        };
        let begin = self.moment();
        let operation = self.histories[key].begin(does, begin);
        let name = self.names[key].clone();
        let command = command.encode(&name);
        let kind = RequestKind::Write { first: name.clone(), last: name, command };
        let region = route.region.clone();
        let pending = Pending { thread, region, what: What::Write { key, operation } };
        self.send(world, placement, route, kind, None, pending);
    }

    fn read(
        &mut self,
        world: &mut World,
        placement: &Placement,
        thread: usize,
        key: usize,
        route: Route,
    ) {
        let first = self.names[key].clone();
        if self.threads[thread].scan.is_none() && self.todo.is_empty() && self.rng.chance(0.15) {
            let width = 1 + index(&mut self.rng, 20);
            let end = self.names.get(key + width).cloned().unwrap_or_default();
            self.threads[thread].scan = Some(KeyRange::new(first.clone(), end));
        }
        let range = match &self.threads[thread].scan {
            Some(range) => KeyRange::new(first, range.end.clone()).intersect(&route.region.range),
            // The shortest range with the key.
            None => {
                let mut end = first.to_vec();
                end.push(0);
                KeyRange::new(first, end)
            }
        };
        let begin = self.moment();
        let last = self.names.partition_point(|name| range.end.is_empty() || *name < range.end);
        let keys: Vec<(usize, Operation)> =
            (key..last).map(|key| (key, self.histories[key].begin(Does::Read, begin))).collect();
        let replica_read = self.rng.chance(self.options.follower_reads);
        let region = route.region.clone();
        let end = range.end.clone();
        let what = What::Read { keys, end, by_follower: replica_read };
        let pending = Pending { thread, region, what };
        let kind = RequestKind::Read { replica_read };
        self.send(world, placement, route, kind, Some(range), pending);
    }

    fn send(
        &mut self,
        world: &mut World,
        placement: &Placement,
        route: Route,
        kind: RequestKind,
        wanted: Option<KeyRange>,
        pending: Pending,
    ) {
        let thread = pending.thread;
        let token = placement.token();
        let asks_follower = matches!(kind, RequestKind::Read { replica_read: true });
        let anybody = self.rng.chance(0.04) || asks_follower;
        let members: Vec<StoreId> = route.region.peers.iter().map(|peer| peer.store_id).collect();
        let store = match route.leader {
            Some(leader) if !anybody => leader.store_id,
            _ => *pick(&mut self.rng, &members),
        };
        let region = &route.region;
        let store_id = if self.rng.chance(0.5) { store } else { StoreId(0) };
        let request = Request { token, region_id: region.id, epoch: region.epoch, store_id, kind };
        self.pending.insert(token, pending);
        self.threads[thread].waits_for = Some(token);
        let mut delay = exponential(&mut self.rng, self.options.request_delay) + 1;
        if self.rng.chance(0.01) {
            delay *= 100;
        }
        world.schedule(self.options.patience, Action::Patience(thread, token));
        world.request(delay, store, request, wanted);
    }

    /// A client has waited long for an answer.
    pub(super) fn gives_up(&mut self, world: &mut World, thread: usize, token: Token) {
        let client = &mut self.threads[thread];
        if client.waits_for == Some(token) {
            client.waits_for = None;
            client.scan = None;
            if let Some(pending) = self.pending.get(&token) {
                let old = client.routes.remove(&pending.region.range.start);
                client.retire(old);
            }
            self.later(world, thread);
        }
    }

    /// An answer has come.
    pub(super) fn hears(&mut self, world: &mut World, token: Token, fate: &Fate) {
        let Some(pending) = self.pending.remove(&token) else { return };
        let end = self.moment();
        let thread = pending.thread;
        self.notes(world, &pending, fate, end);
        if let Fate::Error(error) = fate {
            self.learns_from(thread, &pending.region, error);
        }
        let client = &mut self.threads[thread];
        if matches!(fate, Fate::Unheard) {
            // Nobody is there: placement is asked again.
            let old = client.routes.remove(&pending.region.range.start);
            client.retire(old);
        }
        if client.waits_for == Some(token) {
            client.waits_for = None;
            if let What::Read { end, .. } = pending.what
                && let Some(scan) = &mut client.scan
            {
                match fate {
                    Fate::Read(_) if end != scan.end && !end.is_empty() => scan.start = end,
                    Fate::Read(_) | Fate::Unheard => client.scan = None,
                    _ => {}
                }
            }
            self.later(world, thread);
        }
    }

    /// What an answer says of the keys.
    fn notes(&mut self, world: &mut World, pending: &Pending, fate: &Fate, end: u64) {
        match (&pending.what, fate) {
            (What::Write { key, operation }, Fate::Written(before)) => {
                let before = Some(*before).filter(|value| *value > 0);
                self.histories[*key].answered(*operation, end, Seen::Was(before));
                self.answers.written += 1;
                self.serve(*key, |done| done.0 = true);
                if let Some(value) = before {
                    self.last[*key] = value;
                }
                // A swap has a good chance with what was just written.
                if self.rng.chance(0.5) {
                    self.last[*key] = self.last_value;
                }
            }
            (What::Write { .. }, Fate::Error(RegionError::Undetermined { .. })) => {
                self.answers.undetermined += 1;
            }
            (What::Write { key, operation }, Fate::Error(_) | Fate::Unheard) => {
                self.histories[*key].refused(*operation);
                self.answers.refused += 1;
            }
            (What::Read { keys, by_follower, .. }, Fate::Read(pairs)) => {
                let mut found = pairs.iter().peekable();
                for (key, operation) in keys {
                    let name = &self.names[*key];
                    let value =
                        found.next_if(|(at, _)| at == name).map(|(_, value)| value_of(value));
                    self.histories[*key].answered(*operation, end, Seen::Was(value));
                    self.last[*key] = value.unwrap_or(0);
                    self.serve(*key, |done| done.1 = true);
                }
                if let Some((key, _)) = found.next() {
                    world.judge.fails("scans give keys of clients", format!("{key:?}"));
                }
                self.answers.read += 1;
                self.answers.scanned += u64::from(keys.len() > 1);
                self.answers.read_by_followers += u64::from(*by_follower);
            }
            (What::Read { keys, .. }, Fate::Error(_) | Fate::Unheard) => {
                for (key, operation) in keys {
                    self.histories[*key].refused(*operation);
                }
                self.answers.refused += 1;
            }
            (What::Read { .. }, Fate::Written(_) | Fate::Done(_) | Fate::Txn(_))
            | (What::Write { .. }, Fate::Read(_) | Fate::Done(_) | Fate::Txn(_)) => {
                world.judge.fails("an answer fits its question", format!("{pending:?}: {fate:?}"));
            }
        }
    }

    fn serve(&mut self, key: usize, note: impl FnOnce(&mut (bool, bool))) {
        if let Some(done) = self.todo.get_mut(&key) {
            note(done);
            if *done == (true, true) {
                self.todo.remove(&key);
            }
        }
    }

    /// What an error says of routes.
    fn learns_from(&mut self, thread: usize, region: &Region, error: &RegionError) {
        let start = &region.range.start;
        match error {
            RegionError::NotLeader { leader, .. } => {
                self.answers.not_leader += 1;
                let asks_placement = leader.is_none() && self.rng.chance(0.3);
                let client = &mut self.threads[thread];
                if asks_placement {
                    let old = client.routes.remove(start);
                    client.retire(old);
                } else if let Some(route) = client.routes.get_mut(start) {
                    route.leader = *leader;
                }
            }
            RegionError::EpochNotMatch { regions } => {
                self.answers.epoch_not_match += 1;
                let client = &mut self.threads[thread];
                let old = client.routes.remove(start);
                let leader = old.as_ref().and_then(|route| route.leader);
                client.retire(old);
                for region in regions {
                    let on = leader.and_then(|leader| region.peer_on(leader.store_id));
                    let route = Route { region: region.clone(), leader: on.copied() };
                    self.learn(thread, route);
                }
            }
            RegionError::RegionNotFound { .. } | RegionError::StoreNotMatch { .. } => {
                self.answers.region_not_found += 1;
                let client = &mut self.threads[thread];
                let old = client.routes.remove(start);
                client.retire(old);
            }
            RegionError::KeyNotInRegion { region, .. } => {
                self.answers.key_not_in_region += 1;
                let route = Route { region: (**region).clone(), leader: None };
                self.learn(thread, route);
            }
            _ => {}
        }
    }

    /// What every key holds in the end: a last read of each, after everything. Then the verdict about all that was seen.
    pub(super) fn finish(&mut self, held: &BTreeMap<Bytes, Bytes>) -> Verdict {
        for key in 0..self.names.len() {
            let (begin, end) = (self.moment(), self.moment());
            let value = held.get(&self.names[key]).map(|bytes| value_of(bytes));
            let last = self.histories[key].begin(Does::Read, begin);
            self.histories[key].answered(last, end, Seen::Was(value));
        }
        self.judge()
    }

    /// Whether everything that was answered has an explanation.
    pub(super) fn judge(&self) -> Verdict {
        for (key, history) in self.histories.iter().enumerate() {
            history.check().map_err(|violation| {
                let details = format!("{}: {}", self.names[key].escape_ascii(), violation.details);
                check::Violation { details, ..violation }
            })?;
        }
        Ok(())
    }

    /// Operations that were judged, and those of them without answer.
    pub(super) fn operations(&self) -> (u64, u64) {
        let count = |count: fn(&History) -> usize| self.histories.iter().map(count).sum::<usize>();
        (count(History::len) as u64, count(History::open) as u64)
    }
}

impl Thread {
    fn retire(&mut self, route: Option<Route>) {
        if let Some(route) = route {
            self.old.push_back(route);
            if OLD_ROUTES < self.old.len() {
                self.old.pop_front();
            }
        }
    }
}

/// Whether a member votes, now or before a joint change ends.
pub(super) fn votes(peer: &Peer) -> bool {
    peer.role != PeerRole::Learner
}
