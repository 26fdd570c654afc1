//! The regions by key and by id, and who holds how many of them.
//!
//! Invariant: no two regions share a key. A region that comes in takes the place of all that it overlaps; what they
//! had beyond it is a hole until somebody reports it. Splits and merges are reported by several stores in any order,
//! so holes are normal and short.
//!
//! The tree decides nothing: whether a report is too old to be believed is `cluster/mod.rs`'s business.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use types::{Bytes, KeyRange, Peer, PeerRole, Region, RegionId, StoreId, limits, marks::mutant};

use super::bag::Bag;

/// What is known of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its range, epoch and peers.
    pub region: Region,
    /// Who leads it, as far as known.
    pub leader: Option<Peer>,
    /// The term of that leader; 0 if unknown.
    pub term: u64,
    /// Peers that lag behind so far that they do not count.
    pub pending_peers: Vec<Peer>,
    /// Peers that do not answer, and for how many seconds.
    pub down_peers: Vec<(Peer, u64)>,
    /// About how many bytes it has.
    pub approximate_size: u64,
    /// About how many keys it has.
    pub approximate_keys: u64,
    /// Bytes written since the last report.
    pub bytes_written: u64,
    /// Bytes read since the last report.
    pub bytes_read: u64,
    /// Keys written since the last report.
    pub keys_written: u64,
    /// Keys read since the last report.
    pub keys_read: u64,
}

impl RegionInfo {
    /// What the region counts for when stores are compared: its size, but at least
    /// [`REGION_WEIGHT_MIN`](limits::REGION_WEIGHT_MIN), so that empty regions are spread by their number.
    pub(crate) fn weight(&self) -> i64 {
        let weight =
            self.approximate_size.clamp(limits::REGION_WEIGHT_MIN, limits::REGION_WEIGHT_MAX);
        weight.cast_signed()
    }

    /// Whether `store_id` has the leader, as far as known.
    pub(crate) fn is_led_by(&self, store_id: StoreId) -> bool {
        self.leader.is_some_and(|leader| leader.store_id == store_id)
    }

    /// Whether a change of several peers is half done: the old and the new voters both decide.
    pub(crate) fn is_joint(&self) -> bool {
        self.region.peers.iter().any(|peer| is_joint(peer.role))
    }
}

/// Whether a peer of that role is in the middle of a joint change.
pub(crate) fn is_joint(role: PeerRole) -> bool {
    matches!(role, PeerRole::IncomingVoter | PeerRole::DemotingVoter)
}

/// What a store holds, by the reports of its regions' leaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreRegions {
    /// Regions with a peer there.
    pub regions: u64,
    /// Regions that are led there.
    pub leaders: u64,
    /// Regions whose peer there lags behind.
    pub pending: u64,
    /// Bytes of the regions with a peer there.
    pub region_bytes: u64,
    /// Bytes of the regions that are led there.
    pub leader_bytes: u64,
}

/// What part a store has in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// It has the leader.
    Leader,
    /// It has a voter that does not lead.
    Follower,
    /// It has a peer that lags behind.
    Pending,
}

/// The regions by key, by id and by store.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionTree {
    by_start: BTreeMap<Bytes, Known>,
    start_by_id: HashMap<RegionId, Bytes>,
    by_store: BTreeMap<StoreId, Held>,
    /// How many have reported since the scheduler was started.
    reported: usize,
}

#[derive(Clone, Debug)]
struct Known {
    info: Arc<RegionInfo>,
    /// When its leader last reported; `None` if it is known from the log only.
    reported_at: Option<Duration>,
}

/// What a store holds, with what only decisions ask for.
#[derive(Clone, Debug, Default)]
struct Held {
    counts: StoreRegions,
    /// The sum of the weights of its regions.
    weight: i64,
    /// How many of its regions have reported since the scheduler was started.
    reported: u64,
    leaders: Bag,
    followers: Bag,
    pending: Bag,
}

impl RegionTree {
    /// The region with that id.
    pub(crate) fn get(&self, id: RegionId) -> Option<&Arc<RegionInfo>> {
        self.known(id).map(|known| &known.info)
    }

    /// When the leader of that region last reported; `None` if it did not since the scheduler was started.
    pub(crate) fn reported_at(&self, id: RegionId) -> Option<Duration> {
        self.known(id)?.reported_at
    }

    fn known(&self, id: RegionId) -> Option<&Known> {
        let start = self.start_by_id.get(&id)?;
        Some(self.by_start.get(start).expect("ids and starts name the same regions"))
    }

    /// The region that has `key`.
    pub(crate) fn find(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let up_to_key = (Bound::Unbounded, Bound::Included(key));
        let (_, known) = self.by_start.range::<[u8], _>(up_to_key).next_back()?;
        known.info.region.range.contains(key).then_some(&known.info)
    }

    /// The region that ends where the region that has `key` begins.
    pub(crate) fn find_previous(&self, key: &[u8]) -> Option<&Arc<RegionInfo>> {
        let start = &self.find(key)?.region.range.start;
        let before = (Bound::Unbounded, Bound::Excluded(&start[..]));
        let (_, known) = self.by_start.range::<[u8], _>(before).next_back()?;
        (known.info.region.range.end == start).then_some(&known.info)
    }

    /// The regions that share keys with `range`, which must have some, in order. The first may begin before it.
    pub(crate) fn overlapping(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<RegionInfo>> {
        let start = match self.find(&range.start) {
            Some(first) => first.region.range.start.clone(),
            None => range.start.clone(),
        };
        let end = range.end.clone();
        self.by_start
            .range(start..)
            .map(|(_, known)| &known.info)
            .take_while(move |info| end.is_empty() || info.region.range.start < end)
    }

    /// The regions that begin at `key` or later, in order.
    pub(crate) fn starting_at(&self, key: &[u8]) -> impl Iterator<Item = &Arc<RegionInfo>> {
        let from_key = (Bound::Included(key), Bound::Unbounded);
        self.by_start.range::<[u8], _>(from_key).map(|(_, known)| &known.info)
    }

    /// All regions, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<RegionInfo>> {
        self.by_start.values().map(|known| &known.info)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// How many of them have reported since the scheduler was started.
    pub(crate) fn reported(&self) -> usize {
        self.reported
    }

    /// Whether every key has its region.
    pub(crate) fn is_complete(&self) -> bool {
        // Where the next one has to begin. The empty bound stands for both ends of the keys.
        let mut next: Option<&[u8]> = Some(&[]);
        for info in self.iter() {
            let KeyRange { start, end } = &info.region.range;
            if next != Some(&start[..]) {
                return false;
            }
            next = (!end.is_empty()).then_some(&end[..]);
        }
        next.is_none()
    }

    /// What `store` holds.
    pub(crate) fn of_store(&self, store: StoreId) -> StoreRegions {
        self.by_store.get(&store).map(|held| held.counts).unwrap_or_default()
    }

    /// The sum of the weights of the regions that `store` holds.
    pub(crate) fn weight_of(&self, store: StoreId) -> i64 {
        self.by_store.get(&store).map_or(0, |held| held.weight)
    }

    /// How many of the regions that `store` holds have reported since the scheduler was started.
    pub(crate) fn reported_of(&self, store: StoreId) -> u64 {
        self.by_store.get(&store).map_or(0, |held| held.reported)
    }

    /// The regions in which `store` has that part, in no order.
    pub(crate) fn on_store(&self, store: StoreId, part: Part) -> &[RegionId] {
        match self.by_store.get(&store) {
            None => &[],
            Some(held) => held.bag(part).as_slice(),
        }
    }

    /// Puts a region in the place of its older self and of all that it overlaps. `reported_at`: when its leader said
    /// so; `None` if it comes out of the log.
    pub(crate) fn put(&mut self, info: RegionInfo, reported_at: Option<Duration>) {
        let range = &info.region.range;
        assert!(!range.is_empty(), "a region has keys");
        if self.has_only_another_size(&info) {
            return self.resize(info, reported_at);
        }
        let mut replaced: Vec<RegionId> =
            self.overlapping(range).map(|other| other.region.id).collect();
        if mutant!("overlapped_regions_stay") {
            replaced.retain(|&id| {
                let other = self.get(id).map(|other| &other.region.range);
                other.is_none_or(|other| other.start == range.start)
            });
        }
        replaced.push(info.region.id);
        for id in replaced {
            self.remove(id);
        }
        let known = Known { info: Arc::new(info), reported_at };
        self.count(&known, Change::Add);
        let region = &known.info.region;
        self.start_by_id.insert(region.id, region.range.start.clone());
        self.by_start.insert(region.range.start.clone(), known);
    }

    /// Whether no more than the size is new of what is counted here. Most reports are like that.
    fn has_only_another_size(&self, info: &RegionInfo) -> bool {
        self.known(info.region.id).is_some_and(|Known { info: known, .. }| {
            known.region == info.region
                && known.leader == info.leader
                && known.pending_peers == info.pending_peers
        })
    }

    fn resize(&mut self, info: RegionInfo, reported_at: Option<Duration>) {
        let known = self.by_start.get_mut(&info.region.range.start).expect("it is known");
        let new = Known { info: Arc::new(info), reported_at };
        let old = std::mem::replace(known, new.clone());
        self.count_size(&old, Change::Remove);
        self.count_size(&new, Change::Add);
    }

    /// A report that brought nothing new came at `now`.
    pub(crate) fn touch(&mut self, id: RegionId, now: Duration) {
        let Some(start) = self.start_by_id.get(&id) else { return };
        let known = self.by_start.get_mut(start).expect("ids and starts name the same regions");
        assert!(known.reported_at.is_some(), "the first report of a region is put");
        known.reported_at = Some(now);
    }

    /// The clock begins at `now`: what was reported before counts as reported then.
    pub(crate) fn begin_time(&mut self, now: Duration) {
        for known in self.by_start.values_mut() {
            known.reported_at = known.reported_at.map(|_| now);
        }
    }

    fn remove(&mut self, id: RegionId) {
        let Some(start) = self.start_by_id.remove(&id) else { return };
        let known = self.by_start.remove(&start).expect("ids and starts name the same regions");
        self.count(&known, Change::Remove);
    }

    /// Adds a region to what its stores hold, or takes it away.
    fn count(&mut self, known: &Known, change: Change) {
        // A store without a part in any region is forgotten. So parts come first and go last.
        if change == Change::Add {
            self.count_parts(&known.info, change);
        }
        self.count_size(known, change);
        if change == Change::Remove {
            self.count_parts(&known.info, change);
        }
    }

    fn count_size(&mut self, known: &Known, change: Change) {
        let Known { info, reported_at } = known;
        let (bytes, weight) = (info.approximate_size, info.weight());
        let reported = u64::from(reported_at.is_some());
        match change {
            Change::Add => self.reported += usize::from(reported_at.is_some()),
            Change::Remove => self.reported -= usize::from(reported_at.is_some()),
        }
        for peer in &info.region.peers {
            self.adjust(peer.store_id, |held| {
                held.counts.region_bytes = change.of(held.counts.region_bytes, bytes);
                match change {
                    Change::Add => held.weight += weight,
                    Change::Remove => held.weight -= weight,
                }
                held.reported = change.of(held.reported, reported);
            });
        }
        if let Some(leader) = &info.leader {
            self.adjust(leader.store_id, |held| {
                held.counts.leader_bytes = change.of(held.counts.leader_bytes, bytes);
            });
        }
    }

    fn count_parts(&mut self, info: &RegionInfo, change: Change) {
        let id = info.region.id;
        for peer in &info.region.peers {
            let part = if info.is_led_by(peer.store_id) {
                Some(Part::Leader)
            } else {
                (peer.role != PeerRole::Learner).then_some(Part::Follower)
            };
            self.adjust(peer.store_id, |held| {
                held.counts.regions = change.of(held.counts.regions, 1);
                if let Some(part) = part {
                    held.bag_mut(part).change(id, change);
                }
            });
        }
        if let Some(leader) = &info.leader {
            self.adjust(leader.store_id, |held| {
                held.counts.leaders = change.of(held.counts.leaders, 1);
            });
        }
        for peer in &info.pending_peers {
            self.adjust(peer.store_id, |held| {
                held.counts.pending = change.of(held.counts.pending, 1);
                held.pending.change(id, change);
            });
        }
    }

    fn adjust(&mut self, store: StoreId, adjust: impl FnOnce(&mut Held)) {
        let held = self.by_store.entry(store).or_default();
        adjust(held);
        if held.counts == StoreRegions::default() {
            self.by_store.remove(&store);
        }
    }
}

/// Whether something comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add,
    Remove,
}

impl Change {
    /// Wraps, like the sums that it undoes: sizes are whatever a store says.
    fn of(self, sum: u64, part: u64) -> u64 {
        match self {
            Change::Add => sum.wrapping_add(part),
            Change::Remove => sum.wrapping_sub(part),
        }
    }
}

impl Held {
    fn bag(&self, part: Part) -> &Bag {
        match part {
            Part::Leader => &self.leaders,
            Part::Follower => &self.followers,
            Part::Pending => &self.pending,
        }
    }

    fn bag_mut(&mut self, part: Part) -> &mut Bag {
        match part {
            Part::Leader => &mut self.leaders,
            Part::Follower => &mut self.followers,
            Part::Pending => &mut self.pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::Rng;
    use types::{PeerId, PeerRole};

    use super::*;

    fn info(id: u64, start: &str, end: &str) -> RegionInfo {
        let range = KeyRange::new(start.to_owned(), end.to_owned());
        RegionInfo {
            region: Region { id: RegionId(id), range, ..Region::default() },
            ..RegionInfo::default()
        }
    }

    fn ids<'a>(infos: impl IntoIterator<Item = &'a Arc<RegionInfo>>) -> Vec<u64> {
        infos.into_iter().map(|info| info.region.id.0).collect()
    }

    #[test]
    fn regions_are_found_by_key() {
        let mut tree = RegionTree::default();
        tree.put(info(1, "", "c"), None);
        tree.put(info(2, "c", "f"), None);
        tree.put(info(3, "h", ""), None);
        let find = |key: &str| tree.find(key.as_bytes()).map(|info| info.region.id.0);
        assert_eq!(["", "b", "c", "e", "f", "g", "h", "z"].map(find), {
            [Some(1), Some(1), Some(2), Some(2), None, None, Some(3), Some(3)]
        });
        let previous = |key: &str| tree.find_previous(key.as_bytes()).map(|info| info.region.id.0);
        assert_eq!(
            ["a", "d", "g", "z"].map(previous),
            [None, Some(1), None, None],
            "a hole is before h"
        );
        assert_eq!(ids(tree.overlapping(&KeyRange::all())), [1, 2, 3]);
        assert_eq!(ids(tree.overlapping(&KeyRange::new("b", "c"))), [1]);
        assert_eq!(ids(tree.overlapping(&KeyRange::new("e", "h"))), [2]);
        assert_eq!(ids(tree.overlapping(&KeyRange::new("f", ""))), [3]);
    }

    #[test]
    fn a_region_takes_the_place_of_what_it_overlaps() {
        let mut tree = RegionTree::default();
        tree.put(info(1, "", ""), None);
        tree.put(info(2, "m", ""), None);
        assert_eq!(ids(tree.iter()), [2], "the parent is a hole until it reports");
        tree.put(info(1, "", "m"), None);
        assert_eq!(ids(tree.iter()), [1, 2]);
        tree.put(info(1, "", ""), None);
        assert_eq!(ids(tree.iter()), [1]);
        assert!(tree.get(RegionId(2)).is_none());
    }

    /// Against a list that is searched from end to end.
    #[test]
    fn random_regions_match_a_list() {
        let mut rng = Rng::new(42);
        for _ in 0..200 {
            let mut tree = RegionTree::default();
            let mut list: Vec<RegionInfo> = Vec::new();
            for _ in 0..40 {
                let new = random_info(&mut rng);
                list.retain(|old| old.region.id != new.region.id && !overlap(old, &new));
                list.push(new.clone());
                list.sort_by(|a, b| a.region.range.start.cmp(&b.region.range.start));
                tree.put(new, rng.chance(0.5).then_some(Duration::ZERO));
                check(&tree, &list);
            }
        }
    }

    fn random_info(rng: &mut Rng) -> RegionInfo {
        let mut bound = || [b'a' + rng.range(0..12) as u8][..].to_vec();
        let (a, b) = (bound(), bound());
        let (start, end) = if a < b { (a, b) } else { (b, Vec::new()) };
        let start = if rng.chance(0.1) { Vec::new() } else { start };
        let peers: Vec<Peer> = (1..=rng.range(1..4))
            .map(|store| Peer {
                id: PeerId(store),
                store_id: StoreId(store),
                role: PeerRole::Voter,
            })
            .collect();
        RegionInfo {
            region: Region {
                id: RegionId(rng.range(1..8)),
                range: KeyRange::new(start, end),
                peers: peers.clone(),
                ..Region::default()
            },
            leader: rng.chance(0.8).then(|| peers[0]),
            pending_peers: peers.into_iter().skip(2).collect(),
            approximate_size: rng.range(0..100),
            ..RegionInfo::default()
        }
    }

    fn overlap(a: &RegionInfo, b: &RegionInfo) -> bool {
        !a.region.range.intersect(&b.region.range).is_empty()
    }

    fn check(tree: &RegionTree, list: &[RegionInfo]) {
        assert!(tree.iter().map(|info| &**info).eq(list), "{tree:?}");
        assert_eq!(tree.len(), list.len());
        for letter in b'a'..b'n' {
            let key = [letter];
            let found = list.iter().find(|info| info.region.range.contains(&key));
            assert_eq!(tree.find(&key).map(|info| &**info), found);
            let previous = found.and_then(|found| {
                list.iter().find(|info| info.region.range.end == found.region.range.start)
            });
            let previous = previous.filter(|info| !info.region.range.end.is_empty());
            assert_eq!(tree.find_previous(&key).map(|info| &**info), previous);
            let range = KeyRange::new(vec![letter], vec![letter + 2]);
            let inside = list.iter().filter(|info| !info.region.range.intersect(&range).is_empty());
            assert!(tree.overlapping(&range).map(|info| &**info).eq(inside));
        }
        for store in (1..4).map(StoreId) {
            let on_store = |peer: &&Peer| peer.store_id == store;
            let has_peer =
                |info: &&RegionInfo| info.region.peers.iter().any(|peer| peer.store_id == store);
            let is_led =
                |info: &&RegionInfo| info.leader.is_some_and(|leader| leader.store_id == store);
            let expected = StoreRegions {
                regions: list.iter().filter(has_peer).count() as u64,
                leaders: list.iter().filter(is_led).count() as u64,
                pending: list.iter().flat_map(|info| &info.pending_peers).filter(on_store).count()
                    as u64,
                region_bytes: list.iter().filter(has_peer).map(|info| info.approximate_size).sum(),
                leader_bytes: list.iter().filter(is_led).map(|info| info.approximate_size).sum(),
            };
            assert_eq!(tree.of_store(store), expected);
        }
    }
}
