//! Values of keys that were read lately, in front of an engine.
//!
//! A point read of an LSM tree searches the memtable and a table or two; on the way it misses the processor's cache
//! some thirty times, which is most of its three to six microseconds. Here it is one hash and a handful of misses.
//!
//! The cache is an array of small sets. A key's hash names its set, and each set has a lock, a few rows and a
//! budget of bytes; a new row pushes out old ones of the same set that were not used since. So memory is bounded
//! without a list of everything, and two readers rarely meet.
//!
//! Snapshots see the truth because writes are numbered. A row holds for every snapshot from number `since` on, up
//! to now. The writer of batch `n` brings the rows of its keys up to date, and notes `n` in their sets, before any
//! snapshot `n` exists; older snapshots then find `since` too new and ask the engine. What a reader found in the
//! engine for snapshot `p` enters the set only if no batch later than `p` has touched the set since.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard},
};

use types::Bytes;

use crate::Family;

/// Bytes of rows in one set.
const SET_BYTES: usize = 8 << 10;

/// Rows of one set. Their tags fill a cache line.
const WAYS: usize = 32;

/// Larger rows are not kept: what they cost is copying, and they would push out many.
const ROW_BYTES_MAX: usize = SET_BYTES / 4;

/// Memory that a row takes beside its key and value.
const ROW_OVERHEAD: usize = size_of::<Row>() + 16;

/// The cache. By default it keeps nothing.
#[derive(Default)]
pub(crate) struct RowCache {
    sets: Box<[Mutex<Set>]>,
}

#[derive(Default)]
struct Set {
    /// Parts of the rows' hashes, to look at few rows.
    tags: [u16; WAYS],
    rows: Vec<Row>,
    bytes: usize,
    /// Where the search for a row to push out goes on.
    hand: usize,
    /// The last batch that had a key of this set.
    written: u64,
}

/// What is known of a key.
struct Row {
    /// Family, key, value.
    data: Box<[u8]>,
    /// The first snapshot that it holds for.
    since: u64,
    key_len: u32,
    is_there: bool,
    used: bool,
}

impl RowCache {
    /// A cache of about `bytes`; 0 keeps nothing.
    pub(crate) fn new(bytes: u64) -> RowCache {
        let sets = usize::try_from(bytes).unwrap_or(usize::MAX) / SET_BYTES;
        RowCache { sets: (0..sets).map(|_| Mutex::default()).collect() }
    }

    /// What snapshot `number` has under `key`: a value or nothing; `None` if that is not known here.
    pub(crate) fn get(&self, family: Family, key: &[u8], number: u64) -> Option<Option<Bytes>> {
        let (mut set, tag) = self.set(family, key)?;
        let i = set.find(tag, family, key)?;
        let row = &mut set.rows[i];
        if number < row.since {
            return None;
        }
        row.used = true;
        Some(row.is_there.then(|| Bytes::copy_from_slice(row.value())))
    }

    /// Takes in what the engine had for snapshot `number`.
    pub(crate) fn fill(&self, family: Family, key: &[u8], number: u64, value: Option<&[u8]>) {
        let Some((mut set, tag)) = self.set(family, key) else { return };
        if set.written <= number {
            set.put(tag, Row::new(family, key, number, value));
        }
    }

    /// Follows batch `number`, which has set `key` to `value` or removed it. Must be called before a snapshot of
    /// that number is taken.
    pub(crate) fn write(&self, family: Family, key: &[u8], number: u64, value: Option<&[u8]>) {
        let Some((mut set, tag)) = self.set(family, key) else { return };
        set.written = number;
        // Only what is read is kept; a bulk load must not push it out.
        if set.find(tag, family, key).is_some() {
            set.put(tag, Row::new(family, key, number, value));
        }
    }

    /// Forgets everything, since batch `number` has changed keys that nobody listed. Like
    /// [`write`](RowCache::write), before a snapshot of that number is taken.
    #[cfg(feature = "rocksdb")]
    pub(crate) fn clear(&self, number: u64) {
        for set in &self.sets {
            *lock(set) = Set { written: number, ..Set::default() };
        }
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> u64 {
        self.sets.iter().map(|set| lock(set).bytes as u64).sum()
    }

    fn set(&self, family: Family, key: &[u8]) -> Option<(MutexGuard<'_, Set>, u16)> {
        if self.sets.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (family as u8, key).hash(&mut hasher);
        let hash = hasher.finish();
        let place = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        Some((lock(&self.sets[place]), hash as u16))
    }
}

fn lock(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().expect("nobody panics with a set in hand")
}

impl Set {
    fn find(&self, tag: u16, family: Family, key: &[u8]) -> Option<usize> {
        let tags = self.tags[..self.rows.len()].iter().enumerate();
        tags.filter(|(_, found)| **found == tag)
            .map(|(i, _)| i)
            .find(|&i| self.rows[i].is_of(family, key))
    }

    /// Sets or replaces a row, pushing out others if need be.
    fn put(&mut self, tag: u16, row: Row) {
        let key = &row.data[1..=row.key_len as usize];
        if let Some(i) =
            self.rows.iter().position(|old| old.data[0] == row.data[0] && old.key() == key)
        {
            self.remove(i);
        }
        if ROW_BYTES_MAX < row.bytes() {
            return;
        }
        while self.rows.len() == WAYS || SET_BYTES < self.bytes + row.bytes() {
            self.push_out();
        }
        self.tags[self.rows.len()] = tag;
        self.bytes += row.bytes();
        self.rows.push(row);
    }

    /// Removes the next row that was not used since the hand passed it last.
    fn push_out(&mut self) {
        loop {
            self.hand = if self.hand + 1 < self.rows.len() { self.hand + 1 } else { 0 };
            if !std::mem::take(&mut self.rows[self.hand].used) {
                return self.remove(self.hand);
            }
        }
    }

    fn remove(&mut self, i: usize) {
        self.tags[i] = self.tags[self.rows.len() - 1];
        let row = self.rows.swap_remove(i);
        self.bytes -= row.bytes();
    }
}

impl Row {
    fn new(family: Family, key: &[u8], since: u64, value: Option<&[u8]>) -> Row {
        let data = [&[family as u8], key, value.unwrap_or_default()].concat().into_boxed_slice();
        Row { data, since, key_len: key.len() as u32, is_there: value.is_some(), used: false }
    }

    fn key(&self) -> &[u8] {
        &self.data[1..][..self.key_len as usize]
    }

    fn value(&self) -> &[u8] {
        &self.data[1 + self.key_len as usize..]
    }

    fn is_of(&self, family: Family, key: &[u8]) -> bool {
        self.data[0] == family as u8 && self.key() == key
    }

    fn bytes(&self) -> usize {
        self.data.len() + ROW_OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use runtime::Rng;

    use super::*;

    const F: Family = Family::Default;

    /// By key: the numbers of the batches that changed it, and what they left.
    type History = BTreeMap<u8, Vec<(u64, Option<Vec<u8>>)>>;

    fn some(value: &'static str) -> Option<Option<Bytes>> {
        Some(Some(Bytes::from(value)))
    }

    #[test]
    fn a_row_holds_from_its_snapshot_on() {
        let cache = RowCache::new(1 << 20);
        assert_eq!(cache.get(F, b"k", 5), None);
        cache.fill(F, b"k", 5, Some(b"v"));
        cache.fill(F, b"gone", 5, None);
        assert_eq!((cache.get(F, b"k", 5), cache.get(F, b"k", 9)), (some("v"), some("v")));
        assert_eq!(cache.get(F, b"gone", 5), Some(None));
        assert_eq!(cache.get(F, b"k", 4), None, "older snapshots may have had something else");
        assert_eq!(cache.get(Family::Lock, b"k", 5), None);
        cache.write(F, b"k", 10, Some(b"w"));
        assert_eq!((cache.get(F, b"k", 9), cache.get(F, b"k", 10)), (None, some("w")));
        cache.write(F, b"k", 11, None);
        assert_eq!((cache.get(F, b"k", 10), cache.get(F, b"k", 11)), (None, Some(None)));
    }

    #[test]
    fn what_was_read_before_a_write_does_not_enter_after_it() {
        let cache = RowCache::new(1 << 20);
        cache.write(F, b"k", 7, Some(b"new"));
        cache.fill(F, b"k", 6, Some(b"old"));
        assert_eq!(cache.get(F, b"k", 7), None);
        cache.fill(F, b"k", 7, Some(b"new"));
        assert_eq!(cache.get(F, b"k", 7), some("new"));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = RowCache::new(256 << 10);
        let value = [7; 200];
        for i in 0..20_000_u32 {
            cache.fill(F, &i.to_be_bytes(), 1, Some(&value));
            assert!(
                i % 16 != 0 || cache.get(F, &0_u32.to_be_bytes(), 1).is_some(),
                "pushed out at {i}"
            );
        }
        assert!((200 << 10) < cache.bytes() && cache.bytes() <= 256 << 10, "{}", cache.bytes());
        cache.fill(F, b"large", 1, Some(&[0; ROW_BYTES_MAX]));
        assert_eq!(cache.get(F, b"large", 1), None);
        RowCache::new(0).fill(F, b"k", 1, None);
    }

    /// Readers at any snapshot, with their fills delayed at will, against the history of every key.
    #[test]
    fn equals_the_history() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let cache = RowCache::new(16 * SET_BYTES as u64);
            let mut history = History::new();
            let mut pending = Vec::new();
            let at = |history: &History, key: u8, number: u64| {
                let versions = history.get(&key)?;
                versions.iter().rfind(|(since, _)| *since <= number)?.1.clone()
            };
            let (mut number, mut hits) = (0, 0);
            for _ in 0..3000 {
                let key = rng.range(0..100) as u8;
                match rng.range(0..10) {
                    0..3 => {
                        number += 1;
                        let value = rng.chance(0.8).then(|| vec![key; rng.range(0..1800) as usize]);
                        cache.write(F, &[key], number, value.as_deref());
                        history.entry(key).or_default().push((number, value));
                    }
                    3..8 => {
                        let snapshot = number - rng.range(0..=number.min(3));
                        let truth = at(&history, key, snapshot);
                        match cache.get(F, &[key], snapshot) {
                            Some(found) => {
                                hits += 1;
                                assert_eq!(found.map(|found| found.to_vec()), truth, "seed {seed}");
                            }
                            None => pending.push((key, snapshot, truth)),
                        }
                    }
                    _ => {
                        if !pending.is_empty() {
                            let i = rng.range(0..pending.len() as u64) as usize;
                            let (key, snapshot, value) = pending.swap_remove(i);
                            cache.fill(F, &[key], snapshot, value.as_deref());
                        }
                    }
                }
            }
            assert!(100 < hits, "seed {seed}: {hits} hits test nothing");
        }
    }
}
