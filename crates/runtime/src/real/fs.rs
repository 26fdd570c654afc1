//! The machine's file system: `pread`, `pwrite`, `fdatasync`, `flock`.
//!
//! Nothing is cached and nothing is retried: what the kernel answers is what the caller gets.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::RealClock;
use crate::{Clock, File, Fs, fs::FileLock};

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl RealFs {
    /// The machine's file system.
    pub fn new() -> RealFs {
        RealFs
    }
}

impl Fs for RealFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(open_or_create(path)?)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(or_here(dir))?
            .map(|entry| Ok(dir.join(entry?.file_name())))
            .collect::<io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(or_here(dir))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        let file = open_or_create(path)?;
        let metadata = file.metadata()?;
        // On some network file systems `flock` locks out other processes only; the list locks out ourselves.
        let Some(entry) = HeldEntry::take((metadata.dev(), metadata.ino())) else {
            return Ok(None);
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // For people who find the lock taken. That it can't be written (a full disk) does not undo the lock.
        let _ = write_holder(&file);
        Ok(Some(FileLock::new((file, entry))))
    }
}

struct RealFile(fs::File);

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
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

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn open_or_create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// The parent of `file.txt` is `""`, which the kernel does not take for the current folder.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

/// The lock files that this process holds, as (device, inode).
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn held() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One entry of [`HELD`], taken out again when it is dropped.
struct HeldEntry((u64, u64));

impl HeldEntry {
    fn take(file: (u64, u64)) -> Option<HeldEntry> {
        held().insert(file).then(|| HeldEntry(file))
    }
}

impl Drop for HeldEntry {
    fn drop(&mut self) {
        held().remove(&self.0);
    }
}

fn write_holder(mut file: &fs::File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "pid {}, since {}", process::id(), utc(RealClock::new().wall()))
}

/// A moment as RFC 3339 has it, to the second: `2026-01-31T08:15:00Z`.
fn utc(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Days are counted from 0000-03-01 on, so that the leap day is the last one of a year of 400-year periods.
    let days = seconds / 86_400 + 719_468;
    let (period, day_of_period) = (days / 146_097, days % 146_097);
    let year_of_period = (day_of_period - day_of_period / 1460 + day_of_period / 36_524
        - day_of_period / 146_096)
        / 365;
    let day_of_year =
        day_of_period - (365 * year_of_period + year_of_period / 4 - year_of_period / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = period * 400 + year_of_period + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(utc(Duration::from_secs(seconds)), text);
        }
    }
}
