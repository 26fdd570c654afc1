//! The changes that a command comes to, in the words of transactions.

use types::{Bytes, Cf, Modify, TimeStamp};

use crate::{layout::Key, lock::Lock, write::Write};

/// A list of changes, in order. It takes effect as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    modifies: Vec<Modify>,
}

impl Changes {
    /// None yet.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// The lock of `key` becomes `lock`.
    pub fn put_lock(&mut self, key: &Key, lock: &Lock) {
        self.put(Cf::Lock, key.encoded().clone(), lock.encode());
    }

    /// `key` is free.
    pub fn delete_lock(&mut self, key: &Key) {
        self.delete(Cf::Lock, key.encoded().clone());
    }

    /// A record of `key` at `commit_ts`; a record that is there already is replaced.
    pub fn put_write(&mut self, key: &Key, commit_ts: TimeStamp, write: &Write) {
        self.put(Cf::Write, key.at(commit_ts), write.encode());
    }

    /// Removes the record of `key` at `commit_ts`.
    pub fn delete_write(&mut self, key: &Key, commit_ts: TimeStamp) {
        self.delete(Cf::Write, key.at(commit_ts));
    }

    /// The value that the transaction `start_ts` gives to `key`.
    pub fn put_value(&mut self, key: &Key, start_ts: TimeStamp, value: Bytes) {
        self.put(Cf::Default, key.at(start_ts), value);
    }

    /// Removes the value that the transaction `start_ts` gave to `key`.
    pub fn delete_value(&mut self, key: &Key, start_ts: TimeStamp) {
        self.delete(Cf::Default, key.at(start_ts));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.modifies.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.modifies.is_empty()
    }

    /// The list, to propose.
    pub fn into_modifies(self) -> Vec<Modify> {
        self.modifies
    }

    fn put(&mut self, cf: Cf, key: Bytes, value: Bytes) {
        self.modifies.push(Modify::Put { cf, key, value });
    }

    fn delete(&mut self, cf: Cf, key: Bytes) {
        self.modifies.push(Modify::Delete { cf, key });
    }
}
