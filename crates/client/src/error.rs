//! Why an operation has no result.
//!
//! A user does one of four things with an error: try again later, change the request, look at the data, or find out
//! what happened to a write ([`Kind`]). Every error has a row in the catalogue ([`Error::code`]).
//!
//! [`Error::Undetermined`] is the one that must never be mistaken for a failure: the write may have taken effect, may
//! not have, and for as long as the request is somewhere on its way may still do so.

use std::time::Duration;

use types::{Bytes, Code, ErrorClass, RegionError, StoreId, TimeStamp, key::display};

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a user can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody answered, or only "not now": the same operation may succeed later.
    Unavailable,
    /// The operation was refused, and will be again.
    Refused,
    /// A write may or may not have taken effect.
    Undetermined,
    /// The transaction lost against another one, and is over: the same in a new transaction may succeed.
    Conflict,
    /// Somebody breaks the protocol: a bug here or there.
    Bug,
}

/// Why one scheduler address did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFailure {
    /// The address as the user gave it.
    pub endpoint: String,
    /// What happened, in a few words.
    pub reason: String,
}

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Every scheduler address failed, each for its own reason.
    #[error("no scheduler answered: {}", list(.failures))]
    SchedulerUnreachable {
        /// One for each address.
        failures: Vec<EndpointFailure>,
    },
    /// The scheduler answered with an error.
    #[error("the scheduler says: {message}")]
    Scheduler {
        /// Which error.
        code: Code,
        /// In its words.
        message: String,
    },
    /// A store did not answer.
    #[error("store {store} at {address} did not answer: {reason}")]
    StoreUnreachable {
        /// Which store.
        store: StoreId,
        /// Where it should be.
        address: String,
        /// What happened, in a few words.
        reason: String,
    },
    /// A region did not take the request.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A store, or a check before anything was sent, refused the request.
    #[error("{message}")]
    Refused {
        /// Which error.
        code: Code,
        /// What is wrong.
        message: String,
    },
    /// The time of the operation was over. A write was certainly not executed; of a batch or range, a part may be.
    #[error("{operation} not done after {after:?}{}", first(.cause))]
    Timeout {
        /// What was asked.
        operation: String,
        /// How long it was tried.
        after: Duration,
        /// The first thing that went wrong; `None` if nothing did but time.
        cause: Option<Box<Error>>,
    },
    /// The write may or may not have taken effect.
    #[error("the outcome of {operation} is not known: {reason}")]
    Undetermined {
        /// What was asked.
        operation: String,
        /// What happened.
        reason: String,
    },
    /// Another transaction committed a key since this one began.
    #[error(
        "transaction {start_ts} conflicts: {} was written at {conflict_commit_ts}",
        display(key)
    )]
    WriteConflict {
        /// The transaction that lost.
        start_ts: TimeStamp,
        /// When the other one committed.
        conflict_commit_ts: TimeStamp,
        /// Which key.
        key: Bytes,
    },
    /// A key that was to be inserted exists.
    #[error("{} exists already", display(key))]
    KeyExists {
        /// Which key.
        key: Bytes,
    },
    /// The transaction waits for one that waits for it.
    #[error(
        "transaction {start_ts} waits for {} of transaction {lock_ts}, which waits for it",
        display(key)
    )]
    Deadlock {
        /// The transaction that was chosen to give way.
        start_ts: TimeStamp,
        /// The transaction that has the key.
        lock_ts: TimeStamp,
        /// Which key.
        key: Bytes,
    },
    /// The transaction was rolled back, by somebody who met its locks or because it could not be committed.
    #[error("transaction {start_ts} was rolled back: {reason}")]
    Aborted {
        /// The transaction.
        start_ts: TimeStamp,
        /// Why, as far as is known.
        reason: String,
    },
    /// A key is locked by a transaction that is still under way.
    #[error("{} is locked by transaction {lock_ts}", display(key))]
    Locked {
        /// The transaction that has it.
        lock_ts: TimeStamp,
        /// Which key.
        key: Bytes,
    },
    /// An answer that makes no sense.
    #[error("{who} answered something that makes no sense: {what}")]
    BadAnswer {
        /// A store or the scheduler.
        who: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// A refusal of our own, before anything was sent.
    pub fn refused(code: Code, message: impl Into<String>) -> Error {
        Error::Refused { code, message: message.into() }
    }

    /// The row of the catalogue. A time-out has that of its first cause, because that is what can be mended.
    pub fn code(&self) -> Code {
        match self {
            Error::SchedulerUnreachable { .. } => Code::SchedulerUnreachable,
            Error::StoreUnreachable { .. } => Code::StoreUnreachable,
            Error::Region(error) => error.code(),
            Error::Scheduler { code, .. } | Error::Refused { code, .. } => *code,
            Error::Timeout { cause, .. } => {
                cause.as_ref().map_or(Code::Timeout, |cause| cause.code())
            }
            Error::Undetermined { .. } => Code::Undetermined,
            Error::WriteConflict { .. } => Code::WriteConflict,
            Error::KeyExists { .. } => Code::KeyExists,
            Error::Deadlock { .. } => Code::Deadlock,
            Error::Aborted { .. } => Code::TxnAborted,
            Error::Locked { .. } => Code::KeyLocked,
            Error::BadAnswer { .. } => Code::Bug,
        }
    }

    /// What a user can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::SchedulerUnreachable { .. }
            | Error::StoreUnreachable { .. }
            | Error::Locked { .. }
            | Error::Timeout { .. } => Kind::Unavailable,
            Error::WriteConflict { .. } | Error::Deadlock { .. } | Error::Aborted { .. } => {
                Kind::Conflict
            }
            Error::KeyExists { .. } => Kind::Refused,
            Error::Region(error) => match error.class() {
                ErrorClass::Undetermined => Kind::Undetermined,
                ErrorClass::Reroute | ErrorClass::BackOff => Kind::Unavailable,
                ErrorClass::Conflict | ErrorClass::Invalid | ErrorClass::Fatal => Kind::Refused,
            },
            Error::Scheduler { code, .. } | Error::Refused { code, .. } => {
                if code.entry().retryable { Kind::Unavailable } else { Kind::Refused }
            }
            Error::Undetermined { .. } => Kind::Undetermined,
            Error::BadAnswer { .. } => Kind::Bug,
        }
    }

    /// Whether the same operation may be sent again without doing something twice, and may then succeed.
    pub fn is_retryable(&self) -> bool {
        self.kind() == Kind::Unavailable
    }

    /// Why it happened, where that is known better than from the catalogue.
    pub fn cause(&self) -> Option<&'static str> {
        match self {
            Error::BadAnswer { .. } => {
                Some("Client and server do not understand each other's protocol.")
            }
            _ => None,
        }
    }

    /// One thing to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Error::BadAnswer { .. } => {
                "check that the address is a TiKV-compatible cluster, and report it with both versions"
            }
            other => other.code().entry().remedy,
        }
    }
}

fn list(failures: &[EndpointFailure]) -> String {
    if failures.is_empty() {
        return "no address was given".to_owned();
    }
    let failures: Vec<String> =
        failures.iter().map(|f| format!("{} {}", f.endpoint, f.reason)).collect();
    failures.join(", ")
}

fn first(cause: &Option<Box<Error>>) -> String {
    cause.as_ref().map_or_else(String::new, |cause| format!("; first: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_shows_its_first_cause_and_has_its_code() {
        let cause = Error::StoreUnreachable {
            store: StoreId(1),
            address: "127.0.0.1:20160".to_owned(),
            reason: "refused".to_owned(),
        };
        let error = Error::Timeout {
            operation: "put hello".to_owned(),
            after: Duration::from_secs(10),
            cause: Some(Box::new(cause)),
        };
        assert_eq!(
            error.to_string(),
            "put hello not done after 10s; first: store 1 at 127.0.0.1:20160 did not answer: refused"
        );
        assert_eq!((error.code(), error.kind()), (Code::StoreUnreachable, Kind::Unavailable));
        let error = Error::Timeout {
            operation: "get a".to_owned(),
            after: Duration::from_millis(500),
            cause: None,
        };
        assert_eq!(error.to_string(), "get a not done after 500ms");
        assert_eq!(error.code(), Code::Timeout);
    }

    #[test]
    fn each_address_has_a_reason_of_its_own() {
        let failure = |endpoint: &str, reason: &str| EndpointFailure {
            endpoint: endpoint.to_owned(),
            reason: reason.to_owned(),
        };
        let error = Error::SchedulerUnreachable {
            failures: vec![
                failure("10.0.0.1:2379", "refused"),
                failure("10.0.0.2:2379", "timed out after 3s"),
            ],
        };
        assert_eq!(
            error.to_string(),
            "no scheduler answered: 10.0.0.1:2379 refused, 10.0.0.2:2379 timed out after 3s"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn an_unknown_outcome_is_not_retryable() {
        for error in [
            Error::Undetermined {
                operation: "put a".to_owned(),
                reason: "the connection broke".to_owned(),
            },
            Error::Region(RegionError::Undetermined { reason: "the store stopped".to_owned() }),
        ] {
            assert!(!error.is_retryable());
            assert_eq!(error.kind(), Kind::Undetermined);
            assert_eq!(error.code(), Code::Undetermined);
        }
    }
}
