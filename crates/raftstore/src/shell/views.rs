//! What is known of the peers of a store, for readers on any thread.
//!
//! A read takes a [`Moment`] first, and a snapshot of the engine after that; then it asks [`Views::check`] whether it may
//! be answered from that snapshot. Each view has a stamp: one that was made known after the moment says nothing of the
//! snapshot, since the entry that made it readable may have been applied in between.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound::{Included, Unbounded},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use runtime::Clock;
use types::{Bytes, Region, RegionId, marks::mutant};

use crate::{Lease, PeerView};

/// Ticks whose times are remembered: more than any lease lasts.
const TICKS: usize = 64;

/// A lease that ends with its view only.
const FOR_EVER: u64 = u64::MAX;

/// What is known of the peers of a store. Written by the poll thread.
pub struct Views {
    clock: Arc<dyn Clock>,
    /// How long a lease lasts from the beginning of its tick on.
    lease: Duration,
    stamp: AtomicU64,
    slots: RwLock<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    by_id: HashMap<RegionId, ArcSwap<Known>>,
    /// By the first keys of the regions.
    by_start: BTreeMap<Bytes, RegionId>,
}

/// A view, and until when its lease runs.
#[derive(Debug)]
struct Known {
    view: PeerView,
    stamp: u64,
    /// Nanoseconds of the clock; 0: there is no lease.
    until: AtomicU64,
}

/// Before a snapshot of the engine was taken.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Views {
    /// No peers; a lease lasts for `lease` from the beginning of its tick on, by `clock`.
    pub fn new(clock: Arc<dyn Clock>, lease: Duration) -> Views {
        Views { clock, lease, stamp: AtomicU64::new(0), slots: RwLock::default() }
    }

    /// The present moment. To be taken before the snapshot.
    pub fn moment(&self) -> Moment {
        Moment(self.stamp.load(Ordering::Acquire))
    }

    /// The view of a region, if there is a peer of it that knows its region.
    pub fn find(&self, region: RegionId) -> Option<PeerView> {
        self.with(region, |known| known.view.clone())
    }

    /// The view of the region that has `key`, if it is here.
    pub fn at(&self, key: &[u8]) -> Option<PeerView> {
        let slots = self.read();
        let (_, id) = slots.by_start.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        let view = slots.find(*id)?.view.clone();
        view.region.range.contains(key).then_some(view)
    }

    /// All views, in the order of their keys.
    pub fn all(&self) -> Vec<PeerView> {
        let slots = self.read();
        slots
            .by_start
            .values()
            .filter_map(|id| slots.find(*id))
            .map(|known| known.view.clone())
            .collect()
    }

    /// What has come of a region since `version` of its range: it, and as many of its neighbours to the right as there
    /// were splits, as far as they are here.
    pub fn since(&self, region: &Arc<Region>, version: u64) -> Vec<Region> {
        let slots = self.read();
        let mut regions = vec![Region::clone(region)];
        for _ in version..region.epoch.version {
            let Some(end) = regions.last().map(|last| last.range.end.clone()) else { break };
            let next = slots.by_start.get(&end).filter(|_| !end.is_empty());
            let Some(next) = next.and_then(|id| slots.find(*id)) else { break };
            regions.push(Region::clone(&next.view.region));
        }
        regions
    }

    /// Looks at the view of a region, and whether a read of a snapshot that was taken after `moment` may be answered.
    pub fn check<T>(
        &self,
        region: RegionId,
        moment: Moment,
        look: impl FnOnce(&PeerView, bool) -> T,
    ) -> Option<T> {
        self.with(region, |known| {
            let until = known.until.load(Ordering::Acquire);
            let is_older = known.stamp <= moment.0 || mutant!("lease_newer_than_the_snapshot");
            let holds = is_older
                && (until == FOR_EVER
                    || (until != 0 && nanos(self.clock.monotonic()) < until)
                    || (until != 0 && mutant!("lease_outlives_its_time")));
            look(&known.view, holds)
        })
    }

    /// The term in which a peer leads that had applied an entry of it before `moment`: a snapshot that was taken after that
    /// has everything of earlier terms.
    pub fn leads_in(&self, region: RegionId, moment: Moment) -> Option<u64> {
        let of = |known: &Known| known.view.leads_in.filter(|_| known.stamp <= moment.0);
        self.with(region, of).flatten()
    }

    fn with<T>(&self, region: RegionId, look: impl FnOnce(&Known) -> T) -> Option<T> {
        self.read().by_id.get(&region).map(|slot| look(&slot.load()))
    }

    /// Makes a view known. `ticks`: when the store's ticks began.
    pub fn put(&self, view: PeerView, ticks: &TickTimes) {
        let until = AtomicU64::new(self.until(view.lease, ticks));
        let region = Arc::clone(&view.region);
        // Whoever sees the stamp sees everything that was applied before it.
        let stamp = self.stamp.fetch_add(1, Ordering::AcqRel) + 1;
        let known = Arc::new(Known { view, stamp, until });
        let mut moved = true;
        if let Some(slot) = self.read().by_id.get(&region.id) {
            let before = slot.load();
            // Who holds the old view looks at its lease last.
            before.until.store(0, Ordering::Release);
            moved = before.view.region.range.start != region.range.start;
            slot.store(Arc::clone(&known));
        }
        if moved {
            let mut slots = self.write();
            if slots.by_id.contains_key(&region.id) {
                slots.by_start.retain(|_, id| *id != region.id);
            }
            slots.by_start.insert(region.range.start.clone(), region.id);
            slots.by_id.entry(region.id).or_insert_with(|| ArcSwap::new(known));
        }
    }

    /// Makes another lease of a region known.
    pub fn renew(&self, region: RegionId, lease: Lease, ticks: &TickTimes) {
        let until = self.until(lease, ticks);
        self.with(region, |known| known.until.store(until, Ordering::Release));
    }

    /// There is no such peer any more. Who holds its view has no lease.
    pub fn remove(&self, region: RegionId) {
        let mut slots = self.write();
        if let Some(slot) = slots.by_id.remove(&region) {
            let known = slot.load();
            known.until.store(0, Ordering::Release);
            let start = &known.view.region.range.start;
            if slots.by_start.get(start) == Some(&region) {
                slots.by_start.remove(start);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn until(&self, lease: Lease, ticks: &TickTimes) -> u64 {
        match lease {
            Lease::None => 0,
            Lease::Alone => FOR_EVER,
            Lease::Since(tick) => ticks.began(tick).map_or(0, |began| nanos(began + self.lease)),
        }
    }
}

impl Slots {
    fn find(&self, region: RegionId) -> Option<arc_swap::Guard<Arc<Known>>> {
        self.by_id.get(&region).map(ArcSwap::load)
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("lease", &self.lease).finish_non_exhaustive()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER - 1)
}

/// When the latest ticks began.
#[derive(Debug)]
pub struct TickTimes {
    last: u64,
    times: [Duration; TICKS],
}

impl TickTimes {
    /// Tick 0 begins `now`.
    pub fn new(now: Duration) -> TickTimes {
        TickTimes { last: 0, times: [now; TICKS] }
    }

    /// The next tick begins `now`.
    pub fn begin(&mut self, now: Duration) {
        self.last += 1;
        self.times[self.last as usize % TICKS] = now;
    }

    fn began(&self, tick: u64) -> Option<Duration> {
        let is_known = tick <= self.last && self.last < tick + TICKS as u64;
        is_known.then(|| self.times[tick as usize % TICKS])
    }
}
