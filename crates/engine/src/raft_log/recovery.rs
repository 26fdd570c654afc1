//! Opening: what the files hold becomes an index, and all of it durable.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use runtime::Fs;

use super::{
    Options, Progress, RaftLog, RaftLogWriter, Result, Statistics, Ticket,
    cache::Cache,
    format::{self, ALIGNMENT, FileName, parse_file_name},
    index::{Index, Region},
    log::Shared,
    maintenance::Spares,
    pending::{BATCH_BYTES_MAX, Pending, Tail},
    replay::Replay,
    scan::{self, Contents},
    segments::{Ordinal, Segment, SegmentFile, Segments, io_error, is_full},
    state::State,
    writer::OpenSegment,
};
use crate::Error;

/// Smallest segments: room for a few small groups and a footer.
const SEGMENT_BYTES_MIN: u32 = 1024;

/// [`RaftLog::open`].
pub(super) fn open(
    fs: Arc<dyn Fs>,
    dir: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<(RaftLog, RaftLogWriter)> {
    check(options, dir)?;
    let created = fs.create_dir_all(dir);
    created.map_err(|error| io_error("creation of the raft log's folder", dir, error))?;
    let files = Files::list(&*fs, dir)?;
    let mut recovery = Recovery::new(&*fs, dir, &files)?;
    recovery.read_end()?;
    let regions = recovery.replay(progress)?;
    // Nothing has been touched so far. From here on the log is known to be whole.
    recovery.make_durable(options)?;
    recovery.remove_freed()?;
    let spares = keep_spares(&*fs, dir, &files, options)?;
    let (state, open) = recovery.into_state(regions, options)?;
    let oldest = state.oldest;
    let shared = Shared::new(fs, dir.to_owned(), options.clone(), state);
    shared.state().statistics.spares = spares.len();
    let writer = RaftLogWriter::new(shared.clone(), open, spares, oldest);
    Ok((RaftLog::new(shared), writer))
}

fn check(options: &Options, dir: &Path) -> crate::Result<()> {
    let segment_bytes = options.segment_bytes;
    if segment_bytes < SEGMENT_BYTES_MIN || BATCH_BYTES_MAX < u64::from(segment_bytes) {
        let detail = format!(
            "can't have a raft log with segments of {segment_bytes} bytes: choose {SEGMENT_BYTES_MIN} to \
             {BATCH_BYTES_MAX}"
        );
        return Err(Error::Mismatch { path: dir.to_owned(), detail });
    }
    Ok(())
}

/// Our files in the folder, by number, in ascending order.
#[derive(Debug, Default)]
struct Files {
    segments: Vec<u64>,
    spares: Vec<u64>,
}

impl Files {
    fn list(fs: &dyn Fs, dir: &Path) -> crate::Result<Files> {
        let paths = fs
            .list(dir)
            .map_err(|error| io_error("listing of the raft log's folder", dir, error))?;
        let mut files = Files::default();
        for path in paths {
            match path.file_name().and_then(|name| name.to_str()).and_then(parse_file_name) {
                Some(FileName::Segment(name)) => files.segments.push(name),
                Some(FileName::Spare(number)) => files.spares.push(number),
                None => {}
            }
        }
        Ok(files)
    }
}

/// A segment on its way into the index.
struct Found {
    name: u64,
    /// The name of the next one.
    next: Option<u64>,
    file: SegmentFile,
    /// What it holds, if it was read already.
    contents: Option<Contents>,
}

struct Recovery<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    /// All segments, then those that count.
    segments: Vec<Found>,
    /// Segments that do not count any more.
    freed: Vec<SegmentFile>,
}

impl<'a> Recovery<'a> {
    fn new(fs: &'a dyn Fs, dir: &'a Path, files: &Files) -> crate::Result<Recovery<'a>> {
        let mut segments = Vec::with_capacity(files.segments.len());
        for (position, &name) in files.segments.iter().enumerate() {
            let file = SegmentFile::open(fs, dir.join(format::segment_file_name(name)))?;
            let next = files.segments.get(position + 1).copied();
            segments.push(Found { name, next, file, contents: None });
        }
        Ok(Recovery { fs, dir, segments, freed: Vec::new() })
    }

    /// Reads backwards up to the last group, which says where the log begins, and leaves out what lies before.
    fn read_end(&mut self) -> crate::Result<()> {
        let mut oldest = None;
        for found in self.segments.iter_mut().rev() {
            let contents = scan::read(&found.file, found.name, found.next)?;
            let last = contents.last;
            found.contents = Some(contents);
            if let Some(last) = last {
                oldest = Some((last.oldest, last.offset, found.name));
                break;
            }
        }
        let Some(first) = self.segments.first() else { return Ok(()) };
        let Some((oldest, offset, name)) = oldest else {
            // Only the very first segment can have no group and none before it.
            return if first.name == 1 { Ok(()) } else { Err(self.missing(1, first.name)) };
        };
        if name < oldest {
            let said_by = self.segments.iter().find(|found| found.name == name);
            let file = &said_by.expect("it was read").file;
            return Err(file.damaged(offset, format!("segment {oldest} can't be the oldest one")));
        }
        let counts = self.segments.partition_point(|found| found.name < oldest);
        self.freed = self.segments.drain(..counts).map(|found| found.file).collect();
        match self.segments.first() {
            Some(first) if first.name == oldest => Ok(()),
            Some(first) => Err(self.missing(oldest, first.name)),
            None => Err(self.missing(oldest, name)),
        }
    }

    fn missing(&self, from: u64, to: u64) -> Error {
        let detail = format!("groups {from} to {} of the raft log are missing", to - 1);
        Error::Corrupt { path: self.dir.to_owned(), detail }
    }

    fn replay(
        &mut self,
        progress: &mut dyn FnMut(Progress),
    ) -> crate::Result<BTreeMap<u64, Region>> {
        let mut replay = Replay::default();
        let segments = self.segments.len() as u64;
        for (ordinal, found) in (0..).zip(&mut self.segments) {
            let read;
            let contents = match &found.contents {
                Some(contents) => contents,
                None => {
                    read = scan::read(&found.file, found.name, found.next)?;
                    &read
                }
            };
            for group in contents.groups() {
                let group = group.map_err(|error| found.file.damaged(contents.end, error))?;
                let applied = replay.apply(ordinal, &group);
                applied.map_err(|detail| found.file.damaged(u64::from(group.offset), detail))?;
            }
            progress(Progress { segments_read: u64::from(ordinal) + 1, segments });
        }
        replay.finish().map_err(|detail| Error::Corrupt {
            path: self.dir.to_owned(),
            detail: format!("the raft log is not whole: {detail}"),
        })
    }

    /// What was found may lie in the machine's memory alone, if a process was killed or a sync failed before; and only
    /// what is written anew is sure to be written. That concerns the last group, since the others have been followed.
    fn make_durable(&self, options: &Options) -> crate::Result<()> {
        let Some(Found { file, contents: Some(contents), .. }) = self.segments.last() else {
            // A new log. Its folder has to outlive a crash as its files will.
            let parent = self.dir.parent().unwrap_or(Path::new(""));
            let synced = self.fs.sync_dir(parent);
            return synced.map_err(|error| io_error("sync of a folder", parent, error));
        };
        let Contents { end, last, torn_bytes, .. } = contents;
        let mut at = last.map_or(*end, |last| last.offset);
        let mut piece = Vec::new();
        while at < *end {
            piece.resize((end - at).min(COPY_BYTES) as usize, 0);
            file.read(&mut piece, at)?;
            file.write(&piece, at)?;
            at += piece.len() as u64;
        }
        let torn_end = end + torn_bytes;
        while at < torn_end {
            piece.clear();
            piece.resize((torn_end - at).min(COPY_BYTES) as usize, 0);
            file.write(&piece, at)?;
            at += piece.len() as u64;
        }
        let len = file.len()?;
        if len == *end || len < u64::from(options.segment_bytes) {
            // The length of a file that grows may be forgotten as well. A longer one makes it certain; without room for
            // that, the machine has to survive until the next group.
            match file.write(&[0; ALIGNMENT as usize], len) {
                Err(error) if is_full(&error) => {}
                written => written?,
            }
        }
        file.sync()?;
        let synced = self.fs.sync_dir(self.dir);
        synced.map_err(|error| io_error("sync of the raft log's folder", self.dir, error))
    }

    /// Removes what a crash has kept from being freed.
    fn remove_freed(&mut self) -> crate::Result<()> {
        for SegmentFile { path, .. } in self.freed.drain(..) {
            let removed = self.fs.remove(&path);
            removed.map_err(|error| io_error("removal of a segment", &path, error))?;
        }
        Ok(())
    }

    fn into_state(
        self,
        regions: BTreeMap<u64, Region>,
        options: &Options,
    ) -> crate::Result<(State, Option<OpenSegment>)> {
        let oldest = self.segments.first().map_or(1, |first| first.name);
        let mut segments = Segments::default();
        let mut end = End { next_number: 1, tail: None, open: None };
        for Found { name, next, file, contents } in self.segments {
            let len = file.len()?;
            let file = Arc::new(file);
            let mut capacity = len;
            if let (None, Some(contents)) = (next, &contents) {
                // A group in a segment of its own size may have left no more room than for the footer.
                let footer = (contents.groups.len() + format::FRAME_BYTES) as u64;
                capacity = len.max(u64::from(options.segment_bytes)).max(contents.end + footer);
            }
            let capacity = u32::try_from(capacity)
                .map_err(|_| file.damaged(0, format!("a segment can't have {len} bytes")))?;
            let held = BTreeMap::new();
            let ordinal = segments.push(Segment { name, capacity, file: Some(file.clone()), held });
            if let (None, Some(contents)) = (next, contents) {
                end = End::new(ordinal, name, (len as u32, capacity), file, contents);
            }
        }
        let cache = Cache::new(options.cache_bytes);
        let mut index = Index { regions: BTreeMap::new(), segments, cache };
        for (id, region) in regions {
            index.restore(id, region);
        }
        let state = State {
            index,
            pending: Pending::new(options.segment_bytes, end.tail, end.next_number),
            durable: Ticket(0),
            oldest,
            statistics: Statistics::default(),
        };
        Ok((state, end.open))
    }
}

/// Where the log goes on.
struct End {
    next_number: u64,
    tail: Option<Tail>,
    open: Option<OpenSegment>,
}

impl End {
    /// Behind what this segment holds.
    fn new(
        segment: Ordinal,
        name: u64,
        (reach, capacity): (u32, u32),
        file: Arc<SegmentFile>,
        contents: Contents,
    ) -> End {
        let next_number = contents.last.map_or(name, |last| last.number + 1);
        let Contents { groups: footer, end: offset, .. } = contents;
        let tail = Tail { segment, name, capacity, offset, footer: footer.len() as u64 };
        let open = OpenSegment {
            ordinal: segment,
            name,
            capacity,
            file,
            end: offset as u32,
            reach,
            last_number: next_number - 1,
            footer,
        };
        End { next_number, tail: Some(tail), open: Some(open) }
    }
}

/// Spares of the right size; the others go.
fn keep_spares(fs: &dyn Fs, dir: &Path, files: &Files, options: &Options) -> crate::Result<Spares> {
    let mut ready = Vec::new();
    for &number in &files.spares {
        let spare = SegmentFile::open(fs, dir.join(format::spare_file_name(number)))?;
        let fits = spare.len()? == u64::from(options.segment_bytes);
        if fits && ready.len() < options.spares_max {
            ready.push(spare.path);
        } else {
            let removed = fs.remove(&spare.path);
            removed.map_err(|error| io_error("removal of a spare", &spare.path, error))?;
        }
    }
    Ok(Spares::new(ready, files.spares.last().copied().unwrap_or(0)))
}

/// Bytes that are copied at once.
const COPY_BYTES: u64 = 1 << 20;
