//! Appends that come just while entries are written again: between the read of an entry and its new group, and between
//! the new group and its end on the disk.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use engine::raft_log::{LogBatch, RaftLog};
use runtime::{File, Fs, fs::FileLock, sim::SimFs};
use types::Bytes;

use crate::model::{Model, Op, batch, dir, entries, open, small};

/// A moment of I/O.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Read,
    Sync,
}

type Hook = Box<dyn FnOnce() + Send>;

/// What is to be done at the next such moment.
#[derive(Clone, Default)]
struct Trap(Arc<Mutex<Option<(Moment, Hook)>>>);

impl Trap {
    fn set(&self, moment: Moment, hook: Hook) {
        *self.0.lock().unwrap() = Some((moment, hook));
    }

    fn spring(&self, now: Moment) {
        let hook = self.0.lock().unwrap().take_if(|(moment, _)| *moment == now);
        if let Some((_, hook)) = hook {
            hook();
        }
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trap")
    }
}

/// A file system with a trap.
#[derive(Clone, Debug)]
struct TrappedFs {
    inner: SimFs,
    trap: Trap,
}

impl Fs for TrappedFs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inner = self.inner.open(path)?;
        Ok(Arc::new(TrappedFile { inner, trap: self.trap.clone() }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FileLock>> {
        self.inner.lock(path)
    }
}

#[derive(Debug)]
struct TrappedFile {
    inner: Arc<dyn File>,
    trap: Trap,
}

impl File for TrappedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(bytes, offset)?;
        self.trap.spring(Moment::Read);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.trap.spring(Moment::Sync);
        self.inner.sync()
    }
}

/// What may happen to region 1, which has the entries 1 to 6 and a state in the oldest segment.
fn changes() -> Vec<Vec<Op>> {
    let region = 1;
    vec![
        vec![],
        vec![Op::CompactTo { region, index: 3 }],
        vec![Op::CompactTo { region, index: 6 }],
        vec![Op::Append { region, entries: entries(2, 3, &["new"]) }],
        vec![Op::Append { region, entries: entries(2, 1, &["a", "b", "c", "d", "e", "f", "g"]) }],
        vec![Op::Append { region, entries: entries(2, 7, &["one more"]) }],
        vec![Op::Reset { region, index: 40, term: 4 }],
        vec![Op::Remove { region }],
        vec![Op::Remove { region }, Op::Append { region, entries: entries(1, 1, &["again"]) }],
        vec![Op::PutState { region, state: Bytes::from_static(b"later") }],
    ]
}

#[test]
fn what_changes_while_it_is_written_again_stays_changed() {
    for moment in [Moment::Read, Moment::Sync] {
        for ops in changes() {
            rewrite(moment, &ops);
        }
    }
}

/// Fills a log until region 1 is written again, and applies `ops` just then.
fn rewrite(moment: Moment, ops: &[Op]) {
    let fs = SimFs::new();
    let trap = Trap::default();
    let trapped: Arc<dyn Fs> = Arc::new(TrappedFs { inner: fs.clone(), trap: trap.clone() });
    let (log, mut writer) = RaftLog::open(trapped, dir(), &small(), &mut |_| {}).unwrap();
    let mut first = LogBatch::new();
    first.append(1, entries(1, 1, &["1", "22", "333", "4444", "55555", "666666"]));
    first.put_state(1, Bytes::from_static(b"first"));
    log.append(first).unwrap();
    let mut index = 0;
    while log.statistics().disk_bytes < small().purge_bytes + 2048 {
        index += 1;
        let mut batch = LogBatch::new();
        batch.append(9, entries(1, index, &["0123456789012345678901234567890123456789"]));
        batch.compact_to(9, index - 1);
        log.append(batch).unwrap();
        writer.sync().unwrap();
    }
    let mut model = Model::of(&log).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    while !done.load(Ordering::Relaxed) {
        let (log, ops, done) = (log.clone(), ops.to_vec(), done.clone());
        let hook = move || {
            // Other syncs come first: of footers, of a spare.
            if moment == Moment::Read || 0 < log.statistics().rewritten_bytes {
                log.append(batch(&ops)).unwrap();
                done.store(true, Ordering::Relaxed);
            }
        };
        trap.set(moment, Box::new(hook));
        assert!(writer.maintain(10_000).unwrap().more);
    }
    model.apply(ops);
    assert_eq!(Model::of(&log).unwrap(), model, "{moment:?}, {ops:?}");
    writer.sync().unwrap();
    while writer.maintain(10_000).unwrap().more {}
    assert_eq!(Model::of(&log).unwrap(), model, "{moment:?}, {ops:?}");
    let (log, _writer) = open(&fs, &small()).unwrap();
    assert_eq!(Model::of(&log).unwrap(), model, "{moment:?}, {ops:?}");
}
