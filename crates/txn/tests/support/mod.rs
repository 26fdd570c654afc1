//! A store without a log: runs commands as an executor does, one after the other, and shows its records decoded.
#![allow(dead_code, reason = "every test file uses its part")]

use engine::{Engine, Family, MemoryEngine, WriteBatch};
use txn::{
    Changes, Concurrency, Error, Key, KeyError, KvPair, Lock, LockKind, Read, ScanOptions, Write,
    WriteKind,
    commands::{Command, Mutation, MutationOp, Outcome, Prewrite, PrewriteAnswer},
    layout::split_version,
};
use types::{Bytes, Cf, KeyRange, Modify, TimeStamp};

/// An engine and what is in memory beside it.
#[derive(Default)]
pub(crate) struct Store {
    engine: MemoryEngine,
    /// `max_ts` and locks under way.
    pub(crate) memory: Concurrency,
}

/// A timestamp.
pub(crate) fn ts(ts: u64) -> TimeStamp {
    TimeStamp(ts)
}

/// A timestamp of so many milliseconds.
pub(crate) fn ms(ms: u64) -> TimeStamp {
    TimeStamp::compose(ms, 0)
}

/// A key or value.
pub(crate) fn bytes(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

/// Some of them.
pub(crate) fn list<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Vec<Bytes> {
    items.into_iter().map(bytes).collect()
}

/// A mutation.
pub(crate) fn mutation(op: MutationOp, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Mutation {
    Mutation { op, key: bytes(key), value: bytes(value), ..Mutation::default() }
}

/// A put.
pub(crate) fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Mutation {
    mutation(MutationOp::Put, key, value)
}

/// A plain prewrite at `start_ts` with a time to live of a second, whose first key is the primary.
pub(crate) fn prewrite(start_ts: u64, mutations: Vec<Mutation>) -> Prewrite {
    let primary = mutations.first().map(|mutation| mutation.key.clone()).unwrap_or_default();
    Prewrite { mutations, primary, start_ts: ts(start_ts), lock_ttl: 1000, ..Prewrite::default() }
}

/// A put's record with the value in it.
pub(crate) fn put_record(start_ts: u64, value: impl AsRef<[u8]>) -> Write {
    Write { short_value: Some(bytes(value)), ..Write::new(WriteKind::Put, ts(start_ts)) }
}

/// The error about a key in a result.
pub(crate) fn key_error<T: std::fmt::Debug>(result: Result<T, Error>) -> KeyError {
    match result {
        Err(Error::Key(error)) => error,
        other => panic!("{other:?} is no error about a key"),
    }
}

impl Store {
    /// With nothing in it.
    pub(crate) fn new() -> Store {
        Store::default()
    }

    /// A view of now.
    pub(crate) fn snapshot(&self) -> std::sync::Arc<dyn engine::Snapshot> {
        self.engine.snapshot().unwrap()
    }

    /// Applies changes.
    pub(crate) fn apply(&self, changes: &[Modify]) {
        let mut batch = WriteBatch::new();
        for change in changes {
            match change.clone() {
                Modify::Put { cf, key, value } => batch.put(cf, key, value),
                Modify::Delete { cf, key } => batch.delete(cf, key),
                Modify::DeleteRange { .. } => panic!("no command removes ranges"),
            }
        }
        self.engine.write(batch).unwrap();
    }

    /// Runs a command and does not apply its changes.
    ///
    /// Every changed key must be one whose latch the command asked for.
    pub(crate) fn decide<C: Command>(&mut self, command: &C) -> Result<Outcome<C::Answer>, Error> {
        if let Some(ts) = command.raises_max_ts() {
            self.memory.raise_max_ts(ts);
        }
        let outcome = command.run(self.snapshot().as_ref(), &self.memory)?;
        let latched: Vec<Key> = command.keys().into_iter().map(Key::new).collect();
        for change in &outcome.changes {
            let (cf, stored) = match change {
                Modify::Put { cf, key, .. } | Modify::Delete { cf, key } => (*cf, &key[..]),
                Modify::DeleteRange { .. } => panic!("no command removes ranges"),
            };
            let encoded = if cf == Cf::Lock { stored } else { split_version(stored).unwrap().0 };
            let is_latched = latched.iter().any(|key| key.encoded() == encoded);
            assert!(is_latched, "{change:?} changes a key without its latch");
        }
        Ok(outcome)
    }

    /// Runs a command and applies its changes.
    pub(crate) fn run<C: Command>(&mut self, command: &C) -> Result<C::Answer, Error> {
        let outcome = self.decide(command)?;
        self.apply(&outcome.changes);
        Ok(outcome.answer)
    }

    /// Prewrites, and releases what it left in memory.
    pub(crate) fn prewrite(&mut self, command: &Prewrite) -> PrewriteAnswer {
        let answer = self.run(command).unwrap();
        self.memory.release(&answer.memory_locks);
        answer
    }

    /// Prewrites, which must succeed.
    pub(crate) fn prewritten(&mut self, command: &Prewrite) -> PrewriteAnswer {
        let answer = self.prewrite(command);
        assert_eq!(answer.errors, []);
        answer
    }

    /// Prewrites, which must fail with one error.
    pub(crate) fn refused(&mut self, command: &Prewrite) -> KeyError {
        let before = self.all();
        let mut answer = self.prewrite(command);
        assert_eq!(self.all(), before, "a refused prewrite changed something");
        assert_eq!(answer.errors.len(), 1, "{:?}", answer.errors);
        answer.errors.remove(0)
    }

    /// Puts a lock there.
    pub(crate) fn put_lock(&self, key: impl AsRef<[u8]>, lock: &Lock) {
        let mut changes = Changes::new();
        changes.put_lock(&Key::new(bytes(key)), lock);
        self.apply(&changes.into_modifies());
    }

    /// Puts a record there.
    pub(crate) fn put_write(&self, key: impl AsRef<[u8]>, commit_ts: u64, write: &Write) {
        let mut changes = Changes::new();
        changes.put_write(&Key::new(bytes(key)), ts(commit_ts), write);
        self.apply(&changes.into_modifies());
    }

    /// Puts a value there.
    pub(crate) fn put_value(&self, key: impl AsRef<[u8]>, start_ts: u64, value: impl AsRef<[u8]>) {
        let mut changes = Changes::new();
        changes.put_value(&Key::new(bytes(key)), ts(start_ts), bytes(value));
        self.apply(&changes.into_modifies());
    }

    /// A version as the course's fixtures have it: a value beside its record.
    pub(crate) fn put_committed(
        &self,
        key: impl AsRef<[u8]>,
        start_ts: u64,
        commit_ts: u64,
        value: impl AsRef<[u8]>,
    ) {
        self.put_value(&key, start_ts, value);
        self.put_write(&key, commit_ts, &Write::new(WriteKind::Put, ts(start_ts)));
    }

    /// A prewritten key as the course's fixtures have it: a value and a lock with an empty primary.
    pub(crate) fn put_prewritten(
        &self,
        key: impl AsRef<[u8]>,
        start_ts: u64,
        value: impl AsRef<[u8]>,
    ) {
        self.put_value(&key, start_ts, value);
        self.put_lock(&key, &Lock::new(LockKind::Put, "", ts(start_ts), 0));
    }

    /// The lock of a key.
    pub(crate) fn lock(&self, key: impl AsRef<[u8]>) -> Option<Lock> {
        let found = self.snapshot().get(Family::Lock, Key::new(bytes(key)).encoded()).unwrap();
        found.map(|bytes| Lock::decode(&bytes).unwrap())
    }

    /// The record of a key at `commit_ts`.
    pub(crate) fn write(&self, key: impl AsRef<[u8]>, commit_ts: u64) -> Option<Write> {
        let stored = Key::new(bytes(key)).at(ts(commit_ts));
        let found = self.snapshot().get(Family::Write, &stored).unwrap();
        found.map(|bytes| Write::decode(&bytes).unwrap())
    }

    /// The value beside the records of a key.
    pub(crate) fn value(&self, key: impl AsRef<[u8]>, start_ts: u64) -> Option<Bytes> {
        self.snapshot().get(Family::Default, &Key::new(bytes(key)).at(ts(start_ts))).unwrap()
    }

    /// Everything, as it is stored.
    pub(crate) fn all(&self) -> Vec<(Family, Bytes, Bytes)> {
        let mut all = Vec::new();
        for family in [Family::Default, Family::Lock, Family::Write] {
            let mut iter = self.snapshot().iter(family, &KeyRange::all()).unwrap();
            let mut found = iter.seek_to_first().unwrap();
            while found {
                all.push((family, iter.key_bytes(), iter.value_bytes()));
                found = iter.next().unwrap();
            }
        }
        all
    }

    /// How many pairs there are in a family.
    pub(crate) fn len(&self, family: Family) -> usize {
        self.all().iter().filter(|(of, _, _)| *of == family).count()
    }

    /// A snapshot read.
    pub(crate) fn get(&self, key: impl AsRef<[u8]>, version: u64) -> Result<Option<Bytes>, Error> {
        Read::at(ts(version)).get(self.snapshot().as_ref(), &bytes(key))
    }

    /// A snapshot read of something readable.
    pub(crate) fn got(&self, key: impl AsRef<[u8]>, version: u64) -> Option<Bytes> {
        self.get(key, version).unwrap()
    }

    /// A snapshot scan.
    pub(crate) fn scan(
        &self,
        start: impl AsRef<[u8]>,
        end: impl AsRef<[u8]>,
        version: u64,
        options: &ScanOptions,
    ) -> Vec<Result<KvPair, KeyError>> {
        let range = KeyRange::new(bytes(start), bytes(end));
        Read::at(ts(version)).scan(self.snapshot().as_ref(), &range, options).unwrap()
    }
}
