//! What the transport has done, counted. Read by [`crate::metrics`].

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Messages that were given to a connection.
    Sent,
    /// The batches that they left in.
    SentBatches,
    /// The bytes of those.
    SentBytes,
    /// Messages that found their queue full.
    DroppedFull,
    /// Messages for a store that was not there.
    DroppedDisconnected,
    /// Messages that can't be sent at all: a bug.
    DroppedInvalid,
    /// Messages that arrived whole.
    Received,
    /// The batches that they came in.
    ReceivedBatches,
    /// The bytes of those.
    ReceivedBytes,
    /// Messages that the store had no room for.
    ReceivedDropped,
    /// Batches and parts of snapshots whose checksum was wrong.
    Damaged,
    /// Streams that were refused: of another cluster, for another store, of another version, or not understood.
    Refused,
    /// Streams to other stores that ended, or could not be begun.
    Disconnects,
    /// Snapshots that arrived at another store.
    SnapshotsSent,
    /// Snapshots that did not.
    SnapshotsNotSent,
    /// Bytes of snapshots that were sent, whole or not.
    SnapshotBytesSent,
    /// Snapshots that arrived here.
    SnapshotsReceived,
    /// Snapshots that did not, or had no place.
    SnapshotsNotReceived,
    /// Bytes of snapshots that arrived here, whole or not.
    SnapshotBytesReceived,
}

/// How many there are.
pub(crate) const COUNTERS: usize = Counter::SnapshotBytesReceived as usize + 1;

/// A number for each [`Counter`].
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; COUNTERS]);

impl Counters {
    /// Adds to a counter.
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        if 0 < count {
            self.0[counter as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// What has been counted so far.
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
