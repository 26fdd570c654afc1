//! The log as the core sees it: the storage, and before it the tail that is not known to be durable yet.
//!
//! ```text
//!           first            offset              last
//!   compacted | in the storage | tail, in memory |
//!                   ▲ applied ≤ delivered ≤ committed     ▲ handed: given to the owner to persist
//!                     persisted: durable here
//! ```
//!
//! The tail begins behind what is durable, so the storage is never asked for an entry that it may still lose, and what
//! has just been proposed is sent to followers from memory.
//!
//! Invariant: an entry counts as durable only if the write that was confirmed is still the last one that touched its
//! index. A truncation takes back what earlier writes under way would confirm; comparing terms would not be enough,
//! since the same entry may be written, replaced and written again.
//!
//! Invariant: nobody acts on a change of the members, nor hears of it, before this node durably knows that it is
//! committed: `committed` stays before such a change, though more is `agreed`, until that is synced. Otherwise who is
//! removed could be gone for good, and a crash of those who stay would leave them waiting for its vote.

use std::collections::VecDeque;

use types::marks::{mutant, sometimes};

use crate::{
    entry::{Entry, EntryKind, HardState, Snapshot},
    error::StorageError,
    storage::{Storage, count_within},
};

/// Tails with more room than this give it back when the group is idle.
const IDLE_CAPACITY: usize = 16;

#[derive(Debug)]
pub(crate) struct Log<S> {
    pub(crate) storage: S,
    /// Entries from `offset` on.
    tail: VecDeque<Entry>,
    offset: u64,
    /// A snapshot that was received and not yet handed out.
    pending_snapshot: Option<Box<Snapshot>>,
    /// Index and term of a snapshot that is not known to be durable yet. It hides the storage.
    base: Option<(u64, u64)>,
    handed: u64,
    persisted: u64,
    /// The last entry that a quorum has.
    agreed: u64,
    /// The last one of them that others may know of.
    committed: u64,
    /// What is durably known here to be committed.
    durable_commit: u64,
    /// The changes of the members in the log behind that.
    changes: VecDeque<u64>,
    delivered: u64,
    /// An entry that is not handed out for applying yet, nor what follows: it removes this node.
    held: Option<u64>,
    applied: u64,
    writes: VecDeque<Write>,
}

/// A Ready that is being made durable.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) number: u64,
    /// When it is durable, everything up to here is, unless a later write replaces it.
    last: u64,
    /// The snapshot in it; 0 is none.
    snapshot: u64,
    /// The hard state as of this write.
    pub(crate) hard_state: HardState,
    /// The tick at which it was handed out.
    pub(crate) since: u64,
}

/// What `persist` has confirmed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Persisted {
    /// The hard state that is durable now, if one of the writes had one.
    pub(crate) hard_state: Option<HardState>,
}

impl<S: Storage> Log<S> {
    /// The log of a storage. `committed` and `applied` must lie in it.
    pub(crate) fn new(storage: S, committed: u64, applied: u64) -> Result<Log<S>, &'static str> {
        let (first, last) = (storage.first_index(), storage.last_index());
        if first == 0 || last + 1 < first {
            return Err("the log ends before it begins");
        }
        // Everything that is compacted has been applied, so it was committed.
        let committed = committed.max(first - 1);
        if last < committed {
            return Err("the log ends before its commit index: committed entries are lost");
        }
        let applied = match applied {
            0 => first - 1,
            applied => applied,
        };
        if applied < first - 1 {
            return Err("the log is compacted beyond what is applied");
        }
        if last < applied {
            return Err("the log ends before what is applied: committed entries are lost");
        }
        // An applied entry was committed, though the commit index need not have been durable.
        let agreed = committed.max(applied);
        Ok(Log {
            storage,
            tail: VecDeque::new(),
            offset: last + 1,
            pending_snapshot: None,
            base: None,
            handed: last,
            persisted: last,
            agreed,
            committed: agreed,
            durable_commit: agreed,
            changes: VecDeque::new(),
            delivered: applied,
            held: None,
            applied,
            writes: VecDeque::new(),
        })
    }

    /// Reads what is not known to be committed, for changes of the members: `max_bytes` at a time.
    pub(crate) fn find_changes(&mut self, max_bytes: usize) -> Result<(), StorageError> {
        let end = self.last_index() + 1;
        let mut next = self.durable_commit + 1;
        while next < end {
            let entries = self.entries(next, end, max_bytes)?;
            let Some(last) = entries.last() else { return Err(StorageError::Unavailable) };
            next = last.index + 1;
            let changes = entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange);
            self.changes.extend(changes.map(|entry| entry.index));
        }
        Ok(())
    }

    pub(crate) fn first_index(&self) -> u64 {
        match self.base {
            Some((index, _)) => index + 1,
            None => self.storage.first_index(),
        }
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.offset + self.tail.len() as u64 - 1
    }

    /// The last entry that may be applied here, and told to others, as committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// The last entry that a quorum has. For the hard state; only the rules here look beyond [`Log::committed`].
    pub(crate) fn agreed(&self) -> u64 {
        self.agreed
    }

    /// The first change of the members that is not durably known to be committed.
    #[cfg(any(debug_assertions, feature = "sim"))]
    pub(crate) fn unsynced_change(&self) -> Option<u64> {
        self.changes.front().copied()
    }

    /// Whether the commit index has to be synced, and no write does it: it has come to a change of the members.
    pub(crate) fn must_sync_commit(&self) -> bool {
        let written = self.writes.back().map_or(0, |write| write.hard_state.commit);
        let change = self.changes.front();
        change.is_some_and(|&change| change <= self.agreed && written < change)
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    pub(crate) fn persisted(&self) -> u64 {
        self.persisted
    }

    #[cfg(any(debug_assertions, feature = "sim"))]
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    #[cfg(any(debug_assertions, feature = "sim"))]
    pub(crate) fn handed(&self) -> u64 {
        self.handed
    }

    /// Whether a snapshot is received and not known to be durable.
    pub(crate) fn has_snapshot_under_way(&self) -> bool {
        self.base.is_some()
    }

    /// The term of an entry; of index 0 it is 0. Errors as of [`Storage::term`].
    pub(crate) fn term(&self, index: u64) -> Result<u64, StorageError> {
        if index == 0 {
            return Ok(0);
        }
        if self.offset <= index {
            let entry = self.tail.get((index - self.offset) as usize);
            return entry.map(|entry| entry.term).ok_or(StorageError::Unavailable);
        }
        match self.base {
            Some((base, term)) if index == base => Ok(term),
            Some((base, _)) if index < base => Err(StorageError::Compacted),
            _ => self.storage.term(index),
        }
    }

    /// The term of the last entry.
    pub(crate) fn last_term(&self) -> Result<u64, StorageError> {
        self.term(self.last_index())
    }

    /// Whether the log has this entry.
    pub(crate) fn has(&self, index: u64, term: u64) -> Result<bool, StorageError> {
        match self.term(index) {
            Ok(found) => Ok(found == term),
            Err(StorageError::Failed(why)) => Err(StorageError::Failed(why)),
            Err(StorageError::Compacted | StorageError::Unavailable) => Ok(false),
        }
    }

    /// The entries from `low` to `high`, exclusive, as many as fit; at least one. Errors as of [`Storage::entries`].
    pub(crate) fn entries(
        &self,
        low: u64,
        high: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        debug_assert!(low < high && high <= self.last_index() + 1, "{low}..{high} is in the log");
        if low < self.first_index() {
            return Err(StorageError::Compacted);
        }
        if self.offset <= low {
            return Ok(self.tail_range(low, high, max_bytes));
        }
        let mut entries = self.storage.entries(low, high.min(self.offset), max_bytes)?;
        // A Ready under way may have replaced entries of the storage only behind `offset`.
        if self.offset < high && entries.len() as u64 == self.offset - low {
            let cost: usize = entries.iter().map(Entry::cost).sum();
            let left = max_bytes.saturating_sub(cost);
            if self.tail.front().is_some_and(|entry| entry.cost() <= left) {
                entries.extend(self.tail_range(self.offset, high, left));
            }
        }
        Ok(entries)
    }

    fn tail_range(&self, low: u64, high: u64, max_bytes: usize) -> Vec<Entry> {
        let range = (low - self.offset) as usize..(high - self.offset) as usize;
        let count = count_within(self.tail.range(range.clone()), max_bytes);
        self.tail.range(range.start..range.start + count).cloned().collect()
    }

    /// Appends one entry behind the last.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last_index() + 1, "entries have no gaps");
        if entry.kind == EntryKind::ConfChange {
            self.changes.push_back(entry.index);
        }
        self.tail.push_back(entry);
    }

    /// Takes back everything from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        debug_assert!(self.agreed < index, "what is committed stays");
        while self.changes.pop_back_if(|change| index <= *change).is_some() {}
        if index < self.offset {
            self.tail.clear();
            self.offset = index;
        } else {
            self.tail.truncate((index - self.offset) as usize);
        }
        let last = index - 1;
        if last < self.handed {
            sometimes!("raft: a write under way is replaced");
        }
        self.handed = self.handed.min(last);
        self.persisted = self.persisted.min(last);
        for write in &mut self.writes {
            write.last = write.last.min(last);
        }
    }

    /// Replaces everything from the first of `entries` that differs. `entries` follow an entry that the log has.
    /// Returns the index of a committed entry that one of them contradicts, and then changes nothing.
    pub(crate) fn merge(&mut self, entries: Vec<Entry>) -> Result<Result<(), u64>, StorageError> {
        let last = self.last_index();
        let mut from = entries.len();
        for (at, entry) in entries.iter().enumerate() {
            if last < entry.index {
                from = at;
                break;
            }
            if entry.index < self.first_index() {
                continue; // compacted, so applied, so equal
            }
            if !self.has(entry.index, entry.term)? {
                if entry.index <= self.agreed {
                    return Ok(Err(entry.index));
                }
                sometimes!("raft: a conflict is truncated");
                from = at;
                break;
            }
        }
        let Some(first) = entries.get(from).map(|entry| entry.index) else { return Ok(Ok(())) };
        if first <= last && !mutant!("no_log_truncation_on_conflict") {
            self.truncate(first);
        }
        let last = self.last_index();
        for entry in entries.into_iter().skip(from).filter(|entry| last < entry.index) {
            self.push(entry);
        }
        Ok(Ok(()))
    }

    /// The last index up to `index` whose term is at most `term`, and that term: where a log with `term` at `index`
    /// may meet this one. Stops at what is compacted, with term 0 for "not known".
    pub(crate) fn meet(&self, index: u64, term: u64) -> Result<(u64, u64), StorageError> {
        let mut index = index.min(self.last_index());
        loop {
            match self.term(index) {
                Ok(found) if found <= term => return Ok((index, found)),
                Ok(_) => index -= 1, // term(0) is 0, so this ends there at the latest
                Err(StorageError::Failed(why)) => return Err(StorageError::Failed(why)),
                Err(StorageError::Compacted | StorageError::Unavailable) => return Ok((index, 0)),
            }
        }
    }

    /// Whether a log that ends so is at least as good as this one (Raft paper, 5.4.1).
    pub(crate) fn is_up_to_date(
        &self,
        last_index: u64,
        last_term: u64,
    ) -> Result<bool, StorageError> {
        let own = (self.last_term()?, self.last_index());
        Ok(own <= (last_term, last_index))
    }

    /// Everything up to `index` is committed. Returns whether [`Log::committed`] has moved; it never goes back.
    pub(crate) fn commit_to(&mut self, index: u64) -> bool {
        debug_assert!(index <= self.last_index(), "only what is there is committed");
        self.agreed = self.agreed.max(index);
        let before = self.committed;
        let change = self.changes.front().filter(|_| !mutant!("acts_on_unsynced_change"));
        let until = change.map_or(self.agreed, |change| change - 1);
        self.committed = self.committed.max(self.agreed.min(until));
        before < self.committed
    }

    /// What is durably known to be committed lets later changes of the members go.
    fn commit_is_durable(&mut self, index: u64) {
        self.durable_commit = self.durable_commit.max(index);
        while self.changes.pop_front_if(|change| *change <= self.durable_commit).is_some() {}
        self.commit_to(self.agreed);
    }

    /// Puts a snapshot in place of the whole log.
    pub(crate) fn restore(&mut self, snapshot: Snapshot) {
        let (index, term) = (snapshot.meta.index, snapshot.meta.term);
        debug_assert!(self.agreed < index, "a snapshot is newer than what is committed");
        self.truncate(self.agreed + 1);
        self.changes.clear();
        self.tail.clear();
        self.offset = index + 1;
        self.base = Some((index, term));
        self.handed = index;
        (self.agreed, self.committed) = (index, index);
        // What is handed out for applying is over; the snapshot brings its effects.
        self.delivered = index;
        self.held = None;
        self.pending_snapshot = Some(Box::new(snapshot));
    }

    /// Whether there is something to persist that was not handed out.
    pub(crate) fn has_unhanded(&self) -> bool {
        self.handed < self.last_index() || self.pending_snapshot.is_some()
    }

    /// Hands out what is to be persisted.
    pub(crate) fn hand_out(&mut self) -> (Vec<Entry>, Option<Snapshot>) {
        let snapshot = self.pending_snapshot.take().map(|snapshot| *snapshot);
        let start = (self.handed + 1).saturating_sub(self.offset) as usize;
        let entries: Vec<Entry> = self.tail.range(start..).cloned().collect();
        self.handed = self.last_index();
        (entries, snapshot)
    }

    /// Notes that what was just handed out is being made durable.
    pub(crate) fn write(&mut self, number: u64, snapshot: u64, hard_state: HardState, since: u64) {
        let last = self.handed;
        self.writes.push_back(Write { number, last, snapshot, hard_state, since });
    }

    /// The oldest write under way.
    pub(crate) fn oldest_write(&self) -> Option<&Write> {
        self.writes.front()
    }

    /// Every write up to `number` is durable.
    pub(crate) fn persist(&mut self, number: u64) -> Persisted {
        let mut confirmed = Persisted::default();
        while self.writes.front().is_some_and(|write| write.number <= number) {
            let Some(write) = self.writes.pop_front() else { break };
            confirmed.hard_state = Some(write.hard_state);
            if self.base.is_some_and(|(index, _)| index == write.snapshot) {
                self.base = None;
                self.applied = self.applied.max(write.snapshot);
            }
            // A write from before a snapshot that is still under way says nothing about the log behind it.
            if self.base.is_none() {
                self.persisted = self.persisted.max(write.last);
            }
        }
        if let Some(hard_state) = confirmed.hard_state {
            self.commit_is_durable(hard_state.commit);
        }
        let durable = (self.persisted + 1).saturating_sub(self.offset) as usize;
        self.tail.drain(..durable.min(self.tail.len()));
        self.offset += durable as u64;
        confirmed
    }

    /// The next committed entries to apply: durable, not handed out before, as many as fit. Nothing if the storage can't
    /// read them.
    pub(crate) fn next_to_deliver(&self, max_bytes: usize) -> Vec<Entry> {
        let Some((low, high)) = self.deliverable() else { return Vec::new() };
        self.entries(low, high + 1, max_bytes).unwrap_or_default()
    }

    /// The next `count` entries are handed out. The one at `held` and those behind it are not, for now.
    pub(crate) fn deliver(&mut self, count: usize, held: Option<u64>) {
        self.delivered += count as u64;
        self.held = held;
    }

    /// The entry that was held goes on.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// The first and the last entry that may be handed out for applying.
    pub(crate) fn deliverable(&self) -> Option<(u64, u64)> {
        let high = match mutant!("apply_before_persist") {
            true => self.committed,
            false => self.committed.min(self.persisted),
        };
        let high = self.held.map_or(high, |held| high.min(held - 1));
        (self.delivered < high).then_some((self.delivered + 1, high))
    }

    /// The entry that waits until it may be handed out.
    pub(crate) fn held(&self) -> Option<u64> {
        self.held
    }

    /// Hands the last of the delivered entries out again: a bug that tests must find.
    pub(crate) fn deliver_again(&mut self) {
        self.delivered -= 1;
    }

    /// The owner has applied everything up to `index`.
    ///
    /// # Panics
    /// If it was not handed out for that.
    pub(crate) fn apply_to(&mut self, index: u64) {
        assert!(index <= self.delivered, "only what was handed out is applied");
        self.applied = self.applied.max(index);
    }

    /// Gives memory back that an idle group does not need.
    pub(crate) fn shrink(&mut self) {
        if self.tail.is_empty() && IDLE_CAPACITY < self.tail.capacity() {
            self.tail = VecDeque::new();
        }
        if self.writes.is_empty() && IDLE_CAPACITY < self.writes.capacity() {
            self.writes = VecDeque::new();
        }
    }
}
