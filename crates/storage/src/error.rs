//! Why a command was not carried out.

use types::{ApiMode, ApiVersion, Code, ErrorClass, KeyMode, RegionError};

/// The result of a command.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command was not carried out. Services turn it into the wire's errors in one place
/// (`server::errors`): region errors travel in `region_error`, the rest as text with its code.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request was routed wrongly, or the store is busy.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The cluster holds the other kind of data (API mode v1).
    #[error("this cluster holds {held} data; a {wanted} write would make it unreadable")]
    KeyModeConflict {
        /// What the first write latched.
        held: KeyMode,
        /// What this request is.
        wanted: KeyMode,
    },
    /// The key mode could not be latched at the scheduler; nothing was written.
    #[error("cannot agree with the scheduler on the kind of data: {reason}")]
    KeyModeUnavailable {
        /// What happened.
        reason: String,
    },
    /// The request's API version does not fit the cluster's mode.
    #[error("the cluster has storage.api = \"{mode}\", the request has API version {request:?}")]
    ApiVersionMismatch {
        /// The cluster's mode.
        mode: ApiMode,
        /// The request's version.
        request: ApiVersion,
    },
    /// An API V2 key without a keyspace prefix of the right kind.
    #[error("key {key} has no {kind} keyspace prefix")]
    KeyspacePrefix {
        /// The key, as shown to people.
        key: String,
        /// Raw (`r`) or transactional (`x`).
        kind: KeyMode,
    },
    /// A time to live in API mode v1.
    #[error("time to live is not enabled: the cluster has storage.api = \"v1\"")]
    TtlNotEnabled,
    /// Neither default, lock nor write.
    #[error("unknown column family \"{0}\"")]
    UnknownColumnFamily(String),
    /// Longer than [`types::limits::KEY_BYTES_MAX`].
    #[error("a key has {size} bytes, at most {} are allowed", types::limits::KEY_BYTES_MAX)]
    KeyTooLarge {
        /// Its bytes.
        size: usize,
    },
    /// Larger than [`types::limits::VALUE_BYTES_MAX`].
    #[error("a value has {size} bytes, at most {} are allowed", types::limits::VALUE_BYTES_MAX)]
    ValueTooLarge {
        /// Its bytes.
        size: usize,
    },
    /// A field is missing or contradicts another.
    #[error("{0}")]
    InvalidRequest(String),
    /// The lease of the region's leader has run out: the read needs a view for which the leader was asked
    /// ([`crate::Storage::view_by_index`]). Never an answer.
    #[error("the leader has to ask whether it still leads")]
    LeaseLapsed,
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
}

impl Error {
    /// What the caller does next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Region(error) => error.class(),
            Error::KeyModeConflict { .. } => ErrorClass::Conflict,
            Error::KeyModeUnavailable { .. } | Error::LeaseLapsed => ErrorClass::BackOff,
            Error::Engine(error) => error.class(),
            Error::ApiVersionMismatch { .. }
            | Error::KeyspacePrefix { .. }
            | Error::TtlNotEnabled
            | Error::UnknownColumnFamily(_)
            | Error::KeyTooLarge { .. }
            | Error::ValueTooLarge { .. }
            | Error::InvalidRequest(_) => ErrorClass::Invalid,
        }
    }

    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Error::Region(error) => error.code(),
            Error::KeyModeConflict { .. } => Code::KeyModeConflict,
            Error::KeyModeUnavailable { .. } => Code::SchedulerUnreachable,
            Error::ApiVersionMismatch { .. } => Code::ApiVersionMismatch,
            Error::KeyspacePrefix { .. } => Code::KeyspacePrefix,
            Error::TtlNotEnabled => Code::TtlNotEnabled,
            Error::UnknownColumnFamily(_) => Code::UnknownColumnFamily,
            Error::KeyTooLarge { .. } => Code::KeyTooLarge,
            Error::ValueTooLarge { .. } => Code::ValueTooLarge,
            Error::InvalidRequest(_) => Code::InvalidRequest,
            Error::LeaseLapsed => Code::ServerIsBusy,
            Error::Engine(error) => error.code(),
        }
    }
}
