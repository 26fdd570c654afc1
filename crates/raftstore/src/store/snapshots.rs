//! Snapshots that are made and sent: a few at a time, and their files go when nobody needs them any more.
//!
//! A leader's core asks its storage for a snapshot when a follower needs entries that are gone. The first one who asks has
//! it made; it is kept, with its file, for as long as somebody asks again. What was received is removed after the engine
//! has it durably (`AfterSync::Forget`), and what is left of both at a start.

use std::collections::{BTreeSet, VecDeque};

use raft::{ProgressKind, SnapshotStatus};
use types::{PeerId, RegionEpoch, RegionId};

use super::{Output, Store};
use crate::{peer::Peer, snapshot::Descriptor, state::ApplyState};

/// Snapshots that are being made or sent.
#[derive(Debug, Default)]
pub(super) struct Snapshotting {
    /// Those that are to be made.
    to_make: VecDeque<RegionId>,
    /// How many are being made.
    making: usize,
    /// Those that are on their way, and to whom.
    pub(super) sending: BTreeSet<(RegionId, PeerId)>,
}

impl Snapshotting {
    /// Whether one more may be sent, which is noted then.
    pub(super) fn may_send(&mut self, region: RegionId, to: PeerId, max: usize) -> bool {
        if max <= self.sending.len() && !self.sending.contains(&(region, to)) {
            return false;
        }
        self.sending.insert((region, to));
        true
    }
}

impl<A> Store<A> {
    /// Has a snapshot of a region made if its core has asked for one.
    pub(super) fn make_snapshot_if_wanted(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        let is_wanted = peer.node.storage().take_wanted().is_some();
        // Who is removed has a tombstone instead of a region. Its successor makes the snapshot.
        if !is_wanted
            || peer.makes_snapshot
            || peer.is_removed
            || self.ticks < peer.no_snapshot_before
        {
            return;
        }
        peer.makes_snapshot = true;
        self.snapshots.to_make.push_back(region_id);
        self.make_next();
    }

    fn make_next(&mut self) {
        while self.snapshots.making < self.config.snapshots_making_max
            && let Some(region_id) = self.snapshots.to_make.pop_front()
        {
            if self.peers.get(&region_id).is_some_and(|peer| peer.makes_snapshot) {
                self.snapshots.making += 1;
                self.out.push(Output::MakeSnapshot { region_id });
            }
        }
    }

    /// A snapshot was made, or could not be.
    pub(super) fn on_snapshot_made(&mut self, region_id: RegionId, made: Option<Descriptor>) {
        self.snapshots.making = self.snapshots.making.saturating_sub(1);
        self.make_next();
        let is_newer = |now: RegionEpoch, made: RegionEpoch| {
            now.conf_ver <= made.conf_ver && now.version <= made.version
        };
        let peer = self.peers.get_mut(&region_id).filter(|peer| peer.makes_snapshot);
        let (Some(peer), Some(made)) = (peer, &made) else {
            if let Some(peer) = self.peers.get_mut(&region_id) {
                peer.makes_snapshot = false;
                peer.no_snapshot_before = self.ticks + self.config.snapshot_ticks;
            }
            self.forget_made(region_id, made.map(|made| made.applied));
            return;
        };
        peer.makes_snapshot = false;
        if !is_newer(peer.region.epoch, made.region.epoch) || !peer.leads() {
            // Its file may be that of the one before it.
            let before = peer.node.storage().drop_snapshot();
            self.forget_made(region_id, before.filter(|before| *before != made.applied));
            self.forget_made(region_id, Some(made.applied));
            return;
        }
        let before = peer.node.storage().keep_snapshot(made.to_raft());
        peer.snapshot_used_at = self.ticks;
        peer.node.snapshot_made();
        self.dirty.insert(region_id);
        self.forget_made(region_id, before.filter(|before| *before != made.applied));
    }

    /// A snapshot was sent, or got lost.
    pub(super) fn on_snapshot_sent(&mut self, region_id: RegionId, to: PeerId, arrived: bool) {
        self.snapshots.sending.remove(&(region_id, to));
        if let Some(peer) = self.peers.get_mut(&region_id) {
            let status = match arrived {
                true => SnapshotStatus::Finished,
                false => SnapshotStatus::Failed,
            };
            peer.node.report_snapshot(to.0, status);
            self.dirty.insert(region_id);
        }
    }

    /// A snapshot that was made here is not needed any more.
    pub(super) fn forget_made(&mut self, region_id: RegionId, applied: Option<ApplyState>) {
        if let Some(applied) = applied {
            self.out.push(Output::ForgetMade { region_id, applied });
        }
    }
}

/// Drops the snapshot of a region if nobody has asked for it for a while. Returns where it stood.
pub(super) fn drop_if_unused(peer: &mut Peer, now: u64, patience: u64) -> Option<ApplyState> {
    let is_sent = peer.node.peers().any(|member| member.kind == ProgressKind::Snapshot);
    if peer.node.storage().take_used() || is_sent {
        peer.snapshot_used_at = now;
    }
    match now < peer.snapshot_used_at + patience {
        true => None,
        false => peer.node.storage().drop_snapshot(),
    }
}
