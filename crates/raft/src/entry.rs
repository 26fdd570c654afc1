//! What a Raft group remembers: log entries, the hard state beside them, and snapshots in place of a prefix of the log.
//!
//! Indexes begin at 1 and have no gaps; terms never fall along the log. Index 0 and term 0 stand for "before everything".

use bytes::Bytes;

use crate::membership::ConfState;

/// Largest index and largest term that are accepted from anybody: far beyond what a group can reach, and far enough
/// below the end of `u64` that no sum in the core overflows.
pub const NUMBER_MAX: u64 = u64::MAX >> 2;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command of the owner. Without data it is the no-op with which a leader begins its term.
    Normal,
    /// An encoded [`ConfChange`](crate::ConfChange): the owner gives it to
    /// [`Node::apply_conf_change`](crate::Node::apply_conf_change) when it applies the entry.
    ConfChange,
}

/// One entry of the replicated log (Raft paper, figure 2). Index and term together name an entry: two logs that have
/// an entry with the same two numbers are equal up to it (Log Matching).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The term of the leader that created it.
    pub term: u64,
    /// Its place in the log, from 1.
    pub index: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries. The core never looks inside.
    pub data: Bytes,
}

impl Entry {
    /// Bytes that an entry costs beside its data, in messages and in the limits.
    pub const OVERHEAD: usize = 32;

    /// What the entry counts for in limits of messages and windows.
    pub fn cost(&self) -> usize {
        self.data.len() + Entry::OVERHEAD
    }
}

/// What a node must not forget beside its log (Raft paper, figure 2: "persistent state"). `term` and `vote` must be
/// durable before anybody is told of them; `commit` may be lost: it is found again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that the node has seen.
    pub term: u64,
    /// Whom it voted for in that term; 0 is nobody.
    pub vote: u64,
    /// The last index that it knows to be committed.
    pub commit: u64,
}

/// What a snapshot replaces: everything up to `index`, and the members as of there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot covers.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// The members of the group after that entry was applied.
    pub conf: ConfState,
}

/// A state in place of a prefix of the log (thesis, chapter 5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Where in the log it stands.
    pub meta: SnapshotMeta,
    /// The state, or what the owner needs to fetch it. The core never looks inside.
    pub data: Bytes,
}
