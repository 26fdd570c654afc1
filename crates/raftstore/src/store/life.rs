//! Peers that begin because of a split, and peers that end. (Those that a message begins: `messages.rs`.)

use std::collections::VecDeque;

use engine::raft_log::LogBatch;
use types::{
    Bytes, Region, RegionId,
    marks::{mutant, sometimes},
};

use super::{AfterSync, Destroying, Output, Store};
use crate::{
    apply::{Effect, Task},
    error::Result,
    peer::Peer,
    snapshot::Descriptor,
    state::{ApplyState, FIRST_INDEX, FIRST_TERM, encode_hard_state},
};

impl<A> Store<A> {
    /// A peer that is gone has still applied something: what a split has made of its region lives on.
    pub(super) fn on_applied_by_gone(&mut self, effects: &[Effect]) -> Result<()> {
        for effect in effects {
            if let Effect::Split { regions } = effect {
                sometimes!("store: a peer is gone before its last split is known");
                self.begin_children(regions, false)?;
            }
        }
        Ok(())
    }

    /// A region was cut into `regions`; the first one keeps its id.
    pub(super) fn begin_children(&mut self, regions: &[Region], campaigns: bool) -> Result<()> {
        for child in &regions[1..] {
            self.unsettled.push(child.range.clone());
            self.after_sync.push(AfterSync::Settle(child.range.clone()));
            self.begin_child(child, campaigns)?;
        }
        Ok(())
    }

    /// A region has come from a split: its peer here begins.
    fn begin_child(&mut self, region: &Region, campaigns: bool) -> Result<()> {
        let Some(own) = region.peer_on(self.config.store_id).copied() else { return Ok(()) };
        if let Some(found) = self.peers.get_mut(&region.id) {
            // Who was told of the region before the split was applied here. Its votes stay in the log.
            sometimes!("store: a split replaces a peer that a message has made");
            let came_back = own.id < found.id && !mutant!("split_revives_who_moved_away");
            found.end(&mut self.out);
            self.forget_sleeper(region.id);
            self.peers.remove(&region.id);
            if came_back {
                // Meanwhile the region has moved away and come back. What the split has made is nobody's; who came back
                // begins again when that is gone.
                sometimes!("store: a split finds that its region has moved away and come back");
                self.remove_data(region.clone(), ApplyState::FIRST);
                return Ok(());
            }
        }
        let bounds = self.log.bounds(region.id.0);
        // After a crash the log may be ahead of the engine.
        if bounds.is_some_and(|bounds| FIRST_INDEX <= bounds.base_index) {
            sometimes!("store: a split is applied again after a crash");
        }
        if bounds.is_none_or(|bounds| bounds.base_index < FIRST_INDEX)
            || mutant!("split_resets_log")
        {
            self.log.append(first_log(region.id, self.log.state(region.id.0)))?;
        }
        let rng = self.rng.fork();
        let applied = ApplyState::FIRST;
        let mut peer =
            Peer::new(&self.config, self.log.clone(), own.id, region.clone(), applied, rng)?;
        if campaigns || region.peers.len() == 1 {
            peer.node.campaign();
        }
        self.ranges.insert(region.range.start.clone(), region.id);
        self.peers.insert(region.id, peer);
        self.wake(region.id);
        let (known, other): (VecDeque<_>, VecDeque<_>) =
            self.early.drain(..).partition(|message| message.region_id == region.id);
        self.early = other;
        for message in known {
            sometimes!("store: an early message reaches the region that a split has made");
            self.on_message(message)?;
        }
        Ok(())
    }

    /// The peer of a region is gone from here for good, and so are its data.
    pub(super) fn destroy(&mut self, region_id: RegionId) {
        self.forget_sleeper(region_id);
        let Some(mut peer) = self.peers.remove(&region_id) else { return };
        peer.end(&mut self.out);
        self.flying.remove(&region_id);
        self.out.push(Output::Gone { region_id });
        if self.ranges.get(&peer.region.range.start) == Some(&region_id) {
            self.ranges.remove(&peer.region.range.start);
        }
        self.forget_made(region_id, peer.node.storage().drop_snapshot());
        self.snapshots.sending.retain(|(region, _)| *region != region_id);
        let own = peer.member();
        match peer.installing.take() {
            // The applier may be at it.
            Some(Descriptor { region, applied, .. }) => {
                self.remove_data(with_own(region, own), applied);
            }
            None if peer.is_initialised() => {
                self.remove_data(with_own(peer.region, own), peer.applied)
            }
            // There are no data. Its votes stay in the log.
            None => sometimes!("store: a peer without data is destroyed"),
        }
    }

    /// Has the data of a region removed, and everything that is known of it but a tombstone. Nobody lives there before.
    pub(super) fn remove_data(&mut self, region: Region, applied: ApplyState) {
        self.destroying.insert(region.id, Destroying { range: region.range.clone(), applied });
        let ranges = vec![region.range.clone()];
        self.out.push(Output::Apply(Task::Destroy { region, ranges }));
    }
}

/// The region for a tombstone, which remembers who lived here though that is no member any more.
fn with_own(mut region: Region, own: types::Peer) -> Region {
    let is_missing = region.peers.iter().all(|peer| peer.id != own.id);
    if is_missing && !mutant!("tombstone_forgets_who_lived_there") {
        region.peers.push(own);
    }
    region
}

/// The log of a new group. A vote that was given before is kept.
pub(super) fn first_log(region: RegionId, state: Option<Bytes>) -> LogBatch {
    let mut batch = LogBatch::new();
    batch.reset(region.0, FIRST_INDEX, FIRST_TERM);
    if state.is_none() {
        let hard_state = raft::HardState { term: FIRST_TERM, vote: 0, commit: FIRST_INDEX };
        batch.put_state(region.0, encode_hard_state(hard_state));
    }
    batch
}
