//! An engine that fails, waits and remembers on demand: proves what its users do with failures and in which order.
//!
//! [`FaultyEngine`] passes every call on to another engine. A test can hold syncs at a gate, let the nth write or
//! sync fail, and read back the order in which things happened, with notes of its own in between. That is how one
//! shows that no answer leaves before the sync that covers it has returned.
//!
//! An injected failure poisons this engine for good, as a real one would (contract point 4).

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use types::{Bytes, KeyRange};

use crate::{Engine, Error, Family, Result, Snapshot, Statistics, WriteBatch, poison::Poison};

/// The engine. Tests keep an `Arc` of it and give a clone to what they test.
#[derive(Debug)]
pub struct FaultyEngine {
    inner: Arc<dyn Engine>,
    poison: Poison,
    state: Mutex<State>,
    changed: Condvar,
}

/// Something that happened. Writes and syncs are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Write n returned: its batch is visible.
    Written(usize),
    /// Write n failed.
    WriteFailed(usize),
    /// Sync n began.
    SyncBegan(usize),
    /// Sync n returned: what was written before it began is durable.
    Synced(usize),
    /// Sync n failed.
    SyncFailed(usize),
    /// What a test noted.
    Note(String),
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Event>,
    writes: usize,
    syncs: usize,
    /// Syncs that wait at the gate.
    waiting: usize,
    is_shut: bool,
    fail_write: Option<usize>,
    fail_sync: Option<usize>,
}

impl FaultyEngine {
    /// Wraps `inner`; without orders it behaves like it.
    pub fn new(inner: Arc<dyn Engine>) -> Arc<FaultyEngine> {
        Arc::new(FaultyEngine {
            inner,
            poison: Poison::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Shuts the gate: syncs that begin from now on wait until [`release_syncs`](FaultyEngine::release_syncs).
    pub fn hold_syncs(&self) {
        self.state().is_shut = true;
    }

    /// Opens the gate.
    pub fn release_syncs(&self) {
        self.state().is_shut = false;
        self.changed.notify_all();
    }

    /// Returns once `count` syncs wait at the gate.
    pub fn wait_for_held_syncs(&self, count: usize) {
        let mut state = self.state();
        while state.waiting < count {
            state = self.changed.wait(state).expect("no thread panics with the state in hand");
        }
    }

    /// Lets the `nth` write from now fail; 1 is the next one.
    pub fn fail_write(&self, nth: usize) {
        let mut state = self.state();
        state.fail_write = Some(state.writes + nth);
    }

    /// Lets the `nth` sync from now fail; 1 is the next one. A held sync fails when the gate opens.
    pub fn fail_sync(&self, nth: usize) {
        let mut state = self.state();
        state.fail_sync = Some(state.syncs + nth);
    }

    /// Adds a note to the events.
    pub fn note(&self, note: impl Into<String>) {
        self.state().events.push(Event::Note(note.into()));
    }

    /// What has happened so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    /// Writes that were called.
    pub fn writes(&self) -> usize {
        self.state().writes
    }

    /// Syncs that were called.
    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the state in hand")
    }

    fn fail(&self, operation: &'static str) -> Error {
        let source = Arc::new(io::Error::other("this failure was injected"));
        self.poison.set(Error::Io { operation, path: PathBuf::from("faulty"), source })
    }
}

impl Engine for FaultyEngine {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.poison.check()?;
        self.inner.snapshot()
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.poison.check()?;
        let (number, fails) = {
            let mut state = self.state();
            state.writes += 1;
            (state.writes, state.fail_write == Some(state.writes))
        };
        let result = if fails { Err(self.fail("write")) } else { self.inner.write(batch) };
        let event =
            if result.is_ok() { Event::Written(number) } else { Event::WriteFailed(number) };
        self.state().events.push(event);
        result
    }

    fn sync(&self) -> Result<()> {
        self.poison.check()?;
        let (number, fails) = {
            let mut state = self.state();
            state.syncs += 1;
            let number = state.syncs;
            state.events.push(Event::SyncBegan(number));
            state.waiting += 1;
            self.changed.notify_all();
            while state.is_shut {
                state = self.changed.wait(state).expect("no thread panics with the state in hand");
            }
            state.waiting -= 1;
            (number, state.fail_sync == Some(number))
        };
        let result = if fails { Err(self.fail("sync")) } else { self.inner.sync() };
        let event = if result.is_ok() { Event::Synced(number) } else { Event::SyncFailed(number) };
        self.state().events.push(event);
        result
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        self.poison.check()?;
        self.inner.delete_range(family, range)
    }

    fn flush(&self) -> Result<()> {
        self.poison.check()?;
        self.inner.flush()
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.poison.check()?;
        self.inner.approximate_size(family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.poison.check()?;
        self.inner.middle_key(family, range)
    }

    fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryEngine;

    fn batch() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, "k", "v");
        batch
    }

    #[test]
    fn a_held_sync_returns_when_the_gate_opens() {
        let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()));
        engine.hold_syncs();
        let waiting = runtime::task::spawn("syncer", {
            let engine = engine.clone();
            move || engine.sync()
        });
        engine.wait_for_held_syncs(1);
        engine.write(batch()).unwrap();
        engine.note("while it waits");
        engine.release_syncs();
        waiting.unwrap().join().unwrap().unwrap();
        let expected = [
            Event::SyncBegan(1),
            Event::Written(1),
            Event::Note("while it waits".to_owned()),
            Event::Synced(1),
        ];
        assert_eq!(engine.events(), expected);
    }

    #[test]
    fn an_injected_failure_is_final() {
        let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()));
        engine.fail_sync(2);
        engine.sync().unwrap();
        assert!(matches!(engine.sync(), Err(Error::Io { .. })));
        assert!(matches!(engine.sync(), Err(Error::Poisoned { .. })));
        assert!(matches!(engine.write(batch()), Err(Error::Poisoned { .. })));
        assert!(matches!(engine.snapshot(), Err(Error::Poisoned { .. })));
        assert_eq!(
            engine.events(),
            [Event::SyncBegan(1), Event::Synced(1), Event::SyncBegan(2), Event::SyncFailed(2)]
        );

        let engine = FaultyEngine::new(Arc::new(MemoryEngine::new()));
        engine.fail_write(1);
        assert!(matches!(engine.write(batch()), Err(Error::Io { .. })));
        assert!(matches!(engine.sync(), Err(Error::Poisoned { .. })));
        assert_eq!((engine.writes(), engine.syncs()), (1, 0));
    }
}
