//! What can go wrong below the data.

use std::{io, path::PathBuf, sync::Arc};

use types::{Code, ErrorClass};

use crate::{KEY_BYTES_MAX, Kind};

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in an engine or with a data directory.
///
/// Cloneable, since one failure is the answer to everything that comes after it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused an operation.
    #[error("{operation} failed for {}: {source}", path.display())]
    Io {
        /// What was tried, as a noun phrase ("write of the journal").
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the machine said.
        source: Arc<io::Error>,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What does not fit, with the offset where known.
        detail: String,
    },
    /// The disk has hardly any room left; nothing of the batch was written and the engine goes on. (A disk that
    /// fills up in the middle of a write is the cause of `Poisoned` instead.)
    #[error("no space left for {}", path.display())]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// An earlier failure stopped this engine; only a restart of the store clears it.
    #[error("the engine stopped after a failure: {cause}")]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// Another process uses the data directory.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Who holds it, as far as the lock file tells ("pid 4121").
        holder: String,
    },
    /// The data were written by a newer version.
    #[error("{} has format {found}, this version reads formats up to {known}", path.display())]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The directory holds something else than was asked for: another engine, cluster, store or API mode.
    #[error("{} {detail}", path.display())]
    Mismatch {
        /// The data directory.
        path: PathBuf,
        /// What it holds and what was asked for ("was created with engine rocksdb, not fjall").
        detail: String,
    },
    /// A key that no engine takes; nothing of the batch was written.
    #[error("a key has {len} bytes, it must have 1 to {KEY_BYTES_MAX}")]
    KeyLength {
        /// Its bytes.
        len: usize,
    },
    /// The engine is not part of this program.
    #[error(
        "engine {kind} is not part of this build: build with --features {kind}, or choose another engine"
    )]
    NotBuilt {
        /// Which one.
        kind: Kind,
    },
}

impl Error {
    /// What the caller does next: for most of them, nothing but stop.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::DiskFull { .. } => ErrorClass::BackOff,
            Error::KeyLength { .. } => ErrorClass::Invalid,
            Error::Io { .. }
            | Error::Corrupt { .. }
            | Error::Poisoned { .. }
            | Error::Locked { .. }
            | Error::NewerFormat { .. }
            | Error::Mismatch { .. }
            | Error::NotBuilt { .. } => ErrorClass::Fatal,
        }
    }

    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Error::Io { .. } => Code::DiskIo,
            Error::Corrupt { .. } => Code::Corrupt,
            Error::DiskFull { .. } => Code::DiskFull,
            Error::Poisoned { .. } => Code::Poisoned,
            Error::Locked { .. } => Code::DataDirLocked,
            Error::NewerFormat { .. } => Code::NewerFormat,
            Error::Mismatch { .. } => Code::DataDirMismatch,
            Error::KeyLength { .. } => Code::KeyTooLarge,
            Error::NotBuilt { .. } => Code::InvalidSetting,
        }
    }
}
