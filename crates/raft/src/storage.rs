//! Where a node's past lies: the trait that the core reads through, and a twin in memory.
//!
//! The core only reads. It is the owner who writes, what [`Ready`](crate::Ready) says and in that order; what the owner
//! has written is readable at once, before it is durable.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    entry::{Entry, HardState, Snapshot, SnapshotMeta},
    error::StorageError,
    membership::ConfState,
};

/// What a node reads of its own past.
///
/// The log in the storage covers `first_index ..= last_index`; of `first_index - 1` the term is known too. An empty log
/// has `first_index == last_index + 1`.
pub trait Storage {
    /// The hard state, and the members as of [`Config::applied`](crate::Config): not before and not after it, or a
    /// change of the members would be missed or made twice.
    fn initial_state(&self) -> Result<(HardState, ConfState), StorageError>;

    /// The entries `low ..  high`, as many as cost at most `max_bytes` ([`Entry::cost`]) together, at least one.
    /// `low < high <= last_index + 1`. Errors: `Compacted` if `low < first_index`, `Unavailable` beyond the end.
    fn entries(&self, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError>;

    /// The term of the entry at `index`, from `first_index - 1` to `last_index`. Errors as of `entries`.
    fn term(&self, index: u64) -> Result<u64, StorageError>;

    /// The first entry that is there.
    fn first_index(&self) -> u64;

    /// The last entry that is there.
    fn last_index(&self) -> u64;

    /// A snapshot that covers at least `request_index`, for node `to`. `Unavailable` while it is being made: the core
    /// asks again when `to` answers a heartbeat.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot, StorageError>;
}

/// A storage in memory: for tests, the simulator and measurements. What it "persists" is there at once; a test that
/// wants to lose something keeps copies.
#[derive(Clone, Debug, Default)]
pub struct MemStorage {
    hard_state: HardState,
    /// The members of `initial_state`.
    conf: ConfState,
    /// The snapshot that is handed out, and by its meta the place before the first entry.
    snapshot: Snapshot,
    /// The place before the first entry; at or after `snapshot.meta.index`.
    base: (u64, u64),
    entries: VecDeque<Entry>,
}

impl MemStorage {
    /// A storage of a group that has never done anything, with these voters.
    pub fn new(voters: impl IntoIterator<Item = u64>) -> MemStorage {
        MemStorage { conf: ConfState::of_voters(voters), ..MemStorage::default() }
    }

    /// Appends entries, which replace what is there from the first of them on. Entries that are compacted already are
    /// skipped.
    ///
    /// # Panics
    /// If there would be a gap: the owner has lost a Ready.
    pub fn append(&mut self, entries: &[Entry]) {
        let first = self.first_index();
        let Some(start) = entries.iter().position(|entry| first <= entry.index) else { return };
        let entries = &entries[start..];
        let at = entries[0].index;
        assert!(at <= self.last_index() + 1, "a gap before index {at}");
        self.entries.truncate((at - first) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    /// Appends entries that are given away.
    ///
    /// # Panics
    /// As of [`MemStorage::append`].
    pub fn append_owned(&mut self, entries: Vec<Entry>) {
        let Some(at) = entries.first().map(|entry| entry.index) else { return };
        let first = self.first_index();
        if at < first {
            return self.append(&entries);
        }
        assert!(at <= self.last_index() + 1, "a gap before index {at}");
        self.entries.truncate((at - first) as usize);
        self.entries.extend(entries);
    }

    /// Replaces everything up to the snapshot, and everything after it: the log is empty then. A snapshot that is not
    /// newer than what is compacted changes nothing and gives `Compacted`.
    pub fn apply_snapshot(&mut self, snapshot: Snapshot) -> Result<(), StorageError> {
        let SnapshotMeta { index, term, .. } = snapshot.meta;
        if index <= self.snapshot.meta.index {
            return Err(StorageError::Compacted);
        }
        self.base = (index, term);
        self.entries.clear();
        self.conf = snapshot.meta.conf.clone();
        self.hard_state.commit = self.hard_state.commit.max(index);
        self.hard_state.term = self.hard_state.term.max(term);
        self.snapshot = snapshot;
        Ok(())
    }

    /// Keeps `data` as the snapshot at `index`, with the members `conf`; the log stays as it is. Errors: `Compacted`
    /// if there is a newer one, `Unavailable` if the log does not reach that far.
    pub fn create_snapshot(
        &mut self,
        index: u64,
        conf: ConfState,
        data: Bytes,
    ) -> Result<(), StorageError> {
        if index <= self.snapshot.meta.index {
            return Err(StorageError::Compacted);
        }
        let term = self.term(index)?;
        self.snapshot = Snapshot { meta: SnapshotMeta { index, term, conf }, data };
        Ok(())
    }

    /// Forgets the entries up to `index`, inclusive. Errors: `Compacted` if they are gone already, `Unavailable` if
    /// the log does not reach that far.
    pub fn compact(&mut self, index: u64) -> Result<(), StorageError> {
        if index < self.first_index() {
            return Err(StorageError::Compacted);
        }
        let term = self.term(index)?;
        self.entries.drain(..=(index - self.first_index()) as usize);
        self.base = (index, term);
        Ok(())
    }

    /// Sets the hard state.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Sets the members that `initial_state` gives.
    pub fn set_conf_state(&mut self, conf: ConfState) {
        self.conf = conf;
    }

    /// The hard state.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The log.
    pub fn log(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

impl Storage for MemStorage {
    fn initial_state(&self) -> Result<(HardState, ConfState), StorageError> {
        Ok((self.hard_state, self.conf.clone()))
    }

    fn entries(&self, low: u64, high: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let first = self.first_index();
        if low < first {
            return Err(StorageError::Compacted);
        }
        if self.last_index() + 1 < high || high <= low {
            return Err(StorageError::Unavailable);
        }
        let range = (low - first) as usize..(high - first) as usize;
        let count = count_within(self.entries.range(range.clone()), max_bytes);
        Ok(self.entries.range(range.start..range.start + count).cloned().collect())
    }

    fn term(&self, index: u64) -> Result<u64, StorageError> {
        let (base_index, base_term) = self.base;
        if index < base_index {
            return Err(StorageError::Compacted);
        }
        if index == base_index {
            return Ok(base_term);
        }
        let at = (index - base_index - 1) as usize;
        self.entries.get(at).map(|entry| entry.term).ok_or(StorageError::Unavailable)
    }

    fn first_index(&self) -> u64 {
        self.base.0 + 1
    }

    fn last_index(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> Result<Snapshot, StorageError> {
        if self.snapshot.meta.index == 0 || self.snapshot.meta.index < request_index {
            return Err(StorageError::Unavailable);
        }
        Ok(self.snapshot.clone())
    }
}

/// How many entries from the front cost at most `max_bytes` together; at least one if there is one.
pub(crate) fn count_within<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    max_bytes: usize,
) -> usize {
    let (mut bytes, mut count) = (0usize, 0);
    for entry in entries {
        bytes = bytes.saturating_add(entry.cost());
        if 0 < count && max_bytes < bytes {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { term, index, kind: EntryKind::Normal, data: Bytes::from_static(b"x") }
    }

    fn terms(storage: &MemStorage) -> Vec<u64> {
        storage.log().map(|entry| entry.term).collect()
    }

    #[test]
    fn an_append_replaces_what_follows_it_and_skips_what_is_compacted() {
        let mut storage = MemStorage::new([1]);
        storage.append(&[entry(1, 1), entry(2, 1), entry(3, 1)]);
        storage.append(&[entry(2, 2)]);
        assert_eq!(terms(&storage), [1, 2]);
        storage.compact(1).unwrap();
        storage.append_owned(vec![entry(1, 1), entry(2, 2), entry(3, 3)]);
        assert_eq!(terms(&storage), [2, 3]);
        assert_eq!((storage.first_index(), storage.last_index()), (2, 3));
        assert_eq!(storage.term(1), Ok(1));
        assert_eq!(storage.term(0), Err(StorageError::Compacted));
        assert_eq!(storage.term(4), Err(StorageError::Unavailable));
    }

    #[test]
    #[should_panic(expected = "a gap before index 3")]
    fn a_gap_is_the_owners_error() {
        MemStorage::new([1]).append(&[entry(3, 1)]);
    }

    #[test]
    fn the_byte_limit_lets_one_entry_through() {
        let mut storage = MemStorage::new([1]);
        storage.append(&[entry(1, 1), entry(2, 1), entry(3, 1)]);
        let cost = entry(1, 1).cost();
        for (bytes, count) in [(0, 1), (cost, 1), (2 * cost, 2), (2 * cost + 1, 2), (usize::MAX, 3)]
        {
            assert_eq!(storage.entries(1, 4, bytes).unwrap().len(), count, "{bytes} bytes");
        }
        assert_eq!(storage.entries(1, 5, 0), Err(StorageError::Unavailable));
        assert_eq!(storage.entries(0, 2, 0), Err(StorageError::Compacted));
    }

    #[test]
    fn an_older_snapshot_changes_nothing() {
        let mut storage = MemStorage::new([1]);
        let meta = SnapshotMeta { index: 5, term: 2, conf: ConfState::of_voters([1, 2]) };
        let snapshot = Snapshot { meta, data: Bytes::new() };
        storage.apply_snapshot(snapshot.clone()).unwrap();
        assert_eq!(storage.apply_snapshot(snapshot), Err(StorageError::Compacted));
        assert_eq!((storage.first_index(), storage.last_index(), storage.term(5)), (6, 5, Ok(2)));
        assert_eq!(storage.initial_state().unwrap().1.voters, [1, 2]);
    }
}
