//! A region as it really is: its members, and which of them have its data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use scheduler::RegionInfo;
use types::{Peer, PeerId, PeerRole, StoreId};

/// A region as it really is. Its report is made from it.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) info: RegionInfo,
    /// Peers that had all of the data at some time.
    pub(crate) had_data: BTreeSet<PeerId>,
    /// Peers that lag behind, and since when.
    pub(crate) lagging: BTreeMap<PeerId, Duration>,
    /// When each peer came.
    pub(crate) born: BTreeMap<PeerId, Duration>,
}

impl Group {
    pub(crate) fn new(info: RegionInfo, now: Duration) -> Group {
        let ids = || info.region.peers.iter().map(|peer| peer.id);
        let (had_data, born) = (ids().collect(), ids().map(|id| (id, now)).collect());
        Group { had_data, born, lagging: BTreeMap::new(), info }
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.info.region.peers
    }

    pub(crate) fn has_data(&self, peer: PeerId) -> bool {
        self.had_data.contains(&peer) && !self.lagging.contains_key(&peer)
    }

    /// Whether the voters for whom `is_there` holds decide: in a joint state a majority of the old ones and of the new.
    pub(crate) fn has_majority(&self, is_there: impl Fn(&Peer) -> bool) -> bool {
        let majority = |other: PeerRole| {
            let voters = || {
                self.peers()
                    .iter()
                    .filter(|peer| peer.role == PeerRole::Voter || peer.role == other)
            };
            voters().count() < 2 * voters().filter(|peer| is_there(peer)).count()
        };
        majority(PeerRole::IncomingVoter) && majority(PeerRole::DemotingVoter)
    }

    pub(crate) fn voters(&self) -> usize {
        self.peers().iter().filter(|peer| peer.role == PeerRole::Voter).count()
    }

    pub(crate) fn is_joint(&self) -> bool {
        let joint = [PeerRole::IncomingVoter, PeerRole::DemotingVoter];
        self.peers().iter().any(|peer| joint.contains(&peer.role))
    }

    /// What its leader says of it at `now`; `died` says when the machine of a store died, if it is dead.
    pub(crate) fn report(
        &self,
        now: Duration,
        died: impl Fn(StoreId) -> Option<Duration>,
    ) -> RegionInfo {
        let mut report = self.info.clone();
        report.pending_peers =
            self.peers().iter().filter(|peer| !self.has_data(peer.id)).copied().collect();
        let down = |peer: &Peer| {
            let seconds = (now - died(peer.store_id)?).as_secs();
            (20 <= seconds).then_some((*peer, seconds))
        };
        report.down_peers = self.peers().iter().filter_map(down).collect();
        report
    }

    /// After a change of the members: forget those that are gone, note those that came.
    pub(crate) fn settle(&mut self, now: Duration) -> Vec<PeerId> {
        let there: BTreeSet<PeerId> = self.peers().iter().map(|peer| peer.id).collect();
        self.born.retain(|id, _| there.contains(id));
        self.lagging.retain(|id, _| there.contains(id));
        self.had_data.retain(|id| there.contains(id));
        let new: Vec<PeerId> = there.into_iter().filter(|id| !self.born.contains_key(id)).collect();
        for &id in &new {
            self.born.insert(id, now);
            self.lagging.insert(id, now);
        }
        new
    }
}
