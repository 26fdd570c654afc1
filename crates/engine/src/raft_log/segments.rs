//! The segments of the log, oldest first, and what in each of them is still needed.
//!
//! In memory a segment goes by its *ordinal*, which is small and counts up since the log was opened; on disk by the
//! number of its first group. A segment of which nothing is needed may be freed once it is the oldest one.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Display,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use runtime::{File, Fs};

use crate::Error;

/// Number of a segment since the log was opened.
pub(super) type Ordinal = u32;

/// Where an entry lies: 24 bytes for each entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: Ordinal,
    /// Where its kind lies; its data follow.
    pub(super) offset: u32,
    /// Bytes of its data.
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) term: u64,
}

impl Location {
    /// What the entry takes on disk at most, in company: its data, and its places in a digest and a footer.
    pub(super) fn cost(&self) -> u64 {
        u64::from(self.len) + ENTRY_COST
    }
}

/// 1 byte in the blob, 37 each in digest and footer, and a share of its group's frame.
const ENTRY_COST: u64 = 96;

/// What a base takes on disk at most, in company; and a state beside itself.
pub(super) const RECORD_COST: u64 = 96;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// The file of a segment. Who reads from it keeps it: a file that is freed meanwhile is not given to the next segment.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

impl SegmentFile {
    /// Opens the file, which is created if it is missing.
    pub(super) fn open(fs: &dyn Fs, path: PathBuf) -> crate::Result<SegmentFile> {
        match fs.open(&path) {
            Ok(file) => Ok(SegmentFile { path, file }),
            Err(error) => Err(io_error("opening of the raft log", &path, error)),
        }
    }

    pub(super) fn read(&self, bytes: &mut [u8], offset: u64) -> crate::Result<()> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|error| io_error("read of the raft log", &self.path, error))
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> crate::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| io_error("write of the raft log", &self.path, error))
    }

    /// Writes zeros from `start` to before `end`.
    pub(super) fn write_zeros(&self, start: u64, end: u64) -> crate::Result<()> {
        let mut at = start;
        while at < end {
            let piece = (end - at).min(ZEROS.len() as u64);
            self.write(&ZEROS[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> crate::Result<()> {
        let synced = self.file.sync();
        synced.map_err(|error| io_error("sync of the raft log", &self.path, error))
    }

    pub(super) fn len(&self) -> crate::Result<u64> {
        let len = self.file.len();
        len.map_err(|error| io_error("read of the raft log", &self.path, error))
    }

    pub(super) fn damaged(&self, offset: u64, detail: impl Display) -> Error {
        Error::Corrupt { path: self.path.clone(), detail: format!("at offset {offset}: {detail}") }
    }
}

pub(super) fn io_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation, path: path.to_owned(), source: Arc::new(source) }
}

/// Whether the disk was full. That harms nobody if nothing depends on the write.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// The number of its first group.
    pub(super) name: u64,
    /// Where its footer ends, at the latest.
    pub(super) capacity: u32,
    /// `None` until its first group is written.
    pub(super) file: Option<Arc<SegmentFile>>,
    /// What is still needed of it, by region.
    pub(super) held: BTreeMap<u64, Held>,
}

/// What a region needs of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) entries: u64,
    /// The base or the state, or both.
    pub(super) records: u64,
    /// What they take at most.
    pub(super) bytes: u64,
}

/// All segments that count.
#[derive(Debug, Default)]
pub(super) struct Segments {
    first: Ordinal,
    list: VecDeque<Segment>,
    live_bytes: u64,
    live_entries: u64,
    capacity: u64,
}

impl Segments {
    pub(super) fn push(&mut self, segment: Segment) -> Ordinal {
        self.capacity += u64::from(segment.capacity);
        self.list.push_back(segment);
        self.first + (self.list.len() - 1) as Ordinal
    }

    pub(super) fn get(&self, ordinal: Ordinal) -> &Segment {
        &self.list[self.position(ordinal)]
    }

    pub(super) fn get_mut(&mut self, ordinal: Ordinal) -> &mut Segment {
        let position = self.position(ordinal);
        &mut self.list[position]
    }

    fn position(&self, ordinal: Ordinal) -> usize {
        (ordinal - self.first) as usize
    }

    /// The oldest segment.
    pub(super) fn front(&self) -> Option<(Ordinal, &Segment)> {
        self.list.front().map(|segment| (self.first, segment))
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    /// Takes the oldest segment out. Nothing is needed of it.
    pub(super) fn pop_front(&mut self) -> Option<Segment> {
        let segment = self.list.pop_front()?;
        assert!(segment.held.is_empty(), "segment {} is still needed", segment.name);
        self.first += 1;
        self.capacity -= u64::from(segment.capacity);
        Some(segment)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of all segments once they are full.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that are still needed, about.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(super) fn live_entries(&self) -> u64 {
        self.live_entries
    }

    /// The region needs these entries.
    pub(super) fn hold_entries(&mut self, region: u64, locations: impl Iterator<Item = Location>) {
        for_each_run(locations, |run| {
            let held = self.get_mut(run.segment).held.entry(region).or_default();
            held.entries += run.entries;
            held.bytes += run.bytes;
            self.live_entries += run.entries;
            self.live_bytes += run.bytes;
        });
    }

    /// The region does not need these entries any more.
    pub(super) fn release_entries(
        &mut self,
        region: u64,
        locations: impl Iterator<Item = Location>,
    ) {
        for_each_run(locations, |Run { segment, entries, bytes }| {
            self.release(region, segment, Held { entries, records: 0, bytes });
            self.live_entries -= entries;
        });
    }

    /// The region needs a base or a state of `bytes`.
    pub(super) fn hold_record(&mut self, region: u64, segment: Ordinal, bytes: u64) {
        let held = self.get_mut(segment).held.entry(region).or_default();
        held.records += 1;
        held.bytes += bytes;
        self.live_bytes += bytes;
    }

    /// The region does not need it any more.
    pub(super) fn release_record(&mut self, region: u64, segment: Ordinal, bytes: u64) {
        self.release(region, segment, Held { entries: 0, records: 1, bytes });
    }

    fn release(&mut self, region: u64, segment: Ordinal, released: Held) {
        self.live_bytes -= released.bytes;
        let segment = self.get_mut(segment);
        let held = segment.held.get_mut(&region).expect("what is released was held");
        held.entries -= released.entries;
        held.records -= released.records;
        held.bytes -= released.bytes;
        if held.entries == 0 && held.records == 0 {
            segment.held.remove(&region);
        }
    }
}

/// Neighbours in a log that lie in the same segment, as most do: one look-up serves all of them.
struct Run {
    segment: Ordinal,
    entries: u64,
    bytes: u64,
}

fn for_each_run(locations: impl Iterator<Item = Location>, mut act: impl FnMut(Run)) {
    let mut run: Option<Run> = None;
    for location in locations {
        match &mut run {
            Some(run) if run.segment == location.segment => {
                run.entries += 1;
                run.bytes += location.cost();
            }
            _ => {
                let next = Run { segment: location.segment, entries: 1, bytes: location.cost() };
                if let Some(run) = run.replace(next) {
                    act(run);
                }
            }
        }
    }
    if let Some(run) = run {
        act(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: u64) -> Segment {
        Segment { name, capacity: 100, file: None, held: BTreeMap::new() }
    }

    fn location(segment: Ordinal) -> Location {
        Location { segment, offset: 0, len: 10, crc: 0, term: 1 }
    }

    #[test]
    fn a_location_has_24_bytes() {
        assert_eq!(size_of::<Location>(), 24);
    }

    #[test]
    fn what_is_held_and_released_adds_up() {
        let mut segments = Segments::default();
        let (one, two) = (segments.push(segment(1)), segments.push(segment(5)));
        segments.hold_entries(7, [one, one, two, two, two].map(location).into_iter());
        segments.hold_record(7, one, RECORD_COST);
        segments.hold_record(8, one, RECORD_COST);
        assert_eq!(segments.live_entries(), 5);
        segments.release_entries(7, [one, one, two].map(location).into_iter());
        assert_eq!(segments.live_entries(), 2);
        assert_eq!(segments.get(one).held[&7], Held { entries: 0, records: 1, bytes: RECORD_COST });
        segments.release_record(7, one, RECORD_COST);
        segments.release_record(8, one, RECORD_COST);
        assert!(segments.front().unwrap().1.held.is_empty());
        assert_eq!(segments.capacity(), 200);
        assert_eq!(segments.pop_front().unwrap().name, 1);
        assert_eq!(segments.front().map(|(ordinal, _)| ordinal), Some(two));
        assert_eq!(segments.live_bytes(), 2 * location(two).cost());
        assert_eq!(segments.push(segment(9)), two + 1);
    }
}
