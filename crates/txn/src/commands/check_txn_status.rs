//! CheckTxnStatus: another client asks a primary what became of its transaction, and ends it if its time is over.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, settle};
use crate::{
    Concurrency,
    changes::Changes,
    error::{KeyError, LockInfo, Result},
    layout::Key,
    lock::Lock,
    reader::{Reader, TxnRecord},
};

/// When the time of a lock is over. The clock is the asking client's: `current_ts` is in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlRule {
    /// TiKV: after the last millisecond.
    #[default]
    Tikv,
    /// The course: with the last millisecond.
    TinyKv,
}

impl TtlRule {
    /// Whether the time of `lock` is over at `now`; the largest timestamp is after every time.
    pub fn is_over(self, lock: &Lock, now: TimeStamp) -> bool {
        let end = lock.start_ts.physical_ms().saturating_add(lock.ttl);
        match self {
            _ if now == TimeStamp::MAX => true,
            TtlRule::Tikv => end < now.physical_ms(),
            TtlRule::TinyKv => end <= now.physical_ms(),
        }
    }
}

/// Asks for the state of a transaction at its primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckTxnStatus {
    /// The user's key that some lock names as its primary.
    pub primary: Bytes,
    /// The transaction.
    pub lock_ts: TimeStamp,
    /// The transaction that asks, so that it can be let past; zero: nobody, the largest: a read of the newest.
    pub caller_start_ts: TimeStamp,
    /// What time the client has. The largest: the time of the lock is over, whatever it says.
    pub current_ts: TimeStamp,
    /// Without lock and record, roll the transaction back; else that is an error.
    pub rollback_if_not_exist: bool,
    /// Treat a lock with asynchronous commit as one without: the client knows that the transaction fell back.
    pub force_sync_commit: bool,
    /// The lock that the client met is a pessimistic one: it wants that one gone, and no more.
    pub resolving_pessimistic_lock: bool,
    /// Refuse if the lock under the key has another primary.
    pub verify_is_primary: bool,
    /// When time is over.
    pub ttl_rule: TtlRule,
}

/// What was done about a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TxnAction {
    /// Nothing.
    #[default]
    None,
    /// Its time was over; it is rolled back.
    TtlExpireRollback,
    /// It was not known; it is rolled back.
    LockNotExistRollback,
    /// It commits later than the asking transaction reads.
    MinCommitTsPushed,
    /// Its time was over; its pessimistic lock is removed, and nothing says that it was rolled back.
    TtlExpirePessimisticRollback,
    /// It was not known, and nothing was done.
    LockNotExistDoNothing,
}

/// The state of a transaction. With `lock_ttl` and `commit_ts` zero it is rolled back (or not known, see `action`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnStatus {
    /// Under way: milliseconds to live.
    pub lock_ttl: u64,
    /// Committed: when.
    pub commit_ts: TimeStamp,
    /// What was done.
    pub action: TxnAction,
    /// Under way: the lock, with its secondaries.
    pub lock: Option<LockInfo>,
}

impl TxnStatus {
    fn ended(action: TxnAction) -> TxnStatus {
        TxnStatus { action, ..TxnStatus::default() }
    }

    fn under_way(key: &Key, lock: &Lock, action: TxnAction) -> TxnStatus {
        let lock_ttl = lock.ttl;
        TxnStatus { lock_ttl, action, lock: Some(lock.info(key)), ..TxnStatus::default() }
    }
}

impl Command for CheckTxnStatus {
    type Answer = TxnStatus;

    fn keys(&self) -> Vec<Bytes> {
        vec![self.primary.clone()]
    }

    fn raises_max_ts(&self) -> Option<TimeStamp> {
        super::latest(&[self.lock_ts, self.current_ts, self.caller_start_ts])
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<TxnStatus>> {
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let key = Key::new(self.primary.clone());
        let status = match reader.load_lock(&key)? {
            Some(lock) if lock.start_ts == self.lock_ts => {
                self.locked(&mut changes, &mut reader, &key, lock)?
            }
            foreign => self.missing(&mut changes, &mut reader, &key, foreign)?,
        };
        Ok(Outcome::new(changes, status))
    }
}

impl CheckTxnStatus {
    /// The transaction has a lock on the key.
    fn locked(
        &self,
        changes: &mut Changes,
        reader: &mut Reader<'_>,
        key: &Key,
        lock: Lock,
    ) -> Result<TxnStatus> {
        if self.verify_is_primary && lock.primary != key.user() {
            if lock.is_pessimistic() && !self.resolving_pessimistic_lock {
                // The transaction has another primary by now, and this lock came late: a lock that was prewritten
                // names this key, so that it belongs to a try that failed.
                changes.delete_lock(key);
                return self.missing(changes, reader, key, None);
            }
            return Err(KeyError::PrimaryMismatch(Box::new(lock.info(key))).into());
        }
        if lock.use_async_commit && !self.force_sync_commit {
            // Committed, perhaps: the secondaries know.
            return Ok(TxnStatus::under_way(key, &lock, TxnAction::None));
        }
        if lock.is_pessimistic() && lock.is_locked_with_conflict {
            // The request was waiting for its turn; its transaction may have ended meanwhile.
            let record = reader.txn_record(key, lock.start_ts)?;
            if record.commit_ts().is_some() || record.is_rollback() {
                changes.delete_lock(key);
                let commit_ts = record.commit_ts().unwrap_or_default();
                return Ok(TxnStatus { commit_ts, ..TxnStatus::default() });
            }
        }
        if self.ttl_rule.is_over(&lock, self.current_ts) {
            if lock.is_pessimistic() && self.resolving_pessimistic_lock {
                changes.delete_lock(key);
                return Ok(TxnStatus::ended(TxnAction::TtlExpirePessimisticRollback));
            }
            let is_protected = lock.is_pessimistic() || settle::decides(key, &lock);
            settle::rollback_lock(changes, reader, key, &lock, is_protected)?;
            return Ok(TxnStatus::ended(TxnAction::TtlExpireRollback));
        }
        Ok(self.push(changes, key, lock))
    }

    /// The transaction lives. If it can, it lets the asking one past: it commits later than that one reads.
    fn push(&self, changes: &mut Changes, key: &Key, mut lock: Lock) -> TxnStatus {
        let caller = self.caller_start_ts;
        let can_be_pushed = lock.min_commit_ts != TimeStamp::ZERO && caller != TimeStamp::MAX;
        if can_be_pushed && lock.min_commit_ts <= caller {
            // Written down: whoever was let past relies on it.
            lock.min_commit_ts = TimeStamp(caller.0 + 1).max(match self.current_ts {
                TimeStamp::MAX => TimeStamp::ZERO,
                now => now,
            });
            changes.put_lock(key, &lock);
        }
        let is_past =
            caller == TimeStamp::MAX || (caller != TimeStamp::ZERO && caller < lock.min_commit_ts);
        let action = if is_past { TxnAction::MinCommitTsPushed } else { TxnAction::None };
        TxnStatus::under_way(key, &lock, action)
    }

    /// The transaction has no lock on the key.
    fn missing(
        &self,
        changes: &mut Changes,
        reader: &mut Reader<'_>,
        key: &Key,
        foreign: Option<Lock>,
    ) -> Result<TxnStatus> {
        let record = reader.txn_record(key, self.lock_ts)?;
        if let Some(commit_ts) = record.commit_ts() {
            return Ok(TxnStatus { commit_ts, ..TxnStatus::default() });
        }
        let TxnRecord::None { overlapped } = record else {
            return Ok(TxnStatus::default());
        };
        if !self.rollback_if_not_exist {
            let (start_ts, primary) = (self.lock_ts, key.user().clone());
            return Err(KeyError::TxnNotFound { start_ts, primary }.into());
        }
        if self.resolving_pessimistic_lock {
            return Ok(TxnStatus::ended(TxnAction::LockNotExistDoNothing));
        }
        settle::rollback_missing(changes, key, self.lock_ts, foreign, overlapped, true);
        Ok(TxnStatus::ended(TxnAction::LockNotExistRollback))
    }
}
