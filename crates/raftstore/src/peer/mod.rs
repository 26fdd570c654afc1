//! One peer: a Raft core, what waits for it, and how far its Readies are.
//!
//! `propose.rs` takes requests, `ready.rs` performs what the core says. Which peers there are, and what they do to each
//! other, is the business of `store.rs`.

pub(crate) mod propose;
pub(crate) mod ready;
pub(crate) mod view;

use std::collections::{BTreeMap, VecDeque};

use engine::raft_log::{RaftLog, Ticket};
use raft::{Config, Message, Node, RoleKind};
use types::{
    Peer as Member, PeerId, Region, RegionError, RegionId, StoreId,
    marks::{mutant, sometimes},
};

use crate::{
    config::StoreConfig,
    error::{Error, Result},
    log_storage::LogStorage,
    snapshot::Descriptor,
    state::{ApplyState, FIRST_TERM, conf_of},
    store::{Extent, Hashes, Output, Reported, Token},
};

/// The core's generator.
#[derive(Debug)]
pub(crate) struct CoreRng(pub(crate) runtime::Rng);

impl raft::Rng for CoreRng {
    fn range(&mut self, low: u32, high: u32) -> u32 {
        self.0.range(u64::from(low)..u64::from(high)) as u32
    }
}

/// A read that the core was asked about, or that waits for an index to be applied.
#[derive(Debug)]
struct Read {
    token: Token,
    /// The range that the reader believes in.
    version: u64,
    /// The term in which it was granted.
    term: u64,
}

/// A Ready that is not durable yet.
#[derive(Debug)]
struct Flight {
    number: u64,
    ticket: Ticket,
    messages: Vec<Message>,
    /// To be installed when it is durable that the log begins after it.
    snapshot: Option<Descriptor>,
}

/// One peer of a region.
#[derive(Debug)]
pub(crate) struct Peer {
    store_id: StoreId,
    pub(crate) id: PeerId,
    /// The region as it is applied here; without peers if nothing is known of it.
    pub(crate) region: Region,
    pub(crate) node: Node<LogStorage, CoreRng>,
    /// How far the applier is.
    pub(crate) applied: ApplyState,
    /// Proposals whose fate is not known yet, by index and term. A leader that loses its office and gets it back may have
    /// several at one index: until that is applied, each of them may still be the one.
    proposals: BTreeMap<(u64, u64), Token>,
    /// By the number under which the core was asked.
    reads: BTreeMap<u64, Read>,
    /// By the index that has to be applied first.
    reads_at: VecDeque<(u64, Read)>,
    flights: VecDeque<Flight>,
    /// A snapshot that is being made for somebody.
    pub(crate) makes_snapshot: bool,
    /// None is made before this tick of the store, since one could not be.
    pub(crate) no_snapshot_before: u64,
    /// The tick at which somebody has asked for the one that was made.
    pub(crate) snapshot_used_at: u64,
    /// Members to whom a snapshot can't be sent now.
    unsent: Vec<u64>,
    /// A snapshot replaces the data; nothing is applied before it has.
    pub(crate) installing: Option<Descriptor>,
    /// The change of the members that removes this peer is applied. It stays while it leads, so that others learn it.
    pub(crate) is_removed: bool,
    /// Ticks since it heard a leader.
    pub(crate) leaderless: u32,
    /// Ticks without traffic.
    pub(crate) idle: u32,
    /// It sleeps; the leader is on this store.
    pub(crate) sleeps_under: Option<StoreId>,
    /// While it does not know its region: the newest members that somebody had who spoke to it.
    pub(crate) spoken_to_in: u64,
    /// Where other members live, learned from messages before a region says it.
    pub(crate) addresses: BTreeMap<PeerId, Member>,
    /// The last index up to which the log was, or will be, compacted.
    pub(crate) compacting: u64,
    /// What the scheduler was told.
    pub(crate) reported: Reported,
    /// What replicas compare.
    pub(crate) hashes: Hashes,
    /// How large the region is.
    pub(crate) extent: Extent,
    /// The last split that was proposed here.
    pub(crate) splitting: u64,
    said: view::Said,
}

impl Peer {
    /// A peer as log and engine remember it. `region` without peers: it waits to be told.
    ///
    /// # Errors
    /// What is remembered can't be.
    pub(crate) fn new(
        config: &StoreConfig,
        log: RaftLog,
        id: PeerId,
        region: Region,
        applied: ApplyState,
        rng: runtime::Rng,
    ) -> Result<Peer> {
        let region_id = region.id;
        let conf = conf_of(&region);
        let storage = LogStorage::open(log, region_id, conf, applied.index)?;
        let core = Config {
            id: id.0,
            applied: applied.index,
            first_term: FIRST_TERM,
            ..config.core.clone()
        };
        let node = Node::new(core, storage, CoreRng(rng))
            .map_err(|error| Error::Raft { region: region_id, error })?;
        Ok(Peer {
            store_id: config.store_id,
            id,
            region,
            node,
            applied,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            reads_at: VecDeque::new(),
            flights: VecDeque::new(),
            makes_snapshot: false,
            no_snapshot_before: 0,
            snapshot_used_at: 0,
            unsent: Vec::new(),
            installing: None,
            is_removed: false,
            leaderless: 0,
            idle: 0,
            sleeps_under: None,
            spoken_to_in: 0,
            addresses: BTreeMap::new(),
            compacting: 0,
            reported: Reported::default(),
            hashes: Hashes::default(),
            extent: Extent::default(),
            splitting: 0,
            said: view::Said::default(),
        })
    }

    pub(crate) fn region_id(&self) -> RegionId {
        self.region.id
    }

    /// Whether it knows its region.
    pub(crate) fn is_initialised(&self) -> bool {
        !self.region.peers.is_empty()
    }

    pub(crate) fn leads(&self) -> bool {
        self.node.role().role == RoleKind::Leader
    }

    /// Whether nothing waits here: everything that it has is committed and applied.
    pub(crate) fn has_nothing_to_do(&self) -> bool {
        let last = self.node.last_index();
        self.is_initialised()
            && !self.is_removed
            && self.installing.is_none()
            && self.applied.index == last
            && self.flights.is_empty()
            && self.proposals.is_empty()
            && self.reads.is_empty()
            && self.reads_at.is_empty()
            && !self.makes_snapshot
            && !self.node.storage().has_snapshot()
            && !self.node.is_changing()
            && !self.node.has_ready()
    }

    /// Itself, as a member.
    pub(crate) fn member(&self) -> Member {
        let own = self.region.peers.iter().find(|peer| peer.id == self.id).copied();
        own.unwrap_or(Member { id: self.id, store_id: self.store_id, ..Member::default() })
    }

    /// Who `id` is, and where.
    pub(crate) fn find(&self, id: u64) -> Option<Member> {
        let id = PeerId(id);
        let member = self.region.peers.iter().find(|peer| peer.id == id);
        member.or_else(|| self.addresses.get(&id)).copied()
    }

    /// The error for those who take this peer for the leader.
    pub(crate) fn not_leader(&self) -> RegionError {
        let leader = self.node.role().leader;
        let leader = if leader == self.id.0 { None } else { self.find(leader) };
        RegionError::NotLeader { region: self.region_id(), leader }
    }

    /// The peer ends. What waits for it is told that nobody knows.
    pub(crate) fn end<A>(&mut self, out: &mut Vec<Output<A>>) {
        let region = self.region_id();
        for token in std::mem::take(&mut self.proposals).into_values() {
            let reason = format!("the peer of region {region} is gone");
            sometimes!("store: a write's outcome is not known because its peer is gone");
            let error = match mutant!("unknown_outcome_is_refused") {
                true => RegionError::RegionNotFound { region },
                false => RegionError::Undetermined { reason },
            };
            out.push(Output::Reply { token, result: Err(error) });
        }
        let reads = std::mem::take(&mut self.reads).into_values();
        for read in reads.chain(self.reads_at.drain(..).map(|(_, read)| read)) {
            let error = RegionError::RegionNotFound { region };
            out.push(Output::Reply { token: read.token, result: Err(error) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store may have ten thousand idle peers. What they have on the heap beside this is mostly the region: its bounds
    /// and members, twice, and a leader's view of each member (112 bytes).
    #[test]
    fn an_idle_peer_is_small() {
        let bytes = size_of::<Peer>();
        println!("{bytes} bytes");
        assert!(bytes <= 2048, "{bytes} bytes");
    }
}
