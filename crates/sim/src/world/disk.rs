//! The disk of one machine: a queue of jobs in front of a file system that forgets what was not synced.
//!
//! A process hands over *jobs* (a few writes that end with a sync, say) and is told when each is done. Jobs are done
//! one after the other, in order, each taking its time; while one is under way, nothing of the later ones has reached
//! the file system. [`SimFs`] says what a crash leaves of written and not yet synced bytes: old, new, or torn, sector
//! by sector; and at a crash some of the waiting jobs may have been begun as well, so that a later write may survive
//! an earlier one.
//!
//! A job that fails fails the disk: a failed sync has forgotten data, and no later success says otherwise. The
//! process must stop. Reading is only done at a start, from the file system itself.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use runtime::{File, Fs, Rng, sim::SimFs};

use super::{network::exponential, queue::Time};
use crate::rng::index;

/// How slow the disk is.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskOptions {
    /// Microseconds that a job takes at least.
    pub latency_min: u64,
    /// Microseconds that a job takes more than that, on average.
    pub latency_mean: u64,
    /// How often a job takes fifty times as long.
    pub slow: f64,
}

/// One thing to do to a file of the machine's only folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Writes at an offset; the file is created if it is missing.
    Write {
        /// The file.
        file: String,
        /// From where on.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// Cuts the file.
    Truncate {
        /// The file.
        file: String,
        /// Bytes that stay.
        len: u64,
    },
    /// Makes the file's bytes durable.
    Sync {
        /// The file.
        file: String,
    },
    /// Makes the names of files durable.
    SyncNames,
    /// Replaces a small file durably, in one step.
    Replace {
        /// The file.
        file: String,
        /// Its new content.
        bytes: Bytes,
    },
    /// Removes the file, if it is there.
    Remove {
        /// The file.
        file: String,
    },
}

/// Names a job towards the process that gave it.
pub type JobId = u64;

/// A disk with its waiting jobs.
#[derive(Debug)]
pub struct Disk {
    fs: SimFs,
    open: BTreeMap<String, Arc<dyn File>>,
    options: DiskOptions,
    rng: Rng,
    jobs: VecDeque<(JobId, Vec<DiskOp>)>,
    /// When the last job will be done.
    busy_until: Time,
    /// Bytes that all files together may have.
    capacity: Option<u64>,
    failed: bool,
}

impl Disk {
    /// An empty disk.
    pub fn new(options: DiskOptions, rng: Rng) -> Disk {
        Disk {
            fs: SimFs::new(),
            open: BTreeMap::new(),
            options,
            rng,
            jobs: VecDeque::new(),
            busy_until: 0,
            capacity: None,
            failed: false,
        }
    }

    /// Replaces the latencies; jobs that wait keep theirs.
    pub fn set_options(&mut self, options: DiskOptions) {
        self.options = options;
    }

    /// Takes a job at `now` and says when it will be done; [`finish`](Disk::finish) is to be called then.
    pub fn submit(&mut self, now: Time, job: JobId, ops: Vec<DiskOp>) -> Time {
        let mut latency =
            self.options.latency_min + exponential(&mut self.rng, self.options.latency_mean);
        if self.rng.chance(self.options.slow) {
            latency *= 50;
        }
        self.jobs.push_back((job, ops));
        self.busy_until = self.busy_until.max(now) + latency;
        self.busy_until
    }

    /// Does the oldest job. Its id, and whether it succeeded.
    pub fn finish(&mut self) -> (JobId, io::Result<()>) {
        let (job, ops) = self.jobs.pop_front().expect("a job is finished once");
        (job, self.perform(&ops))
    }

    /// No job that is given from now on is done before `until`.
    pub fn stall(&mut self, until: Time) {
        self.busy_until = self.busy_until.max(until);
    }

    /// The next sync fails.
    pub fn fail_next_sync(&mut self) {
        self.fs.fail_sync(0);
    }

    /// Leaves room for `room` more bytes, or for any number.
    pub fn set_room(&mut self, room: Option<u64>) {
        let used = self.used();
        self.capacity = room.map(|room| used + room);
        self.fs.set_capacity(self.capacity);
    }

    /// Turns one bit of a file.
    pub fn flip_bit(&mut self, file: &str, bit: u64) {
        let bit = usize::try_from(bit).expect("files of simulated disks are small");
        self.fs.flip_bit(&path(file), bit).expect("only files that exist are damaged");
    }

    /// The power goes, or the process alone. What was not synced is old, new or torn.
    pub fn crash(&mut self) {
        // How far the machine got with what was handed over and never reported done.
        let total: usize = self.jobs.iter().map(|(_, ops)| ops.len()).sum();
        if total > 0 && self.rng.chance(0.7) {
            self.fs.cut_power_after(index(&mut self.rng, total * 2 + 1) as u64);
            while let Some((_, ops)) = self.jobs.pop_front() {
                if self.perform(&ops).is_err() {
                    break;
                }
            }
        }
        self.fs = self.fs.crash(&mut self.rng);
        self.forget();
    }

    /// The process stops and the machine does not: everything that was handed over is written in the end.
    pub fn stop(&mut self) {
        while let Some((_, ops)) = self.jobs.pop_front() {
            if self.perform(&ops).is_err() {
                break;
            }
        }
        // What a failed sync has forgotten is not seen again after a restart of the process; to be strict, neither is
        // anything else that no sync vouches for.
        self.fs = self.fs.crash(&mut self.rng);
        self.forget();
    }

    /// An empty disk takes this one's place.
    pub fn wipe(&mut self) {
        self.fs = SimFs::new();
        self.forget();
    }

    /// The files and their sizes.
    pub fn files(&self) -> Vec<(String, u64)> {
        let paths = self.fs.list(Path::new("/")).expect("the root folder exists");
        let size = |path: &Path| self.fs.open(path).and_then(|file| file.len()).unwrap_or(0);
        paths
            .iter()
            .map(|path| (path.to_string_lossy().trim_start_matches('/').to_owned(), size(path)))
            .collect()
    }

    /// The whole content of a file, at a start.
    pub fn read(&self, file: &str) -> Option<Vec<u8>> {
        self.fs.read(&path(file)).expect("reading does not fail on this disk")
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.files().iter().map(|(_, size)| size).sum()
    }

    fn forget(&mut self) {
        self.fs.set_capacity(self.capacity);
        self.open.clear();
        self.jobs.clear();
        self.busy_until = 0;
        self.failed = false;
    }

    fn perform(&mut self, ops: &[DiskOp]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the disk failed before"));
        }
        let result = ops.iter().try_for_each(|op| self.perform_op(op));
        self.failed = result.is_err();
        result
    }

    fn perform_op(&mut self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Write { file, offset, bytes } => self.file(file)?.write_all_at(bytes, *offset),
            DiskOp::Truncate { file, len } => self.file(file)?.set_len(*len),
            DiskOp::Sync { file } => self.file(file)?.sync(),
            DiskOp::SyncNames => self.fs.sync_dir(Path::new("/")),
            DiskOp::Replace { file, bytes } => {
                self.open.remove(file);
                self.fs.replace(&path(file), bytes)
            }
            DiskOp::Remove { file } => {
                self.open.remove(file);
                match self.fs.remove(&path(file)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    result => result,
                }
            }
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&dyn File> {
        if !self.open.contains_key(name) {
            let file = self.fs.open(&path(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(&**self.open.get(name).expect("it was opened above"))
    }
}

fn path(file: &str) -> PathBuf {
    Path::new("/").join(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn disk(seed: u64) -> Disk {
        let options = DiskOptions { latency_min: 10, latency_mean: 100, slow: 0.1 };
        Disk::new(options, Rng::new(seed))
    }

    fn append(bytes: &'static [u8], offset: u64) -> Vec<DiskOp> {
        let file = String::from("log");
        vec![
            DiskOp::Write { file: file.clone(), offset, bytes: Bytes::from_static(bytes) },
            DiskOp::Sync { file },
            DiskOp::SyncNames,
        ]
    }

    #[test]
    fn jobs_are_done_in_order_and_one_after_the_other() {
        let mut disk = disk(1);
        let done: Vec<Time> = (0..50).map(|job| disk.submit(5, job, Vec::new())).collect();
        assert!(done.is_sorted() && done.windows(2).all(|pair| pair[0] + 10 <= pair[1]));
        assert_eq!((disk.finish().0, disk.finish().0), (0, 1));
    }

    #[test]
    fn what_was_reported_done_survives_and_the_rest_may_or_may_not() {
        let mut left = BTreeSet::new();
        for seed in 0..300 {
            let mut disk = disk(seed);
            disk.submit(0, 1, append(b"one", 0));
            disk.submit(0, 2, append(b"two", 3));
            assert!(disk.finish().1.is_ok());
            disk.crash();
            let log = disk.read("log").expect("it was synced");
            assert!(log.starts_with(b"one"), "{log:?}");
            left.insert(log);
        }
        assert!(left.contains(&b"one"[..]) && left.contains(&b"onetwo"[..]) && left.len() > 2);
    }

    #[test]
    fn a_disk_whose_sync_failed_does_nothing_more() {
        let mut disk = disk(1);
        disk.submit(0, 1, append(b"one", 0));
        disk.submit(0, 2, append(b"two", 3));
        disk.fail_next_sync();
        assert!(disk.finish().1.is_err());
        assert!(disk.finish().1.is_err());
        disk.stop();
        disk.submit(0, 3, append(b"one", 0));
        assert!(disk.finish().1.is_ok(), "a restart finds it usable again");
    }

    #[test]
    fn a_full_disk_fails_the_job_and_has_room_again_later() {
        let mut disk = disk(1);
        disk.set_room(Some(1));
        disk.submit(0, 1, append(b"one", 0));
        assert!(disk.finish().1.is_err());
        disk.stop();
        disk.set_room(None);
        disk.submit(0, 2, append(b"one", 0));
        assert!(disk.finish().1.is_ok());
    }

    #[test]
    fn a_stall_delays_later_jobs() {
        let mut disk = disk(1);
        disk.stall(1_000_000);
        assert!(disk.submit(0, 1, Vec::new()) > 1_000_000);
    }
}
