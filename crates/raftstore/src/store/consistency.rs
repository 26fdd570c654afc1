//! Replicas compare their hashes (`hash.rs`): each keeps its own until the leader's comes.

use types::RegionId;

use super::{Output, Store};

/// The last hashes of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hashes {
    /// At which index, and what this replica has.
    own: Option<(u64, u64)>,
    /// And what the leader has.
    leaders: Option<(u64, u64)>,
}

impl<A> Store<A> {
    /// This replica's hash is computed. The leader tells the others.
    pub(super) fn on_hash_computed(&mut self, region_id: RegionId, index: u64, hash: u64) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        peer.hashes.own = Some((index, hash));
        if peer.leads() {
            peer.verify_hash(index, hash);
        }
        self.wake(region_id);
        self.compare_hashes(region_id);
    }

    /// The leader's hash has come.
    pub(super) fn on_hash_of_leader(&mut self, region_id: RegionId, index: u64, hash: u64) {
        if let Some(peer) = self.peers.get_mut(&region_id) {
            peer.hashes.leaders = Some((index, hash));
        }
        self.compare_hashes(region_id);
    }

    fn compare_hashes(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        let (Some((index, own)), Some((at, leaders))) = (peer.hashes.own, peer.hashes.leaders)
        else {
            return;
        };
        if index != at {
            return;
        }
        peer.hashes = Hashes::default();
        if own != leaders {
            let region = peer.region.clone();
            self.out.push(Output::Inconsistent { region, index, own, leaders });
        }
    }

    /// Has the replicas of the regions compared that are led here, once in a while.
    pub(super) fn compare_some(&mut self) {
        let period = self.config.check_hash_ticks;
        if period == 0 {
            return;
        }
        let phase = self.ticks % period;
        let led = self.reporting.iter().map(|(_, id)| *id);
        let due: Vec<RegionId> = led.filter(|id| id.0 % period == phase).collect();
        for region_id in due {
            let Some(peer) = self.peers.get_mut(&region_id).filter(|peer| peer.leads()) else {
                continue;
            };
            peer.compute_hash();
            self.wake(region_id);
        }
    }
}
