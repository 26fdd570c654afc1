//! Regions that grow: when one is looked at, and what comes of it. Looking itself is a job for somebody who may wait
//! (`split_check.rs`); ids for new regions come from the scheduler.

use types::{Bytes, KeyRange, RegionEpoch, RegionId};

use super::{Output, Store};
use crate::{
    apply::Written,
    split_check::{SplitAim, SplitCheck, SplitJob, SplitLimits},
};

/// A region is looked at again when it may have grown by this share of what it should have.
const GROWTH_SHARE: u64 = 8;

/// What is known of a region's size.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    /// Bytes of keys and values; 0: not known.
    pub(crate) size: u64,
    /// Keys; 0: not known.
    pub(crate) keys: u64,
    /// What was written since it was looked at.
    written: Written,
    /// Whether it was looked at, and is not to be cut.
    is_known: bool,
    /// Somebody looks at it, for this.
    looked_for: Option<SplitAim>,
    /// Somebody wants it cut into halves.
    wants_half: bool,
}

impl Extent {
    /// So much was written.
    pub(crate) fn grow(&mut self, written: Written) {
        self.written += written;
    }

    /// Whether the region may have grown too much.
    pub(crate) fn is_due(&self, limits: &SplitLimits) -> bool {
        !self.is_known
            || limits.split_bytes / GROWTH_SHARE <= self.written.bytes
            || limits.split_keys / GROWTH_SHARE <= self.written.keys
    }

    /// The region has other keys now.
    pub(crate) fn forget(&mut self) {
        let Extent { looked_for, .. } = *self;
        *self = Extent { looked_for, ..Extent::default() };
    }
}

impl<A> Store<A> {
    /// Has the regions looked at that have grown, as far as there are hands.
    pub(super) fn check_grown(&mut self) {
        self.to_check.append(&mut self.grown);
        self.check_next();
    }

    /// Somebody wants a region cut into halves.
    pub(super) fn split_half(&mut self, region_id: RegionId) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        peer.extent.wants_half = true;
        self.to_check.insert(region_id);
        self.check_next();
    }

    fn check_next(&mut self) {
        let mut rest = std::mem::take(&mut self.to_check);
        while self.checking < self.config.split_checks_max
            && let Some(region_id) = rest.pop_first()
        {
            let Some(peer) = self.peers.get_mut(&region_id) else { continue };
            // Who leads next looks at it.
            if !peer.leads() || peer.extent.looked_for.is_some() {
                continue;
            }
            let aim = match std::mem::take(&mut peer.extent.wants_half) {
                true => SplitAim::Half,
                false if peer.extent.is_due(&self.config.split) => {
                    peer.extent.written = Written::default();
                    SplitAim::Limits
                }
                false => continue,
            };
            peer.extent.looked_for = Some(aim);
            self.checking += 1;
            let (epoch, range) = (peer.region.epoch, peer.region.range.clone());
            self.out.push(Output::CheckSplit(SplitJob { region_id, epoch, range, aim }));
        }
        self.to_check.append(&mut rest);
    }

    /// Somebody has looked at a region.
    pub(super) fn on_split_checked(
        &mut self,
        region_id: RegionId,
        epoch: RegionEpoch,
        found: SplitCheck,
    ) {
        self.checking = self.checking.saturating_sub(1);
        self.take_split_check(region_id, epoch, found);
        self.check_next();
    }

    fn take_split_check(&mut self, region_id: RegionId, epoch: RegionEpoch, found: SplitCheck) {
        let Some(peer) = self.peers.get_mut(&region_id) else { return };
        let looked_for = peer.extent.looked_for.take();
        if peer.extent.wants_half {
            self.to_check.insert(region_id);
        }
        if epoch.version != peer.region.epoch.version {
            self.grown.insert(region_id);
            return;
        }
        let SplitCheck { size, keys, split_keys } = found;
        if looked_for == Some(SplitAim::Limits) {
            (peer.extent.size, peer.extent.keys) = (size, keys);
            peer.extent.is_known = split_keys.is_empty();
            if !peer.extent.is_known {
                // It is looked at again until it is cut: the scheduler may have no ids now.
                self.grown.insert(region_id);
            }
        }
        if peer.leads() && !split_keys.is_empty() && are_inside(&peer.region.range, &split_keys) {
            let region = peer.region.clone();
            self.out.push(Output::AskSplit { region, keys: split_keys });
        }
    }
}

/// Whether these keys ascend strictly inside of `range`.
fn are_inside(range: &KeyRange, keys: &[Bytes]) -> bool {
    let first = [&range.start].into_iter().chain(keys);
    first.zip(keys).all(|(before, key)| before < key && range.contains(key))
}
