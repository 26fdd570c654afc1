//! Bytes on one machine: ordered maps with atomic batches, snapshots and a durability point.
//!
//! One contract, [`Engine`], and three implementations: memory (tests and simulation; models what a crash may
//! lose), fjall (the default on disk, pure Rust) and RocksDB (Cargo feature `rocksdb`). The contract suite in
//! `contract.rs` holds all of them to the same words.
//!
//! # The contract
//!
//! 1. **Atomicity.** A [`WriteBatch`] takes effect as a whole over all families, also after a crash.
//! 2. **Order.** Batches take effect in the order in which [`Engine::write`] was called. After a crash a prefix
//!    of that order is there, and at least everything that was written before the last [`Engine::sync`] that
//!    returned began. On disk only the death of the machine is such a crash: a killed process loses nothing.
//! 3. **Isolation.** A [`Snapshot`] and its iterators see the batches that were written before it was taken, and
//!    nothing of later writes, delete-ranges, flushes and compactions.
//! 4. **Poison.** After a failed write, sync or checksum the engine answers [`Error::Poisoned`] to everything, for
//!    good. Nothing is retried: after a failed `fsync` the kernel has dropped the pages. A batch whose write failed
//!    may be there after a restart. What is refused before anything is touched ([`Error::DiskFull`],
//!    [`Error::KeyLength`]) poisons nothing.
//! 5. **Honest iterators.** An I/O error is returned, never taken for the end of the range.
//! 6. **delete-range** is not atomic: it may be done in several batches, in order with the writes before and after
//!    it, and doing it again does no harm.
//!
//! Keys have at most 65,535 bytes and are not empty; values are any bytes, also none.

mod batch;
#[cfg(feature = "testing")]
pub mod contract;
pub mod data_dir;
mod error;
#[cfg(feature = "testing")]
pub mod faulty;
#[cfg(feature = "fjall")]
pub mod fjall;
pub mod memory;
#[cfg(any(feature = "fjall", feature = "rocksdb"))]
mod middle;
mod open;
mod poison;
pub mod raft_log;
#[cfg(feature = "rocksdb")]
pub mod rocksdb;
mod row_cache;
#[cfg(any(feature = "fjall", feature = "rocksdb"))]
mod space;

pub use batch::{Op, WriteBatch};
pub use error::{Error, Result};
pub use memory::MemoryEngine;
pub use open::{Kind, Options, open};
use types::{Bytes, Cf, KeyRange};

use std::{fmt, sync::Arc};

/// Longest key that an engine takes. What a user may send is far below (`types::limits`).
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// One of the ordered maps of an engine: the column families of the data, and the store's own meta data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// [`Cf::Default`].
    Default,
    /// [`Cf::Lock`].
    Lock,
    /// [`Cf::Write`].
    Write,
    /// The store's own state: identity, regions, applied indexes. Written in the same batches as the data.
    Meta,
}

impl Family {
    /// All of them, in the order in which they are stored.
    pub const ALL: [Family; 4] = [Family::Default, Family::Lock, Family::Write, Family::Meta];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Default => Cf::Default.name(),
            Family::Lock => Cf::Lock.name(),
            Family::Write => Cf::Write.name(),
            Family::Meta => "meta",
        }
    }
}

impl From<Cf> for Family {
    fn from(cf: Cf) -> Family {
        match cf {
            Cf::Default => Family::Default,
            Cf::Lock => Family::Lock,
            Cf::Write => Family::Write,
        }
    }
}

/// An engine. The module documentation is its contract. Calls block; callers own the threads.
pub trait Engine: fmt::Debug + Send + Sync {
    /// A view of everything written so far. Cheap; keeping one alive keeps old versions on disk.
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>>;

    /// Applies a batch. When this returns the batch is visible to new snapshots, and not yet durable.
    fn write(&self, batch: WriteBatch) -> Result<()>;

    /// Returns once every batch whose write returned before this call is durable.
    fn sync(&self) -> Result<()>;

    /// Removes every key of `range` (contract point 6). Not yet durable when it returns.
    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()>;

    /// Moves everything written so far from memory into tables, and returns when that is durable.
    fn flush(&self) -> Result<()>;

    /// About how many bytes the keys and values of `range` take. Off by the size of what is in memory at most.
    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64>;

    /// A key that halves `range` by size, roughly; `None` if there are fewer than two keys.
    /// Lies strictly inside: greater than the first key of the range that exists.
    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>>;

    /// What the engine did and holds.
    fn statistics(&self) -> Statistics;
}

/// A view of an engine that never changes. It keeps the engine's files open: an engine is closed when its last
/// handle, snapshot and iterator are gone.
pub trait Snapshot: fmt::Debug + Send + Sync {
    /// The value of `key`.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>>;

    /// A cursor over the keys of `range`, in front of the first one: not valid before the first seek.
    fn iter(&self, family: Family, range: &KeyRange) -> Result<Box<dyn Iter>>;
}

/// A cursor over the keys of a range of a snapshot, which it keeps alive.
///
/// Every move returns whether there is a current pair afterwards. A cursor that has run off either end is not valid
/// until the next seek. Seeks outside of the range stop at its bounds.
pub trait Iter: Send {
    /// Moves to the first key at or after `key`.
    fn seek(&mut self, key: &[u8]) -> Result<bool>;

    /// Moves to the last key at or before `key`.
    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool>;

    /// Moves to the first key of the range.
    fn seek_to_first(&mut self) -> Result<bool>;

    /// Moves to the last key of the range.
    fn seek_to_last(&mut self) -> Result<bool>;

    /// Moves to the next key. Must be valid.
    fn next(&mut self) -> Result<bool>;

    /// Moves to the key before. Must be valid.
    fn prev(&mut self) -> Result<bool>;

    /// Whether there is a current pair.
    fn valid(&self) -> bool;

    /// The current key. Must be valid.
    fn key(&self) -> &[u8];

    /// The current value. Must be valid.
    fn value(&self) -> &[u8];

    /// The current key, shared instead of copied where the engine can.
    fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key())
    }

    /// The current value, shared instead of copied where the engine can.
    fn value_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.value())
    }
}

/// What an engine did since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Batches applied.
    pub batches: u64,
    /// Bytes of keys and values in them.
    pub batch_bytes: u64,
    /// Calls of [`Engine::sync`] that reached the disk.
    pub syncs: u64,
    /// Bytes in files, the journal included.
    pub disk_bytes: u64,
    /// Bytes in memtables.
    pub memory_bytes: u64,
    /// Bytes in caches.
    pub cache_bytes: u64,
}
