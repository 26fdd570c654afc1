//! Reads what a segment holds: from its footer, else group by group.
//!
//! A group is written after the sync of the one before has returned. So anything whole behind a bad group proves that
//! the bad one was durable, and is damaged; and so does a segment that begins with a later number. A bad group without
//! such a witness was torn by a crash.

use types::codec::{DecodeError, Reader};

use super::{
    format::{
        self, ALIGNMENT, FRAME_BYTES, FooterGroup, Frame, FrameKind, VERSION, put_footer_group,
    },
    segments::SegmentFile,
};
use crate::{Error, Result};

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Its groups, as a footer has them.
    pub(super) groups: Vec<u8>,
    /// Where they end.
    pub(super) end: u64,
    pub(super) last: Option<LastGroup>,
    /// Bytes behind the end that must not be taken for a group once more.
    pub(super) torn_bytes: u64,
}

/// The last group of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastGroup {
    pub(super) number: u64,
    pub(super) offset: u64,
    /// The oldest segment that counted then.
    pub(super) oldest: u64,
}

impl Contents {
    /// The groups, in order.
    pub(super) fn groups(&self) -> impl Iterator<Item = Result<FooterGroup<'_>, DecodeError>> {
        let mut reader = Reader::new(&self.groups);
        std::iter::from_fn(move || {
            (0 < reader.remaining()).then(|| format::read_footer_group(&mut reader))
        })
    }
}

/// Reads the segment that is called `name`. `next` is the name of the one behind it, if there is one.
///
/// # Errors
/// I/O, damage, a newer format.
pub(super) fn read(file: &SegmentFile, name: u64, next: Option<u64>) -> Result<Contents> {
    let len = file.len()?;
    if u64::from(u32::MAX) < len {
        return Err(file.damaged(0, format!("a segment can't have {len} bytes")));
    }
    let footer = footer_frame(file, name, len)?;
    let Some(next) = next else {
        // A footer is written once the next segment has its name for certain.
        return match footer {
            Some(_) => Err(file.damaged(len, "the segment behind this one is missing")),
            None => Scan::new(file, name, len).run(None),
        };
    };
    // Whoever comes behind knows which group was the last one here.
    let last = next - 1;
    if let Some(frame) = footer
        && frame.number == last
        && let Some(contents) = read_footer(file, len, &frame)?
    {
        return Ok(contents);
    }
    Scan::new(file, name, len).run(Some(last))
}

/// The frame at the end of a file that has a footer.
fn footer_frame(file: &SegmentFile, name: u64, len: u64) -> Result<Option<Frame>> {
    let Some(at) = len.checked_sub(FRAME_BYTES as u64) else { return Ok(None) };
    let mut bytes = [0; FRAME_BYTES];
    file.read(&mut bytes, at)?;
    let Some(frame) = Frame::decode(&bytes) else { return Ok(None) };
    if frame.kind != FrameKind::Footer || frame.segment != name {
        return Ok(None);
    }
    check_version(file, &frame)?;
    let fits = u64::from(frame.offset) + u64::from(frame.digest_len) <= at;
    Ok(Some(frame).filter(|_| fits))
}

/// The footer; `None` if it is not what its frame says: a crash may have torn it, and the groups are there.
fn read_footer(file: &SegmentFile, len: u64, frame: &Frame) -> Result<Option<Contents>> {
    let mut groups = vec![0; frame.digest_len as usize];
    file.read(&mut groups, len - FRAME_BYTES as u64 - u64::from(frame.digest_len))?;
    if crc32c::crc32c_append(frame.body_seed(), &groups) != frame.body_crc {
        return Ok(None);
    }
    let mut contents = Contents { groups, end: u64::from(frame.offset), last: None, torn_bytes: 0 };
    let mut last = None;
    for group in contents.groups() {
        last = Some(group.map_err(|error| file.damaged(len, error))?.offset);
    }
    contents.last = last.map(|offset| LastGroup {
        number: frame.number,
        offset: u64::from(offset),
        oldest: frame.oldest,
    });
    Ok(Some(contents))
}

fn check_version(file: &SegmentFile, frame: &Frame) -> Result<()> {
    if VERSION < frame.version {
        return Err(Error::NewerFormat {
            path: file.path.clone(),
            found: u32::from(frame.version),
            known: u32::from(VERSION),
        });
    }
    Ok(())
}

/// Bytes of a file that are in memory at once.
const WINDOW_BYTES: u64 = 256 << 10;

/// Goes through a segment group by group.
struct Scan<'a> {
    file: &'a SegmentFile,
    name: u64,
    len: u64,
    window: Vec<u8>,
    window_start: u64,
}

/// What lies where a group is expected.
enum Found {
    Group(Frame, Vec<u8>),
    /// Something else, and why it is no group. With the bytes that it claims to have.
    Bad(&'static str, u64),
}

impl<'a> Scan<'a> {
    fn new(file: &'a SegmentFile, name: u64, len: u64) -> Scan<'a> {
        Scan { file, name, len, window: Vec::new(), window_start: 0 }
    }

    /// Reads all groups. `last_number` is that of the last one, if somebody knows.
    fn run(mut self, last_number: Option<u64>) -> Result<Contents> {
        let mut contents = Contents::default();
        let mut number = self.name;
        let (why, claimed) = loop {
            match self.group(contents.end, number)? {
                Found::Group(frame, digest) => {
                    put_footer_group(&mut contents.groups, frame.offset, &digest);
                    let (offset, oldest) = (contents.end, frame.oldest);
                    contents.last = Some(LastGroup { number, offset, oldest });
                    contents.end += FRAME_BYTES as u64 + frame.body_len();
                    number += 1;
                }
                Found::Bad(why, claimed) => break (why, claimed),
            }
        };
        match last_number {
            Some(last) if last + 1 == number => {}
            Some(last) => {
                let detail = format!("{why}, and groups up to {last} were durable here");
                return Err(self.file.damaged(contents.end, detail));
            }
            None => {
                if let Some(witness) = self.group_behind(contents.end + claimed.max(ALIGNMENT))? {
                    let detail = format!("{why}, and a later group lies at offset {witness}");
                    return Err(self.file.damaged(contents.end, detail));
                }
                contents.torn_bytes = self.torn_bytes(contents.end, claimed)?;
            }
        }
        Ok(contents)
    }

    fn group(&mut self, offset: u64, number: u64) -> Result<Found> {
        let Some(frame) = self.frame(offset)? else {
            return Ok(Found::Bad("no frame of a group", 0));
        };
        let end = offset + FRAME_BYTES as u64 + frame.body_len();
        if frame.number != number {
            let found = frame.number;
            let detail = format!("group {found} lies where group {number} is expected");
            return Err(self.file.damaged(offset, detail));
        }
        if self.len < end {
            return Ok(Found::Bad("the group is longer than the file", end - offset));
        }
        let mut crc = frame.body_seed();
        let mut digest = Vec::new();
        let digest_start = offset + FRAME_BYTES as u64 + u64::from(frame.blob_len);
        let digest_end = digest_start + u64::from(frame.digest_len);
        let mut at = offset + FRAME_BYTES as u64;
        while at < end {
            let bytes = self.bytes(at, end - at)?;
            crc = crc32c::crc32c_append(crc, bytes);
            // The part of the digest that lies in this window.
            let within = |place: u64| place.clamp(at, at + bytes.len() as u64) - at;
            let part = within(digest_start) as usize..within(digest_end) as usize;
            digest.extend_from_slice(&bytes[part]);
            at += bytes.len() as u64;
        }
        if crc != frame.body_crc {
            return Ok(Found::Bad("the group does not match its checksum", end - offset));
        }
        Ok(Found::Group(frame, digest))
    }

    /// The frame of a group of this segment that lies at `offset`.
    fn frame(&mut self, offset: u64) -> Result<Option<Frame>> {
        if self.len < offset + FRAME_BYTES as u64 {
            return Ok(None);
        }
        let name = self.name;
        let bytes = self.bytes(offset, FRAME_BYTES as u64)?;
        let frame = Frame::decode(bytes).filter(|frame| {
            frame.kind == FrameKind::Group
                && frame.segment == name
                && u64::from(frame.offset) == offset
        });
        if let Some(frame) = &frame {
            check_version(self.file, frame)?;
        }
        Ok(frame)
    }

    /// Where a group of this segment begins at or behind `from`.
    fn group_behind(&mut self, from: u64) -> Result<Option<u64>> {
        let mut at = from;
        while at + FRAME_BYTES as u64 <= self.len {
            let (places, _) = self.window_from(at)?.as_chunks::<{ ALIGNMENT as usize }>();
            let begins = |place: &[u8; 8]| place.starts_with(FrameKind::Group.magic());
            match places.iter().position(begins) {
                None => at += places.len() as u64 * ALIGNMENT,
                Some(position) => {
                    at += position as u64 * ALIGNMENT;
                    if self.frame(at)?.is_some() {
                        return Ok(Some(at));
                    }
                    at += ALIGNMENT;
                }
            }
        }
        Ok(None)
    }

    /// How many bytes behind `end` to overwrite, so that what is cut off here is never found again.
    fn torn_bytes(&mut self, end: u64, claimed: u64) -> Result<u64> {
        let bytes = claimed.max(FRAME_BYTES as u64).min(self.len - end);
        let mut at = end;
        while at < end + bytes {
            let part = self.bytes(at, end + bytes - at)?;
            if part.iter().any(|byte| *byte != 0) {
                return Ok(bytes);
            }
            at += part.len() as u64;
        }
        Ok(0)
    }

    /// Bytes from `offset` on, as many as are in memory; those of a frame at least, which lie in the file.
    fn window_from(&mut self, offset: u64) -> Result<&[u8]> {
        self.bytes(offset, FRAME_BYTES as u64)?;
        Ok(&self.window[(offset - self.window_start) as usize..])
    }

    /// Bytes from `offset` on: `wanted`, or as many as a window has if that is fewer. They lie in the file.
    fn bytes(&mut self, offset: u64, wanted: u64) -> Result<&[u8]> {
        let wanted = wanted.min(WINDOW_BYTES);
        let window_end = self.window_start + self.window.len() as u64;
        if offset < self.window_start || window_end < offset + wanted {
            self.window.resize(WINDOW_BYTES.min(self.len - offset) as usize, 0);
            self.window_start = offset;
            self.file.read(&mut self.window, offset)?;
        }
        let start = (offset - self.window_start) as usize;
        Ok(&self.window[start..start + wanted as usize])
    }
}
