//! One seed with stores, from the first event to the verdict.
//!
//! 1. **Chaos**: faults strike while clients write and read, regions split, members move.
//! 2. **The living**: faults end; a store may stay away for good if every region survives that. Every key must be
//!    written and read before a bound, and placement must have as many replicas as it wants.
//! 3. **All**: everybody is there, clients fall silent. Replicas must become equal, peers that nobody needs must be gone,
//!    and the key space must be covered exactly once.
//!
//! The judges listen all the time; a panic of the code under test is a violation like any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use engine::raft_log::RaftLog;
use raftstore::store::Input;
use runtime::Rng;
use types::{Bytes, KeyRange, PeerRole, Region, RegionId, StoreId};

use super::{
    Action,
    clients::{Answers, Clients, votes},
    faults::{Blow, FaultKind, Nemesis},
    options::Options,
    placement::Placement,
    txn::clients::TxnClients,
    world::{World, latency_of},
};
use crate::{
    checker::{Verdict, Violation},
    hash::{fingerprint, mix},
    panics,
    rng::{Seed, index, shuffle},
    runner::Settings,
    swarm::{SECOND, Swarm},
    switches::{self, Buggify},
    world::{MachineId, NetworkCounters},
};

/// A usual run has 100,000 to 500,000 events. More than this is a storm.
const EVENTS_MAX: u64 = 6_000_000;

/// Keys that have to be served in the end, at most.
const DEMANDED: usize = 60;

/// How often stores report, and aims are looked at.
const LOOK_EVERY: u64 = 200_000;

/// What became of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Stands for everything that happened.
    pub hash: u64,
    /// What did not hold, and the number of the event at which that was noticed.
    pub violation: Option<(Violation, u64)>,
    /// Counts of what happened.
    pub counters: Counters,
    /// Named rare events of the code under test.
    pub marks: BTreeMap<&'static str, u64>,
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Events.
    pub events: u64,
    /// Virtual microseconds.
    pub virtual_time: u64,
    /// Faults by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// The network's own.
    pub network: NetworkCounters,
    /// All others, by name.
    pub named: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Chaos,
    Living,
    All,
    Done,
}

struct Run {
    swarm: Swarm,
    options: Options,
    world: World,
    clients: Clients,
    txns: TxnClients,
    placement: Placement,
    nemesis: Nemesis,
    rng: Rng,
    phase: Phase,
    deadline: u64,
    /// Machines that stay off in this phase.
    dead: BTreeSet<MachineId>,
    /// Who is to stay away once it can.
    leaving: Option<MachineId>,
    wiped: u64,
}

/// Runs a seed.
pub fn run(seed: u64, settings: Settings) -> Outcome {
    let root = Seed(seed);
    let swarm = Swarm::draw(root, settings.machines);
    let options = Options::draw(root, &swarm);
    switches::set(buggify(root), settings.mutant);
    let mut run = Run::new(root, swarm, options, settings);
    run.world.trace.line(0, || format!("{:#?}\n{:#?}", run.swarm, run.options));
    let verdict = panics::catch(|| catch_unwind(AssertUnwindSafe(|| run.play(settings))));
    let marks = switches::reset();
    let violation = match verdict {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation::new("no panic", panic)),
    };
    let event = run.world.trace.events();
    if let Some(violation) = &violation {
        run.world
            .trace
            .line(run.world.now(), || format!("VIOLATION {violation}{}", run.world.describe()));
    }
    Outcome {
        seed,
        hash: run.world.trace.hash(),
        violation: violation.map(|violation| (violation, event)),
        counters: run.count(),
        marks,
    }
}

/// Each point is on in a quarter of the seeds, and makes trouble now and then.
fn buggify(seed: Seed) -> Buggify {
    let mut rng = seed.stream("buggify");
    let probability =
        if rng.chance(0.5) { crate::rng::log_uniform(&mut rng, 0.001, 0.1) } else { 0.0 };
    Box::new(move |name| {
        let is_on = mix(fingerprint(name.as_bytes()) ^ mix(seed.0)).is_multiple_of(4);
        is_on && rng.chance(probability)
    })
}

impl Run {
    fn new(root: Seed, swarm: Swarm, options: Options, settings: Settings) -> Run {
        let world = World::new(root, &swarm, &options, settings.text);
        let stores = swarm.machines as u64;
        Run {
            world,
            clients: Clients::new(&options, root.stream("clients")),
            txns: TxnClients::new(&options, root.stream("transactions")),
            placement: Placement::new(&options, stores, root.stream("placement")),
            nemesis: Nemesis::new(root, &options),
            rng: root.stream("run"),
            phase: Phase::Chaos,
            deadline: settings.chaos,
            dead: BTreeSet::new(),
            leaving: None,
            wiped: 0,
            swarm,
            options,
        }
    }

    fn play(&mut self, settings: Settings) -> Verdict {
        let first = self.placement.first_region();
        self.world.bootstrap(&first);
        for machine in 0..self.swarm.machines {
            self.world.start(machine);
        }
        self.nemesis.begin(&mut self.world);
        self.clients.begin(&mut self.world);
        self.txns.begin(&mut self.world);
        for action in [Action::Report, Action::Place, Action::Split, Action::Transfer, Action::Look]
        {
            self.again(action);
        }
        while self.phase != Phase::Done {
            let events = self.world.trace.events();
            if settings.until.is_some_and(|until| until <= events) {
                return Ok(());
            }
            if EVENTS_MAX < events {
                let details = format!("{EVENTS_MAX} events and no end{}", self.world.describe());
                return Err(Violation::new("a run ends", details));
            }
            if self.world.next_time().is_none_or(|time| self.deadline < time) {
                self.deadline_passed()?;
                continue;
            }
            if let Some(action) = self.world.step() {
                self.act(action)?;
            }
            self.listen();
            self.world.judge.verdict()?;
        }
        self.finish()
    }

    /// Hands answers to those who asked, and plans the next start of machines that have ended.
    fn listen(&mut self) {
        for news in std::mem::take(&mut self.world.news) {
            self.placement.hears_news(&mut self.world, news);
        }
        for (token, fate) in self.world.take_answers() {
            self.placement.hears_answer(token, &fate);
            self.clients.hears(&mut self.world, token, &fate);
            self.txns.hears(&mut self.world, token, &fate);
        }
        for machine in std::mem::take(&mut self.world.ended) {
            let delay = 1 + self.rng.range(0..SECOND);
            self.world.schedule(delay, Action::Boot(machine));
        }
    }

    fn act(&mut self, action: Action) -> Verdict {
        match action {
            Action::Client(thread) => self.clients.act(&mut self.world, &self.placement, thread),
            Action::Patience(thread, token) => {
                self.clients.gives_up(&mut self.world, thread, token);
            }
            Action::Txn(thread) => self.txns.act(&mut self.world, &self.placement, thread),
            Action::TxnPatience(thread, token) => {
                self.txns.gives_up(&mut self.world, thread, token);
            }
            Action::Report => self.placement.hears(&self.world, &self.dead),
            Action::Place => self.placement.place(&mut self.world),
            Action::Split if self.phase == Phase::Chaos => {
                self.placement.split(&mut self.world, self.clients.names());
            }
            Action::Transfer if self.phase == Phase::Chaos => {
                self.placement.transfer(&mut self.world);
            }
            Action::SplitOf(region) if self.phase == Phase::Chaos => {
                self.placement.split_of(&mut self.world, self.clients.names(), region);
            }
            Action::SplitOf(_) => {}
            Action::Split | Action::Transfer => return Ok(()),
            Action::Fault(_) if !matches!(self.phase, Phase::Chaos) => {}
            Action::Fault(plan) => match self.nemesis.act(&mut self.world, plan) {
                Blow::Nothing => {}
                Blow::Wipe(machine) => self.wipe(machine),
            },
            Action::Boot(machine) => {
                if !self.dead.contains(&machine) {
                    self.world.start(machine);
                }
            }
            Action::Crash(machine) => {
                if self.phase == Phase::Chaos && self.world.process(machine).is_some() {
                    self.world.crash(machine);
                }
            }
            Action::Look => self.look()?,
        }
        self.again(action);
        Ok(())
    }

    /// Plans the next one of what happens again and again.
    fn again(&mut self, action: Action) {
        let mean = match action {
            Action::Report | Action::Look => LOOK_EVERY,
            Action::Place => self.options.place_every,
            Action::Split => self.options.split_every,
            Action::Transfer => self.options.transfer_every,
            _ => return,
        };
        let delay = (-(1.0 - self.rng.f64()).ln() * mean as f64) as u64 + 1;
        self.world.schedule(delay, action);
    }

    /// A machine loses its disks if every region survives that, whoever one asks.
    fn wipe(&mut self, machine: MachineId) {
        if !self.survives(machine) {
            return;
        }
        self.world.kill(machine);
        let old = self.world.machines[machine].store_id;
        let new = StoreId(self.placement.new_id());
        self.world.wipe(machine, new);
        self.placement.replaces(old, new, self.world.now());
        self.wiped += 1;
        let delay = 1 + self.rng.range(0..3 * SECOND);
        self.world.schedule(delay, Action::Boot(machine));
    }

    /// Whether every region keeps a quorum without this machine: everybody runs, placement wants nobody else away, nobody
    /// misses another store for good, nobody's log has a change of members that is not applied, and all agree on who the
    /// members are.
    fn survives(&self, machine: MachineId) -> bool {
        let gone = self.world.machines[machine].store_id;
        // An order may still wait on who stands still.
        let mut machines = 0..self.world.machines.len();
        if !self.placement.spares_all_but(gone, self.world.now())
            || machines.any(|machine| self.world.is_frozen(machine))
        {
            return false;
        }
        let lives: BTreeSet<StoreId> =
            self.world.machines.iter().map(|machine| machine.store_id).collect();
        if self.world.processes().count() < self.world.machines.len() {
            return false;
        }
        let mut known: BTreeMap<RegionId, Region> = BTreeMap::new();
        for (_, store, process) in self.world.processes() {
            for region in process.store.regions() {
                let is_at_rest = region
                    .peers
                    .iter()
                    .all(|peer| matches!(peer.role, PeerRole::Voter | PeerRole::Learner));
                let voters = region.peers.iter().filter(|peer| votes(peer));
                let staying = voters
                    .clone()
                    .filter(|peer| peer.store_id != gone && lives.contains(&peer.store_id))
                    .count();
                let is_quorum = voters.count() < 2 * staying;
                let is_agreed =
                    known.get(&region.id).is_none_or(|known| known.epoch == region.epoch);
                let applied = process.store.applied(region.id).map_or(0, |applied| applied.index);
                let concerns = region.peer_on(gone).is_some() || store == gone;
                let changes = has_change(&process.log, region.id, applied);
                if (concerns && !is_quorum) || !is_at_rest || !is_agreed || changes {
                    return false;
                }
                known.insert(region.id, region.clone());
            }
        }
        true
    }

    // Phases.

    fn deadline_passed(&mut self) -> Verdict {
        let seconds = self.options.liveness_bound() / SECOND;
        match self.phase {
            Phase::Chaos => {
                self.begin_living();
                Ok(())
            }
            Phase::Living => {
                let details = format!(
                    "healed for {seconds} s: {} keys are not served, among them {:?}; placement is content: {}; dead: {:?}{}",
                    self.clients.unserved(),
                    self.clients.first_unserved(),
                    self.placement.is_content(self.world.now()),
                    self.dead,
                    self.world.describe()
                );
                Err(Violation::new("the living serve every key and restore replicas", details))
            }
            Phase::All => {
                let why = self.what_differs().unwrap_or_default();
                let details =
                    format!("all healthy for {seconds} s: {why}{}", self.world.describe());
                Err(Violation::new("all replicas become equal", details))
            }
            Phase::Done => Ok(()),
        }
    }

    fn begin_living(&mut self) {
        self.heal();
        // Somebody stays away for good, if everybody else can live without.
        for machine in 0..self.world.machines.len() {
            self.world.start(machine);
        }
        if self.rng.chance(0.6) {
            self.leaving = Some(index(&mut self.rng, self.world.machines.len()));
        }
        for machine in 0..self.world.machines.len() {
            self.world.input(machine, Input::ReportAll);
        }
        self.placement.is_calm = true;
        self.demand();
        self.phase = Phase::Living;
        self.deadline = self.world.now() + self.options.liveness_bound();
    }

    /// Keys that must be served: some of every region.
    fn demand(&mut self) {
        let mut keys: Vec<usize> = (0..self.options.keys).collect();
        shuffle(&mut self.rng, &mut keys);
        keys.truncate(DEMANDED);
        // One of each region at least.
        let names = self.clients.names();
        let of_regions: Vec<usize> = self
            .placement
            .regions()
            .filter_map(|region| names.iter().position(|name| region.range.contains(name)))
            .collect();
        self.clients.demand(keys.into_iter().chain(of_regions));
    }

    /// A machine stays away: it is off, or nobody hears it, or its disk stands still.
    fn leave(&mut self, machine: MachineId) {
        self.dead.insert(machine);
        match self.rng.range(0..3) {
            0 => self.world.crash(machine),
            1 => {
                for other in (0..self.world.machines.len()).filter(|other| *other != machine) {
                    self.world.network.set_blocked(machine, other, true);
                    self.world.network.set_blocked(other, machine, true);
                }
            }
            _ => self.world.machines[machine].stalled_until = self.world.now() + 1_000 * SECOND,
        }
    }

    fn heal(&mut self) {
        self.nemesis.end();
        self.world.network.heal();
        self.world.network.set_options(self.swarm.healthy_network.clone());
        for machine in 0..self.world.machines.len() {
            self.world.thaw(machine);
            let slot = &mut self.world.machines[machine];
            slot.latency = latency_of(&self.swarm.healthy_disk);
            slot.stalled_until = 0;
            slot.applier_stalled_until = 0;
            if slot.is_doomed && slot.process.is_some() {
                self.world.crash(machine);
            }
        }
    }

    fn begin_all(&mut self) {
        self.clients.stop();
        self.txns.stop();
        self.world.network.heal();
        // What waits for a disk that stands still would wait for ever.
        for machine in std::mem::take(&mut self.dead) {
            if self.world.process(machine).is_some() {
                self.world.crash(machine);
            }
        }
        for machine in 0..self.world.machines.len() {
            self.world.start(machine);
        }
        self.phase = Phase::All;
        self.deadline = self.world.now() + self.options.liveness_bound();
    }

    /// Looks whether the aim of the phase is reached.
    fn look(&mut self) -> Verdict {
        match self.phase {
            Phase::Living => {
                // Somebody stays away for good, as soon as everybody else can live without.
                if let Some(machine) = self.leaving
                    && self.survives(machine)
                {
                    self.leaving = None;
                    self.leave(machine);
                    self.demand();
                } else if self.clients.unserved() == 0
                    && self.placement.is_content(self.world.now())
                {
                    self.begin_all();
                }
            }
            Phase::All => {
                if self.what_differs().is_none() {
                    self.phase = Phase::Done;
                }
            }
            Phase::Chaos | Phase::Done => {}
        }
        Ok(())
    }

    /// The regions by their first keys, as their leaders know them.
    fn regions(&self) -> BTreeMap<Bytes, (MachineId, Region)> {
        let mut regions = BTreeMap::new();
        for (_, _, process) in self.world.processes() {
            for region in process.store.regions() {
                if let Some(found) = self.world.leader_of(&region.range.start) {
                    regions.insert(found.1.range.start.clone(), found);
                }
            }
        }
        regions
    }

    /// What is not yet as it should be in the end.
    fn what_differs(&self) -> Option<String> {
        let regions = self.regions();
        let mut end = Some(Bytes::new());
        for (_, region) in regions.values() {
            if Some(&region.range.start) != end.as_ref() {
                return Some(format!("a gap or an overlap before {region:?}"));
            }
            end = Some(region.range.end.clone()).filter(|end| !end.is_empty());
        }
        if end.is_some() {
            return Some("the last region has an end".to_owned());
        }
        let mut members: BTreeMap<(StoreId, RegionId), &Region> = BTreeMap::new();
        for (_, region) in regions.values() {
            members.extend(region.peers.iter().map(|peer| ((peer.store_id, region.id), region)));
        }
        for (machine, store, process) in self.world.processes() {
            let own: Vec<(RegionId, types::PeerId)> = process.store.peers().collect();
            for (id, peer) in &own {
                let Some(region) = members.get(&(store, *id)) else {
                    return Some(format!(
                        "store {store} has peer {peer} of region {id}, and is no member"
                    ));
                };
                if process.store.regions().all(|found| found != *region) {
                    return Some(format!("store {store} does not know {region:?}"));
                }
                let (leader, _) = &regions[&region.range.start];
                let Some(leading) = self.world.process(*leader) else { continue };
                if process.store.applied(*id) != leading.store.applied(*id) {
                    return Some(format!("store {store} has not applied all of region {id}"));
                }
                if self.world.content(machine, &region.range)
                    != self.world.content(*leader, &region.range)
                {
                    return Some(format!("store {store} has other pairs in region {id}"));
                }
            }
            let missing = members
                .keys()
                .find(|(at, id)| *at == store && own.iter().all(|(own, _)| own != id));
            if let Some((_, id)) = missing {
                return Some(format!("store {store} has no peer of region {id}"));
            }
            // Nothing lies around that is nobody's.
            let ranges: Vec<&KeyRange> =
                process.store.regions().map(|region| &region.range).collect();
            let pairs = self.world.content(machine, &KeyRange::all());
            if let Some((key, _)) =
                pairs.iter().find(|(key, _)| ranges.iter().all(|range| !range.contains(key)))
            {
                return Some(format!("store {store} has {key:?}, and no region with it"));
            }
        }
        None
    }

    fn finish(&mut self) -> Verdict {
        let mut held = BTreeMap::new();
        for (machine, region) in self.regions().values() {
            held.extend(self.world.content(*machine, &region.range));
        }
        self.clients.finish(&held)?;
        let mut stored = Vec::new();
        for (machine, region) in self.regions().values() {
            stored.extend(self.world.stored(*machine, &region.range));
        }
        self.txns.judge(&stored)
    }

    fn count(&mut self) -> Counters {
        let (operations, open) = self.clients.operations();
        let Answers {
            written,
            undetermined,
            read,
            read_by_followers,
            scanned,
            not_leader,
            epoch_not_match,
            region_not_found,
            key_not_in_region,
            refused,
        } = self.clients.answers;
        let judge = &self.world.judge;
        let named = BTreeMap::from([
            ("process_starts", self.world.starts),
            ("txns_committed", self.txns.committed),
            ("txns_aborted", self.txns.aborted),
            ("txns_unknown", self.txns.unknown),
            ("txn_locks_resolved", self.txns.resolved),
            ("messages", self.world.messages),
            ("disks_lost", self.wiped),
            ("elections", judge.elections()),
            ("entries_committed", judge.committed()),
            ("regions", judge.regions()),
            ("contents_compared", judge.compared),
            ("splits_applied", judge.splits),
            ("conf_changes_applied", judge.changes),
            ("snapshots_installed", judge.installed),
            ("compactions", judge.compactions),
            ("peers_destroyed", judge.destroyed),
            ("orders_done", self.placement.done),
            ("reports", self.placement.reports),
            ("reads_by_lease", self.world.lease_reads),
            ("operations_checked", operations),
            ("operations_open", open),
            ("writes_acknowledged", written),
            ("writes_undetermined", undetermined),
            ("reads_answered", read),
            ("reads_by_followers", read_by_followers),
            ("scans", scanned),
            ("not_leader", not_leader),
            ("epoch_not_match", epoch_not_match),
            ("region_not_found", region_not_found),
            ("key_not_in_region", key_not_in_region),
            ("requests_refused", refused),
        ]);
        Counters {
            events: self.world.trace.events(),
            virtual_time: self.world.now(),
            faults: self.nemesis.strikes.clone(),
            network: self.world.network.counters.clone(),
            named,
        }
    }
}

/// Whether a log has a change of the members after `applied`.
fn has_change(log: &RaftLog, region: RegionId, applied: u64) -> bool {
    let Some(bounds) = log.bounds(region.0) else { return false };
    let first = (applied + 1).max(bounds.base_index + 1);
    let entries = log.entries(region.0, first, bounds.last_index + 1, usize::MAX);
    entries.map_or(true, |entries| entries.iter().any(|entry| entry.kind != 0))
}
