//! What a raft log answers instead of what was asked for.

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a raft log did not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The index is at or below the base (for `term`: below it). Who needs what was there needs a snapshot.
    #[error("region {region}: index {index} is compacted, the log begins after {base_index}")]
    Compacted {
        /// Whose log.
        region: u64,
        /// What was asked for.
        index: u64,
        /// The last index that is forgotten.
        base_index: u64,
    },
    /// The index is beyond the end of the log.
    #[error("region {region}: index {index} is beyond the last one, {last_index}")]
    Unavailable {
        /// Whose log.
        region: u64,
        /// What was asked for.
        index: u64,
        /// The last index that is there.
        last_index: u64,
    },
    /// Entries that do not continue what stands. Nothing of the batch was taken.
    #[error("region {region}: entry {index} can't be appended, the next one is {next_index}")]
    Gap {
        /// Whose log.
        region: u64,
        /// The first entry that does not fit.
        index: u64,
        /// The index that would.
        next_index: u64,
    },
    /// Something is larger than the log can hold. Nothing of the batch was taken.
    #[error("{what} of {bytes} bytes is too large, the limit is {limit}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The log could not be opened, or has stopped: I/O, damage, or an earlier failure.
    #[error(transparent)]
    Failed(#[from] crate::Error),
}
