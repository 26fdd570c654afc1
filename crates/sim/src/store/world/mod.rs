//! Stores on machines in virtual time: one queue of events, a network, disks and appliers that take their time.
//!
//! A store says what is to be done and is told when it was. Here everything between the two takes as long as the seed
//! says: the sync of its log, that of its engine, its applier, the news of what was applied, snapshots and their files,
//! the way of a read from the store to the engine. A machine may lose its power at any operation of its disk; its
//! process may be killed alone, and may stand still.

mod event;
mod network;
mod reads;
mod txns;
mod work;

use std::collections::{BTreeMap, VecDeque};

use engine::Engine;
use raftstore::{
    Error, RegionReport,
    apply::Task,
    snapshot::{Descriptor, Pairs},
    split_check::{KeyForm, SplitJob},
    store::{Input, Output, Request, RequestKind, Response, Token, bootstrap},
};
use runtime::Rng;
use types::{Bytes, KeyRange, Region, RegionError, RegionId, StoreId, TimeStamp};

use self::event::Event;
pub(super) use self::txns::Executor;
use super::{
    Action,
    judge::{Judge, pairs},
    machine::{Answer, Disks, Process},
    options::Options,
    txn::{TxnAnswer, TxnCall, TxnRequest},
};
use crate::{
    hash::mix,
    rng::Seed,
    swarm::Swarm,
    world::{
        MachineClock, MachineId, Network, Queue, Time, Trace, TraceText, network::exponential,
    },
};

/// Microseconds until a sender learns that a snapshot did not arrive.
const SNAPSHOT_LOST: u64 = 500_000;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A write was carried out; what was there before.
    Written(Answer),
    /// A region was changed, or something begun.
    Done(Vec<Region>),
    /// A read has seen these pairs, of the region as it is.
    Read(Vec<(Bytes, Bytes)>),
    /// It was refused, or nobody knows.
    Error(RegionError),
    /// There was nobody: it was not even heard.
    Unheard,
    /// What came of a request of a transaction.
    Txn(Box<TxnAnswer>),
}

/// What a store tells the scheduler.
#[derive(Clone, Debug)]
pub(super) enum News {
    /// A region as its leader sees it.
    Report(Box<RegionReport>),
    /// A region is large: it wants to be cut at these keys.
    AskSplit(MachineId, Region, Vec<Bytes>),
    /// A peer has heard of no leader: what is known of its region?
    AskRegion(MachineId, RegionId),
}

/// One machine.
pub(super) struct Machine {
    pub(super) store_id: StoreId,
    pub(super) disks: Disks,
    pub(super) process: Option<Process>,
    /// Counts the starts.
    life: u64,
    clock: MachineClock,
    rng: Rng,
    /// While it stands still, what would have reached it waits here.
    frozen: Option<Frozen>,
    missed_ticks: u64,
    /// Its disk does nothing before.
    pub(super) stalled_until: Time,
    /// Its applier does nothing before.
    pub(super) applier_stalled_until: Time,
    /// A failure of its disk was ordered: its errors are expected.
    pub(super) is_doomed: bool,
    pub(super) latency: Latency,
}

/// A process that stands still.
#[derive(Default)]
struct Frozen {
    waiting: Vec<Event>,
    /// Only the store stands still; readers on threads of their own go on.
    readers_go_on: bool,
}

/// How slow a machine's disk is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) min: u64,
    pub(super) mean: u64,
    pub(super) slow: f64,
}

/// Machines, what connects them, and what happens next.
pub(super) struct World {
    now: Time,
    queue: Queue<Event>,
    options: Options,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) judge: Judge,
    pub(super) trace: Trace,
    /// Answers that nobody has taken yet.
    answers: Vec<(Token, Fate)>,
    /// What reads want to see.
    wanted: BTreeMap<Token, KeyRange>,
    /// What reads of transactions want to see.
    pub(super) txn_reads: BTreeMap<Token, TxnRequest>,
    /// What stores have said of what transactions have proposed, and nobody has taken yet.
    pub(super) txn_replied: VecDeque<(MachineId, Token, Result<(), RegionError>)>,
    /// The last timestamp that was given out.
    last_timestamp: TimeStamp,
    /// What stores tell the scheduler.
    pub(super) news: Vec<News>,
    /// Reads that were answered from a lease.
    pub(super) lease_reads: u64,
    /// Machines whose process has ended because of their disk.
    pub(super) ended: Vec<MachineId>,
    pub(super) starts: u64,
    pub(super) messages: u64,
}

impl World {
    /// Machines without processes; the first `replicas` have one region with everything.
    pub(super) fn new(root: Seed, swarm: &Swarm, options: &Options, text: TraceText) -> World {
        let latency = latency_of(&swarm.disk);
        let machine = |(number, clock): (usize, &MachineClock)| Machine {
            store_id: StoreId(number as u64 + 1),
            disks: Disks::new(),
            process: None,
            life: 0,
            clock: *clock,
            rng: root.numbered("machine", number as u64),
            frozen: None,
            missed_ticks: 0,
            stalled_until: 0,
            applier_stalled_until: 0,
            is_doomed: false,
            latency,
        };
        World {
            now: 0,
            queue: Queue::new(swarm.tie_break, root.stream("ties")),
            options: options.clone(),
            machines: swarm.clocks.iter().enumerate().map(machine).collect(),
            network: Network::new(swarm.machines, swarm.network.clone(), root.stream("network")),
            judge: Judge::default(),
            trace: Trace::new(text),
            answers: Vec::new(),
            wanted: BTreeMap::new(),
            txn_reads: BTreeMap::new(),
            txn_replied: VecDeque::new(),
            last_timestamp: TimeStamp::ZERO,
            news: Vec::new(),
            lease_reads: 0,
            ended: Vec::new(),
            starts: 0,
            messages: 0,
        }
    }

    /// Writes the first region to the machines whose stores are its members.
    pub(super) fn bootstrap(&mut self, region: &Region) {
        for machine in &self.machines {
            if region.peer_on(machine.store_id).is_some() {
                let written = bootstrap(&*machine.disks.engine, std::slice::from_ref(region));
                written.expect("an empty engine takes a region");
            }
        }
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn next_time(&self) -> Option<Time> {
        self.queue.next_time()
    }

    /// The machine on which a store lives, if it was not lost.
    pub(super) fn machine_of(&self, store: StoreId) -> Option<MachineId> {
        self.machines.iter().position(|machine| machine.store_id == store)
    }

    /// The process of a machine, if it runs.
    pub(super) fn process(&self, machine: MachineId) -> Option<&Process> {
        self.machines[machine].process.as_ref()
    }

    /// The machines that run, with their stores.
    pub(super) fn processes(&self) -> impl Iterator<Item = (MachineId, StoreId, &Process)> {
        self.machines.iter().enumerate().filter_map(|(number, machine)| {
            Some((number, machine.store_id, machine.process.as_ref()?))
        })
    }

    pub(super) fn is_frozen(&self, machine: MachineId) -> bool {
        self.machines[machine].frozen.is_some()
    }

    pub(super) fn schedule(&mut self, delay: Time, action: Action) {
        self.queue.schedule(self.now + delay, Event::Action(action));
    }

    pub(super) fn take_answers(&mut self) -> Vec<(Token, Fate)> {
        std::mem::take(&mut self.answers)
    }

    /// A request reaches a store after `delay`. `wanted`: what a read wants to see.
    pub(super) fn request(
        &mut self,
        delay: Time,
        store: StoreId,
        request: Request,
        wanted: Option<KeyRange>,
    ) {
        if let Some(range) = wanted {
            self.wanted.insert(request.token, range);
        }
        match self.machine_of(store) {
            Some(machine) => {
                let event = Event::Request { machine, request: Box::new(request) };
                self.queue.schedule(self.now + delay, event);
            }
            None => self.answer(request.token, Fate::Unheard),
        }
    }

    /// A store is told of a region after `delay`.
    pub(super) fn tell_region(&mut self, delay: Time, machine: MachineId, region: Region) {
        let event = Event::RegionKnown { machine, region: Box::new(region) };
        self.queue.schedule(self.now + delay, event);
    }

    /// A request of a transaction reaches a store after `delay`.
    pub(super) fn txn_request(&mut self, delay: Time, store: StoreId, call: TxnCall) {
        match self.machine_of(store) {
            Some(machine) => {
                let call = Box::new(call);
                self.queue.schedule(self.now + delay, Event::Txn { machine, call });
            }
            None => self.answer(call.token, Fate::Unheard),
        }
    }

    fn schedule_event(&mut self, delay: Time, event: Event) {
        self.queue.schedule(self.now + delay, event);
    }

    /// A timestamp of the scheduler: later than all before, and about what its clock shows.
    pub(super) fn timestamp(&mut self) -> TimeStamp {
        let now = TimeStamp::compose(self.now / 1_000, 0);
        self.last_timestamp = now.max(TimeStamp(self.last_timestamp.0 + 1));
        self.last_timestamp
    }

    pub(super) fn answer(&mut self, token: Token, fate: Fate) {
        self.wanted.remove(&token);
        self.txn_reads.remove(&token);
        self.trace.note(token.0);
        self.trace.line(self.now, || format!("  {token:?} {fate:?}"));
        self.answers.push((token, fate));
    }

    /// Starts a store from what its disks have.
    pub(super) fn start(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        if slot.process.is_some() {
            return;
        }
        slot.life += 1;
        self.starts += 1;
        let rng = slot.rng.fork();
        self.trace.note(mix(machine as u64));
        self.trace.line(self.now, || format!("m{machine} starts as store {}", slot.store_id));
        let opened = Process::open(
            slot.store_id,
            &slot.disks,
            &self.options,
            slot.clock.monotonic(self.now),
            rng,
        );
        let process = match opened {
            Ok(process) => process,
            Err(error) => return self.fatal(machine, &error, "a store starts"),
        };
        self.judge.starts(slot.store_id, &process);
        let ids: Vec<RegionId> = process.store.regions().map(|region| region.id).collect();
        for region in ids {
            self.judge.sees_numbers(slot.store_id, region, &process);
        }
        slot.process = Some(process);
        slot.missed_ticks = 0;
        let life = slot.life;
        // Clocks are not in step.
        let first = slot.rng.range(1..=self.options.tick);
        self.queue.schedule(self.now + first, Event::Tick { machine, life });
        self.turn(machine);
    }

    /// The power of a machine goes.
    pub(super) fn crash(&mut self, machine: MachineId) {
        self.trace.line(self.now, || format!("m{machine} loses its power"));
        self.end(machine);
        let slot = &mut self.machines[machine];
        slot.disks.crash(&mut slot.rng);
        slot.is_doomed = false;
    }

    /// The process of a machine is killed; what it has written is there.
    pub(super) fn kill(&mut self, machine: MachineId) {
        if self.machines[machine].is_doomed {
            return self.crash(machine);
        }
        self.trace.line(self.now, || format!("m{machine} is killed"));
        self.end(machine);
    }

    fn end(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        slot.process = None;
        slot.stalled_until = 0;
        slot.applier_stalled_until = 0;
        let waiting = slot.frozen.take().map(|frozen| frozen.waiting).unwrap_or_default();
        // Senders learn that their snapshots have not arrived.
        let is_snapshot = |event: &Event| matches!(event, Event::Message { file: Some(_), .. });
        waiting.into_iter().filter(is_snapshot).for_each(|event| self.happen(event));
    }

    /// A machine that is off gets empty disks and comes back as another store.
    pub(super) fn wipe(&mut self, machine: MachineId, store_id: StoreId) {
        self.trace.line(self.now, || format!("m{machine} loses its disks, is store {store_id}"));
        let slot = &mut self.machines[machine];
        assert!(slot.process.is_none(), "disks are replaced while nothing runs");
        slot.disks = Disks::new();
        slot.store_id = store_id;
    }

    /// An operation of the disk has failed, or the store says that it can't go on.
    fn fatal(&mut self, machine: MachineId, error: &Error, property: &'static str) {
        if self.machines[machine].is_doomed {
            self.trace.line(self.now, || format!("m{machine} ends: {error}"));
            self.crash(machine);
            self.ended.push(machine);
        } else {
            let store = self.machines[machine].store_id;
            self.judge.fails(property, format!("store {store}: {error}"));
        }
    }

    /// The machine stands still for `duration`, or its store alone; what reaches it waits.
    pub(super) fn freeze(&mut self, machine: MachineId, duration: Time, readers_go_on: bool) {
        let slot = &mut self.machines[machine];
        if slot.frozen.is_none() && slot.process.is_some() {
            slot.frozen = Some(Frozen { readers_go_on, ..Frozen::default() });
            let alone = if readers_go_on { " (readers do not)" } else { "" };
            self.trace.line(self.now, || format!("m{machine} freezes{alone}"));
            self.queue.schedule(self.now + duration, Event::Thaw { machine });
        }
    }

    /// A machine that stands still goes on: the ticks that it owes first, as the Raft core demands of its owner, then all
    /// that has waited.
    pub(super) fn thaw(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        let Some(Frozen { waiting, .. }) = slot.frozen.take() else { return };
        let owed = std::mem::take(&mut slot.missed_ticks);
        let now = slot.clock.monotonic(self.now);
        self.trace.line(self.now, || format!("m{machine} goes on, {owed} ticks late"));
        for _ in 0..owed {
            if let Some(process) = &mut self.machines[machine].process {
                process.set_clock(now);
                process.tick_begins();
            }
            self.input(machine, Input::Tick);
        }
        for event in waiting {
            self.happen(event);
        }
    }

    /// The next event happens. An action is its owner's to perform.
    pub(super) fn step(&mut self) -> Option<Action> {
        let (time, event) = self.queue.pop()?;
        self.now = time;
        let (kind, detail) = event.numbers();
        self.trace.event(time, kind, [detail, 0]);
        match event {
            Event::Action(action) => {
                self.trace.line(time, || format!("{action:?}"));
                return Some(action);
            }
            event => self.happen(event),
        }
        self.txn_replies();
        None
    }

    fn happen(&mut self, event: Event) {
        if let Some((machine, life)) = event.address() {
            let slot = &mut self.machines[machine];
            if life.is_some_and(|life| life != slot.life) {
                return;
            }
            if slot.process.is_some()
                && let Some(frozen) = &mut slot.frozen
                && !(frozen.readers_go_on && event.is_a_readers())
            {
                match event {
                    Event::Tick { life, .. } => {
                        slot.missed_ticks += 1;
                        let next = self.now + slot.clock.world_duration(self.options.tick);
                        self.queue.schedule(next, Event::Tick { machine, life });
                    }
                    event => frozen.waiting.push(event),
                }
                return;
            }
            let now = slot.clock.monotonic(self.now);
            if let Some(process) = &mut slot.process {
                process.set_clock(now);
            }
        }
        match event {
            Event::Tick { machine, life } => {
                let next =
                    self.now + self.machines[machine].clock.world_duration(self.options.tick);
                if let Some(process) = &mut self.machines[machine].process {
                    process.tick_begins();
                    self.queue.schedule(next, Event::Tick { machine, life });
                    self.input(machine, Input::Tick);
                    self.maintain(machine);
                }
            }
            Event::Message { from, to, message, file } => self.arrive(from, to, message, file),
            Event::Sent { machine, region_id, to, arrived, .. } => {
                if let Some(process) = &mut self.machines[machine].process {
                    process.sends -= 1;
                    self.input(machine, Input::SnapshotSent { region_id, to, arrived });
                }
            }
            Event::RegionKnown { machine, region } => {
                self.input(machine, Input::RegionKnown(*region));
            }
            Event::LogSync { machine, done, .. } => self.log_is_synced(machine, done),
            Event::EngineSync { machine, .. } => {
                let slot = &self.machines[machine];
                if slot.process.is_some() {
                    match slot.disks.engine.sync() {
                        Ok(()) => self.input(machine, Input::EngineSynced),
                        Err(error) => self.fatal(machine, &error.into(), "an engine is synced"),
                    }
                }
            }
            Event::Apply { machine, .. } => self.apply(machine),
            Event::Applied { machine, results, .. } => self.applied(machine, results),
            Event::MakeSnapshot { machine, region_id, .. } => {
                let slot = &self.machines[machine];
                let Some(process) = &slot.process else { return };
                match process.snapshots.make(&*slot.disks.engine, region_id) {
                    Ok(descriptor) => {
                        self.input(machine, Input::SnapshotMade { region_id, descriptor });
                    }
                    Err(error) => self.fatal(machine, &error, "a snapshot is made"),
                }
            }
            Event::Read { machine, token, region_id, version, term, .. } => {
                self.read(machine, token, (region_id, version, term));
            }
            Event::Request { machine, request } => {
                let token = request.token;
                if self.machines[machine].process.is_none() {
                    self.answer(token, Fate::Unheard);
                } else {
                    self.trace.line(self.now, || format!("m{machine} is asked {request:?}"));
                    match request.kind {
                        RequestKind::Read { replica_read: false } => {
                            self.begin_read(machine, request)
                        }
                        _ => self.input(machine, Input::Request(*request)),
                    }
                }
            }
            Event::Txn { machine, call } => {
                self.trace.line(self.now, || format!("m{machine} is asked {call:?}"));
                self.txn_arrives(machine, *call);
            }
            Event::MaxTs { machine, id, term, ts, .. } => {
                self.max_ts_comes(machine, (id, term), ts);
            }
            Event::LeaseRead { machine, request, moment, snapshot, .. } => {
                self.read_by_lease(machine, *request, moment, &*snapshot);
            }
            Event::CheckSplit { machine, job, .. } => {
                let slot = &self.machines[machine];
                if slot.process.is_none() {
                    return;
                }
                // What clients without transactions write is no encoded key, and taken as it is.
                match job.run(&*slot.disks.engine, &self.options.store.split, KeyForm::Encoded) {
                    Ok(found) => {
                        let SplitJob { region_id, epoch, .. } = job;
                        self.input(machine, Input::SplitChecked { region_id, epoch, found });
                    }
                    Err(error) => self.fatal(machine, &error, "a region is looked at"),
                }
            }
            Event::Thaw { machine } => self.thaw(machine),
            Event::Action(_) => {}
        }
    }

    pub(super) fn input(&mut self, machine: MachineId, input: Input<Answer>) {
        let Some(process) = &mut self.machines[machine].process else { return };
        if let Err(error) = process.store.step(input) {
            return self.fatal(machine, &error, "a store goes on");
        }
        self.turn(machine);
    }

    /// Lets a store do what its inputs have brought about.
    fn turn(&mut self, machine: MachineId) {
        let slot = &mut self.machines[machine];
        let Some(process) = &mut slot.process else { return };
        let life = slot.life;
        let outputs = match process.store.turn() {
            Ok(outputs) => outputs,
            Err(error) => return self.fatal(machine, &error, "a store goes on"),
        };
        // What others may know first, then what others are told.
        for output in &outputs {
            match output {
                Output::View(view) => {
                    process.views.put((**view).clone(), &process.tick_times);
                    if view.leader.is_some_and(|leader| leader.id == view.peer_id) {
                        self.judge.leads(view.region.id, process);
                    }
                }
                Output::Lease { region_id, lease } => {
                    process.views.renew(*region_id, *lease, &process.tick_times);
                }
                Output::Gone { region_id } => process.views.remove(*region_id),
                _ => {}
            }
        }
        for output in outputs {
            let Some(process) = &mut self.machines[machine].process else { return };
            match output {
                Output::View(_) | Output::Lease { .. } | Output::Gone { .. } => {}
                Output::Report(report) => self.news.push(News::Report(report)),
                Output::CheckSplit(job) => {
                    let delay = self.disk_delay(machine);
                    self.queue.schedule(self.now + delay, Event::CheckSplit { machine, life, job });
                }
                Output::AskSplit { region, keys } => {
                    self.news.push(News::AskSplit(machine, region, keys));
                }
                Output::AskRegion { region_id } => {
                    self.news.push(News::AskRegion(machine, region_id));
                }
                Output::WasSplit { .. } => {}
                Output::Send(message) => self.post(machine, message),
                Output::SyncLog => self.sync_log(machine),
                Output::SyncEngine => {
                    let flush =
                        exponential(&mut self.machines[machine].rng, self.options.engine_sync);
                    let delay = self.disk_delay(machine) + flush;
                    self.queue.schedule(self.now + delay, Event::EngineSync { machine, life });
                }
                Output::Apply(task) => self.give(machine, task),
                Output::Install { peer_id, descriptor } => {
                    match process.snapshots.source(&descriptor) {
                        Ok(source) => {
                            let Descriptor { region, applied, .. } = descriptor;
                            self.give(machine, Task::Install { peer_id, region, applied, source });
                        }
                        Err(error) => return self.fatal(machine, &error, "a snapshot is found"),
                    }
                }
                Output::MakeSnapshot { region_id } => {
                    let mean = self.options.snapshot_delay;
                    let delay = exponential(&mut self.machines[machine].rng, mean);
                    let event = Event::MakeSnapshot { machine, life, region_id };
                    self.queue.schedule(self.now + delay, event);
                }
                Output::ForgetSnapshot { region_id, applied } => {
                    if let Err(error) = process.snapshots.forget_received(region_id, applied) {
                        return self.fatal(machine, &error, "a snapshot is forgotten");
                    }
                }
                Output::ForgetMade { region_id, applied } => {
                    if let Err(error) = process.snapshots.forget_made(region_id, applied) {
                        return self.fatal(machine, &error, "a snapshot is forgotten");
                    }
                }
                Output::Reply { token, result } => {
                    let Some(result) = self.is_txn_reply(machine, token, result) else { continue };
                    let fate = match result {
                        Ok(Response::Written(before)) => Fate::Written(before),
                        Ok(Response::Changed(regions)) => Fate::Done(regions),
                        Ok(Response::Begun) => Fate::Done(Vec::new()),
                        Err(error) => Fate::Error(error),
                    };
                    self.answer(token, fate);
                }
                Output::Read { token, region_id, version, term } => {
                    let delay = self.read_delay(machine);
                    let event = Event::Read { machine, life, token, region_id, version, term };
                    self.queue.schedule(self.now + delay, event);
                }
                // Nobody asks for hashes here: the contents themselves are compared.
                Output::ComputeHash(_) | Output::Inconsistent { .. } => {}
            }
        }
    }

    /// The region with `key` as the store that leads it in the latest term knows it.
    pub(super) fn leader_of(&self, key: &[u8]) -> Option<(MachineId, Region)> {
        let mut best: Option<((u64, u64), MachineId, &Region)> = None;
        for (machine, _, process) in self.processes() {
            for region in process.store.regions().filter(|region| region.range.contains(key)) {
                let Some(status) = process.store.raft_status(region.id) else { continue };
                let newness = (region.epoch.version, status.term);
                let leads = status.role == raft::RoleKind::Leader;
                if leads && best.as_ref().is_none_or(|best| best.0 < newness) {
                    best = Some((newness, machine, region));
                }
            }
        }
        best.map(|(_, machine, region)| (machine, region.clone()))
    }

    /// The pairs of a range in the engine of a machine.
    pub(super) fn content(&self, machine: MachineId, range: &KeyRange) -> Vec<(Bytes, Bytes)> {
        let stored = self.stored(machine, range);
        stored.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    /// The same, with their column families.
    pub(super) fn stored(&self, machine: MachineId, range: &KeyRange) -> Pairs {
        let snapshot = self.machines[machine].disks.engine.snapshot();
        pairs(&*snapshot.expect("the memory engine has snapshots"), range)
    }

    /// What each store believes, a line for each peer.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for (machine, store, process) in self.processes() {
            for status in process.store.statuses() {
                text += &format!("\n  m{machine} store {store}: {status}");
            }
        }
        text
    }
}

pub(super) fn latency_of(options: &crate::world::DiskOptions) -> Latency {
    Latency { min: options.latency_min, mean: options.latency_mean, slow: options.slow }
}
