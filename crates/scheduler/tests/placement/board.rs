//! A scheduler and the cluster that it is told about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use runtime::Rng;
use scheduler::{
    LogPosition, Now, OperatorInfo, Order, RegionInfo, Scheduler, Store, StoreStats,
    testing::{self, Pretended, Question},
};
use types::{ApiMode, ClusterId, RegionId, StoreId};

use crate::draw::{draw_info, draw_order, draw_region};

/// A store as it says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) stats: StoreStats,
    /// Nothing is heard of it.
    pub(crate) silent: bool,
}

pub(crate) struct Board {
    pub(crate) scheduler: Scheduler,
    pub(crate) stores: BTreeMap<u64, Machine>,
    pub(crate) pretended: BTreeMap<StoreId, Pretended>,
    /// What was reported last.
    pub(crate) regions: BTreeMap<u64, RegionInfo>,
    /// What was asked for last.
    pub(crate) orders: BTreeMap<u64, Order>,
    /// Regions whose leaders are silent.
    pub(crate) muted: BTreeSet<u64>,
    now: Duration,
    rng: Rng,
}

impl Board {
    pub(crate) fn new() -> Board {
        let mut scheduler = Scheduler::new(ClusterId(7), ApiMode::V1);
        // Ids of regions, stores and peers that scripts name are far below.
        let _ = scheduler.alloc_id(999).unwrap();
        Board {
            scheduler,
            stores: BTreeMap::new(),
            pretended: BTreeMap::new(),
            regions: BTreeMap::new(),
            orders: BTreeMap::new(),
            muted: BTreeSet::new(),
            now: Duration::from_secs(1000),
            rng: Rng::new(1),
        }
    }

    pub(crate) fn store(&self, id: u64) -> Store {
        Store { id: StoreId(id), address: format!("host{id}"), ..Store::default() }
    }

    /// A store registers; the first one begins the cluster.
    pub(crate) fn put_store(&mut self, id: u64) -> scheduler::Result<()> {
        let store = self.store(id);
        if self.scheduler.is_bootstrapped().value {
            let _ = self.scheduler.put_store(store)?;
        } else {
            let _ = self.scheduler.bootstrap(store, Vec::new(), ApiMode::V1)?;
        }
        testing::set_time(&mut self.scheduler, self.now);
        let stats = StoreStats {
            store_id: StoreId(id),
            capacity: 1000,
            available: 900,
            ..StoreStats::default()
        };
        self.stores.insert(id, Machine { stats, silent: false });
        self.store_heartbeat(id);
        Ok(())
    }

    pub(crate) fn store_heartbeat(&mut self, id: u64) {
        let now = self.clock();
        let machine = &self.stores[&id];
        if !machine.silent {
            // A tombstone is refused, which is not what these scripts are about.
            let _ = self.scheduler.store_heartbeat(now, machine.stats.clone());
        }
    }

    /// The leader of a region reports; what it is asked for.
    pub(crate) fn report(&mut self, info: RegionInfo) -> String {
        let id = info.region.id.0;
        self.regions.insert(id, info.clone());
        match self.scheduler.region_heartbeat(info) {
            Ok(answer) => answer.value.map_or(String::new(), |order| self.note(order)),
            Err(error) => format!("refused: {error}"),
        }
    }

    fn note(&mut self, order: Order) -> String {
        let drawn = draw_order(&order);
        self.orders.insert(order.region.0, order);
        drawn
    }

    pub(crate) fn take_orders(&mut self) -> String {
        let mut out = String::new();
        for order in self.scheduler.take_orders().value {
            writeln!(out, "{}", self.note(order)).unwrap();
        }
        out
    }

    /// The leader does as it is told.
    pub(crate) fn execute_order(&mut self, id: u64, order: &Order) -> String {
        let mut info = self.regions[&id].clone();
        if let Err(why) = testing::execute(&mut info, &order.instruction, true) {
            return format!("the leader refuses: {why}");
        }
        let drawn = draw_region(&info);
        let next = self.report(info);
        format!("{drawn}\n{next}")
    }

    /// Everything that was asked for is done, until nothing is asked for any more.
    pub(crate) fn do_all(&mut self) -> String {
        let mut out = String::new();
        while let Some((id, order)) = self.orders.pop_first() {
            let mut info = self.regions[&id].clone();
            if info.region.epoch != order.epoch
                || testing::execute(&mut info, &order.instruction, false).is_err()
            {
                continue;
            }
            if self.report(info).is_empty() {
                writeln!(out, "{}", draw_region(&self.regions[&id])).unwrap();
            }
        }
        out
    }

    fn beat(&mut self) {
        let stores: Vec<u64> = self.stores.keys().copied().collect();
        stores.into_iter().for_each(|id| self.store_heartbeat(id));
    }

    /// All regions report whose leader can.
    fn report_all(&mut self) -> String {
        let regions: Vec<RegionInfo> = self.regions.values().cloned().collect();
        let mut out = String::new();
        for info in regions {
            let leader = info.leader.and_then(|leader| self.stores.get(&leader.store_id.0));
            let is_muted = self.muted.contains(&info.region.id.0);
            if leader.is_some_and(|machine| !machine.silent) && !is_muted {
                let order = self.report(info);
                if !order.is_empty() {
                    writeln!(out, "{order}").unwrap();
                }
            }
        }
        out
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        testing::set_time(&mut self.scheduler, self.now);
        self.beat();
        self.report_all();
    }

    /// Time passes; what is asked for, and what comes to an end, at its time. What is asked for again is left out.
    pub(crate) fn run_for(&mut self, time: Duration) -> String {
        let (begin, end) = (self.now, self.now + time);
        let mut out = String::new();
        while self.now < end {
            self.now += Duration::from_millis(100);
            let before = self.scheduler.operators().value;
            if self.now.as_millis().is_multiple_of(10_000) {
                self.beat();
            }
            if self.now.as_millis().is_multiple_of(60_000) {
                self.report_all();
            }
            let at = (self.now - begin).as_secs_f64();
            let now = self.clock();
            self.scheduler.tick(now);
            for operator in before {
                self.draw_end(at, &operator, &mut out);
            }
            for order in self.scheduler.take_orders().value {
                let is_new = self.orders.get(&order.region.0) != Some(&order);
                let drawn = self.note(order);
                if is_new {
                    writeln!(out, "[{at:.1}] {drawn}").unwrap();
                }
            }
        }
        out
    }

    fn draw_end(&self, at: f64, before: &OperatorInfo, out: &mut String) {
        let now = self.scheduler.operator(before.region);
        let goes_on = now.as_ref().is_ok_and(|now| {
            now.value.status == scheduler::Status::Running && now.value.steps == before.steps
        });
        if !goes_on {
            let drawn = now.map_or("forgotten".to_owned(), |now| draw_info(&now.value));
            writeln!(out, "[{at:.1}] region {}: {drawn}", before.region).unwrap();
        }
    }

    pub(crate) fn decide(&mut self, question: Question) -> Option<OperatorInfo> {
        testing::decide(&self.scheduler, question, &self.pretended, &mut self.rng)
    }

    pub(crate) fn filters(&self) -> String {
        let mut out = String::new();
        for &id in self.stores.keys() {
            let [peer, removal, leader] = testing::refusals(&self.scheduler, StoreId(id))
                .map(|refusal| refusal.map_or("yes", |refusal| refusal.name()));
            writeln!(out, "store {id}: new peer: {peer}; removal: {removal}; new leader: {leader}")
                .unwrap();
        }
        out
    }

    pub(crate) fn restart(&mut self) {
        let config = self.scheduler.schedule_config().clone();
        let (records, position) = (self.scheduler.snapshot(), self.scheduler.position());
        self.scheduler = Scheduler::recover(records, position).unwrap();
        self.scheduler.set_schedule_config(config);
        self.orders.clear();
        assert!(position > LogPosition(0) && RegionId(0).is_none());
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, wall_ms: 1_000_000 + self.now.as_millis() as u64 }
    }
}
