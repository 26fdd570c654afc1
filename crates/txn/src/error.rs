//! What a command or a read may answer instead of what was asked for.
//!
//! A [`KeyError`] is about the state of a key and belongs into the answer: the client reacts to it. The other errors
//! are about the store. User's keys stand in errors as the user has them.

use types::{Bytes, Cf, TimeStamp, codec::DecodeError, key};

use crate::lock::LockKind;

/// The result of a command or a read.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command did not do what was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A record does not read.
    #[error("a record of column family {cf} under {} does not read: {source}", key::display(key))]
    Corrupt {
        /// Where it lies.
        cf: Cf,
        /// The stored key.
        key: Bytes,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A commit record says that there is a value, and there is none.
    #[error("the value of {} as of {start_ts} is missing", key::display(key))]
    ValueMissing {
        /// The user's key.
        key: Bytes,
        /// The transaction that wrote it.
        start_ts: TimeStamp,
    },
    /// The state of a key is against it.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A lock, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// The user's key.
    pub key: Bytes,
    /// The user's key where the transaction is decided.
    pub primary: Bytes,
    /// The transaction (`lock_version` on the wire).
    pub start_ts: TimeStamp,
    /// Milliseconds; zero asks the client to resolve at once.
    pub ttl: u64,
    /// What the transaction is going to do.
    pub kind: LockKind,
    /// About how many keys it has.
    pub txn_size: u64,
    /// As of when it was locked; zero for optimistic transactions.
    pub for_update_ts: TimeStamp,
    /// The transaction does not commit below this.
    pub min_commit_ts: TimeStamp,
    /// Whether it is committed as soon as all keys are prewritten.
    pub use_async_commit: bool,
    /// All other keys, on the primary of a transaction with asynchronous commit.
    pub secondaries: Vec<Bytes>,
}

/// Why there was a write conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictReason {
    /// An optimistic transaction met a newer version.
    Optimistic,
    /// A pessimistic lock met a newer version than the one it was asked for.
    PessimisticRetry,
    /// The transaction was rolled back before.
    SelfRolledBack,
    /// A read that must not miss anything newer met something newer.
    RcCheckTs,
    /// A check for uniqueness that was put off until the prewrite met a newer version.
    LazyUniquenessCheck,
    /// A key of a pessimistic transaction that it had not locked has a newer version.
    NotLockedKeyConflict,
}

/// What a client claims about a key before its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assertion {
    /// Nothing.
    #[default]
    None,
    /// It exists.
    Exist,
    /// It does not exist.
    NotExist,
}

/// One edge of a deadlock: who waits for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// The transaction that waits.
    pub start_ts: TimeStamp,
    /// The transaction that it waits for.
    pub wait_for_ts: TimeStamp,
    /// The user's key that it wants.
    pub key: Bytes,
}

/// The state of a key is against a command or a read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another transaction has it. The client waits, or resolves the lock.
    #[error("{} is locked by transaction {}", key::display(&.0.key), .0.start_ts)]
    Locked(Box<LockInfo>),
    /// Somebody wrote it since. The client begins anew.
    #[error(
        "{} was written at {conflict_commit_ts} by transaction {conflict_start_ts}, {start_ts} conflicts ({reason:?})",
        key::display(key)
    )]
    WriteConflict {
        /// The transaction that lost.
        start_ts: TimeStamp,
        /// The transaction that won.
        conflict_start_ts: TimeStamp,
        /// When it committed; zero if it is not known to have.
        conflict_commit_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
        /// The primary of the transaction that lost.
        primary: Bytes,
        /// How they met.
        reason: ConflictReason,
    },
    /// A key that must not exist does.
    #[error("{} exists already", key::display(key))]
    AlreadyExist {
        /// The user's key.
        key: Bytes,
    },
    /// Transactions wait for each other.
    #[error("transaction {lock_ts} on {} waits for this one", key::display(lock_key))]
    Deadlock {
        /// The transaction that has the lock.
        lock_ts: TimeStamp,
        /// The user's key.
        lock_key: Bytes,
        /// A hash of the key over which the circle was closed.
        deadlock_key_hash: u64,
        /// The whole circle.
        wait_chain: Vec<WaitFor>,
    },
    /// A reader pushed the transaction; it has to commit later than it asked for.
    #[error(
        "{} can't be committed at {attempted_commit_ts}, only from {min_commit_ts} on",
        key::display(key)
    )]
    CommitTsExpired {
        /// The transaction.
        start_ts: TimeStamp,
        /// When it wanted to commit.
        attempted_commit_ts: TimeStamp,
        /// The user's key, byte for byte: clients compare it with their primary.
        key: Bytes,
        /// From when on it may.
        min_commit_ts: TimeStamp,
    },
    /// Neither lock nor record of the transaction is there.
    #[error("transaction {start_ts} is not known at {}", key::display(primary))]
    TxnNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key that was asked.
        primary: Bytes,
    },
    /// A commit found no lock of its own. Retryable on the wire.
    #[error("{} has no lock of transaction {start_ts} to commit", key::display(key))]
    TxnLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
    },
    /// The timestamp that the store had to choose is above the one allowed.
    #[error("transaction {start_ts} could commit only at {min_commit_ts}, later than allowed")]
    CommitTsTooLarge {
        /// The transaction.
        start_ts: TimeStamp,
        /// When it could.
        min_commit_ts: TimeStamp,
    },
    /// What the client claims about a key is not so.
    #[error(
        "transaction {start_ts} asserts {assertion:?} of {}, which is not so",
        key::display(key)
    )]
    AssertionFailed {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
        /// The claim.
        assertion: Assertion,
        /// The transaction that wrote the version there is; zero for none.
        existing_start_ts: TimeStamp,
        /// When it committed.
        existing_commit_ts: TimeStamp,
    },
    /// The key that was asked for the state of a transaction is not its primary.
    #[error("{} is not the primary of transaction {}", key::display(&.0.key), .0.start_ts)]
    PrimaryMismatch(Box<LockInfo>),
    /// The pessimistic lock that a prewrite relies on is gone. Abort on the wire.
    #[error("the pessimistic lock of transaction {start_ts} on {} is not there", key::display(key))]
    PessimisticLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
    },
    /// The transaction that asks for a pessimistic lock was rolled back. Abort on the wire.
    #[error("transaction {start_ts} was rolled back on {}", key::display(key))]
    PessimisticLockRolledBack {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
    },
    /// The transaction is committed and can't be rolled back. Abort on the wire.
    #[error("transaction {start_ts} was committed at {commit_ts} on {}", key::display(key))]
    Committed {
        /// The transaction.
        start_ts: TimeStamp,
        /// When.
        commit_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
    },
    /// The transaction was rolled back and can't be committed. Abort on the wire.
    #[error("transaction {start_ts} was rolled back on {}", key::display(key))]
    RolledBack {
        /// The transaction.
        start_ts: TimeStamp,
        /// The user's key.
        key: Bytes,
    },
    /// Versions that it would need may have been removed. Abort on the wire, in the words that TiKV's clients know.
    #[error(
        "GC life time is shorter than transaction duration: {ts} is not above the GC safe point {safe_point}"
    )]
    BelowSafePoint {
        /// The transaction, or the version that was to be read.
        ts: TimeStamp,
        /// Versions below it may be gone.
        safe_point: TimeStamp,
    },
    /// No such timestamp was given out yet. Abort on the wire.
    #[error("timestamp {ts} is in the future: none above {limit} can have been given out yet")]
    InTheFuture {
        /// The timestamp.
        ts: TimeStamp,
        /// The last that was taken.
        limit: TimeStamp,
    },
    /// A request that makes no sense. Abort on the wire.
    #[error("{0}")]
    InvalidRequest(String),
}

impl KeyError {
    /// The key is locked.
    pub(crate) fn locked(info: LockInfo) -> KeyError {
        KeyError::Locked(Box::new(info))
    }
}
