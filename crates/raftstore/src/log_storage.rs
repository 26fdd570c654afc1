//! What a region's Raft core reads of its past: the store's log, and what was found in the engine at the start.

use std::cell::{Cell, RefCell};

use engine::raft_log::{self, LogEntry, RaftLog};
use raft::{ConfState, Entry, EntryKind, HardState, Snapshot, StorageError};
use types::{RegionId, marks::mutant};

use crate::{
    error::Error,
    state::{ApplyState, FIRST_TERM, decode_hard_state},
};

/// Kinds of entries in the log.
const NORMAL: u8 = 0;
const CONF_CHANGE: u8 = 1;

/// The log of one region.
#[derive(Debug)]
pub(crate) struct LogStorage {
    region: RegionId,
    log: RaftLog,
    hard_state: HardState,
    conf: ConfState,
    /// The newest snapshot that was made, until the log is compacted beyond it.
    snapshot: RefCell<Option<Snapshot>>,
    /// Somebody needs a snapshot that stands at this index or later.
    wanted: Cell<Option<u64>>,
    /// Somebody has taken the snapshot.
    is_used: Cell<bool>,
}

impl LogStorage {
    /// The log of `region`, whose members are `conf` as of the applied entry `applied`.
    pub(crate) fn open(
        log: RaftLog,
        region: RegionId,
        conf: ConfState,
        applied: u64,
    ) -> Result<LogStorage, Error> {
        let mut hard_state = match log.state(region.0) {
            Some(bytes) => {
                decode_hard_state(&bytes).map_err(|error| Error::damaged(region, error))?
            }
            None => HardState::default(),
        };
        if conf != ConfState::default() {
            hard_state.term = hard_state.term.max(FIRST_TERM);
        }
        // What was applied was committed, though the log may not have heard of it: that alone is never synced.
        if !mutant!("commit_below_what_is_applied") {
            hard_state.commit = hard_state.commit.max(applied);
        }
        let (snapshot, wanted, is_used) = (RefCell::default(), Cell::default(), Cell::default());
        Ok(LogStorage { region, log, hard_state, conf, snapshot, wanted, is_used })
    }

    /// At which index, at least, a snapshot is wanted. Told once.
    pub(crate) fn take_wanted(&self) -> Option<u64> {
        self.wanted.take()
    }

    /// A snapshot was made. Returns where the one stood that it replaces.
    pub(crate) fn keep_snapshot(&self, snapshot: Snapshot) -> Option<ApplyState> {
        self.snapshot.borrow_mut().replace(snapshot).map(|before| stands_at(&before))
    }

    /// Whether there is one.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.borrow().is_some()
    }

    /// Whether somebody has taken it since this was asked.
    pub(crate) fn take_used(&self) -> bool {
        self.is_used.take()
    }

    /// The region has changed: an older snapshot may have keys that are in other regions now, which those who need it
    /// have already. Returns where it stood.
    pub(crate) fn drop_snapshot(&self) -> Option<ApplyState> {
        self.snapshot.borrow_mut().take().map(|before| stands_at(&before))
    }
}

fn stands_at(snapshot: &Snapshot) -> ApplyState {
    ApplyState { index: snapshot.meta.index, term: snapshot.meta.term }
}

/// An entry as it lies in the log.
pub(crate) fn to_log(entry: Entry) -> LogEntry {
    let kind = match entry.kind {
        EntryKind::Normal => NORMAL,
        EntryKind::ConfChange => CONF_CHANGE,
    };
    LogEntry { term: entry.term, index: entry.index, kind, data: entry.data }
}

fn from_log(entry: LogEntry) -> Result<Entry, StorageError> {
    let kind = match entry.kind {
        NORMAL => EntryKind::Normal,
        CONF_CHANGE => EntryKind::ConfChange,
        kind => {
            return Err(StorageError::Failed(format!("entry {} is of kind {kind}", entry.index)));
        }
    };
    Ok(Entry { term: entry.term, index: entry.index, kind, data: entry.data })
}

fn storage_error(error: raft_log::Error) -> StorageError {
    match error {
        raft_log::Error::Compacted { .. } => StorageError::Compacted,
        raft_log::Error::Unavailable { .. } => StorageError::Unavailable,
        other => StorageError::Failed(other.to_string()),
    }
}

impl raft::Storage for LogStorage {
    fn initial_state(&self) -> Result<(HardState, ConfState), StorageError> {
        Ok((self.hard_state, self.conf.clone()))
    }

    fn entries(&self, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let entries =
            self.log.entries(self.region.0, low, high, max_bytes).map_err(storage_error)?;
        entries.into_iter().map(from_log).collect()
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        match self.log.bounds(self.region.0) {
            Some(_) => self.log.term(self.region.0, index).map_err(storage_error),
            None if index == 0 => Ok(0),
            None => Err(StorageError::Unavailable),
        }
    }

    fn first_index(&self) -> u64 {
        self.log.bounds(self.region.0).map_or(0, |bounds| bounds.base_index) + 1
    }

    fn last_index(&self) -> u64 {
        self.log.bounds(self.region.0).map_or(0, |bounds| bounds.last_index)
    }

    /// A snapshot from before `to` was a member is of no use to it: it would not know itself.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot, StorageError> {
        if let Some(snapshot) = &*self.snapshot.borrow()
            && request_index <= snapshot.meta.index
            && snapshot.meta.conf.contains(to)
        {
            self.is_used.set(true);
            return Ok(snapshot.clone());
        }
        self.wanted.set(Some(request_index));
        Err(StorageError::Unavailable)
    }
}
