//! What happens to a cluster.
//!
//! No fault destroys a majority: a machine dies only if every region keeps one without it. So whenever a region has
//! lost its majority, somebody took it away.

use std::time::Duration;

use scheduler::{Answer, Store, StoreFilter, StoreState};
use types::{Peer, PeerId, PeerRole, RegionId, StoreId};

use crate::{
    group::Group,
    world::{DOWN, Event, MINUTE, SECOND, World},
};

const MACHINES_MAX: usize = 7;
const REGIONS_MAX: usize = 24;

impl World {
    /// One thing happens.
    pub(crate) fn chaos(&mut self) {
        match self.rng.range(0..33) {
            0..=3 => self.join(),
            4..=9 => self.ask_split(),
            10..=12 => self.kill_one(),
            13 => self.cut_off(),
            14..=15 => self.send_away(),
            16 => self.call_back(),
            17..=18 => self.change_replicas(),
            19..=20 | 28..=29 => self.meddle(),
            30..=31 => self.crash_with_new_ids(),
            21..=23 => self.crash_scheduler(),
            24..=25 => self.burn_ids(),
            26 => self.forget(),
            27 | 32 => self.squeeze(),
            other => unreachable!("{other} is drawn"),
        }
    }

    /// An end to all of that: there are enough stores, and whoever is away for good stays so.
    pub(crate) fn calm_down(&mut self) {
        for machine in self.machines.values_mut() {
            machine.cut_off_until = self.now;
        }
        while self.in_service().len() < self.max_replicas.max(3) {
            self.join_surely();
        }
        self.counts.insert("regions", self.groups.len() as u64);
    }

    pub(crate) fn state(&self, id: StoreId) -> Option<StoreState> {
        self.scheduler.get_store(id).ok().map(|answer| answer.value.store.state)
    }

    /// Stores that are up and alive.
    pub(crate) fn in_service(&self) -> Vec<StoreId> {
        let up = |id: &StoreId| self.state(*id) == Some(StoreState::Up);
        let alive = self.machines.iter().filter(|(_, machine)| machine.is_alive());
        alive.map(|(id, _)| *id).filter(up).collect()
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() {
            return None;
        }
        Some(all[self.rng.range(0..all.len() as u64) as usize])
    }

    fn pick_region(&mut self) -> RegionId {
        let all: Vec<RegionId> = self.groups.keys().copied().collect();
        self.pick(&all).unwrap()
    }

    fn join(&mut self) {
        if self.in_service().len() < MACHINES_MAX {
            self.join_surely();
        }
    }

    fn join_surely(&mut self) {
        let Answer { value, after } = self.scheduler.alloc_id(1).unwrap();
        let id = StoreId(value.first);
        // A store waits for its id.
        if !self.is_durable(after) {
            self.make_durable();
        }
        self.use_id(id.0, format!("store {id}"));
        let store = Store { id, address: id.to_string(), ..Store::default() };
        let _ = self.scheduler.put_store(store).unwrap();
        self.make_durable();
        self.count("stores joined");
        self.start_machine(id);
    }

    pub(crate) fn ask_split(&mut self) {
        let id = self.pick_region();
        let region = self.groups[&id].info.region.clone();
        if REGIONS_MAX <= self.groups.len() {
            return;
        }
        if let Ok(Answer { value, after }) = self.scheduler.ask_split(&region) {
            self.hold(after, Event::Split(Box::new(region), value));
        }
    }

    /// Whether every region keeps its majority without these machines.
    fn can_do_without(&self, stores: &[StoreId]) -> bool {
        self.groups.values().all(|group| {
            group
                .has_majority(|peer| self.is_there(group, peer) && !stores.contains(&peer.store_id))
        })
    }

    fn kill_one(&mut self) {
        let alive: Vec<StoreId> = self.machines.keys().copied().collect();
        if let Some(id) = self.pick(&alive) {
            self.kill(id);
        }
    }

    fn kill(&mut self, id: StoreId) {
        if !self.machines[&id].is_alive() || !self.can_do_without(&[id]) {
            return;
        }
        self.stop(id);
        let back = match self.rng.range(0..3) {
            0 => self.seconds(5..60),
            1 => self.seconds(DOWN.as_secs() / 2..2 * DOWN.as_secs()),
            _ => return,
        };
        self.after(back, Event::Return(id));
    }

    fn stop(&mut self, id: StoreId) {
        self.count("machines killed");
        self.stop_machine(id);
        let led = |group: &Group| group.info.leader.is_some_and(|leader| leader.store_id == id);
        let led: Vec<RegionId> =
            self.groups.iter().filter(|(_, group)| led(group)).map(|(id, _)| *id).collect();
        for region in led {
            let pause = self.seconds(1..8);
            self.after(pause, Event::Elect(region));
        }
    }

    /// A machine is well, but the scheduler does not hear of it for a while.
    fn cut_off(&mut self) {
        let all: Vec<StoreId> = self.machines.keys().copied().collect();
        if let Some(id) = self.pick(&all) {
            self.count("machines cut off");
            let seconds = self.seconds(20..DOWN.as_secs() - 20);
            self.machines.get_mut(&id).unwrap().cut_off_until = self.now + seconds;
        }
    }

    fn send_away(&mut self) {
        let in_service = self.in_service();
        if in_service.len() <= self.max_replicas.max(3) {
            return;
        }
        if let Some(id) = self.pick(&in_service) {
            self.count("stores sent away");
            let _ = self.scheduler.remove_store(id).unwrap();
        }
    }

    fn call_back(&mut self) {
        let all = self.scheduler.all_stores(StoreFilter::All).unwrap().value;
        let leaving = all.iter().filter(|info| info.store.state == StoreState::Offline);
        let leaving: Vec<StoreId> = leaving.map(|info| info.store.id).collect();
        if let Some(id) = self.pick(&leaving) {
            self.count("stores called back");
            let _ = self.scheduler.restore_store(id).unwrap();
        }
    }

    fn change_replicas(&mut self) {
        let max = [3, 3, 5, 5, 2][self.rng.range(0..5) as usize];
        if max <= self.in_service().len() {
            self.count("changes of the number of replicas");
            self.set_max_replicas(max);
            self.make_durable();
        }
    }

    /// Somebody else changes a region.
    fn meddle(&mut self) {
        let id = self.pick_region();
        let (in_service, now) = (self.in_service(), self.now);
        let Some(store_id) = self.pick(&in_service) else { return };
        let group = &self.groups[&id];
        if group.is_joint() || group.info.region.peer_on(store_id).is_some() {
            return;
        }
        let Answer { value, .. } = self.scheduler.alloc_id(1).unwrap();
        self.make_durable();
        self.use_id(value.first, format!("a peer of region {id} on store {store_id}"));
        let peer = Peer { id: PeerId(value.first), store_id, role: PeerRole::Learner };
        let group = self.groups.get_mut(&id).unwrap();
        group.info.region.peers.push(peer);
        group.info.region.epoch.conf_ver += 1;
        group.settle(now);
        self.meddled.insert(peer.id);
        self.count("regions changed by others");
        let seconds = self.seconds(2..40);
        self.after(seconds, Event::CatchUp(id, peer.id));
        self.report(id);
    }

    fn burn_ids(&mut self) {
        let count = self.rng.range(100..900) as u32;
        let _ = self.scheduler.alloc_id(count).unwrap();
    }

    /// The scheduler stops before the ids that it uses for what has just come are durable.
    fn crash_with_new_ids(&mut self) {
        self.join();
        let id = self.scheduler.alloc_id(1).unwrap().value.last;
        self.make_durable();
        let end = self.id_window_end();
        if id + 1 < end {
            let _ = self.scheduler.alloc_id((end - 1 - id) as u32).unwrap();
        }
        self.disk_stalls_until = self.now + 20 * SECOND;
        let pause = self.seconds(6..18);
        self.after(pause, Event::Crash);
    }

    fn forget(&mut self) {
        let gone = self.scheduler.forget_tombstones().unwrap().value;
        for id in gone {
            let store = Store { id, address: "again".into(), ..Store::default() };
            assert!(self.scheduler.put_store(store).is_err(), "store {id} is back");
        }
    }

    /// The worst that may happen at once: of five replicas two are silent and one is on its way out, and then two are
    /// too many.
    pub(crate) fn squeeze(&mut self) {
        let full = |group: &Group| group.voters() == 5;
        let Some(group) = self.groups.values().find(|group| full(group)) else {
            let missing = 7_usize.saturating_sub(self.in_service().len());
            (0..missing).for_each(|_| self.join_surely());
            self.set_max_replicas(5);
            self.make_durable();
            // Until then there may be five of them.
            self.after(4 * MINUTE, Event::Squeeze);
            return;
        };
        let stores: Vec<StoreId> = group.peers().iter().map(|peer| peer.store_id).collect();
        let leader = group.info.leader.map(|leader| leader.store_id);
        let followers: Vec<StoreId> =
            stores.into_iter().filter(|store| Some(*store) != leader).collect();
        let &[a, b, c, ..] = &followers[..] else { return };
        let are_alive = self.machines[&a].is_alive() && self.machines[&b].is_alive();
        if are_alive && self.can_do_without(&[a, b]) {
            self.count("squeezes");
            self.stop(a);
            self.stop(b);
            if self.state(c) == Some(StoreState::Up) {
                let _ = self.scheduler.remove_store(c).unwrap();
            }
            // They are seen to be silent, but do not count as down.
            self.let_pass(40 * SECOND);
            self.set_max_replicas(3);
            self.make_durable();
            self.after(2 * MINUTE, Event::Return(a));
        }
    }

    pub(crate) fn let_pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }
}
