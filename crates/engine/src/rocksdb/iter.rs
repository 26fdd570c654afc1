//! A cursor over one column family of a RocksDB snapshot.

use std::sync::Arc;

use ::rust_rocksdb::{DBRawIterator, ReadOptions};
use types::KeyRange;

use super::{View, ViewInner};
use crate::{Family, Iter, Result};

/// The cursor.
pub(super) struct RocksIter {
    /// Borrows from `view`: see [`RocksIter::new`]. Declared, and so dropped, before it.
    iter: DBRawIterator<'static>,
    range: KeyRange,
    view: Arc<ViewInner>,
}

impl RocksIter {
    pub(super) fn new(view: &View, family: Family, range: &KeyRange) -> RocksIter {
        let view = view.0.clone();
        let mut options = ReadOptions::default();
        options.set_snapshot(&view.snapshot);
        options.set_iterate_lower_bound(&range.start[..]);
        if !range.end.is_empty() {
            options.set_iterate_upper_bound(&range.end[..]);
        }
        let iter = view.core.database.raw_iterator_cf_opt(view.core.family(family), options);
        // SAFETY: only the lifetime changes. The iterator borrows the database and uses the snapshot, which both
        // stay where they are and alive as long as `view` is; the cursor holds `view` and drops the iterator
        // before it (fields are dropped in the order of their declaration), and hands the iterator to nobody.
        let iter =
            unsafe { std::mem::transmute::<DBRawIterator<'_>, DBRawIterator<'static>>(iter) };
        RocksIter { iter, range: range.clone(), view }
    }

    /// Whether the last move found a pair. RocksDB's iterators are not valid after an error, too.
    fn found(&self) -> Result<bool> {
        if self.iter.valid() {
            return Ok(true);
        }
        self.iter.status().map_err(|error| self.view.core.fail("read of a table", error))?;
        Ok(false)
    }
}

impl Iter for RocksIter {
    fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.view.core.poison.check()?;
        if self.range.is_empty() {
            return Ok(false);
        }
        self.iter.seek(key.max(&self.range.start));
        self.found()
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.view.core.poison.check()?;
        if !self.range.end.is_empty() && &self.range.end[..] <= key {
            return self.seek_to_last();
        }
        if self.range.is_empty() {
            return Ok(false);
        }
        self.iter.seek_for_prev(key);
        self.found()
    }

    fn seek_to_first(&mut self) -> Result<bool> {
        self.view.core.poison.check()?;
        if self.range.is_empty() {
            return Ok(false);
        }
        self.iter.seek_to_first();
        self.found()
    }

    fn seek_to_last(&mut self) -> Result<bool> {
        self.view.core.poison.check()?;
        if self.range.is_empty() {
            return Ok(false);
        }
        self.iter.seek_to_last();
        self.found()
    }

    fn next(&mut self) -> Result<bool> {
        if !self.iter.valid() {
            return Ok(false);
        }
        self.iter.next();
        self.found()
    }

    fn prev(&mut self) -> Result<bool> {
        if !self.iter.valid() {
            return Ok(false);
        }
        self.iter.prev();
        self.found()
    }

    fn valid(&self) -> bool {
        self.iter.valid()
    }

    fn key(&self) -> &[u8] {
        self.iter.key().expect("the cursor is valid")
    }

    fn value(&self) -> &[u8] {
        self.iter.value().expect("the cursor is valid")
    }
}
