//! The world around the scheduler: machines, regions as they really are, a network that loses and delays, a log that
//! becomes durable later, and a queue of events in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use runtime::Rng;
use scheduler::{
    Answer, ChangeStyle, ClusterConfig, Instruction, LogPosition, Now, Order, Record, RegionInfo,
    ScheduleConfig, Scheduler, SplitIds, Store, StoreStats, testing,
};
use types::{
    ApiMode, Bytes, ClusterId, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    StoreId,
};

use crate::group::Group;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
/// When a store counts as down here.
pub(crate) const DOWN: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const CLUSTER: ClusterId = ClusterId(7);

/// A store as it really is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) died: Option<Duration>,
    /// When it died first, if it was not back for long since: reports of that may still be under way.
    missed_since: Option<Duration>,
    back_since: Duration,
    /// Until when nothing passes between it and the scheduler.
    pub(crate) cut_off_until: Duration,
    /// When the scheduler last heard of it.
    pub(crate) heard: Duration,
}

impl Machine {
    /// Since when it may be missed; far away if it is not.
    pub(crate) fn missed_since(&self, now: Duration) -> Duration {
        let is_back = self.is_alive() && self.back_since + 90 * SECOND < now;
        self.missed_since.filter(|_| !is_back).unwrap_or(now)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.died.is_none()
    }
}

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick,
    StoreBeat(StoreId),
    RegionBeat(RegionId),
    StoreReport(StoreStats),
    RegionReport(Box<RegionInfo>),
    Order(Box<Order>),
    CatchUp(RegionId, PeerId),
    Elect(RegionId),
    Synced(usize),
    Split(Box<Region>, SplitIds),
    SplitReport(Vec<Region>),
    Return(StoreId),
    Crash,
    Squeeze,
    Chaos,
}

/// What waits for the scheduler's log.
#[derive(Debug)]
pub(crate) struct Held {
    after: LogPosition,
    event: Event,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) scheduler: Scheduler,
    pub(crate) max_replicas: usize,
    /// What it was before, and until when operators may go on with that.
    pub(crate) former_replicas: Vec<(usize, Duration)>,
    pub(crate) machines: BTreeMap<StoreId, Machine>,
    pub(crate) groups: BTreeMap<RegionId, Group>,
    /// Ids that were used, and for what.
    pub(crate) used_ids: BTreeMap<u64, String>,
    /// The epoch up to which each region was known.
    pub(crate) known_epochs: BTreeMap<RegionId, RegionEpoch>,
    /// The version up to which the region of a key was known.
    pub(crate) known_versions: BTreeMap<Bytes, u64>,
    /// Peers whose removal was decided.
    pub(crate) judged: BTreeSet<PeerId>,
    /// Peers that somebody else has put somewhere.
    pub(crate) meddled: BTreeSet<PeerId>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) config: ScheduleConfig,
    queue: BTreeMap<(Duration, u64), Event>,
    n_events: u64,
    log: Vec<Record>,
    pub(crate) durable: usize,
    held: Vec<Held>,
    pub(crate) disk_stalls_until: Duration,
    loss: f64,
    delay: Duration,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let scheduler = Scheduler::new(CLUSTER, ApiMode::V1);
        let config = ScheduleConfig {
            max_store_down_time: DOWN,
            prepare_timeout: MINUTE,
            region_silent_time: MINUTE,
            store_add_limit: 2,
            store_remove_limit: 4,
            leader_tolerance: rng.range(1..=4),
            change_style: match rng.chance(0.6) {
                true => ChangeStyle::Joint,
                false => ChangeStyle::OneByOne,
            },
            ..ScheduleConfig::default()
        };
        let mut world = World {
            now: Duration::ZERO,
            log: vec![Record::Created { cluster_id: CLUSTER, api_mode: ApiMode::V1 }],
            scheduler,
            max_replicas: 3,
            former_replicas: Vec::new(),
            machines: BTreeMap::new(),
            groups: BTreeMap::new(),
            used_ids: BTreeMap::new(),
            known_epochs: BTreeMap::new(),
            known_versions: BTreeMap::new(),
            judged: BTreeSet::new(),
            meddled: BTreeSet::new(),
            counts: BTreeMap::new(),
            config,
            queue: BTreeMap::new(),
            n_events: 0,
            durable: 1,
            held: Vec::new(),
            disk_stalls_until: Duration::ZERO,
            loss: [0.0, 0.05, 0.15][rng.range(0..3) as usize],
            delay: Duration::from_millis([10, 500, 3000][rng.range(0..3) as usize]),
            trace: std::env::var("CONVERGENCE_TRACE").is_ok(),
            rng,
        };
        world.configure();
        world.bootstrap();
        world
    }

    /// The first id that is not covered by what was recorded.
    pub(crate) fn id_window_end(&self) -> u64 {
        let window = |record: &Record| match record {
            Record::IdWindow { end } => Some(*end),
            _ => None,
        };
        self.log.iter().rev().find_map(window).unwrap()
    }

    /// Gives the scheduler what it does not record.
    fn configure(&mut self) {
        self.scheduler.set_schedule_config(self.config.clone());
        self.scheduler.set_rng(self.rng.fork());
    }

    fn bootstrap(&mut self) {
        let peer = Peer { id: PeerId(3), store_id: StoreId(1), role: PeerRole::Voter };
        let region = Region {
            id: RegionId(2),
            range: KeyRange::all(),
            epoch: RegionEpoch::FIRST,
            peers: vec![peer],
        };
        let ids = self.scheduler.alloc_id(3).unwrap().value;
        assert_eq!((ids.first, ids.last), (1, 3));
        for (id, what) in [(1, "store 1"), (2, "region 2"), (3, "a peer of region 2 on store 1")] {
            self.used_ids.insert(id, what.to_owned());
        }
        let store = Store { id: StoreId(1), address: "1".into(), ..Store::default() };
        let _ = self.scheduler.bootstrap(store, vec![region.clone()], ApiMode::V1).unwrap();
        self.collect();
        self.durable = self.log.len();
        let leader = Some(peer);
        let size = self.size();
        let info =
            RegionInfo { region, leader, term: 1, approximate_size: size, ..RegionInfo::default() };
        self.groups.insert(RegionId(2), Group::new(info, self.now));
        self.start_machine(StoreId(1));
        self.after(Duration::ZERO, Event::RegionBeat(RegionId(2)));
        self.after(Duration::ZERO, Event::Tick);
    }

    pub(crate) fn size(&mut self) -> u64 {
        self.rng.range(0..40) * MIB
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Chaos, then calm until everything is as it should be, then nothing moves.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.rng.range(0..14) {
            self.let_pass(3 * SECOND);
            self.ask_split();
        }
        self.after(30 * SECOND, Event::Chaos);
        self.run_until(20 * MINUTE, |_| false);
        self.queue
            .retain(|_, event| !matches!(event, Event::Chaos | Event::Crash | Event::Squeeze));
        self.calm_down();
        let deadline = self.now + 30 * MINUTE;
        loop {
            self.run_until(deadline, |world| {
                !world.is_anybody_on_the_way() && world.unsettled().is_none()
            });
            if let Some(what) = self.unsettled() {
                panic!("no convergence: {what}");
            }
            // What was said and asked for before may still be under way.
            self.let_pass(MINUTE + 5 * SECOND);
            if self.unsettled().is_none() {
                break;
            }
        }
        let still_until = self.now + 10 * MINUTE;
        self.run_until(still_until, |world| {
            let running = world.scheduler.operators().value;
            assert!(running.is_empty(), "a settled cluster does not rest: {running:?}");
            false
        });
        self.check_picture();
    }

    pub(crate) fn run_until(&mut self, end: Duration, is_over: impl Fn(&mut World) -> bool) {
        while let Some((&key, _)) = self.queue.first_key_value() {
            if end < key.0 {
                self.now = self.now.max(end);
                return;
            }
            let event = self.queue.remove(&key).unwrap();
            self.now = key.0;
            let is_tick = matches!(event, Event::Tick);
            if self.trace && !matches!(event, Event::Tick | Event::StoreBeat(_)) {
                println!("{:>9.3} {event:?}", self.now.as_secs_f64());
            }
            self.happen(event);
            if is_tick && is_over(self) {
                return;
            }
        }
    }

    /// Whether a machine that is dead will be back.
    fn is_anybody_on_the_way(&self) -> bool {
        self.queue.values().any(|event| matches!(event, Event::Return(_)))
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.n_events += 1;
        self.queue.insert((self.now + delay, self.n_events), event);
    }

    pub(crate) fn clock(&self) -> Now {
        Now { monotonic: self.now, wall_ms: 1_000_000 + self.now.as_millis() as u64 }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            Event::StoreBeat(id) => self.store_beat(id),
            Event::RegionBeat(id) => {
                if self.groups.contains_key(&id) {
                    self.report(id);
                    self.after(20 * SECOND, Event::RegionBeat(id));
                }
            }
            Event::StoreReport(stats) => {
                self.machines.get_mut(&stats.store_id).unwrap().heard = self.now;
                let now = self.clock();
                // A tombstone is told so.
                let _ = self.scheduler.store_heartbeat(now, stats);
            }
            Event::RegionReport(report) => self.on_region_report(*report),
            Event::Order(order) => self.execute(&order),
            Event::CatchUp(region, peer) => self.catch_up(region, peer),
            Event::Elect(region) => self.elect(region),
            Event::Synced(position) => self.synced(position),
            Event::Split(region, ids) => self.split(&region, &ids),
            Event::SplitReport(regions) => {
                let answer = self.scheduler.report_batch_split(regions);
                assert!(answer.is_ok(), "a split is refused: {answer:?}");
            }
            Event::Return(id) => self.return_machine(id),
            Event::Crash => self.crash_scheduler(),
            Event::Squeeze => self.squeeze(),
            Event::Chaos => {
                self.chaos();
                let pause = self.seconds(5..90);
                self.after(pause, Event::Chaos);
            }
        }
        self.collect();
    }

    fn tick(&mut self) {
        let now = self.clock();
        self.scheduler.tick(now);
        let Answer { value: orders, after } = self.scheduler.take_orders();
        for order in orders {
            self.issue(order, after);
        }
        self.check_every_tick();
        self.after(SECOND, Event::Tick);
    }

    /// Takes what the scheduler recorded; it is durable a bit later.
    fn collect(&mut self) {
        let records = self.scheduler.take_outbox();
        if !records.is_empty() {
            self.log.extend(records);
            let stalled = self.disk_stalls_until.saturating_sub(self.now);
            let delay = stalled + Duration::from_millis(self.rng.range(1..1500));
            self.after(delay, Event::Synced(self.log.len()));
        }
    }

    fn synced(&mut self, position: usize) {
        // A sync from before a crash says nothing.
        if self.log.len() < position {
            return;
        }
        self.durable = self.durable.max(position);
        let durable = LogPosition(self.durable as u64);
        let held = std::mem::take(&mut self.held);
        for Held { after, event } in held {
            self.release(after, event, durable);
        }
    }

    /// Waits for the disk.
    pub(crate) fn make_durable(&mut self) {
        self.collect();
        self.synced(self.log.len());
    }

    /// Lets an answer out once what it rests on is durable.
    pub(crate) fn hold(&mut self, after: LogPosition, event: Event) {
        let durable = LogPosition(self.durable as u64);
        self.release(after, event, durable);
    }

    fn release(&mut self, after: LogPosition, event: Event, durable: LogPosition) {
        if durable < after {
            self.held.push(Held { after, event });
            return;
        }
        self.note_ids(&event);
        let is_lost = self.is_lost() || self.is_cut_off(&event);
        if !is_lost {
            let delay = self.random_delay();
            self.after(delay, event);
        }
    }

    fn is_cut_off(&self, event: &Event) -> bool {
        let Event::Order(order) = event else { return false };
        let machine = &self.machines[&order.leader.store_id];
        !machine.is_alive() || self.now < machine.cut_off_until
    }

    /// A power cut of the scheduler's machine: what was not durable is gone, and so are its plans.
    pub(crate) fn crash_scheduler(&mut self) {
        self.count("crashes of the scheduler");
        self.log.truncate(self.durable);
        self.queue.retain(|_, event| !matches!(event, Event::Synced(_)));
        self.held.clear();
        let position = LogPosition(self.log.len() as u64);
        self.scheduler = Scheduler::recover(self.log.clone(), position).unwrap();
        self.known_epochs.clear();
        self.known_versions.clear();
        for machine in self.machines.values_mut() {
            machine.heard = self.now;
        }
        let max = self.scheduler.cluster_config().unwrap().value.max_peer_count;
        self.max_replicas = max as usize;
        self.configure();
    }

    pub(crate) fn set_max_replicas(&mut self, max: usize) {
        let config = ClusterConfig { max_peer_count: max as u32 };
        let _ = self.scheduler.put_cluster_config(config).unwrap();
        self.former_replicas.push((self.max_replicas, self.now + 11 * MINUTE));
        self.max_replicas = max;
    }

    pub(crate) fn is_lost(&mut self) -> bool {
        let loss = self.loss;
        self.rng.chance(loss)
    }

    pub(crate) fn seconds(&mut self, range: Range<u64>) -> Duration {
        Duration::from_secs(self.rng.range(range))
    }

    pub(crate) fn random_delay(&mut self) -> Duration {
        let longest = self.delay.as_millis() as u64;
        Duration::from_millis(self.rng.range(0..=longest))
    }
}

/// Stores and regions as they really are.
impl World {
    pub(crate) fn start_machine(&mut self, id: StoreId) {
        let heard = self.now;
        self.machines.insert(id, Machine { heard, ..Machine::default() });
        self.after(Duration::ZERO, Event::StoreBeat(id));
    }

    fn store_beat(&mut self, id: StoreId) {
        let machine = &self.machines[&id];
        let passes = machine.is_alive() && machine.cut_off_until <= self.now;
        if passes && !self.is_lost() {
            let on_it = |group: &&Group| group.info.region.peer_on(id).is_some();
            let stats = StoreStats {
                store_id: id,
                capacity: 1 << 40,
                available: 1 << 39,
                region_count: self.groups.values().filter(on_it).count() as u32,
                ..StoreStats::default()
            };
            let delay = self.random_delay();
            self.after(delay, Event::StoreReport(stats));
        }
        self.after(10 * SECOND, Event::StoreBeat(id));
    }

    /// The leader of a region reports.
    pub(crate) fn report(&mut self, id: RegionId) {
        let group = &self.groups[&id];
        let Some(leader) = group.info.leader else { return };
        let machine = &self.machines[&leader.store_id];
        let passes = machine.is_alive() && machine.cut_off_until <= self.now;
        let report = group.report(self.now, |store| self.machines[&store].died);
        if passes && !self.is_lost() {
            let delay = self.random_delay();
            self.after(delay, Event::RegionReport(Box::new(report.clone())));
            // What a network does with one of many.
            if self.rng.chance(0.05) {
                let late = self.seconds(1..60);
                self.after(late, Event::RegionReport(Box::new(report)));
            }
        }
    }

    fn on_region_report(&mut self, report: RegionInfo) {
        let before = self.scheduler.operator(report.region.id).ok().map(|answer| answer.value);
        let known = self.scheduler.get_region_by_id(report.region.id).unwrap().value;
        let answer = self.scheduler.region_heartbeat(report.clone());
        if let Ok(Answer { value, after }) = answer {
            self.check_operator_after(before, known.as_deref(), &report);
            if let Some(order) = value {
                self.issue(order, after);
            }
        }
    }

    fn issue(&mut self, order: Order, after: LogPosition) {
        self.check_order(&order);
        self.hold(after, Event::Order(Box::new(order)));
    }

    /// Whether a peer takes part in decisions now.
    pub(crate) fn is_there(&self, group: &Group, peer: &Peer) -> bool {
        self.machines[&peer.store_id].is_alive() && group.has_data(peer.id)
    }

    pub(crate) fn has_majority(&self, group: &Group) -> bool {
        group.has_majority(|peer| self.is_there(group, peer))
    }

    /// The leader of a region does as it is told, unless the order is for another state of the region.
    fn execute(&mut self, order: &Order) {
        let Some(group) = self.groups.get(&order.region) else { return };
        let is_leader = group.info.leader.is_some_and(|leader| leader.id == order.leader.id);
        let is_alive = self.machines[&order.leader.store_id].is_alive();
        if !is_leader || !is_alive || group.info.region.epoch != order.epoch {
            return;
        }
        let mut changed = group.clone();
        if !self.has_majority(group) {
            return;
        }
        if testing::execute(&mut changed.info, &order.instruction, false).is_err() {
            return;
        }
        if let Instruction::TransferLeader { to } = &order.instruction {
            if !self.is_there(group, to) {
                return;
            }
            changed.info.term += 1;
            self.count("transfers");
        }
        let new = changed.settle(self.now);
        // What a leader knows better than the scheduler: who answers right now.
        if !self.has_majority(&changed) {
            self.count("orders that a leader refused for its majority");
            return;
        }
        self.count("orders done");
        self.groups.insert(order.region, changed);
        for peer in new {
            let seconds = self.seconds(2..40);
            self.after(seconds, Event::CatchUp(order.region, peer));
        }
        self.report(order.region);
    }

    fn catch_up(&mut self, region: RegionId, id: PeerId) {
        let Some(group) = self.groups.get(&region) else { return };
        let Some(peer) = group.peers().iter().find(|peer| peer.id == id) else { return };
        let leads = group.info.leader.is_some_and(|l| self.machines[&l.store_id].is_alive());
        if !leads || !self.machines[&peer.store_id].is_alive() {
            self.after(5 * SECOND, Event::CatchUp(region, id));
            return;
        }
        let group = self.groups.get_mut(&region).unwrap();
        group.lagging.remove(&id);
        group.had_data.insert(id);
        self.report(region);
    }

    pub(crate) fn elect(&mut self, region: RegionId) {
        let Some(group) = self.groups.get(&region) else { return };
        if group.info.leader.is_some_and(|leader| self.machines[&leader.store_id].is_alive()) {
            return;
        }
        assert!(self.has_majority(group), "{region} has lost its majority: {group:?}");
        let candidates: Vec<Peer> = group
            .peers()
            .iter()
            .filter(|peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter))
            .filter(|peer| self.is_there(group, peer))
            .copied()
            .collect();
        let chosen = candidates[self.rng.range(0..candidates.len() as u64) as usize];
        let info = &mut self.groups.get_mut(&region).unwrap().info;
        info.leader = Some(chosen);
        info.term += 1;
        self.report(region);
    }

    fn split(&mut self, asked: &Region, ids: &SplitIds) {
        let Some(group) = self.groups.get(&asked.id) else { return };
        let is_led = group.info.leader.is_some_and(|l| self.machines[&l.store_id].is_alive());
        let may_split = is_led && self.has_majority(group) && !group.is_joint();
        if group.info.region != *asked || !may_split {
            return;
        }
        let Some(middle) = middle(&asked.range) else { return };
        let now = self.now;
        let before = group.report(self.now, |store| self.machines[&store].died);
        let mut old = group.clone();
        old.info.region.epoch.version += 1;
        old.info.approximate_size /= 2;
        let mut new = old.info.clone();
        new.region.id = ids.region;
        let new_is_left = self.rng.chance(0.5);
        let (left, right) = match new_is_left {
            true => (&mut new.region, &mut old.info.region),
            false => (&mut old.info.region, &mut new.region),
        };
        left.range.end = middle.clone().into();
        right.range.start = middle.into();
        let regions = vec![left.clone(), right.clone()];
        for (peer, &id) in new.region.peers.iter_mut().zip(&ids.peers) {
            peer.id = id;
        }
        let on = |old: &Peer| new.region.peer_on(old.store_id).copied();
        let had_data = old.peers().iter().filter(|peer| old.has_data(peer.id));
        let had_data = had_data.filter_map(on).map(|peer| peer.id).collect();
        new.leader = old.info.leader.and_then(|leader| on(&leader));
        let mut new = Group { had_data, ..Group::new(new, now) };
        let all: Vec<PeerId> = new.peers().iter().map(|peer| peer.id).collect();
        for id in all {
            if !new.had_data.contains(&id) {
                new.lagging.insert(id, now);
                self.after(5 * SECOND, Event::CatchUp(ids.region, id));
            }
        }
        self.count("splits");
        self.groups.insert(ids.region, new);
        self.groups.insert(asked.id, old);
        self.after(Duration::ZERO, Event::RegionBeat(ids.region));
        if self.rng.chance(0.3) {
            // Of the old region nothing is heard but what it said before.
            let late = self.seconds(1..20);
            self.after(late, Event::RegionReport(Box::new(before)));
            return;
        }
        if !self.is_lost() {
            let delay = self.random_delay();
            self.after(delay, Event::SplitReport(regions));
        }
        self.report(asked.id);
    }

    pub(crate) fn stop_machine(&mut self, id: StoreId) {
        let now = self.now;
        let machine = self.machines.get_mut(&id).unwrap();
        if machine.back_since + 90 * SECOND < now {
            machine.missed_since = None;
        }
        machine.missed_since.get_or_insert(now);
        machine.died = Some(now);
    }

    /// A machine that was dead is back, with the data that it had.
    pub(crate) fn return_machine(&mut self, id: StoreId) {
        let machine = self.machines.get_mut(&id).unwrap();
        if machine.died.take().is_none() {
            return;
        }
        machine.back_since = self.now;
        self.count("machines back");
        let regions: Vec<RegionId> = self.groups.keys().copied().collect();
        for region in regions {
            let now = self.now;
            let group = self.groups.get_mut(&region).unwrap();
            let leader = group.info.leader.map(|leader| leader.id);
            let Some(peer) = group.info.region.peer_on(id).copied() else { continue };
            if Some(peer.id) != leader && group.has_data(peer.id) {
                group.lagging.insert(peer.id, now);
                let seconds = self.seconds(1..10);
                self.after(seconds, Event::CatchUp(region, peer.id));
            }
        }
    }
}

/// A key between the bounds of a range.
fn middle(range: &KeyRange) -> Option<Vec<u8>> {
    let number =
        |key: &[u8], otherwise: u32| <[u8; 4]>::try_from(key).map_or(otherwise, u32::from_be_bytes);
    let (low, high) = (number(&range.start, 0), number(&range.end, u32::MAX));
    let middle = low + (high - low) / 2;
    (low < middle && middle < high).then(|| middle.to_be_bytes().to_vec())
}
