//! TxnHeartBeat: a long transaction says that it lives.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome};
use crate::{
    Concurrency,
    changes::Changes,
    error::{KeyError, Result},
    layout::Key,
    reader::Reader,
};

/// Lengthens the time to live of a transaction, at its primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnHeartBeat {
    /// The user's key.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds from `start_ts` on. Less than what it has is no change.
    pub advise_ttl: u64,
}

impl Command for TxnHeartBeat {
    /// The time to live that the transaction has now.
    type Answer = u64;

    fn keys(&self) -> Vec<Bytes> {
        vec![self.primary.clone()]
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<u64>> {
        let key = Key::new(self.primary.clone());
        let mut changes = Changes::new();
        match Reader::new(snapshot).load_lock(&key)? {
            Some(mut lock) if lock.start_ts == self.start_ts => {
                if lock.ttl < self.advise_ttl {
                    lock.ttl = self.advise_ttl;
                    changes.put_lock(&key, &lock);
                }
                Ok(Outcome::new(changes, lock.ttl))
            }
            _ => {
                let (start_ts, primary) = (self.start_ts, self.primary.clone());
                Err(KeyError::TxnNotFound { start_ts, primary }.into())
            }
        }
    }
}
