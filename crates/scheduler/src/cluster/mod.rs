//! What we believe of the cluster: its stores, its regions, its settings. And whom we believe.
//!
//! A store speaks for itself; the leader of a region speaks for the region. Reports overtake each other, so a region's
//! report counts only if its epoch is not older than what is known about the same keys.
//!
//! This file only judges. What is accepted becomes a record, and the record changes the state (`scheduler.rs`). What
//! is to be done about it is decided elsewhere (`checker/`, `balance/`), from a [`Picture`].

mod bag;
mod health;
mod picture;
mod region_tree;
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use types::{
    Bytes, KeyMode, KeyRange, PeerId, Region, RegionEpoch, RegionId, StoreId, key, marks::mutant,
};

pub(crate) use health::{Health, Liveness, is_pending};
pub(crate) use picture::{Load, Picture};
pub(crate) use region_tree::{Part, RegionTree, is_joint};
pub use region_tree::{RegionInfo, StoreRegions};
pub use store::{Store, StoreFilter, StoreInfo, StoreState, StoreStats};

use crate::{Error, Now, Result, ScheduleConfig};

/// Settings of the whole cluster that clients may read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// How many peers a region should have.
    pub max_peer_count: u32,
}

impl Default for ClusterConfig {
    fn default() -> ClusterConfig {
        ClusterConfig { max_peer_count: 3 }
    }
}

/// What we believe of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    /// Whether the first store has joined.
    pub(crate) bootstrapped: bool,
    pub(crate) config: ClusterConfig,
    /// What kind of data the first write made it hold.
    pub(crate) key_mode: Option<KeyMode>,
    pub(crate) stores: BTreeMap<StoreId, KnownStore>,
    /// Stores that are gone for good and of which nothing but the id is kept. Ids are never used again.
    pub(crate) forgotten: BTreeSet<StoreId>,
    pub(crate) regions: RegionTree,
}

/// A store, without what the regions say about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownStore {
    pub(crate) store: Store,
    pub(crate) stats: Option<StoreStats>,
    pub(crate) last_heartbeat: Option<Now>,
    /// From when on its silence counts: its last heartbeat, or when this scheduler first knew it.
    pub(crate) heard: Option<Duration>,
}

/// What is new in a region's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    Nothing,
    /// Sizes, flows, pending and down peers: the next report brings them again.
    Statistics,
    /// Its leader, which clients want to know at once after a restart.
    Leader,
    /// Its range, epoch or peers.
    Region,
}

impl Cluster {
    pub(crate) fn check_bootstrapped(&self) -> Result<()> {
        if self.bootstrapped { Ok(()) } else { Err(Error::NotBootstrapped) }
    }

    /// Whether `store` and `regions` can be the first. No regions: the store will report them.
    pub(crate) fn check_bootstrap(&self, store: &Store, regions: &[Region]) -> Result<()> {
        if self.bootstrapped {
            return Err(Error::AlreadyBootstrapped);
        }
        check_store_id(store)?;
        let mut ids = BTreeSet::new();
        let mut peers = BTreeSet::new();
        let mut end_so_far: Option<Bytes> = None;
        for region in regions {
            check_region(region)?;
            let [peer] = region.peers[..] else {
                return Err(Error::invalid(format!(
                    "region {} must have one peer at first",
                    region.id
                )));
            };
            if peer.store_id != store.id {
                return Err(Error::invalid(format!(
                    "region {} is not on store {}",
                    region.id, store.id
                )));
            }
            if !ids.insert(region.id) || !peers.insert(peer.id) {
                return Err(Error::invalid(format!(
                    "region {} or its peer has the id of another",
                    region.id
                )));
            }
            let begins_there = match &end_so_far {
                None => region.range.start.is_empty(),
                Some(end) => !end.is_empty() && region.range.start == end,
            };
            if !begins_there {
                return Err(Error::invalid(format!(
                    "region {} does not begin where the one before ends",
                    region.id
                )));
            }
            end_so_far = Some(region.range.end.clone());
        }
        match end_so_far {
            Some(end) if !end.is_empty() => {
                Err(Error::invalid("the regions do not reach the end of the keys"))
            }
            _ => Ok(()),
        }
    }

    /// What changes when `store` registers: itself, and a store that it takes the place of. Nothing changes if all of
    /// that is known.
    pub(crate) fn check_put_store(&self, store: Store, health: &Health<'_>) -> Result<Vec<Store>> {
        self.check_bootstrapped()?;
        check_store_id(&store)?;
        let known = self.stores.get(&store.id).map(|known| &known.store);
        if health.state(store.id) == Some(StoreState::Tombstone) {
            return Err(Error::StoreTombstone { id: store.id });
        }
        let mut changed = Vec::new();
        let others =
            self.stores.values().map(|known| &known.store).filter(|other| other.id != store.id);
        for other in others.filter(|other| other.state != StoreState::Tombstone) {
            if other.address != store.address {
                continue;
            }
            // A machine that lost its disk comes back with a new id. Of what was there nothing is missing.
            let is_over =
                self.regions.of_store(other.id).regions == 0 && health.is_silent(other.id);
            if !is_over {
                return Err(Error::AddressTaken { address: store.address, owner: other.id });
            }
            changed.push(Store { state: StoreState::Tombstone, ..other.clone() });
        }
        // A store that starts again says "up", and does not know that somebody is sending it away.
        let state = known.map_or(store.state, |known| known.state);
        let store = Store { state, ..store };
        if known != Some(&store) {
            changed.push(store);
        }
        Ok(changed)
    }

    /// How stores and peers are at `now`.
    pub(crate) fn health<'a>(&'a self, config: &'a ScheduleConfig, now: Duration) -> Health<'a> {
        Health { stores: &self.stores, forgotten: &self.forgotten, config, now }
    }

    /// The store, if it may report anything.
    pub(crate) fn check_reporting_store(&mut self, id: StoreId) -> Result<&mut KnownStore> {
        self.check_bootstrapped()?;
        if self.forgotten.contains(&id) {
            return Err(Error::StoreTombstone { id });
        }
        let known = self.stores.get_mut(&id).ok_or(Error::StoreNotFound { id })?;
        if known.store.state == StoreState::Tombstone {
            return Err(Error::StoreTombstone { id });
        }
        Ok(known)
    }

    /// Whether to believe a region's report, and what is new in it.
    pub(crate) fn check_region_heartbeat(&mut self, report: &RegionInfo) -> Result<News> {
        self.check_bootstrapped()?;
        let region = &report.region;
        check_region(region)?;
        if let Some(leader) = &report.leader {
            self.check_reporting_store(leader.store_id)?;
        }
        let stale = |known: &Region| Error::StaleRegion {
            region: region.id,
            epoch: region.epoch,
            known_region: known.id,
            known: known.epoch,
        };
        let known = self.regions.get(region.id);
        if let Some(known) = known
            && is_behind(region.epoch, known.region.epoch)
            && !mutant!("stale_reports_are_believed")
        {
            return Err(stale(&known.region));
        }
        // Nothing of the region has changed since, but another has led it.
        if let Some(known) = known
            && region.epoch == known.region.epoch
            && (1..known.term).contains(&report.term)
        {
            return Err(stale(&known.region));
        }
        if known.is_none_or(|known| known.region.range != region.range) {
            for other in
                self.regions.overlapping(&region.range).filter(|other| other.region.id != region.id)
            {
                if is_overtaken(region.epoch, other.region.epoch)
                    && !mutant!("stale_reports_replace_others")
                {
                    return Err(stale(&other.region));
                }
            }
        }
        Ok(match known {
            Some(known) if **known == *report && self.regions.reported_at(region.id).is_some() => {
                News::Nothing
            }
            Some(known) if known.region != *region => News::Region,
            Some(known) if known.leader != report.leader => News::Leader,
            Some(_) => News::Statistics,
            None => News::Region,
        })
    }

    pub(crate) fn store_info(&self, known: &KnownStore) -> StoreInfo {
        StoreInfo {
            store: known.store.clone(),
            stats: known.stats.clone(),
            last_heartbeat: known.last_heartbeat,
            regions: self.regions.of_store(known.store.id),
        }
    }
}

/// Whether the same region has been further already.
pub(crate) fn is_behind(epoch: RegionEpoch, known: RegionEpoch) -> bool {
    epoch.version < known.version || epoch.conf_ver < known.conf_ver
}

/// Whether another region has taken these keys since.
///
/// Keys change hands by splits and merges only, which raise the version above that of all who take part. Membership
/// counts within one region: after a merge the heir may have fewer changes behind it than the region that it swallowed,
/// and must be believed all the same.
fn is_overtaken(epoch: RegionEpoch, other: RegionEpoch) -> bool {
    (epoch.version, epoch.conf_ver) < (other.version, other.conf_ver)
}

fn check_store_id(store: &Store) -> Result<()> {
    if store.id.is_none() { Err(Error::invalid("invalid zero store id")) } else { Ok(()) }
}

fn check_region(region: &Region) -> Result<()> {
    let KeyRange { start, end } = &region.range;
    if region.id == RegionId(0) {
        return Err(Error::invalid("invalid zero region id"));
    }
    if region.range.is_empty() {
        let (start, end) = (key::display(start), key::display(end));
        return Err(Error::invalid(format!("region {} has no keys: [{start}, {end})", region.id)));
    }
    if region.peers.is_empty() {
        return Err(Error::invalid(format!("region {} has no peers", region.id)));
    }
    if region.peers.iter().any(|peer| peer.id == PeerId(0) || peer.store_id == StoreId(0)) {
        return Err(Error::invalid(format!("region {} has a peer with a zero id", region.id)));
    }
    Ok(())
}
