//! The bytes of a segment: frames, and the digests in them. docs/formats.md describes them.
//!
//! A segment is a file of groups, one behind the other. A group is a frame, the *blob* (the data of its entries, nothing
//! else), the *digest* (its operations in order, with the sizes and checksums of the data instead of the data), and
//! zeros up to a multiple of eight. The footer of a full segment repeats the digests of its groups and ends, with a
//! frame of its own, where the file ends.
//!
//! A frame names the segment and its place in it, and both are in every checksum: what an earlier use of the file has
//! left never passes for a frame or a body of this one.

use types::codec::{DecodeError, Reader};

/// Bytes of a frame.
pub(super) const FRAME_BYTES: usize = 48;

/// Groups begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;

/// The newest version of frames and digests that is known, and the one that is written.
pub(super) const VERSION: u8 = 1;

/// Bytes of a footer for each group, beside its digest.
pub(super) const FOOTER_GROUP_BYTES: usize = 8;

/// Bytes of a frame that are in the checksum of the body.
const SEED_BYTES: usize = 40;

/// What a frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// A group follows.
    Group,
    /// A footer precedes.
    Footer,
}

impl FrameKind {
    pub(super) fn magic(self) -> &'static [u8; 3] {
        match self {
            FrameKind::Group => b"TLG",
            FrameKind::Footer => b"TLF",
        }
    }
}

/// Says what lies at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) version: u8,
    /// The name of the segment: the number of its first group.
    pub(super) segment: u64,
    /// The number of the group; of a footer, of the last group.
    pub(super) number: u64,
    /// The oldest segment that counts.
    pub(super) oldest: u64,
    /// Where the frame begins; of a footer, where the groups end.
    pub(super) offset: u32,
    /// Bytes of the blob; 0 in a footer.
    pub(super) blob_len: u32,
    /// Bytes of the digest, or of the digests of the footer.
    pub(super) digest_len: u32,
    /// The checksum of the body, set by [`encode`](Frame::encode).
    pub(super) body_crc: u32,
}

impl Frame {
    /// The bytes of the frame in front of (or behind) `body`.
    pub(super) fn encode(&self, body: &[u8]) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        bytes[..SEED_BYTES].copy_from_slice(&self.seed());
        let body_crc = crc32c::crc32c_append(self.body_seed(), body);
        bytes[SEED_BYTES..44].copy_from_slice(&body_crc.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..44]);
        bytes[44..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads a frame of any segment; `None` if this is none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Frame> {
        let mut reader = Reader::new(bytes.get(..FRAME_BYTES)?);
        let magic = reader.take(3).ok()?;
        let kind = [FrameKind::Group, FrameKind::Footer]
            .into_iter()
            .find(|kind| kind.magic().as_slice() == magic)?;
        let crc = crc32c::crc32c(&bytes[..44]);
        if crc.to_be_bytes() != bytes[44..FRAME_BYTES] {
            return None;
        }
        Some(Frame {
            kind,
            version: reader.u8().ok()?,
            segment: reader.u64().ok()?,
            number: reader.u64().ok()?,
            oldest: reader.u64().ok()?,
            offset: reader.u32().ok()?,
            blob_len: reader.u32().ok()?,
            digest_len: reader.u32().ok()?,
            body_crc: reader.u32().ok()?,
        })
    }

    /// The checksum that the body's bytes are added to.
    pub(super) fn body_seed(&self) -> u32 {
        crc32c::crc32c(&self.seed())
    }

    /// Bytes of the body of a group: blob, digest, zeros.
    pub(super) fn body_len(&self) -> u64 {
        padded(u64::from(self.blob_len) + u64::from(self.digest_len))
    }

    fn seed(&self) -> [u8; SEED_BYTES] {
        let mut bytes = [0; SEED_BYTES];
        bytes[..3].copy_from_slice(self.kind.magic());
        bytes[3] = self.version;
        bytes[4..12].copy_from_slice(&self.segment.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.number.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.oldest.to_be_bytes());
        bytes[28..32].copy_from_slice(&self.offset.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.blob_len.to_be_bytes());
        bytes[36..40].copy_from_slice(&self.digest_len.to_be_bytes());
        bytes
    }
}

/// Rounds up to where the next group may begin.
pub(super) fn padded(len: u64) -> u64 {
    len.next_multiple_of(ALIGNMENT)
}

/// The checksum of one entry. It covers whose entry it is, so that no other one passes for it.
pub(super) fn entry_crc(region: u64, index: u64, term: u64, kind: u8, data: &[u8]) -> u32 {
    let mut head = [0; 25];
    head[..8].copy_from_slice(&region.to_be_bytes());
    head[8..16].copy_from_slice(&index.to_be_bytes());
    head[16..24].copy_from_slice(&term.to_be_bytes());
    head[24] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&head), data)
}

/// Bytes of an entry in the blob beside its data: its kind.
pub(super) const BLOB_ENTRY_BYTES: usize = 1;

/// Size of the data and checksum of an entry, as the digest has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryDigest {
    pub(super) len: u32,
    pub(super) crc: u32,
}

const ENTRIES: u8 = 1;
const REWRITTEN: u8 = 2;
const STATE: u8 = 3;
const BASE: u8 = 4;
const RESET: u8 = 5;
const REMOVE: u8 = 6;

/// Bytes of an operation with entries beside their [`ENTRY_DIGEST_BYTES`].
pub(super) const ENTRIES_BYTES: usize = 1 + 8 + 8 + 8 + 4;
/// Bytes of an entry in the digest.
pub(super) const ENTRY_DIGEST_BYTES: usize = 4 + 4;
/// Bytes of a state beside the state.
pub(super) const STATE_BYTES: usize = 1 + 8 + 4;
/// Bytes of an operation that sets a base.
pub(super) const BASE_BYTES: usize = 1 + 8 + 8 + 8;
/// Bytes of the removal of a region.
pub(super) const REMOVE_BYTES: usize = 1 + 8;

/// An operation as the digest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DigestOp<'a> {
    /// Entries of one term from `first` on. They take the place of everything from `first` on.
    Entries { region: u64, first: u64, term: u64, sizes: Sizes<'a> },
    /// Entries of one term from `first` on, which were there already and lie here now.
    Rewritten { region: u64, first: u64, term: u64, sizes: Sizes<'a> },
    /// The state of the region.
    State { region: u64, state: &'a [u8] },
    /// Entries up to `index` are forgotten.
    Base { region: u64, index: u64, term: u64 },
    /// All entries are forgotten.
    Reset { region: u64, index: u64, term: u64 },
    /// The region is forgotten.
    Remove { region: u64 },
}

/// The entries of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes<'a>(&'a [u8]);

impl Sizes<'_> {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = EntryDigest> {
        self.0.as_chunks::<ENTRY_DIGEST_BYTES>().0.iter().map(|&[a, b, c, d, e, f, g, h]| {
            EntryDigest {
                len: u32::from_be_bytes([a, b, c, d]),
                crc: u32::from_be_bytes([e, f, g, h]),
            }
        })
    }
}

/// Appends an operation with entries of one term.
pub(super) fn put_entries(
    out: &mut Vec<u8>,
    origin: Origin,
    region: u64,
    first: u64,
    term: u64,
    entries: impl ExactSizeIterator<Item = EntryDigest>,
) {
    out.push(match origin {
        Origin::New => ENTRIES,
        Origin::Rewritten => REWRITTEN,
    });
    put_u64s(out, [region, first, term]);
    let count = u32::try_from(entries.len()).expect("a batch has less than 4 GiB");
    out.extend_from_slice(&count.to_be_bytes());
    for EntryDigest { len, crc } in entries {
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&crc.to_be_bytes());
    }
}

/// Where entries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From an owner.
    New,
    /// From an older segment, which is to be freed.
    Rewritten,
}

/// Appends a state.
pub(super) fn put_state(out: &mut Vec<u8>, region: u64, state: &[u8]) {
    out.push(STATE);
    put_u64s(out, [region]);
    let len = u32::try_from(state.len()).expect("states are small");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(state);
}

/// Appends a base that keeps what follows it.
pub(super) fn put_base(out: &mut Vec<u8>, region: u64, index: u64, term: u64) {
    out.push(BASE);
    put_u64s(out, [region, index, term]);
}

/// Appends a base behind which nothing follows.
pub(super) fn put_reset(out: &mut Vec<u8>, region: u64, index: u64, term: u64) {
    out.push(RESET);
    put_u64s(out, [region, index, term]);
}

/// Appends the removal of a region.
pub(super) fn put_remove(out: &mut Vec<u8>, region: u64) {
    out.push(REMOVE);
    put_u64s(out, [region]);
}

fn put_u64s<const N: usize>(out: &mut Vec<u8>, values: [u64; N]) {
    for value in values {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Reads the first operation of a digest.
pub(super) fn read_op<'a>(reader: &mut Reader<'a>) -> Result<DigestOp<'a>, DecodeError> {
    let kind = reader.u8()?;
    let region = reader.u64()?;
    Ok(match kind {
        ENTRIES | REWRITTEN => {
            let (first, term, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
            let bytes = (count as usize).checked_mul(ENTRY_DIGEST_BYTES);
            let sizes = Sizes(reader.take(bytes.ok_or(DecodeError::Truncated)?)?);
            if kind == ENTRIES {
                DigestOp::Entries { region, first, term, sizes }
            } else {
                DigestOp::Rewritten { region, first, term, sizes }
            }
        }
        STATE => DigestOp::State { region, state: reader.bytes()? },
        BASE => DigestOp::Base { region, index: reader.u64()?, term: reader.u64()? },
        RESET => DigestOp::Reset { region, index: reader.u64()?, term: reader.u64()? },
        REMOVE => DigestOp::Remove { region },
        _ => return Err(DecodeError::Invalid("operation of a raft log")),
    })
}

/// A group as a footer has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FooterGroup<'a> {
    /// Where its frame begins.
    pub(super) offset: u32,
    pub(super) digest: &'a [u8],
}

/// Appends a group to what a footer holds.
pub(super) fn put_footer_group(out: &mut Vec<u8>, offset: u32, digest: &[u8]) {
    let len = u32::try_from(digest.len()).expect("a batch has less than 4 GiB");
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(digest);
}

/// Reads the first group of what a footer holds.
pub(super) fn read_footer_group<'a>(
    reader: &mut Reader<'a>,
) -> Result<FooterGroup<'a>, DecodeError> {
    Ok(FooterGroup { offset: reader.u32()?, digest: reader.bytes()? })
}

const SEGMENT_SUFFIX: &str = ".log";
const SPARE_SUFFIX: &str = ".spare";

/// The file of the segment whose first group has this number.
pub(super) fn segment_file_name(first_number: u64) -> String {
    format!("{first_number:020}{SEGMENT_SUFFIX}")
}

/// A file that is ready to become a segment.
pub(super) fn spare_file_name(number: u64) -> String {
    format!("{number:020}{SPARE_SUFFIX}")
}

/// What a file name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    /// A segment, by the number of its first group.
    Segment(u64),
    /// A spare.
    Spare(u64),
}

/// Reads a file name; `None` if it is somebody else's.
pub(super) fn parse_file_name(name: &str) -> Option<FileName> {
    let number = |digits: &str| {
        (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())
            .flatten()
    };
    if let Some(digits) = name.strip_suffix(SEGMENT_SUFFIX) {
        number(digits).map(FileName::Segment)
    } else {
        number(name.strip_suffix(SPARE_SUFFIX)?).map(FileName::Spare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            kind: FrameKind::Group,
            version: VERSION,
            segment: 5,
            number: 7,
            oldest: 3,
            offset: 4096,
            blob_len: 9,
            digest_len: 3,
            body_crc: 0,
        }
    }

    #[test]
    fn a_frame_comes_back_and_every_flipped_bit_is_noticed() {
        let bytes = frame().encode(b"a body of groups");
        let read = Frame::decode(&bytes).unwrap();
        assert_eq!(Frame { body_crc: 0, ..read }, frame());
        assert_eq!(read.body_crc, crc32c::crc32c_append(read.body_seed(), b"a body of groups"));
        assert_eq!(read.body_len(), 16);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Frame::decode(&bytes[..47]), None);
    }

    #[test]
    fn a_body_fits_no_other_segment_and_no_other_place() {
        let seeds = [
            frame(),
            Frame { segment: 6, ..frame() },
            Frame { offset: 8, ..frame() },
            Frame { number: 8, ..frame() },
            Frame { kind: FrameKind::Footer, ..frame() },
        ]
        .map(|frame| frame.body_seed());
        for (i, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..i].contains(seed), "{seeds:?}");
        }
    }

    #[test]
    fn a_digest_comes_back_and_every_cut_is_noticed() {
        let mut out = Vec::new();
        let sizes = [EntryDigest { len: 1, crc: 2 }, EntryDigest { len: 3, crc: 4 }];
        put_entries(&mut out, Origin::New, 1, 2, 3, sizes.into_iter());
        put_entries(&mut out, Origin::Rewritten, 1, 2, 3, sizes[..1].iter().copied());
        put_state(&mut out, 4, b"state");
        put_base(&mut out, 5, 6, 7);
        put_reset(&mut out, 8, 9, 10);
        put_remove(&mut out, 11);
        let mut reader = Reader::new(&out);
        let mut ops = Vec::new();
        let mut borders = vec![0];
        while reader.remaining() > 0 {
            ops.push(read_op(&mut reader).unwrap());
            borders.push(out.len() - reader.remaining());
        }
        let DigestOp::Entries { sizes: both, .. } = &ops[0] else { panic!("{:?}", ops[0]) };
        assert_eq!(both.iter().collect::<Vec<_>>(), sizes);
        assert!(matches!(ops[1], DigestOp::Rewritten { region: 1, first: 2, term: 3, .. }));
        assert_eq!(
            ops[2..],
            [
                DigestOp::State { region: 4, state: b"state" },
                DigestOp::Base { region: 5, index: 6, term: 7 },
                DigestOp::Reset { region: 8, index: 9, term: 10 },
                DigestOp::Remove { region: 11 },
            ]
        );
        let lens: Vec<usize> = borders.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(
            lens,
            [
                ENTRIES_BYTES + 2 * ENTRY_DIGEST_BYTES,
                ENTRIES_BYTES + ENTRY_DIGEST_BYTES,
                STATE_BYTES + 5,
                BASE_BYTES,
                BASE_BYTES,
                REMOVE_BYTES
            ]
        );
        for cut in (0..out.len()).filter(|cut| !borders.contains(cut)) {
            let mut reader = Reader::new(&out[..cut]);
            let last = loop {
                if let Err(error) = read_op(&mut reader) {
                    break error;
                }
            };
            assert_eq!(last, DecodeError::Truncated, "cut at {cut}");
        }
        assert!(matches!(read_op(&mut Reader::new(&[9; 9])), Err(DecodeError::Invalid(_))));
    }

    #[test]
    fn file_names_come_back_and_those_of_others_are_left_alone() {
        assert_eq!(segment_file_name(12), "00000000000000000012.log");
        assert_eq!(parse_file_name(&segment_file_name(12)), Some(FileName::Segment(12)));
        assert_eq!(parse_file_name(&spare_file_name(3)), Some(FileName::Spare(3)));
        for name in ["12.log", "LOCK", "0000000000000000001x.log", "00000000000000000012.tmp"] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }
}
