//! What the course does to its clusters while clients use them: partitions, losses, changes of the members; and what
//! its scheduler does: splits of regions that have become large.

use std::collections::BTreeMap;

use raftstore::{
    SplitChild,
    store::{RequestKind, Token},
    testing::Cluster,
};
use types::{Bytes, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use super::{Course, ELECTION, PATIENCE, voter};

/// How often a region's leader tells the scheduler of it, and is asked again for what is not done yet.
const HEARTBEAT: u64 = 100;
/// How often the size of regions is looked at.
const SPLIT_CHECK: u64 = 100;
/// The share of messages that each filter of an unreliable network loses.
const LOSS: f64 = 0.1;

/// The region with this id as the one that leads it in the latest term knows it.
pub(crate) fn leader_by_id(cluster: &Cluster, id: RegionId) -> Option<(StoreId, Region)> {
    let leaders = cluster.nodes.iter().filter_map(|(store, node)| {
        let status = node.store.raft_status(id)?;
        let region = node.store.regions().find(|region| region.id == id)?;
        (status.role == raft::RoleKind::Leader).then_some((status.term, *store, region))
    });
    let newest = leaders.max_by_key(|(term, ..)| *term);
    newest.map(|(_, store, region)| (store, region.clone()))
}

/// Asks a leader for something, unless it was just asked.
pub(crate) fn ask_again(
    cluster: &mut Cluster,
    asked: &mut Option<(Token, u64)>,
    leader: StoreId,
    region: &Region,
    kind: &RequestKind,
) {
    let now = cluster.now();
    if asked.is_none_or(|(_, since)| since + HEARTBEAT <= now) {
        let token = cluster.request(leader, region, kind.clone());
        *asked = Some((token, now));
    }
}

/// Makes the network bad.
#[derive(Debug)]
pub(crate) struct NetworkChaos {
    pub(crate) unreliable: bool,
    pub(crate) partitions: bool,
    next: u64,
}

impl NetworkChaos {
    /// Begins when `now` has come.
    pub(crate) fn new(unreliable: bool, partitions: bool, now: u64) -> NetworkChaos {
        NetworkChaos { unreliable, partitions, next: now }
    }

    /// A millisecond passes. Without partitions the losses add up, as they do in the course.
    pub(crate) fn step(&mut self, course: &mut Course) {
        let now = course.cluster.now();
        if now < self.next {
            return;
        }
        if self.partitions {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for store in 1..=course.stores {
                match course.cluster.rng().chance(0.5) {
                    true => one.push(store),
                    false => other.push(store),
                }
            }
            course.heal();
            course.partition(&one, &other);
        }
        if self.unreliable {
            course.cluster.add_filter(|_, rng| rng.chance(LOSS));
        }
        self.next = now + ELECTION + course.cluster.rng().range(0..200);
    }
}

/// A change of the members that is under way.
#[derive(Debug)]
struct Change {
    region: RegionId,
    peer: Peer,
    adds: bool,
    begun: u64,
    asked: Option<(Token, u64)>,
}

/// Adds and removes members of random regions, one after the other.
///
/// A change is done within [`PATIENCE`]; while the network is bad it may take longer: a group of two that is cut in two
/// can change nothing.
#[derive(Debug)]
pub(crate) struct ConfChanger {
    change: Option<Change>,
    next: u64,
    /// When the network was bad for the last time.
    bad: u64,
    /// How many are done.
    pub(crate) done: u64,
}

impl ConfChanger {
    /// Begins when `now` has come.
    pub(crate) fn new(now: u64) -> ConfChanger {
        ConfChanger { change: None, next: now, bad: now, done: 0 }
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.change.is_none()
    }

    /// A millisecond passes, in which the network was bad or not. Nothing new is begun if `stops`.
    pub(crate) fn step(&mut self, course: &mut Course, is_bad: bool, stops: bool) {
        let now = course.cluster.now();
        if is_bad {
            self.bad = now;
        }
        let Some(change) = &mut self.change else {
            if self.next <= now && !stops {
                self.change = draw_change(course);
            }
            return;
        };
        let until = change.begun.max(self.bad) + PATIENCE;
        assert!(now <= until, "never: {change:?}\n{}", course.cluster.describe());
        let Some((leader, region)) = leader_by_id(&course.cluster, change.region) else { return };
        let found = region.peers.iter().find(|peer| peer.id == change.peer.id);
        let is_done = match change.adds {
            true => found.is_some_and(|peer| peer.role == PeerRole::Voter),
            false => found.is_none(),
        };
        if is_done {
            self.change = None;
            self.done += 1;
            self.next = now + course.cluster.rng().range(1..=200);
            return;
        }
        let role = change.adds.then_some(PeerRole::Voter);
        let kind = RequestKind::ChangeMembers { changes: vec![(role, change.peer)] };
        ask_again(&mut course.cluster, &mut change.asked, leader, &region, &kind);
    }
}

/// Adds a voter on a random store to a region, or removes it if it is there. What a split has left as a learner becomes a
/// voter.
fn draw_change(course: &mut Course) -> Option<Change> {
    let mut regions: BTreeMap<RegionId, Region> = BTreeMap::new();
    for node in course.cluster.nodes.values() {
        regions.extend(node.store.regions().map(|region| (region.id, region.clone())));
    }
    let ids: Vec<RegionId> = regions.keys().copied().collect();
    let id = ids[course.cluster.rng().range(0..ids.len() as u64) as usize];
    let (_, region) = leader_by_id(&course.cluster, id)?;
    let voters = region.peers.iter().filter(|peer| peer.role == PeerRole::Voter).count();
    let store = course.cluster.rng().range(1..=course.stores);
    let (peer, adds) = match region.peer_on(StoreId(store)) {
        Some(peer) if peer.role == PeerRole::Learner => (*peer, true),
        Some(_) if voters == 1 => return None,
        Some(peer) => (*peer, false),
        None => (voter(store, course.cluster.new_id()), true),
    };
    let begun = course.cluster.now();
    Some(Change { region: region.id, peer, adds, begun, asked: None })
}

/// Has regions split that have become large.
#[derive(Debug)]
pub(crate) struct Splitter {
    max: usize,
    at: usize,
    /// What was applied when a region was looked at and found small.
    small: BTreeMap<RegionId, u64>,
}

impl Splitter {
    /// Regions of `max` bytes and more are split where their size comes to more than `at`.
    pub(crate) fn new(max: usize, at: usize) -> Splitter {
        Splitter { max, at, small: BTreeMap::new() }
    }

    /// A millisecond passes.
    pub(crate) fn step(&mut self, cluster: &mut Cluster) {
        if !cluster.now().is_multiple_of(SPLIT_CHECK) {
            return;
        }
        let mut found = Vec::new();
        for (store, node) in &cluster.nodes {
            for region in node.store.regions() {
                let leads = node
                    .store
                    .raft_status(region.id)
                    .is_some_and(|status| status.role == raft::RoleKind::Leader);
                let applied = node.store.applied(region.id).map_or(0, |applied| applied.index);
                if leads && self.small.get(&region.id) != Some(&applied) {
                    found.push((*store, region.clone(), applied));
                }
            }
        }
        for (store, region, applied) in found {
            match self.split_key(&cluster.pairs(store, &region)) {
                Some(key) if key != region.range.start => {
                    let child = SplitChild {
                        start: key,
                        region_id: RegionId(cluster.new_id()),
                        peer_ids: region.peers.iter().map(|_| PeerId(cluster.new_id())).collect(),
                    };
                    let kind = RequestKind::Split { children: vec![child] };
                    cluster.request(store, &region, kind);
                }
                _ => {
                    self.small.insert(region.id, applied);
                }
            }
        }
    }

    /// The first key that lifts the size above what a region should have; none if the region is not too large.
    fn split_key(&self, pairs: &[(Bytes, Bytes)]) -> Option<Bytes> {
        let mut key = None;
        let mut size = 0;
        for (name, value) in pairs {
            size += name.len() + value.len();
            if self.at < size && key.is_none() {
                key = Some(name.clone());
            }
        }
        key.filter(|_| self.max <= size)
    }
}
