//! PessimisticLock: a transaction takes keys before it knows what it will do with them.
//!
//! Waiting is not done here. A key that another transaction has is [`KeyError::Locked`]; the executor decides by
//! [`WaitTimeout`] whether to wait for it, and runs the command again.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome};
use crate::{
    Concurrency, LastChange,
    changes::Changes,
    error::{ConflictReason, KeyError, Result},
    layout::Key,
    lock::{Lock, LockKind},
    reader::Reader,
};

/// A key to lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PessimisticKey {
    /// The user's key.
    pub key: Bytes,
    /// It must not exist.
    pub should_not_exist: bool,
}

/// How long to wait for a key that somebody else has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitTimeout {
    /// As long as the store does by default.
    #[default]
    Default,
    /// Not at all.
    NoWait,
    /// Milliseconds, at most what the store allows.
    Millis(u64),
}

/// What a request that has waited wants when its turn comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakeUpMode {
    /// To be told that there is something newer, if so.
    #[default]
    Normal,
    /// The lock in any case, and what is newer. For one key.
    ForceLock,
}

/// Locks keys as of a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PessimisticLock {
    /// What to lock.
    pub keys: Vec<PessimisticKey>,
    /// The user's key at which the transaction will be decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// What the transaction has seen: a newer version is a conflict.
    pub for_update_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which others may end the transaction.
    pub ttl: u64,
    /// The transaction will not commit below this; zero: it says nothing.
    pub min_commit_ts: TimeStamp,
    /// The transaction has no other lock yet, and can't be part of a deadlock. For the executor.
    pub is_first_lock: bool,
    /// For the executor.
    pub wait_timeout: WaitTimeout,
    /// What to do about something newer.
    pub wake_up_mode: WakeUpMode,
    /// Answer the values as of `for_update_ts`.
    pub return_values: bool,
    /// Answer whether the keys exist.
    pub check_existence: bool,
    /// Leave keys alone that do not exist. Needs `return_values`.
    pub lock_only_if_exists: bool,
}

/// What came of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockedKey {
    /// Its value, if values were asked for, or there was something newer.
    pub value: Option<Bytes>,
    /// Whether it exists, if that was asked for, or there was something newer.
    pub exists: bool,
    /// The commit timestamp of something newer, as of which it was locked; zero: there was nothing.
    pub locked_with_conflict_ts: TimeStamp,
}

/// One result a key, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PessimisticLockAnswer {
    /// The results.
    pub results: Vec<LockedKey>,
}

impl Command for PessimisticLock {
    type Answer = PessimisticLockAnswer;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.iter().map(|wanted| wanted.key.clone()).collect()
    }

    /// What it shows is a read as of `for_update_ts`, which outlives the lock: if others remove the lock, commit at
    /// that very timestamp, and this request arrives once more, the transaction would go on with what it has seen.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        super::latest(&[self.for_update_ts])
    }

    fn begins_at(&self) -> Option<TimeStamp> {
        Some(self.start_ts)
    }

    fn latest_ts(&self) -> Option<TimeStamp> {
        super::latest_written([self.start_ts, self.for_update_ts, self.min_commit_ts])
    }

    fn run(
        &self,
        snapshot: &dyn Snapshot,
        _: &Concurrency,
    ) -> Result<Outcome<PessimisticLockAnswer>> {
        let refused = if self.for_update_ts < self.start_ts {
            "for_update_ts lies before the start of the transaction"
        } else if self.wake_up_mode == WakeUpMode::ForceLock && 1 < self.keys.len() {
            "only one key at a time can be locked with a conflict"
        } else if self.lock_only_if_exists && !self.return_values {
            "lock_only_if_exists needs return_values"
        } else {
            ""
        };
        if !refused.is_empty() {
            return Err(KeyError::InvalidRequest(refused.into()).into());
        }
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let mut results = Vec::with_capacity(self.keys.len());
        for wanted in &self.keys {
            results.push(self.lock(&mut changes, &mut reader, wanted)?);
        }
        Ok(Outcome::new(changes, PessimisticLockAnswer { results }))
    }
}

impl PessimisticLock {
    fn lock(
        &self,
        changes: &mut Changes,
        reader: &mut Reader<'_>,
        wanted: &PessimisticKey,
    ) -> Result<LockedKey> {
        let key = Key::new(wanted.key.clone());
        match reader.load_lock(&key)? {
            Some(lock) if lock.start_ts != self.start_ts => {
                Err(KeyError::locked(lock.info(&key)).into())
            }
            Some(lock) if !lock.is_pessimistic() => Err(KeyError::InvalidRequest(format!(
                "transaction {} has prewritten the key that it asks to lock",
                self.start_ts
            ))
            .into()),
            Some(lock) => self.lock_again(changes, reader, wanted, &key, lock),
            None => self.lock_free(changes, reader, wanted, &key),
        }
    }

    /// The transaction has the key already: an answer was lost, or it asks as of a later time.
    fn lock_again(
        &self,
        changes: &mut Changes,
        reader: &mut Reader<'_>,
        wanted: &PessimisticKey,
        key: &Key,
        mut lock: Lock,
    ) -> Result<LockedKey> {
        let mut as_of = self.for_update_ts;
        let mut conflict_ts = TimeStamp::ZERO;
        if lock.for_update_ts < self.for_update_ts {
            lock.for_update_ts = self.for_update_ts;
            lock.is_locked_with_conflict = false;
            lock.ttl = lock.ttl.max(self.ttl);
            lock.min_commit_ts = lock.min_commit_ts.max(self.min_commit_ts);
            changes.put_lock(key, &lock);
        } else if lock.is_locked_with_conflict && self.for_update_ts < lock.for_update_ts {
            if self.wake_up_mode == WakeUpMode::Normal {
                return Err(self.conflict(key, TimeStamp::ZERO, lock.for_update_ts).into());
            }
            (as_of, conflict_ts) = (lock.for_update_ts, lock.for_update_ts);
        }
        self.result(reader, wanted, key, as_of, conflict_ts)
    }

    /// Nobody has the key.
    fn lock_free(
        &self,
        changes: &mut Changes,
        reader: &mut Reader<'_>,
        wanted: &PessimisticKey,
        key: &Key,
    ) -> Result<LockedKey> {
        let start_ts = self.start_ts;
        let mut as_of = self.for_update_ts;
        let mut conflict_ts = TimeStamp::ZERO;
        if let Some((commit_ts, write)) = reader.seek_write(key, TimeStamp::MAX)? {
            if start_ts <= commit_ts {
                // A stale request must not bring back the lock of a transaction that has ended.
                let record = reader.txn_record(key, start_ts)?;
                let key = key.user().clone();
                if record.is_rollback() {
                    return Err(KeyError::PessimisticLockRolledBack { start_ts, key }.into());
                }
                if let Some(commit_ts) = record.commit_ts() {
                    return Err(KeyError::Committed { start_ts, commit_ts, key }.into());
                }
            }
            if self.for_update_ts < commit_ts {
                if self.wake_up_mode == WakeUpMode::Normal {
                    return Err(self.conflict(key, write.start_ts, commit_ts).into());
                }
                (as_of, conflict_ts) = (commit_ts, commit_ts);
            }
        }
        let result = self.result(reader, wanted, key, as_of, conflict_ts)?;
        if self.lock_only_if_exists && !result.exists {
            return Ok(result);
        }
        let lock = Lock {
            for_update_ts: as_of,
            min_commit_ts: self.min_commit_ts,
            last_change: self.last_change(reader, key, as_of)?,
            is_locked_with_conflict: conflict_ts != TimeStamp::ZERO,
            ..Lock::new(LockKind::Pessimistic, self.primary.clone(), start_ts, self.ttl)
        };
        changes.put_lock(key, &lock);
        Ok(result)
    }

    /// Nothing is newer than `as_of`, so that what is seen there is the newest change.
    fn last_change(
        &self,
        reader: &mut Reader<'_>,
        key: &Key,
        as_of: TimeStamp,
    ) -> Result<LastChange> {
        Ok(match reader.change_at(key, as_of)? {
            Some((commit_ts, _)) => LastChange::At(commit_ts),
            None => LastChange::None,
        })
    }

    /// What was asked about the key.
    fn result(
        &self,
        reader: &mut Reader<'_>,
        wanted: &PessimisticKey,
        key: &Key,
        as_of: TimeStamp,
        locked_with_conflict_ts: TimeStamp,
    ) -> Result<LockedKey> {
        let mut result = LockedKey { locked_with_conflict_ts, ..LockedKey::default() };
        let has_conflict = locked_with_conflict_ts != TimeStamp::ZERO;
        if self.return_values || has_conflict {
            result.value = reader.get(key, as_of)?;
            result.exists = result.value.is_some();
        } else if self.check_existence || wanted.should_not_exist {
            result.exists = reader.exists(key, as_of)?;
        }
        if wanted.should_not_exist && result.exists {
            return Err(KeyError::AlreadyExist { key: key.user().clone() }.into());
        }
        Ok(result)
    }

    fn conflict(&self, key: &Key, start_ts: TimeStamp, commit_ts: TimeStamp) -> KeyError {
        KeyError::WriteConflict {
            start_ts: self.start_ts,
            conflict_start_ts: start_ts,
            conflict_commit_ts: commit_ts,
            key: key.user().clone(),
            primary: self.primary.clone(),
            reason: ConflictReason::PessimisticRetry,
        }
    }
}
