//! BatchRollback: a client gives its transaction up.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, distinct, settle};
use crate::{
    Concurrency,
    changes::Changes,
    error::{KeyError, Result},
    layout::Key,
    reader::{Reader, TxnRecord},
};

/// Rolls a transaction back on some of its keys, also where it was not prewritten yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchRollback {
    /// The user's keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

impl Command for BatchRollback {
    type Answer = ();

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    /// The rollback says that nothing is committed at `start_ts`, also by others.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        super::latest(&[self.start_ts])
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<()>> {
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        for key in distinct(&self.keys) {
            rollback(&mut changes, &mut reader, &key, self.start_ts)?;
        }
        Ok(Outcome::new(changes, ()))
    }
}

/// Rolls the transaction `start_ts` back on `key`. On the primary the record decides the transaction.
pub(super) fn rollback(
    changes: &mut Changes,
    reader: &mut Reader<'_>,
    key: &Key,
    start_ts: TimeStamp,
) -> Result<()> {
    let foreign = match reader.load_lock(key)? {
        Some(lock) if lock.start_ts == start_ts => {
            let is_protected = settle::decides(key, &lock);
            return settle::rollback_lock(changes, reader, key, &lock, is_protected);
        }
        foreign => foreign,
    };
    let record = reader.txn_record(key, start_ts)?;
    if let Some(commit_ts) = record.commit_ts() {
        return Err(KeyError::Committed { start_ts, commit_ts, key: key.user().clone() }.into());
    }
    if let TxnRecord::None { overlapped } = record {
        settle::rollback_missing(changes, key, start_ts, foreign, overlapped, false);
    }
    Ok(())
}
