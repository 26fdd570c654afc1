//! Files, as far as a log, a snapshot and a lock need them.
//!
//! What a crash may leave: everything up to the last [`File::sync`] that returned, and any subset of the sectors
//! written since, each old, new or torn. A created, renamed or removed name survives once [`Fs::sync_dir`] of its
//! folder has returned; before that, either state may come back.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file system.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Creates `dir` and the folders above it that are missing.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Opens `path` for reading and writing, creating it if it is missing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Whether `path` exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// The files and folders in `dir`, in the order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Gives `from` the name `to`, replacing what has it, in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the advisory lock of `path` (created if missing) until the result is dropped or the process ends.
    /// `Ok(None)`: another process, or another caller in this one, holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>>;

    /// Reads a whole file; `None` if it is missing.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        if !self.exists(path)? {
            return Ok(None);
        }
        let file = self.open(path)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// Replaces a small file durably: after a crash it has the old bytes or the new ones.
    ///
    /// Writes `path` + `.tmp`, syncs it, renames it, syncs the folder.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let file = self.open(&temporary)?;
        file.set_len(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync()?;
        self.rename(&temporary, path)?;
        self.sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }
}

/// An open file, shared by its users. Offsets are explicit; there is no cursor.
pub trait File: fmt::Debug + Send + Sync {
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `bytes` from `offset` on; an error if the file ends before.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes `bytes` at `offset`, growing the file if needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts or grows (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns once everything written before is durable (`fdatasync`).
    ///
    /// After an error nothing may be assumed durable and the call must not be repeated in the hope of a better
    /// answer: the kernel has forgotten the pages.
    fn sync(&self) -> io::Result<()>;
}

/// Holds a lock until it is dropped.
pub struct FileLock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Send + Sync>);

impl FileLock {
    /// A lock that is held as long as `guard` lives.
    pub fn new(guard: impl Send + Sync + 'static) -> FileLock {
        FileLock(Box::new(guard))
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileLock")
    }
}
