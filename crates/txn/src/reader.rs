//! Point reads: the lock of a key, its records, its values.

use engine::{Family, Iter, Snapshot};
use types::{Bytes, Cf, TimeStamp, codec::DecodeError};

use crate::{
    LastChange,
    error::{Error, Result},
    layout::{self, Key},
    lock::Lock,
    write::{Write, WriteKind},
};

/// What the records of a key say about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnRecord {
    /// Nothing.
    None {
        /// The record of *another* transaction that was committed at the very timestamp at which this one started: a
        /// rollback of this one has to go into it.
        overlapped: Option<Write>,
    },
    /// Its own record: of its commit, or of its rollback.
    Own {
        /// Where it lies.
        commit_ts: TimeStamp,
        /// What it says.
        write: Write,
    },
    /// Another transaction's record says that this one was rolled back.
    OverlappedRollback,
}

impl TxnRecord {
    /// When the transaction was committed, if it was.
    pub fn commit_ts(&self) -> Option<TimeStamp> {
        match self {
            TxnRecord::Own { commit_ts, write } if write.kind != WriteKind::Rollback => {
                Some(*commit_ts)
            }
            _ => None,
        }
    }

    /// Whether the transaction was rolled back.
    pub fn is_rollback(&self) -> bool {
        match self {
            TxnRecord::OverlappedRollback => true,
            TxnRecord::Own { write, .. } => write.kind == WriteKind::Rollback,
            TxnRecord::None { .. } => false,
        }
    }
}

/// Reads keys of a snapshot, one after the other. Takes no notice of locks unless it is asked for them.
pub struct Reader<'a> {
    snapshot: &'a dyn Snapshot,
    /// The records of the key that was read last.
    records: Option<(Bytes, Box<dyn Iter>)>,
}

impl<'a> Reader<'a> {
    /// A reader of `snapshot`.
    pub fn new(snapshot: &'a dyn Snapshot) -> Reader<'a> {
        Reader { snapshot, records: None }
    }

    /// The lock of `key`.
    pub fn load_lock(&self, key: &Key) -> Result<Option<Lock>> {
        match self.snapshot.get(Family::Lock, key.encoded())? {
            None => Ok(None),
            Some(bytes) => decode_lock(key.encoded(), &bytes).map(Some),
        }
    }

    /// The newest record of `key` whose commit timestamp is at most `ts`, of whatever kind.
    pub fn seek_write(&mut self, key: &Key, ts: TimeStamp) -> Result<Option<(TimeStamp, Write)>> {
        let records = self.records(key)?;
        let found = records.seek(&key.at(ts))?;
        current_record(records.as_ref(), found)
    }

    /// The record that a reader at `ts` sees: the newest put or deletion that was committed at or before `ts`.
    pub fn change_at(&mut self, key: &Key, ts: TimeStamp) -> Result<Option<(TimeStamp, Write)>> {
        let records = self.records(key)?;
        let mut found = records.seek(&key.at(ts))?;
        while let Some((commit_ts, write)) = current_record(records.as_ref(), found)? {
            if write.is_change() {
                return Ok(Some((commit_ts, write)));
            }
            found = match write.last_change {
                LastChange::None => return Ok(None),
                LastChange::At(ts) if ts < commit_ts => records.seek(&key.at(ts))?,
                LastChange::At(_) | LastChange::Unknown => records.next()?,
            };
        }
        Ok(None)
    }

    /// The value of `key` for a reader at `ts`, who has seen to its lock.
    pub fn get(&mut self, key: &Key, ts: TimeStamp) -> Result<Option<Bytes>> {
        match self.change_at(key, ts)? {
            Some((_, write)) if write.kind == WriteKind::Put => self.value(key, write).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether `key` exists for a reader at `ts`.
    pub fn exists(&mut self, key: &Key, ts: TimeStamp) -> Result<bool> {
        Ok(self.change_at(key, ts)?.is_some_and(|(_, write)| write.kind == WriteKind::Put))
    }

    /// The newest change of `key`, as a record above it remembers it.
    pub fn last_change(&mut self, key: &Key) -> Result<LastChange> {
        Ok(match self.change_at(key, TimeStamp::MAX)? {
            Some((commit_ts, _)) => LastChange::At(commit_ts),
            None => LastChange::None,
        })
    }

    /// What the records of `key` say about the transaction `start_ts`.
    pub fn txn_record(&mut self, key: &Key, start_ts: TimeStamp) -> Result<TxnRecord> {
        let records = self.records(key)?;
        let mut found = records.seek(&key.at(TimeStamp::MAX))?;
        while let Some((commit_ts, write)) = current_record(records.as_ref(), found)? {
            if write.start_ts == start_ts {
                return Ok(TxnRecord::Own { commit_ts, write });
            }
            if commit_ts == start_ts {
                return Ok(if write.has_overlapped_rollback {
                    TxnRecord::OverlappedRollback
                } else {
                    TxnRecord::None { overlapped: Some(write) }
                });
            }
            if commit_ts < start_ts {
                break;
            }
            found = records.next()?;
        }
        Ok(TxnRecord::None { overlapped: None })
    }

    /// The value that a put wrote.
    pub fn value(&self, key: &Key, put: Write) -> Result<Bytes> {
        load_value(self.snapshot, key, put.short_value, put.start_ts)
    }

    /// The value that a lock is going to set; `None` if it is going to remove the key.
    ///
    /// The lock is a put or a deletion.
    pub fn value_of_lock(&self, key: &Key, lock: Lock) -> Result<Option<Bytes>> {
        match lock.write_kind() {
            Some(WriteKind::Put) => {
                load_value(self.snapshot, key, lock.short_value, lock.start_ts).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A cursor over the records of `key`.
    fn records(&mut self, key: &Key) -> Result<&mut Box<dyn Iter>> {
        let records = match self.records.take() {
            Some(records) if records.0 == key.encoded() => records,
            _ => {
                let iter = self.snapshot.iter(Family::Write, &key.versions())?;
                (key.encoded().clone(), iter)
            }
        };
        Ok(&mut self.records.insert(records).1)
    }
}

/// A value: the short one that came with the record, or the one that lies beside it.
pub(crate) fn load_value(
    snapshot: &dyn Snapshot,
    key: &Key,
    short_value: Option<Bytes>,
    start_ts: TimeStamp,
) -> Result<Bytes> {
    if let Some(value) = short_value {
        return Ok(value);
    }
    let value = snapshot.get(Family::Default, &key.at(start_ts))?;
    value.ok_or_else(|| Error::ValueMissing { key: key.user().clone(), start_ts })
}

/// The record under a cursor over the column family `write`; none if `found` is not.
pub(crate) fn current_record(iter: &dyn Iter, found: bool) -> Result<Option<(TimeStamp, Write)>> {
    if !found {
        return Ok(None);
    }
    let corrupt =
        |source| Error::Corrupt { cf: Cf::Write, key: Bytes::copy_from_slice(iter.key()), source };
    let (_, commit_ts) = layout::split_version(iter.key())
        .ok_or_else(|| corrupt(DecodeError::Invalid("timestamp behind the key")))?;
    let write = Write::decode(iter.value()).map_err(corrupt)?;
    Ok(Some((commit_ts, write)))
}

/// Reads a lock that lies under `stored`.
pub(crate) fn decode_lock(stored: &[u8], bytes: &[u8]) -> Result<Lock> {
    Lock::decode(bytes).map_err(|source| Error::Corrupt {
        cf: Cf::Lock,
        key: Bytes::copy_from_slice(stored),
        source,
    })
}

/// The key of the user that lies under the memcomparable form `encoded`.
pub(crate) fn user_key(cf: Cf, encoded: &[u8]) -> Result<Key> {
    let user = types::key::decode_exact(encoded).ok_or_else(|| Error::Corrupt {
        cf,
        key: Bytes::copy_from_slice(encoded),
        source: DecodeError::Invalid("memcomparable key"),
    })?;
    Ok(Key::new(user))
}
