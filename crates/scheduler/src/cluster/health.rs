//! How stores and peers are, at a moment. Everything that decides about a peer asks here.
//!
//! A peer is *healthy* if it counts for a majority right now, and *lost* if nothing is expected of it any more. Between
//! the two lies patience: a store that is silent for a minute is not worth copying its data, and must not be counted
//! on either.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use types::{Peer, StoreId, marks::mutant};

use super::{KnownStore, RegionInfo, StoreState};
use crate::ScheduleConfig;

/// What the last heartbeat of a store says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// It was heard of recently.
    Serving,
    /// It missed a heartbeat or two, or has not sent any: nothing new goes there, and nothing is taken away.
    Disconnected,
    /// It counts as gone, though it may come back.
    Down,
}

/// How stores and peers are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Health<'a> {
    pub(super) stores: &'a BTreeMap<StoreId, KnownStore>,
    pub(super) forgotten: &'a BTreeSet<StoreId>,
    pub(super) config: &'a ScheduleConfig,
    pub(super) now: Duration,
}

impl<'a> Health<'a> {
    /// The store, unless nobody has registered it or it was forgotten.
    pub(crate) fn store(&self, id: StoreId) -> Option<&'a KnownStore> {
        self.stores.get(&id)
    }

    /// Where a store is in its life; `None` if nobody has registered it.
    pub(crate) fn state(&self, id: StoreId) -> Option<StoreState> {
        if self.forgotten.contains(&id) {
            return Some(StoreState::Tombstone);
        }
        self.store(id).map(|known| known.store.state)
    }

    /// How long it has not been heard of: since its last heartbeat, or since it registered or the scheduler started.
    fn silence(&self, id: StoreId) -> Duration {
        let heard = self.store(id).and_then(|known| known.heard);
        self.now.saturating_sub(heard.unwrap_or(self.now))
    }

    /// Whether it should have been heard of.
    pub(crate) fn is_silent(&self, id: StoreId) -> bool {
        self.config.store_disconnect_time < self.silence(id)
    }

    /// What its last heartbeat says. Before the first one nothing is expected of a store, and nothing held against it.
    pub(crate) fn liveness(&self, id: StoreId) -> Liveness {
        let silence = self.silence(id);
        let is_known = self.store(id).is_some_and(|known| known.stats.is_some());
        if self.config.max_store_down_time < silence {
            Liveness::Down
        } else if self.is_silent(id) || !is_known {
            if mutant!("silence_is_death") { Liveness::Down } else { Liveness::Disconnected }
        } else {
            Liveness::Serving
        }
    }

    /// Whether a store is in service and was heard of recently.
    pub(crate) fn is_serving(&self, id: StoreId) -> bool {
        self.state(id) == Some(StoreState::Up) && self.liveness(id) == Liveness::Serving
    }

    /// Whether a peer counts for a majority right now: it has caught up and its store is there.
    pub(crate) fn is_healthy(&self, region: &RegionInfo, peer: &Peer) -> bool {
        let there = matches!(self.state(peer.store_id), Some(StoreState::Up | StoreState::Offline))
            && self.liveness(peer.store_id) == Liveness::Serving;
        there
            && !is_pending(region, peer)
            && !region.down_peers.iter().any(|(down, _)| down.id == peer.id)
    }

    /// Whether nothing is expected of a peer any more.
    pub(crate) fn is_lost(&self, region: &RegionInfo, peer: &Peer) -> bool {
        match self.state(peer.store_id) {
            None => false,
            Some(StoreState::Tombstone) => true,
            Some(StoreState::Up | StoreState::Offline) => {
                let given_up = self.config.max_store_down_time.as_secs();
                self.liveness(peer.store_id) == Liveness::Down
                    || region
                        .down_peers
                        .iter()
                        .any(|(down, seconds)| down.id == peer.id && given_up <= *seconds)
            }
        }
    }

    /// Whether a peer's store is on its way out.
    pub(crate) fn is_leaving(&self, peer: &Peer) -> bool {
        self.state(peer.store_id) == Some(StoreState::Offline)
    }

    /// Whether these voters of a region could decide anything: more than half of them are healthy.
    pub(crate) fn has_majority<'p>(
        &self,
        region: &RegionInfo,
        voters: impl IntoIterator<Item = &'p Peer>,
    ) -> bool {
        let (mut all, mut healthy) = (0, 0);
        for voter in voters {
            all += 1;
            healthy += usize::from(self.is_healthy(region, voter));
        }
        all < 2 * healthy
    }
}

/// Whether a peer lags behind so far that it does not count.
pub(crate) fn is_pending(region: &RegionInfo, peer: &Peer) -> bool {
    if mutant!("pending_peers_count") {
        return false;
    }
    region.pending_peers.iter().any(|pending| pending.id == peer.id)
}
