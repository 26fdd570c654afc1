//! The contract suite against every engine of this build.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use engine::{Engine, MemoryEngine, contract::Subject, engine_contract};

/// The memory engine, whose next handle has what the last one had.
struct Memory(MemoryEngine);

impl Subject for Memory {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.clone())
    }
}

engine_contract!(memory, Memory(MemoryEngine::new()));
engine_contract!(memory_with_row_cache, Memory(MemoryEngine::with_row_cache(64 << 10)));
engine_contract!(memory_with_journal, Memory(MemoryEngine::with_journal()));

/// An engine in a folder of its own.
#[cfg(any(feature = "fjall", feature = "rocksdb"))]
struct Disk {
    dir: tempfile::TempDir,
    kind: engine::Kind,
    options: engine::Options,
}

#[cfg(any(feature = "fjall", feature = "rocksdb"))]
impl Disk {
    fn new(kind: engine::Kind, change: impl FnOnce(&mut engine::Options)) -> Disk {
        let mut options = engine::Options::default();
        change(&mut options);
        Disk { dir: tempfile::tempdir().unwrap(), kind, options }
    }
}

#[cfg(any(feature = "fjall", feature = "rocksdb"))]
impl Subject for Disk {
    fn open(&self) -> Arc<dyn Engine> {
        engine::open(self.kind, &self.dir.path().join("engine"), &self.options).unwrap()
    }
}

#[cfg(feature = "fjall")]
engine_contract!(fjall, Disk::new(engine::Kind::Fjall, |_| {}));
// Small everything: tables are written and merged all the time, and reads miss the caches.
#[cfg(feature = "fjall")]
engine_contract!(
    small_fjall,
    Disk::new(engine::Kind::Fjall, |options| {
        options.memtable_bytes = 32 << 10;
        options.cache_bytes = 64 << 10;
        options.row_cache_bytes = 0;
        options.worker_threads = 1;
        options.compression = true;
    })
);

#[cfg(feature = "rocksdb")]
engine_contract!(rocksdb, Disk::new(engine::Kind::RocksDb, |_| {}));
#[cfg(feature = "rocksdb")]
engine_contract!(
    small_rocksdb,
    Disk::new(engine::Kind::RocksDb, |options| {
        options.memtable_bytes = 32 << 10;
        options.cache_bytes = 64 << 10;
        options.row_cache_bytes = 0;
        options.compression = true;
    })
);
