//! The core: one method per request. The crate's documentation says what an [`Answer`] is.

use std::sync::Arc;

use runtime::Rng;
use types::{
    ApiMode, Bytes, ClusterId, KeyMode, KeyRange, RegionId, StoreId, TimeStamp,
    limits::{SERVICE_ID_BYTES_MAX, SERVICE_SAFE_POINTS_MAX, TSO_COUNT_MAX},
    marks::mutant,
};

use crate::{
    Answer, ClusterConfig, Error, IdBatch, LogPosition, Now, Order, Record, RegionInfo, Result,
    ServiceSafePoint, Store, StoreFilter, StoreInfo, StoreStats,
    cluster::{Cluster, KnownStore, News},
    id_alloc::{self, IdAllocator},
    placement::Placement,
    safe_point::{GC_WORKER, NEVER, SafePoints, Wish},
    tso::{self, Oracle},
};

/// The state of the scheduler and the requests that it takes.
#[derive(Debug)]
pub struct Scheduler {
    cluster_id: ClusterId,
    api_mode: ApiMode,
    pub(crate) cluster: Cluster,
    /// What is done about the cluster, which a restart forgets.
    pub(crate) placement: Placement,
    ids: IdAllocator,
    oracle: Oracle,
    safe_points: SafePoints,
    /// Records that nobody has taken to the log yet.
    outbox: Vec<Record>,
    /// The end of the log, the outbox included.
    position: LogPosition,
    pub(crate) rests_on: Dependencies,
}

/// The last change of each part of the state.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    bootstrap: LogPosition,
    /// Stores, settings and key mode, which change seldom enough to be one part.
    pub(crate) cluster: LogPosition,
    /// For acknowledgements of reports; questions about regions rest on `bootstrap`.
    pub(crate) regions: LogPosition,
    safe_points: LogPosition,
    ids: Windows,
    timestamps: Windows,
}

/// The last two windows of a sequence: the newest may not be durable yet, while the one before serves requests.
#[derive(Debug, Default)]
struct Windows {
    older: (u64, LogPosition),
    newest: (u64, LogPosition),
}

impl Windows {
    fn extend(&mut self, end: u64, position: LogPosition) {
        self.older = self.newest;
        self.newest = (end, position);
    }

    /// What must be durable before `value` may be handed out.
    fn covering(&self, value: u64) -> LogPosition {
        assert!(value < self.newest.0, "nothing is handed out beyond the window");
        if value < self.older.0 { self.older.1 } else { self.newest.1 }
    }
}

impl Scheduler {
    /// The scheduler of a new cluster. Its first record is part of every snapshot and not in the outbox.
    pub fn new(cluster_id: ClusterId, api_mode: ApiMode) -> Scheduler {
        Scheduler {
            cluster_id,
            api_mode,
            cluster: Cluster::default(),
            placement: Placement::new(Rng::new(cluster_id.0)),
            ids: IdAllocator::default(),
            oracle: Oracle::default(),
            safe_points: SafePoints::default(),
            outbox: Vec::new(),
            position: LogPosition(1),
            rests_on: Dependencies::default(),
        }
    }

    /// The state that `records` make: those of a snapshot, and those of the log after it. `position` is the end of
    /// that log; everything up to there counts as durable.
    ///
    /// # Errors
    /// The records contradict each other; says how.
    pub fn recover(
        records: impl IntoIterator<Item = Record>,
        position: LogPosition,
    ) -> Result<Scheduler, &'static str> {
        let mut records = records.into_iter();
        let Some(Record::Created { cluster_id, api_mode }) = records.next() else {
            return Err("the first record does not create a cluster");
        };
        let mut scheduler = Scheduler::new(cluster_id, api_mode);
        for record in records {
            scheduler.apply(&record)?;
        }
        if !mutant!("ids_begin_again_within_the_window") {
            scheduler.ids.restart();
        }
        scheduler.oracle.restart();
        scheduler.position = position;
        Ok(scheduler)
    }

    /// A short sequence of records that makes this state. Stands for the log up to [`position`](Scheduler::position).
    pub fn snapshot(&self) -> Vec<Record> {
        let Cluster { bootstrapped, config, key_mode, stores, forgotten, regions } = &self.cluster;
        let mut records =
            vec![Record::Created { cluster_id: self.cluster_id, api_mode: self.api_mode }];
        records.extend(bootstrapped.then_some(Record::Bootstrapped));
        records.extend((*config != ClusterConfig::default()).then_some(Record::ConfigPut(*config)));
        records.extend(key_mode.map(Record::KeyModeLatched));
        records.extend(stores.values().map(|known| Record::StorePut(known.store.clone())));
        records.extend(forgotten.iter().map(|&store| Record::StoreForgotten { store }));
        records.extend(
            regions
                .iter()
                .map(|info| Record::RegionPut { region: info.region.clone(), leader: info.leader }),
        );
        let (id_end, tso_end) = (self.ids.window_end(), self.oracle.window_end_ms());
        records.extend((id_end > 1).then_some(Record::IdWindow { end: id_end }));
        records.extend((tso_end > 0).then_some(Record::TsoWindow { end_ms: tso_end }));
        let SafePoints { gc, services } = &self.safe_points;
        records.extend((*gc > TimeStamp::ZERO).then_some(Record::GcSafePoint(*gc)));
        records.extend(services.iter().map(|(service, wish)| Record::ServiceSafePointPut {
            service: service.clone(),
            safe_point: wish.safe_point,
            expires_at: wish.expires_at,
        }));
        records
    }

    /// The end of the log, the outbox included.
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Takes the records of the requests since the last call. Those of one request must become durable together.
    pub fn take_outbox(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.outbox)
    }

    /// The id of this cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// Which commands this cluster takes.
    pub fn api_mode(&self) -> ApiMode {
        self.api_mode
    }

    /// Refuses a request that is meant for another cluster.
    ///
    /// # Errors
    /// `ClusterMismatch`.
    pub fn check_cluster(&self, found: ClusterId) -> Result<()> {
        let expected = self.cluster_id;
        if found == expected { Ok(()) } else { Err(Error::ClusterMismatch { expected, found }) }
    }

    /// Lets time pass: whoever owns the scheduler calls this every
    /// [`TSO_UPDATE_INTERVAL`](types::limits::TSO_UPDATE_INTERVAL), so that the window of timestamps is extended before
    /// requests have to wait for it, and so that placement does its work. What leaders are to be told comes out of
    /// [`take_orders`](Scheduler::take_orders).
    pub fn tick(&mut self, now: Now) {
        if let Some(end_ms) = self.oracle.wanted_window(now) {
            self.commit(Record::TsoWindow { end_ms });
        }
        self.tick_placement(now.monotonic);
    }

    /// Takes `count` timestamps (1 to [`TSO_COUNT_MAX`]) in a row within one millisecond; answers the last. Later calls
    /// take later ones, for ever.
    ///
    /// # Errors
    /// `Invalid`, `Busy`, `Exhausted`.
    pub fn tso(&mut self, now: Now, count: u32) -> Result<Answer<TimeStamp>> {
        let mut last = self.oracle.allocate(now, count);
        if let Err(tso::Refusal::NeedWindow { end_ms }) = last {
            self.commit(Record::TsoWindow { end_ms });
            last = self.oracle.allocate(now, count);
        }
        match last {
            Ok(last) => {
                let after = self.rests_on.timestamps.covering(last.physical_ms());
                Ok(Answer { value: last, after })
            }
            Err(tso::Refusal::Count) => Err(Error::invalid(format!(
                "the count of timestamps must be between 1 and {TSO_COUNT_MAX}"
            ))),
            Err(tso::Refusal::TooFarAhead) => {
                Err(Error::Busy { reason: "more timestamps than time" })
            }
            Err(tso::Refusal::Exhausted) => Err(Error::Exhausted { what: "timestamps" }),
            Err(tso::Refusal::NeedWindow { .. }) => {
                unreachable!("the window was extended to where it was needed")
            }
        }
    }

    /// Takes `count` ids (0 means 1), which nobody had before and nobody gets again.
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn alloc_id(&mut self, count: u32) -> Result<Answer<IdBatch>> {
        let mut batch = self.ids.allocate(count);
        if let Err(id_alloc::Refusal::NeedWindow { end }) = batch {
            self.commit(Record::IdWindow { end });
            batch = self.ids.allocate(count);
        }
        match batch {
            Ok(batch) => Ok(Answer { value: batch, after: self.rests_on.ids.covering(batch.last) }),
            Err(id_alloc::Refusal::Exhausted) => Err(Error::Exhausted { what: "ids" }),
            Err(id_alloc::Refusal::NeedWindow { .. }) => {
                unreachable!("the window was extended to where it was needed")
            }
        }
    }

    /// Whether the first store has joined.
    pub fn is_bootstrapped(&self) -> Answer<bool> {
        Answer { value: self.cluster.bootstrapped, after: self.rests_on.bootstrap }
    }

    /// Begins the cluster with its first store and the first regions, which must cover all keys from end to end; none
    /// of them means that the store will report them. `api_mode` is the store's: it must be the cluster's.
    ///
    /// # Errors
    /// `AlreadyBootstrapped`, `ApiModeMismatch`, `Invalid`.
    pub fn bootstrap(
        &mut self,
        store: Store,
        regions: Vec<types::Region>,
        api_mode: ApiMode,
    ) -> Result<Answer<()>> {
        self.cluster.check_bootstrap(&store, &regions)?;
        if api_mode != self.api_mode {
            return Err(Error::ApiModeMismatch { cluster: self.api_mode, request: api_mode });
        }
        self.commit(Record::Bootstrapped);
        self.commit(Record::StorePut(store));
        for region in regions {
            // A region of one peer has no choice of leader.
            let leader = region.peers.first().copied();
            self.commit(Record::RegionPut { region, leader });
        }
        self.rests_on.bootstrap = self.position;
        Ok(Answer { value: (), after: self.position })
    }

    /// Registers a store, or what it newly says of itself. The state of a known store does not change. A store that has
    /// the same address, holds nothing and is silent is gone for good by it.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreTombstone`, `AddressTaken`, `Invalid`.
    pub fn put_store(&mut self, store: Store) -> Result<Answer<()>> {
        for store in self.cluster.check_put_store(store, &self.health())? {
            self.commit(Record::StorePut(store));
        }
        Ok(self.cluster_answer(()))
    }

    /// What is known of a store, removed ones included.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreNotFound`.
    pub fn get_store(&self, id: StoreId) -> Result<Answer<StoreInfo>> {
        self.cluster.check_bootstrapped()?;
        let known = self.cluster.stores.get(&id).ok_or(Error::StoreNotFound { id })?;
        Ok(self.cluster_answer(self.cluster.store_info(known)))
    }

    /// All stores, by id.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn all_stores(&self, filter: StoreFilter) -> Result<Answer<Vec<StoreInfo>>> {
        self.cluster.check_bootstrapped()?;
        let wanted = |known: &&KnownStore| match filter {
            StoreFilter::All => true,
            StoreFilter::ExceptTombstone => known.store.state != crate::StoreState::Tombstone,
        };
        let stores = self.cluster.stores.values().filter(wanted);
        Ok(self.cluster_answer(stores.map(|known| self.cluster.store_info(known)).collect()))
    }

    /// A store is alive and says how it is.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StoreNotFound`, `StoreTombstone`.
    pub fn store_heartbeat(&mut self, now: Now, stats: StoreStats) -> Result<Answer<()>> {
        let known = self.cluster.check_reporting_store(stats.store_id)?;
        known.stats = Some(stats);
        known.last_heartbeat = Some(now);
        known.heard = Some(now.monotonic);
        Ok(self.cluster_answer(()))
    }

    /// The leader of a region reports. A report without a leader is taken, too: the region then has none. Answers what
    /// the leader is to do next, if anything.
    ///
    /// # Errors
    /// `NotBootstrapped`, `StaleRegion`, `StoreNotFound` and `StoreTombstone` (of the leader's store), `Invalid`.
    pub fn region_heartbeat(&mut self, report: RegionInfo) -> Result<Answer<Option<Order>>> {
        let news = self.cluster.check_region_heartbeat(&report)?;
        let id = report.region.id;
        if news >= News::Leader {
            self.commit(Record::RegionPut { region: report.region.clone(), leader: report.leader });
        }
        match news {
            News::Nothing => self.cluster.regions.touch(id, self.placement.now()),
            _ => self.cluster.regions.put(report, Some(self.placement.now())),
        }
        // Also if nothing is new: the first of two equal reports may still wait for the log.
        let acknowledged = self.rests_on.regions;
        Ok(match self.next_order(id) {
            None => Answer { value: None, after: acknowledged },
            Some((order, after)) => Answer { value: Some(order), after: acknowledged.max(after) },
        })
    }

    /// The region that has `key`, in the form in which keys are stored.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn get_region(&self, key: &[u8]) -> Result<Answer<Option<Arc<RegionInfo>>>> {
        self.region_answer(self.cluster.regions.find(key).cloned())
    }

    /// The region that ends where the region that has `key` begins.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn get_prev_region(&self, key: &[u8]) -> Result<Answer<Option<Arc<RegionInfo>>>> {
        self.region_answer(self.cluster.regions.find_previous(key).cloned())
    }

    /// The region with that id.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn get_region_by_id(&self, id: RegionId) -> Result<Answer<Option<Arc<RegionInfo>>>> {
        self.region_answer(self.cluster.regions.get(id).cloned())
    }

    /// The first `limit` (0: all) regions that have keys in `range`, in order. The first may begin before it.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn scan_regions(
        &self,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Answer<Vec<Arc<RegionInfo>>>> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let regions = match range.is_empty() {
            true => Vec::new(),
            false => self.cluster.regions.overlapping(range).take(limit).cloned().collect(),
        };
        self.region_answer(regions)
    }

    /// How many regions are known.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn region_count(&self) -> Result<Answer<usize>> {
        self.region_answer(self.cluster.regions.len())
    }

    /// The settings of the cluster.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn cluster_config(&self) -> Result<Answer<ClusterConfig>> {
        self.cluster.check_bootstrapped()?;
        Ok(self.cluster_answer(self.cluster.config))
    }

    /// Changes the settings of the cluster.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` if a region could have no peers.
    pub fn put_cluster_config(&mut self, config: ClusterConfig) -> Result<Answer<()>> {
        self.cluster.check_bootstrapped()?;
        if config.max_peer_count == 0 {
            return Err(Error::invalid("max_peer_count must be at least 1"));
        }
        if config != self.cluster.config {
            self.commit(Record::ConfigPut(config));
        }
        Ok(self.cluster_answer(()))
    }

    /// What the first write made this cluster hold; `None` before it, and in modes that hold both or know only one.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn key_mode(&self) -> Result<Answer<Option<KeyMode>>> {
        self.cluster.check_bootstrapped()?;
        Ok(self.cluster_answer(self.cluster.key_mode))
    }

    /// Decides what the cluster holds, unless that is decided; answers the decision. Of two first writes one wins, and
    /// both learn which.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` in API modes that leave nothing to decide.
    pub fn latch_key_mode(&mut self, mode: KeyMode) -> Result<Answer<KeyMode>> {
        self.cluster.check_bootstrapped()?;
        if self.api_mode != ApiMode::V1 {
            return Err(Error::invalid(format!(
                "API mode {} leaves no key mode to decide",
                self.api_mode
            )));
        }
        let decided = match self.cluster.key_mode {
            Some(decided) => decided,
            None => {
                self.commit(Record::KeyModeLatched(mode));
                mode
            }
        };
        Ok(self.cluster_answer(decided))
    }

    /// Versions that no read at or after this timestamp needs may go.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn gc_safe_point(&self) -> Result<Answer<TimeStamp>> {
        self.cluster.check_bootstrapped()?;
        Ok(Answer { value: self.safe_points.gc, after: self.rests_on.safe_points })
    }

    /// Moves the GC safe point up to `safe_point`; a smaller one changes nothing. Answers where it is.
    ///
    /// # Errors
    /// `NotBootstrapped`.
    pub fn update_gc_safe_point(&mut self, safe_point: TimeStamp) -> Result<Answer<TimeStamp>> {
        self.cluster.check_bootstrapped()?;
        if self.safe_points.gc < safe_point {
            self.commit(Record::GcSafePoint(safe_point));
        }
        self.gc_safe_point()
    }

    /// A service wishes that nothing after `safe_point` goes for the next `ttl_seconds`; none or less takes its wish
    /// back. A wish below the smallest one is not taken. Answers the smallest wish afterwards: the caller sees by it
    /// whether its own was taken.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Busy` if there are too many; `Invalid` for a name that is empty or too long, and for the
    /// service `gc_worker`, whose wish can't be taken back and can't expire (its `ttl_seconds` must be `i64::MAX`).
    pub fn update_service_safe_point(
        &mut self,
        now: Now,
        service: &[u8],
        ttl_seconds: i64,
        safe_point: TimeStamp,
    ) -> Result<Answer<ServiceSafePoint>> {
        self.cluster.check_bootstrapped()?;
        if service.is_empty() || SERVICE_ID_BYTES_MAX < service.len() {
            return Err(Error::invalid(format!(
                "a service id has 1 to {SERVICE_ID_BYTES_MAX} bytes"
            )));
        }
        // The oracle's time: like the clock, and it does not go back with it.
        let now_seconds = self.oracle.time_ms(now) / 1000;
        let ttl = u64::try_from(ttl_seconds).unwrap_or(0);
        let expires_at = now_seconds.saturating_add(ttl).min(NEVER);
        if service == GC_WORKER && expires_at < NEVER {
            return Err(Error::invalid(
                "the service safe point of gc_worker can't expire or be removed",
            ));
        }
        for service in self.safe_points.expired(now_seconds) {
            self.commit(Record::ServiceSafePointRemoved { service });
        }
        let services = &self.safe_points.services;
        let service = Bytes::copy_from_slice(service);
        if ttl == 0 {
            if services.contains_key(&service) {
                self.commit(Record::ServiceSafePointRemoved { service });
            }
        } else if self.safe_points.smallest(now_seconds).safe_point <= safe_point {
            if !services.contains_key(&service) && SERVICE_SAFE_POINTS_MAX <= services.len() {
                return Err(Error::Busy {
                    reason: "too many services hold back garbage collection",
                });
            }
            if services.get(&service) != Some(&Wish { safe_point, expires_at }) {
                self.commit(Record::ServiceSafePointPut { service, safe_point, expires_at });
            }
        }
        Ok(Answer {
            value: self.safe_points.smallest(now_seconds),
            after: self.rests_on.safe_points,
        })
    }

    pub(crate) fn cluster_answer<T>(&self, value: T) -> Answer<T> {
        Answer { value, after: self.rests_on.cluster }
    }

    fn region_answer<T>(&self, value: T) -> Result<Answer<T>> {
        self.cluster.check_bootstrapped()?;
        Ok(Answer { value, after: self.rests_on.bootstrap })
    }

    /// Changes the state by a record that the next start will find in the log.
    pub(crate) fn commit(&mut self, record: Record) {
        self.position.0 += 1;
        self.apply(&record).expect("requests are checked before they become records");
        self.outbox.push(record);
        let (position, rests_on) = (self.position, &mut self.rests_on);
        match self.outbox.last().expect("it was just pushed") {
            Record::IdWindow { end } => rests_on.ids.extend(*end, position),
            Record::TsoWindow { end_ms } => rests_on.timestamps.extend(*end_ms, position),
            Record::GcSafePoint(_)
            | Record::ServiceSafePointPut { .. }
            | Record::ServiceSafePointRemoved { .. } => rests_on.safe_points = position,
            Record::Created { .. }
            | Record::Bootstrapped
            | Record::StorePut(_)
            | Record::StoreForgotten { .. }
            | Record::ConfigPut(_)
            | Record::KeyModeLatched(_) => rests_on.cluster = position,
            Record::RegionPut { .. } => rests_on.regions = position,
        }
    }

    /// The only place that changes what a restart finds again. Refuses what no scheduler has ever recorded.
    fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Created { .. } => return Err("the cluster is created twice"),
            Record::Bootstrapped => self.cluster.bootstrapped = true,
            Record::StorePut(store) if self.cluster.forgotten.contains(&store.id) => {
                return Err("a store comes back that was forgotten");
            }
            Record::StorePut(store) => {
                self.cluster.stores.entry(store.id).or_default().store = store.clone()
            }
            Record::StoreForgotten { store } => {
                self.cluster.stores.remove(store);
                self.cluster.forgotten.insert(*store);
            }
            Record::RegionPut { region, .. } if region.range.is_empty() => {
                return Err("a region has no keys");
            }
            Record::RegionPut { region, leader } => {
                let (region, leader) = (region.clone(), *leader);
                let info = RegionInfo { region, leader, ..RegionInfo::default() };
                self.cluster.regions.put(info, None);
            }
            Record::ConfigPut(config) => self.cluster.config = *config,
            Record::KeyModeLatched(_) if self.cluster.key_mode.is_some() => {
                return Err("the key mode is decided twice");
            }
            Record::KeyModeLatched(mode) => self.cluster.key_mode = Some(*mode),
            Record::IdWindow { end } if *end <= self.ids.window_end() => {
                return Err("the window of ids shrinks");
            }
            Record::IdWindow { end } => self.ids.extend(*end),
            Record::TsoWindow { end_ms } if *end_ms <= self.oracle.window_end_ms() => {
                return Err("the window of timestamps shrinks");
            }
            Record::TsoWindow { end_ms } => self.oracle.extend(*end_ms),
            Record::GcSafePoint(safe_point) if *safe_point <= self.safe_points.gc => {
                return Err("the GC safe point goes back");
            }
            Record::GcSafePoint(safe_point) => self.safe_points.gc = *safe_point,
            Record::ServiceSafePointPut { service, safe_point, expires_at } => {
                let wish = Wish { safe_point: *safe_point, expires_at: *expires_at };
                self.safe_points.services.insert(service.clone(), wish);
            }
            Record::ServiceSafePointRemoved { service } if service == GC_WORKER => {
                return Err("the service safe point of gc_worker is removed");
            }
            Record::ServiceSafePointRemoved { service } => {
                self.safe_points.services.remove(service);
            }
        }
        Ok(())
    }
}
