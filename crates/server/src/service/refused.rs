//! Transactional calls, which this version refuses: in the answer's own error field where it has one, as gRPC clients
//! read it. One place for unary calls, BatchCommands and the course's family.

use proto::{coprocessor, kvrpcpb};
use types::Code;

use crate::errors;

/// An answer that can say that transactions are not served.
pub(crate) trait Refused {
    /// That answer.
    fn refused() -> Self;
}

fn text(what: &str) -> String {
    errors::with_remedy(&format!("{what} not served by this version"), Code::Unsupported)
}

fn key_error() -> kvrpcpb::KeyError {
    let abort = text("transactions are");
    kvrpcpb::KeyError { abort, ..kvrpcpb::KeyError::default() }
}

/// Answers with one error.
macro_rules! with_error {
    ($($response:ident),* $(,)?) => { $(
        impl Refused for kvrpcpb::$response {
            fn refused() -> Self {
                kvrpcpb::$response { error: Some(Box::new(key_error())), ..Self::default() }
            }
        }
    )* };
}

/// Answers with one error for each key.
macro_rules! with_errors {
    ($($response:ident),* $(,)?) => { $(
        impl Refused for kvrpcpb::$response {
            fn refused() -> Self {
                kvrpcpb::$response { errors: vec![key_error()], ..Self::default() }
            }
        }
    )* };
}

with_error!(
    GetResponse,
    ScanResponse,
    BatchGetResponse,
    CommitResponse,
    CleanupResponse,
    BatchRollbackResponse,
    ScanLockResponse,
    ResolveLockResponse,
    CheckTxnStatusResponse,
    TxnHeartBeatResponse,
    CheckSecondaryLocksResponse,
);
with_errors!(PrewriteResponse, PessimisticLockResponse, PessimisticRollbackResponse);

impl Refused for coprocessor::Response {
    fn refused() -> Self {
        coprocessor::Response { other_error: text("the coprocessor is"), ..Self::default() }
    }
}
