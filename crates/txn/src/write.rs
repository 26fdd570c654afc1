//! Commit records: what a transaction made of a key, and since when it is visible.

use types::{
    Bytes, TimeStamp,
    codec::{DecodeError, Reader, Writer},
};

use crate::LastChange;

/// The format of what [`Write::encode`] gives.
const VERSION: u8 = 1;

/// A value of at most this many bytes lies in the lock and in the commit record instead of beside them.
pub const SHORT_VALUE_MAX: usize = u8::MAX as usize;

const HAS_SHORT_VALUE: u8 = 1;
const HAS_OVERLAPPED_ROLLBACK: u8 = 2;
const IS_PROTECTED: u8 = 4;
const FLAGS: u8 = HAS_SHORT_VALUE | HAS_OVERLAPPED_ROLLBACK | IS_PROTECTED;

/// What a transaction did with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// It set a value.
    Put,
    /// It removed the key.
    Delete,
    /// It locked the key and left it as it was.
    Lock,
    /// It was rolled back; the record lies at its start timestamp and keeps a late prewrite from succeeding.
    Rollback,
}

/// A record in the column family `write`. Its key has the commit timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What was done.
    pub kind: WriteKind,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// The value, if it is short; else it lies in the column family `default` at `start_ts`. Puts only.
    pub short_value: Option<Bytes>,
    /// The transaction that *started* at the commit timestamp of this record was rolled back. There is one place for
    /// both facts, and a commit is never lost for a rollback.
    pub has_overlapped_rollback: bool,
    /// A rollback that decides its transaction. (None is ever removed before garbage collection.)
    pub is_protected: bool,
    /// For locks: the newest version below that is a put or a deletion.
    pub last_change: LastChange,
}

impl Write {
    /// A record of `kind` without a value.
    pub fn new(kind: WriteKind, start_ts: TimeStamp) -> Write {
        Write {
            kind,
            start_ts,
            short_value: None,
            has_overlapped_rollback: false,
            is_protected: false,
            last_change: LastChange::Unknown,
        }
    }

    /// The record that the transaction `start_ts` is rolled back.
    pub fn rollback(start_ts: TimeStamp, is_protected: bool) -> Write {
        Write { is_protected, ..Write::new(WriteKind::Rollback, start_ts) }
    }

    /// Whether readers see a change here: a put or a deletion.
    pub fn is_change(&self) -> bool {
        matches!(self.kind, WriteKind::Put | WriteKind::Delete)
    }

    /// Whether the record says that the transaction which started at its commit timestamp was rolled back.
    pub fn tells_rollback(&self) -> bool {
        self.kind == WriteKind::Rollback || self.has_overlapped_rollback
    }

    /// The stored form (docs/formats.md).
    pub fn encode(&self) -> Bytes {
        let mut flags = 0;
        if self.short_value.is_some() {
            flags |= HAS_SHORT_VALUE;
        }
        if self.has_overlapped_rollback {
            flags |= HAS_OVERLAPPED_ROLLBACK;
        }
        if self.is_protected {
            flags |= IS_PROTECTED;
        }
        let kind = match self.kind {
            WriteKind::Put => 1,
            WriteKind::Delete => 2,
            WriteKind::Lock => 3,
            WriteKind::Rollback => 4,
        };
        let mut out = Writer::new();
        out.u8(VERSION).u8(kind).u8(flags).u64(self.start_ts.0);
        self.last_change.write(&mut out);
        let mut out = out.finish();
        if let Some(value) = &self.short_value {
            put_short(&mut out, value);
        }
        out.into()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Write, DecodeError> {
        let mut from = Reader::new(bytes);
        read_version(&mut from, VERSION)?;
        let kind = match from.u8()? {
            1 => WriteKind::Put,
            2 => WriteKind::Delete,
            3 => WriteKind::Lock,
            4 => WriteKind::Rollback,
            _ => return Err(DecodeError::Invalid("kind of write")),
        };
        let flags = from.u8()?;
        if flags & !FLAGS != 0 {
            return Err(DecodeError::Invalid("flags of write"));
        }
        let start_ts = TimeStamp(from.u64()?);
        let last_change = LastChange::read(&mut from)?;
        let short_value =
            if flags & HAS_SHORT_VALUE == 0 { None } else { Some(read_short(&mut from)?) };
        from.finish()?;
        Ok(Write {
            kind,
            start_ts,
            short_value,
            has_overlapped_rollback: flags & HAS_OVERLAPPED_ROLLBACK != 0,
            is_protected: flags & IS_PROTECTED != 0,
            last_change,
        })
    }
}

/// Appends a value of at most [`SHORT_VALUE_MAX`] bytes with its length.
pub(crate) fn put_short(out: &mut Vec<u8>, value: &[u8]) {
    out.push(u8::try_from(value.len()).expect("longer values lie in the column family default"));
    out.extend_from_slice(value);
}

/// Counterpart of [`put_short`].
pub(crate) fn read_short(from: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    let len = from.u8()?;
    from.take(usize::from(len)).map(Bytes::copy_from_slice)
}

/// Reads the version of a record and refuses versions that are not known.
pub(crate) fn read_version(from: &mut Reader<'_>, known: u8) -> Result<(), DecodeError> {
    match from.u8()? {
        0 => Err(DecodeError::Invalid("version")),
        found if known < found => {
            Err(DecodeError::Newer { found: u32::from(found), known: u32::from(known) })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Write> {
        vec![
            Write::new(WriteKind::Put, TimeStamp(1)),
            Write {
                short_value: Some("v".into()),
                has_overlapped_rollback: true,
                ..Write::new(WriteKind::Put, TimeStamp(u64::MAX))
            },
            Write { short_value: Some(Bytes::new()), ..Write::new(WriteKind::Put, TimeStamp(3)) },
            Write {
                short_value: Some(vec![7; SHORT_VALUE_MAX].into()),
                ..Write::new(WriteKind::Put, TimeStamp(3))
            },
            Write::new(WriteKind::Delete, TimeStamp(4)),
            Write { last_change: LastChange::None, ..Write::new(WriteKind::Lock, TimeStamp(5)) },
            Write {
                last_change: LastChange::At(TimeStamp(4)),
                ..Write::new(WriteKind::Lock, TimeStamp(5))
            },
            Write::rollback(TimeStamp(6), false),
            Write::rollback(TimeStamp(6), true),
        ]
    }

    #[test]
    fn a_record_comes_back() {
        for write in all() {
            assert_eq!(Write::decode(&write.encode()), Ok(write));
        }
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_refused() {
        for write in all() {
            let bytes = write.encode();
            for cut in 0..bytes.len() {
                assert!(Write::decode(&bytes[..cut]).is_err(), "{write:?} cut at {cut}");
            }
            assert!(Write::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_record_has_its_golden_bytes() {
        let write = Write {
            short_value: Some("v".into()),
            has_overlapped_rollback: true,
            ..Write::new(WriteKind::Put, TimeStamp(0x0102))
        };
        assert_eq!(&write.encode()[..], [1, 1, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 1, b'v']);
        let rollback = Write::rollback(TimeStamp(9), true);
        assert_eq!(&rollback.encode()[..], [1, 4, 4, 0, 0, 0, 0, 0, 0, 0, 9, 0]);
        let lock = Write {
            last_change: LastChange::At(TimeStamp(3)),
            ..Write::new(WriteKind::Lock, TimeStamp(5))
        };
        assert_eq!(
            &lock.encode()[..],
            [1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 0, 0, 0, 3]
        );
    }

    #[test]
    fn a_newer_version_and_unknown_flags_are_refused() {
        let mut bytes = Write::new(WriteKind::Put, TimeStamp(1)).encode().to_vec();
        bytes[0] = 2;
        assert_eq!(Write::decode(&bytes), Err(DecodeError::Newer { found: 2, known: 1 }));
        bytes[0] = 1;
        bytes[2] = 8;
        assert!(Write::decode(&bytes).is_err());
    }
}
