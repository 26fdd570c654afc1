//! Settings, and what is told about a log.

/// Settings of a raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, the unit in which the log is prepared, recycled and freed. A batch that does not fit gets a
    /// segment of its own size.
    pub segment_bytes: u32,
    /// Most bytes of recent entries that are kept in memory, over all regions. What is not written yet is kept beside
    /// this bound.
    pub cache_bytes: usize,
    /// Above so many bytes in segments the oldest one is emptied: its few live entries are written again, if at least
    /// half of all bytes are dead; else [`Maintenance::pinning`](super::Maintenance) names who holds it.
    pub purge_bytes: u64,
    /// Most segments that are kept ready to be overwritten.
    pub spares_max: usize,
    /// Without one of them a file grows: by so many bytes of zeros beyond what is written, or by less while it is small.
    /// A sync of what lies within the file is cheaper than one that finds room.
    pub grow_bytes: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            cache_bytes: 32 << 20,
            purge_bytes: 512 << 20,
            spares_max: 2,
            grow_bytes: 512 << 10,
        }
    }
}

/// How far a start has come, for people who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Segments that are read.
    pub segments_read: u64,
    /// All segments.
    pub segments: u64,
}

/// What a log did since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Batches appended.
    pub batches: u64,
    /// Entries appended.
    pub entries: u64,
    /// Groups written; each was one write and one sync.
    pub groups: u64,
    /// Bytes of groups written, rewritten entries included.
    pub written_bytes: u64,
    /// Bytes of entries that were written again to free a segment.
    pub rewritten_bytes: u64,
    /// Zeros written to prepare segments.
    pub zeroed_bytes: u64,
    /// Segments that were taken from the spares, instead of growing a new file.
    pub spares_used: u64,
    /// Segments that hold data.
    pub segments: u64,
    /// Segments that are ready to be overwritten.
    pub spares: u64,
    /// Bytes of all these files once they are full.
    pub disk_bytes: u64,
    /// Bytes of entries that are still needed.
    pub live_bytes: u64,
    /// Regions.
    pub regions: u64,
    /// Entries of all regions.
    pub live_entries: u64,
    /// Bytes of recent entries in memory.
    pub cache_bytes: u64,
    /// Entries that were read from files.
    pub entries_read: u64,
}
