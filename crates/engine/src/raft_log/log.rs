//! The log as its readers and appenders see it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::Fs;
use types::Bytes;

use super::{
    LogBatch, LogEntry, Options, Progress, RaftLogWriter, Result, Statistics,
    format::{self, BLOB_ENTRY_BYTES},
    index::Region,
    recovery,
    segments::{Location, SegmentFile, io_error},
    state::{Prepared, State},
};
use crate::poison::Poison;

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
#[derive(Clone)]
pub struct RaftLog {
    shared: Arc<Shared>,
}

/// What handles and the writer share.
pub(super) struct Shared {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) poison: Poison,
    /// Held for moments only, never over I/O.
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        options: Options,
        state: State,
    ) -> Arc<Shared> {
        Arc::new(Shared { fs, dir, options, poison: Poison::default(), state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_file(&self, path: PathBuf) -> crate::Result<SegmentFile> {
        SegmentFile::open(&*self.fs, path)
    }

    pub(super) fn sync_dir(&self) -> crate::Result<()> {
        let synced = self.fs.sync_dir(&self.dir);
        synced.map_err(|error| io_error("sync of the raft log's folder", &self.dir, error))
    }
}

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
        recovery::open(fs, dir, options, progress)
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
        let batch = Prepared::new(batch.operations);
        let mut state = self.shared.state();
        // Under the lock: no append is taken after the writer has failed.
        self.shared.poison.check()?;
        state.append(batch)
    }

    /// The entries `low .. high`, as many as cost at most `max_bytes` together (their data, and
    /// [`ENTRY_OVERHEAD`](RaftLog::ENTRY_OVERHEAD) each), at least one. None if `high <= low`.
    ///
    /// # Errors
    /// `Compacted` if `low` is at or below the base; `Unavailable` if `high - 1` is beyond the last index; `Failed`: a
    /// file could not be read or is damaged, and the log has stopped.
    pub fn entries(
        &self,
        region: u64,
        low: u64,
        high: u64,
        max_bytes: usize,
    ) -> Result<Vec<LogEntry>> {
        self.shared.poison.check()?;
        if high <= low {
            return Ok(Vec::new());
        }
        let (mut entries, reads) = {
            let mut state = self.shared.state();
            let region_log = state.index.find(region, &(low..high))?;
            let (entries, missing) = in_memory(region_log, low, high, max_bytes);
            let reads = plan(&missing, |location| {
                let file = state.index.segments.get(location.segment).file.clone();
                file.expect("what is not in memory is written")
            });
            state.statistics.entries_read += missing.len() as u64;
            (entries, reads)
        };
        for read in &reads {
            let done = read.perform(region, &mut entries);
            // As with an engine: what can't be read stops the log.
            done.map_err(|error| self.shared.poison.set(error))?;
        }
        Ok(entries)
    }

    /// The term of the entry at `index`, from the base to the last one, both included.
    ///
    /// # Errors
    /// `Compacted` below the base, `Unavailable` beyond the end.
    pub fn term(&self, region: u64, index: u64) -> Result<u64> {
        let state = self.shared.state();
        let Bounds { base_index, base_term, .. } = state.index.bounds(region);
        if index == base_index {
            return Ok(base_term);
        }
        let known = state.index.find(region, &(index..index.saturating_add(1)))?;
        Ok(known.location(index).expect("the index was found").term)
    }

    /// Where the log of a region begins and ends; `None` if the log has nothing of the region.
    pub fn bounds(&self, region: u64) -> Option<Bounds> {
        self.shared.state().index.regions.get(&region).map(Region::bounds)
    }

    /// The bytes of the data of a region's entries.
    pub fn bytes(&self, region: u64) -> u64 {
        self.shared.state().index.regions.get(&region).map_or(0, Region::bytes)
    }

    /// The last entry before those at the end of a region's log whose data have `bytes` together, at most: up to there
    /// the log is compacted so that so much is left. Looks at all that is left.
    pub fn before_last(&self, region: u64, bytes: u64) -> u64 {
        let state = self.shared.state();
        state.index.regions.get(&region).map_or(0, |region| region.before_last(bytes))
    }

    /// The state that was put last; `None` if there is none.
    pub fn state(&self, region: u64) -> Option<Bytes> {
        let state = self.shared.state();
        state.index.regions.get(&region)?.state.as_ref().map(|state| state.value.clone())
    }

    /// The regions of which the log has something, in ascending order.
    pub fn regions(&self) -> Vec<u64> {
        self.shared.state().index.regions.keys().copied().collect()
    }

    /// Bytes that are appended and not durable yet.
    pub fn pending_bytes(&self) -> usize {
        self.shared.state().pending.bytes
    }

    /// Everything up to this ticket is durable.
    pub fn durable(&self) -> Ticket {
        self.shared.state().durable
    }

    /// What the log did and holds.
    pub fn statistics(&self) -> Statistics {
        let state = self.shared.state();
        let segments = &state.index.segments;
        Statistics {
            segments: segments.len() as u64,
            disk_bytes: segments.capacity()
                + state.statistics.spares * u64::from(self.shared.options.segment_bytes),
            live_bytes: segments.live_bytes(),
            regions: state.index.regions.len() as u64,
            live_entries: segments.live_entries(),
            cache_bytes: state.index.cache.bytes() as u64,
            ..state.statistics
        }
    }
}

impl RaftLog {
    pub(super) fn new(shared: Arc<Shared>) -> RaftLog {
        RaftLog { shared }
    }
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

/// An entry whose data have to be read.
struct Missing {
    /// Which of the entries of the answer.
    position: usize,
    location: Location,
}

/// The entries from `low` on that cost at most `max_bytes`, without the data of those that are not in memory.
fn in_memory(
    region: &Region,
    low: u64,
    high: u64,
    max_bytes: usize,
) -> (Vec<LogEntry>, Vec<Missing>) {
    let mut entries = Vec::new();
    let mut missing = Vec::new();
    let mut cost = 0_usize;
    for index in low..high {
        let location = *region.location(index).expect("the range was found");
        cost = cost.saturating_add(location.len as usize + RaftLog::ENTRY_OVERHEAD);
        if max_bytes < cost && !entries.is_empty() {
            break;
        }
        let (kind, data) = match region.recent(index) {
            Some(recent) => (recent.kind, recent.data.clone()),
            None => {
                missing.push(Missing { position: entries.len(), location });
                (0, Bytes::new())
            }
        };
        entries.push(LogEntry { term: location.term, index, kind, data });
    }
    (entries, missing)
}

/// One read of entries that lie side by side.
struct Read {
    file: Arc<SegmentFile>,
    /// Which of the entries of the answer.
    first: usize,
    locations: Vec<Location>,
}

/// Which reads it takes to have what is missing.
fn plan(missing: &[Missing], file: impl Fn(&Location) -> Arc<SegmentFile>) -> Vec<Read> {
    let side_by_side = |a: &Missing, b: &Missing| {
        a.position + 1 == b.position
            && a.location.segment == b.location.segment
            && end(&a.location) == u64::from(b.location.offset)
    };
    missing
        .chunk_by(side_by_side)
        .map(|run| Read {
            file: file(&run[0].location),
            first: run[0].position,
            locations: run.iter().map(|missing| missing.location).collect(),
        })
        .collect()
}

fn end(location: &Location) -> u64 {
    u64::from(location.offset) + (BLOB_ENTRY_BYTES as u64) + u64::from(location.len)
}

impl Read {
    /// Reads, verifies each entry, and fills in what was missing.
    fn perform(&self, region: u64, entries: &mut [LogEntry]) -> crate::Result<()> {
        let start = u64::from(self.locations[0].offset);
        let last = self.locations.last().expect("a read has at least one entry");
        let mut bytes = vec![0; (end(last) - start) as usize];
        self.file.read(&mut bytes, start)?;
        let mut rest = Bytes::from(bytes);
        for (location, entry) in self.locations.iter().zip(&mut entries[self.first..]) {
            let mut data = rest.split_to(BLOB_ENTRY_BYTES + location.len as usize);
            entry.kind = data.split_to(BLOB_ENTRY_BYTES)[0];
            entry.data = data;
            verify(&self.file, region, entry, location)?;
        }
        Ok(())
    }
}

/// Checks an entry that was read against the checksum that the index has of it.
pub(super) fn verify(
    file: &SegmentFile,
    region: u64,
    entry: &LogEntry,
    location: &Location,
) -> crate::Result<()> {
    let LogEntry { term, index, kind, data } = entry;
    if format::entry_crc(region, *index, *term, *kind, data) == location.crc {
        return Ok(());
    }
    let detail = format!("entry {index} of region {region} does not match its checksum");
    Err(file.damaged(u64::from(location.offset), &detail))
}
