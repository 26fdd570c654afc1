//! How a transaction ends on a key. Several commands come to it.

use types::{TimeStamp, marks::mutant};

use crate::{
    changes::Changes,
    error::{KeyError, Result},
    layout::Key,
    lock::{Lock, LockKind},
    reader::{Reader, TxnRecord},
    write::Write,
};

/// Commits the lock of the transaction on `key`, which the caller has loaded.
///
/// A pessimistic lock was left behind by a transaction that did not prewrite the key: it goes, and leaves no record.
pub(super) fn commit_lock(
    changes: &mut Changes,
    key: &Key,
    lock: Lock,
    commit_ts: TimeStamp,
) -> Result<()> {
    if commit_ts < lock.min_commit_ts && !mutant!("txn_commits_before_its_minimum") {
        return Err(KeyError::CommitTsExpired {
            start_ts: lock.start_ts,
            attempted_commit_ts: commit_ts,
            key: key.user().clone(),
            min_commit_ts: lock.min_commit_ts,
        }
        .into());
    }
    if let Some(kind) = lock.write_kind() {
        let write = Write {
            short_value: lock.short_value,
            // The record takes the place in which a transaction that started then was rolled back.
            has_overlapped_rollback: lock.rollback_ts.contains(&commit_ts),
            last_change: lock.last_change,
            ..Write::new(kind, lock.start_ts)
        };
        changes.put_write(key, commit_ts, &write);
    }
    changes.delete_lock(key);
    Ok(())
}

/// Rolls the transaction of `lock` back on `key`, which the caller has loaded.
pub(super) fn rollback_lock(
    changes: &mut Changes,
    reader: &mut Reader<'_>,
    key: &Key,
    lock: &Lock,
    is_protected: bool,
) -> Result<()> {
    match reader.txn_record(key, lock.start_ts)? {
        TxnRecord::None { overlapped } => {
            if lock.kind == LockKind::Put && lock.short_value.is_none() {
                changes.delete_value(key, lock.start_ts);
            }
            put_rollback(changes, key, lock.start_ts, overlapped, is_protected);
        }
        // A pessimistic lock that came too late; what was decided stays.
        TxnRecord::Own { .. } | TxnRecord::OverlappedRollback => {}
    }
    changes.delete_lock(key);
    Ok(())
}

/// Whether the record of a rollback of this lock has to be protected: the primary's decides the transaction.
pub(super) fn decides(key: &Key, lock: &Lock) -> bool {
    lock.primary == key.user()
}

/// Keeps the transaction `start_ts` from ever prewriting `key`, on which it has neither lock nor record.
/// `foreign` is another transaction's lock there, `overlapped` another one's record at `start_ts`.
pub(super) fn rollback_missing(
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    foreign: Option<Lock>,
    overlapped: Option<Write>,
    is_protected: bool,
) {
    if let (Some(mut lock), None) = (foreign, &overlapped)
        && lock.use_async_commit
        && lock.min_commit_ts <= start_ts
        && !lock.rollback_ts.contains(&start_ts)
    {
        // It may commit at `start_ts`, and its record would take this rollback's place.
        lock.rollback_ts.push(start_ts);
        changes.put_lock(key, &lock);
    }
    put_rollback(changes, key, start_ts, overlapped, is_protected);
}

/// Writes the record of a rollback, or, if a commit has its place, notes it in the commit's record.
///
/// That is done for every rollback and not only for those that decide a transaction: a client that gives up a
/// transaction without any lock yet relies on it too, when its prewrite comes late.
fn put_rollback(
    changes: &mut Changes,
    key: &Key,
    start_ts: TimeStamp,
    overlapped: Option<Write>,
    is_protected: bool,
) {
    if mutant!("txn_rollback_leaves_no_record") {
        return;
    }
    let record = match overlapped {
        None => Write::rollback(start_ts, is_protected),
        Some(write) => Write { has_overlapped_rollback: true, ..write },
    };
    changes.put_write(key, start_ts, &record);
}
