//! What is appended and not yet handed to the writer: groups, each with its place on disk.
//!
//! The place of an entry is fixed when it is appended, so that the index never has to be told later. That takes knowing
//! the end of the open segment, and when the next one begins.

use types::Bytes;

use super::{
    Error, Result,
    format::{self, BLOB_ENTRY_BYTES, FOOTER_GROUP_BYTES, FRAME_BYTES},
    log::Ticket,
    segments::{Ordinal, Segment, Segments},
};

/// Most bytes of one batch: offsets in a segment have four bytes, with a margin.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 30;

/// What becomes one write and one sync.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) segment: Ordinal,
    pub(super) segment_name: u64,
    pub(super) capacity: u32,
    /// Where its frame begins.
    pub(super) offset: u32,
    pub(super) number: u64,
    /// Kinds and data of its entries.
    pub(super) blob: Vec<(u8, Bytes)>,
    pub(super) blob_len: u32,
    pub(super) digest: Vec<u8>,
}

impl Group {
    /// Where the next entry of the blob will lie.
    pub(super) fn next_offset(&self) -> u32 {
        self.offset + FRAME_BYTES as u32 + self.blob_len
    }

    /// Adds an entry to the blob.
    pub(super) fn push(&mut self, kind: u8, data: Bytes) {
        self.blob_len += (data.len() + BLOB_ENTRY_BYTES) as u32;
        self.blob.push((kind, data));
    }

    pub(super) fn size(&self) -> Size {
        Size { blob: u64::from(self.blob_len), digest: self.digest.len() as u64 }
    }
}

/// Bytes of a group or of something that is added to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) blob: u64,
    pub(super) digest: u64,
}

impl Size {
    fn plus(self, other: Size) -> Size {
        Size { blob: self.blob + other.blob, digest: self.digest + other.digest }
    }

    /// Bytes of a group of this size.
    pub(super) fn group(self) -> u64 {
        FRAME_BYTES as u64 + format::padded(self.blob + self.digest)
    }

    /// Bytes of such a group in a footer.
    fn footer(self) -> u64 {
        FOOTER_GROUP_BYTES as u64 + self.digest
    }

    /// Bytes of a segment that has nothing but such a group.
    fn segment(self) -> u64 {
        self.group() + self.footer() + FRAME_BYTES as u64
    }
}

/// The end of the open segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) segment: Ordinal,
    pub(super) name: u64,
    pub(super) capacity: u32,
    /// Where the next group begins.
    pub(super) offset: u64,
    /// Bytes of the footer, without its frame, for the groups before.
    pub(super) footer: u64,
}

/// The groups that wait, and where the next ones go.
#[derive(Debug)]
pub(super) struct Pending {
    segment_bytes: u32,
    /// `None`: the next group begins a segment.
    tail: Option<Tail>,
    /// The number of the next group.
    next_number: u64,
    groups: Vec<Group>,
    /// The last of the groups takes more.
    is_open: bool,
    /// Bytes that are appended and not durable.
    pub(super) bytes: usize,
    /// The last append.
    pub(super) ticket: Ticket,
}

/// What the writer takes at once.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) groups: Vec<Group>,
    /// The last append that is in them.
    pub(super) ticket: Ticket,
    pub(super) bytes: usize,
}

impl Pending {
    pub(super) fn new(segment_bytes: u32, tail: Option<Tail>, next_number: u64) -> Pending {
        Pending {
            segment_bytes,
            tail,
            next_number,
            groups: Vec::new(),
            is_open: false,
            bytes: 0,
            ticket: Ticket(0),
        }
    }

    /// Checks that something of this size can be appended at all.
    pub(super) fn check(size: Size) -> Result<()> {
        let bytes = size.segment();
        if BATCH_BYTES_MAX < bytes {
            return Err(Error::TooLarge { what: "a batch", bytes, limit: BATCH_BYTES_MAX });
        }
        Ok(())
    }

    /// The group that takes something of at most this size, which was checked.
    pub(super) fn room(&mut self, size: Size, segments: &mut Segments) -> &mut Group {
        if !self.fits(size) {
            self.close();
            let capacity = u64::from(self.segment_bytes).max(size.segment());
            let capacity = u32::try_from(capacity).expect("a batch has at most 1 GiB");
            let name = self.next_number;
            let segment =
                segments.push(Segment { name, capacity, file: None, held: Default::default() });
            self.tail = Some(Tail { segment, name, capacity, offset: 0, footer: 0 });
        }
        if !self.is_open {
            let Tail { segment, name, capacity, offset, .. } =
                self.tail.expect("there is one that fits");
            self.groups.push(Group {
                segment,
                segment_name: name,
                capacity,
                offset: offset as u32,
                number: self.next_number,
                blob: Vec::new(),
                blob_len: 0,
                digest: Vec::new(),
            });
            self.next_number += 1;
            self.is_open = true;
        }
        self.groups.last_mut().expect("one was pushed")
    }

    /// Whether the open segment has room, also for its footer.
    fn fits(&self, size: Size) -> bool {
        let Some(tail) = &self.tail else { return false };
        let group = self.open_size().unwrap_or_default().plus(size);
        tail.offset + group.group() + tail.footer + group.footer() + FRAME_BYTES as u64
            <= u64::from(tail.capacity)
    }

    fn open_size(&self) -> Option<Size> {
        self.groups.last().filter(|_| self.is_open).map(Group::size)
    }

    /// Nothing more goes into the last group.
    fn close(&mut self) {
        if let (Some(size), Some(tail)) = (self.open_size(), &mut self.tail) {
            tail.offset += size.group();
            tail.footer += size.footer();
        }
        self.is_open = false;
    }

    /// The number of the next group, which names the segment if it begins one.
    pub(super) fn next_name(&self) -> u64 {
        self.next_number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Taken {
        self.close();
        Taken { groups: std::mem::take(&mut self.groups), ticket: self.ticket, bytes: self.bytes }
    }
}
