//! What a store can be asked, by tests and by people.

use types::{PeerId, Region, RegionId};

use super::Store;
use crate::state::ApplyState;

impl<A> Store<A> {
    /// The regions of this store, as far as they are initialised, in the order of their ids.
    pub fn regions(&self) -> impl Iterator<Item = &Region> {
        self.peers.values().filter(|peer| peer.is_initialised()).map(|peer| &peer.region)
    }

    /// All peers of this store, those too that know nothing of their region yet, in the order of their regions' ids.
    pub fn peers(&self) -> impl Iterator<Item = (RegionId, PeerId)> {
        self.peers.iter().map(|(region, peer)| (*region, peer.id))
    }

    /// A line for each peer, for people.
    pub fn statuses(&self) -> impl Iterator<Item = String> {
        self.peers.values().map(|peer| {
            let status = peer.node.status();
            let (region, members) = (&peer.region, &peer.region.peers);
            let members: Vec<String> = members
                .iter()
                .map(|member| format!("{}@{}{:?}", member.id, member.store_id, member.role))
                .collect();
            format!(
                "region {} [{}, {}) epoch {} peer {} {:?} of {} term {} log {}..={} commit {} applied {}/{}{}{} members {members:?}",
                region.id,
                types::key::display(&region.range.start),
                types::key::display(&region.range.end),
                region.epoch,
                peer.id,
                status.role,
                status.leader,
                status.term,
                status.first_index,
                status.last_index,
                status.committed,
                status.applied,
                peer.applied.index,
                if peer.installing.is_some() { " installing" } else { "" },
                if peer.is_removed { " removed" } else { "" },
            )
        })
    }

    /// What the Raft core of a region believes.
    pub fn raft_status(&self, region: RegionId) -> Option<raft::Status> {
        self.peers.get(&region).map(|peer| peer.node.status())
    }

    /// How far a region is applied here.
    pub fn applied(&self, region: RegionId) -> Option<ApplyState> {
        self.peers.get(&region).map(|peer| peer.applied)
    }

    /// The invariant of ranges: what is initialised here never overlaps.
    ///
    /// # Errors
    /// The two that do.
    pub fn check_ranges(&self) -> Result<(), Box<(Region, Region)>> {
        let mut regions: Vec<&Region> = self.regions().collect();
        regions.sort_by(|one, other| one.range.start.cmp(&other.range.start));
        for pair in regions.windows(2) {
            let end = &pair[0].range.end;
            if end.is_empty() || pair[1].range.start < *end {
                return Err(Box::new((pair[0].clone(), pair[1].clone())));
            }
        }
        Ok(())
    }
}
