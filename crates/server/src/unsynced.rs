//! `storage.sync = "os"`: an engine whose writes count as durable once the operating system has them.
//!
//! For development, where a power cut may take the last seconds with it. A killed process still loses nothing.

use std::sync::Arc;

use engine::{Engine, Family, Result, Snapshot, Statistics, WriteBatch};
use types::{Bytes, KeyRange};

/// An engine that does not wait for the disk.
#[derive(Debug)]
pub(crate) struct Unsynced(pub(crate) Arc<dyn Engine>);

impl Engine for Unsynced {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.0.snapshot()
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        self.0.write(batch)
    }

    /// The point of this type: returns at once.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        self.0.delete_range(family, range)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.0.approximate_size(family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.0.middle_key(family, range)
    }

    fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}
