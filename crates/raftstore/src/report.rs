//! What a store tells the scheduler of a region that it leads.

use types::{Peer, Region};

/// A region as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionReport {
    /// The region.
    pub region: Region,
    /// The peer on this store, which leads.
    pub leader: Peer,
    /// Since this term.
    pub term: u64,
    /// Members that were not heard of, and for how many ticks.
    pub down_peers: Vec<(Peer, u64)>,
    /// Members, learners among them, that lack what the log begins with, or are far behind.
    pub pending_peers: Vec<Peer>,
    /// Bytes of keys and values, roughly; 0: not known yet.
    pub approximate_size: u64,
    /// Keys, roughly; 0: not known yet.
    pub approximate_keys: u64,
}
