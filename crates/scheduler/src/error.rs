//! Why the scheduler did not do what it was asked.

use std::sync::Arc;

use types::{ApiMode, ClusterId, Code, ErrorClass, RegionEpoch, RegionId, StoreId};

/// The result of a request to the scheduler.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the scheduler did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No store has joined yet; there are no regions and nothing to schedule.
    #[error("cluster is not bootstrapped")]
    NotBootstrapped,
    /// The first store is there already.
    #[error("cluster is already bootstrapped")]
    AlreadyBootstrapped,
    /// The request belongs to another cluster.
    #[error("mismatch cluster id, need {expected} but got {found}")]
    ClusterMismatch {
        /// This cluster.
        expected: ClusterId,
        /// The cluster that the request names.
        found: ClusterId,
    },
    /// The mode was fixed when the cluster was created.
    #[error(
        "this cluster has storage.api = \"{cluster}\", the store was started with \"{request}\": start it with \
         storage.api = \"{cluster}\""
    )]
    ApiModeMismatch {
        /// The cluster's mode.
        cluster: ApiMode,
        /// The mode of the one who asked.
        request: ApiMode,
    },
    /// Nobody has registered such a store.
    #[error("invalid store ID {id}, not found")]
    StoreNotFound {
        /// Which store.
        id: StoreId,
    },
    /// The store was removed for good.
    #[error("store {id} has been removed")]
    StoreTombstone {
        /// Which store.
        id: StoreId,
    },
    /// Another store has that address.
    #[error("address {address} belongs to store {owner}")]
    AddressTaken {
        /// The address.
        address: String,
        /// Whose it is.
        owner: StoreId,
    },
    /// The report about a region is older than what is known about its keys.
    #[error(
        "region {region} is stale: it has epoch {epoch}, region {known_region} is known with epoch {known}"
    )]
    StaleRegion {
        /// The region of the report.
        region: RegionId,
        /// Its epoch there.
        epoch: RegionEpoch,
        /// The region that is known: the same one, or one that has some of its keys.
        known_region: RegionId,
        /// Its epoch.
        known: RegionEpoch,
    },
    /// The region has no operator, running or finished.
    #[error("region {region} has no operator")]
    OperatorNotFound {
        /// Which region.
        region: RegionId,
    },
    /// The request makes no sense.
    #[error("{detail}")]
    Invalid {
        /// What does not fit.
        detail: String,
    },
    /// A bound was hit.
    #[error("the scheduler is busy: {reason}")]
    Busy {
        /// Which one.
        reason: &'static str,
    },
    /// A number has no successor: 2^64 ids, or a clock in the year 4199.
    #[error("no {what} are left")]
    Exhausted {
        /// What there is no more of.
        what: &'static str,
    },
    /// The scheduler was shut down.
    #[error("the scheduler has been shut down")]
    ShutDown,
    /// The log could not be written; what is durable is not known. Only a restart clears it.
    #[error("the scheduler stopped after a failure: {cause}")]
    Poisoned {
        /// The failure.
        cause: Arc<engine::Error>,
    },
    /// A request panicked, and the state is in nobody knows which shape. Only a restart clears it.
    #[error("the scheduler stopped after a bug")]
    Panicked,
    /// The state could not be opened or read.
    #[error(transparent)]
    Storage(#[from] engine::Error),
}

impl Error {
    pub(crate) fn invalid(detail: impl Into<String>) -> Error {
        Error::Invalid { detail: detail.into() }
    }

    /// What the caller does next.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::NotBootstrapped | Error::Busy { .. } | Error::ShutDown => ErrorClass::BackOff,
            Error::AlreadyBootstrapped
            | Error::StoreTombstone { .. }
            | Error::AddressTaken { .. }
            | Error::StaleRegion { .. } => ErrorClass::Conflict,
            Error::ClusterMismatch { .. }
            | Error::ApiModeMismatch { .. }
            | Error::StoreNotFound { .. }
            | Error::OperatorNotFound { .. }
            | Error::Invalid { .. }
            | Error::Exhausted { .. } => ErrorClass::Invalid,
            Error::Poisoned { .. } | Error::Panicked => ErrorClass::Fatal,
            Error::Storage(error) => error.class(),
        }
    }

    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Error::NotBootstrapped => Code::NotBootstrapped,
            Error::AlreadyBootstrapped => Code::AlreadyBootstrapped,
            Error::ClusterMismatch { .. } => Code::ClusterMismatch,
            Error::ApiModeMismatch { .. } => Code::ApiVersionMismatch,
            Error::StoreTombstone { .. } => Code::StoreRemoved,
            Error::AddressTaken { .. } => Code::AddressTaken,
            Error::StaleRegion { .. } => Code::EpochNotMatch,
            Error::StoreNotFound { .. }
            | Error::OperatorNotFound { .. }
            | Error::Invalid { .. }
            | Error::Exhausted { .. } => Code::InvalidRequest,
            Error::Busy { .. } => Code::ServerIsBusy,
            Error::ShutDown => Code::SchedulerUnreachable,
            Error::Poisoned { .. } => Code::Poisoned,
            Error::Panicked => Code::Bug,
            Error::Storage(error) => error.code(),
        }
    }
}
