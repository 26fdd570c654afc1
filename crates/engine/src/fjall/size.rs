//! How large a range is and where its middle lies.
//!
//! fjall tells the size of whole tables only. So a table that a range cuts is read once in its life, and a key per
//! [`CHUNK`] bytes of it is remembered: tables never change. What is in the memtable is counted each time, what
//! waits to become a table is not seen. Old versions and deletions count as well until they are compacted away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use ::fjall::{AbstractTree, Slice};
use types::{Bytes, KeyRange};

use super::{Core, FjallSnapshot, iter::FjallIter};
use crate::{
    Family, Result,
    middle::{Chunk, EXACT_BYTES, every_pair, middle_of, settle},
};

/// Bytes between two keys that are remembered of a table: 256 of them for a full table.
const CHUNK: u64 = 256 << 10;

/// The entries of a table as [`sample`] takes them. Not a function, since the types of a table have no public names.
macro_rules! scan {
    ($table:expr) => {
        $table.scan()?.map(|item| {
            let item = item?;
            Ok((item.key.user_key.clone(), (item.key.user_key.len() + item.value.len()) as u64))
        })
    };
}

/// Chunks of tables, by family and number of the table.
type Known = HashMap<(Family, u64), Arc<[Chunk]>>;

/// What is remembered of the tables.
#[derive(Default)]
pub(super) struct Samples {
    tables: Mutex<Known>,
}

impl Samples {
    /// About how many bytes the keys and values of `range` take.
    pub(super) fn bytes(&self, core: &Core, family: Family, range: &KeyRange) -> Result<u64> {
        let tree = &core.keyspace(family).tree;
        let mut sum = 0;
        tree.active_memtable().iter().filter(|item| range.contains(&item.key.user_key)).for_each(
            |item| {
                sum += (item.key.user_key.len() + item.value.len()) as u64;
            },
        );
        let version = tree.current_version();
        self.forget(family, |id| version.iter_tables().any(|table| table.id() == id));
        for table in version.iter_tables() {
            let keys = &table.metadata.key_range;
            if range.contains(keys.min()) && range.contains(keys.max()) {
                sum += table.metadata.file_size;
            } else if overlaps(range, keys.min(), keys.max()) {
                let chunks = self.of_table(core, (family, table.id()), || sample(scan!(table)))?;
                sum += chunks
                    .iter()
                    .filter(|chunk| range.contains(&chunk.last))
                    .map(|chunk| chunk.bytes)
                    .sum::<u64>();
            }
        }
        Ok(sum)
    }

    /// A key that halves `range`, roughly.
    pub(super) fn middle_key(
        &self,
        snapshot: &FjallSnapshot,
        family: Family,
        range: &KeyRange,
    ) -> Result<Option<Bytes>> {
        let mut iter = FjallIter::new(snapshot, family, range);
        let mut chunks = self.chunks(&snapshot.core, family, range)?;
        if chunks.iter().map(|chunk| chunk.bytes).sum::<u64>() <= EXACT_BYTES {
            chunks = every_pair(&mut iter)?;
        }
        settle(&mut iter, &middle_of(&chunks))
    }

    /// What is known of the keys of `range`, by key.
    fn chunks(&self, core: &Core, family: Family, range: &KeyRange) -> Result<Vec<Chunk>> {
        let tree = &core.keyspace(family).tree;
        let mut chunks: Vec<Chunk> = tree
            .active_memtable()
            .iter()
            .map(|item| {
                let bytes = (item.key.user_key.len() + item.value.len()) as u64;
                Chunk { last: item.key.user_key.into(), bytes }
            })
            .collect();
        let version = tree.current_version();
        for table in version.iter_tables() {
            let keys = &table.metadata.key_range;
            if overlaps(range, keys.min(), keys.max()) {
                chunks.extend_from_slice(
                    &self.of_table(core, (family, table.id()), || sample(scan!(table)))?,
                );
            }
        }
        chunks.retain(|chunk| range.contains(&chunk.last));
        chunks.sort_by(|a, b| a.last.cmp(&b.last));
        Ok(chunks)
    }

    /// The chunks of a table, which is read if they are not known.
    fn of_table(
        &self,
        core: &Core,
        table: (Family, u64),
        sample: impl FnOnce() -> ::fjall::Result<Vec<Chunk>>,
    ) -> Result<Arc<[Chunk]>> {
        if let Some(known) = self.tables().get(&table) {
            return Ok(known.clone());
        }
        let chunks: Arc<[Chunk]> = core.read(sample)?.into();
        self.tables().insert(table, chunks.clone());
        Ok(chunks)
    }

    /// Drops what is known of tables of `family` that are gone.
    fn forget(&self, family: Family, lives: impl Fn(u64) -> bool) {
        self.tables().retain(|(f, id), _| *f != family || lives(*id));
    }

    fn tables(&self) -> MutexGuard<'_, Known> {
        self.tables.lock().expect("nobody panics with the samples in hand")
    }
}

/// Cuts the entries of a table, given as key and bytes, into chunks.
fn sample(
    entries: impl Iterator<Item = ::fjall::Result<(Slice, u64)>>,
) -> ::fjall::Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let mut open: Option<Chunk> = None;
    for entry in entries {
        let (key, bytes) = entry?;
        let before = open.take().map_or(0, |chunk| chunk.bytes);
        let chunk = Chunk { last: key.into(), bytes: before + bytes };
        if CHUNK <= chunk.bytes { chunks.push(chunk) } else { open = Some(chunk) }
    }
    chunks.extend(open);
    // The keys share the memory of the blocks that they came from.
    chunks.iter_mut().for_each(|chunk| chunk.last = Bytes::copy_from_slice(&chunk.last));
    Ok(chunks)
}

/// Whether a key from `min` to `max` can lie in `range`.
fn overlaps(range: &KeyRange, min: &[u8], max: &[u8]) -> bool {
    &range.start[..] <= max && (range.end.is_empty() || min < &range.end[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_cut_into_chunks() {
        let entries = (0..10_u8).map(|i| Ok((Slice::from([i]), CHUNK / 4 + 1)));
        let chunks = sample(entries).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.last[0]).collect::<Vec<_>>(), [3, 7, 9]);
        assert_eq!(chunks.iter().map(|chunk| chunk.bytes).sum::<u64>(), 10 * (CHUNK / 4 + 1));
    }
}
