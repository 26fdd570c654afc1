//! CheckSecondaryLocks: whether a transaction with asynchronous commit is committed, asked at its secondaries.

use engine::Snapshot;
use types::{Bytes, TimeStamp, marks::mutant};

use super::{Command, Outcome, distinct, settle};
use crate::{
    Concurrency,
    changes::Changes,
    error::{LockInfo, Result},
    reader::{Reader, TxnRecord},
};

/// Asks for the locks of a transaction. If one is missing, the transaction is kept from ever getting it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSecondaryLocks {
    /// The user's keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

/// All locks, if all are there. Else none, and when the transaction was committed, or zero if it is rolled back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondaryLocks {
    /// As many as there are keys, or none.
    pub locks: Vec<LockInfo>,
    /// Zero: not committed on any of the keys that were looked at.
    pub commit_ts: TimeStamp,
}

impl Command for CheckSecondaryLocks {
    type Answer = SecondaryLocks;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    /// A rollback says that nothing is committed at `start_ts`, also by others.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        super::latest(&[self.start_ts])
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<SecondaryLocks>> {
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let mut locks = Vec::new();
        for key in distinct(&self.keys) {
            let foreign = match reader.load_lock(&key)? {
                Some(lock) if lock.start_ts == self.start_ts => {
                    if !lock.is_pessimistic() {
                        locks.push(lock.info(&key));
                        continue;
                    }
                    // Not prewritten, and never to be.
                    settle::rollback_lock(&mut changes, &mut reader, &key, &lock, true)?;
                    return Ok(Outcome::new(changes, SecondaryLocks::default()));
                }
                foreign => foreign,
            };
            let record = reader.txn_record(&key, self.start_ts)?;
            let commit_ts = record.commit_ts().unwrap_or_default();
            if let TxnRecord::None { overlapped } = record
                && !mutant!("txn_missing_secondary_is_free")
            {
                let start_ts = self.start_ts;
                settle::rollback_missing(&mut changes, &key, start_ts, foreign, overlapped, true);
            }
            // One key decides. Nothing was changed for those before it.
            return Ok(Outcome::new(changes, SecondaryLocks { locks: Vec::new(), commit_ts }));
        }
        Ok(Outcome::new(changes, SecondaryLocks { locks, commit_ts: TimeStamp::ZERO }))
    }
}
