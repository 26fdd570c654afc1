//! The scheduler's part: it hears of regions from time to time, hands out ids, and says who should be a member.
//!
//! What it knows is late, and what it wishes may come too late. It keeps as many replicas as are wanted on stores that
//! are heard of, and for mischief it moves what could stay, in single and in joint changes.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

use raftstore::{
    SplitChild,
    store::{Request, RequestKind, Token},
};
use runtime::Rng;
use types::{Bytes, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::{
    Action,
    clients::votes,
    options::Options,
    world::{Fate, News, World},
};
use crate::{
    rng::{index, pick},
    world::MachineId,
};

/// Microseconds for which an order may be on its way.
const ORDER_TAKES: u64 = 2_000;

/// A region as its leader reported it last.
#[derive(Clone, Debug)]
struct Known {
    region: Region,
    leader: Peer,
    term: u64,
}

/// Who hands out ids and moves peers.
#[derive(Debug)]
pub(super) struct Placement {
    rng: Rng,
    options: Options,
    regions: BTreeMap<RegionId, Known>,
    /// When each store was heard of last. Stores that are gone for good are not in it.
    heard: BTreeMap<StoreId, u64>,
    last_id: u64,
    last_token: Cell<u64>,
    /// Nothing is moved that could stay.
    pub(super) is_calm: bool,
    /// Orders whose answer is awaited.
    orders: BTreeSet<Token>,
    /// When the last one was given.
    ordered: u64,
    /// Reports that were heard.
    pub(super) reports: u64,
    /// Orders that were carried out.
    pub(super) done: u64,
}

impl Placement {
    pub(super) fn new(options: &Options, stores: u64, rng: Rng) -> Placement {
        Placement {
            rng,
            options: options.clone(),
            regions: BTreeMap::new(),
            heard: (1..=stores).map(|store| (StoreId(store), 0)).collect(),
            last_id: 1000,
            last_token: Cell::new(0),
            is_calm: false,
            orders: BTreeSet::new(),
            ordered: 0,
            reports: 0,
            done: 0,
        }
    }

    /// The region that everything begins with, on the first stores.
    pub(super) fn first_region(&mut self) -> Region {
        let member =
            |id: u64| Peer { id: PeerId(100 + id), store_id: StoreId(id), role: PeerRole::Voter };
        let region = Region {
            id: RegionId(1),
            range: types::KeyRange::all(),
            epoch: types::RegionEpoch::FIRST,
            peers: (1..=self.options.replicas as u64).map(member).collect(),
        };
        let known = Known { region: region.clone(), leader: region.peers[0], term: 0 };
        self.regions.insert(region.id, known);
        region
    }

    /// An id that was never used.
    pub(super) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Names a request.
    pub(super) fn token(&self) -> Token {
        self.last_token.set(self.last_token.get() + 1);
        Token(self.last_token.get())
    }

    /// The region with a key and its leader, as far as is known.
    pub(super) fn find(&self, key: &[u8]) -> Option<(Region, Peer)> {
        let found = self.regions.values().filter(|known| known.region.range.contains(key));
        let newest = found.max_by_key(|known| known.region.epoch.version)?;
        Some((newest.region.clone(), newest.leader))
    }

    /// Stores that are known, and when they were heard of.
    pub(super) fn is_up(&self, store: StoreId, now: u64) -> bool {
        self.heard.get(&store).is_some_and(|heard| now <= heard + self.options.down_after)
    }

    /// Whether nobody is about to be removed because he is believed to be away: all stores but `leaving` were heard of not
    /// long ago, and every order has arrived.
    pub(super) fn spares_all_but(&self, leaving: StoreId, now: u64) -> bool {
        let mut others = self.heard.iter().filter(|(store, _)| **store != leaving);
        let patience = self.options.down_after / 2;
        others.all(|(_, heard)| now <= heard + patience) && self.ordered + ORDER_TAKES < now
    }

    /// A store is gone for good, and another one is there.
    pub(super) fn replaces(&mut self, old: StoreId, new: StoreId, now: u64) {
        self.heard.remove(&old);
        self.heard.insert(new, now);
    }

    /// Stores that run say so, save for those of machines that stay away.
    pub(super) fn hears(&mut self, world: &World, away: &BTreeSet<MachineId>) {
        for (machine, store, _) in world.processes() {
            if !world.is_frozen(machine) && !away.contains(&machine) && !self.rng.chance(0.1) {
                self.heard.insert(store, world.now());
            }
        }
    }

    /// A store has something to tell. Some of it gets lost.
    pub(super) fn hears_news(&mut self, world: &mut World, news: News) {
        if self.rng.chance(0.1) {
            return;
        }
        match news {
            News::Report(report) => {
                self.hears_of(&report.region, report.leader, report.term);
                // Known before anybody asks for it.
                self.reports += 1;
            }
            News::AskRegion(machine, region) => {
                if let Some(known) = self.regions.get(&region) {
                    let delay = 1 + self.rng.range(0..2_000);
                    world.tell_region(delay, machine, known.region.clone());
                }
            }
            News::AskSplit(machine, region, keys) => {
                let room = self.options.regions_max.saturating_sub(self.regions.len());
                let starts: Vec<Bytes> = keys.into_iter().take(room.min(2)).collect();
                let store = world.machines[machine].store_id;
                let Some(leader) = region.peer_on(store).copied() else { return };
                if !starts.is_empty() {
                    self.cut(world, &Known { region, leader, term: 0 }, starts);
                }
            }
        }
    }

    fn hears_of(&mut self, region: &Region, leader: Peer, term: u64) {
        if let Some(known) = self.regions.get(&region.id) {
            let (old, new) = (known.region.epoch, region.epoch);
            let is_older = new.version < old.version || new.conf_ver < old.conf_ver;
            if is_older || term < known.term {
                return;
            }
        }
        let known = Known { region: region.clone(), leader, term };
        self.regions.insert(region.id, known);
    }

    /// Takes the answer of an order.
    pub(super) fn hears_answer(&mut self, token: Token, fate: &Fate) {
        if self.orders.remove(&token) && matches!(fate, Fate::Done(_)) {
            self.done += 1;
        }
    }

    fn draw_region(&mut self) -> Option<Known> {
        if self.regions.is_empty() {
            return None;
        }
        let at = index(&mut self.rng, self.regions.len());
        self.regions.values().nth(at).cloned()
    }

    fn order(&mut self, world: &mut World, known: &Known, kind: RequestKind) {
        let token = self.token();
        self.orders.insert(token);
        self.ordered = world.now();
        let region = &known.region;
        let request = Request {
            token,
            region_id: region.id,
            epoch: region.epoch,
            store_id: known.leader.store_id,
            kind,
        };
        let delay = 1 + self.rng.range(0..ORDER_TAKES);
        world.request(delay, known.leader.store_id, request, None);
    }

    /// Has some region split, at names of keys.
    pub(super) fn split(&mut self, world: &mut World, names: &[Bytes]) {
        if let Some(known) = self.draw_region() {
            self.split_of(world, names, known.region.id);
        }
    }

    /// Has a region split, at names of keys.
    pub(super) fn split_of(&mut self, world: &mut World, names: &[Bytes], region: RegionId) {
        if self.options.regions_max <= self.regions.len() {
            return;
        }
        let Some(known) = self.regions.get(&region).cloned() else { return };
        let region = &known.region;
        let inside: Vec<&Bytes> = names
            .iter()
            .filter(|name| region.range.contains(name) && **name != region.range.start)
            .collect();
        if inside.is_empty() {
            return;
        }
        let count = if self.rng.chance(0.2) { 2 } else { 1 };
        let mut starts: BTreeSet<Bytes> = BTreeSet::new();
        for _ in 0..count {
            starts.insert((*pick(&mut self.rng, &inside)).clone());
        }
        self.cut(world, &known, starts.into_iter().collect());
    }

    /// Has a region cut at keys.
    fn cut(&mut self, world: &mut World, known: &Known, starts: Vec<Bytes>) {
        let children = starts
            .into_iter()
            .map(|start| SplitChild {
                start,
                region_id: RegionId(self.new_id()),
                peer_ids: known.region.peers.iter().map(|_| PeerId(self.new_id())).collect(),
            })
            .collect();
        self.order(world, known, RequestKind::Split { children });
    }

    /// Has a leadership handed over.
    pub(super) fn transfer(&mut self, world: &mut World) {
        let Some(known) = self.draw_region() else { return };
        let to = pick(&mut self.rng, &known.region.peers).id;
        self.order(world, &known, RequestKind::TransferLeader { to });
    }

    /// One step towards where replicas should be, or away from it.
    pub(super) fn place(&mut self, world: &mut World) {
        let all: Vec<Known> = match self.is_calm {
            // In the end everything is looked at.
            true => self.regions.values().cloned().collect(),
            false => self.draw_region().into_iter().collect(),
        };
        for known in all {
            if let Some(changes) = self.draw_change(world.now(), &known.region) {
                // While the new member waits for its snapshot, its region is cut.
                let adds =
                    changes.iter().any(|(_, peer)| known.region.peer_on(peer.store_id).is_none());
                if adds && !self.is_calm && self.rng.chance(0.3) {
                    let delay = self.rng.range(1_000..500_000);
                    world.schedule(delay, Action::SplitOf(known.region.id));
                }
                self.order(world, &known, RequestKind::ChangeMembers { changes });
            }
        }
    }

    fn draw_change(&mut self, now: u64, region: &Region) -> Option<Vec<(Option<PeerRole>, Peer)>> {
        let is_joint = region
            .peers
            .iter()
            .any(|peer| !matches!(peer.role, PeerRole::Voter | PeerRole::Learner));
        if is_joint {
            return None;
        }
        let wanted = self.options.replicas;
        let voters: Vec<Peer> = region.peers.iter().copied().filter(votes).collect();
        let learners: Vec<Peer> =
            region.peers.iter().copied().filter(|peer| !votes(peer)).collect();
        let up = |placement: &Placement, peer: &Peer| placement.is_up(peer.store_id, now);
        let down: Vec<Peer> = region.peers.iter().copied().filter(|peer| !up(self, peer)).collect();
        let free: Vec<StoreId> = self
            .heard
            .keys()
            .copied()
            .filter(|store| region.peer_on(*store).is_none() && self.is_up(*store, now))
            .collect();
        // A voter that is up may be removed while enough of them are; nobody, if most of the others are down.
        let may_remove = |peer: &Peer| {
            let others = voters.iter().filter(|voter| *voter != peer);
            let living = others.clone().filter(|voter| !down.contains(voter)).count();
            let is_too_many = wanted < voters.len() || down.contains(peer);
            is_too_many && others.count() < 2 * living
        };
        let mischief = !self.is_calm && self.rng.chance(self.options.mischief);
        // Learners that are gone, or too many.
        if let Some(gone) = learners.iter().find(|peer| down.contains(peer)) {
            return Some(vec![(None, *gone)]);
        }
        if let Some(learner) = learners.first().copied() {
            let learner = if mischief { *pick(&mut self.rng, &learners) } else { learner };
            if voters.len() < wanted || (mischief && self.rng.chance(0.3)) {
                return Some(vec![(Some(PeerRole::Voter), learner)]);
            }
            let leaves = voters.iter().find(|peer| down.contains(peer)).copied();
            let swap = leaves.is_some() || (mischief && self.rng.chance(0.6));
            if swap {
                let leaves = leaves.unwrap_or_else(|| *pick(&mut self.rng, &voters));
                return Some(vec![
                    (Some(PeerRole::Voter), learner),
                    (Some(PeerRole::Learner), leaves),
                ]);
            }
            return Some(vec![(None, learner)]);
        }
        if let Some(gone) = voters.iter().find(|peer| down.contains(peer)) {
            // Somebody takes the place first, if somebody can.
            if !free.is_empty() && voters.len() <= wanted {
                return self.draw_learner(&free);
            }
            return may_remove(gone).then(|| vec![(None, *gone)]);
        }
        if wanted < voters.len() {
            let leaves = *pick(&mut self.rng, &voters);
            return may_remove(&leaves).then(|| vec![(None, leaves)]);
        }
        if !free.is_empty() && (voters.len() < wanted || mischief) {
            return self.draw_learner(&free);
        }
        None
    }

    fn draw_learner(&mut self, free: &[StoreId]) -> Option<Vec<(Option<PeerRole>, Peer)>> {
        let store_id = *pick(&mut self.rng, free);
        let role = PeerRole::Learner;
        Some(vec![(Some(role), Peer { id: PeerId(self.new_id()), store_id, role })])
    }

    /// Whether every region has the replicas that are wanted, as far as there are stores.
    pub(super) fn is_content(&self, now: u64) -> bool {
        let up: Vec<StoreId> =
            self.heard.keys().copied().filter(|store| self.is_up(*store, now)).collect();
        let wanted = self.options.replicas;
        self.regions.values().all(|known| {
            let peers = &known.region.peers;
            let alive = peers.iter().filter(|peer| up.contains(&peer.store_id)).count();
            let at_rest = peers.iter().all(|peer| peer.role == PeerRole::Voter);
            // Without a free store those that are down stay.
            let no_store_is_free = up.len() == alive;
            let is_whole = peers.len() == alive && alive == wanted;
            at_rest && (is_whole || (no_store_is_free && peers.len() <= wanted))
        })
    }

    /// The regions as they are known.
    pub(super) fn regions(&self) -> impl Iterator<Item = &Region> {
        self.regions.values().map(|known| &known.region)
    }
}
