//! One region, as it is applied.

use raft::ConfState;
use types::{PeerId, Region, TimeStamp};

use crate::state::{ApplyState, conf_of};

/// A region, its members and how far it is applied.
#[derive(Debug)]
pub(crate) struct AppliedRegion {
    pub(crate) region: Region,
    /// The peer on this store.
    pub(crate) peer_id: PeerId,
    pub(crate) conf: ConfState,
    pub(crate) applied: ApplyState,
    /// Reads below it would miss versions that were removed.
    pub(crate) safe_point: TimeStamp,
    /// The peer is no member any more: nothing after that concerns it.
    pub(crate) is_removed: bool,
}

impl AppliedRegion {
    pub(crate) fn new(
        region: Region,
        peer_id: PeerId,
        applied: ApplyState,
        safe_point: TimeStamp,
    ) -> AppliedRegion {
        let conf = conf_of(&region);
        AppliedRegion { region, peer_id, conf, applied, safe_point, is_removed: false }
    }
}
