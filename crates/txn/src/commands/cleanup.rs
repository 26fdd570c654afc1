//! Cleanup: another client asks a primary what became of its transaction, and ends it if its time is over.

use engine::Snapshot;
use types::{Bytes, TimeStamp};

use super::{Command, Outcome, check_txn_status::TtlRule, settle};
use crate::{
    Concurrency,
    changes::Changes,
    error::{KeyError, Result},
    layout::Key,
    reader::{Reader, TxnRecord},
};

/// The older sibling of [`CheckTxnStatus`](super::CheckTxnStatus); some clients know nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cleanup {
    /// The user's key, a primary.
    pub key: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// What time the client has. Zero: the transaction ends, whatever its time to live.
    pub current_ts: TimeStamp,
}

impl Command for Cleanup {
    /// When the transaction was committed; `None` if it is rolled back now.
    type Answer = Option<TimeStamp>;

    fn keys(&self) -> Vec<Bytes> {
        vec![self.key.clone()]
    }

    /// The rollback says that nothing is committed at `start_ts`, also by others.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        super::latest(&[self.start_ts])
    }

    fn run(&self, snapshot: &dyn Snapshot, _: &Concurrency) -> Result<Outcome<Option<TimeStamp>>> {
        let mut reader = Reader::new(snapshot);
        let mut changes = Changes::new();
        let key = Key::new(self.key.clone());
        let foreign = match reader.load_lock(&key)? {
            Some(lock) if lock.start_ts == self.start_ts => {
                let is_over = self.current_ts == TimeStamp::ZERO
                    || TtlRule::Tikv.is_over(&lock, self.current_ts);
                if !is_over {
                    return Err(KeyError::locked(lock.info(&key)).into());
                }
                settle::rollback_lock(&mut changes, &mut reader, &key, &lock, true)?;
                return Ok(Outcome::new(changes, None));
            }
            foreign => foreign,
        };
        let record = reader.txn_record(&key, self.start_ts)?;
        let commit_ts = record.commit_ts();
        if let TxnRecord::None { overlapped } = record {
            settle::rollback_missing(&mut changes, &key, self.start_ts, foreign, overlapped, true);
        }
        Ok(Outcome::new(changes, commit_ts))
    }
}
