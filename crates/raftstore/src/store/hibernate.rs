//! Regions that sleep: with nothing to do for a while, a region costs no tick and no message.
//!
//! The leader decides. After [`StoreConfig::sleep_ticks`](crate::StoreConfig) without traffic, when all members have
//! everything, it says so ([`MessageBody::Sleep`]) and sleeps; a follower that has applied it all does as well, any other
//! wakes it again ([`MessageBody::Wake`]). Whatever is wanted of a peer, or said to it, wakes it.
//!
//! Nobody hears of a leader that sleeps, so that the stores answer for each other: two with a sleeping region in common
//! ping each other, and when one is silent, the regions that it led wake in the others and elect. A follower also wakes
//! now and then by itself: its leader may be gone though the leader's store is not.
//!
//! Safety does not depend on any of this. A peer that sleeps is one that gets no ticks: it gives up its lease first, keeps
//! its promise not to vote for longer than it must, and asks a quorum before its first read.

use std::collections::{BTreeMap, BTreeSet};

use raft::{ProgressKind, RoleKind};
use types::{Peer as Member, RegionEpoch, RegionId, StoreId};

use super::{Output, Store};
use crate::{
    config::StoreConfig,
    message::{MessageBody, StoreMessage},
    peer::Peer,
};

/// Which regions sleep, and what is known of the stores that answer for them.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// Sleeping regions by the store of their leader.
    by_leader: BTreeMap<StoreId, BTreeSet<RegionId>>,
    /// The followers among them, by the tick of each period in which they wake.
    dozing: BTreeSet<(u64, RegionId)>,
    /// For each store with which this one has sleeping regions in common, how many.
    partners: BTreeMap<StoreId, usize>,
    /// The tick at which each store was last heard of.
    heard: BTreeMap<StoreId, u64>,
}

impl Sleepers {
    /// A store has said something.
    pub(super) fn hear(&mut self, store: StoreId, now: u64) {
        self.heard.insert(store, now);
    }

    fn silence(&self, store: StoreId, now: u64) -> u64 {
        self.heard.get(&store).map_or(u64::MAX, |heard| now - heard)
    }

    fn add(&mut self, region_id: RegionId, leader: StoreId, others: &[StoreId], now: u64) {
        self.by_leader.entry(leader).or_default().insert(region_id);
        for store in others {
            *self.partners.entry(*store).or_default() += 1;
            // Who falls asleep at the same moment has not pinged yet.
            self.heard.insert(*store, now);
        }
    }

    fn remove(&mut self, region_id: RegionId, leader: StoreId, others: &[StoreId]) {
        if let Some(regions) = self.by_leader.get_mut(&leader) {
            regions.remove(&region_id);
            if regions.is_empty() {
                self.by_leader.remove(&leader);
            }
        }
        for store in others {
            if let Some(count) = self.partners.get_mut(store) {
                *count -= 1;
                if *count == 0 {
                    self.partners.remove(store);
                }
            }
        }
    }
}

impl<A> Store<A> {
    /// Something is wanted of a peer, or said to it.
    pub(super) fn wake(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        peer.idle = 0;
        if let Some(leader) = peer.sleeps_under.take() {
            // A follower needs to hear of its leader again, before it campaigns.
            if let Some(to) = peer.find(peer.node.role().leader)
                && !peer.leads()
            {
                self.out.push(peer.say(to, MessageBody::Wake));
            }
            let others = other_stores(peer, self.config.store_id);
            self.sleepers.remove(region_id, leader, &others);
            self.sleepers.dozing.remove(&(region_id.0 % self.config.doze_ticks.max(1), region_id));
        }
        self.awake.insert(region_id);
        self.dirty.insert(region_id);
    }

    fn fall_asleep(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        let Some(leader) = peer.find(peer.node.role().leader) else { return };
        peer.node.rest();
        peer.sleeps_under = Some(leader.store_id);
        let own = self.config.store_id;
        let others = other_stores(peer, own);
        if leader.store_id != own {
            let phase = region_id.0 % self.config.doze_ticks.max(1);
            self.sleepers.dozing.insert((phase, region_id));
        }
        self.sleepers.add(region_id, leader.store_id, &others, self.ticks);
        self.awake.remove(&region_id);
        // Its lease is given up, which others have to know.
        self.dirty.insert(region_id);
    }

    /// A peer is gone from here: it does not sleep any more, and is not awake.
    pub(super) fn forget_sleeper(&mut self, region_id: RegionId) {
        self.wake(region_id);
        self.awake.remove(&region_id);
        self.dirty.remove(&region_id);
    }

    /// Lets the regions sleep that are led here and have nothing to do.
    pub(super) fn let_sleep(&mut self, idle: Vec<RegionId>) {
        for region_id in idle {
            let Some(peer) = self.peers.get(&region_id) else { continue };
            let now = self.ticks;
            let others = other_stores(peer, self.config.store_id);
            let limit = self.config.silence_ticks;
            if others.iter().any(|store| limit <= self.sleepers.silence(*store, now)) {
                continue;
            }
            let (term, index) = (peer.node.term(), peer.node.last_index());
            for to in peer.region.peers.iter().filter(|member| member.id != peer.id) {
                self.out.push(peer.say(*to, MessageBody::Sleep { term, index }));
            }
            self.fall_asleep(region_id);
        }
    }

    /// The leader says that there is nothing to do.
    pub(super) fn on_sleep(&mut self, message: &StoreMessage, term: u64, index: u64) {
        let Some(peer) = self.peers.get(&message.region_id) else { return };
        if peer.id != message.to.id {
            return;
        }
        let follows = peer.node.role().role == RoleKind::Follower
            && peer.node.role().leader == message.from.id.0
            && (peer.node.term(), peer.node.last_index()) == (term, index);
        if follows && peer.has_nothing_to_do() {
            self.fall_asleep(message.region_id);
            return;
        }
        self.out.push(peer.say(message.from, MessageBody::Wake));
    }

    /// Pings the stores that have to hear of this one, and wakes whose leader's store is silent.
    pub(super) fn watch_sleepers(&mut self) {
        let now = self.ticks;
        if now.is_multiple_of(self.config.ping_ticks.max(1)) {
            for store in self.sleepers.partners.keys() {
                let member = |store_id| Member { store_id, ..Member::default() };
                self.out.push(Output::Send(Box::new(StoreMessage {
                    region_id: RegionId(0),
                    from: member(self.config.store_id),
                    to: member(*store),
                    epoch: RegionEpoch::default(),
                    body: MessageBody::Ping,
                })));
            }
        }
        let limit = self.config.silence_ticks;
        let own = self.config.store_id;
        let leaders = self.sleepers.by_leader.keys().filter(|store| **store != own);
        let silent = leaders.filter(|store| limit <= self.sleepers.silence(**store, now));
        let silent: Vec<StoreId> = silent.copied().collect();
        for store in silent {
            for region_id in self.sleepers.by_leader.get(&store).cloned().unwrap_or_default() {
                if let Some(peer) = self.peers.get_mut(&region_id) {
                    // The silence of the leader's store is one of the leader.
                    peer.node.hear_silence(u32::try_from(limit).unwrap_or(u32::MAX));
                }
                self.wake(region_id);
            }
        }
        self.wake_some();
    }

    /// Wakes followers now and then, each at its own tick of the period.
    fn wake_some(&mut self) {
        let phase = self.ticks % self.config.doze_ticks.max(1);
        let due = (phase, RegionId(0))..=(phase, RegionId(u64::MAX));
        let due: Vec<RegionId> = self.sleepers.dozing.range(due).map(|(_, id)| *id).collect();
        for region_id in due {
            self.wake(region_id);
        }
    }

    /// How many regions sleep here.
    pub fn sleeping(&self) -> usize {
        self.sleepers.by_leader.values().map(BTreeSet::len).sum()
    }
}

/// Whether a leader has had nothing to do for long enough, and its members have everything. (Not in a tick in which it
/// says that it is there: that would wake who sleeps.)
pub(super) fn is_idle(config: &StoreConfig, peer: &Peer) -> bool {
    let patience = config.sleep_ticks;
    if patience == 0 || peer.idle < patience || !peer.leads() || !peer.has_nothing_to_do() {
        return false;
    }
    let last = peer.node.last_index();
    let silence = u64::from(config.core.election_ticks);
    let mut members = peer.node.peers().filter(|member| member.id != peer.id.0);
    members.all(|member| {
        member.kind == ProgressKind::Replicate
            && member.matched == last
            && member.silent_ticks < silence
    })
}

/// The stores of the other members.
fn other_stores(peer: &Peer, own: StoreId) -> Vec<StoreId> {
    let stores = peer.region.peers.iter().map(|member| member.store_id);
    stores.filter(|store| *store != own).collect()
}
