//! Percolator's commands. Each is a file: its arguments, and what they come to over a snapshot.
//!
//! A command neither waits nor writes. It is run with the latches of its keys held over a snapshot that was taken
//! afterwards, and says which changes to propose and what to answer once they are applied. The latches are released
//! then, and not before: the next command on these keys must see the changes.
//!
//! A command that ends in an error changes nothing.

mod batch_rollback;
mod check_secondary_locks;
mod check_txn_status;
mod cleanup;
mod commit;
mod delete_keys;
mod gc;
mod heart_beat;
mod pessimistic_lock;
mod pessimistic_rollback;
mod prewrite;
mod resolve_locks;
mod settle;

use std::collections::BTreeSet;

use engine::Snapshot;
use types::{Bytes, Modify, TimeStamp};

pub use self::{
    batch_rollback::BatchRollback,
    check_secondary_locks::{CheckSecondaryLocks, SecondaryLocks},
    check_txn_status::{CheckTxnStatus, TtlRule, TxnAction, TxnStatus},
    cleanup::Cleanup,
    commit::Commit,
    delete_keys::DeleteKeys,
    gc::Gc,
    heart_beat::TxnHeartBeat,
    pessimistic_lock::{
        LockedKey, PessimisticKey, PessimisticLock, PessimisticLockAnswer, WaitTimeout, WakeUpMode,
    },
    pessimistic_rollback::PessimisticRollback,
    prewrite::{AssertionLevel, Mutation, MutationOp, PessimisticAction, Prewrite, PrewriteAnswer},
    resolve_locks::ResolveLocks,
};
use crate::{Concurrency, changes::Changes, error::Result, layout::Key};

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<A> {
    /// What to propose, as one entry. Nothing: there is nothing to write, and the answer holds already.
    pub changes: Vec<Modify>,
    /// What to say once the changes are applied.
    pub answer: A,
}

impl<A> Outcome<A> {
    pub(crate) fn new(changes: Changes, answer: A) -> Outcome<A> {
        Outcome { changes: changes.into_modifies(), answer }
    }
}

/// A command that may write.
pub trait Command {
    /// What it says when it is done.
    type Answer;

    /// The user's keys whose latches are held from before the snapshot until the changes are applied.
    fn keys(&self) -> Vec<Bytes>;

    /// Up to where `max_ts` has to be raised before the snapshot is taken: the command reads, or decides about, what
    /// may be committed up to there.
    fn raises_max_ts(&self) -> Option<TimeStamp> {
        None
    }

    /// The transaction that it lets begin on its keys: what was known of it there may be forgotten below the GC safe point.
    fn begins_at(&self) -> Option<TimeStamp> {
        None
    }

    /// The latest timestamp that its sender claims to have from the scheduler, if it is to be believed.
    fn latest_ts(&self) -> Option<TimeStamp> {
        self.raises_max_ts()
    }

    /// Its changes remove what reads below this would need.
    fn collects_below(&self) -> Option<TimeStamp> {
        None
    }

    /// Whether it may be given a commit timestamp: then `max_ts` must not be below what any earlier leader has let be read.
    fn needs_max_ts(&self) -> bool {
        false
    }

    /// The stored keys whose locks it has left in `memory`.
    fn published(_answer: &Self::Answer) -> &[Bytes] {
        &[]
    }

    /// Decides, over a snapshot that was taken under the latches of [`keys`](Command::keys).
    ///
    /// Only prewrites with asynchronous commit or in one phase use `memory`; they leave locks in it, which the answer
    /// names, to be released when the changes are applied or have come to nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Key`](crate::Error::Key) if the state of a key is against it, and then nothing is to be written.
    fn run(&self, snapshot: &dyn Snapshot, memory: &Concurrency) -> Result<Outcome<Self::Answer>>;
}

/// The keys, each once, in the order in which they were first named.
fn distinct(keys: &[Bytes]) -> impl Iterator<Item = Key> {
    let mut seen = BTreeSet::new();
    keys.iter().filter(move |&key| seen.insert(key.clone())).map(|key| Key::new(key.clone()))
}

/// Of `ts`, those that are times and not "the newest"; the latest of them.
fn latest(ts: &[TimeStamp]) -> Option<TimeStamp> {
    ts.iter().copied().filter(|&ts| ts != TimeStamp::MAX).max()
}

/// The latest of the timestamps by which something is written. "The newest" is none of them: nobody was given that.
fn latest_written(ts: impl IntoIterator<Item = TimeStamp>) -> Option<TimeStamp> {
    ts.into_iter().max().map(|ts| ts.min(TimeStamp(u64::MAX - 1)))
}
