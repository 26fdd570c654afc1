//! The engine that keeps nothing: for tests, simulation and `--memory`.
//!
//! Every family is a tree (`tree.rs`) whose copies cost one pointer. A write changes the current trees and then
//! publishes copies of them in one step; a snapshot is what was published last. Readers thus never wait for a
//! writer and never see half a batch.
//!
//! With a journal ([`MemoryEngine::with_journal`]) the engine also models a disk: it remembers the trees as they
//! were at the last sync and the batches since, and [`MemoryEngine::crash`] returns an engine that holds any prefix
//! of those, as contract points 1 and 2 allow. Failures of writes, syncs and reads can be ordered.
//!
//! No threads, clocks or randomness of its own: the same calls give the same engine.

mod tree;

use std::{
    fmt, io,
    ops::{Index, IndexMut},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use runtime::Rng;
use types::{Bytes, KeyRange};

use self::tree::{Position, Tree};
use crate::{
    Engine, Error, Family, Iter, Op, Result, Snapshot, Statistics, WriteBatch, batch::owned,
    poison::Poison, row_cache::RowCache,
};

/// Keys that a delete-range removes per batch. A crash may come between two of them; small, so that it does in
/// tests whose ranges are small.
const DELETE_RANGE_KEYS: usize = 64;

/// The engine. Clones are handles to the same data.
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
    published: Arc<ArcSwap<MemorySnapshot>>,
}

/// What engine and snapshots share.
#[derive(Default)]
struct Shared {
    writer: Mutex<Writer>,
    rows: RowCache,
    poison: Poison,
    corrupt_read: AtomicBool,
    batches: AtomicU64,
    batch_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// What writers take turns on.
#[derive(Default)]
struct Writer {
    families: Families,
    /// Of the last batch, and of the snapshot that shows it.
    number: u64,
    journal: Option<Journal>,
    fail_write: Option<io::ErrorKind>,
    fail_sync: Option<io::ErrorKind>,
}

/// What a crash may leave.
struct Journal {
    /// Everything up to the last sync.
    synced: Families,
    /// The batches since, in order.
    unsynced: Vec<WriteBatch>,
}

/// One map per family.
#[derive(Clone, Default)]
struct Families([Tree; Family::ALL.len()]);

/// A view of the engine.
struct MemorySnapshot {
    families: Families,
    number: u64,
    shared: Arc<Shared>,
}

/// A cursor: a position in a tree that never changes.
struct MemoryIter {
    tree: Tree,
    range: KeyRange,
    at: Option<Position>,
    shared: Arc<Shared>,
}

impl MemoryEngine {
    /// An empty engine that remembers no history: it can't be crashed, and takes no memory beside its data.
    pub fn new() -> MemoryEngine {
        MemoryEngine::with_row_cache(0)
    }

    /// Like [`new`](MemoryEngine::new), with up to `bytes` of copies of what was read lately: finding a key in a
    /// large tree costs a few microseconds.
    pub fn with_row_cache(bytes: u64) -> MemoryEngine {
        MemoryEngine::from_families(Families::default(), None, RowCache::new(bytes))
    }

    /// An empty engine that can be crashed. Every sync forgets the batches before it.
    pub fn with_journal() -> MemoryEngine {
        MemoryEngine::restarted(Families::default())
    }

    /// The engine as it may be found after a crash now: everything that was synced and any number of the batches
    /// that were written since, in order. A delete-range may be cut between two of its batches. This engine stays
    /// as it is.
    ///
    /// An engine without a journal is found empty.
    pub fn crash(&self, rng: &mut Rng) -> MemoryEngine {
        let writer = self.shared.writer();
        let Some(journal) = &writer.journal else { return MemoryEngine::new() };
        let kept = rng.range(0..=journal.unsynced.len() as u64) as usize;
        let mut families = journal.synced.clone();
        for batch in &journal.unsynced[..kept] {
            families.apply(batch);
        }
        MemoryEngine::restarted(families)
    }

    /// Batches that a crash may lose.
    pub fn unsynced(&self) -> usize {
        self.shared.writer().journal.as_ref().map_or(0, |journal| journal.unsynced.len())
    }

    /// Lets the next write fail, and thereby everything after it.
    pub fn fail_next_write(&self, kind: io::ErrorKind) {
        self.shared.writer().fail_write = Some(kind);
    }

    /// Lets the next sync fail, and thereby everything after it. What it was to make durable may be lost or not.
    pub fn fail_next_sync(&self, kind: io::ErrorKind) {
        self.shared.writer().fail_sync = Some(kind);
    }

    /// Lets the next read of a key or move of a cursor find damaged bytes, and everything after it fail.
    pub fn corrupt_next_read(&self) {
        self.shared.corrupt_read.store(true, Ordering::Relaxed);
    }

    fn restarted(families: Families) -> MemoryEngine {
        let journal = Journal { synced: families.clone(), unsynced: Vec::new() };
        MemoryEngine::from_families(families, Some(journal), RowCache::default())
    }

    fn from_families(families: Families, journal: Option<Journal>, rows: RowCache) -> MemoryEngine {
        let writer = Writer { families: families.clone(), journal, ..Writer::default() };
        let shared = Arc::new(Shared { writer: Mutex::new(writer), rows, ..Shared::default() });
        let snapshot = MemorySnapshot { families, number: 0, shared: shared.clone() };
        MemoryEngine { shared, published: Arc::new(ArcSwap::from_pointee(snapshot)) }
    }

    fn publish(&self, writer: &Writer) {
        let Writer { families, number, .. } = writer;
        let (families, number) = (families.clone(), *number);
        self.published.store(Arc::new(MemorySnapshot {
            families,
            number,
            shared: self.shared.clone(),
        }));
    }

    /// Applies a batch and journals it; does not publish.
    fn apply(&self, writer: &mut Writer, batch: WriteBatch) -> Result<()> {
        if let Some(kind) = writer.fail_write.take() {
            return Err(self.shared.poison.set(injected("write", kind)));
        }
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.batch_bytes.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        writer.families.apply(&batch);
        writer.number += 1;
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => {
                    self.shared.rows.write(*family, key, writer.number, Some(value))
                }
                Op::Delete(family, key) => {
                    self.shared.rows.write(*family, key, writer.number, None)
                }
            }
        }
        if let Some(journal) = &mut writer.journal {
            journal.unsynced.push(batch);
        }
        Ok(())
    }
}

impl Default for MemoryEngine {
    fn default() -> MemoryEngine {
        MemoryEngine::new()
    }
}

impl fmt::Debug for MemoryEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEngine").field("unsynced", &self.unsynced()).finish_non_exhaustive()
    }
}

impl Engine for MemoryEngine {
    fn snapshot(&self) -> Result<Arc<dyn Snapshot>> {
        self.shared.poison.check()?;
        Ok(self.published.load_full())
    }

    fn write(&self, batch: WriteBatch) -> Result<()> {
        let mut writer = self.shared.writer();
        self.shared.poison.check()?;
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.apply(&mut writer, batch)?;
        self.publish(&writer);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut writer = self.shared.writer();
        self.shared.poison.check()?;
        if let Some(kind) = writer.fail_sync.take() {
            return Err(self.shared.poison.set(injected("sync", kind)));
        }
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let Writer { families, journal, .. } = &mut *writer;
        if let Some(journal) = journal {
            *journal = Journal { synced: families.clone(), unsynced: Vec::new() };
        }
        Ok(())
    }

    fn delete_range(&self, family: Family, range: &KeyRange) -> Result<()> {
        let mut writer = self.shared.writer();
        self.shared.poison.check()?;
        loop {
            let tree = &writer.families[family];
            let mut batch = WriteBatch::new();
            let mut at = first_in(tree, range);
            while let Some(position) = at.filter(|_| batch.len() < DELETE_RANGE_KEYS) {
                batch.delete(family, position.entry().key.clone());
                at = position.next(tree).filter(|next| range.contains(&next.entry().key));
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.apply(&mut writer, batch)?;
            self.publish(&writer);
        }
    }

    fn flush(&self) -> Result<()> {
        let mut writer = self.shared.writer();
        self.shared.poison.check()?;
        let Writer { families, journal, .. } = &mut *writer;
        if let Some(journal) = journal {
            *journal = Journal { synced: families.clone(), unsynced: Vec::new() };
        }
        Ok(())
    }

    fn approximate_size(&self, family: Family, range: &KeyRange) -> Result<u64> {
        self.shared.poison.check()?;
        let (start, end) = span(&self.published.load().families[family], range);
        Ok(end - start)
    }

    fn middle_key(&self, family: Family, range: &KeyRange) -> Result<Option<Bytes>> {
        self.shared.poison.check()?;
        let snapshot = self.published.load_full();
        let tree = &snapshot.families[family];
        let Some(first) = first_in(tree, range) else { return Ok(None) };
        let (start, end) = span(tree, range);
        let middle = tree.at_byte(start + (end - start) / 2).expect("a range with a key has bytes");
        // The first key may be more than half of the range; the one after it is as near as it gets.
        let middle =
            if middle.entry().key == first.entry().key { middle.next(tree) } else { Some(middle) };
        Ok(middle.map(|middle| middle.entry().key.clone()).filter(|key| range.contains(key)))
    }

    fn statistics(&self) -> Statistics {
        Statistics {
            batches: self.shared.batches.load(Ordering::Relaxed),
            batch_bytes: self.shared.batch_bytes.load(Ordering::Relaxed),
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            disk_bytes: 0,
            memory_bytes: self.published.load().families.0.iter().map(Tree::bytes).sum(),
            cache_bytes: self.shared.rows.bytes(),
        }
    }
}

impl Snapshot for MemorySnapshot {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.shared.check_read()?;
        if let Some(known) = self.shared.rows.get(family, key, self.number) {
            return Ok(known);
        }
        let found = self.families[family].get(key);
        self.shared.rows.fill(family, key, self.number, found.map(|value| &value[..]));
        Ok(found.cloned())
    }

    fn iter(&self, family: Family, range: &KeyRange) -> Result<Box<dyn Iter>> {
        self.shared.check_read()?;
        let (tree, range) = (self.families[family].clone(), range.clone());
        Ok(Box::new(MemoryIter { tree, range, at: None, shared: self.shared.clone() }))
    }
}

impl fmt::Debug for MemorySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemorySnapshot")
    }
}

impl MemoryIter {
    fn move_to(&mut self, find: impl FnOnce(&MemoryIter) -> Option<Position>) -> Result<bool> {
        self.shared.check_read().inspect_err(|_| self.at = None)?;
        self.at = find(self).filter(|at| self.range.contains(&at.entry().key));
        Ok(self.at.is_some())
    }

    fn current(&self) -> &Position {
        self.at.as_ref().expect("the cursor is valid")
    }
}

impl Iter for MemoryIter {
    fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.move_to(|this| this.tree.at_or_after(key.max(&this.range.start)))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        if !self.range.end.is_empty() && &self.range.end[..] <= key {
            return self.seek_to_last();
        }
        self.move_to(|this| this.tree.at_or_before(key))
    }

    fn seek_to_first(&mut self) -> Result<bool> {
        self.move_to(|this| this.tree.at_or_after(&this.range.start))
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.move_to(|this| match &this.range.end[..] {
            [] => this.tree.last(),
            end => this.tree.before(end),
        })
    }

    fn next(&mut self) -> Result<bool> {
        self.move_to(|this| this.at.as_ref()?.next(&this.tree))
    }

    fn prev(&mut self) -> Result<bool> {
        self.move_to(|this| this.at.as_ref()?.prev(&this.tree))
    }

    fn valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> &[u8] {
        &self.current().entry().key
    }

    fn value(&self) -> &[u8] {
        &self.current().entry().value
    }

    fn key_bytes(&self) -> Bytes {
        self.current().entry().key.clone()
    }

    fn value_bytes(&self) -> Bytes {
        self.current().entry().value.clone()
    }
}

impl Shared {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect("no writer panics")
    }

    fn check_read(&self) -> Result<()> {
        self.poison.check()?;
        // A plain load first: the swap would make every reader write to one cache line.
        if self.corrupt_read.load(Ordering::Relaxed)
            && self.corrupt_read.swap(false, Ordering::Relaxed)
        {
            let damage = Error::Corrupt {
                path: PathBuf::from("memory"),
                detail: "damage was injected".to_owned(),
            };
            return Err(self.poison.set(damage));
        }
        Ok(())
    }
}

impl Families {
    fn apply(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            match op {
                Op::Put(family, key, value) => self[*family].insert(owned(key), owned(value)),
                Op::Delete(family, key) => self[*family].remove(key),
            }
        }
    }
}

impl Index<Family> for Families {
    type Output = Tree;

    fn index(&self, family: Family) -> &Tree {
        &self.0[family as usize]
    }
}

impl IndexMut<Family> for Families {
    fn index_mut(&mut self, family: Family) -> &mut Tree {
        &mut self.0[family as usize]
    }
}

/// The first entry of `range`.
fn first_in(tree: &Tree, range: &KeyRange) -> Option<Position> {
    tree.at_or_after(&range.start).filter(|first| range.contains(&first.entry().key))
}

/// The bytes of `tree` before `range` and up to its end.
fn span(tree: &Tree, range: &KeyRange) -> (u64, u64) {
    let start = tree.bytes_before(&range.start);
    let end = if range.end.is_empty() { tree.bytes() } else { tree.bytes_before(&range.end) };
    (start, end.max(start))
}

fn injected(operation: &'static str, kind: io::ErrorKind) -> Error {
    let path = PathBuf::from("memory");
    match kind {
        io::ErrorKind::StorageFull => Error::DiskFull { path },
        kind => Error::Io {
            operation,
            path,
            source: Arc::new(io::Error::new(kind, "this failure was injected")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(engine: &MemoryEngine, key: &str, value: &str) {
        let mut batch = WriteBatch::new();
        batch.put(Family::Default, key.to_owned(), value.to_owned());
        engine.write(batch).unwrap();
    }

    fn keys(engine: &MemoryEngine) -> Vec<Bytes> {
        let mut iter = engine.snapshot().unwrap().iter(Family::Default, &KeyRange::all()).unwrap();
        let mut out = Vec::new();
        let mut more = iter.seek_to_first().unwrap();
        while more {
            out.push(iter.key_bytes());
            more = iter.next().unwrap();
        }
        out
    }

    #[test]
    fn a_crash_leaves_every_prefix_some_time() {
        let engine = MemoryEngine::with_journal();
        put(&engine, "a", "1");
        engine.sync().unwrap();
        for key in ["b", "c", "d"] {
            put(&engine, key, "1");
        }
        let mut seen = [0; 5];
        for seed in 0..200 {
            let found = keys(&engine.crash(&mut Rng::new(seed)));
            assert_eq!(found, ["a", "b", "c", "d"][..found.len()]);
            seen[found.len()] += 1;
        }
        assert_eq!(seen[0], 0, "what was synced is there");
        assert!(seen[1..].iter().all(|n| 20 < *n), "{seen:?}");
    }

    #[test]
    fn a_crash_may_cut_a_delete_range_between_its_batches() {
        let engine = MemoryEngine::with_journal();
        let total = DELETE_RANGE_KEYS * 3;
        for i in 0..total {
            put(&engine, &format!("{i:04}"), "1");
        }
        engine.sync().unwrap();
        engine.delete_range(Family::Default, &KeyRange::all()).unwrap();
        let mut left: Vec<usize> =
            (0..100).map(|seed| keys(&engine.crash(&mut Rng::new(seed))).len()).collect();
        left.sort_unstable();
        left.dedup();
        assert_eq!(left, [0, DELETE_RANGE_KEYS, DELETE_RANGE_KEYS * 2, total]);
    }

    #[test]
    fn without_a_journal_nothing_is_kept() {
        let engine = MemoryEngine::new();
        put(&engine, "a", "1");
        engine.sync().unwrap();
        assert_eq!(engine.unsynced(), 0);
        assert!(keys(&engine.crash(&mut Rng::new(1))).is_empty());
    }
}
