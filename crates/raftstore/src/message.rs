//! What stores say to each other.

use raft::Message;
use types::{KeyRange, Peer, Region, RegionEpoch, RegionId};

/// A message from a peer of one store to a peer of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMessage {
    /// The region.
    pub region_id: RegionId,
    /// The sender.
    pub from: Peer,
    /// The receiver, as the sender knows it.
    pub to: Peer,
    /// The region's epoch as the sender knows it; 0/0 if it knows nothing of the region yet.
    pub epoch: RegionEpoch,
    /// What is said.
    pub body: MessageBody,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// A message of the region's Raft group.
    Raft {
        /// The message.
        message: Message,
        /// The region's range as the sender knows it, so that a store without the region can tell whether it will
        /// come by a split that it has not applied yet.
        range: KeyRange,
    },
    /// The sender hears of no leader: if it is no member any more, it wants to be told ([`MessageBody::Gone`]).
    AmIMember,
    /// The leader has had nothing to do for a while, and all members have its log up to here, and know that it is
    /// committed: both sleep from now on.
    Sleep {
        /// The leader's term.
        term: u64,
        /// The last entry.
        index: u64,
    },
    /// The receiver must not sleep: the sender has something to do.
    Wake,
    /// The sender's store is there. Of no region and between no peers: it speaks for all that sleep.
    Ping,
    /// The receiver is no member any more, as of this state of the region: it destroys itself.
    Gone {
        /// The region without it.
        region: Region,
    },
}
