//! Why a store stops or cannot start. What a request is answered is a [`types::RegionError`].

use engine::raft_log;
use types::{Code, RegionId, codec::DecodeError};

/// The store can't go on, or not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The Raft log failed.
    #[error(transparent)]
    Log(#[from] raft_log::Error),
    /// A core refused its state, or found that it contradicts that of others.
    #[error("region {region}: {error}")]
    Raft {
        /// Which region.
        region: RegionId,
        /// Why.
        error: raft::Error,
    },
    /// Entries that are not applied are gone from the log.
    #[error(
        "region {region} is applied up to {applied}, its log begins after {base}: entries are missing; \
         the engine has lost what it had made durable. Remove the store and let its peers be replaced"
    )]
    Gap {
        /// Which region.
        region: RegionId,
        /// The last entry that the engine has.
        applied: u64,
        /// The entry before the first one of the log.
        base: u64,
    },
    /// A record is damaged, or of a newer version.
    #[error("region {region}: {error}")]
    Damaged {
        /// Which region.
        region: RegionId,
        /// How.
        error: DecodeError,
    },
}

/// The result of what may stop a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Error::Engine(error) | Error::Log(raft_log::Error::Failed(error)) => error.code(),
            Error::Log(_) | Error::Raft { .. } | Error::Gap { .. } | Error::Damaged { .. } => {
                Code::Corrupt
            }
        }
    }

    pub(crate) fn damaged(region: RegionId, error: DecodeError) -> Error {
        Error::Damaged { region, error }
    }
}
