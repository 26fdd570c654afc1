//! The log as its readers and appenders see it.

#![expect(unused_variables, reason = "bodies follow")]
#![expect(clippy::unimplemented, reason = "bodies follow")]

use std::{path::Path, sync::Arc};

use runtime::Fs;
use types::Bytes;

use super::{LogBatch, LogEntry, Options, Progress, RaftLogWriter, Result, Statistics};

/// The number of an append since the log was opened: the first is 1, each later one is greater by one. `Ticket(0)` is
/// what was there when the log was opened, all of it durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Where the log of a region begins and ends: it has the entries `base_index + 1 ..= last_index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The last index that is forgotten; 0 if none is.
    pub base_index: u64,
    /// The term of the entry that was there; 0 if there was none.
    pub base_term: u64,
    /// The last index; `base_index` if the log is empty.
    pub last_index: u64,
}

/// A handle to the log: reads and appends, from any thread. Clones are handles to the same log.
///
/// Nothing here waits for the disk but the reading of entries that are not in memory any more.
#[derive(Clone, Debug)]
pub struct RaftLog {}

impl RaftLog {
    /// What a caller has to count for an entry beside its data when it compares with the `max_bytes` of
    /// [`entries`](RaftLog::entries).
    pub const ENTRY_OVERHEAD: usize = 32;

    /// Opens the log in `dir`, which is created if it is missing. Nothing is written for an empty log. The caller holds
    /// the lock of the data directory. `progress` is called after each segment that was read.
    ///
    /// When this returns everything that is found is durable; a torn end is cut off.
    ///
    /// # Errors
    /// `Failed`: I/O, or damage (with file and offset); an option that makes no sense (`Mismatch`).
    pub fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(RaftLog, RaftLogWriter)> {
        unimplemented!()
    }

    /// Appends a batch: readable when this returns, and durable once [`RaftLogWriter::sync`] has returned this ticket
    /// or a later one. Costs no I/O.
    ///
    /// The caller bounds what waits, by [`pending_bytes`](RaftLog::pending_bytes).
    ///
    /// # Errors
    /// `Gap`, `Compacted` (entries at or below the base), `Unavailable` (compaction beyond the end), `TooLarge`: the
    /// batch makes no sense, nothing of it was taken and the log goes on. `Failed`: the log has stopped.
    pub fn append(&self, batch: LogBatch) -> Result<Ticket> {
        unimplemented!()
    }

    /// The entries `low .. high`, as many as cost at most `max_bytes` together (their data, and
    /// [`ENTRY_OVERHEAD`](RaftLog::ENTRY_OVERHEAD) each), at least one. None if `high <= low`.
    ///
    /// # Errors
    /// `Compacted` if `low` is at or below the base; `Unavailable` if `high - 1` is beyond the last index; `Failed`: a
    /// file could not be read or is damaged.
    pub fn entries(
        &self,
        region: u64,
        low: u64,
        high: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>> {
        unimplemented!()
    }

    /// The term of the entry at `index`, from the base to the last one, both included.
    ///
    /// # Errors
    /// `Compacted` below the base, `Unavailable` beyond the end.
    pub fn term(&self, region: u64, index: u64) -> Result<u64> {
        unimplemented!()
    }

    /// Where the log of a region begins and ends; `None` if the log has nothing of the region.
    pub fn bounds(&self, region: u64) -> Option<Bounds> {
        unimplemented!()
    }

    /// The state that was put last; `None` if there is none.
    pub fn state(&self, region: u64) -> Option<Bytes> {
        unimplemented!()
    }

    /// The regions of which the log has something, in ascending order.
    pub fn regions(&self) -> Vec<u64> {
        unimplemented!()
    }

    /// Bytes that are appended and not durable yet.
    pub fn pending_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Everything up to this ticket is durable.
    pub fn durable(&self) -> Ticket {
        unimplemented!()
    }

    /// What the log did and holds.
    pub fn statistics(&self) -> Statistics {
        unimplemented!()
    }
}
