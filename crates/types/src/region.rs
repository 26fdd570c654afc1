//! Regions and their peers.

use std::fmt;

use crate::{KeyRange, PeerId, RegionId, StoreId};

/// What a peer does in its region's Raft group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerRole {
    /// Votes and holds data.
    #[default]
    Voter,
    /// Receives the log and votes on nothing.
    Learner,
    /// A learner on its way to voter, inside a joint change.
    IncomingVoter,
    /// A voter on its way to learner, inside a joint change.
    DemotingVoter,
}

impl PeerRole {
    /// The number on the wire and on disk.
    pub fn to_byte(self) -> u8 {
        match self {
            PeerRole::Voter => 0,
            PeerRole::Learner => 1,
            PeerRole::IncomingVoter => 2,
            PeerRole::DemotingVoter => 3,
        }
    }

    /// Reads the number on the wire and on disk.
    pub fn from_byte(byte: u8) -> Option<PeerRole> {
        match byte {
            0 => Some(PeerRole::Voter),
            1 => Some(PeerRole::Learner),
            2 => Some(PeerRole::IncomingVoter),
            3 => Some(PeerRole::DemotingVoter),
            _ => None,
        }
    }
}

/// The replica of a region on a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The peer's own id, never used again after it is gone.
    pub id: PeerId,
    /// Where it lives.
    pub store_id: StoreId,
    /// Its part in the group.
    pub role: PeerRole,
}

/// Grows with every change of a region's membership (`conf_ver`) or range (`version`).
///
/// A request that was routed by an older epoch may concern another range or a peer that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionEpoch {
    /// Membership changes so far.
    pub conf_ver: u64,
    /// Range changes so far.
    pub version: u64,
}

impl RegionEpoch {
    /// The epoch of a region that was never changed.
    pub const FIRST: RegionEpoch = RegionEpoch { conf_ver: 1, version: 1 };
}

impl fmt::Display for RegionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.conf_ver, self.version)
    }
}

/// A contiguous key range and who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// The region's id.
    pub id: RegionId,
    /// Stored keys: raw user keys in V1 raw mode, memcomparable otherwise. Both bounds empty: everything.
    pub range: KeyRange,
    /// Counts changes of membership and range.
    pub epoch: RegionEpoch,
    /// The replicas.
    pub peers: Vec<Peer>,
}

impl Region {
    /// The peer on `store_id`, if any.
    pub fn peer_on(&self, store_id: StoreId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.store_id == store_id)
    }
}
