//! What the write path did since the store was opened.

use types::Histogram;

use crate::commit::Committed;

/// Counters of the write path. Monotonic, except for the depth of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Groups committed.
    pub groups: u64,
    /// Commands in them.
    pub commands: u64,
    /// Bytes of keys and values in them.
    pub bytes: u64,
    /// Syncs done for them.
    pub syncs: u64,
    /// Commands refused because the queue was full or closed.
    pub refused: u64,
    /// Commands that wait at the moment.
    pub waiting: u64,
    /// What they take in memory, roughly.
    pub waiting_bytes: u64,
    /// Groups by their number of commands.
    pub group_sizes: Histogram<16>,
    /// Syncs by their microseconds.
    pub sync_micros: Histogram<24>,
}

impl Statistics {
    pub(crate) fn add(&mut self, committed: Committed) {
        self.groups += 1;
        self.commands += committed.commands as u64;
        self.bytes += committed.bytes as u64;
        self.group_sizes.add(committed.commands as u64);
        if let Some(took) = committed.sync {
            self.syncs += 1;
            self.sync_micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }
}
