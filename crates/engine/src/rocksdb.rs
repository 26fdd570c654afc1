//! The engine for heavy duty: RocksDB, a C++ library.
//!
//! One database per folder, one column family per family, one journal ("WAL") for all of them. A write goes to the
//! journal and the operating system; [`Engine::sync`] makes the journal durable. Flushing one column family and not
//! the others keeps contract point 2, since RocksDB syncs the journal that the memtable was written to first.
//!
//! The recovery mode accepts a journal that ends in the middle of a record and refuses one that is damaged; the
//! mode that RocksDB comes with would drop everything behind the damage without a word. A background error is
//! final: it poisons the engine, and RocksDB's own attempts to go on are not waited for.
//!
//! As with fjall, one snapshot is taken after every write and handed out until the next: taking one enters a lock
//! of the database, and the row cache needs them in step with the writes.

mod iter;
mod size;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use ::rust_rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, ErrorKind, FlushOptions, LogLevel, Options as RocksOptions, ReadOptions,
    Snapshot as RocksSnapshot, WriteBatch as RocksBatch,
    event_listener::{DBBackgroundErrorReason, EventListener, MutableStatus},
    properties,
};
use arc_swap::ArcSwap;
use types::{Bytes, KeyRange};

use self::iter::RocksIter;
use crate::{
    Engine, Error, Family, Iter, Op, Options, Result, Snapshot, Statistics, WriteBatch,
    poison::Poison, row_cache::RowCache, space::Space,
};

/// Ranges of up to this many keys are deleted key by key: every range tombstone makes reads around it slower until
/// it is compacted away.
const DELETE_BY_KEY_MAX: usize = 64;

/// The journals of all memtables together; more makes RocksDB flush the oldest.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;

/// Tables that are open at once; others are opened again when they are read.
const OPEN_FILES_MAX: i32 = 800;

/// The engine.
pub struct RocksEngine {
    core: Arc<Core>,
    /// Writers take turns: publishing needs a moment at which no batch is under way.
    writing: Mutex<()>,
    published: ArcSwap<View>,
    space: Space,
    batches: AtomicU64,
    batch_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What engine, snapshots and iterators share; the database is closed with the last of them.
struct Core {
    path: PathBuf,
    database: DB,
    cache: Cache,
    rows: RowCache,
    poison: Arc<Poison>,
}

/// A view of the database.
struct View(Arc<ViewInner>);

struct ViewInner {
    /// Reads through `snapshot`.
    options: ReadOptions,
    /// Borrows from `core`: see [`View::new`]. Declared, and so released, before it.
    snapshot: RocksSnapshot<'static>,
    /// Counts the published snapshots.
    number: u64,
    core: Arc<Core>,
}

/// Stops the engine when a thread of RocksDB fails.
struct Listener {
    path: PathBuf,
    poison: Arc<Poison>,
}

impl RocksEngine {
    /// Opens the database in `dir`, creating it if it is missing.
    pub fn open(dir: &Path, options: &Options) -> Result<RocksEngine> {
        let core = Arc::new(Core::open(dir, options)?);
        Ok(RocksEngine {
            published: ArcSwap::from_pointee(View::new(core.clone(), 0)),
            core,
            writing: Mutex::default(),
            space: Space::new(dir, options.disk_reserve_bytes),
            batches: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        })
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no writer panics")
    }

    /// Applies and publishes a batch. The caller holds `writing`.
    fn apply(&self, batch: &WriteBatch) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.space.take(batch.bytes() as u64)?;
        let mut out = RocksBatch::default();
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => out.put_cf(core.family(*family), key, value),
                Op::Delete(family, key) => out.delete_cf(core.family(*family), key),
            }
        }
        core.database.write(&out).map_err(|error| core.fail("write of the journal", error))?;
        let number = self.published.load().0.number + 1;
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => core.rows.write(*family, key, number, Some(value)),
                Op::Delete(family, key) => core.rows.write(*family, key, number, None),
            }
        }
        self.publish(number);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Lets new readers see what was written. The caller holds `writing`.
    fn publish(&self, number: u64) {
        self.published.store(Arc::new(View::new(self.core.clone(), number)));
    }
}

impl Engine for RocksEngine {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.core.poison.check()?;
        Ok(self.published.load_full())
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let _turn = self.writing();
        self.apply(&batch)
    }

    fn sync(&self) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        core.database.flush_wal(true).map_err(|error| core.fail("sync of the journal", error))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        let _turn = self.writing();
        let core = &*self.core;
        core.poison.check()?;
        let mut iter = RocksIter::new(&self.published.load(), family, range);
        let mut batch = WriteBatch::new();
        let mut more = iter.seek_to_first()?;
        while more && batch.len() <= DELETE_BY_KEY_MAX {
            batch.delete(family, iter.key_bytes());
            more = iter.next()?;
        }
        if batch.len() <= DELETE_BY_KEY_MAX {
            return self.apply(&batch);
        }
        // RocksDB wants an end that a range without bound does not have.
        iter.seek_to_last()?;
        let end = [iter.key(), &[0]].concat();
        let mut out = RocksBatch::default();
        out.delete_range_cf(core.family(family), &range.start[..], &end[..]);
        core.database.write(&out).map_err(|error| core.fail("write of the journal", error))?;
        let number = self.published.load().0.number + 1;
        core.rows.clear(number);
        self.publish(number);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let core = &*self.core;
        core.poison.check()?;
        let families = Family::ALL.map(|family| core.family(family));
        core.database
            .flush_cfs_opt(&families.each_ref(), &FlushOptions::default())
            .map_err(|error| core.fail("flush of the memtables", error))
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.core.poison.check()?;
        size::bytes(&self.core, family, range)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.core.poison.check()?;
        size::middle_key(&self.published.load(), family, range)
    }

    fn statistics(&self) -> Statistics {
        let core = &*self.core;
        let sum = |name| {
            let of = |family| {
                core.database.property_int_value_cf(core.family(family), name).ok().flatten()
            };
            Family::ALL.into_iter().filter_map(of).sum::<u64>()
        };
        Statistics {
            batches: self.batches.load(Ordering::Relaxed),
            batch_bytes: self.batch_bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            disk_bytes: sum(properties::TOTAL_SST_FILES_SIZE) + journal_bytes(&core.path),
            memory_bytes: sum(properties::SIZE_ALL_MEM_TABLES),
            cache_bytes: core.cache.get_usage() as u64 + core.rows.bytes(),
        }
    }
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine").field("path", &self.core.path).finish_non_exhaustive()
    }
}

impl View {
    fn new(core: Arc<Core>, number: u64) -> View {
        // SAFETY: only the lifetime changes. The snapshot borrows `core.database`, which stays where it is and
        // alive as long as `core` is; the view holds `core` and releases the snapshot before it (fields are dropped
        // in the order of their declaration), and hands the snapshot to nobody.
        let snapshot = unsafe {
            std::mem::transmute::<RocksSnapshot<'_>, RocksSnapshot<'static>>(
                core.database.snapshot(),
            )
        };
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        View(Arc::new(ViewInner { options, snapshot, number, core }))
    }
}

impl Snapshot for View {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        let ViewInner { options, number, core, .. } = &*self.0;
        core.poison.check()?;
        if let Some(known) = core.rows.get(family, key, *number) {
            return Ok(known);
        }
        let found = core
            .database
            .get_pinned_cf_opt(core.family(family), key, options)
            .map_err(|error| core.fail("read of a key", error))?;
        core.rows.fill(family, key, *number, found.as_deref());
        Ok(found.as_deref().map(Bytes::copy_from_slice))
    }

    fn iter(&self, family: Family, range: &KeyRange) -> Result<Box<dyn Iter>> {
        self.0.core.poison.check()?;
        Ok(Box::new(RocksIter::new(self, family, range)))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksSnapshot").field("path", &self.0.core.path).finish_non_exhaustive()
    }
}

impl EventListener for Listener {
    fn on_background_error(&self, _reason: DBBackgroundErrorReason, status: MutableStatus) {
        if let Err(error) = status.result() {
            self.poison.set(translate("background work", &self.path, error));
        }
    }
}

impl Core {
    fn open(dir: &Path, options: &Options) -> Result<Core> {
        let poison = Arc::new(Poison::default());
        let cache =
            Cache::new_lru_cache(usize::try_from(options.cache_bytes).unwrap_or(usize::MAX));
        let mut database = database_options(options);
        database.add_event_listener(Listener { path: dir.to_owned(), poison: poison.clone() });
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(options, &cache))
        });
        fs::create_dir_all(dir).map_err(|source| Error::Io {
            operation: "creation of the folder",
            path: dir.to_owned(),
            source: Arc::new(source),
        })?;
        let database = DB::open_cf_descriptors(&database, dir, families)
            .map_err(|error| translate("opening of the engine", dir, &error))?;
        let rows = RowCache::new(options.row_cache_bytes);
        Ok(Core { path: dir.to_owned(), database, cache, rows, poison })
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.database.cf_handle(family.name()).expect("all families were opened")
    }

    /// Stops the engine after `error`.
    fn fail(&self, operation: &'static str, error: ::rust_rocksdb::Error) -> Error {
        self.poison.set(translate(operation, &self.path, &error))
    }
}

fn database_options(options: &Options) -> RocksOptions {
    let mut out = RocksOptions::default();
    out.create_if_missing(true);
    out.create_missing_column_families(true);
    out.set_paranoid_checks(true);
    out.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    out.set_max_background_jobs(i32::try_from(options.worker_threads).unwrap_or(i32::MAX).max(2));
    out.set_max_total_wal_size(JOURNAL_BYTES_MAX);
    out.set_max_open_files(OPEN_FILES_MAX);
    // Tables reach the disk evenly instead of all at once at their end.
    out.set_bytes_per_sync(1 << 20);
    out.set_skip_stats_update_on_db_open(true);
    // Nobody reads RocksDB's own reports; without them an idle engine does nothing.
    out.set_stats_dump_period_sec(0);
    out.set_stats_persist_period_sec(0);
    out.set_log_level(LogLevel::Warn);
    out.set_keep_log_file_num(2);
    out.set_max_log_file_size(1 << 20);
    out
}

fn family_options(options: &Options, cache: &Cache) -> RocksOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    // Indexes and filters are accounted for in the cache, so that memory stays within it.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut out = RocksOptions::default();
    out.set_block_based_table_factory(&table);
    out.set_write_buffer_size(usize::try_from(options.memtable_bytes).unwrap_or(usize::MAX));
    out.set_max_write_buffer_number(4);
    out.set_level_compaction_dynamic_level_bytes(true);
    if options.compression {
        // What was just written will be merged soon; the rest is most of the data.
        let mut levels = [DBCompressionType::Lz4; 7];
        levels[..2].fill(DBCompressionType::None);
        out.set_compression_per_level(&levels);
    } else {
        out.set_compression_type(DBCompressionType::None);
    }
    out
}

/// Bytes of the journal files.
fn journal_bytes(dir: &Path) -> u64 {
    let Ok(files) = fs::read_dir(dir) else { return 0 };
    files
        .flatten()
        .filter(|file| Path::new(&file.file_name()).extension().is_some_and(|name| name == "log"))
        .filter_map(|file| file.metadata().ok())
        .map(|found| found.len())
        .sum()
}

/// Says in our words what RocksDB says in its. It has text only.
fn translate(operation: &'static str, dir: &Path, error: &::rust_rocksdb::Error) -> Error {
    let path = dir.to_owned();
    let text = error.to_string();
    match error.kind() {
        ErrorKind::IOError if text.contains("No space left") => Error::DiskFull { path },
        ErrorKind::IOError
            if text.contains("lock hold by current process")
                || text.contains("While lock file") =>
        {
            Error::Locked { path, holder: "another process".to_owned() }
        }
        ErrorKind::Corruption => Error::Corrupt { path, detail: format!("{operation}: {text}") },
        _ => Error::Io { operation, path, source: Arc::new(std::io::Error::other(text)) },
    }
}
