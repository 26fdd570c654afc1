//! Commit: locks become records.

use engine::Snapshot;
use types::{Bytes, TimeStamp, marks::mutant};

use super::{Command, Outcome, distinct, settle};
use crate::{
    Concurrency,
    changes::Changes,
    error::{KeyError, Result},
    reader::{Reader, TxnRecord},
};

/// Commits a transaction on some of its keys. The client commits the primary first: from then on the transaction is
/// committed, and the other keys follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The user's keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// From when on its writes are seen.
    pub commit_ts: TimeStamp,
    /// A key on which the transaction is not known at all, and nobody else has a lock, is no error. The course's
    /// protocol has it so; for TiKV's clients it would hide a lost prewrite.
    pub missing_is_success: bool,
}

impl Command for Commit {
    /// The commit timestamp: another one than was asked for, if it was committed before.
    type Answer = TimeStamp;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    fn latest_ts(&self) -> Option<TimeStamp> {
        super::latest_written([self.commit_ts])
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<TimeStamp>> {
        let (start_ts, commit_ts) = (self.start_ts, self.commit_ts);
        if !self.keys.is_empty() && commit_ts <= start_ts {
            return Err(KeyError::InvalidRequest(format!(
                "transaction {start_ts} can't be committed at {commit_ts}: not after its start"
            ))
            .into());
        }
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let mut committed_at = commit_ts;
        for key in distinct(&self.keys) {
            let foreign = match reader.load_lock(&key)? {
                Some(lock) if lock.start_ts == start_ts => {
                    settle::commit_lock(&mut changes, &key, lock, commit_ts)?;
                    continue;
                }
                foreign => foreign,
            };
            let record = reader.txn_record(&key, start_ts)?;
            committed_at = record.commit_ts().unwrap_or(committed_at);
            let is_unknown = foreign.is_none() && matches!(record, TxnRecord::None { .. });
            let is_done = mutant!("txn_commits_without_its_lock")
                || record.commit_ts().is_some()
                || (is_unknown && self.missing_is_success);
            if !is_done {
                return Err(KeyError::TxnLockNotFound { start_ts, key: key.user().clone() }.into());
            }
        }
        Ok(Outcome::new(changes, committed_at))
    }
}
