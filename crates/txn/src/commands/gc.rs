//! GC: versions that nobody reads any more are removed.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, distinct};
use crate::{Concurrency, changes::Changes, error::Result, gc};

/// Removes from some keys what nobody needs who reads at or above a safe point. See [`crate::gc`].
///
/// Whoever moved the safe point has resolved every lock, in all regions, of transactions that started at or before it:
/// what decides them may go here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gc {
    /// The user's keys, as [`find_garbage`](crate::gc::find_garbage) gives them.
    pub keys: Vec<Bytes>,
    /// Nobody reads below it.
    pub safe_point: TimeStamp,
    /// About how many changes to propose at once.
    pub limit: usize,
}

impl Command for Gc {
    /// Keys that were not finished; to be asked for again.
    type Answer = Vec<Bytes>;

    fn keys(&self) -> Vec<Bytes> {
        self.keys.clone()
    }

    /// From what was never given out nobody may read on: every read would be refused.
    fn latest_ts(&self) -> Option<TimeStamp> {
        super::latest_written([self.safe_point])
    }

    fn collects_below(&self) -> Option<TimeStamp> {
        Some(self.safe_point)
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<Vec<Bytes>>> {
        let mut changes = Changes::new();
        let mut rest = Vec::new();
        for key in distinct(&self.keys) {
            if !gc::collect(&mut changes, snapshot, &key, self.safe_point, self.limit)? {
                rest.push(key.user().clone());
            }
        }
        Ok(Outcome::new(changes, rest))
    }
}
