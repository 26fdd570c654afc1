//! Locks: a transaction under way has a key, and its outcome is to be found at the primary.

use types::{
    Bytes, TimeStamp,
    codec::{DecodeError, Reader, Writer},
};

use crate::{
    LastChange,
    error::LockInfo,
    layout::Key,
    write::{WriteKind, put_short, read_short, read_version},
};

/// The format of what [`Lock::encode`] gives.
const VERSION: u8 = 1;

const HAS_SHORT_VALUE: u8 = 1;
const USES_ASYNC_COMMIT: u8 = 2;
const IS_LOCKED_WITH_CONFLICT: u8 = 4;
const FLAGS: u8 = HAS_SHORT_VALUE | USES_ASYNC_COMMIT | IS_LOCKED_WITH_CONFLICT;

/// What the transaction is going to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Set a value.
    Put,
    /// Remove the key.
    Delete,
    /// Leave the key as it is; other writers conflict nevertheless.
    Lock,
    /// Not said yet: the lock of a pessimistic transaction before its prewrite. Readers do not mind it.
    Pessimistic,
}

/// A record in the column family `lock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What is going to happen.
    pub kind: LockKind,
    /// The user's key whose lock or commit record decides the transaction.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which others may roll the transaction back. Counts on the primary.
    pub ttl: u64,
    /// The value to set, if it is short.
    pub short_value: Option<Bytes>,
    /// For keys of pessimistic transactions: the timestamp as of which the key was locked. Zero: optimistic.
    pub for_update_ts: TimeStamp,
    /// About how many keys the transaction has; resolvers choose their way by it.
    pub txn_size: u64,
    /// The transaction does not commit below this. Zero: nothing is promised.
    pub min_commit_ts: TimeStamp,
    /// The transaction is committed as soon as all its keys are prewritten.
    pub use_async_commit: bool,
    /// With `use_async_commit`, on the primary only: all other keys.
    pub secondaries: Vec<Bytes>,
    /// Transactions that were rolled back on this key at a timestamp at which this one may commit.
    pub rollback_ts: Vec<TimeStamp>,
    /// For kinds that change nothing: the newest version that is a put or a deletion.
    pub last_change: LastChange,
    /// A pessimistic lock that was taken although there was a newer version than the one asked for.
    pub is_locked_with_conflict: bool,
}

impl Lock {
    /// A lock with nothing but what every lock has.
    pub fn new(kind: LockKind, primary: impl Into<Bytes>, start_ts: TimeStamp, ttl: u64) -> Lock {
        Lock {
            kind,
            primary: primary.into(),
            start_ts,
            ttl,
            short_value: None,
            for_update_ts: TimeStamp::ZERO,
            txn_size: 0,
            min_commit_ts: TimeStamp::ZERO,
            use_async_commit: false,
            secondaries: Vec::new(),
            rollback_ts: Vec::new(),
            last_change: LastChange::Unknown,
            is_locked_with_conflict: false,
        }
    }

    /// Whether it is the lock of a pessimistic transaction before its prewrite.
    pub fn is_pessimistic(&self) -> bool {
        self.kind == LockKind::Pessimistic
    }

    /// The kind of the commit record that this lock becomes; none for a pessimistic lock.
    pub fn write_kind(&self) -> Option<WriteKind> {
        match self.kind {
            LockKind::Put => Some(WriteKind::Put),
            LockKind::Delete => Some(WriteKind::Delete),
            LockKind::Lock => Some(WriteKind::Lock),
            LockKind::Pessimistic => None,
        }
    }

    /// The lock as it stands in answers.
    pub fn info(&self, key: &Key) -> LockInfo {
        LockInfo {
            key: key.user().clone(),
            primary: self.primary.clone(),
            start_ts: self.start_ts,
            ttl: self.ttl,
            kind: self.kind,
            txn_size: self.txn_size,
            for_update_ts: self.for_update_ts,
            min_commit_ts: self.min_commit_ts,
            use_async_commit: self.use_async_commit,
            secondaries: self.secondaries.clone(),
        }
    }

    /// The stored form (docs/formats.md).
    pub fn encode(&self) -> Bytes {
        let mut flags = 0;
        if self.short_value.is_some() {
            flags |= HAS_SHORT_VALUE;
        }
        if self.use_async_commit {
            flags |= USES_ASYNC_COMMIT;
        }
        if self.is_locked_with_conflict {
            flags |= IS_LOCKED_WITH_CONFLICT;
        }
        let kind = match self.kind {
            LockKind::Put => 1,
            LockKind::Delete => 2,
            LockKind::Lock => 3,
            LockKind::Pessimistic => 4,
        };
        let mut out = Writer::new();
        out.u8(VERSION).u8(kind).u8(flags).u64(self.start_ts.0).u64(self.ttl);
        out.u64(self.for_update_ts.0).u64(self.txn_size).u64(self.min_commit_ts.0);
        out.bytes(&self.primary);
        put_count(&mut out, self.secondaries.len());
        self.secondaries.iter().for_each(|key| {
            out.bytes(key);
        });
        put_count(&mut out, self.rollback_ts.len());
        self.rollback_ts.iter().for_each(|ts| {
            out.u64(ts.0);
        });
        self.last_change.write(&mut out);
        let mut out = out.finish();
        if let Some(value) = &self.short_value {
            put_short(&mut out, value);
        }
        out.into()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Lock, DecodeError> {
        let mut from = Reader::new(bytes);
        read_version(&mut from, VERSION)?;
        let kind = match from.u8()? {
            1 => LockKind::Put,
            2 => LockKind::Delete,
            3 => LockKind::Lock,
            4 => LockKind::Pessimistic,
            _ => return Err(DecodeError::Invalid("kind of lock")),
        };
        let flags = from.u8()?;
        if flags & !FLAGS != 0 {
            return Err(DecodeError::Invalid("flags of lock"));
        }
        let start_ts = TimeStamp(from.u64()?);
        let ttl = from.u64()?;
        let for_update_ts = TimeStamp(from.u64()?);
        let txn_size = from.u64()?;
        let min_commit_ts = TimeStamp(from.u64()?);
        let primary = from.owned()?;
        let secondaries = (0..from.u32()?).map(|_| from.owned()).collect::<Result<_, _>>()?;
        let rollback_ts =
            (0..from.u32()?).map(|_| from.u64().map(TimeStamp)).collect::<Result<_, _>>()?;
        let last_change = LastChange::read(&mut from)?;
        let short_value =
            if flags & HAS_SHORT_VALUE == 0 { None } else { Some(read_short(&mut from)?) };
        from.finish()?;
        Ok(Lock {
            kind,
            primary,
            start_ts,
            ttl,
            short_value,
            for_update_ts,
            txn_size,
            min_commit_ts,
            use_async_commit: flags & USES_ASYNC_COMMIT != 0,
            secondaries,
            rollback_ts,
            last_change,
            is_locked_with_conflict: flags & IS_LOCKED_WITH_CONFLICT != 0,
        })
    }
}

fn put_count(out: &mut Writer, count: usize) {
    out.u32(u32::try_from(count).expect("a request has fewer keys than 2^32"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Lock {
        Lock {
            short_value: Some("v".into()),
            for_update_ts: TimeStamp(3),
            txn_size: 4,
            min_commit_ts: TimeStamp(5),
            use_async_commit: true,
            secondaries: vec!["s".into(), "".into()],
            rollback_ts: vec![TimeStamp(6)],
            last_change: LastChange::At(TimeStamp(7)),
            is_locked_with_conflict: true,
            ..Lock::new(LockKind::Put, "p", TimeStamp(1), 2)
        }
    }

    fn all() -> Vec<Lock> {
        vec![
            full(),
            Lock::new(LockKind::Delete, "", TimeStamp(u64::MAX), u64::MAX),
            Lock {
                last_change: LastChange::None,
                ..Lock::new(LockKind::Lock, "k", TimeStamp(8), 0)
            },
            Lock::new(LockKind::Pessimistic, "k", TimeStamp(8), 0),
        ]
    }

    #[test]
    fn a_record_comes_back() {
        for lock in all() {
            assert_eq!(Lock::decode(&lock.encode()), Ok(lock));
        }
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_refused() {
        for lock in all() {
            let bytes = lock.encode();
            for cut in 0..bytes.len() {
                assert!(Lock::decode(&bytes[..cut]).is_err(), "{lock:?} cut at {cut}");
            }
            assert!(Lock::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_record_has_its_golden_bytes() {
        assert_eq!(&full().encode()[..], [
            1, 1, 7,
            0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3,
            0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5,
            0, 0, 0, 1, b'p',
            0, 0, 0, 2, 0, 0, 0, 1, b's', 0, 0, 0, 0,
            0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 6,
            2, 0, 0, 0, 0, 0, 0, 0, 7,
            1, b'v',
        ]);
    }

    #[test]
    fn a_newer_version_and_unknown_flags_are_refused() {
        let mut bytes = full().encode().to_vec();
        bytes[0] = 2;
        assert_eq!(Lock::decode(&bytes), Err(DecodeError::Newer { found: 2, known: 1 }));
        bytes[0] = 1;
        bytes[2] = 0x80;
        assert!(Lock::decode(&bytes).is_err());
    }
}
