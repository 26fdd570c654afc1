//! What a node wants done, in four parts that have an order.
//!
//! 1. **Persist**: `snapshot`, then `hard_state` and `entries`, in one batch or in this order. They must be readable in
//!    the [`Storage`](crate::Storage) at once, and durable before [`Node::persisted`](crate::Node::persisted) is told.
//! 2. **Send now**: `messages`, while the disk works.
//! 3. **Send after persist**: `messages_after_persist`, when this Ready and all before it are durable. They promise
//!    something that a crash must not take back: a vote, an entry, a term.
//! 4. **Apply**: `committed`, in order; they are durable here already. `reads` are answered when their index is applied.
//!
//! Readies are numbered from 1; several may be under way. Who loses one, and does not crash, has broken the node.

use crate::entry::{Entry, HardState, Snapshot};
use crate::message::Message;

/// What to do. See the module for the order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The number to give to [`Node::persisted`](crate::Node::persisted).
    pub number: u64,
    /// Part 1: the hard state, if it has changed.
    pub hard_state: Option<HardState>,
    /// Part 1: entries to append; they replace what the storage has from the first of them on.
    pub entries: Vec<Entry>,
    /// Part 1: replaces the whole log and the state of the owner, before the entries are appended.
    pub snapshot: Option<Snapshot>,
    /// Whether part 1 has to be synced. Otherwise it may be lost (a commit index alone is found again, unless a change of the members
    /// rests on it), and the Ready
    /// counts as durable as soon as all before it are.
    pub must_sync: bool,
    /// Part 2: messages that may leave before part 1 is durable.
    pub messages: Vec<Message>,
    /// Part 3: messages that must not.
    pub messages_after_persist: Vec<Message>,
    /// Part 4: entries to apply.
    pub committed: Vec<Entry>,
    /// Part 4: reads that may be answered when their index is applied.
    pub reads: Vec<ReadState>,
    /// The contexts of reads that will not be answered: leadership was lost, or the leader can't tell. Ask again.
    pub reads_refused: Vec<u64>,
    /// The role and the leader, if one of them has changed.
    pub role: Option<RoleState>,
}

/// A read may see the state as soon as everything up to `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// What the caller of [`Node::read_index`](crate::Node::read_index) gave.
    pub context: u64,
    /// What must be applied first.
    pub index: u64,
    /// The term in which that was found out. Who shows entries of a later term may show more than their leader does, who
    /// has not been asked ([`Node::serves_followers`](crate::Node::serves_followers)).
    pub term: u64,
}

/// What a node is at the moment, and whom it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleState {
    /// What it is.
    pub role: RoleKind,
    /// The leader of its term, if it knows one; 0 is nobody.
    pub leader: u64,
}

/// The roles (Raft paper, figure 4; pre-candidates: thesis 9.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win an election.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// How the sending of a snapshot ended, as the owner saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// The follower has it.
    Finished,
    /// It did not arrive.
    Failed,
}
