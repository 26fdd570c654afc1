//! One disk for both kinds: a log in our spelling, which theirs reads through the translation.
//!
//! It is what the node reads: what is written is there at once. What is durable is a copy that its machine keeps.

use std::cell::Cell;

use raft::{ConfState, Entry, HardState, MemStorage, Snapshot, Storage, StorageError};
use raft_rs::{Error as TheirError, StorageError as TheirStorageError, eraftpb as pb};

use super::values::{conf_to_theirs, entry_to_theirs, hard_state_to_theirs, snapshot_to_theirs};

/// The disk of a node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) log: MemStorage,
    /// How many times a snapshot is not ready yet when it is asked for.
    pub(crate) late_snapshots: Cell<u32>,
}

impl Disk {
    pub(crate) fn new(log: MemStorage) -> Disk {
        Disk { log, late_snapshots: Cell::new(0) }
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> Result<(HardState, ConfState), StorageError> {
        self.log.initial_state()
    }

    fn entries(&self, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        self.log.entries(low, high, max_bytes)
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        self.log.term(index)
    }

    fn first_index(&self) -> u64 {
        self.log.first_index()
    }

    fn last_index(&self) -> u64 {
        self.log.last_index()
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot, StorageError> {
        if let Some(left) = self.late_snapshots.get().checked_sub(1) {
            self.late_snapshots.set(left);
            return Err(StorageError::Unavailable);
        }
        self.log.snapshot(request_index, to)
    }
}

impl raft_rs::Storage for Disk {
    fn initial_state(&self) -> raft_rs::Result<raft_rs::RaftState> {
        let (hard_state, conf) = self.log.initial_state().map_err(to_their_error)?;
        Ok(raft_rs::RaftState::new(hard_state_to_theirs(hard_state), conf_to_theirs(&conf)))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: raft_rs::GetEntriesContext,
    ) -> raft_rs::Result<Vec<pb::Entry>> {
        let max_bytes = max_size.into().map_or(usize::MAX, |max| max as usize);
        let entries = self.log.entries(low, high, max_bytes).map_err(to_their_error)?;
        Ok(entries.iter().map(entry_to_theirs).collect())
    }

    fn term(&self, index: u64) -> raft_rs::Result<u64> {
        self.log.term(index).map_err(to_their_error)
    }

    fn first_index(&self) -> raft_rs::Result<u64> {
        Ok(self.log.first_index())
    }

    fn last_index(&self) -> raft_rs::Result<u64> {
        Ok(self.log.last_index())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft_rs::Result<pb::Snapshot> {
        match Storage::snapshot(self, request_index, to) {
            Ok(snapshot) => Ok(snapshot_to_theirs(&snapshot)),
            Err(_) => Err(TheirError::Store(TheirStorageError::SnapshotTemporarilyUnavailable)),
        }
    }
}

fn to_their_error(error: StorageError) -> TheirError {
    TheirError::Store(match error {
        StorageError::Compacted => TheirStorageError::Compacted,
        StorageError::Unavailable => TheirStorageError::Unavailable,
        StorageError::Failed(why) => TheirStorageError::Other(why.into()),
    })
}
