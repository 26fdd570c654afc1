//! The course's cluster for the tests of its projects 2B, 2C and 3B: five stores, a scheduler's wishes, clients.
//!
//! Time is virtual: a test says how many milliseconds pass, and a seed decides everything that happens in them. What
//! the course does in threads that wait, machines do here that are stepped once a millisecond: clients
//! (`client.rs`), and what changes networks and members (`operators.rs`). `generic.rs` puts them together.
#![allow(dead_code, reason = "each test file uses some of them")]

pub(crate) mod client;
pub(crate) mod generic;
pub(crate) mod operators;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use raftstore::{
    StoreConfig,
    store::{RequestKind, Token},
    testing::{Cluster, Fate, TICK},
};
use types::{Bytes, Cf, Modify, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

use client::{Answer, Operation, Want};
use operators::Splitter;

/// Ticks of an election timeout, at least.
const ELECTION_TICKS: u32 = 10;
/// The same in milliseconds.
pub(crate) const ELECTION: u64 = ELECTION_TICKS as u64 * TICK;
/// A second.
pub(crate) const SECOND: u64 = 1000;
/// How many milliseconds a message takes: slow enough that a debug build does five seconds in less than one.
const DELAYS: RangeInclusive<u64> = 3..=15;
/// What somebody waits for happens within this time, or the test fails.
pub(crate) const PATIENCE: u64 = 5 * SECOND;

/// What the course's tests change of its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// The log is compacted when it has so many applied entries.
    pub(crate) log_gc_limit: Option<u64>,
    /// A region of more than the first number of bytes is split where its size comes to the second one.
    pub(crate) split: Option<(usize, usize)>,
}

impl Settings {
    /// The configuration of the stores.
    pub(crate) fn config(self) -> StoreConfig {
        let mut config = StoreConfig::new(StoreId(0));
        config.core.election_ticks = ELECTION_TICKS;
        config.core.heartbeat_ticks = 2;
        if let Some(limit) = self.log_gc_limit {
            config.log_gc_ticks = 1;
            config.log_gc_entries = limit;
            config.log_gc_spare = 0;
        }
        config
    }
}

/// The course's cluster.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) cluster: Cluster,
    pub(crate) stores: u64,
    splitter: Option<Splitter>,
}

impl Course {
    /// `stores` stores with one region, after its first election.
    pub(crate) fn new(seed: u64, stores: u64, settings: Settings) -> Course {
        let mut cluster = Cluster::new(seed, stores, stores, settings.config());
        cluster.delays = DELAYS;
        let splitter = settings.split.map(|(max, at)| Splitter::new(max, at));
        let mut course = Course { cluster, stores, splitter };
        course.pass(1);
        course.wait("a leader", |course| course.cluster.leader_of(b"").is_some());
        course
    }

    /// Milliseconds pass.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.cluster.millisecond();
            if let Some(splitter) = &mut self.splitter {
                splitter.step(&mut self.cluster);
            }
        }
    }

    /// Time passes until `done`.
    ///
    /// # Panics
    /// If it takes more than [`PATIENCE`].
    pub(crate) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Course) -> bool) {
        for _ in 0..PATIENCE {
            if done(self) {
                return;
            }
            self.pass(1);
        }
        panic!("never: {what}\n{}", self.cluster.describe());
    }

    /// The region with `key`, as a scheduler knows it.
    pub(crate) fn region(&mut self, key: &str) -> Region {
        self.wait("somebody leads", |course| course.cluster.leader_of(key.as_bytes()).is_some());
        self.cluster.leader_of(key.as_bytes()).unwrap().1
    }

    /// The store that leads the region with `key`.
    pub(crate) fn leader(&mut self, key: &str) -> StoreId {
        self.region(key);
        self.cluster.leader_of(key.as_bytes()).unwrap().0
    }

    /// All regions, in the order of their keys.
    pub(crate) fn regions(&mut self) -> Vec<Region> {
        let mut regions = vec![self.region("")];
        while let Some(end) = regions.last().map(|region| &region.range.end)
            && !end.is_empty()
        {
            let key = String::from_utf8(end.to_vec()).unwrap();
            regions.push(self.region(&key));
        }
        regions
    }

    fn must(&mut self, want: Want) -> Answer {
        let mut operation = Operation::new(want, self.cluster.now());
        loop {
            if let Some(answer) = operation.step(&mut self.cluster) {
                return answer;
            }
            self.pass(1);
        }
    }

    /// Puts a pair.
    pub(crate) fn must_put(&mut self, key: &str, value: &str) {
        self.must_put_cf(Cf::Default, key, value);
    }

    /// Puts a pair into a family.
    pub(crate) fn must_put_cf(&mut self, cf: Cf, key: &str, value: &str) {
        let (key, value) = (bytes(key), bytes(value));
        self.must(Want::Change(Modify::Put { cf, key, value }));
    }

    /// Deletes a key of a family.
    pub(crate) fn must_delete_cf(&mut self, cf: Cf, key: &str) {
        self.must(Want::Change(Modify::Delete { cf, key: bytes(key) }));
    }

    /// Reads a key, which must have this value.
    pub(crate) fn must_get(&mut self, key: &str, value: &str) {
        let answer = self.must(Want::Get(bytes(key)));
        assert_eq!(answer, Answer::Value(Some(bytes(value))), "{key}");
    }

    /// Waits until a store's engine has this under a key.
    pub(crate) fn must_have_cf(&mut self, store: u64, cf: Cf, key: &str, value: Option<&str>) {
        let value = value.map(bytes);
        self.wait(&format!("store {store} has {value:?} as {key}"), |course| {
            course.cluster.value(StoreId(store), cf, key) == value
        });
    }

    /// Waits until a store's engine has this under a key.
    pub(crate) fn must_have(&mut self, store: u64, key: &str, value: &str) {
        self.must_have_cf(store, Cf::Default, key, Some(value));
    }

    /// Waits until a store's engine has nothing under a key.
    pub(crate) fn must_have_none(&mut self, store: u64, key: &str) {
        self.must_have_cf(store, Cf::Default, key, None);
    }

    /// Only stores of the same side hear of each other.
    pub(crate) fn partition(&mut self, one: &[u64], other: &[u64]) {
        let side = |stores: &[u64]| stores.iter().copied().map(StoreId).collect::<BTreeSet<_>>();
        let (one, other) = (side(one), side(other));
        self.cluster.add_filter(move |message, _| {
            let (from, to) = (message.from.store_id, message.to.store_id);
            one.contains(&from) && other.contains(&to) || other.contains(&from) && one.contains(&to)
        });
    }

    /// The network is whole and loses nothing.
    pub(crate) fn heal(&mut self) {
        self.cluster.clear_filters();
    }

    /// Asks whoever leads the region for something, again and again until it is to be seen.
    fn must_see(
        &mut self,
        region_id: RegionId,
        what: &str,
        kind: &RequestKind,
        is_there: impl Fn(&Course, &Region) -> bool,
    ) {
        let mut asked: Option<(Token, u64)> = None;
        self.wait(what, |course| {
            let Some((leader, region)) = operators::leader_by_id(&course.cluster, region_id) else {
                return false;
            };
            if is_there(course, &region) {
                return true;
            }
            operators::ask_again(&mut course.cluster, &mut asked, leader, &region, kind);
            false
        });
    }

    /// Hands the leadership of a region to the peer with this id.
    pub(crate) fn must_transfer_leader(&mut self, region_id: u64, peer: u64) {
        let (region_id, to) = (RegionId(region_id), PeerId(peer));
        let kind = RequestKind::TransferLeader { to };
        self.must_see(region_id, &format!("peer {peer} leads"), &kind, |course, region| {
            let leader = operators::leader_by_id(&course.cluster, region_id);
            let store = region.peers.iter().find(|peer| peer.id == to).map(|peer| peer.store_id);
            leader.map(|(leader, _)| leader) == store
        });
    }

    /// Adds a voter to a region.
    pub(crate) fn must_add_peer(&mut self, region_id: u64, store: u64, peer: u64) {
        let peer = voter(store, peer);
        let changes = vec![(Some(PeerRole::Voter), peer)];
        let kind = RequestKind::ChangeMembers { changes };
        self.must_see(RegionId(region_id), &format!("{peer:?} votes"), &kind, |_, region| {
            region.peers.contains(&peer)
        });
    }

    /// Removes the peer on a store from a region.
    pub(crate) fn must_remove_peer(&mut self, region_id: u64, store: u64, peer: u64) {
        let peer = voter(store, peer);
        let kind = RequestKind::ChangeMembers { changes: vec![(None, peer)] };
        self.must_see(RegionId(region_id), &format!("{peer:?} is gone"), &kind, |_, region| {
            region.peers.iter().all(|member| member.id != peer.id)
        });
    }

    /// Asks once, and waits for the fate.
    pub(crate) fn once(&mut self, ask: impl FnOnce(&mut Cluster) -> Token) -> Fate {
        let token = ask(&mut self.cluster);
        self.wait("an answer", |course| course.cluster.fates.contains_key(&token));
        self.cluster.fates[&token].clone()
    }

    /// No store keeps more than twice `limit` applied entries of any region in its log.
    pub(crate) fn check_logs(&mut self, limit: u64) {
        for region in self.regions() {
            for (id, node) in &self.cluster.nodes {
                let (Some(applied), Some(bounds)) =
                    (node.store.applied(region.id), node.log.bounds(region.id.0))
                else {
                    continue;
                };
                let kept = applied.index.saturating_sub(bounds.base_index);
                assert!(
                    kept <= 2 * limit,
                    "store {id}, region {}: logs were not trimmed: {applied:?}, {bounds:?}",
                    region.id
                );
            }
        }
    }

    /// The power of all stores goes, and comes back.
    pub(crate) fn restart_all(&mut self) {
        for id in 1..=self.stores {
            self.cluster.crash(StoreId(id));
        }
        self.pass(ELECTION);
        for id in 1..=self.stores {
            self.cluster.start(StoreId(id));
        }
    }
}

/// A member that votes.
pub(crate) fn voter(store: u64, peer: u64) -> Peer {
    Peer { id: PeerId(peer), store_id: StoreId(store), role: PeerRole::Voter }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What is in the log of each store of a region: the index and the term before its first entry.
pub(crate) fn log_bases(course: &Course, region: u64) -> BTreeMap<StoreId, (u64, u64)> {
    let bounds = |node: &raftstore::testing::Node| node.log.bounds(region);
    let nodes = course.cluster.nodes.iter();
    nodes
        .filter_map(|(id, node)| {
            bounds(node).map(|found| (*id, (found.base_index, found.base_term)))
        })
        .collect()
}
