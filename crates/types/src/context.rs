//! What a request says about where it was meant to go.

use crate::{ApiVersion, PeerId, RegionEpoch, RegionId, StoreId};

/// Where a client believes the keys of a request to be. The store checks every part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// The region; 0 when the request carried none.
    pub region_id: RegionId,
    /// The epoch of the region as the client knows it; `None` when the request carried none.
    pub epoch: Option<RegionEpoch>,
    /// The peer and its store; 0 when the request carried none.
    pub peer_id: PeerId,
    /// The store that the client believes it talks to.
    pub store_id: StoreId,
    /// Which key layout the client uses.
    pub api_version: ApiVersion,
    /// Whether a follower may answer a read, after it has asked its leader.
    pub replica_read: bool,
    /// Whether any peer may answer a read of a moment for which its data are complete, without asking.
    pub stale_read: bool,
}
