//! What can go wrong, by what the caller does about it.

use types::ErrorClass;

/// Why a node could not be made, or a message was refused. A refused message changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings contradict each other: mend them.
    #[error("bad settings: {0}")]
    Config(&'static str),
    /// What the storage holds can't be the state of a node: stop, and look at the disk.
    #[error("bad state in the storage: {0}")]
    State(&'static str),
    /// No correct peer sends this: drop it, and look at who carries messages.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// The message is for another node: drop it.
    #[error("message for node {to}, this is node {id}")]
    Misrouted {
        /// Whom it is for.
        to: u64,
        /// Who got it.
        id: u64,
    },
    /// The answer of somebody who is not in the group (any more): drop it.
    #[error("an answer from {from}, who is not in the group")]
    UnknownPeer {
        /// The sender.
        from: u64,
    },
    /// Another node claims to lead in this term, or its log contradicts what is committed here. One of the two has
    /// lost or changed what it had promised: stop this replica, and compare.
    #[error("node {from} contradicts what is committed at index {index}")]
    Divergence {
        /// The sender.
        from: u64,
        /// Where.
        index: u64,
    },
    /// The storage could not say what was needed: stop the replica.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Error {
    /// What a caller does about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Config(_) | Error::Malformed(_) => ErrorClass::Invalid,
            Error::Misrouted { .. } | Error::UnknownPeer { .. } => ErrorClass::Reroute,
            Error::State(_) | Error::Divergence { .. } => ErrorClass::Fatal,
            Error::Storage(error) => match error {
                StorageError::Compacted | StorageError::Unavailable => ErrorClass::BackOff,
                StorageError::Failed(_) => ErrorClass::Fatal,
            },
        }
    }
}

/// Why a storage has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The entry was there and has been compacted: a snapshot has to take its place.
    #[error("the log is compacted beyond the index")]
    Compacted,
    /// The entry is not there yet, or the snapshot is still being made.
    #[error("not available yet")]
    Unavailable,
    /// Reading failed. The owner stops the replica: the core only leaves undone what it needed this for.
    #[error("the storage failed: {0}")]
    Failed(String),
}

/// Why a proposal was not taken. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Ask the leader.
    #[error("not the leader")]
    NotLeader {
        /// The leader, if it is known; 0 is nobody.
        leader: u64,
    },
    /// The leadership is being transferred, or this leader is no member any more: wait, then ask the new leader.
    #[error("the leadership is being transferred")]
    TransferInProgress,
    /// Never possible: the data are larger than `max_entry_bytes`.
    #[error("the entry has {bytes} bytes, at most {max} are possible")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What is possible.
        max: usize,
    },
    /// Too much is under way: wait until some of it is committed.
    #[error("{uncommitted} bytes are not committed yet")]
    Busy {
        /// How much is under way.
        uncommitted: usize,
    },
    /// Another change of the members, or this leader's first entry, is not applied yet: wait for that.
    #[error("a change of the members is not applied yet")]
    ConfChangePending,
    /// The change makes no sense from where the group is.
    #[error("impossible change of the members: {0}")]
    ConfChangeInvalid(&'static str),
}

impl ProposeError {
    /// What a caller does about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            ProposeError::NotLeader { .. } => ErrorClass::Reroute,
            ProposeError::TransferInProgress
            | ProposeError::Busy { .. }
            | ProposeError::ConfChangePending => ErrorClass::BackOff,
            ProposeError::TooLarge { .. } | ProposeError::ConfChangeInvalid(_) => {
                ErrorClass::Invalid
            }
        }
    }
}

/// Why a read was not taken. Try again, here or elsewhere: a read changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader is known.
    #[error("no leader is known")]
    NoLeader,
    /// The leader has not committed anything in its term: it does not know yet what is committed.
    #[error("nothing is committed in this term yet")]
    NotReady,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Busy,
}

/// Why a transfer of the leadership was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// No leader is known.
    #[error("no leader is known")]
    NoLeader,
    /// Only voters can lead.
    #[error("node {target} is no voter")]
    NotVoter {
        /// Who was asked for.
        target: u64,
    },
}
