//! Placement: what the scheduler does about the cluster on its own, as time passes.
//!
//! Every [`PATROL_INTERVAL`](limits::PATROL_INTERVAL) a tick looks after the operators that are running, checks the
//! next regions in key order, lets the balancers try, and looks whether stores on their way out are empty. All of that
//! is bounded, and each decision is a function of the picture at that moment.
//!
//! After a start nothing is decided before most regions have reported: the log knows where they were, not how they are.

use std::time::Duration;

use runtime::Rng;
use types::{Bytes, PeerId, RegionId, StoreId, limits, marks::mutant};

use crate::{
    Answer, Error, LogPosition, OperatorInfo, Order, Record, Result, ScheduleConfig, Scheduler,
    Status, Store, StoreState,
    balance::{balance_leader, balance_region},
    checker,
    cluster::{Health, KnownStore, Picture},
    operator::{Cause, Change, Class, Draft, Operator, Operators, Plan, Priority, build},
};

/// How often it is checked whether a store on its way out is empty.
const BURY_INTERVAL: Duration = Duration::from_secs(10);

/// How many moves a balancer may begin in one tick.
const MOVES_PER_TICK: usize = 4;

/// What placement remembers between ticks. None of it is recorded.
#[derive(Debug)]
pub(crate) struct Placement {
    config: ScheduleConfig,
    rng: Rng,
    pub(crate) operators: Operators,
    /// The time of the last tick; reports count as coming then.
    now: Duration,
    /// The first tick of this scheduler.
    started: Option<Duration>,
    /// Most regions have reported.
    is_prepared: bool,
    next_patrol: Duration,
    next_bury: Duration,
    /// Where the patrol goes on.
    cursor: Bytes,
    leader_pace: Pace,
    region_pace: Pace,
}

/// How often a balancer tries: less and less while it finds nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    interval: Duration,
    next: Duration,
}

impl Pace {
    const LONGEST: Duration = Duration::from_secs(5);

    fn tried(&mut self, now: Duration, has_found: bool) {
        self.interval = match has_found {
            true => Duration::ZERO,
            false => (self.interval.max(limits::PATROL_INTERVAL) * 13 / 10).min(Pace::LONGEST),
        };
        self.next = now + self.interval;
    }
}

impl Placement {
    pub(crate) fn new(rng: Rng) -> Placement {
        Placement {
            config: ScheduleConfig::default(),
            rng,
            operators: Operators::default(),
            now: Duration::ZERO,
            started: None,
            is_prepared: false,
            next_patrol: Duration::ZERO,
            next_bury: Duration::ZERO,
            cursor: Bytes::new(),
            leader_pace: Pace::default(),
            region_pace: Pace::default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// The next patrol looks whether stores on their way out are empty.
    pub(crate) fn look_for_empty_stores(&mut self) {
        self.next_bury = self.now;
    }

    /// Whether regions that have not reported since the start are not waited for any longer.
    fn has_waited(&self) -> bool {
        let since_start = self.now.saturating_sub(self.started.unwrap_or(self.now));
        self.config.prepare_timeout <= since_start
    }
}

impl Scheduler {
    /// Sets what the settings of placement are from now on.
    pub fn set_schedule_config(&mut self, config: ScheduleConfig) {
        self.placement.config = config;
    }

    /// The settings of placement.
    pub fn schedule_config(&self) -> &ScheduleConfig {
        &self.placement.config
    }

    /// Sets the generator from which choices among equals are drawn. Without it they follow from the cluster id.
    pub fn set_rng(&mut self, rng: Rng) {
        self.placement.rng = rng;
    }

    /// Takes the orders that leaders are to be sent without having reported. Whoever owns the scheduler calls this
    /// after each [`tick`](Scheduler::tick) and sends each order to the leader's store. Orders may be lost: what is
    /// not done is asked for again.
    pub fn take_orders(&mut self) -> Answer<Vec<Order>> {
        let outbox = self.placement.operators.take_orders();
        Answer { value: outbox.orders.into_values().collect(), after: outbox.after }
    }

    /// What is being done to a region, or what was done in the last [`OPERATOR_RECORD_TTL`](limits::OPERATOR_RECORD_TTL).
    ///
    /// # Errors
    /// `NotBootstrapped`, `OperatorNotFound`.
    pub fn operator(&self, region: RegionId) -> Result<Answer<OperatorInfo>> {
        self.cluster.check_bootstrapped()?;
        let info = self.placement.operators.info(region);
        let value = info.ok_or(Error::OperatorNotFound { region })?;
        Ok(Answer { value, after: LogPosition::default() })
    }

    /// Everything that is being done, by region.
    pub fn operators(&self) -> Answer<Vec<OperatorInfo>> {
        let running = self.placement.operators.running();
        let value = running.filter_map(|operator| self.placement.operators.info(operator.region));
        Answer { value: value.collect(), after: LogPosition::default() }
    }

    /// Somebody wants a region changed. It takes the place of what the scheduler does to that region on its own.
    ///
    /// # Errors
    /// `NotBootstrapped`; `Invalid` if there is no such region, if the change makes no sense for it, or if something
    /// as urgent is being done to it.
    pub fn add_operator(&mut self, region: RegionId, change: Change) -> Result<Answer<()>> {
        self.cluster.check_bootstrapped()?;
        if self.cluster.regions.get(region).is_none() {
            return Err(Error::invalid(format!("region {region} not found")));
        }
        let desc = match &change {
            Change::Add { .. } => "admin-add-peer",
            Change::Promote { .. } => "admin-promote-learner",
            Change::Remove { .. } => "admin-remove-peer",
            Change::Replace { .. } => "admin-move-peer",
            Change::TransferLeader { .. } => "admin-transfer-leader",
            Change::LeaveJoint => "admin-leave-joint-state",
            Change::Split { .. } => "admin-split-region",
        };
        let (cause, priority) = (Cause::Admin, Priority::High);
        let plan = Plan { region, desc, cause, priority, change };
        if !self.placement.operators.may_begin(region, priority) {
            return Err(Error::invalid(format!(
                "something as urgent is being done to region {region}"
            )));
        }
        if !self.carry_out(&plan) {
            return Err(Error::invalid(format!("region {region} can't be changed like that")));
        }
        // It is judged at once: by a store that is not there, for example, it is over before it begins.
        match self.placement.operators.info(region).map(|info| info.status) {
            Some(Status::Canceled(why)) => Err(Error::invalid(format!("region {region}: {why}"))),
            _ => Ok(Answer { value: (), after: LogPosition::default() }),
        }
    }

    /// Somebody wants it to end that something is being done to a region. What is done already stays, and the checkers
    /// tidy up what it leaves.
    ///
    /// # Errors
    /// `NotBootstrapped`; `OperatorNotFound` if nothing is being done to the region.
    pub fn cancel_operator(&mut self, region: RegionId) -> Result<Answer<()>> {
        self.cluster.check_bootstrapped()?;
        match self.placement.operators.cancel(region, self.placement.now) {
            true => Ok(Answer { value: (), after: LogPosition::default() }),
            false => Err(Error::OperatorNotFound { region }),
        }
    }

    pub(crate) fn health(&self) -> Health<'_> {
        self.cluster.health(&self.placement.config, self.placement.now)
    }

    pub(crate) fn picture(&self) -> Picture<'_> {
        Picture::new(&self.cluster, &self.placement.operators, self.health())
    }

    /// What the leader that has just reported is to be asked, and what must be durable before.
    pub(crate) fn next_order(&mut self, region: RegionId) -> Option<(Order, LogPosition)> {
        let Placement { config, now, operators, .. } = &mut self.placement;
        let health = self.cluster.health(config, *now);
        operators.on_report(self.cluster.regions.get(region)?, &health, *now)
    }

    /// Tells what time it is. What is known by the first time counts as heard of then.
    pub(crate) fn set_placement_time(&mut self, now: Duration) {
        self.placement.now = now;
        if self.placement.started.is_none() {
            self.placement.started = Some(now);
            self.cluster.regions.begin_time(now);
        }
        for known in self.cluster.stores.values_mut() {
            known.heard.get_or_insert(now);
        }
    }

    /// Lets time pass for placement.
    pub(crate) fn tick_placement(&mut self, now: Duration) {
        self.set_placement_time(now);
        if !self.cluster.bootstrapped || now < self.placement.next_patrol {
            return;
        }
        self.placement.next_patrol = now + limits::PATROL_INTERVAL;
        {
            let Placement { config, operators, .. } = &mut self.placement;
            let health = self.cluster.health(config, now);
            operators.on_tick(&self.cluster.regions, &health, now);
        }
        if !self.is_prepared() {
            return;
        }
        self.patrol();
        self.balance();
        if self.placement.next_bury <= now {
            self.placement.next_bury = now + BURY_INTERVAL;
            self.bury_empty_stores();
        }
    }

    /// Whether enough regions have reported to decide anything: four of five, of all and on each store that is up.
    fn is_prepared(&mut self) -> bool {
        if self.placement.is_prepared {
            return true;
        }
        let regions = &self.cluster.regions;
        let most = |reported: u64, all: u64| 4 * all <= 5 * reported;
        let has_most = |(id, known): (&StoreId, &KnownStore)| {
            known.store.state != StoreState::Up
                || most(regions.reported_of(*id), regions.of_store(*id).regions)
        };
        let is_prepared = self.placement.has_waited()
            || (regions.reported() > 0
                && most(regions.reported() as u64, regions.len() as u64)
                && self.cluster.stores.iter().all(has_most));
        self.placement.is_prepared = is_prepared;
        is_prepared
    }

    /// Checks the next regions in key order.
    fn patrol(&mut self) {
        let mut plans = Vec::new();
        let mut next = None;
        {
            let picture = self.picture();
            let from = self.cluster.regions.starting_at(&self.placement.cursor);
            for (looked_at, region) in from.enumerate() {
                if looked_at == limits::PATROL_REGIONS {
                    next = Some(region.region.range.start.clone());
                    break;
                }
                if !picture.has_operator(region.region.id) {
                    plans.extend(checker::check(&picture, region));
                }
            }
        }
        self.placement.cursor = next.unwrap_or_default();
        for planned in plans {
            if !self.has_room_for(Class::Repair) {
                break;
            }
            // What was begun since weighs on the stores: look again.
            let plan = {
                let region = self.cluster.regions.get(planned.region);
                region.and_then(|region| checker::check(&self.picture(), region))
            };
            if let Some(plan) = plan {
                self.carry_out(&plan);
            }
        }
    }

    fn balance(&mut self) {
        let (now, regions) = (self.placement.now, &self.cluster.regions);
        // A region that has not reported has no size, and stores that hold such seem to be emptier than they are.
        if regions.reported() < regions.len() && !self.placement.has_waited() {
            return;
        }
        if self.placement.leader_pace.next <= now {
            let has_found = self.begin_moves(Class::MoveLeaders);
            self.placement.leader_pace.tried(now, has_found);
        }
        if self.placement.region_pace.next <= now {
            let has_found = self.begin_moves(Class::MovePeers);
            self.placement.region_pace.tried(now, has_found);
        }
    }

    /// Lets a balancer find moves; says whether it found any.
    fn begin_moves(&mut self, class: Class) -> bool {
        let mut begun = 0;
        while begun < MOVES_PER_TICK && self.has_room_for(class) {
            let mut rng = self.placement.rng.clone();
            let plan = match class {
                Class::MoveLeaders => balance_leader(&self.picture(), &mut rng),
                Class::MovePeers => balance_region(&self.picture(), &mut rng),
                Class::Repair | Class::Admin => unreachable!("balancers move peers and leaders"),
            };
            self.placement.rng = rng;
            match plan {
                Some(plan) if self.carry_out(&plan) => begun += 1,
                _ => break,
            }
        }
        begun > 0
    }

    fn has_room_for(&self, class: Class) -> bool {
        self.placement.operators.has_room_for(class, &self.placement.config)
    }

    /// Makes an operator of a plan, and says whether it has begun.
    fn carry_out(&mut self, plan: &Plan) -> bool {
        let Some(region) = self.cluster.regions.get(plan.region).cloned() else { return false };
        if !self.placement.operators.may_begin(plan.region, plan.priority) {
            return false;
        }
        let (mut new, mut rests_on) = (PeerId(0), LogPosition::default());
        if plan.needs_id(&region) {
            let Ok(Answer { value, after }) = self.alloc_id(1) else { return false };
            (new, rests_on) = (PeerId(value.first), after);
        }
        if mutant!("ids_before_they_are_durable") {
            rests_on = LogPosition::default();
        }
        let Some(steps) = build(plan, &region, &self.picture(), new) else { return false };
        let now = self.placement.now;
        let draft = Draft { steps, rests_on };
        let operator = Operator::new(plan, draft, region.region.epoch, now);
        let Placement { config, operators, .. } = &mut self.placement;
        operators.begin(operator, &region, &self.cluster.health(config, now), now);
        true
    }

    /// Stores on their way out that hold nothing any more are gone for good.
    fn bury_empty_stores(&mut self) {
        let picture = self.picture();
        let leaving: Vec<Store> = self
            .cluster
            .stores
            .values()
            .filter(|known| known.store.state == StoreState::Offline)
            .filter(|known| is_empty(&picture, known) || mutant!("stores_are_buried_alive"))
            .map(|known| known.store.clone())
            .collect();
        // While there are holes, somebody may hold what we have not heard of.
        if leaving.is_empty() || !self.cluster.regions.is_complete() {
            return;
        }
        for store in leaving {
            self.commit(Record::StorePut(Store { state: StoreState::Tombstone, ..store }));
        }
    }
}

/// Whether a store holds nothing and will get nothing, by what the regions say and, unless it is silent, by what it says
/// itself.
fn is_empty(picture: &Picture<'_>, known: &KnownStore) -> bool {
    let id = known.store.id;
    let says_so = known.stats.as_ref().is_some_and(|stats| stats.region_count == 0);
    picture.regions.of_store(id).regions == 0
        && picture.load(id).adding == 0
        && (says_so || picture.health.is_silent(id))
}
