//! Refuses writes while there is still room on the disk.
//!
//! An engine that runs into a full disk in the middle of a write can't go on: its journal ends in half a record.
//! Refusing new batches while some room is left keeps the engine alive, readable and able to flush, and makes
//! [`Error::DiskFull`] mean what it says: nothing was written, try again later.
//!
//! The machine is asked once per few mebibytes of batches, not per batch. Other users of the disk can still fill
//! it in between; then the write fails and poisons the engine.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use crate::{Error, Result};

/// Bytes of batches between two questions to the machine.
const STEP: u64 = 4 << 20;

/// Watches the free space of one directory.
#[derive(Debug)]
pub(crate) struct Space {
    dir: PathBuf,
    reserve: u64,
    /// Bytes that may be written before the machine is asked again.
    allowance: AtomicI64,
}

impl Space {
    pub(crate) fn new(dir: &Path, reserve: u64) -> Space {
        Space { dir: dir.to_owned(), reserve, allowance: AtomicI64::new(0) }
    }

    /// Takes `bytes` of the allowance; an error if they would cut into the reserve.
    pub(crate) fn take(&self, bytes: u64) -> Result<()> {
        if self.reserve == 0 {
            return Ok(());
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.allowance.fetch_sub(bytes, Ordering::Relaxed);
        if bytes <= before {
            return Ok(());
        }
        let free = self.free()?;
        if free < self.reserve.saturating_add(bytes as u64) {
            self.allowance.store(0, Ordering::Relaxed);
            return Err(Error::DiskFull { path: self.dir.clone() });
        }
        let rest = (free - self.reserve - bytes as u64).min(STEP);
        self.allowance.store(rest as i64, Ordering::Relaxed);
        Ok(())
    }

    fn free(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.dir).map_err(|error| Error::Io {
            operation: "question for the free space",
            path: self.dir.clone(),
            source: Arc::new(io::Error::from(error)),
        })?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_once_the_reserve_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Space::new(dir.path(), 0).take(u64::MAX).is_ok(), "no reserve, no questions");
        assert!(Space::new(dir.path(), 1).take(100).is_ok());
        let never = Space::new(dir.path(), 1 << 62);
        assert!(matches!(never.take(1), Err(Error::DiskFull { .. })));
        assert!(matches!(never.take(1), Err(Error::DiskFull { .. })), "asked again each time");
    }
}
