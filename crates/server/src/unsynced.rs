//! `storage.sync = "os"`: an engine and files whose writes count as durable once the operating system has them.
//!
//! For development, where a power cut may take the last seconds with it. A killed process still loses nothing.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{Engine, Family, Result, Snapshot, Statistics, WriteBatch};
use runtime::{
    Fs,
    fs::{File, FileLock},
};
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

/// Files that are not waited for.
#[derive(Debug)]
pub(crate) struct UnsyncedFs(pub(crate) Arc<dyn Fs>);

impl Fs for UnsyncedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path)?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    /// Returns at once.
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        self.0.lock(path)
    }
}

/// A file that is not waited for.
#[derive(Debug)]
struct UnsyncedFile(Arc<dyn File>);

impl File for UnsyncedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    /// Returns at once.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
