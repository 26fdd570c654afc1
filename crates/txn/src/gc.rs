//! Which versions may go.
//!
//! Below the *safe point* nobody reads: of every key the newest change at or below it is kept, unless it is a
//! deletion, and everything else at or below it goes: older versions, and records of locks and rollbacks.
//!
//! A read below the safe point may miss what was removed: stores refuse it (`storage`). Locks of transactions that began at
//! or before it are resolved, in all regions, before it moves: what decides them may go.
//!
//! Versions are removed by a command with a safe point in it, never by one replica alone. So all replicas have the
//! same records at every position of the log, and a record that is written again, to note a rollback in it, can't
//! bring back what another replica has removed. (TiKV, whose replicas compact by themselves, needs its GC fence for
//! that.)

use engine::{Family, Snapshot};
use types::{Bytes, Cf, KeyRange, TimeStamp, codec::DecodeError};

use crate::{
    changes::Changes,
    error::{Error, Result},
    layout::{Key, split_version, stored_range},
    reader::{current_record, user_key},
    write::{Write, WriteKind},
};

/// What can go of a key.
#[derive(Debug, Default)]
struct Garbage {
    /// Records, from new to old.
    records: Vec<(TimeStamp, Write)>,
    /// Whether the first of them is the deletion above all others: it must not go before them, or they come back.
    begins_with_deletion: bool,
}

/// Adds to `changes` the removal of versions of `key` that nobody needs who reads at or above `safe_point`. Stops when
/// there are `limit` changes; returns whether nothing is left.
pub(crate) fn collect(
    changes: &mut Changes,
    snapshot: &dyn Snapshot,
    key: &Key,
    safe_point: TimeStamp,
    limit: usize,
) -> Result<bool> {
    if limit <= changes.len() {
        return Ok(false);
    }
    let mut iter = snapshot.iter(Family::Write, &key.versions())?;
    let mut found = iter.seek(&key.at(safe_point))?;
    let mut garbage = Garbage::default();
    let mut has_change = false;
    while let Some((commit_ts, write)) = current_record(iter.as_ref(), found)? {
        let is_kept = !has_change && write.kind == WriteKind::Put;
        if !has_change && write.kind == WriteKind::Delete {
            garbage.records.insert(0, (commit_ts, write));
            garbage.begins_with_deletion = true;
            has_change = true;
        } else {
            has_change |= is_kept;
            if !is_kept {
                garbage.records.push((commit_ts, write));
            }
        }
        found = iter.next()?;
    }
    // From old to new, so that what is cut off leaves a state in which the newest change still hides the others.
    let deletion = garbage.begins_with_deletion.then(|| garbage.records.remove(0));
    for (commit_ts, write) in garbage.records.iter().rev().chain(&deletion) {
        if limit <= changes.len() {
            return Ok(false);
        }
        if write.kind == WriteKind::Put && write.short_value.is_none() {
            changes.delete_value(key, write.start_ts);
        }
        changes.delete_write(key, *commit_ts);
    }
    Ok(true)
}

/// The first `limit` of the user's keys in `range` that have something to remove under `safe_point`, and the key from
/// which to go on; `None` when there are no more. Looks at no more than `looked_at_max` records.
pub fn find_garbage(
    snapshot: &dyn Snapshot,
    range: &KeyRange,
    safe_point: TimeStamp,
    limit: usize,
    looked_at_max: usize,
) -> Result<(Vec<Bytes>, Option<Bytes>)> {
    let mut iter = snapshot.iter(Family::Write, &stored_range(range))?;
    let mut keys: Vec<Bytes> = Vec::new();
    let mut current: Option<Key> = None;
    let mut has_put = false;
    let mut is_wanted = false;
    let mut looked_at = 0;
    let mut found = !range.is_empty() && iter.seek_to_first()?;
    while found {
        let (encoded, _) = split_version(iter.key()).ok_or_else(|| Error::Corrupt {
            cf: Cf::Write,
            key: Bytes::copy_from_slice(iter.key()),
            source: DecodeError::Invalid("timestamp behind the key"),
        })?;
        if current.as_ref().is_none_or(|key| key.encoded() != encoded) {
            let key = user_key(Cf::Write, encoded)?;
            if keys.len() == limit || looked_at_max <= looked_at {
                return Ok((keys, Some(key.user().clone())));
            }
            current = Some(key);
            (has_put, is_wanted) = (false, false);
        }
        looked_at += 1;
        if let Some((commit_ts, write)) = current_record(iter.as_ref(), found)?
            && commit_ts <= safe_point
            && !is_wanted
        {
            is_wanted = has_put || write.kind != WriteKind::Put;
            has_put = true;
            if is_wanted && let Some(key) = &current {
                keys.push(key.user().clone());
            }
        }
        found = iter.next()?;
    }
    Ok((keys, None))
}
