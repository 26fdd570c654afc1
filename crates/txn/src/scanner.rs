//! Range reads, in both directions.
//!
//! Two cursors go over the range: one over the locks, one over the commit records. The next key is the nearer of
//! both, so that a key that has only a lock is found too.

use std::cmp::Ordering;

use engine::{Family, Iter, Snapshot};
use types::{Bytes, Cf, KeyRange, TimeStamp, codec::DecodeError};

use crate::{
    LastChange,
    error::{Error, KeyError, Result},
    layout::{self, Key},
    lock::Lock,
    read::{KvPair, LockVerdict, Read},
    reader::{current_record, decode_lock, load_value, user_key},
    write::{Write, WriteKind},
};

/// How many steps a cursor goes before it seeks: most keys have few versions, and a step is far cheaper.
const STEPS_BEFORE_SEEK: usize = 8;

/// How to go over a range.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// At most this many items, errors included.
    pub limit: usize,
    /// From the end of the range to its start.
    pub reverse: bool,
    /// Leave the values out. Locks are minded nevertheless.
    pub key_only: bool,
    /// Give only every so many-th pair, beginning with the first; zero and one give all.
    pub sample_step: usize,
    /// Stop when the pairs have so many bytes; the last one may go beyond.
    pub max_bytes: usize,
}

impl ScanOptions {
    /// Forward, with values, every pair, at most `limit`.
    pub fn limit(limit: usize) -> ScanOptions {
        ScanOptions {
            limit,
            reverse: false,
            key_only: false,
            sample_step: 0,
            max_bytes: usize::MAX,
        }
    }
}

impl Read<'_> {
    /// The pairs of the user's keys in `range`, which exist at the version. A key that is locked or in conflict is an
    /// item too.
    pub fn scan(
        &self,
        snapshot: &dyn Snapshot,
        range: &KeyRange,
        options: &ScanOptions,
    ) -> Result<Vec<Result<KvPair, KeyError>>> {
        let mut items = Vec::new();
        if options.limit == 0 || range.is_empty() {
            return Ok(items);
        }
        let mut scanner = Scanner::new(*self, snapshot, range, options)?;
        let (mut pairs, mut bytes) = (0, 0);
        while items.len() < options.limit && bytes < options.max_bytes {
            match scanner.next()? {
                None => break,
                Some(Err(error)) => items.push(Err(error)),
                Some(Ok(pair)) => {
                    if pairs % options.sample_step.max(1) == 0 {
                        bytes += pair.key.len() + pair.value.len();
                        items.push(Ok(pair));
                    }
                    pairs += 1;
                }
            }
        }
        Ok(items)
    }
}

/// A scan under way.
struct Scanner<'a> {
    read: Read<'a>,
    snapshot: &'a dyn Snapshot,
    reverse: bool,
    key_only: bool,
    locks: Box<dyn Iter>,
    records: Box<dyn Iter>,
}

impl<'a> Scanner<'a> {
    fn new(
        read: Read<'a>,
        snapshot: &'a dyn Snapshot,
        range: &KeyRange,
        options: &ScanOptions,
    ) -> Result<Scanner<'a>> {
        let stored = layout::stored_range(range);
        let mut locks = snapshot.iter(Family::Lock, &stored)?;
        let mut records = snapshot.iter(Family::Write, &stored)?;
        if options.reverse {
            locks.seek_to_last()?;
            records.seek_to_last()?;
        } else {
            locks.seek_to_first()?;
            records.seek_to_first()?;
        }
        let (reverse, key_only) = (options.reverse, options.key_only);
        Ok(Scanner { read, snapshot, reverse, key_only, locks, records })
    }

    /// The next pair that exists, or error; `None` at the end.
    fn next(&mut self) -> Result<Option<Result<KvPair, KeyError>>> {
        while let Some((key, has_lock, has_records)) = self.next_key()? {
            let lock = if has_lock { Some(self.take_lock(&key)?) } else { None };
            let item = self.item(&key, lock, has_records);
            if has_records {
                self.leave(&key)?;
            }
            match item {
                Ok(None) => {}
                Ok(Some(value)) => {
                    return Ok(Some(Ok(KvPair { key: key.user().clone(), value })));
                }
                Err(Error::Key(error)) => return Ok(Some(Err(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The key that is nearer, and which of the cursors are at it.
    fn next_key(&self) -> Result<Option<(Key, bool, bool)>> {
        let lock = self.locks.valid().then(|| self.locks.key());
        let record = if self.records.valid() {
            let stored = self.records.key();
            let cut = layout::split_version(stored).ok_or_else(|| Error::Corrupt {
                cf: Cf::Write,
                key: Bytes::copy_from_slice(stored),
                source: DecodeError::Invalid("timestamp behind the key"),
            })?;
            Some(cut.0)
        } else {
            None
        };
        let order = match (lock, record) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(lock), Some(record)) if self.reverse => record.cmp(lock),
            (Some(lock), Some(record)) => lock.cmp(record),
        };
        let (cf, encoded) = match order {
            Ordering::Less | Ordering::Equal => (Cf::Lock, lock),
            Ordering::Greater => (Cf::Write, record),
        };
        let key = user_key(cf, encoded.unwrap_or_default())?;
        Ok(Some((key, order != Ordering::Greater, order != Ordering::Less)))
    }

    /// The lock under the cursor, which moves on.
    fn take_lock(&mut self, key: &Key) -> Result<Lock> {
        let lock = decode_lock(key.encoded(), self.locks.value())?;
        if self.reverse {
            self.locks.prev()?
        } else {
            self.locks.next()?
        };
        Ok(lock)
    }

    /// The value of `key`, or why it can't be read.
    fn item(&mut self, key: &Key, lock: Option<Lock>, has_records: bool) -> Result<Option<Bytes>> {
        if let Some(lock) = lock
            && matches!(self.read.judge(key, &lock)?, LockVerdict::ReadThrough)
        {
            return match lock.write_kind() {
                Some(WriteKind::Put) => self.value(key, lock.short_value, lock.start_ts).map(Some),
                _ => Ok(None),
            };
        }
        if !has_records {
            return Ok(None);
        }
        match self.change(key)? {
            Some(write) if write.kind == WriteKind::Put => {
                self.value(key, write.short_value, write.start_ts).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn value(&self, key: &Key, short: Option<Bytes>, start_ts: TimeStamp) -> Result<Bytes> {
        if self.key_only {
            return Ok(Bytes::new());
        }
        load_value(self.snapshot, key, short, start_ts)
    }

    /// The change of `key` that the read sees. The cursor is at a record of `key`: the newest one, or, in reverse,
    /// the oldest.
    fn change(&mut self, key: &Key) -> Result<Option<Write>> {
        if self.read.checks_for_newer() {
            let found = self.records.seek(&key.at(TimeStamp::MAX))?;
            if let Some((commit_ts, write)) = self.record_of(key, found)?
                && self.read.version < commit_ts
                && write.kind != WriteKind::Rollback
            {
                return Err(self.read.conflict(key, write.start_ts, commit_ts).into());
            }
        }
        let mut found = self.find_version(key)?;
        while let Some((commit_ts, write)) = self.record_of(key, found)? {
            if write.is_change() {
                return Ok(Some(write));
            }
            found = match write.last_change {
                LastChange::None => return Ok(None),
                LastChange::At(ts) if ts < commit_ts => self.records.seek(&key.at(ts))?,
                LastChange::At(_) | LastChange::Unknown => self.records.next()?,
            };
        }
        Ok(None)
    }

    /// Moves the cursor to the newest record of `key` at or below the version.
    fn find_version(&mut self, key: &Key) -> Result<bool> {
        let wanted = key.at(self.read.version);
        if !self.reverse {
            for _ in 0..STEPS_BEFORE_SEEK {
                if !self.records.valid() || self.records.key() >= &wanted[..] {
                    return Ok(self.records.valid());
                }
                self.records.next()?;
            }
        }
        Ok(self.records.seek(&wanted)?)
    }

    /// The record under the cursor, if it is one of `key`.
    fn record_of(&self, key: &Key, found: bool) -> Result<Option<(TimeStamp, Write)>> {
        if !found || !self.records.key().starts_with(key.encoded()) {
            return Ok(None);
        }
        current_record(self.records.as_ref(), found)
    }

    /// Moves the cursor past all records of `key`, in the direction of the scan.
    fn leave(&mut self, key: &Key) -> Result<()> {
        if self.reverse {
            // Every record of the key is behind the bare key, and no record has it.
            self.records.seek_for_prev(key.encoded())?;
            return Ok(());
        }
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.records.valid() || !self.records.key().starts_with(key.encoded()) {
                return Ok(());
            }
            self.records.next()?;
        }
        self.records.seek(&layout::past_versions(key.encoded()))?;
        Ok(())
    }
}
