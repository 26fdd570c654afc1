//! The log as its one writer sees it: groups become durable, segment after segment.

use std::{collections::VecDeque, fmt, sync::Arc};

use super::{
    Result, Ticket,
    format::{self, FRAME_BYTES, Frame, FrameKind, VERSION},
    log::Shared,
    maintenance::Spares,
    pending::Group,
    segments::{Ordinal, SegmentFile, io_error, is_full},
};

/// What makes the log durable and keeps its house. There is one, and it is owned: by the thread of the log, or by
/// whoever has the duty to commit.
pub struct RaftLogWriter {
    pub(super) shared: Arc<Shared>,
    /// The segment that is written to.
    pub(super) open: Option<OpenSegment>,
    /// Full segments that have no footer yet.
    pub(super) full: VecDeque<OpenSegment>,
    pub(super) spares: Spares,
    /// The oldest segment that counts, as the last durable group says it.
    pub(super) durable_oldest: u64,
    buffer: Vec<u8>,
}

/// A segment without a footer.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) ordinal: Ordinal,
    pub(super) name: u64,
    pub(super) capacity: u32,
    pub(super) file: Arc<SegmentFile>,
    /// Where the groups end.
    pub(super) end: u32,
    /// How far the file reaches: what is written beyond has blocks to be found for it, which a sync then waits for.
    pub(super) reach: u32,
    /// The number of the last group.
    pub(super) last_number: u64,
    /// What the footer will hold.
    pub(super) footer: Vec<u8>,
}

/// A write buffer that a large group has grown is given back.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// Segments that may wait for their footers. More only come together if nobody calls `maintain`.
const FULL_MAX: usize = 1;

/// What a file grows by at first; then it doubles, so that a small log stays small.
const GROW_BYTES_MIN: u32 = 64 << 10;

impl RaftLogWriter {
    pub(super) fn new(
        shared: Arc<Shared>,
        open: Option<OpenSegment>,
        spares: Spares,
        durable_oldest: u64,
    ) -> RaftLogWriter {
        RaftLogWriter {
            shared,
            open,
            full: VecDeque::new(),
            spares,
            durable_oldest,
            buffer: Vec::new(),
        }
    }

    /// Makes everything durable that was appended before this call: one write and one sync (and a few more when a
    /// segment is full). Without anything to do it costs nothing.
    ///
    /// # Errors
    /// `Failed`: the log has stopped, for good. What was not durable before may be there after a restart, or not.
    pub fn sync(&mut self) -> Result<Ticket> {
        self.shared.poison.check()?;
        let written = self.write_pending();
        Ok(written.map_err(|error| self.shared.poison.set(error))?)
    }

    /// Writes the groups that wait. The caller poisons the log if it fails.
    pub(super) fn write_pending(&mut self) -> crate::Result<Ticket> {
        let (taken, oldest) = {
            let mut state = self.shared.state();
            (state.pending.take(), state.oldest)
        };
        let groups = taken.groups.len();
        let mut bytes = 0;
        for (written, group) in (1..).zip(taken.groups) {
            bytes += group.size().group();
            // What makes the oldest segments superfluous may be in the last group: no other may say so.
            let oldest = if written == groups { oldest } else { self.durable_oldest };
            self.write_group(group, oldest)?;
            self.durable_oldest = oldest;
        }
        let mut state = self.shared.state();
        let state = &mut *state;
        state.durable = taken.ticket;
        state.pending.bytes -= taken.bytes;
        state.statistics.groups += groups as u64;
        state.statistics.written_bytes += bytes;
        state.index.cache.trim(&mut state.index.regions, taken.ticket);
        Ok(taken.ticket)
    }

    fn write_group(&mut self, group: Group, oldest: u64) -> crate::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.ordinal != group.segment) {
            self.change_segment(&group)?;
        }
        let open = self.open.as_mut().expect("a segment is open");
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.reserve(group.size().group() as usize);
        buffer.resize(FRAME_BYTES, 0);
        for (kind, data) in &group.blob {
            buffer.push(*kind);
            buffer.extend_from_slice(data);
        }
        buffer.extend_from_slice(&group.digest);
        buffer.resize(format::padded(buffer.len() as u64) as usize, 0);
        let frame = Frame {
            kind: FrameKind::Group,
            version: VERSION,
            segment: open.name,
            number: group.number,
            oldest,
            offset: group.offset,
            blob_len: group.blob_len,
            digest_len: group.digest.len() as u32,
            body_crc: 0,
        };
        let (head, body) = buffer.split_at_mut(FRAME_BYTES);
        head.copy_from_slice(&frame.encode(body));

        let end = group.offset + buffer.len() as u32;
        if open.reach < end {
            open.reach = end;
            let more = end.max(GROW_BYTES_MIN).min(self.shared.options.grow_bytes);
            let reach = end.saturating_add(more).min(open.capacity);
            match open.file.write_zeros(u64::from(end), u64::from(reach)) {
                // The group itself may still have room.
                Err(error) if is_full(&error) => {}
                written => {
                    written?;
                    open.reach = reach;
                    self.shared.state().statistics.zeroed_bytes += u64::from(reach - end);
                }
            }
        }
        open.file.write(buffer, u64::from(group.offset))?;
        open.file.sync()?;

        open.end = end;
        open.last_number = group.number;
        format::put_footer_group(&mut open.footer, group.offset, &group.digest);
        if BUFFER_KEPT_BYTES < buffer.capacity() {
            *buffer = Vec::new();
        }
        Ok(())
    }

    /// Goes on to the segment of `group`: a spare if there is one, else a new file that grows.
    fn change_segment(&mut self, group: &Group) -> crate::Result<()> {
        self.full.extend(self.open.take());
        while FULL_MAX < self.full.len() {
            self.finish_oldest_full()?;
        }
        let Group { segment: ordinal, segment_name: name, capacity, .. } = *group;
        let path = self.shared.dir.join(format::segment_file_name(name));
        let spare =
            (capacity == self.shared.options.segment_bytes).then(|| self.spares.take()).flatten();
        if let Some(spare) = &spare {
            let renamed = self.shared.fs.rename(spare, &path);
            renamed.map_err(|error| io_error("rename of a spare", spare, error))?;
        }
        let file = Arc::new(self.shared.open_file(path)?);
        let reach = if spare.is_some() { capacity } else { 0 };
        // Before anything is written: what is found under another name must not have bytes of this segment.
        self.shared.sync_dir()?;
        {
            let mut state = self.shared.state();
            state.index.segments.get_mut(ordinal).file = Some(file.clone());
            state.statistics.spares = self.spares.len();
            state.statistics.spares_used += u64::from(spare.is_some());
        }
        self.open = Some(OpenSegment {
            ordinal,
            name,
            capacity,
            file,
            end: 0,
            reach,
            last_number: 0,
            footer: Vec::new(),
        });
        Ok(())
    }

    /// Writes the footer of the full segment that has waited longest.
    pub(super) fn finish_oldest_full(&mut self) -> crate::Result<()> {
        let Some(full) = self.full.pop_front() else { return Ok(()) };
        let OpenSegment { name, capacity, file, end, last_number, footer: mut bytes, .. } = full;
        let frame = Frame {
            kind: FrameKind::Footer,
            version: VERSION,
            segment: name,
            number: last_number,
            oldest: self.durable_oldest,
            offset: end,
            blob_len: 0,
            digest_len: bytes.len() as u32,
            body_crc: 0,
        };
        let frame = frame.encode(&bytes);
        bytes.extend_from_slice(&frame);
        match file.write(&bytes, u64::from(capacity) - bytes.len() as u64) {
            // Only a start that reads group by group pays for that.
            Err(error) if is_full(&error) => return Ok(()),
            written => written?,
        }
        file.sync()
    }
}

impl fmt::Debug for RaftLogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLogWriter").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}
