//! Housekeeping, in bounded steps: footers, spares, and the freeing of what nobody needs.
//!
//! Segments are freed oldest first, so that a record that hides older ones (a removal, a compaction, an overwritten end)
//! outlives them. Before a file goes a durable group has said that it does not count any more: so a start can tell a file
//! that was freed from one that is missing.
//!
//! The oldest segment is emptied by writing again what is still needed of it, but only while at least half of the log is
//! dead. Then each byte that is written again goes with one that is freed, however the regions behave; and the log is
//! hardly larger than `purge_bytes` or twice its live part. That this comes to an end takes counting the live part at
//! what it takes at most (`segments.rs`), and pieces that waste little at the end of a segment.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
    sync::Arc,
};

use types::Bytes;

use super::{
    LogEntry, RaftLogWriter, Result, Ticket,
    format::{self, BLOB_ENTRY_BYTES},
    index::Region,
    log::{Shared, verify},
    pending::Size,
    segments::{Held, Location, Ordinal, RECORD_COST, Segment, SegmentFile, io_error, is_full},
    state::{Rewrite, State},
    writer::OpenSegment,
};

/// What a step of housekeeping came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Whether another step has something to do already now.
    pub more: bool,
    /// Everything up to this ticket is durable: a step may have written what was waiting.
    pub durable: Ticket,
    /// Who keeps the oldest segment from being freed though the log is too large, by bytes, most first; at most
    /// [`PINNING_MAX`](Maintenance::PINNING_MAX). Compacting their logs makes room.
    pub pinning: Vec<Pinning>,
}

impl Maintenance {
    /// Most regions that are named at once.
    pub const PINNING_MAX: usize = 64;
}

/// A region that has live entries in the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// Which one.
    pub region: u64,
    /// How many entries.
    pub entries: u64,
    /// How many bytes, about.
    pub bytes: u64,
}

/// Files that are ready to become segments: of the right size, with any content.
#[derive(Debug, Default)]
pub(super) struct Spares {
    ready: Vec<PathBuf>,
    /// One that is being filled with zeros, and how far it is.
    preparing: Option<(SegmentFile, u64)>,
    next_number: u64,
    /// The disk was full: none is prepared until the next segment is needed.
    refused: bool,
}

impl Spares {
    pub(super) fn new(ready: Vec<PathBuf>, next_number: u64) -> Spares {
        Spares { ready, preparing: None, next_number, refused: false }
    }

    pub(super) fn take(&mut self) -> Option<PathBuf> {
        self.refused = false;
        self.ready.pop()
    }

    pub(super) fn len(&self) -> u64 {
        self.ready.len() as u64
    }

    fn next_path(&mut self, shared: &Shared) -> PathBuf {
        self.next_number += 1;
        shared.dir.join(format::spare_file_name(self.next_number))
    }
}

/// A group for less is hardly worth its frame.
const REWRITE_BYTES_MIN: u64 = 16 << 10;

impl RaftLogWriter {
    /// Does a bounded step of housekeeping, of about `budget_bytes` of I/O: finishes a full segment, prepares the next
    /// one, frees the oldest one or writes again what is still needed of it. To be called after a sync, when nothing
    /// is waiting, and again soon while it says `more`.
    ///
    /// # Errors
    /// `Failed`: as of [`sync`](RaftLogWriter::sync). A full disk is none: then no segment is prepared, and a footer
    /// may be missing.
    pub fn maintain(&mut self, budget_bytes: u64) -> Result<Maintenance> {
        self.shared.poison.check()?;
        let done = self.step(budget_bytes);
        Ok(done.map_err(|error| self.shared.poison.set(error))?)
    }

    fn step(&mut self, budget_bytes: u64) -> crate::Result<Maintenance> {
        match self.next_task() {
            Some(Task::Finish) => self.finish_oldest_full()?,
            Some(Task::Announce) => self.announce()?,
            Some(Task::Free) => self.free()?,
            Some(Task::Prepare) => self.prepare(budget_bytes)?,
            Some(Task::Rewrite) => self.rewrite(budget_bytes)?,
            None => {}
        }
        let more = self.next_task().is_some();
        let state = self.shared.state();
        let pinning = if self.is_too_large(&state) { pinning(&state) } else { Vec::new() };
        Ok(Maintenance { more, durable: state.durable, pinning })
    }

    fn next_task(&self) -> Option<Task> {
        if !self.full.is_empty() {
            return Some(Task::Finish);
        }
        let state = self.shared.state();
        if let Some(front) = self.oldest_sealed(&state) {
            if front.name < self.durable_oldest {
                return Some(Task::Free);
            }
            if front.held.is_empty() {
                return Some(Task::Announce);
            }
        }
        if self.needs_spare() {
            return Some(Task::Prepare);
        }
        let mostly_dead = state.index.segments.live_bytes() <= state.index.segments.capacity() / 2;
        (mostly_dead && self.is_too_large(&state)).then_some(Task::Rewrite)
    }

    /// The oldest segment, if it is finished.
    fn oldest_sealed<'a>(&self, state: &'a State) -> Option<&'a Segment> {
        let (_, front) = state.index.segments.front()?;
        (front.name < self.first_unfinished(state)).then_some(front)
    }

    /// The name of the first segment that has no footer.
    fn first_unfinished(&self, state: &State) -> u64 {
        match self.full.front().or(self.open.as_ref()) {
            Some(segment) => segment.name,
            None => {
                let mut segments = state.index.segments.iter();
                let planned = segments.find(|segment| segment.file.is_none());
                planned.map_or(state.pending.next_name(), |segment| segment.name)
            }
        }
    }

    fn is_too_large(&self, state: &State) -> bool {
        self.shared.options.purge_bytes < state.index.segments.capacity()
            && self.oldest_sealed(state).is_some()
    }

    /// Makes durable which segments count, before those that do not are freed.
    fn announce(&mut self) -> crate::Result<()> {
        {
            let mut state = self.shared.state();
            let state = &mut *state;
            let unfinished = self.first_unfinished(state);
            let segments = &mut state.index.segments;
            let needed = segments.iter().find(|segment| !segment.held.is_empty());
            state.oldest = needed.map_or(unfinished, |segment| segment.name.min(unfinished));
            if state.pending.is_empty() {
                state.pending.room(Size::default(), segments);
            }
        }
        self.write_pending()?;
        Ok(())
    }

    /// Frees the oldest segment, which does not count any more.
    fn free(&mut self) -> crate::Result<()> {
        let freed = self.shared.state().index.segments.pop_front();
        let Some(Segment { capacity, file: Some(file), .. }) = freed else { return Ok(()) };
        let shared = self.shared.clone();
        let options = &shared.options;
        let wanted = capacity == options.segment_bytes
            && self.spares.ready.len() < options.spares_max
            && file.len()? == u64::from(capacity);
        let path = file.path.clone();
        // Whoever reads from the file has a handle. It must not see the bytes of another segment.
        let unread = Arc::into_inner(file).is_some();
        if wanted && unread {
            let spare = self.spares.next_path(&shared);
            let renamed = shared.fs.rename(&path, &spare);
            renamed.map_err(|error| io_error("rename of a segment", &path, error))?;
            self.spares.ready.push(spare);
        } else {
            remove(&shared, &path)?;
        }
        // If a crash brings the old name back, the next start frees it once more; nothing is written to a spare before
        // its next name is certain.
        self.note_spares();
        Ok(())
    }

    fn needs_spare(&self) -> bool {
        let Spares { ready, refused, .. } = &self.spares;
        let half_full = |open: &OpenSegment| open.capacity / 2 <= open.end;
        ready.is_empty()
            && !refused
            && 0 < self.shared.options.spares_max
            && self.open.as_ref().is_some_and(half_full)
    }

    /// Fills a spare with zeros, or goes on with it.
    fn prepare(&mut self, budget_bytes: u64) -> crate::Result<()> {
        let shared = self.shared.clone();
        let (file, done) = match self.spares.preparing.take() {
            Some(preparing) => preparing,
            None => (shared.open_file(self.spares.next_path(&shared))?, 0),
        };
        let size = u64::from(shared.options.segment_bytes);
        let end = size.min(done.saturating_add(budget_bytes.max(1)));
        match file.write_zeros(done, end).and_then(|()| file.sync()) {
            Ok(()) if end < size => self.spares.preparing = Some((file, end)),
            Ok(()) => self.spares.ready.push(file.path),
            Err(error) if is_full(&error) => {
                self.spares.refused = true;
                remove(&shared, &file.path)?;
            }
            Err(error) => return Err(error),
        }
        self.shared.state().statistics.zeroed_bytes += end - done;
        self.note_spares();
        Ok(())
    }

    fn note_spares(&self) {
        self.shared.state().statistics.spares = self.spares.len();
    }

    /// Writes again what is needed of the oldest segment.
    fn rewrite(&mut self, budget_bytes: u64) -> crate::Result<()> {
        let piece_max = u64::from(self.shared.options.segment_bytes) / 4;
        let budget = budget_bytes.clamp(REWRITE_BYTES_MIN.min(piece_max), piece_max);
        let (ordinal, file, wanted) = {
            let state = self.shared.state();
            let Some((ordinal, segment)) = state.index.segments.front() else { return Ok(()) };
            let Some(file) = segment.file.clone() else { return Ok(()) };
            (ordinal, file, wanted(&state, ordinal, segment, budget))
        };
        let mut read = Vec::with_capacity(wanted.len());
        for (region, entries) in wanted {
            let entries = entries.into_iter().map(|entry| read_entry(&file, region, entry));
            read.push((region, entries.collect::<crate::Result<Vec<Rewrite>>>()?));
        }
        // Else it counts as a reader when the segment is freed.
        drop(file);
        let relocations: Vec<_> = {
            let mut state = self.shared.state();
            let rewrite = |(region, entries)| state.rewrite(ordinal, region, entries);
            read.into_iter().flat_map(rewrite).collect()
        };
        self.write_pending()?;
        let mut state = self.shared.state();
        for moved in relocations {
            state.index.relocate(moved.region, moved.index, &moved.old, moved.new);
        }
        Ok(())
    }
}

/// What there is to do, the most urgent first.
enum Task {
    /// Write a footer.
    Finish,
    /// Say durably that the oldest segment does not count.
    Announce,
    /// Free it.
    Free,
    /// Fill a spare with zeros.
    Prepare,
    /// Empty the oldest segment.
    Rewrite,
}

fn pinning(state: &State) -> Vec<Pinning> {
    let Some((_, segment)) = state.index.segments.front() else { return Vec::new() };
    let mut pinning: Vec<Pinning> = segment
        .held
        .iter()
        .filter(|(_, held)| 0 < held.entries)
        .map(|(&region, &Held { entries, bytes, .. })| Pinning { region, entries, bytes })
        .collect();
    pinning.sort_by_key(|pinning| Reverse(pinning.bytes));
    pinning.truncate(Maintenance::PINNING_MAX);
    pinning
}

/// The entries that regions need of a segment, region by region, of about `budget` bytes together.
fn wanted(
    state: &State,
    ordinal: Ordinal,
    segment: &Segment,
    mut budget: u64,
) -> Vec<(u64, Vec<(u64, Location)>)> {
    let mut wanted = Vec::new();
    for (&id, held) in &segment.held {
        if budget == 0 && !wanted.is_empty() {
            break;
        }
        budget = budget.saturating_sub(held.records * RECORD_COST);
        let region: &Region = &state.index.regions[&id];
        let there = (region.base.index + 1..)
            .zip(&region.entries)
            .filter(|(_, location)| location.segment == ordinal)
            .take(held.entries as usize);
        let mut entries = Vec::new();
        for (index, location) in there {
            if budget == 0 && !entries.is_empty() {
                break;
            }
            budget = budget.saturating_sub(location.cost());
            entries.push((index, *location));
        }
        wanted.push((id, entries));
    }
    wanted
}

fn read_entry(
    file: &SegmentFile,
    region: u64,
    (index, location): (u64, Location),
) -> crate::Result<Rewrite> {
    let mut bytes = vec![0; BLOB_ENTRY_BYTES + location.len as usize];
    file.read(&mut bytes, u64::from(location.offset))?;
    let data = Bytes::from(bytes);
    let kind = data[0];
    let entry = LogEntry { term: location.term, index, kind, data: data.slice(BLOB_ENTRY_BYTES..) };
    verify(file, region, &entry, &location)?;
    Ok(Rewrite { index, location, kind, data: entry.data })
}

fn remove(shared: &Shared, path: &Path) -> crate::Result<()> {
    let removed = shared.fs.remove(path);
    removed.map_err(|error| io_error("removal of a file of the raft log", path, error))
}
