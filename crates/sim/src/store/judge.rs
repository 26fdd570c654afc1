//! What must hold of stores at every moment.
//!
//! The judge hears what stores do and looks into their engines when regions have changed. What clients saw is judged by
//! `check::history`.

use std::collections::BTreeMap;

use engine::{Engine, Family, Snapshot};
use raft::{Entry, EntryKind};
use raftstore::{
    Store,
    apply::{Applied, Effect},
    snapshot::Pairs,
    state::{self, PeerState},
};
use types::{Cf, KeyRange, PeerId, Region, RegionEpoch, RegionId, StoreId};

use super::machine::{Answer, Process};
use crate::{
    checker::{Violation, committed::Committed, leaders::Leaders},
    hash::{fingerprint, mix},
};

/// The state of a region is compared at every index that is a multiple of this.
const COMPARED: u64 = 8;

/// Hears what happens.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// The first property that did not hold.
    violation: Option<Violation>,
    leaders: BTreeMap<RegionId, Leaders>,
    committed: BTreeMap<RegionId, Committed>,
    /// The content of a region at an index.
    contents: BTreeMap<(RegionId, u64), u64>,
    /// Every region that ever was.
    regions: BTreeMap<(RegionId, RegionEpoch), Region>,
    /// Where each peer lives.
    peers: BTreeMap<PeerId, (RegionId, StoreId)>,
    /// The newest epoch that a peer has known since its store was started.
    epochs: BTreeMap<(StoreId, PeerId), RegionEpoch>,
    /// Comparisons of contents at equal indexes that were made.
    pub(super) compared: u64,
    pub(super) splits: u64,
    pub(super) changes: u64,
    pub(super) installed: u64,
    pub(super) compactions: u64,
    pub(super) destroyed: u64,
}

impl Judge {
    /// Something did not hold.
    pub(super) fn fails(&mut self, property: &'static str, details: impl Into<String>) {
        self.keep(Err(Violation::new(property, details)));
    }

    fn keep(&mut self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    /// What did not hold, if something did not.
    pub(super) fn verdict(&mut self) -> Result<(), Violation> {
        self.violation.take().map_or(Ok(()), Err)
    }

    /// Terms that had a leader, over all regions.
    pub(super) fn elections(&self) -> u64 {
        self.leaders.values().map(Leaders::elections).sum()
    }

    /// Entries that were committed, over all regions.
    pub(super) fn committed(&self) -> u64 {
        self.committed.values().map(|log| log.last() - state::FIRST_INDEX).sum()
    }

    /// Regions that ever were.
    pub(super) fn regions(&self) -> u64 {
        self.committed.len() as u64
    }

    /// A store has been started: what its peers know may be older than before.
    pub(super) fn starts(&mut self, store_id: StoreId, process: &Process) {
        self.epochs.retain(|(store, _), _| *store != store_id);
        self.sees_regions(store_id, &process.store);
    }

    /// A peer leads.
    pub(super) fn leads(&mut self, region: RegionId, process: &Process) {
        let Some(status) = process.store.raft_status(region) else { return };
        if status.role != raft::RoleKind::Leader {
            return;
        }
        let before = status.first_index - 1;
        let verdict =
            self.leaders.entry(region).or_default().leads(status.id, status.term).and_then(|()| {
                let Some(committed) = self.committed.get(&region) else { return Ok(()) };
                let term_at = |index| process.log.term(region.0, index).ok();
                committed.leads(status.id, status.term, before, term_at)
            });
        self.keep(verdict.map_err(|violation| of_region(region, violation)));
    }

    /// A peer says that entries are committed.
    pub(super) fn commits(
        &mut self,
        region: RegionId,
        peer: PeerId,
        known_in: u64,
        entries: &[Entry],
    ) {
        let log =
            self.committed.entry(region).or_insert_with(|| Committed::after(state::FIRST_INDEX));
        for entry in entries {
            let kind = u64::from(entry.kind == EntryKind::ConfChange);
            let content = mix(fingerprint(&entry.data) ^ kind);
            let verdict = log.commit(peer.0, known_in, entry.index, entry.term, content);
            if let Err(violation) = verdict {
                self.violation.get_or_insert(of_region(region, violation));
            }
        }
    }

    /// The applier of a store has done something; its engine has it, and the store does not know it yet.
    pub(super) fn applies(
        &mut self,
        store_id: StoreId,
        engine: &dyn Engine,
        results: &[Applied<Answer>],
    ) {
        let snapshot = engine.snapshot().expect("the memory engine has snapshots");
        let mut moved = false;
        for applied in results {
            for effect in &applied.effects {
                moved |= !matches!(effect, Effect::CompactLog { .. });
                match effect {
                    Effect::Members { .. } => self.changes += 1,
                    Effect::Split { .. } => self.splits += 1,
                    Effect::CompactLog { .. } => self.compactions += 1,
                    Effect::Installed { .. } => self.installed += 1,
                    Effect::Destroyed => self.destroyed += 1,
                    #[allow(unreachable_patterns, reason = "effects are added to")]
                    _ => {}
                }
            }
            let index = applied.state.index;
            if index.is_multiple_of(COMPARED) && index > 0 {
                self.compare_content(store_id, &*snapshot, applied);
            }
        }
        if moved {
            self.look_at_engine(store_id, &*snapshot);
        }
    }

    /// Equal states at equal indexes.
    fn compare_content(
        &mut self,
        store_id: StoreId,
        snapshot: &dyn Snapshot,
        applied: &Applied<Answer>,
    ) {
        let region_id = applied.region_id;
        // A later task of the same batch may have moved it on.
        let now = state::apply_state(snapshot, region_id).ok().flatten();
        let Ok(Some(found)) = state::region_state(snapshot, region_id) else { return };
        if found.state != PeerState::Normal || now != Some(applied.state) {
            return;
        }
        let content = content_of(snapshot, &found.region.range)
            ^ mix(found.region.epoch.version ^ found.region.epoch.conf_ver << 32);
        let index = applied.state.index;
        let first = *self.contents.entry((region_id, index)).or_insert(content);
        self.compared += 1;
        if first != content {
            let details =
                format!("region {region_id} at {index}: store {store_id} differs from others");
            self.fails("equal states at equal indexes", details);
        }
    }

    /// No two live regions of an engine overlap.
    fn look_at_engine(&mut self, store_id: StoreId, snapshot: &dyn Snapshot) {
        let states = state::region_states(snapshot).expect("the memory engine can be read");
        let mut live: Vec<Region> = states
            .into_iter()
            .filter(|found| found.state == PeerState::Normal)
            .map(|found| found.region)
            .collect();
        live.sort_by(|one, other| one.range.start.cmp(&other.range.start));
        for pair in live.windows(2) {
            let end = &pair[0].range.end;
            if end.is_empty() || pair[1].range.start < *end {
                let details =
                    format!("engine of store {store_id}: {:?} and {:?}", pair[0], pair[1]);
                self.fails("ranges on a store never overlap", details);
            }
        }
        for region in live {
            self.sees(store_id, &region);
        }
    }

    /// The regions of a store may have changed.
    pub(super) fn sees_regions(&mut self, store_id: StoreId, store: &Store<Answer>) {
        if let Err(both) = store.check_ranges() {
            self.fails("ranges on a store never overlap", format!("store {store_id}: {both:?}"));
        }
        let regions: Vec<Region> = store.regions().cloned().collect();
        for region in regions {
            self.sees(store_id, &region);
            let Some(own) = region.peer_on(store_id) else { continue };
            let newest = self.epochs.entry((store_id, own.id)).or_default();
            let now = region.epoch;
            if now.conf_ver < newest.conf_ver || now.version < newest.version {
                let details =
                    format!("peer {} of region {}: {newest}, then {now}", own.id, region.id);
                self.fails("epochs only grow", details);
            } else {
                *newest = now;
            }
        }
    }

    /// A region as some store knows it: an epoch says everything of it, and a peer id is of one peer.
    fn sees(&mut self, store_id: StoreId, region: &Region) {
        match self.regions.get(&(region.id, region.epoch)) {
            Some(known) if known == region => return,
            Some(known) => {
                let details = format!("store {store_id} has {region:?}, others {known:?}");
                self.fails("an epoch says who the members are and what the range is", details);
            }
            None => {
                self.regions.insert((region.id, region.epoch), region.clone());
            }
        }
        for peer in &region.peers {
            let home = (region.id, peer.store_id);
            let known = *self.peers.entry(peer.id).or_insert(home);
            if known != home {
                let details = format!("peer {}: {known:?}, then {home:?}", peer.id);
                self.fails("a peer id is never used again", details);
            }
        }
    }

    /// The numbers of a region on a store are in order: truncated <= applied <= committed <= last.
    pub(super) fn sees_numbers(&mut self, store_id: StoreId, region: RegionId, process: &Process) {
        let Some(status) = process.store.raft_status(region) else { return };
        let Some(applied) = process.store.applied(region) else { return };
        if applied.index == 0 {
            return;
        }
        let numbers = [status.first_index - 1, applied.index, status.committed, status.last_index];
        // A snapshot that is being installed is committed already.
        let installs = applied.index < status.first_index - 1;
        if !installs && !numbers.is_sorted() {
            let details = format!("store {store_id}, region {region}: {numbers:?}");
            self.fails("truncated <= applied <= committed <= last", details);
        }
    }
}

fn of_region(region: RegionId, violation: Violation) -> Violation {
    let details = format!("region {region}: {}", violation.details);
    Violation { details, ..violation }
}

/// A number that stands for the pairs of a range.
pub(super) fn content_of(snapshot: &dyn Snapshot, range: &KeyRange) -> u64 {
    let mut hash = 0;
    for (_, key, value) in pairs(snapshot, range) {
        hash = mix(hash ^ fingerprint(&key));
        hash = mix(hash ^ fingerprint(&value));
    }
    hash
}

/// The pairs of a range.
pub(super) fn pairs(snapshot: &dyn Snapshot, range: &KeyRange) -> Pairs {
    let mut pairs = Vec::new();
    let mut walk = || -> Result<(), engine::Error> {
        for cf in Cf::ALL {
            let mut iter = snapshot.iter(Family::from(cf), range)?;
            let mut valid = iter.seek_to_first()?;
            while valid {
                pairs.push((cf, iter.key_bytes(), iter.value_bytes()));
                valid = iter.next()?;
            }
        }
        Ok(())
    };
    walk().expect("the memory engine can be read");
    pairs
}
