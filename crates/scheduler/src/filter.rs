//! Which stores may take part in a change, and why others may not.

use types::{PeerRole, StoreId, limits};

use crate::cluster::{Liveness, Picture, RegionInfo, StoreState};

/// Why a store is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is on its way out, or gone.
    NotUp,
    /// It is silent for long.
    Down,
    /// It is silent.
    Disconnected,
    /// It wants to be left alone.
    Busy,
    /// Its disk is nearly full.
    LowSpace,
    /// It has enough snapshots to deal with.
    Snapshots,
    /// Many of its peers lag behind.
    Pending,
    /// Enough peers are on their way to it, or out of it.
    Limit,
}

impl Refusal {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotUp => "not up",
            Refusal::Down => "down",
            Refusal::Disconnected => "disconnected",
            Refusal::Busy => "busy",
            Refusal::LowSpace => "low on space",
            Refusal::Snapshots => "too many snapshots",
            Refusal::Pending => "too many pending peers",
            Refusal::Limit => "limit reached",
        }
    }
}

impl Picture<'_> {
    /// Why `store` may not get a new peer.
    pub(crate) fn refuses_peer(&self, store: StoreId) -> Option<Refusal> {
        if let Some(refusal) = self.refuses_leader(store) {
            return Some(refusal);
        }
        let stats = self.health.store(store).and_then(|known| known.stats.as_ref());
        let Some(stats) = stats else { return Some(Refusal::Disconnected) };
        let used = stats.capacity.saturating_sub(stats.available) as f64;
        let receiving = stats.receiving_snapshots.saturating_add(stats.applying_snapshots);
        let pending = self.regions.of_store(store).pending;
        let is_low = stats.available < limits::LOW_SPACE_BYTES
            && stats.capacity > 0
            && self.config.low_space_ratio * stats.capacity as f64 <= used;
        if is_low {
            Some(Refusal::LowSpace)
        } else if self.config.max_snapshot_count <= receiving {
            Some(Refusal::Snapshots)
        } else if self.config.max_pending_peer_count <= pending {
            Some(Refusal::Pending)
        } else {
            (self.config.store_add_limit <= self.load(store).adding).then_some(Refusal::Limit)
        }
    }

    /// Why `store` may not give away a peer though it is well. (What is lost or leaving is not asked.)
    pub(crate) fn refuses_removal(&self, store: StoreId) -> Option<Refusal> {
        let Some(known) = self.health.store(store) else { return Some(Refusal::NotUp) };
        match self.health.liveness(store) {
            Liveness::Down => return Some(Refusal::Down),
            Liveness::Disconnected => return Some(Refusal::Disconnected),
            Liveness::Serving => {}
        }
        if known.stats.as_ref().is_some_and(|stats| stats.is_busy) {
            return Some(Refusal::Busy);
        }
        (self.config.store_remove_limit <= self.load(store).removing).then_some(Refusal::Limit)
    }

    /// Why `store` may not get another leader.
    pub(crate) fn refuses_leader(&self, store: StoreId) -> Option<Refusal> {
        let Some(known) = self.health.store(store) else { return Some(Refusal::NotUp) };
        if known.store.state != StoreState::Up {
            return Some(Refusal::NotUp);
        }
        match self.health.liveness(store) {
            Liveness::Down => Some(Refusal::Down),
            Liveness::Disconnected => Some(Refusal::Disconnected),
            Liveness::Serving => {
                let is_busy = known.stats.as_ref().is_some_and(|stats| stats.is_busy);
                is_busy.then_some(Refusal::Busy)
            }
        }
    }

    /// The best store for a new peer of a region: of those that may get one and have none, the one that holds least.
    pub(crate) fn best_target(&self, region: &RegionInfo) -> Option<StoreId> {
        let mut targets = self.targets().iter().copied();
        targets.find(|&store| region.region.peer_on(store).is_none())
    }

    /// The best store to lead a region in place of `except`: of those with a healthy voter the one that leads least.
    /// One that is on its way out, or busy, is better than none.
    pub(crate) fn best_leader(&self, region: &RegionInfo, except: StoreId) -> Option<StoreId> {
        let peers = region.region.peers.iter().filter(|peer| peer.store_id != except);
        peers
            .filter(|peer| matches!(peer.role, PeerRole::Voter | PeerRole::IncomingVoter))
            .filter(|peer| self.health.is_healthy(region, peer))
            .map(|peer| peer.store_id)
            .min_by_key(|&store| (self.refuses_leader(store).is_some(), self.load(store).leaders))
    }
}
