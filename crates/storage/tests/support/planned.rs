//! An engine in memory whose changes are refused, or strike a bug, as planned.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex},
};

use engine::{Engine, Error, Family, MemoryEngine, Result, Snapshot, Statistics, WriteBatch};
use types::{Bytes, KeyRange};

/// The engine.
pub(crate) struct PlannedEngine {
    pub(crate) memory: MemoryEngine,
    plan: Mutex<VecDeque<Change>>,
}

/// What a write or delete-range does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Succeeds.
    Done,
    /// Is refused because the disk is full; nothing is written.
    DiskFull,
    /// Strikes a bug.
    Panic,
}

impl PlannedEngine {
    /// An empty engine without plans.
    pub(crate) fn new() -> Arc<PlannedEngine> {
        Arc::new(PlannedEngine { memory: MemoryEngine::with_journal(), plan: Mutex::default() })
    }

    /// What the next writes and delete-ranges do, in order; later ones succeed.
    pub(crate) fn plan(&self, changes: &[Change]) {
        *self.plan.lock().unwrap() = changes.iter().copied().collect();
    }

    fn change(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let planned = self.plan.lock().unwrap().pop_front().unwrap_or(Change::Done);
        match planned {
            Change::Done => change(),
            Change::DiskFull => Err(Error::DiskFull { path: "test".into() }),
            Change::Panic => panic!("a bug in the engine"),
        }
    }
}

impl fmt::Debug for PlannedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlannedEngine")
    }
}

impl Engine for PlannedEngine {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.memory.snapshot()
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.change(|| self.memory.write(batch))
    }

    fn sync(&self) -> Result<()> {
        self.memory.sync()
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        self.change(|| self.memory.delete_range(family, range))
    }

    fn flush(&self) -> Result<()> {
        self.memory.flush()
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.memory.approximate_size(family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.memory.middle_key(family, range)
    }

    fn statistics(&self) -> Statistics {
        self.memory.statistics()
    }
}
