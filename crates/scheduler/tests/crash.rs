//! Power cuts: whatever was acknowledged is there afterwards, no id comes twice, no timestamp goes back.
//!
//! Core and storage run as in production, one batch of requests per sync, on a simulated disk whose power goes after a
//! random operation; and, in the second test, after every single operation of a run. What the cut leaves is drawn
//! sector by sector and name by name. The clock jumps in both directions all the time.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use runtime::{Fs, Rng, sim::SimFs};
use scheduler::{
    Answer, ClusterConfig, LogPosition, Now, RegionInfo, Scheduler, Store,
    storage::{Batch, Recovered, Storage},
};
use types::{
    ApiMode, ClusterId, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    StoreId, TimeStamp,
};

const ROUNDS: u64 = 2000;
const LIVES: u64 = 3;

#[test]
fn nothing_acknowledged_is_lost_in_random_power_cuts() {
    let mut executed = Executed::default();
    for seed in 0..ROUNDS {
        let mut rng = Rng::new(seed);
        let log_bytes = [300, 1500, 1 << 20][rng.range(0..3) as usize];
        let mut member = Member::create(log_bytes);
        for _ in 0..LIVES {
            member.disk.cut_power_after(rng.range(0..40));
            while member.batch_of_requests(&mut rng, &mut executed) {}
            member = member.power_cut(&mut rng, &mut executed);
        }
    }
    println!("{ROUNDS} rounds: {executed:?}");
    assert_eq!(executed.cuts, ROUNDS * LIVES);
    assert!(
        executed.acknowledged > 30 * ROUNDS && executed.at_once > 20 * ROUNDS,
        "hardly anything was tried"
    );
    assert!(
        executed.torn > ROUNDS / 10 && executed.snapshots > ROUNDS,
        "the power went at harmless moments"
    );
}

#[test]
fn nothing_acknowledged_is_lost_whichever_operation_the_power_goes_in() {
    let mut executed = Executed::default();
    for seed in 0..5 {
        for operations in 0..120 {
            let mut rng = Rng::new(seed);
            let mut member = Member::create(700);
            member.disk.cut_power_after(operations);
            while member.batch_of_requests(&mut rng, &mut executed) {}
            // The same state may come out of the crash in many ways.
            for fate in 0..4 {
                let mut after = member.copy().power_cut(&mut Rng::new(fate), &mut executed);
                assert!(after.batch_of_requests(&mut Rng::new(fate), &mut executed), "it goes on");
            }
        }
    }
    println!("every operation: {executed:?}");
}

/// How much was really tried.
#[derive(Debug, Default)]
struct Executed {
    cuts: u64,
    acknowledged: u64,
    at_once: u64,
    torn: u64,
    snapshots: u64,
}

/// A scheduler member on its disk, and what its clients know.
struct Member {
    disk: SimFs,
    scheduler: Scheduler,
    storage: Storage,
    durable: LogPosition,
    log_bytes: u64,
    now: Now,
    known: Known,
    /// Numbers that only grow, so that a later value can be told from an earlier one.
    issued: u64,
}

/// What clients were told. Each value only grows, so what is found later must be at least this.
#[derive(Clone, Debug, Default)]
struct Known {
    timestamp: TimeStamp,
    id: u64,
    bootstrapped: bool,
    key_mode: Option<KeyMode>,
    config: u32,
    safe_point: TimeStamp,
    service_safe_point: TimeStamp,
    /// The number in the address of each store.
    stores: BTreeMap<u64, u64>,
    region_version: u64,
}

/// Something that a client will know once its answer is released.
type Fact = Box<dyn FnOnce(&mut Known)>;

fn dir() -> &'static Path {
    Path::new("/s")
}

impl Member {
    fn create(log_bytes: u64) -> Member {
        let disk = SimFs::new();
        disk.create_dir_all(dir()).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let scheduler = Scheduler::new(ClusterId(7), ApiMode::V1);
        let (records, position) = (scheduler.snapshot(), scheduler.position());
        let storage =
            Storage::create(Arc::new(disk.clone()), dir(), &records, position, log_bytes).unwrap();
        let now = Now { monotonic: Duration::ZERO, wall_ms: 1_000_000 };
        Member {
            disk,
            scheduler,
            storage,
            durable: position,
            log_bytes,
            now,
            known: Known::default(),
            issued: 0,
        }
    }

    /// The same disk and the same clients, for another crash.
    fn copy(&self) -> Member {
        let placeholder = Member::create(self.log_bytes);
        Member { disk: self.disk.clone(), known: self.known.clone(), ..placeholder }
    }

    /// A few requests that share a sync; then their answers are released. `false`: the disk has failed.
    fn batch_of_requests(&mut self, rng: &mut Rng, executed: &mut Executed) -> bool {
        let mut batch = Batch::new(self.scheduler.position());
        let mut waiting: Vec<(LogPosition, Fact)> = Vec::new();
        for _ in 0..rng.range(1..6) {
            self.time_passes(rng);
            match self.request(rng) {
                // Rests on what is durable: its client knows at once, whatever becomes of this batch.
                Some((after, fact)) if after <= self.durable => {
                    fact(&mut self.known);
                    executed.at_once += 1;
                }
                later => waiting.extend(later),
            }
            self.scheduler.take_outbox().iter().for_each(|record| batch.push(record));
        }
        let end = batch.end();
        if !batch.is_empty() && self.storage.append(batch).is_err() {
            return false;
        }
        self.durable = end;
        for (after, fact) in waiting {
            assert!(after <= self.durable);
            fact(&mut self.known);
            executed.acknowledged += 1;
        }
        if self.storage.needs_snapshot() {
            executed.snapshots += 1;
            return self
                .storage
                .put_snapshot(&self.scheduler.snapshot(), self.scheduler.position())
                .is_ok();
        }
        true
    }

    fn time_passes(&mut self, rng: &mut Rng) {
        let passed = rng.range(0..200);
        self.now.monotonic += Duration::from_millis(passed);
        self.now.wall_ms = match rng.range(0..20) {
            0 => self.now.wall_ms + rng.range(0..100_000),
            1 => self.now.wall_ms.saturating_sub(rng.range(0..100_000)),
            _ => self.now.wall_ms + passed,
        };
    }

    /// One request, and what its answer will let its client know.
    fn request(&mut self, rng: &mut Rng) -> Option<(LogPosition, Fact)> {
        fn fact<T>(
            answer: Answer<T>,
            fact: impl FnOnce(T, &mut Known) + 'static,
        ) -> Option<(LogPosition, Fact)>
        where
            T: 'static,
        {
            let Answer { value, after } = answer;
            Some((after, Box::new(move |known| fact(value, known))))
        }
        let (now, scheduler) = (self.now, &mut self.scheduler);
        self.issued += 1;
        let issued = self.issued;
        match rng.range(0..12) {
            0 => {
                let answer = scheduler.bootstrap(store(1, 0), vec![region(1)], ApiMode::V1).ok()?;
                fact(answer, |(), known| known.bootstrapped = true)
            }
            1 => {
                scheduler.tick(now);
                None
            }
            2 => {
                let id = rng.range(1..5);
                fact(scheduler.put_store(store(id, issued)).ok()?, move |(), known| {
                    known.stores.insert(id, issued);
                })
            }
            3 => {
                let report = RegionInfo { region: region(issued), ..RegionInfo::default() };
                let answer = scheduler.region_heartbeat(report).ok()?;
                fact(answer, move |_, known| known.region_version = issued)
            }
            4 => {
                let config = ClusterConfig { max_peer_count: issued as u32 };
                let answer = scheduler.put_cluster_config(config).ok()?;
                fact(answer, move |(), known| known.config = issued as u32)
            }
            5 => {
                let mode = if rng.chance(0.5) { KeyMode::Raw } else { KeyMode::Txn };
                let answer = scheduler.latch_key_mode(mode).ok()?;
                fact(answer, |decided, known| {
                    assert_eq!(*known.key_mode.get_or_insert(decided), decided, "two decisions");
                })
            }
            6 => {
                let answer = scheduler.update_gc_safe_point(TimeStamp(issued)).ok()?;
                fact(answer, |safe_point, known| {
                    known.safe_point = known.safe_point.max(safe_point)
                })
            }
            7 => {
                let answer = scheduler
                    .update_service_safe_point(now, b"gc_worker", i64::MAX, TimeStamp(issued))
                    .ok()?;
                fact(answer, |min, known| {
                    assert!(known.service_safe_point <= min.safe_point);
                    known.service_safe_point = min.safe_point;
                })
            }
            8 => fact(scheduler.alloc_id(rng.range(0..700) as u32).unwrap(), |batch, known| {
                assert!(known.id < batch.first, "an id was handed out twice");
                known.id = batch.last;
            }),
            _ => {
                let count = rng.range(1..100) as u32;
                fact(scheduler.tso(now, count).unwrap(), move |last, known| {
                    assert!(
                        known.timestamp.0 < last.0 - u64::from(count) + 1,
                        "a timestamp went back"
                    );
                    known.timestamp = last;
                })
            }
        }
    }

    /// Cuts the power, starts again, and compares what is there with what clients know.
    fn power_cut(self, rng: &mut Rng, executed: &mut Executed) -> Member {
        executed.cuts += 1;
        let disk = self.disk.crash(rng);
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let Recovered { storage, records, position, cut } =
            Storage::open(fs, dir(), self.log_bytes).expect("a power cut damages nothing");
        executed.torn += u64::from(cut > 0);
        let scheduler = Scheduler::recover(records, position).unwrap();
        check(&scheduler, &self.known);
        Member { disk, scheduler, storage, durable: position, ..self }
    }
}

/// That ids and timestamps go on is checked by the requests that take them.
fn check(scheduler: &Scheduler, known: &Known) {
    assert_eq!(scheduler.cluster_id(), ClusterId(7));
    if !scheduler.is_bootstrapped().value {
        assert!(!known.bootstrapped, "the bootstrap is lost");
        return;
    }
    for (&id, &number) in &known.stores {
        let found = scheduler.get_store(StoreId(id)).unwrap().value.store.address;
        assert!(
            number <= found[1..].parse().unwrap(),
            "store {id} is known as h{number}, found as {found}"
        );
    }
    assert!(scheduler.get_store(StoreId(1)).is_ok(), "store and region come with the bootstrap");
    let region =
        scheduler.get_region(b"k").unwrap().value.expect("the region comes with the bootstrap");
    assert!(known.region_version <= region.region.epoch.version);
    assert!(known.config <= scheduler.cluster_config().unwrap().value.max_peer_count);
    assert!(known.safe_point <= scheduler.gc_safe_point().unwrap().value);
    if known.key_mode.is_some() {
        assert_eq!(scheduler.key_mode().unwrap().value, known.key_mode);
    }
}

fn store(id: u64, number: u64) -> Store {
    Store { id: StoreId(id), address: format!("h{number}"), ..Store::default() }
}

fn region(version: u64) -> Region {
    Region {
        id: RegionId(2),
        range: KeyRange::all(),
        epoch: RegionEpoch { conf_ver: 1, version },
        peers: vec![Peer { id: PeerId(3), store_id: StoreId(1), role: PeerRole::Voter }],
    }
}
