//! Transactions in the simulator of stores: the commands of crate `txn` over the replicated store, decided and proposed as
//! `storage` does it, and clients that may die between any two steps of theirs.
//!
//! `world/txns.rs` is what a store does with a request; `clients` move money between accounts, in two phases, with asynchronous
//! commit or in one phase, and end what others have left; `judge` replays every read at its timestamp against what was
//! committed in the end.

pub(super) mod clients;
pub(super) mod judge;

use raftstore::store::Token;
use txn::{
    KeyError,
    commands::{
        BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Commit, Prewrite, PrewriteAnswer,
        ResolveLocks, SecondaryLocks, TxnStatus,
    },
};
use types::{Bytes, RegionEpoch, RegionId, TimeStamp};

/// What a client asks of a store.
#[derive(Clone, Debug)]
pub(super) enum TxnRequest {
    /// The values of keys as of a version. Locks of these transactions are passed over.
    Get {
        keys: Vec<Bytes>,
        version: TimeStamp,
        resolved: Vec<u64>,
    },
    Prewrite(Prewrite),
    Commit(Commit),
    Rollback(BatchRollback),
    Status(CheckTxnStatus),
    Secondaries(CheckSecondaryLocks),
    Resolve(ResolveLocks),
}

/// What a store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TxnAnswer {
    /// What each key holds, in their order.
    Values(Vec<Result<Option<Bytes>, KeyError>>),
    Prewritten(PrewriteAnswer),
    Done,
    Status(TxnStatus),
    Secondaries(SecondaryLocks),
    /// The state of a key is against it.
    Refused(KeyError),
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct TxnCall {
    pub(super) token: Token,
    pub(super) region_id: RegionId,
    pub(super) epoch: RegionEpoch,
    pub(super) request: TxnRequest,
}

impl TxnRequest {
    /// The user's keys that it concerns.
    pub(super) fn keys(&self) -> Vec<Bytes> {
        use txn::commands::Command;
        match self {
            TxnRequest::Get { keys, .. } => keys.clone(),
            TxnRequest::Prewrite(command) => command.keys(),
            TxnRequest::Commit(command) => command.keys(),
            TxnRequest::Rollback(command) => command.keys(),
            TxnRequest::Status(command) => command.keys(),
            TxnRequest::Secondaries(command) => command.keys(),
            TxnRequest::Resolve(command) => command.keys(),
        }
    }
}
