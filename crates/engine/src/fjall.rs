//! The default engine on disk: fjall, an LSM tree in pure Rust.
//!
//! One database per folder, one keyspace per family, one journal for all of them. A write goes to the journal and
//! the operating system, so that the death of the process loses nothing; [`Engine::sync`] makes the journal
//! durable.
//!
//! fjall is young. What this file does beyond calling it:
//!
//! - **Snapshots are published, not taken.** fjall's visible sequence number also advances when a background
//!   thread installs tables, and can then pass a batch that is half applied. So the snapshot that readers get is
//!   taken once after every write, while no batch is under way, and handed out until the next one. It costs a
//!   reader one reference count.
//! - **Writers wait here, not inside.** fjall waits for its background threads without noticing that they died
//!   (say, of a full disk). A write that would have to wait does so before it enters fjall, where it sees that.
//! - **Damage is a typed error**, and the first one poisons the engine.
//!
//! Versions that a compaction has merged away stay on disk while the published snapshot is older, that is until
//! the next write or flush.

mod iter;
mod journal;
mod manifest;
mod size;

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch,
    PersistMode, Readable,
    config::{CompressionPolicy, HashRatioPolicy, PinningPolicy},
};
use arc_swap::ArcSwap;
use types::{Bytes, KeyRange, limits::DELETE_RANGE_BATCH_BYTES};

use self::{iter::FjallIter, size::Samples};
use crate::{
    Engine, Error, Family, Iter, KEY_BYTES_MAX, Op, Options, Result, Snapshot, Statistics,
    WriteBatch, batch::owned, poison::Poison, row_cache::RowCache, space::Space,
};

/// fjall's own bound is four memtables that wait to become tables; there it stops without looking at its threads.
const SEALED_MEMTABLES_MAX: usize = 2;

/// Likewise: fjall stops at thirty runs of tables that overlap.
const RUNS_MAX: usize = 26;

/// How often a writer looks whether the background threads have caught up: fjall tells nobody.
const POLL: Duration = Duration::from_millis(1);

/// The engine.
pub struct FjallEngine {
    core: Arc<Core>,
    /// Writers take turns: publishing needs a moment at which no batch is under way.
    writing: Mutex<()>,
    published: ArcSwap<FjallSnapshot>,
    space: Space,
    samples: Samples,
    batches: AtomicU64,
    batch_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What engine, snapshots and iterators share; the database is closed with the last of them.
struct Core {
    path: PathBuf,
    database: Database,
    keyspaces: [Keyspace; Family::ALL.len()],
    rows: RowCache,
    poison: Poison,
}

/// A view of the database.
struct FjallSnapshot {
    view: ::fjall::Snapshot,
    /// Counts the published snapshots.
    number: u64,
    core: Arc<Core>,
}

impl FjallEngine {
    /// Opens the database in `dir`, creating it if it is missing.
    ///
    /// Replays the journal. A record that ends in the middle at the end of the journal is dropped: nobody was told
    /// that it is durable. Damage anywhere else is refused where fjall can tell it from that.
    pub fn open(dir: &Path, options: &Options) -> Result<FjallEngine> {
        manifest::verify(dir)?;
        journal::drop_torn_tail(dir)?;
        // fjall trusts parts of what it reads and panics where they are damaged.
        let core = catch_unwind(|| Core::open(dir, options)).unwrap_or_else(|_| {
            Err(Error::Corrupt {
                path: dir.to_owned(),
                detail: "fjall can't make sense of its files".to_owned(),
            })
        })?;
        let core = Arc::new(core);
        let snapshot =
            FjallSnapshot { view: core.database.snapshot(), number: 0, core: core.clone() };
        Ok(FjallEngine {
            core,
            writing: Mutex::default(),
            published: ArcSwap::from_pointee(snapshot),
            space: Space::new(dir, options.disk_reserve_bytes),
            samples: Samples::default(),
            batches: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        })
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no writer panics")
    }

    /// Applies and publishes a batch. The caller holds `writing`.
    fn apply(&self, batch: WriteBatch) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = batch.bytes() as u64;
        self.space.take(bytes)?;
        self.wait_for_background(&batch)?;

        // `Buffer`: handed to the operating system, so that only the machine's death can lose it.
        let mut out = OwnedWriteBatch::with_capacity(core.database.clone(), batch.len())
            .durability(Some(PersistMode::Buffer));
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => {
                    out.insert(core.keyspace(*family), owned(key), owned(value))
                }
                Op::Delete(family, key) => out.remove(core.keyspace(*family), owned(key)),
            }
        }
        out.commit().map_err(|error| core.fail("write of the journal", error))?;
        let number = self.published.load().number + 1;
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => core.rows.write(*family, key, number, Some(value)),
                Op::Delete(family, key) => core.rows.write(*family, key, number, None),
            }
        }
        self.publish(number);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Lets new readers see what was written. The caller holds `writing`.
    fn publish(&self, number: u64) {
        let view = self.core.database.snapshot();
        self.published.store(Arc::new(FjallSnapshot { view, number, core: self.core.clone() }));
    }

    /// Returns when fjall will take the batch without waiting for its threads.
    fn wait_for_background(&self, batch: &WriteBatch) -> Result<()> {
        let mut touched = [false; Family::ALL.len()];
        for op in batch.ops() {
            let (Op::Put(family, ..) | Op::Delete(family, _)) = op;
            touched[*family as usize] = true;
        }
        for family in Family::ALL.into_iter().filter(|family| touched[*family as usize]) {
            let keyspace = self.core.keyspace(family);
            self.core.wait_until(|| {
                keyspace.sealed_memtable_count() <= SEALED_MEMTABLES_MAX
                    && ::fjall::AbstractTree::l0_run_count(&keyspace.tree) <= RUNS_MAX
            })?;
        }
        Ok(())
    }
}

impl Engine for FjallEngine {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.core.poison.check()?;
        Ok(self.published.load_full())
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let _turn = self.writing();
        self.apply(batch)
    }

    fn sync(&self) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        core.database
            .persist(PersistMode::SyncData)
            .map_err(|error| core.fail("sync of the journal", error))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        // The whole range is deleted in one turn, so that no write comes between the keys that are looked up and
        // their removal.
        let _turn = self.writing();
        self.core.poison.check()?;
        let snapshot = self.published.load_full();
        let mut iter = FjallIter::new(&snapshot, family, range);
        let mut more = iter.seek_to_first()?;
        while more {
            let mut batch = WriteBatch::new();
            while more && batch.bytes() < DELETE_RANGE_BATCH_BYTES {
                batch.delete(family, iter.key_bytes());
                more = iter.next()?;
            }
            self.apply(batch)?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        for family in Family::ALL {
            core.keyspace(family)
                .rotate_memtable()
                .map_err(|error| core.fail("rotation of a memtable", error))?;
        }
        for family in Family::ALL {
            core.wait_until(|| core.keyspace(family).sealed_memtable_count() == 0)?;
        }
        // The published snapshot holds the memtables that have just become tables.
        let _turn = self.writing();
        self.publish(self.published.load().number);
        Ok(())
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.core.poison.check()?;
        self.samples.bytes(&self.core, family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.core.poison.check()?;
        let snapshot = self.published.load_full();
        self.samples.middle_key(&snapshot, family, range)
    }

    fn statistics(&self) -> Statistics {
        let database = &self.core.database;
        let tables: u64 = self.core.keyspaces.iter().map(Keyspace::disk_space).sum();
        Statistics {
            batches: self.batches.load(Ordering::Relaxed),
            batch_bytes: self.batch_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            disk_bytes: tables + journal_bytes(&self.core.path),
            memory_bytes: database.write_buffer_size(),
            cache_bytes: database.cache_size() + self.core.rows.bytes(),
        }
    }
}

impl fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallEngine").field("path", &self.core.path).finish_non_exhaustive()
    }
}

impl Snapshot for FjallSnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.core.poison.check()?;
        if KEY_BYTES_MAX < key.len() {
            return Ok(None); // never stored, and fjall panics
        }
        if let Some(known) = self.core.rows.get(family, key, self.number) {
            return Ok(known);
        }
        let found = self.core.read(|| self.view.get(self.core.keyspace(family), key))?;
        self.core.rows.fill(family, key, self.number, found.as_deref());
        Ok(found.map(Bytes::from))
    }

    fn iter(&self, family: Family, range: &KeyRange) -> Result<Box<dyn Iter>> {
        self.core.poison.check()?;
        Ok(Box::new(FjallIter::new(self, family, range)))
    }
}

impl fmt::Debug for FjallSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallSnapshot").field("path", &self.core.path).finish_non_exhaustive()
    }
}

impl Core {
    fn open(dir: &Path, options: &Options) -> Result<Core> {
        let failed = |error| translate("opening of the engine", dir, error);
        let database = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .worker_threads(options.worker_threads.max(1))
            .journal_compression(CompressionType::None)
            .open()
            .map_err(failed)?;
        let create = || {
            // Block indexes and filters stay in memory, and blocks carry a hash index: a point read is what the
            // store does most.
            KeyspaceCreateOptions::default()
                .max_memtable_size(options.memtable_bytes)
                .data_block_hash_ratio_policy(HashRatioPolicy::all(1.33))
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .data_block_compression_policy(if options.compression {
                    CompressionPolicy::new([
                        CompressionType::None,
                        CompressionType::None,
                        CompressionType::Lz4,
                    ])
                } else {
                    CompressionPolicy::disabled()
                })
        };
        let mut keyspaces = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            keyspaces.push(database.keyspace(family.name(), create).map_err(failed)?);
        }
        let keyspaces =
            keyspaces.try_into().unwrap_or_else(|_| unreachable!("one keyspace per family"));
        let rows = RowCache::new(options.row_cache_bytes);
        Ok(Core { path: dir.to_owned(), database, keyspaces, rows, poison: Poison::default() })
    }

    fn keyspace(&self, family: Family) -> &Keyspace {
        &self.keyspaces[family as usize]
    }

    /// Stops the engine after `error`.
    fn fail(&self, operation: &'static str, error: ::fjall::Error) -> Error {
        self.poison.set(translate(operation, &self.path, error))
    }

    /// Reads from tables. Damaged blocks that pass for sound ones make fjall panic here and there.
    fn read<T>(&self, read: impl FnOnce() -> ::fjall::Result<T>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(self.fail("read of a table", error)),
            Err(_) => {
                let detail = "fjall can't make sense of a table".to_owned();
                Err(self.poison.set(Error::Corrupt { path: self.path.clone(), detail }))
            }
        }
    }

    /// Waits for fjall's threads to bring about `done`; an error if they have died.
    fn wait_until(&self, done: impl Fn() -> bool) -> Result<()> {
        while !done() {
            // Does nothing but tell whether the database is poisoned.
            self.database
                .persist(PersistMode::Buffer)
                .map_err(|error| self.fail("background work", error))?;
            #[expect(
                clippy::disallowed_methods,
                reason = "fjall's threads announce nothing that could be waited for"
            )]
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// Bytes of the journal files on disk. fjall counts the space that it has reserved without using it.
fn journal_bytes(dir: &Path) -> u64 {
    let Ok(files) = fs::read_dir(dir) else { return 0 };
    files
        .flatten()
        .filter(|file| Path::new(&file.file_name()).extension().is_some_and(|name| name == "jnl"))
        .filter_map(|file| file.metadata().ok())
        .map(|found| found.len().min(found.blocks() * 512))
        .sum()
}

/// Says in our words what fjall says in its.
fn translate(operation: &'static str, dir: &Path, error: ::fjall::Error) -> Error {
    use ::fjall::Error as E;
    let path = dir.to_owned();
    match error {
        E::Io(source) | E::Storage(LsmError::Io(source)) => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            // What a file that was cut short, or an absurd length in one, looks like to its reader.
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                Error::Corrupt { path, detail: format!("{operation}: {source}") }
            }
            _ => Error::Io { operation, path, source: Arc::new(source) },
        },
        E::Locked => Error::Locked { path, holder: "another process".to_owned() },
        E::InvalidVersion(Some(version)) => Error::Mismatch {
            path,
            detail: format!("was written by another version of fjall ({version:?})"),
        },
        // A background thread has failed; it alone knew why, and has logged it.
        E::Poisoned => Error::Io {
            operation: "background work",
            path,
            source: Arc::new(io::Error::other(
                "a thread of the engine stopped; the log has its error",
            )),
        },
        other => Error::Corrupt { path, detail: format!("{operation}: {other}") },
    }
}
