//! ResolveLock: transactions that are decided are ended on keys that still have their locks.

use std::collections::BTreeMap;

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, distinct, settle};
use crate::{Concurrency, changes::Changes, error::Result, reader::Reader};

/// Ends transactions on keys, as their primaries decided.
///
/// All forms of the request come to it. A request that names its keys names them here; one for a whole region is
/// paged: [`find_locks`](crate::find_locks) gives keys, and each page is a command. A key that has no lock of these
/// transactions (any more) is passed over, so that the command can be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveLocks {
    /// The user's keys.
    pub keys: Vec<Bytes>,
    /// By start timestamp, when each transaction was committed; zero if it was rolled back.
    pub txns: BTreeMap<TimeStamp, TimeStamp>,
}

impl Command for ResolveLocks {
    /// How many locks were there.
    type Answer = usize;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    /// When they are committed.
    fn latest_ts(&self) -> Option<TimeStamp> {
        super::latest_written(self.txns.values().copied())
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<usize>> {
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let mut resolved = 0;
        for key in distinct(&self.keys) {
            let Some(lock) = reader.load_lock(&key)? else { continue };
            match self.txns.get(&lock.start_ts) {
                None => continue,
                Some(&TimeStamp::ZERO) => {
                    let is_protected = settle::decides(&key, &lock);
                    settle::rollback_lock(&mut changes, &mut reader, &key, &lock, is_protected)?;
                }
                Some(&commit_ts) => {
                    settle::commit_lock(&mut changes, &key, lock, commit_ts)?;
                }
            }
            resolved += 1;
        }
        Ok(Outcome::new(changes, resolved))
    }
}
