//! DeleteKeys: everything that is stored of some keys goes, whatever it is.

use engine::Snapshot;
use types::Bytes;

use super::{Command, Outcome, distinct};
use crate::{Concurrency, changes::Changes, error::Result, mvcc};

/// Removes locks, records and values of some keys. Nobody may need them any more: transactions under way on them are
/// neither committed nor rolled back, and readers of older versions find nothing.
///
/// Key by key and under latches, not as a range: a commit that is under way would leave a record without its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteKeys {
    /// The user's keys, as [`find_keys`](crate::mvcc::find_keys) gives them.
    pub keys: Vec<Bytes>,
    /// About how many changes to propose at once.
    pub limit: usize,
}

impl Command for DeleteKeys {
    /// Keys that were not finished; to be asked for again.
    type Answer = Vec<Bytes>;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<Vec<Bytes>>> {
        let mut changes = Changes::new();
        let mut rest = Vec::new();
        for key in distinct(&self.keys) {
            if self.limit <= changes.len() {
                rest.push(key.user().clone());
                continue;
            }
            let found = mvcc::records_of(snapshot, key.user())?;
            if found.lock.is_some() {
                changes.delete_lock(&key);
            }
            // From old to new, so that what is cut off shows no version that was hidden before. A value goes with its
            // record; one without a record is a lock's, or nobody's.
            let mut is_cut = false;
            for (commit_ts, write) in found.writes.iter().rev() {
                is_cut = self.limit <= changes.len();
                if is_cut {
                    break;
                }
                if found.values.iter().any(|(start_ts, _)| *start_ts == write.start_ts) {
                    changes.delete_value(&key, write.start_ts);
                }
                changes.delete_write(&key, *commit_ts);
            }
            let has_record =
                |start_ts| found.writes.iter().any(|(_, write)| write.start_ts == start_ts);
            for (start_ts, _) in found.values.iter().filter(|(start_ts, _)| !has_record(*start_ts))
            {
                changes.delete_value(&key, *start_ts);
            }
            if is_cut {
                rest.push(key.user().clone());
            }
        }
        Ok(Outcome::new(changes, rest))
    }
}
