//! Reads at a timestamp: which locks they mind, and point reads.
//!
//! The executor raises `max_ts` to the version, asks the [`Concurrency`](crate::Concurrency) for locks that are in
//! memory only, and then takes the snapshot, in this order. Everything after that is here and in
//! [`scanner`](crate::scanner).

use engine::Snapshot;
use types::{Bytes, TimeStamp, marks::mutant};

use crate::{
    error::{ConflictReason, KeyError, Result},
    layout::Key,
    lock::{Lock, LockKind},
    reader::Reader,
    write::WriteKind,
};

/// What a read must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Everything that was committed at or before the version, and nothing else.
    #[default]
    Snapshot,
    /// What is committed already; locks are not waited for.
    ReadCommitted,
    /// Like [`ReadCommitted`](Isolation::ReadCommitted), but anything newer than the version is a conflict.
    ReadCommittedCheckTs,
}

/// A read at a version.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read<'a> {
    /// Commits up to and including this one are seen; the largest timestamp is "the newest".
    pub version: TimeStamp,
    /// What must be seen.
    pub isolation: Isolation,
    /// Start timestamps of transactions that will not commit at or below `version`, as the client found out.
    pub resolved: &'a [u64],
    /// Start timestamps of transactions that committed at or below `version`: their locks are read as if committed.
    pub committed: &'a [u64],
}

/// What a lock means for a read.
#[derive(Debug)]
pub(crate) enum LockVerdict {
    /// Nothing.
    Pass,
    /// The lock is as good as the commit record that it becomes.
    ReadThrough,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvPair {
    /// The user's key.
    pub key: Bytes,
    /// Its value; empty if only keys were asked for.
    pub value: Bytes,
}

impl<'a> Read<'a> {
    /// A snapshot read at `version`.
    pub fn at(version: TimeStamp) -> Read<'a> {
        Read { version, ..Read::default() }
    }

    /// What `lock` on `key` means for this read; [`KeyError::Locked`] or a conflict if it is in the way.
    pub(crate) fn judge(&self, key: &Key, lock: &Lock) -> Result<LockVerdict, KeyError> {
        let changes_nothing = matches!(lock.kind, LockKind::Lock | LockKind::Pessimistic);
        if self.isolation == Isolation::ReadCommitted
            || mutant!("txn_passes_locks")
            || changes_nothing
            || self.resolved.contains(&lock.start_ts.0)
        {
            return Ok(LockVerdict::Pass);
        }
        if self.isolation == Isolation::ReadCommittedCheckTs {
            return Err(self.conflict(key, lock.start_ts, TimeStamp::ZERO));
        }
        if self.version < lock.start_ts || self.version < lock.min_commit_ts {
            return Ok(LockVerdict::Pass);
        }
        // Who reads "the newest" under the primary may say that the commit comes later: nobody has seen it. With
        // asynchronous commit the transaction may be committed although the lock is there.
        let is_newest = self.version == TimeStamp::MAX;
        if is_newest && lock.primary == key.user() && !lock.use_async_commit {
            return Ok(LockVerdict::Pass);
        }
        if self.committed.contains(&lock.start_ts.0) {
            return Ok(LockVerdict::ReadThrough);
        }
        Err(KeyError::locked(lock.info(key)))
    }

    /// Whether a newer version than this read sees is a conflict.
    pub(crate) fn checks_for_newer(&self) -> bool {
        self.isolation == Isolation::ReadCommittedCheckTs && self.version != TimeStamp::MAX
    }

    /// The conflict of a read that must not miss anything newer.
    pub(crate) fn conflict(
        &self,
        key: &Key,
        start_ts: TimeStamp,
        commit_ts: TimeStamp,
    ) -> KeyError {
        KeyError::WriteConflict {
            start_ts: self.version,
            conflict_start_ts: start_ts,
            conflict_commit_ts: commit_ts,
            key: key.user().clone(),
            primary: Bytes::new(),
            reason: ConflictReason::RcCheckTs,
        }
    }

    /// The value of `key` (of the user); `None` if it does not exist.
    pub fn get(&self, snapshot: &dyn Snapshot, key: &Bytes) -> Result<Option<Bytes>> {
        self.get_with(&mut Reader::new(snapshot), &Key::new(key.clone()))
    }

    /// The values of `keys` (of the user), in their order. Keys that do not exist are left out; a lock or conflict
    /// stands beside its key and does not keep the others from being read.
    pub fn batch_get(
        &self,
        snapshot: &dyn Snapshot,
        keys: &[Bytes],
    ) -> Result<Vec<(Bytes, Result<Bytes, KeyError>)>> {
        let mut reader = Reader::new(snapshot);
        let mut found = Vec::new();
        for key in keys {
            match self.get_with(&mut reader, &Key::new(key.clone())) {
                Ok(None) => {}
                Ok(Some(value)) => found.push((key.clone(), Ok(value))),
                Err(crate::Error::Key(error)) => found.push((key.clone(), Err(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn get_with(&self, reader: &mut Reader<'_>, key: &Key) -> Result<Option<Bytes>> {
        if self.isolation != Isolation::ReadCommitted
            && let Some(lock) = reader.load_lock(key)?
            && matches!(self.judge(key, &lock)?, LockVerdict::ReadThrough)
        {
            return reader.value_of_lock(key, lock);
        }
        if self.checks_for_newer()
            && let Some((commit_ts, write)) = reader.seek_write(key, TimeStamp::MAX)?
            && self.version < commit_ts
            && write.kind != WriteKind::Rollback
        {
            return Err(self.conflict(key, write.start_ts, commit_ts).into());
        }
        reader.get(key, self.version)
    }
}
