//! A transaction as its client has it: what it wrote and locked so far, and what follows from that.
//!
//! Writes stay here until the commit. Reads are those of a snapshot with these writes laid over it. A pessimistic
//! transaction locks a key before it writes it; who drives it runs the plan and says how it ended.
//!
//! A core: it asks nobody, and everything it says is for a machine of this module, or a command for a store.

use std::{collections::BTreeMap, time::Duration};

use types::{Bytes, KeyRange, TimeStamp, limits};

use super::{
    HeartBeat,
    command::{Command, CommitMode, Mutation, Op},
    commit,
    lock::{self, Locked, Wish},
    read,
};
use crate::{
    Error, Result,
    request::{Direction, Pair},
};

/// When keys are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// At the commit. Whoever was first wins, the other one begins anew.
    #[default]
    Optimistic,
    /// When they are written, or read for update. Others wait.
    Pessimistic,
}

/// What is to be done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Put(Bytes),
    Insert(Bytes),
    Delete,
    Lock,
    /// Inserted and deleted again.
    CheckNotExists,
}

/// What is known of a key before anybody is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its value; `None`: it does not exist.
    Known(Option<Bytes>),
    /// The snapshot has it.
    Ask(Command),
}

/// A transaction under way.
#[derive(Debug)]
pub struct Transaction {
    start_ts: TimeStamp,
    locking: Locking,
    mode: CommitMode,
    began: Duration,
    buffer: BTreeMap<Bytes, Entry>,
    /// Pessimistic locks, with the value if it is known.
    locked: BTreeMap<Bytes, Option<Option<Bytes>>>,
    /// The first key that was locked.
    primary: Option<Bytes>,
    for_update_ts: TimeStamp,
}

impl Transaction {
    /// A transaction that sees what was committed at or before `start_ts`, which was drawn at `now`.
    pub fn new(
        start_ts: TimeStamp,
        locking: Locking,
        mode: CommitMode,
        now: Duration,
    ) -> Transaction {
        Transaction {
            start_ts,
            locking,
            mode,
            began: now,
            buffer: BTreeMap::new(),
            locked: BTreeMap::new(),
            primary: None,
            for_update_ts: TimeStamp::ZERO,
        }
    }

    /// What it sees was committed at or before this; it is its name as well.
    pub fn start_ts(&self) -> TimeStamp {
        self.start_ts
    }

    /// When it locks.
    pub fn locking(&self) -> Locking {
        self.locking
    }

    /// The value of a key that it wrote itself. `None`: it did not write it.
    fn written(&self, key: &Bytes) -> Option<Option<Bytes>> {
        match self.buffer.get(key)? {
            Entry::Put(value) | Entry::Insert(value) => Some(Some(value.clone())),
            Entry::Delete | Entry::CheckNotExists => Some(None),
            Entry::Lock => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Bytes) -> Lookup {
        match self.written(key) {
            Some(value) => Lookup::Known(value),
            None => Lookup::Ask(Command::Get { key: key.clone(), at: read::at(self.start_ts) }),
        }
    }

    /// The values of keys: those that are known, and what to ask for the others.
    pub fn batch_get(&self, keys: &[Bytes]) -> (Vec<Pair>, Option<Command>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for key in keys {
            match self.written(key) {
                Some(Some(value)) => known.push(Pair::new(key.clone(), value)),
                Some(None) => {}
                None => unknown.push(key.clone()),
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        let at = read::at(self.start_ts);
        let ask = (!unknown.is_empty()).then_some(Command::BatchGet { keys: unknown, at });
        (known, ask)
    }

    /// What to ask for a scan; the answer belongs into [`Transaction::lay_over`]. As many pairs more as may be hidden
    /// by deletions.
    pub fn scan(
        &self,
        range: &KeyRange,
        limit: usize,
        direction: Direction,
        keys_only: bool,
    ) -> Command {
        let is_gone = |entry: &Entry| matches!(entry, Entry::Delete | Entry::CheckNotExists);
        let hidden = self.in_range(range).filter(|(_, entry)| is_gone(entry)).count();
        Command::Scan {
            range: range.clone(),
            limit: limit.saturating_add(hidden),
            keys_only,
            direction,
            at: read::at(self.start_ts),
        }
    }

    /// What a scan finds: `pairs` of the snapshot, as [`Transaction::scan`] asked for them, under what was written.
    pub fn lay_over(
        &self,
        pairs: Vec<Pair>,
        range: &KeyRange,
        limit: usize,
        direction: Direction,
        keys_only: bool,
    ) -> Vec<Pair> {
        let mut merged: BTreeMap<Bytes, Bytes> =
            pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        for (key, entry) in self.in_range(range) {
            match entry {
                Entry::Put(value) | Entry::Insert(value) => {
                    let value = if keys_only { Bytes::new() } else { value.clone() };
                    merged.insert(key.clone(), value);
                }
                Entry::Delete | Entry::CheckNotExists => {
                    merged.remove(key);
                }
                Entry::Lock => {}
            }
        }
        let pairs = merged.into_iter().map(|(key, value)| Pair { key, value });
        match direction {
            Direction::Forward => pairs.take(limit).collect(),
            Direction::Reverse => pairs.rev().take(limit).collect(),
        }
    }

    fn in_range(&self, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &Entry)> {
        self.buffer
            .range(range.start.clone()..)
            .take_while(|(key, _)| range.end.is_empty() || **key < range.end)
    }

    /// Sets a key. A pessimistic transaction has locked it.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        let entry = match self.buffer.get(&key) {
            // It still must not have existed.
            Some(Entry::Insert(_) | Entry::CheckNotExists) => Entry::Insert(value),
            _ => Entry::Put(value),
        };
        self.buffer.insert(key, entry);
    }

    /// Sets a key that must not exist: an optimistic transaction hears at the commit if it does. A pessimistic one has
    /// locked the key, and seen that it does not.
    ///
    /// # Errors
    /// It wrote the key before.
    pub fn insert(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        let entry = match self.buffer.get(&key) {
            Some(Entry::Put(_) | Entry::Insert(_)) => return Err(Error::KeyExists { key }),
            Some(Entry::Delete) => Entry::Put(value),
            Some(Entry::CheckNotExists) => Entry::Insert(value),
            Some(Entry::Lock) | None if self.locked.contains_key(&key) => Entry::Put(value),
            Some(Entry::Lock) | None => Entry::Insert(value),
        };
        self.buffer.insert(key, entry);
        Ok(())
    }

    /// Removes a key. A pessimistic transaction has locked it.
    pub fn delete(&mut self, key: Bytes) {
        let entry = match self.buffer.get(&key) {
            Some(Entry::Insert(_) | Entry::CheckNotExists) => Entry::CheckNotExists,
            _ => Entry::Delete,
        };
        self.buffer.insert(key, entry);
    }

    /// Says that keys must not be changed by others until the commit. A pessimistic transaction locks them instead.
    pub fn touch(&mut self, keys: impl IntoIterator<Item = Bytes>) {
        for key in keys {
            self.buffer.entry(key).or_insert(Entry::Lock);
        }
    }

    /// The value of a key that is locked, or was written; `None`: it has to be locked first, asking for values.
    pub fn locked_value(&self, key: &Bytes) -> Option<Option<Bytes>> {
        self.written(key).or_else(|| self.locked.get(key)?.clone())
    }

    /// How to lock `keys` for a pessimistic transaction; `None`: they are locked, and all that is asked is known.
    pub fn lock_plan(
        &self,
        keys: impl IntoIterator<Item = Bytes>,
        wish: Wish,
    ) -> Option<lock::Plan> {
        let is_missing = |key: &Bytes| match self.locked.get(key) {
            None => true,
            Some(value) => wish != Wish::Nothing && value.is_none(),
        };
        let mut keys: Vec<Bytes> = keys.into_iter().filter(is_missing).collect();
        keys.sort_unstable();
        keys.dedup();
        let first = keys.first()?.clone();
        let held = keys.iter().filter(|key| self.locked.contains_key(*key)).cloned().collect();
        Some(lock::Plan {
            held,
            wish,
            primary: self.primary.clone().unwrap_or(first),
            start_ts: self.start_ts,
            began: self.began,
            ttl: limits::CLIENT_LOCK_TTL_PROLONGED,
            is_first: self.locked.is_empty(),
            keys,
        })
    }

    /// The keys of a plan are locked.
    pub fn on_locked(&mut self, plan: lock::Plan, locked: Locked) {
        self.primary.get_or_insert(plan.primary);
        self.for_update_ts = self.for_update_ts.max(locked.for_update_ts);
        let mut values: BTreeMap<Bytes, Bytes> =
            locked.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        for key in plan.keys {
            let value = values.remove(&key);
            let known = self.locked.entry(key).or_default();
            if plan.wish != Wish::Nothing {
                *known = Some(value);
            }
        }
    }

    /// The life sign that it needs from its first lock on; `None`: it has none.
    pub fn heart_beat(&self) -> Option<HeartBeat> {
        let primary = self.primary.clone()?;
        let ttl = limits::CLIENT_LOCK_TTL_PROLONGED;
        Some(HeartBeat::new(primary, self.start_ts, self.began, ttl))
    }

    /// How to commit it.
    pub fn commit_plan(&self) -> commit::Plan {
        let mut mutations = Vec::with_capacity(self.buffer.len());
        for (key, entry) in &self.buffer {
            let (op, value) = match entry {
                Entry::Put(value) => (Op::Put, value.clone()),
                Entry::Insert(value) => (Op::Insert, value.clone()),
                Entry::Delete => (Op::Delete, Bytes::new()),
                Entry::Lock => (Op::Lock, Bytes::new()),
                Entry::CheckNotExists => (Op::CheckNotExists, Bytes::new()),
            };
            let is_locked = self.locked.contains_key(key);
            mutations.push(Mutation { op, key: key.clone(), value, is_locked });
        }
        for key in self.locked.keys().filter(|key| !self.buffer.contains_key(*key)) {
            let (op, key) = (Op::Lock, key.clone());
            mutations.push(Mutation { op, key, value: Bytes::new(), is_locked: true });
        }
        mutations.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let first = || {
            let gets_lock = |mutation: &&Mutation| mutation.op != Op::CheckNotExists;
            mutations.iter().find(gets_lock).map(|mutation| mutation.key.clone())
        };
        commit::Plan {
            primary: self.primary.clone().or_else(first),
            mutations,
            start_ts: self.start_ts,
            for_update_ts: self.for_update_ts,
            began: self.began,
            ttl: match self.locking {
                Locking::Optimistic => limits::CLIENT_LOCK_TTL,
                Locking::Pessimistic => limits::CLIENT_LOCK_TTL_PROLONGED,
            },
            mode: self.mode,
        }
    }

    /// How to take its locks back; `None`: it has none.
    pub fn rollback(&self) -> Option<Command> {
        let keys: Vec<Bytes> = self.locked.keys().cloned().collect();
        let (start_ts, for_update_ts) = (self.start_ts, TimeStamp::MAX);
        (!keys.is_empty()).then_some(Command::Unlock { keys, start_ts, for_update_ts })
    }
}
