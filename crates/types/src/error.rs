//! Why a request was not served by the peer that got it, and what the caller does about an error.

use std::time::Duration;

use crate::{Bytes, Code, Peer, PeerId, Region, RegionId, StoreId};

/// What the caller of a failed request does next. Clients, services and metrics switch on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request went to the wrong place: refresh the route, try again.
    Reroute,
    /// Too much work at the moment: wait, try again.
    BackOff,
    /// The data forbids it (a lost comparison, a lock): the user decides.
    Conflict,
    /// The request makes no sense and never will.
    Invalid,
    /// It may or may not have taken effect; only idempotent requests may be retried.
    Undetermined,
    /// This process can't go on (I/O, corruption): the store stops. Never sent as an answer.
    Fatal,
}

/// Why a request was not served in this region by this peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Another peer leads the region, or none does at the moment.
    #[error("not leader of region {region}")]
    NotLeader {
        /// Which region.
        region: RegionId,
        /// Who leads, if known.
        leader: Option<Peer>,
    },
    /// The store has no peer of that region (also: the request named none).
    #[error("region {region} is not on this store")]
    RegionNotFound {
        /// Which region.
        region: RegionId,
    },
    /// The region has changed since the client learnt its route.
    #[error("the epoch of the region has changed")]
    EpochNotMatch {
        /// All regions that cover the range now; bounds in stored form.
        regions: Vec<Region>,
    },
    /// The key lies outside of the region that the request named.
    #[error("key {} is not in region {}", crate::key::display(key), region.id)]
    KeyNotInRegion {
        /// The key, in the form that the region's bounds have.
        key: Bytes,
        /// The region.
        region: Box<Region>,
    },
    /// The request was meant for another store; addresses were reused.
    #[error("this is store {actual}, the request is for store {request}")]
    StoreNotMatch {
        /// The store in the request.
        request: StoreId,
        /// This store.
        actual: StoreId,
    },
    /// A queue or budget is full.
    #[error("server is busy: {reason}")]
    ServerIsBusy {
        /// Which bound was hit.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A peer cannot show a moment of the past without asking: it does not know until when its data are complete.
    #[error("peer {peer} of region {region} can not answer stale reads yet")]
    DataIsNotReady {
        /// Which region.
        region: RegionId,
        /// Which peer.
        peer: PeerId,
    },
    /// The command is larger than a log entry may be.
    #[error(
        "the command has {size} bytes, a log entry of region {region} at most {}",
        crate::limits::ENTRY_BYTES_MAX
    )]
    RaftEntryTooLarge {
        /// Which region.
        region: RegionId,
        /// Bytes of the command.
        size: u64,
    },
    /// A change of the region makes no sense, and never will from where the region is.
    #[error("region {region}: {reason}")]
    Invalid {
        /// Which region.
        region: RegionId,
        /// What is wrong with it.
        reason: String,
    },
    /// The store has no space left: it takes nothing that needs more.
    #[error("store {store} has no space left for region {region}")]
    DiskFull {
        /// The store.
        store: StoreId,
        /// Which region was to be written.
        region: RegionId,
    },
    /// The outcome is not known. Nothing may be retried blindly.
    #[error("the outcome is not known: {reason}")]
    Undetermined {
        /// What happened.
        reason: String,
    },
}

impl RegionError {
    /// What the caller does next.
    pub fn class(&self) -> ErrorClass {
        match self {
            RegionError::NotLeader { .. }
            | RegionError::RegionNotFound { .. }
            | RegionError::EpochNotMatch { .. }
            | RegionError::KeyNotInRegion { .. }
            | RegionError::StoreNotMatch { .. } => ErrorClass::Reroute,
            RegionError::ServerIsBusy { .. }
            | RegionError::DataIsNotReady { .. }
            | RegionError::DiskFull { .. } => ErrorClass::BackOff,
            RegionError::RaftEntryTooLarge { .. } | RegionError::Invalid { .. } => {
                ErrorClass::Invalid
            }
            RegionError::Undetermined { .. } => ErrorClass::Undetermined,
        }
    }

    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            RegionError::NotLeader { .. } => Code::NotLeader,
            RegionError::RegionNotFound { .. } => Code::RegionNotFound,
            RegionError::EpochNotMatch { .. } => Code::EpochNotMatch,
            RegionError::KeyNotInRegion { .. } => Code::KeyNotInRegion,
            RegionError::StoreNotMatch { .. } => Code::StoreNotMatch,
            RegionError::ServerIsBusy { .. } => Code::ServerIsBusy,
            RegionError::DataIsNotReady { .. } => Code::DataIsNotReady,
            RegionError::RaftEntryTooLarge { .. } => Code::EntryTooLarge,
            RegionError::Invalid { .. } => Code::InvalidRequest,
            RegionError::DiskFull { .. } => Code::DiskFull,
            RegionError::Undetermined { .. } => Code::Undetermined,
        }
    }
}
