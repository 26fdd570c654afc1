//! Every error of the inside, as the wire has it. The one place where this is decided.
//!
//! Region errors travel as `errorpb.Error` with both the typed field and a message. Raw commands have an `error`
//! string, which clients treat as final; it carries the code and the remedy. Answers that have no such string carry
//! one pair with an abort. An outcome that is not known is `UndeterminedResult` inside BatchCommands, and the gRPC
//! status UNAVAILABLE on a unary call, because clients count only transport errors as undetermined.

use proto::{errorpb, kvrpcpb};
use storage::Error;
use tonic::Status;
use types::{Code, RegionError};

use crate::convert;

/// An error as text for people: what failed, its code, and what to do.
pub(crate) fn text(error: &Error) -> String {
    with_remedy(&error.to_string(), error.code())
}

/// `message` with its code and remedy.
pub(crate) fn with_remedy(message: &str, code: Code) -> String {
    format!("{message} [{code}]; try: {}", code.entry().remedy)
}

/// A region error for the wire.
pub(crate) fn region_error(error: &RegionError) -> Box<errorpb::Error> {
    let mut out = errorpb::Error {
        message: format!("{error} [{}]", error.code()),
        ..errorpb::Error::default()
    };
    match error {
        RegionError::NotLeader { region, leader } => {
            out.not_leader = Some(errorpb::NotLeader {
                region_id: region.0,
                leader: leader.as_ref().map(convert::peer_to_proto),
            });
        }
        RegionError::RegionNotFound { region } => {
            out.region_not_found = Some(errorpb::RegionNotFound { region_id: region.0 });
        }
        RegionError::EpochNotMatch { regions } => {
            let current_regions = regions.iter().map(convert::region_to_proto).collect();
            out.epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
        }
        RegionError::KeyNotInRegion { key, region } => {
            out.key_not_in_region = Some(errorpb::KeyNotInRegion {
                key: key.clone(),
                region_id: region.id.0,
                start_key: region.range.start.clone(),
                end_key: region.range.end.clone(),
            });
        }
        RegionError::StoreNotMatch { request, actual } => {
            out.store_not_match = Some(errorpb::StoreNotMatch {
                request_store_id: request.0,
                actual_store_id: actual.0,
            });
        }
        RegionError::ServerIsBusy { reason, retry_after } => {
            out.server_is_busy = Some(errorpb::ServerIsBusy {
                reason: reason.clone(),
                backoff_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
                ..errorpb::ServerIsBusy::default()
            });
        }
        RegionError::DataIsNotReady { region, peer } => {
            out.data_is_not_ready =
                Some(errorpb::DataIsNotReady { region_id: region.0, peer_id: peer.0, safe_ts: 0 });
        }
        RegionError::RaftEntryTooLarge { region, size } => {
            out.raft_entry_too_large =
                Some(errorpb::RaftEntryTooLarge { region_id: region.0, entry_size: *size });
        }
        // No field says so; the message has the code.
        RegionError::Invalid { .. } => {}
        RegionError::DiskFull { .. } => {
            let reason = error.to_string();
            out.disk_full = Some(errorpb::DiskFull { store_id: Vec::new(), reason });
        }
        RegionError::Undetermined { reason } => {
            out.undetermined_result = Some(errorpb::UndeterminedResult { message: reason.clone() });
        }
    }
    Box::new(out)
}

/// How an error is put into an answer: by the region error field, or as text.
enum Wire {
    Region(Box<errorpb::Error>),
    Text(String),
}

fn wire(error: &Error) -> Wire {
    match error {
        Error::Region(error) => Wire::Region(region_error(error)),
        Error::Engine(engine::Error::DiskFull { path }) => {
            let reason = format!("no space left for {}", path.display());
            Wire::Region(Box::new(errorpb::Error {
                message: text(error),
                disk_full: Some(errorpb::DiskFull { store_id: Vec::new(), reason }),
                ..errorpb::Error::default()
            }))
        }
        other => Wire::Text(text(other)),
    }
}

/// Answers that can say why they are none.
pub(crate) trait Answer: Default {
    /// Puts `error` into the answer.
    fn set_error(&mut self, error: &Error);

    /// The region error that it carries, if any.
    fn region_error(&self) -> Option<&errorpb::Error>;

    /// An answer that only says why it is none.
    fn failed(error: &Error) -> Self {
        let mut answer = Self::default();
        answer.set_error(error);
        answer
    }

    /// The answer as a unary call gives it.
    fn into_unary(self) -> Result<tonic::Response<Self>, Status> {
        match self.region_error().and_then(|error| error.undetermined_result.as_ref()) {
            Some(result) => {
                Err(Status::unavailable(with_remedy(&result.message, Code::Undetermined)))
            }
            None => Ok(tonic::Response::new(self)),
        }
    }
}

/// Answers with `region_error` and `error` as text.
macro_rules! answers_with_text {
    ($($answer:path),* $(,)?) => {$(
        impl Answer for $answer {
            fn set_error(&mut self, error: &Error) {
                match wire(error) {
                    Wire::Region(error) => self.region_error = Some(error),
                    Wire::Text(text) => self.error = text,
                }
            }

            fn region_error(&self) -> Option<&errorpb::Error> {
                self.region_error.as_deref()
            }
        }
    )*};
}

answers_with_text!(
    kvrpcpb::RawGetResponse,
    kvrpcpb::RawPutResponse,
    kvrpcpb::RawBatchPutResponse,
    kvrpcpb::RawDeleteResponse,
    kvrpcpb::RawBatchDeleteResponse,
    kvrpcpb::RawDeleteRangeResponse,
    kvrpcpb::RawGetKeyTtlResponse,
    kvrpcpb::RawCasResponse,
    kvrpcpb::RawChecksumResponse,
    kvrpcpb::RawCoprocessorResponse,
    kvrpcpb::UnsafeDestroyRangeResponse,
    kvrpcpb::DeleteRangeResponse,
    kvrpcpb::MvccGetByKeyResponse,
    kvrpcpb::MvccGetByStartTsResponse,
    proto::tinykv::kvrpc::RawScanResponse,
);

/// It concerns no region: everything is text.
impl Answer for kvrpcpb::PhysicalScanLockResponse {
    fn set_error(&mut self, error: &Error) {
        self.error = text(error);
    }

    fn region_error(&self) -> Option<&errorpb::Error> {
        None
    }
}

/// Answers with `region_error` and pairs, each of which may be an error.
macro_rules! answers_with_pairs {
    ($($answer:path: $pairs:ident),* $(,)?) => {$(
        impl Answer for $answer {
            fn set_error(&mut self, error: &Error) {
                match wire(error) {
                    Wire::Region(error) => self.region_error = Some(error),
                    Wire::Text(abort) => {
                        let error = kvrpcpb::KeyError { abort, ..kvrpcpb::KeyError::default() };
                        self.$pairs = vec![kvrpcpb::KvPair { error: Some(Box::new(error)), ..Default::default() }];
                    }
                }
            }

            fn region_error(&self) -> Option<&errorpb::Error> {
                self.region_error.as_deref()
            }
        }
    )*};
}

answers_with_pairs!(
    kvrpcpb::RawBatchGetResponse: pairs,
    kvrpcpb::RawScanResponse: kvs,
    kvrpcpb::RawBatchScanResponse: kvs,
);

/// Answers that can say that the state of a key is against the request.
pub(crate) trait KeyAnswer: Answer {
    /// Puts `error` into the answer.
    fn set_key_error(&mut self, error: kvrpcpb::KeyError);

    /// An answer that only says so.
    fn refused_by(error: txn::KeyError) -> Self {
        let mut answer = Self::default();
        answer.set_key_error(crate::convert_txn::key_error(error));
        answer
    }
}

/// Answers with `region_error` and one or several key errors; what is neither is an abort.
macro_rules! answers_with_key_errors {
    ($($answer:ident($self:ident, $error:ident) $set:expr;)*) => {$(
        impl KeyAnswer for kvrpcpb::$answer {
            fn set_key_error(&mut $self, $error: kvrpcpb::KeyError) {
                $set
            }
        }

        impl Answer for kvrpcpb::$answer {
            fn set_error(&mut self, error: &Error) {
                match wire(error) {
                    Wire::Region(error) => self.region_error = Some(error),
                    Wire::Text(abort) => {
                        self.set_key_error(kvrpcpb::KeyError { abort, ..Default::default() });
                    }
                }
            }

            fn region_error(&self) -> Option<&errorpb::Error> {
                self.region_error.as_deref()
            }
        }
    )*};
}

/// A whole request's error as the only pair of its answer: client-rust looks nowhere else.
fn only_pair(error: &kvrpcpb::KeyError) -> Vec<kvrpcpb::KvPair> {
    vec![kvrpcpb::KvPair { error: Some(Box::new(error.clone())), ..Default::default() }]
}

answers_with_key_errors! {
    GetResponse(self, error) self.error = Some(Box::new(error));
    BatchGetResponse(self, error) {
        self.pairs = only_pair(&error);
        self.error = Some(Box::new(error));
    };
    ScanResponse(self, error) {
        self.pairs = only_pair(&error);
        self.error = Some(Box::new(error));
    };
    CommitResponse(self, error) self.error = Some(Box::new(error));
    BatchRollbackResponse(self, error) self.error = Some(Box::new(error));
    CleanupResponse(self, error) self.error = Some(Box::new(error));
    CheckTxnStatusResponse(self, error) self.error = Some(Box::new(error));
    TxnHeartBeatResponse(self, error) self.error = Some(Box::new(error));
    CheckSecondaryLocksResponse(self, error) self.error = Some(Box::new(error));
    ResolveLockResponse(self, error) self.error = Some(Box::new(error));
    ScanLockResponse(self, error) self.error = Some(Box::new(error));
    PrewriteResponse(self, error) self.errors = vec![error];
    PessimisticLockResponse(self, error) self.errors = vec![error];
    PessimisticRollbackResponse(self, error) self.errors = vec![error];
    SplitRegionResponse(self, error) self.errors = vec![error];
}
