//! What must hold: in each order, at each tick, and in the end.

use std::{collections::BTreeMap, time::Duration};

use scheduler::{
    Instruction, LogPosition, OperatorInfo, Order, PeerChange, PeerChangeKind, RegionInfo, Status,
    Step, StoreState, testing,
};
use types::{KeyRange, Peer, PeerRole, RegionId, StoreId};

use crate::{
    group::Group,
    world::{DOWN, Event, SECOND, World},
};

/// How long after a fault the scheduler may not know of it: two heartbeats, and what is under way.
const GRACE: Duration = Duration::from_secs(25);

impl World {
    pub(crate) fn is_durable(&self, after: LogPosition) -> bool {
        after.0 <= self.durable as u64
    }

    /// An id is used for one thing only.
    pub(crate) fn use_id(&mut self, id: u64, what: String) {
        if let Some(other) = self.used_ids.insert(id, what.clone()) {
            assert_eq!(other, what, "id {id} is used twice");
        }
    }

    /// The ids in an answer that leaves the scheduler.
    pub(crate) fn note_ids(&mut self, event: &Event) {
        match event {
            Event::Order(order) => {
                if let Instruction::ChangePeer(PeerChange { peer, .. }) = order.instruction {
                    let Order { region, .. } = **order;
                    let what = format!("a peer of region {region} on store {}", peer.store_id);
                    self.use_id(peer.id.0, what);
                }
            }
            Event::Split(region, ids) => {
                self.use_id(ids.region.0, format!("region {}", ids.region));
                for (old, id) in region.peers.iter().zip(&ids.peers) {
                    let store = old.store_id;
                    let what = format!("a peer of region {} on store {store}", ids.region);
                    self.use_id(id.0, what);
                }
            }
            _ => {}
        }
    }

    /// An order must do no harm when it is done right now.
    pub(crate) fn check_order(&mut self, order: &Order) {
        let Some(group) = self.groups.get(&order.region) else { return };
        if group.info.region.epoch != order.epoch {
            return; // The leader will ignore it.
        }
        let mut changed = group.clone();
        if testing::execute(&mut changed.info, &order.instruction, false).is_err() {
            if let Instruction::ChangePeer(PeerChange { kind, peer }) = order.instruction {
                let leads = order.leader.id == peer.id;
                assert!(!leads || kind != PeerChangeKind::Remove, "a leader is removed: {order:?}");
            }
            return;
        }
        for peer in changed.peers() {
            let votes = peer.role != PeerRole::Learner;
            let voted =
                group.peers().iter().any(|old| old.id == peer.id && old.role != PeerRole::Learner);
            let has_data = group.had_data.contains(&peer.id);
            assert!(!votes || voted || has_data, "a peer without data votes: {order:?}, {group:?}");
        }
        let voters = |group: &Group| {
            group.peers().iter().filter(|peer| peer.role != PeerRole::Learner).count()
        };
        if voters(&changed) < voters(group) && !group.is_joint() {
            let former = self.former_replicas.iter().filter(|(_, until)| self.now < *until);
            let least = former.map(|(max, _)| *max).chain([self.max_replicas]).min().unwrap();
            assert!(least < voters(group), "no voter is to spare: {order:?}, {group:?}");
        }
        let seems_there = |peer: &Peer| {
            let recently = |since: Duration| self.now - since < GRACE;
            let alive = self.machines[&peer.store_id].died.is_none_or(recently);
            let lag = changed.lagging.get(&peer.id);
            alive && changed.had_data.contains(&peer.id) && lag.is_none_or(|&since| recently(since))
        };
        let had = group.has_majority(seems_there);
        let has = changed.has_majority(seems_there);
        assert!(!had || has, "a majority is taken away: {order:?}, {group:?}");
    }

    /// After a report nobody goes on with what was planned for another state of the region.
    pub(crate) fn check_operator_after(
        &self,
        before: Option<OperatorInfo>,
        known: Option<&RegionInfo>,
        report: &RegionInfo,
    ) {
        let (Some(before), Some(known)) = (before, known) else { return };
        let range_changed = known.region.epoch.version < report.region.epoch.version;
        let is_new = |peer: &&Peer| !known.region.peers.iter().any(|old| old.id == peer.id);
        let meddled =
            report.region.peers.iter().filter(is_new).any(|peer| self.meddled.contains(&peer.id));
        if before.status != Status::Running || !(range_changed || meddled) {
            return;
        }
        let after = self.scheduler.operator(report.region.id).unwrap().value;
        let goes_on = after.status == Status::Running && after.steps == before.steps;
        assert!(!goes_on, "an operator goes on in a region that others changed: {after:?}");
    }

    pub(crate) fn check_every_tick(&mut self) {
        self.check_tree();
        self.check_operators();
        self.check_stores();
    }

    /// No region shares keys with another, and none goes back.
    fn check_tree(&mut self) {
        let regions = self.scheduler.scan_regions(&KeyRange::all(), 0).unwrap().value;
        for pair in regions.windows(2) {
            let (KeyRange { end, .. }, KeyRange { start, .. }) =
                (&pair[0].region.range, &pair[1].region.range);
            assert!(!end.is_empty() && end <= start, "regions overlap: {pair:?}");
        }
        for info in regions {
            let epoch = info.region.epoch;
            let known = self.known_epochs.entry(info.region.id).or_insert(epoch);
            let goes_on = known.version <= epoch.version && known.conf_ver <= epoch.conf_ver;
            assert!(goes_on, "region {} goes back from {known} to {epoch}", info.region.id);
            *known = epoch;
        }
        // Without merges the version of a key's region only grows.
        for group in self.groups.values() {
            let key = &group.info.region.range.start;
            let Some(found) = self.scheduler.get_region(key).unwrap().value else { continue };
            let version = found.region.epoch.version;
            assert!(version <= group.info.region.epoch.version, "{found:?} is not true yet");
            let known = self.known_versions.entry(key.clone()).or_insert(version);
            assert!(*known <= version, "a key goes back from version {known} to {found:?}");
            *known = version;
        }
    }

    fn check_operators(&mut self) {
        let running = self.scheduler.operators().value;
        let mut adding: BTreeMap<StoreId, usize> = BTreeMap::new();
        for operator in &running {
            if let (0, Some(Step::AddLearner { peer })) = (operator.done, operator.steps.first()) {
                *adding.entry(peer.store_id).or_default() += 1;
            }
        }
        for operator in running.iter().filter(|operator| operator.desc == "replace-down-replica") {
            self.check_replacement(operator);
        }
        for operator in running.iter().filter(|operator| operator.desc == "remove-extra-replica") {
            self.check_removal(operator);
        }
        for (store, count) in adding {
            let limit = self.config.store_add_limit;
            assert!(count <= limit, "{count} peers are on their way to store {store}");
        }
    }

    /// A store is given up when it was silent for long. Judged when that is decided.
    fn check_replacement(&mut self, operator: &OperatorInfo) {
        let (Some(Step::AddLearner { peer: new }), Some(Step::RemovePeer { peer: gone })) =
            (operator.steps.first(), operator.steps.last())
        else {
            return;
        };
        if !self.judged.insert(new.id) {
            return;
        }
        let machine = &self.machines[&gone.store_id];
        let silence = self.now - machine.missed_since(self.now).min(machine.heard);
        let is_gone = self.state(gone.store_id) == Some(StoreState::Tombstone);
        assert!(is_gone || DOWN <= silence + SECOND, "given up after {silence:?}: {operator:?}");
    }

    /// Of too many peers those go first that are not there. Judged when the removal is decided.
    fn check_removal(&mut self, operator: &OperatorInfo) {
        let Some(&Step::RemovePeer { peer: gone }) = operator.steps.last() else { return };
        if !self.judged.insert(gone.id) {
            return;
        }
        let known = self.scheduler.get_region_by_id(operator.region).unwrap().value.unwrap();
        let voters = known.region.peers.iter().filter(|peer| peer.role == PeerRole::Voter);
        let dead: Vec<&Peer> = voters
            .filter(|peer| {
                let machine = &self.machines[&peer.store_id];
                machine.died.is_some_and(|died| GRACE < self.now - died.max(machine.heard))
            })
            .collect();
        let machine = &self.machines[&gone.store_id];
        let was_there = machine.is_alive()
            && self.now - machine.heard < 15 * SECOND
            && self.state(gone.store_id) == Some(StoreState::Up);
        assert!(
            dead.is_empty() || !was_there,
            "{dead:?} are dead, and another is removed: {operator:?}"
        );
    }

    /// A store that is gone for good holds nothing.
    fn check_stores(&mut self) {
        for &id in self.machines.keys() {
            if self.state(id) != Some(StoreState::Tombstone) {
                continue;
            }
            for group in self.groups.values() {
                let Some(peer) = group.info.region.peer_on(id) else { continue };
                let age = self.now - group.born[&peer.id];
                assert!(age < GRACE, "store {id} was buried with {peer:?} in {group:?}");
            }
        }
    }

    /// What is not yet as it should be.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let in_service = self.in_service();
        for group in self.groups.values() {
            let region = &group.info.region;
            if region.peers.iter().any(|peer| peer.role != PeerRole::Voter) {
                return Some(format!(
                    "region {} has other peers than voters: {group:?}",
                    region.id
                ));
            }
            if region.peers.len() != self.max_replicas {
                return Some(format!(
                    "region {} has not {}: {group:?}",
                    region.id, self.max_replicas
                ));
            }
            if let Some(peer) =
                region.peers.iter().find(|peer| !in_service.contains(&peer.store_id))
            {
                return Some(format!("region {} has {peer:?}, which is not in service", region.id));
            }
            if !region.peers.iter().all(|peer| group.has_data(peer.id)) {
                return Some(format!("region {} has peers that lag behind", region.id));
            }
            let known = self.scheduler.get_region_by_id(region.id).unwrap().value;
            let as_it_is = |known: &RegionInfo| {
                let (size, leader) = (group.info.approximate_size, group.info.leader);
                (&known.region, known.leader, known.approximate_size) == (region, leader, size)
            };
            if !known.is_some_and(|known| as_it_is(&known)) {
                return Some(format!("region {} is not known as it is: {group:?}", region.id));
            }
        }
        let leaving = self.machines.keys().find(|id| self.state(**id) == Some(StoreState::Offline));
        if let Some(id) = leaving {
            return Some(format!("store {id} is still on its way out"));
        }
        if let Some(operator) = self.scheduler.operators().value.first() {
            return Some(format!("{operator:?} is running"));
        }
        self.unbalanced(&in_service)
    }

    /// A move that the rules of balance ask for.
    fn unbalanced(&self, in_service: &[StoreId]) -> Option<String> {
        const REGION_WEIGHT_MIN: u64 = types::limits::REGION_WEIGHT_MIN;
        let weight = |group: &Group| group.info.approximate_size.max(REGION_WEIGHT_MIN);
        let held = |store: StoreId| -> u64 {
            let on_it = |group: &&Group| group.info.region.peer_on(store).is_some();
            self.groups.values().filter(on_it).map(weight).sum()
        };
        let led = |store: StoreId| -> u64 {
            let by_it = |group: &&Group| group.info.leader.is_some_and(|l| l.store_id == store);
            self.groups.values().filter(by_it).count() as u64
        };
        for &from in in_service {
            for &to in in_service {
                for group in self.groups.values() {
                    let region = &group.info.region;
                    let (on_from, on_to) = (region.peer_on(from), region.peer_on(to));
                    if on_from.is_some()
                        && on_to.is_none()
                        && held(to) + 2 * weight(group) < held(from)
                    {
                        return Some(format!("region {} should go from {from} to {to}", region.id));
                    }
                    let leads = group.info.leader.is_some_and(|leader| leader.store_id == from);
                    let tolerance = self.config.leader_tolerance;
                    if leads && on_to.is_some() && led(to) + 2 * tolerance <= led(from) {
                        return Some(format!("region {} should be led by {to}", region.id));
                    }
                }
            }
        }
        None
    }

    /// The scheduler knows the cluster as it is.
    pub(crate) fn check_picture(&self) {
        let known = self.scheduler.scan_regions(&KeyRange::all(), 0).unwrap().value;
        let known: BTreeMap<RegionId, _> =
            known.iter().map(|info| (info.region.id, (info.region.clone(), info.leader))).collect();
        let real: BTreeMap<RegionId, _> = self
            .groups
            .iter()
            .map(|(id, group)| (*id, (group.info.region.clone(), group.info.leader)))
            .collect();
        assert_eq!(known, real, "the picture is wrong");
    }
}
