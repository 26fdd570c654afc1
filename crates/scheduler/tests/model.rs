//! Random requests against a model that is too simple to be wrong: lists, searched from end to end.
//!
//! Every answer and every refusal is compared, and at random moments the scheduler is replaced by one that is made
//! from a snapshot and the records since: nobody may notice, save that ids and timestamps skip.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{collections::BTreeMap, time::Duration};

use runtime::Rng;
use scheduler::{
    Answer, ClusterConfig, Error, Now, Record, RegionInfo, Result, Scheduler, Store, StoreFilter,
    StoreState, StoreStats,
};
use types::{
    ApiMode, ClusterId, KeyMode, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId,
    StoreId, TimeStamp,
};

#[test]
fn random_requests_match_the_model() {
    let mut refused = BTreeMap::new();
    for seed in 0..300 {
        let mut pair = Pair::new(seed);
        for _ in 0..150 {
            pair.request(&mut refused);
        }
    }
    println!("{refused:?}");
    for kind in [
        "NotBootstrapped",
        "AlreadyBootstrapped",
        "StoreNotFound",
        "StoreTombstone",
        "AddressTaken",
    ] {
        assert!(
            refused.get(kind).is_some_and(|&count| count > 20),
            "{kind} was hardly tried: {refused:?}"
        );
    }
    assert!(refused["StaleRegion"] > 500 && refused["Invalid"] > 100);
}

/// The scheduler and its model.
struct Pair {
    rng: Rng,
    now: Now,
    scheduler: Scheduler,
    /// What a restart would find: an old snapshot and the records since.
    stored: Vec<Record>,
    model: Model,
}

#[derive(Default)]
struct Model {
    bootstrapped: bool,
    config: u32,
    key_mode: Option<KeyMode>,
    stores: Vec<Store>,
    regions: Vec<RegionInfo>,
    gc: u64,
    /// Service, safe point, last second.
    services: Vec<(Vec<u8>, u64, u64)>,
    id: u64,
    timestamp: TimeStamp,
}

const REFUSED: &str = "refused";

fn name(error: &Error) -> &'static str {
    match error {
        Error::NotBootstrapped => "NotBootstrapped",
        Error::AlreadyBootstrapped => "AlreadyBootstrapped",
        Error::StoreNotFound { .. } => "StoreNotFound",
        Error::StoreTombstone { .. } => "StoreTombstone",
        Error::AddressTaken { .. } => "AddressTaken",
        Error::StaleRegion { .. } => "StaleRegion",
        Error::Invalid { .. } => "Invalid",
        other => panic!("{other}"),
    }
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let scheduler = Scheduler::new(ClusterId(7), ApiMode::V1);
        let never = i64::MAX as u64;
        Pair {
            rng: Rng::new(seed),
            now: Now { monotonic: Duration::ZERO, wall_ms: 1_000_000 },
            stored: scheduler.snapshot(),
            scheduler,
            model: Model {
                config: 3,
                services: vec![(b"gc_worker".to_vec(), 0, never)],
                ..Model::default()
            },
        }
    }

    fn request(&mut self, refused: &mut BTreeMap<&'static str, u64>) {
        let passed = self.rng.range(0..500);
        self.now = Now {
            monotonic: self.now.monotonic + Duration::from_millis(passed),
            wall_ms: self.now.wall_ms + passed,
        };
        let (actual, expected) = match self.rng.range(0..16) {
            0 => self.bootstrap(),
            1..=3 => self.put_store(),
            4 => self.store_heartbeat(),
            5..=9 => self.region_heartbeat(),
            10 => self.config(),
            11 => self.key_mode(),
            12 => self.gc_safe_point(),
            13 => self.service_safe_point(),
            14 => self.numbers(),
            _ => self.restart(),
        };
        let text = |result: Result<String, &'static str>| {
            result.unwrap_or_else(|kind| format!("{REFUSED}: {kind}"))
        };
        if let Err(kind) = &actual {
            *refused.entry(*kind).or_default() += 1;
        }
        assert_eq!(text(actual), text(expected));
        let records = self.scheduler.take_outbox();
        self.stored.extend(records);
        self.compare();
    }

    fn bootstrap(&mut self) -> Outcome {
        let store = self.random_store();
        let regions = vec![Region {
            id: RegionId(1),
            range: KeyRange::all(),
            epoch: RegionEpoch::FIRST,
            peers: vec![peer(100, store.id.0)],
        }];
        let actual = self.scheduler.bootstrap(store.clone(), regions.clone(), ApiMode::V1);
        let expected = match () {
            () if self.model.bootstrapped => Err("AlreadyBootstrapped"),
            () if store.id.0 == 0 => Err("Invalid"),
            () => {
                self.model.bootstrapped = true;
                self.model.stores.push(store);
                let (region, leader) = (regions[0].clone(), Some(regions[0].peers[0]));
                self.model.regions.push(RegionInfo { region, leader, ..RegionInfo::default() });
                Ok(String::new())
            }
        };
        (shown(actual), expected)
    }

    fn random_store(&mut self) -> Store {
        let rng = &mut self.rng;
        let state = match rng.range(0..10) {
            0 => StoreState::Tombstone,
            1 => StoreState::Offline,
            _ => StoreState::Up,
        };
        let address = format!("host:{}", rng.range(0..8));
        Store { id: StoreId(rng.range(0..6)), address, state, ..Store::default() }
    }

    fn put_store(&mut self) -> Outcome {
        let store = self.random_store();
        let actual = self.scheduler.put_store(store.clone());
        let stores = &mut self.model.stores;
        let known = stores.iter().position(|known| known.id == store.id);
        let taken = stores.iter().any(|other| {
            other.id != store.id
                && other.address == store.address
                && other.state != StoreState::Tombstone
        });
        let expected = match known {
            _ if !self.model.bootstrapped => Err("NotBootstrapped"),
            _ if store.id.0 == 0 => Err("Invalid"),
            Some(known) if stores[known].state == StoreState::Tombstone => Err("StoreTombstone"),
            _ if taken => Err("AddressTaken"),
            Some(known) => {
                stores[known] = Store { state: stores[known].state, ..store };
                Ok(String::new())
            }
            None => {
                stores.push(store);
                stores.sort_by_key(|store| store.id);
                Ok(String::new())
            }
        };
        (shown(actual), expected)
    }

    fn store_heartbeat(&mut self) -> Outcome {
        let id = self.rng.range(0..6);
        let stats = StoreStats {
            store_id: StoreId(id),
            available: self.rng.u64(),
            ..StoreStats::default()
        };
        let actual = self.scheduler.store_heartbeat(self.now, stats.clone());
        let expected = self.model.reporting(id).map(|()| String::new());
        if expected.is_ok() {
            let info = self.scheduler.get_store(StoreId(id)).unwrap().value;
            assert_eq!((info.stats, info.last_heartbeat), (Some(stats), Some(self.now)));
        }
        (shown(actual), expected)
    }

    fn region_heartbeat(&mut self) -> Outcome {
        let report = self.random_report();
        let actual = self.scheduler.region_heartbeat(report.clone());
        let actual = actual.map(|Answer { value, after }| {
            assert_eq!(value, None, "nothing is wanted without a tick");
            Answer { value: (), after }
        });
        let expected = self.model.region_heartbeat(report).map(|()| String::new());
        (shown(actual), expected)
    }

    fn random_report(&mut self) -> RegionInfo {
        let rng = &mut self.rng;
        let known = match self.model.regions.len() as u64 {
            0 => None,
            len => self.model.regions.get(rng.range(0..len) as usize).cloned(),
        };
        // Mostly something that follows from what is known; sometimes just anything.
        let mut report = match known {
            Some(known) if rng.chance(0.8) => known,
            _ => RegionInfo::default(),
        };
        if rng.chance(0.5) {
            let mut bounds = [rng.range(0..10), rng.range(0..10)].map(|n| vec![b'a' + n as u8]);
            if rng.chance(0.95) {
                bounds.sort();
            }
            let [start, end] = bounds;
            report.region.range = KeyRange::new(start, if rng.chance(0.2) { vec![] } else { end });
        }
        if rng.chance(0.6) || report.region.id.0 == 0 {
            report.region.id = RegionId(rng.range(0..20).min(9));
            let mut number = || rng.range(0..6);
            report.region.epoch = RegionEpoch { conf_ver: number(), version: number() };
        } else if rng.chance(0.7) {
            report.region.epoch.version += 1;
        }
        report.region.peers = (0..rng.range(0..20).min(3)).map(|n| peer(10 + n, 1 + n)).collect();
        report.leader = rng.chance(0.8).then(|| peer(10, rng.range(1..5)));
        report.approximate_size = rng.range(0..1000);
        report
    }

    fn config(&mut self) -> Outcome {
        let max_peer_count = self.rng.range(0..5) as u32;
        let actual = self.scheduler.put_cluster_config(ClusterConfig { max_peer_count });
        let expected = match max_peer_count {
            _ if !self.model.bootstrapped => Err("NotBootstrapped"),
            0 => Err("Invalid"),
            _ => {
                self.model.config = max_peer_count;
                Ok(String::new())
            }
        };
        (shown(actual), expected)
    }

    fn key_mode(&mut self) -> Outcome {
        let mode = if self.rng.chance(0.5) { KeyMode::Raw } else { KeyMode::Txn };
        let actual = self.scheduler.latch_key_mode(mode);
        let expected = match self.model.bootstrapped {
            true => Ok(format!("{:?}", self.model.key_mode.get_or_insert(mode))),
            false => Err("NotBootstrapped"),
        };
        (shown(actual), expected)
    }

    fn gc_safe_point(&mut self) -> Outcome {
        let safe_point = self.rng.range(0..100);
        let actual = self.scheduler.update_gc_safe_point(TimeStamp(safe_point));
        let expected = match self.model.bootstrapped {
            true => {
                self.model.gc = self.model.gc.max(safe_point);
                Ok(format!("{:?}", TimeStamp(self.model.gc)))
            }
            false => Err("NotBootstrapped"),
        };
        (shown(actual), expected)
    }

    fn service_safe_point(&mut self) -> Outcome {
        let rng = &mut self.rng;
        let service: &[u8] = [&b"gc_worker"[..], b"backup", b"cdc", b""][rng.range(0..4) as usize];
        let ttl = [i64::MAX, 5, 1, 0, -1][rng.range(0..5) as usize];
        let safe_point = rng.range(0..100);
        let actual =
            self.scheduler.update_service_safe_point(self.now, service, ttl, TimeStamp(safe_point));
        // No timestamp is taken far ahead here, so that the oracle's time is the clock's but for a restart.
        let seconds = self.scheduler_seconds();
        let expected = self.model.service_safe_point(service, ttl, safe_point, seconds);
        (shown(actual), expected)
    }

    /// The second that the scheduler takes it to be: the clock's, or that of the last timestamp.
    fn scheduler_seconds(&self) -> u64 {
        self.now.wall_ms.max(self.model.timestamp.physical_ms()) / 1000
    }

    fn numbers(&mut self) -> Outcome {
        let count = self.rng.range(0..600) as u32;
        let batch = self.scheduler.alloc_id(count).unwrap().value;
        assert!(
            self.model.id < batch.first && batch.last - batch.first + 1 == u64::from(count.max(1))
        );
        self.model.id = batch.last;
        let count = self.rng.range(1..1000) as u32;
        let last = self.scheduler.tso(self.now, count).unwrap().value;
        assert!(self.model.timestamp < TimeStamp(last.0 - u64::from(count) + 1));
        assert!(
            last.physical_ms() < self.now.wall_ms + 3000,
            "no more than a window ahead of the clock"
        );
        self.model.timestamp = last;
        (Ok(String::new()), Ok(String::new()))
    }

    fn restart(&mut self) -> Outcome {
        let again = Scheduler::recover(self.stored.clone(), self.scheduler.position()).unwrap();
        assert_eq!(again.snapshot(), self.scheduler.snapshot());
        assert_eq!(again.position(), self.scheduler.position());
        self.scheduler = again;
        if self.rng.chance(0.5) {
            self.stored = self.scheduler.snapshot();
        }
        // Reports are not kept, only what they said of region and leader.
        for info in &mut self.model.regions {
            let (region, leader) = (info.region.clone(), info.leader);
            *info = RegionInfo { region, leader, ..RegionInfo::default() };
        }
        // The window that was open counts as used up.
        let last = self.scheduler.tso(self.now, 1).unwrap().value;
        assert!(self.model.timestamp < last);
        self.model.timestamp = last;
        (Ok(String::new()), Ok(String::new()))
    }

    /// Asks everything there is to ask.
    fn compare(&mut self) {
        let (scheduler, model) = (&self.scheduler, &self.model);
        assert_eq!(scheduler.is_bootstrapped().value, model.bootstrapped);
        if !model.bootstrapped {
            assert!(matches!(scheduler.get_region(b""), Err(Error::NotBootstrapped)));
            return;
        }
        assert_eq!(scheduler.cluster_config().unwrap().value.max_peer_count, model.config);
        assert_eq!(scheduler.key_mode().unwrap().value, model.key_mode);
        assert_eq!(scheduler.gc_safe_point().unwrap().value.0, model.gc);
        let listed = |filter| -> Vec<Store> {
            scheduler.all_stores(filter).unwrap().value.into_iter().map(|info| info.store).collect()
        };
        assert_eq!(listed(StoreFilter::All), model.stores);
        let alive: Vec<Store> = model
            .stores
            .iter()
            .filter(|store| store.state != StoreState::Tombstone)
            .cloned()
            .collect();
        assert_eq!(listed(StoreFilter::ExceptTombstone), alive);

        let key = vec![b'a' + self.rng.range(0..12) as u8];
        let of_key = model.regions.iter().find(|info| info.region.range.contains(&key));
        assert_eq!(scheduler.get_region(&key).unwrap().value.as_deref(), of_key);
        let previous = of_key.and_then(|found| {
            let start = &found.region.range.start;
            model.regions.iter().find(|info| !start.is_empty() && info.region.range.end == start)
        });
        assert_eq!(scheduler.get_prev_region(&key).unwrap().value.as_deref(), previous);
        let id = RegionId(self.rng.range(0..10));
        let with_id = model.regions.iter().find(|info| info.region.id == id);
        assert_eq!(scheduler.get_region_by_id(id).unwrap().value.as_deref(), with_id);
        let end = vec![b'a' + self.rng.range(0..12) as u8];
        let range = KeyRange::new(key, end);
        let limit = self.rng.range(0..4) as usize;
        let inside = model
            .regions
            .iter()
            .filter(|info| !range.is_empty() && !info.region.range.intersect(&range).is_empty());
        let inside: Vec<&RegionInfo> =
            inside.take(if limit == 0 { usize::MAX } else { limit }).collect();
        let found = scheduler.scan_regions(&range, limit).unwrap().value;
        assert_eq!(found.iter().map(|info| &**info).collect::<Vec<_>>(), inside);
        assert_eq!(scheduler.region_count().unwrap().value, model.regions.len());
    }
}

impl Model {
    fn reporting(&self, id: u64) -> Result<(), &'static str> {
        if !self.bootstrapped {
            return Err("NotBootstrapped");
        }
        match self.stores.iter().find(|store| store.id.0 == id) {
            None => Err("StoreNotFound"),
            Some(store) if store.state == StoreState::Tombstone => Err("StoreTombstone"),
            Some(_) => Ok(()),
        }
    }

    fn region_heartbeat(&mut self, report: RegionInfo) -> Result<(), &'static str> {
        if !self.bootstrapped {
            return Err("NotBootstrapped");
        }
        let Region { id, range, epoch, peers } = &report.region;
        if id.0 == 0 || range.is_empty() || peers.is_empty() {
            return Err("Invalid");
        }
        if let Some(leader) = &report.leader {
            self.reporting(leader.store_id.0)?;
        }
        let overlaps = |other: &RegionInfo| !other.region.range.intersect(range).is_empty();
        for known in &self.regions {
            let theirs = known.region.epoch;
            let stale = if known.region.id == *id {
                epoch.version < theirs.version || epoch.conf_ver < theirs.conf_ver
            } else {
                let older = epoch.version < theirs.version;
                overlaps(known)
                    && (older
                        || epoch.version == theirs.version && epoch.conf_ver < theirs.conf_ver)
            };
            if stale {
                return Err("StaleRegion");
            }
        }
        self.regions.retain(|known| known.region.id != *id && !overlaps(known));
        self.regions.push(report);
        self.regions.sort_by(|a, b| a.region.range.start.cmp(&b.region.range.start));
        Ok(())
    }

    fn service_safe_point(
        &mut self,
        service: &[u8],
        ttl: i64,
        safe_point: u64,
        seconds: u64,
    ) -> Expected {
        if !self.bootstrapped {
            return Err("NotBootstrapped");
        }
        if service.is_empty() || service == b"gc_worker" && ttl != i64::MAX {
            return Err("Invalid");
        }
        self.services.retain(|(_, _, last)| seconds <= *last);
        let smallest = |services: &[(Vec<u8>, u64, u64)]| {
            services
                .iter()
                .min_by_key(|(service, safe_point, _)| (*safe_point, service.clone()))
                .cloned()
                .unwrap()
        };
        if ttl <= 0 {
            self.services.retain(|(known, ..)| known != service);
        } else if smallest(&self.services).1 <= safe_point {
            self.services.retain(|(known, ..)| known != service);
            let last = (seconds as i64).saturating_add(ttl) as u64;
            self.services.push((service.to_vec(), safe_point, last));
        }
        let (service, safe_point, last) = smallest(&self.services);
        let answer = scheduler::ServiceSafePoint {
            service: service.into(),
            safe_point: TimeStamp(safe_point),
            ttl_seconds: (last - seconds) as i64,
        };
        Ok(format!("{answer:?}"))
    }
}

type Expected = Result<String, &'static str>;
/// What the scheduler answered and what the model says.
type Outcome = (Expected, Expected);

fn peer(id: u64, store: u64) -> Peer {
    Peer { id: PeerId(id), store_id: StoreId(store), role: PeerRole::Voter }
}

/// An answer as text; `()` is nothing.
fn shown<T: std::fmt::Debug>(answer: Result<Answer<T>>) -> Expected {
    match answer {
        Ok(answer) => {
            Ok(Some(format!("{:?}", answer.value)).filter(|text| text != "()").unwrap_or_default())
        }
        Err(error) => Err(name(&error)),
    }
}
