//! What is appended: operations on the logs of many regions.

use types::Bytes;

/// Longest value of [`LogBatch::put_state`]. A raft hard state has some thirty bytes; states lie in memory.
pub const STATE_BYTES_MAX: usize = 64 << 10;

/// One place of a region's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The term of the leader that made it.
    pub term: u64,
    /// Its place.
    pub index: u64,
    /// What the data are; the owner's business.
    pub kind: u8,
    /// The owner's data.
    pub data: Bytes,
}

/// Operations on the logs of many regions, in order. Takes effect as a whole ([`RaftLog::append`](super::RaftLog)), or
/// not at all.
#[derive(Clone, Debug, Default)]
pub struct LogBatch {
    pub(super) operations: Vec<Operation>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Append { region: u64, entries: Vec<LogEntry> },
    PutState { region: u64, state: Bytes },
    CompactTo { region: u64, index: u64 },
    Reset { region: u64, index: u64, term: u64 },
    Remove { region: u64 },
}

impl Operation {
    pub(super) fn region(&self) -> u64 {
        match self {
            Operation::Append { region, .. }
            | Operation::PutState { region, .. }
            | Operation::CompactTo { region, .. }
            | Operation::Reset { region, .. }
            | Operation::Remove { region } => *region,
        }
    }
}

impl LogBatch {
    /// An empty batch.
    pub fn new() -> LogBatch {
        LogBatch::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Appends `entries`, which have consecutive indexes. What the region has from the first of them on is dropped
    /// before. No entries: nothing happens.
    ///
    /// Refused by [`RaftLog::append`](super::RaftLog::append) if the first is not within `base_index + 1 ..=
    /// last_index + 1`.
    pub fn append(&mut self, region: u64, entries: Vec<LogEntry>) -> &mut LogBatch {
        if !entries.is_empty() {
            self.operations.push(Operation::Append { region, entries });
        }
        self
    }

    /// Replaces the small opaque value of the region: its raft hard state and the like. At most [`STATE_BYTES_MAX`].
    pub fn put_state(&mut self, region: u64, state: Bytes) -> &mut LogBatch {
        self.operations.push(Operation::PutState { region, state });
        self
    }

    /// Forgets the entries up to and including `index`, whose index and term become the base. Nothing happens if the
    /// base is there or beyond already.
    ///
    /// Refused by [`RaftLog::append`](super::RaftLog::append) if `index` is beyond the last entry.
    pub fn compact_to(&mut self, region: u64, index: u64) -> &mut LogBatch {
        self.operations.push(Operation::CompactTo { region, index });
        self
    }

    /// Forgets all entries and sets the base: a snapshot takes the place of the log, or a group is created. The state
    /// stays.
    pub fn reset(&mut self, region: u64, index: u64, term: u64) -> &mut LogBatch {
        self.operations.push(Operation::Reset { region, index, term });
        self
    }

    /// Forgets the region: log, base and state.
    pub fn remove(&mut self, region: u64) -> &mut LogBatch {
        self.operations.push(Operation::Remove { region });
        self
    }
}
