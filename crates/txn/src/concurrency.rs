//! What concurrent reads and asynchronous commits have to tell each other.
//!
//! A transaction with asynchronous commit chooses its commit timestamp by itself, above every read that there has
//! been: `max_ts` remembers the reads. Between the choice and the moment at which its locks can be read from a
//! snapshot, readers find them in the table here.
//!
//! The invariant: a reader raises `max_ts`, then looks into the table, then takes its snapshot; a prewrite chooses
//! above `max_ts` and fills the table in one step. So either the choice was above the reader's version, or the reader
//! meets the lock, in the table or in the snapshot.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use types::{Bytes, KeyRange, TimeStamp, marks::mutant};

use crate::{
    error::KeyError,
    layout::Key,
    lock::Lock,
    read::{LockVerdict, Read},
};

/// The largest timestamp that anybody read at, and the locks that are under way into the log. One a store, for all threads;
/// each call is one step, and none waits for anything but others of them.
#[derive(Debug, Default)]
pub struct Concurrency {
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    max_ts: TimeStamp,
    locks: BTreeMap<Bytes, (Key, Lock)>,
}

impl Concurrency {
    /// Nobody read, nothing is under way.
    pub fn new() -> Concurrency {
        Concurrency::default()
    }

    /// The largest timestamp that anybody read at.
    pub fn max_ts(&self) -> TimeStamp {
        self.shared().max_ts
    }

    /// Somebody reads at `ts`: no transaction may commit at or below it from now on. "The newest" says nothing.
    pub fn raise_max_ts(&self, ts: TimeStamp) {
        if ts != TimeStamp::MAX {
            let mut shared = self.shared();
            shared.max_ts = shared.max_ts.max(ts);
        }
    }

    /// Whether `read` may read the user's key: [`KeyError`] if a lock that is under way is in the way.
    pub fn check_key(&self, key: &Bytes, read: &Read<'_>) -> Result<(), KeyError> {
        let shared = self.shared();
        if shared.locks.is_empty() {
            return Ok(());
        }
        match shared.locks.get(Key::new(key.clone()).encoded()) {
            None => Ok(()),
            Some((key, lock)) => judge(key, lock, read),
        }
    }

    /// Like [`check_key`](Concurrency::check_key) for the user's keys of `range`; the first lock in the way.
    pub fn check_range(&self, range: &KeyRange, read: &Read<'_>) -> Result<(), KeyError> {
        self.shared().in_range(range).try_for_each(|(key, lock)| judge(key, lock, read))
    }

    /// The first lock under way of a transaction that started at or before `max_version` on a user's key of `range`:
    /// what a listing of locks must not miss.
    pub fn check_no_lock(&self, range: &KeyRange, max_version: TimeStamp) -> Result<(), KeyError> {
        match self.shared().in_range(range).find(|(_, lock)| lock.start_ts <= max_version) {
            None => Ok(()),
            Some((key, lock)) => Err(KeyError::locked(lock.info(key))),
        }
    }

    /// A lock is under way: the one that `choose` makes of `max_ts`, in the same step. The caller has the latch of `key`.
    ///
    /// # Errors
    /// Those of `choose`; nothing is under way then.
    pub(crate) fn publish<E>(
        &self,
        key: &Key,
        choose: impl FnOnce(TimeStamp) -> Result<Lock, E>,
    ) -> Result<Lock, E> {
        let mut shared = self.shared();
        let lock = choose(shared.max_ts)?;
        if !mutant!("txn_lock_is_not_published") {
            shared.locks.insert(key.encoded().clone(), (key.clone(), lock.clone()));
        }
        Ok(lock)
    }

    /// Locks have arrived, or never will: `keys` are those of an answer
    /// ([`PrewriteAnswer::memory_locks`](crate::commands::PrewriteAnswer::memory_locks)).
    pub fn release(&self, keys: &[Bytes]) {
        let mut shared = self.shared();
        for key in keys {
            shared.locks.remove(key);
        }
    }

    /// How many locks are under way.
    pub fn len(&self) -> usize {
        self.shared().locks.len()
    }

    /// Whether no lock is under way.
    pub fn is_empty(&self) -> bool {
        self.shared().locks.is_empty()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics between two changes that belong together.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn in_range(&self, range: &KeyRange) -> impl Iterator<Item = (&Key, &Lock)> {
        let stored = crate::layout::stored_range(range);
        let range = range.clone();
        self.locks
            .range((Bound::Included(stored.start), Bound::Unbounded))
            .map(|(_, (key, lock))| (key, lock))
            .take_while(move |(key, _)| range.end.is_empty() || key.user() < &range.end)
    }
}

fn judge(key: &Key, lock: &Lock, read: &Read<'_>) -> Result<(), KeyError> {
    match read.judge(key, lock)? {
        LockVerdict::Pass => Ok(()),
        // The snapshot may not have what there is to be read through: the reader comes back in a moment.
        LockVerdict::ReadThrough => Err(KeyError::locked(lock.info(key))),
    }
}
