//! What transactions ask of stores, and what stores answer, without protobuf.
//!
//! A [`Command`] is one operation of the protocol over any number of keys. As raw requests do, it travels twice: with
//! user keys from a machine of this module, and, cut into what single regions hold, with request keys to the stores.
//! [`Answered`] travels the same way back. Whatever was refused because of the state of a key comes back as a command
//! of its own (`left`), so that whoever has removed the obstacle sends just that.

use types::{Bytes, KeyRange, TimeStamp};

use crate::request::{Direction, Effect, Pair};

/// As of when a read is, and what is known about locks that it may meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAt {
    /// Commits up to and including this one are seen.
    pub version: TimeStamp,
    /// Transactions that will not commit at or below `version`: their locks are none.
    pub resolved: Vec<TimeStamp>,
}

/// What a transaction does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a value.
    Put,
    /// Removes the key.
    Delete,
    /// Sets the value of a key that must not exist.
    Insert,
    /// Leaves it as it is, but nobody else may change it at the same time.
    Lock,
    /// Nothing, but the key must not exist. Puts no lock on it.
    CheckNotExists,
}

/// One change of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// What is done.
    pub op: Op,
    /// To which key.
    pub key: Bytes,
    /// The value of [`Op::Put`] and [`Op::Insert`].
    pub value: Bytes,
    /// The transaction has a pessimistic lock on it, which must still be there.
    pub is_locked: bool,
}

/// How few phases a transaction asks for. Each falls back to the one before it, where a store wants that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommitMode {
    /// Prewrite all keys, take a timestamp, commit the primary.
    TwoPhase,
    /// Committed as soon as all keys are prewritten.
    Async,
    /// Committed by the prewrite itself, if one region has all keys.
    #[default]
    OnePhase,
}

/// The first phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewrite {
    /// The changes, sorted by key, each key once.
    pub mutations: Vec<Mutation>,
    /// The key at which the transaction is decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// As of when its keys were locked; zero: it is optimistic.
    pub for_update_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which others may end it.
    pub ttl_ms: u64,
    /// How many keys it has.
    pub size: u64,
    /// It does not commit below this.
    pub min_commit_ts: TimeStamp,
    /// What it asks for.
    pub mode: CommitMode,
    /// Unless it asks for two phases: all keys that get a lock, without the primary.
    pub secondaries: Vec<Bytes>,
    /// A store may have seen a part of it before.
    pub is_retry: bool,
}

/// Pessimistic locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockKeys {
    /// Which keys, sorted, each once.
    pub keys: Vec<Bytes>,
    /// None of them may exist.
    pub must_not_exist: bool,
    /// Answer their values.
    pub wants_values: bool,
    /// The key at which the transaction will be decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// A newer version than this is a conflict.
    pub for_update_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which others may end it.
    pub ttl_ms: u64,
    /// It has no other lock, and can't be part of a deadlock.
    pub is_first: bool,
    /// How long a store may let this wait for somebody else's lock.
    pub wait_ms: u64,
}

/// The question at a primary what became of its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckStatus {
    /// The primary.
    pub primary: Bytes,
    /// The transaction in question.
    pub lock_ts: TimeStamp,
    /// The read that wants to be let past; zero: none.
    pub caller_ts: TimeStamp,
    /// What time it is; the largest: the transaction's time is over in any case.
    pub current_ts: TimeStamp,
    /// Roll the transaction back if the primary does not know it.
    pub rollback_if_unknown: bool,
    /// Treat its lock as one of two phases: it has fallen back.
    pub force_two_phases: bool,
    /// The lock that was met is a pessimistic one.
    pub met_pessimistic: bool,
}

/// One operation of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The value of a key. Answer: [`Reply::Pairs`].
    Get {
        /// Which.
        key: Bytes,
        /// As of when.
        at: ReadAt,
    },
    /// The values of several keys. Answer: [`Reply::Pairs`], those that exist, in the order of the keys.
    BatchGet {
        /// Which, sorted, each once.
        keys: Vec<Bytes>,
        /// As of when.
        at: ReadAt,
    },
    /// The pairs of a range. Answer: [`Reply::Pairs`]. It ends before the first lock in its way.
    Scan {
        /// Which.
        range: KeyRange,
        /// At most so many.
        limit: usize,
        /// Leaves the values out.
        keys_only: bool,
        /// From which end.
        direction: Direction,
        /// As of when.
        at: ReadAt,
    },
    /// Locks keys and writes values. Answer: [`Reply::Prewritten`].
    Prewrite(Prewrite),
    /// Turns locks into commits. Answer: [`Reply::Committed`].
    Commit {
        /// Which keys, sorted.
        keys: Vec<Bytes>,
        /// Whether the transaction is decided by it: the primary is among the keys, and it is not committed yet.
        decides: bool,
        /// The transaction.
        start_ts: TimeStamp,
        /// From when on its writes are seen.
        commit_ts: TimeStamp,
    },
    /// Takes locks back and forbids late prewrites. Answer: [`Reply::Done`].
    Rollback {
        /// Which keys, sorted.
        keys: Vec<Bytes>,
        /// The transaction.
        start_ts: TimeStamp,
    },
    /// Locks keys before it is known what is written. Answer: [`Reply::Pairs`]: those that exist, if
    /// values were asked for.
    Lock(LockKeys),
    /// Takes pessimistic locks back. Answer: [`Reply::Done`].
    Unlock {
        /// Which keys, sorted.
        keys: Vec<Bytes>,
        /// The transaction.
        start_ts: TimeStamp,
        /// Not those that were taken later than this.
        for_update_ts: TimeStamp,
    },
    /// What became of a transaction. Answer: [`Reply::Status`].
    CheckStatus(CheckStatus),
    /// Whether the keys of a transaction are all prewritten; those that are not never will be. Answer:
    /// [`Reply::Secondaries`].
    CheckSecondaries {
        /// Which keys, sorted.
        keys: Vec<Bytes>,
        /// The transaction.
        start_ts: TimeStamp,
    },
    /// Ends another transaction on keys, as its primary decided. Answer: [`Reply::Done`].
    Resolve {
        /// Which keys, sorted.
        keys: Vec<Bytes>,
        /// The transaction.
        start_ts: TimeStamp,
        /// When it committed; zero: it is rolled back.
        commit_ts: TimeStamp,
    },
    /// Prolongs a transaction. Answer: [`Reply::Done`].
    HeartBeat {
        /// Its primary.
        primary: Bytes,
        /// The transaction.
        start_ts: TimeStamp,
        /// Milliseconds after `start_ts` that it should live at least.
        ttl_ms: u64,
    },
}

impl Command {
    /// What happens when it is executed twice, or nobody knows whether it was.
    pub fn effect(&self) -> Effect {
        match self {
            Command::Prewrite(prewrite) if prewrite.mode != CommitMode::TwoPhase => Effect::Decides,
            Command::Commit { decides: true, .. } => Effect::Decides,
            // Whether the rest has happened does not change what a transaction comes to.
            _ => Effect::Read,
        }
    }

    /// The word for it in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Get { .. } => "get",
            Command::BatchGet { .. } => "batch get",
            Command::Scan { .. } => "scan",
            Command::Prewrite(_) => "prewrite",
            Command::Commit { .. } => "commit",
            Command::Rollback { .. } => "rollback",
            Command::Lock(_) => "lock",
            Command::Unlock { .. } => "unlock",
            Command::CheckStatus(_) => "check of a transaction",
            Command::CheckSecondaries { .. } => "check of secondary locks",
            Command::Resolve { .. } => "resolution of locks",
            Command::HeartBeat { .. } => "heart beat",
        }
    }
}

/// A lock that somebody has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// The key.
    pub key: Bytes,
    /// The key where its transaction is decided.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds after `start_ts` at which it may be ended; zero asks to end it at once.
    pub ttl_ms: u64,
    /// It was taken before its transaction knew what to write.
    pub is_pessimistic: bool,
    /// As of when it was taken, in a pessimistic transaction.
    pub for_update_ts: TimeStamp,
    /// The transaction does not commit below this.
    pub min_commit_ts: TimeStamp,
    /// The transaction is committed as soon as all keys are prewritten.
    pub is_async: bool,
    /// On the primary of such a transaction: all other keys.
    pub secondaries: Vec<Bytes>,
}

/// Why the state of a key is against a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Another transaction has the key.
    Locked(Box<Lock>),
    /// Another transaction committed the key.
    Conflict {
        /// Which key.
        key: Bytes,
        /// When it committed; zero: the transaction itself was rolled back.
        commit_ts: TimeStamp,
    },
    /// A key that must not exist does.
    Exists {
        /// Which key.
        key: Bytes,
    },
    /// Transactions wait for each other.
    Deadlock {
        /// The key that was wanted.
        key: Bytes,
        /// Who has it.
        lock_ts: TimeStamp,
    },
    /// A reader was let past: the transaction has to commit later.
    CommitTooEarly {
        /// From when on it may.
        min_commit_ts: TimeStamp,
    },
    /// The primary does not know the transaction.
    Unknown,
    /// There is no lock to commit.
    LockNotFound {
        /// Which key.
        key: Bytes,
    },
    /// The key that was asked is not the primary of the transaction.
    NotPrimary,
    /// The transaction is over.
    Aborted(String),
}

/// What was done about a transaction whose primary was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Nothing, or it was rolled back.
    #[default]
    None,
    /// It commits later than the asking transaction reads.
    Pushed,
    /// Only a pessimistic lock is gone, or was never there: nothing is decided about the transaction.
    Undecided,
}

/// What stores answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing but errors.
    Refused,
    /// Pairs.
    Pairs(Vec<Pair>),
    /// All keys are prewritten.
    Prewritten {
        /// The transaction commits at or above this; zero: it falls back to two phases.
        min_commit_ts: TimeStamp,
        /// It is committed at this; zero: it is not.
        one_phase_ts: TimeStamp,
    },
    /// Committed, at this.
    Committed(TimeStamp),
    /// It is done.
    Done,
    /// With `ttl_ms` and `commit_ts` zero the transaction is rolled back (or see `action`).
    Status {
        /// Under way: milliseconds to live after its start.
        ttl_ms: u64,
        /// Committed: when.
        commit_ts: TimeStamp,
        /// What was done.
        action: Action,
        /// Under way: the primary's lock.
        lock: Option<Box<Lock>>,
    },
    /// What there is of the secondary keys.
    Secondaries {
        /// Their locks; fewer than there are keys: some were not prewritten, and never will be.
        locks: Vec<Lock>,
        /// Committed: when.
        commit_ts: TimeStamp,
    },
}

/// What a command came to, at one store or over all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What was done.
    pub reply: Reply,
    /// Why something was not.
    pub errors: Vec<KeyError>,
    /// What was not, to be sent again. Set by the client, not by stores.
    pub left: Option<Box<Command>>,
}

impl Answered {
    /// All is done.
    pub fn ok(reply: Reply) -> Answered {
        Answered { reply, errors: Vec::new(), left: None }
    }

    /// Nothing is.
    pub fn refused(errors: Vec<KeyError>) -> Answered {
        Answered { reply: Reply::Refused, errors, left: None }
    }
}
