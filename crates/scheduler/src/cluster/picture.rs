//! The picture that decisions are made from: what is believed, and what is already under way.
//!
//! A decision is a function of a picture and, where it has to choose among equals, of random numbers. It changes
//! nothing: what it wants is a [`Plan`](crate::operator::Plan).
//!
//! What is under way counts as done: a peer that is being added weighs on its store from the moment the operator
//! exists. Otherwise everything would go to the store that is empty now.

use std::{cell::OnceCell, collections::BTreeMap};

use types::{PeerRole, RegionId, StoreId, marks::mutant};

use super::{
    Cluster, Health, KnownStore, Liveness, RegionInfo, RegionTree, StoreState, is_pending,
};
use crate::{ScheduleConfig, operator::Operators};

/// What decisions are made from.
#[derive(Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) health: Health<'a>,
    pub(crate) regions: &'a RegionTree,
    pub(crate) config: &'a ScheduleConfig,
    /// How many voters a region should have.
    pub(crate) max_replicas: usize,
    operators: &'a Operators,
    loads: BTreeMap<StoreId, Load>,
    /// Stores that may get a new peer, the one that holds least in front. Worked out when it is first asked for.
    targets: OnceCell<Vec<StoreId>>,
}

/// What a store holds once everything that is under way is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// The sum of the weights of its regions.
    pub(crate) weight: i64,
    /// Regions that it leads.
    pub(crate) leaders: i64,
    /// Peers on their way to it.
    pub(crate) adding: usize,
    /// Peers on their way out of it.
    pub(crate) removing: usize,
}

impl<'a> Picture<'a> {
    pub(crate) fn new(
        cluster: &'a Cluster,
        operators: &'a Operators,
        health: Health<'a>,
    ) -> Picture<'a> {
        let max_replicas = usize::try_from(cluster.config.max_peer_count).unwrap_or(usize::MAX);
        let held = |(&id, known): (&StoreId, &KnownStore)| {
            let regions = &cluster.regions;
            let leaders = i64::try_from(regions.of_store(id).leaders).unwrap_or(i64::MAX);
            let load = Load { weight: regions.weight_of(id), leaders, ..Load::default() };
            (known.store.state != StoreState::Tombstone).then_some((id, load))
        };
        let mut loads: BTreeMap<StoreId, Load> = cluster.stores.iter().filter_map(held).collect();
        for operator in operators.running() {
            if mutant!("what_is_under_way_counts_nothing") {
                break;
            }
            if let Some(region) = cluster.regions.get(operator.region) {
                operator.weigh(region, &mut loads);
            }
        }
        let (config, regions) = (health.config, &cluster.regions);
        let targets = OnceCell::new();
        Picture { health, regions, config, max_replicas, operators, loads, targets }
    }

    /// Says what stores hold, in place of the regions that are known. For decisions about clusters that nobody wants
    /// to make up region by region.
    #[cfg(feature = "testing")]
    pub(crate) fn pretend(&mut self, loads: &BTreeMap<StoreId, Load>) {
        for (id, pretended) in loads {
            if let Some(load) = self.loads.get_mut(id) {
                load.weight = pretended.weight;
                load.leaders = pretended.leaders;
            }
        }
    }

    /// What `store` holds once everything that is under way is done.
    pub(crate) fn load(&self, store: StoreId) -> Load {
        self.loads.get(&store).copied().unwrap_or_default()
    }

    /// Stores that may get a new peer, the one that holds least in front.
    pub(crate) fn targets(&self) -> &[StoreId] {
        self.targets.get_or_init(|| {
            let may_get = |store: &StoreId| self.refuses_peer(*store).is_none();
            let mut targets: Vec<StoreId> = self.stores().filter(may_get).collect();
            targets.sort_by_key(|&store| self.load(store).weight);
            targets
        })
    }

    /// All stores that are not gone for good, by id.
    pub(crate) fn stores(&self) -> impl Iterator<Item = StoreId> {
        self.loads.keys().copied()
    }

    /// Whether something is being done to a region.
    pub(crate) fn has_operator(&self, region: RegionId) -> bool {
        !mutant!("several_operators_for_a_region") && self.operators.get(region).is_some()
    }

    /// Whether anything can be done to a region: its leader is there and reports, it has a majority, and no peer is on
    /// a store that nobody has heard of.
    pub(crate) fn is_workable(&self, region: &RegionInfo) -> bool {
        let Some(leader) = region.leader else { return false };
        let Some(reported_at) = self.regions.reported_at(region.region.id) else { return false };
        let peers = &region.region.peers;
        self.health.now.saturating_sub(reported_at) <= self.config.region_silent_time
            && self.health.liveness(leader.store_id) == Liveness::Serving
            && peers.iter().all(|peer| self.health.state(peer.store_id).is_some())
            && self
                .health
                .has_majority(region, peers.iter().filter(|peer| peer.role != PeerRole::Learner))
    }

    /// Whether a region is settled, so that its peer on `leaving` may move: it has all its voters and nothing else, and all
    /// of them are healthy. The one that is to go need not have caught up.
    pub(crate) fn is_settled(&self, region: &RegionInfo, leaving: StoreId) -> bool {
        let peers = &region.region.peers;
        peers.len() == self.max_replicas
            && peers.iter().all(|peer| peer.role == PeerRole::Voter)
            && peers.iter().all(|peer| {
                self.health.is_healthy(region, peer)
                    || (peer.store_id == leaving
                        && is_pending(region, peer)
                        && self.health.is_serving(leaving))
            })
    }
}
