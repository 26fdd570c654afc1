//! PessimisticRollback: a transaction lets go of keys that it had locked and will not write.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, distinct};
use crate::{Concurrency, changes::Changes, error::Result, reader::Reader};

/// Removes pessimistic locks. It leaves no record: the transaction goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PessimisticRollback {
    /// The user's keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Locks that were taken later than this stay: a request overtook this one.
    pub for_update_ts: TimeStamp,
}

impl Command for PessimisticRollback {
    type Answer = ();

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<()>> {
        let reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        for key in distinct(&self.keys) {
            let is_meant = reader.load_lock(&key)?.is_some_and(|lock| {
                lock.is_pessimistic()
                    && lock.start_ts == self.start_ts
                    && lock.for_update_ts <= self.for_update_ts
            });
            if is_meant {
                changes.delete_lock(&key);
            }
        }
        Ok(Outcome::new(changes, ()))
    }
}
