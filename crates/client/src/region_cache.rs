//! What a client believes about the cluster: which region has a key, who leads it, and where stores are.
//!
//! A belief may be wrong; every store checks it and says so. The one idea is that **newer knowledge wins and no
//! knowledge is taken on faith**: a region comes in with its epoch and throws out what it overlaps, unless something
//! that it overlaps is newer. The range that covers a key only ever changes together with a greater version, so
//! comparing versions is right between different regions too.
//!
//! Invariant: cached regions never overlap, and each has at least one peer that may lead.
//!
//! This is a core: it asks nobody. When it does not know, [`RegionCache::locate`] says whom to ask.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use types::{Bytes, KeyRange, Peer, PeerRole, Region, RegionId, RequestContext, StoreId, limits};

use crate::{
    backoff::Obstacle,
    request::{Question, Route, Target},
};

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// In this region, whose peer on this store may answer.
    At(Location),
    /// Unknown.
    Ask(Question),
}

/// A region and where to send requests for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Store, address and context; the API version is for the caller to set.
    pub target: Target,
    /// What the region holds.
    pub range: KeyRange,
}

/// A region and who may lead it.
#[derive(Debug)]
struct Entry {
    region: Region,
    /// Whom to ask: an index into `region.peers`.
    peer: usize,
    /// How many peers in a row could not help.
    failed: usize,
}

impl Entry {
    fn current(&self) -> &Peer {
        &self.region.peers[self.peer]
    }

    /// Turns to the next peer that may lead. False when all have been tried: the route itself is in doubt.
    fn try_next_peer(&mut self) -> bool {
        self.failed += 1;
        let peers = &self.region.peers;
        if self.failed >= peers.iter().filter(|peer| may_lead(peer)).count() {
            return false;
        }
        let next = (1..=peers.len())
            .map(|step| (self.peer + step) % peers.len())
            .find(|&i| may_lead(&peers[i]));
        self.peer = next.expect("a cached region has a peer that may lead");
        true
    }
}

fn may_lead(peer: &Peer) -> bool {
    peer.role != PeerRole::Learner
}

/// Regions by their keys and stores by their ids.
#[derive(Debug, Default)]
pub struct RegionCache {
    regions: BTreeMap<Bytes, Entry>,
    starts: HashMap<RegionId, Bytes>,
    addresses: HashMap<StoreId, Arc<str>>,
}

impl RegionCache {
    /// Knows nothing.
    pub fn new() -> RegionCache {
        RegionCache::default()
    }

    /// How many regions it knows.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// Whether it knows no region.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Where `key` (in region form) is.
    pub fn locate(&self, key: &[u8]) -> Located {
        let before =
            self.regions.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        match before {
            Some((_, entry)) if entry.region.range.contains(key) => self.location(entry),
            _ => Located::Ask(Question::RegionOf(Bytes::copy_from_slice(key))),
        }
    }

    /// Where the greatest keys before `end` (in region form) are; an empty `end` is behind every key.
    pub fn locate_before(&self, end: &[u8]) -> Located {
        let bound = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let before = self.regions.range::<[u8], _>((Bound::Unbounded, bound)).next_back();
        if let Some((_, entry)) = before {
            let range = &entry.region.range;
            if range.end.is_empty() || (!end.is_empty() && end <= &range.end[..]) {
                return self.location(entry);
            }
        }
        if end.is_empty() {
            // No key is that long, and none sorts behind it.
            return Located::Ask(Question::RegionOf(vec![0xff; limits::KEY_BYTES_MAX + 1].into()));
        }
        // The scheduler finds regions by a key inside. `end` itself is inside, unless it is a region's first key.
        let end = Bytes::copy_from_slice(end);
        Located::Ask(if self.regions.contains_key(&end) {
            Question::RegionBefore(end)
        } else {
            Question::RegionOf(end)
        })
    }

    fn location(&self, entry: &Entry) -> Located {
        let region = &entry.region;
        let peer = entry.current();
        let Some(address) = self.addresses.get(&peer.store_id) else {
            return Located::Ask(Question::Store(peer.store_id));
        };
        Located::At(Location {
            target: Target {
                store: peer.store_id,
                address: Arc::clone(address),
                context: RequestContext {
                    region_id: region.id,
                    epoch: Some(region.epoch),
                    peer_id: peer.id,
                    store_id: peer.store_id,
                    ..RequestContext::default()
                },
            },
            range: region.range.clone(),
        })
    }

    /// Takes in what the scheduler said. False if it is of no use: nothing known, or older than what is known here.
    pub fn learn(&mut self, route: Route) -> bool {
        match route {
            Route::Region { region, leader } => self.insert(region, leader),
            Route::Store { store, address } => {
                self.addresses.insert(store, address.into());
                true
            }
            Route::NoRegion => false,
            Route::NoStore(store) => {
                // Whoever lives there is gone; its regions have other peers, or newer epochs.
                self.addresses.remove(&store);
                let led: Vec<RegionId> = self
                    .regions
                    .values()
                    .filter(|entry| entry.current().store_id == store)
                    .map(|entry| entry.region.id)
                    .collect();
                led.into_iter().for_each(|region| self.turn_away_from(region, store));
                false
            }
        }
    }

    /// Takes in a region. False if it is older than a region that it overlaps, or nobody may lead it.
    pub fn insert(&mut self, region: Region, leader: Option<StoreId>) -> bool {
        let Some(first) = region.peers.iter().position(may_lead) else { return false };
        let known = self.starts.get(&region.id).and_then(|start| self.regions.get(start));
        let older = |known: &Entry| {
            let (known, new) = (known.region.epoch, region.epoch);
            new.conf_ver < known.conf_ver || new.version < known.version
        };
        if known.is_some_and(older) {
            return false;
        }
        let overlapping = self.overlapping(&region.range);
        if overlapping
            .iter()
            .any(|start| self.regions[start].region.epoch.version > region.epoch.version)
        {
            return false;
        }

        let leader =
            leader.and_then(|leader| region.peers.iter().position(|peer| peer.store_id == leader));
        // Without a leader in the news the old belief is as good as any, if it is about the same peers.
        let believed =
            || known.filter(|known| known.region.peers == region.peers).map(|known| known.peer);
        let peer = leader.or_else(believed).unwrap_or(first);

        self.remove(region.id);
        for start in overlapping {
            if let Some(old) = self.regions.remove(&start) {
                self.starts.remove(&old.region.id);
            }
        }
        if self.regions.len() >= limits::CLIENT_REGIONS_MAX {
            self.regions.clear();
            self.starts.clear();
        }
        self.starts.insert(region.id, region.range.start.clone());
        self.regions.insert(region.range.start.clone(), Entry { region, peer, failed: 0 });
        true
    }

    /// Starts of the cached regions that have a key in common with `range`.
    fn overlapping(&self, range: &KeyRange) -> Vec<Bytes> {
        let inside =
            if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
        self.regions
            .range::<[u8], _>((Bound::Unbounded, inside))
            .rev()
            .take_while(|(_, entry)| {
                entry.region.range.end.is_empty() || range.start < entry.region.range.end
            })
            .map(|(start, _)| start.clone())
            .collect()
    }

    /// `store` says that it does not lead `region`, and perhaps who does. Says what the caller should wait for.
    pub fn on_not_leader(
        &mut self,
        region: RegionId,
        store: StoreId,
        leader: Option<&Peer>,
    ) -> Obstacle {
        let Some(entry) = self.entry_mut(region) else { return Obstacle::Route };
        if entry.current().store_id != store {
            return Obstacle::Route; // another request has learnt more meanwhile
        }
        let Some(leader) = leader else {
            if !entry.try_next_peer() {
                self.remove(region);
            }
            return Obstacle::NoLeader;
        };
        match entry
            .region
            .peers
            .iter()
            .position(|peer| peer.id == leader.id && peer.store_id == leader.store_id)
        {
            Some(peer) => {
                entry.peer = peer;
                entry.failed = 0;
            }
            // A leader that we do not know: the membership has changed.
            None => self.remove(region),
        }
        Obstacle::Route
    }

    /// `store` says that `region` has changed, and into what.
    pub fn on_epoch_not_match(&mut self, region: RegionId, store: StoreId, current: &[Region]) {
        let mut helped = false;
        for new in current {
            // Whoever answers with the new epoch leads, as far as one can know.
            let leader = new.peer_on(store).map(|peer| peer.store_id);
            helped |= self.insert(new.clone(), leader);
        }
        if !helped {
            self.remove(region);
        }
    }

    /// A request for `region` could not be brought to `store`, or got no answer.
    pub fn on_store_failure(&mut self, region: RegionId, store: StoreId) {
        // It may have moved to another address.
        self.addresses.remove(&store);
        self.turn_away_from(region, store);
    }

    fn turn_away_from(&mut self, region: RegionId, store: StoreId) {
        let Some(entry) = self.entry_mut(region) else { return };
        if entry.current().store_id == store && !entry.try_next_peer() {
            self.remove(region);
        }
    }

    /// `store` has answered for `region`, after others had failed.
    pub fn confirm(&mut self, region: RegionId, store: StoreId) {
        let Some(entry) = self.entry_mut(region) else { return };
        if entry.current().store_id == store {
            entry.failed = 0;
        }
    }

    /// Forgets the address of a store: another one answers there.
    pub fn forget_store(&mut self, store: StoreId) {
        self.addresses.remove(&store);
    }

    /// Forgets a region.
    pub fn remove(&mut self, region: RegionId) {
        if let Some(start) = self.starts.remove(&region) {
            self.regions.remove(&start);
        }
    }

    fn entry_mut(&mut self, region: RegionId) -> Option<&mut Entry> {
        self.regions.get_mut(self.starts.get(&region)?)
    }
}

#[cfg(test)]
mod tests;
