//! How a store's peers are set.

use raft::Config;
use types::StoreId;

use crate::split_check::SplitLimits;

/// The settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The store.
    pub store_id: StoreId,
    /// Those of all cores; id and applied index are each peer's own.
    pub core: Config,
    /// Ticks between two looks at the logs.
    pub log_gc_ticks: u32,
    /// Applied entries beyond which a leader has its region's log compacted.
    pub log_gc_entries: u64,
    /// Bytes of entries beyond which it does so as well, and of which at most so many are kept for a follower.
    pub log_gc_bytes: u64,
    /// Entries that are kept for a follower that is a little behind.
    pub log_gc_spare: u64,
    /// Ticks between two reports of a region that has not changed.
    pub report_ticks: u32,
    /// Ticks of silence after which a member is reported as down.
    pub down_ticks: u64,
    /// Ticks between two looks for regions that have grown.
    pub split_check_ticks: u32,
    /// When a region is too large.
    pub split: SplitLimits,
    /// How many regions are looked at at once; the others wait.
    pub split_checks_max: usize,
    /// How many snapshots are made at once; the others wait.
    pub snapshots_making_max: usize,
    /// How many snapshots are on their way to others at once; the others are tried again.
    pub snapshots_sending_max: usize,
    /// How many snapshots are being installed at once. More are refused, and come again.
    pub snapshots_receiving_max: usize,
    /// Ticks for which a snapshot is kept that nobody asks for, and before one that could not be made is tried again.
    pub snapshot_ticks: u64,
    /// Ticks without a leader after which a peer asks whether it is a member still.
    pub stale_ticks: u32,
    /// Ticks between two comparisons of the replicas of a region; 0: only on request.
    pub check_hash_ticks: u64,
    /// Ticks without traffic after which a region sleeps; 0: never.
    pub sleep_ticks: u32,
    /// Ticks between two pings of stores that have sleeping regions in common.
    pub ping_ticks: u64,
    /// Ticks of silence of a store after which the sleeping regions wake that it leads.
    pub silence_ticks: u64,
    /// Ticks after which a sleeping follower looks whether it still has a leader.
    pub doze_ticks: u64,
    /// Messages that are kept for regions that a split is going to make here.
    pub early_messages_max: usize,
}

impl StoreConfig {
    /// The usual settings (design of time: ticks of 100 ms).
    pub fn new(store_id: StoreId) -> StoreConfig {
        StoreConfig {
            store_id,
            core: Config { lazy_commit: true, ..Config::new(1) },
            log_gc_ticks: 30,
            log_gc_entries: 73_000,
            log_gc_bytes: 72 << 20,
            log_gc_spare: 73_000,
            report_ticks: 600,
            down_ticks: 300,
            split_check_ticks: 100,
            split: SplitLimits::default(),
            split_checks_max: 8,
            snapshots_making_max: 4,
            snapshots_sending_max: 4,
            snapshots_receiving_max: 4,
            snapshot_ticks: 100,
            stale_ticks: 32,
            check_hash_ticks: 0,
            sleep_ticks: 24,
            ping_ticks: 2,
            silence_ticks: 8,
            doze_ticks: 6000,
            early_messages_max: 256,
        }
    }
}
