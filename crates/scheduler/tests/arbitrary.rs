//! Whatever stores report and people wish, in whatever order, nothing panics, and what is asked for makes sense.
//!
//! `SCHEDULER_ARBITRARY_STEPS` says how many requests are made.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, time::Duration};

use runtime::Rng;
use scheduler::{
    Change, ChangeStyle, ClusterConfig, Instruction, Now, Order, RegionInfo, ScheduleConfig,
    Scheduler, Store, StoreStats,
};
use types::{
    ApiMode, ClusterId, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId,
};

const STORES: u64 = 6;
const STEPS_A_SEED: u64 = 400;

#[test]
fn nothing_that_is_reported_breaks_anything() {
    let steps = std::env::var("SCHEDULER_ARBITRARY_STEPS");
    let steps = steps.map_or(60_000, |steps| steps.parse::<u64>().unwrap());
    let mut done = BTreeMap::new();
    for seed in 0..steps / STEPS_A_SEED {
        let mut world = World::new(seed);
        for _ in 0..STEPS_A_SEED {
            world.step(&mut done);
        }
    }
    println!("{done:?}");
    for kind in ["reports", "orders", "wishes", "ticks", "splits", "restarts"] {
        assert!(done.get(kind).is_some_and(|&count| 100 < count), "{kind}: {done:?}");
    }
}

struct World {
    rng: Rng,
    now: Duration,
    scheduler: Scheduler,
}

impl World {
    fn new(seed: u64) -> World {
        let mut scheduler = Scheduler::new(ClusterId(7), ApiMode::V1);
        let store =
            |id: u64| Store { id: StoreId(id), address: id.to_string(), ..Store::default() };
        let _ = scheduler.bootstrap(store(1), Vec::new(), ApiMode::V1).unwrap();
        for id in 2..=STORES {
            let _ = scheduler.put_store(store(id)).unwrap();
        }
        World { rng: Rng::new(seed), now: Duration::from_secs(1), scheduler }
    }

    fn step(&mut self, done: &mut BTreeMap<&'static str, u64>) {
        let mut count = |what, times: usize| *done.entry(what).or_default() += times as u64;
        match self.rng.range(0..20) {
            0..=5 => {
                let report = self.report();
                if let Ok(answer) = self.scheduler.region_heartbeat(report) {
                    count("reports", 1);
                    count("orders", usize::from(answer.value.is_some()));
                    answer.value.iter().for_each(|order| self.check(order));
                }
            }
            6..=9 => self.store_heartbeat(),
            10..=13 => {
                self.now += Duration::from_millis(self.rng.range(0..3000));
                if self.rng.chance(0.02) {
                    self.now += Duration::from_secs(self.rng.range(0..2000));
                }
                let now = self.clock();
                self.scheduler.tick(now);
                let orders = self.scheduler.take_orders().value;
                count("ticks", 1);
                count("orders", orders.len());
                orders.iter().for_each(|order| self.check(order));
            }
            14..=15 => {
                let (region, change) = (RegionId(self.rng.range(0..8)), self.change());
                count("wishes", usize::from(self.scheduler.add_operator(region, change).is_ok()));
            }
            16 => self.settings(),
            17 => {
                let id = StoreId(self.rng.range(0..=STORES));
                // Refusals are answers, too.
                let _ = match self.rng.range(0..8) {
                    0 => self.scheduler.remove_store(id).map(drop),
                    1..=3 => self.scheduler.restore_store(id).map(drop),
                    4 => self.scheduler.forget_tombstones().map(drop),
                    _ => self.scheduler.oldest_version().map(drop),
                };
            }
            18 => {
                let report = self.report().region;
                let asked = self.scheduler.ask_batch_split(&report, self.rng.range(0..4) as u32);
                count("splits", usize::from(asked.is_ok()));
                let halves = vec![self.report().region, report];
                let _ = self.scheduler.report_batch_split(halves);
            }
            _ => {
                let (records, position) = (self.scheduler.snapshot(), self.scheduler.position());
                if self.rng.chance(0.1) {
                    self.scheduler = Scheduler::recover(records, position).unwrap();
                    count("restarts", 1);
                }
            }
        }
        self.scheduler.take_outbox();
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, wall_ms: self.now.as_millis() as u64 }
    }

    /// Something that nobody would report, or what is known with a change.
    fn report(&mut self) -> RegionInfo {
        let rng = &mut self.rng;
        let id = RegionId(rng.range(0..8));
        let known = self.scheduler.get_region_by_id(id).unwrap().value;
        let mut info = match known {
            Some(known) if rng.chance(0.8) => RegionInfo::clone(&known),
            _ => {
                let mut bound = || vec![b'a' + rng.range(0..6) as u8];
                let range = KeyRange::new(bound(), bound());
                let epoch = RegionEpoch { conf_ver: rng.range(0..9), version: rng.range(0..9) };
                RegionInfo {
                    region: Region { id, range, epoch, peers: Vec::new() },
                    ..RegionInfo::default()
                }
            }
        };
        if info.region.peers.is_empty() || rng.chance(0.3) {
            let peers = (0..rng.range(1..6)).map(|_| random_peer(rng));
            let by_store: BTreeMap<_, _> = peers.map(|peer| (peer.store_id, peer)).collect();
            info.region.peers = by_store.into_values().collect();
            info.region.epoch.conf_ver += rng.range(0..3);
        }
        let peers = info.region.peers.clone();
        let mut some = |chance| -> Vec<Peer> {
            peers.iter().filter(|_| rng.chance(chance)).copied().collect()
        };
        info.leader = some(0.5).first().copied();
        info.pending_peers = some(0.1);
        info.down_peers = some(0.1).into_iter().map(|peer| (peer, 3000)).collect();
        info.approximate_size = [0, 1 << 20, 1 << 30, u64::MAX][rng.range(0..4) as usize];
        if rng.chance(0.05) {
            info.leader = Some(random_peer(rng));
        }
        info
    }

    fn store_heartbeat(&mut self) {
        let now = self.clock();
        let rng = &mut self.rng;
        let stats = StoreStats {
            store_id: StoreId(rng.range(0..=STORES)),
            capacity: [0, 1000, u64::MAX][rng.range(0..3) as usize],
            available: [0, 900, u64::MAX][rng.range(0..3) as usize],
            receiving_snapshots: [0, 0, 0, u32::MAX][rng.range(0..4) as usize],
            applying_snapshots: [0, 0, 0, u32::MAX][rng.range(0..4) as usize],
            is_busy: rng.chance(0.1),
            ..StoreStats::default()
        };
        let _ = self.scheduler.store_heartbeat(now, stats);
    }

    fn change(&mut self) -> Change {
        let mut store = || StoreId(self.rng.range(0..=STORES));
        let (a, b) = (store(), store());
        match self.rng.range(0..7) {
            0 => Change::Add { store: a },
            1 => Change::Promote { store: a },
            2 => Change::Remove { store: a },
            3 => Change::Replace { from: a, to: b },
            4 => Change::TransferLeader { to: a },
            5 => Change::LeaveJoint,
            _ => Change::Split { keys: vec![b"b".to_vec().into()] },
        }
    }

    fn settings(&mut self) {
        let rng = &mut self.rng;
        let max_peer_count = rng.range(0..6) as u32;
        let styles = [ChangeStyle::Joint, ChangeStyle::OneByOne, ChangeStyle::Direct];
        let config = ScheduleConfig {
            change_style: styles[rng.range(0..3) as usize],
            leader_tolerance: [0, 1, u64::MAX][rng.range(0..3) as usize],
            store_add_limit: rng.range(0..4) as usize,
            ..ScheduleConfig::default()
        };
        // None at all is refused.
        let _ = self.scheduler.put_cluster_config(ClusterConfig { max_peer_count });
        self.scheduler.set_schedule_config(config);
    }

    /// An order is for a region and a leader that were reported, and is none that the leader would have to refuse.
    fn check(&self, order: &Order) {
        let region = self.scheduler.get_region_by_id(order.region).unwrap().value.unwrap();
        assert_eq!((order.epoch, Some(order.leader)), (region.region.epoch, region.leader));
        if let Instruction::ChangePeer(change) = &order.instruction {
            let there = region.region.peers.iter().any(|peer| peer.id == change.peer.id);
            let removes = change.kind == scheduler::PeerChangeKind::Remove;
            assert!(there || !removes, "{order:?} of {region:?}");
            assert!(!removes || change.peer.id != order.leader.id, "{order:?} of {region:?}");
        }
    }
}

fn random_peer(rng: &mut Rng) -> Peer {
    let roles = [
        PeerRole::Voter,
        PeerRole::Voter,
        PeerRole::Voter,
        PeerRole::Learner,
        PeerRole::IncomingVoter,
        PeerRole::DemotingVoter,
    ];
    let store = rng.range(1..=STORES + 1);
    // A store may have had another peer before.
    let id = if rng.chance(0.2) { 20 + store } else { 10 + store };
    Peer { id: PeerId(id), store_id: StoreId(store), role: roles[rng.range(0..6) as usize] }
}
