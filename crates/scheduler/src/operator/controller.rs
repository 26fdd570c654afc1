//! The operators that are running: at most one for a region, in what order they take each other's place, and when they
//! are asked for again.
//!
//! Reports and orders get lost. So an order is repeated until a report shows its effect, and an operator that takes too
//! long is given up: the checkers see what it has left.

use std::{collections::BTreeMap, time::Duration};

use types::{
    RegionId,
    limits::{OPERATOR_RECORD_TTL, ORDERS_WAITING_MAX},
    marks::{mutant, sometimes},
};

use super::{Cause, Operator, OperatorInfo, Order, Verdict};
use crate::{
    LogPosition, ScheduleConfig,
    cluster::{Health, RegionInfo, RegionTree},
};

/// How often the leader of a region is asked for the same step without having reported.
const PUSH_INTERVAL: Duration = Duration::from_secs(2);

/// How an operator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It goes on.
    Running,
    /// All steps are done.
    Success,
    /// It took too long.
    Timeout,
    /// It was given up; says why.
    Canceled(&'static str),
    /// One of higher priority has taken its place.
    Replaced,
}

/// What operators share a limit with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// What somebody wants has no limit.
    Admin,
    Repair,
    MovePeers,
    MoveLeaders,
}

/// Orders to send, and what must be durable before.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// One for a region: a newer one knows better.
    pub(crate) orders: BTreeMap<RegionId, Order>,
    pub(crate) after: LogPosition,
}

/// The operators that are running, and how those before them ended.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    running: BTreeMap<RegionId, Operator>,
    /// One for a region, with the time of its end.
    finished: BTreeMap<RegionId, (OperatorInfo, Duration)>,
    outbox: Outbox,
}

impl Operators {
    /// What is being done to a region.
    pub(crate) fn get(&self, region: RegionId) -> Option<&Operator> {
        self.running.get(&region)
    }

    /// All that is being done.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Operator> {
        self.running.values()
    }

    /// What is being done to a region, or what was done last.
    pub(crate) fn info(&self, region: RegionId) -> Option<OperatorInfo> {
        let running = self.running.get(&region).map(|operator| operator.info(Status::Running));
        running.or_else(|| self.finished.get(&region).map(|(info, _)| info.clone()))
    }

    /// Whether more of that class may begin.
    pub(crate) fn has_room_for(&self, class: Class, config: &ScheduleConfig) -> bool {
        let limit = match class {
            Class::Admin => return true,
            Class::Repair => config.replica_schedule_limit,
            Class::MovePeers => config.region_schedule_limit,
            Class::MoveLeaders => config.leader_schedule_limit,
        };
        self.running.values().filter(|operator| operator.class() == class).count() < limit
    }

    /// Whether an operator of that priority may begin: nothing is being done to the region that is as urgent.
    pub(crate) fn may_begin(&self, region: RegionId, priority: super::Priority) -> bool {
        mutant!("several_operators_for_a_region")
            || self.get(region).is_none_or(|running| running.priority < priority)
    }

    /// Begins an operator, which takes the place of a less urgent one, and asks for its first step.
    pub(crate) fn begin(
        &mut self,
        operator: Operator,
        region: &RegionInfo,
        health: &Health<'_>,
        now: Duration,
    ) {
        if self.running.contains_key(&operator.region) {
            sometimes!("an operator takes the place of another");
            self.end(operator.region, Status::Replaced, now);
        }
        self.running.insert(operator.region, operator);
        if let Some((order, after)) = self.on_report(region, health, now) {
            self.push(order, after);
        }
    }

    /// Gives up what is being done to a region; says whether there was anything.
    pub(crate) fn cancel(&mut self, region: RegionId, now: Duration) -> bool {
        let is_running = self.running.contains_key(&region);
        if is_running {
            self.end(region, Status::Canceled("somebody has cancelled it"), now);
        }
        is_running
    }

    /// The leader of a region has reported: what to ask it for, and what must be durable before.
    pub(crate) fn on_report(
        &mut self,
        region: &RegionInfo,
        health: &Health<'_>,
        now: Duration,
    ) -> Option<(Order, LogPosition)> {
        let operator = self.running.get_mut(&region.region.id)?;
        // What was to be sent is for an older state.
        self.outbox.orders.remove(&region.region.id);
        let leader = region.leader?;
        let instruction = match operator.judge(region, health) {
            Verdict::Ask(instruction) => instruction,
            Verdict::Wait => return None,
            Verdict::Over(status) => {
                self.end(region.region.id, status, now);
                return None;
            }
        };
        operator.next_push = now + PUSH_INTERVAL;
        let order =
            Order { region: region.region.id, epoch: region.region.epoch, leader, instruction };
        Some((order, operator.rests_on))
    }

    /// Gives up what takes too long, asks again for what was asked long ago, and forgets what ended long ago.
    pub(crate) fn on_tick(&mut self, regions: &RegionTree, health: &Health<'_>, now: Duration) {
        self.finished.retain(|_, (_, end)| now.saturating_sub(*end) < OPERATOR_RECORD_TTL);
        let needs_care = |operator: &&Operator| {
            operator.next_push <= now
                || operator.is_late(now)
                || regions.get(operator.region).is_none()
        };
        let due = self.running.values().filter(needs_care);
        let due: Vec<RegionId> = due.map(|operator| operator.region).collect();
        for id in due {
            let operator = self.running.get_mut(&id).expect("it is running");
            operator.next_push = now + PUSH_INTERVAL;
            let late = operator.is_late(now);
            let Some(region) = regions.get(id) else {
                self.end(id, Status::Canceled("the region is gone"), now);
                continue;
            };
            if late {
                sometimes!("an operator takes too long");
                self.end(id, Status::Timeout, now);
            } else if let Some((order, after)) = self.on_report(region, health, now) {
                self.push(order, after);
            }
        }
    }

    /// Takes the orders that are to be sent without having been asked for, and what must be durable before.
    pub(crate) fn take_orders(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    fn push(&mut self, order: Order, after: LogPosition) {
        let orders = &mut self.outbox.orders;
        if orders.len() < ORDERS_WAITING_MAX || orders.contains_key(&order.region) {
            orders.insert(order.region, order);
            self.outbox.after = self.outbox.after.max(after);
        }
    }

    fn end(&mut self, region: RegionId, status: Status, now: Duration) {
        let operator = self.running.remove(&region).expect("only what is running ends");
        self.outbox.orders.remove(&region);
        self.finished.insert(region, (operator.info(status), now));
    }
}

impl Operator {
    fn class(&self) -> Class {
        match self.cause {
            Cause::Admin => Class::Admin,
            Cause::Replica => Class::Repair,
            Cause::Balance if self.moves_peers() => Class::MovePeers,
            Cause::Balance => Class::MoveLeaders,
        }
    }

    fn is_late(&self, now: Duration) -> bool {
        self.timeout() < now.saturating_sub(self.started)
    }
}
