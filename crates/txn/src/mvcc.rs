//! Everything that is stored of a key, for people who look for what went wrong, and for who removes it all.
//!
//! Nothing here minds locks or versions: it shows records as they lie there.

use std::collections::BTreeSet;

use engine::{Family, Iter, Snapshot};
use types::{Bytes, Cf, KeyRange, TimeStamp, codec::DecodeError};

use crate::{
    error::{Error, Result},
    layout::{Key, past_versions, split_version, stored_range},
    lock::Lock,
    reader::{Reader, current_record, decode_lock, user_key},
    write::Write,
};

/// How many steps a cursor goes within the versions of a key before it seeks the next key.
const STEPS_BEFORE_SEEK: usize = 8;

/// All records of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRecords {
    /// Its lock.
    pub lock: Option<Lock>,
    /// Its commit records with their commit timestamps, from new to old.
    pub writes: Vec<(TimeStamp, Write)>,
    /// The values that lie beside records and lock, by the transaction that wrote them, from new to old.
    pub values: Vec<(TimeStamp, Bytes)>,
}

/// All records of the user's `key`.
pub fn records_of(snapshot: &dyn Snapshot, key: &Bytes) -> Result<KeyRecords> {
    let key = Key::new(key.clone());
    let lock = Reader::new(snapshot).load_lock(&key)?;
    let mut writes = Vec::new();
    let mut iter = snapshot.iter(Family::Write, &key.versions())?;
    let mut found = iter.seek_to_first()?;
    while let Some(record) = current_record(iter.as_ref(), found)? {
        writes.push(record);
        found = iter.next()?;
    }
    let mut values = Vec::new();
    let mut iter = snapshot.iter(Family::Default, &key.versions())?;
    let mut found = iter.seek_to_first()?;
    while found {
        let (_, start_ts) = cut(Cf::Default, iter.key())?;
        values.push((start_ts, iter.value_bytes()));
        found = iter.next()?;
    }
    Ok(KeyRecords { lock, writes, values })
}

/// A user's key of `range` with a lock or a record of the transaction `start_ts`, and, if none was found among the first
/// `looked_at_max` locks and records, the key from which to go on; `None` when there are no more.
pub fn find_txn(
    snapshot: &dyn Snapshot,
    range: &KeyRange,
    start_ts: TimeStamp,
    looked_at_max: usize,
) -> Result<(Option<Bytes>, Option<Bytes>)> {
    if range.is_empty() {
        return Ok((None, None));
    }
    let stored = stored_range(range);
    let (mut looked_at, mut stopped_at) = (0, None);
    let mut locks = snapshot.iter(Family::Lock, &stored)?;
    let mut found = locks.seek_to_first()?;
    while found {
        let key = user_key(Cf::Lock, locks.key())?;
        if looked_at_max <= looked_at {
            stopped_at = Some(key.user().clone());
            break;
        }
        if decode_lock(locks.key(), locks.value())?.start_ts == start_ts {
            return Ok((Some(key.user().clone()), None));
        }
        looked_at += 1;
        found = locks.next()?;
    }
    // The records up to where the locks were looked at, so that one key says how far it is.
    let mut records = snapshot.iter(Family::Write, &stored)?;
    let mut found = records.seek_to_first()?;
    let mut last: Option<Bytes> = None;
    looked_at = 0;
    while found {
        let encoded = cut(Cf::Write, records.key())?.0;
        if last.as_ref().is_none_or(|last| last != encoded) {
            let key = user_key(Cf::Write, encoded)?;
            let is_beyond = stopped_at.as_ref().is_some_and(|stop| stop <= key.user());
            if is_beyond || looked_at_max <= looked_at {
                return Ok((
                    None,
                    Some(stopped_at.filter(|_| is_beyond).unwrap_or(key.user().clone())),
                ));
            }
            last = Some(Bytes::copy_from_slice(encoded));
        }
        if let Some((_, write)) = current_record(records.as_ref(), found)?
            && write.start_ts == start_ts
        {
            let key = last.map(|encoded| user_key(Cf::Write, &encoded)).transpose()?;
            return Ok((key.map(|key| key.user().clone()), None));
        }
        looked_at += 1;
        found = records.next()?;
    }
    Ok((None, stopped_at))
}

/// The first `limit` of the user's keys in `range` of which anything is stored, in order.
pub fn find_keys(snapshot: &dyn Snapshot, range: &KeyRange, limit: usize) -> Result<Vec<Bytes>> {
    let mut keys = BTreeSet::new();
    if range.is_empty() {
        return Ok(Vec::new());
    }
    for cf in Cf::ALL {
        // The first of all are among the first of each.
        let mut iter = snapshot.iter(Family::from(cf), &stored_range(range))?;
        let mut found = iter.seek_to_first()?;
        for _ in 0..limit {
            if !found {
                break;
            }
            let encoded = match cf {
                Cf::Lock => Bytes::copy_from_slice(iter.key()),
                Cf::Default | Cf::Write => Bytes::copy_from_slice(cut(cf, iter.key())?.0),
            };
            keys.insert(user_key(cf, &encoded)?.user().clone());
            found = leave(iter.as_mut(), &encoded)?;
        }
    }
    Ok(keys.into_iter().take(limit).collect())
}

/// Moves a cursor behind everything of a key.
fn leave(iter: &mut dyn Iter, encoded: &[u8]) -> Result<bool> {
    for _ in 0..STEPS_BEFORE_SEEK {
        if !iter.next()? || !iter.key().starts_with(encoded) {
            return Ok(iter.valid());
        }
    }
    Ok(iter.seek(&past_versions(encoded))?)
}

/// The memcomparable key and the timestamp of a version.
fn cut(cf: Cf, stored: &[u8]) -> Result<(&[u8], TimeStamp)> {
    split_version(stored).ok_or_else(|| Error::Corrupt {
        cf,
        key: Bytes::copy_from_slice(stored),
        source: DecodeError::Invalid("timestamp behind the key"),
    })
}
