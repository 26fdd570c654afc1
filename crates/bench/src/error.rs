//! Why a benchmark could not run. Failed requests are no errors in this sense: they are counted
//! ([`crate::record`]).

use std::{io, path::PathBuf};

use types::{Code, ErrorClass};

/// Why a benchmark could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that contradict each other, or that the target cannot serve.
    #[error("{0}")]
    Usage(String),
    /// No scheduler answered, or none knows a leader.
    #[error("no scheduler answered at {endpoints}: {reason}")]
    Scheduler {
        /// What was tried.
        endpoints: String,
        /// The last failure.
        reason: String,
    },
    /// The scheduler has no region for the keys: no store has joined.
    #[error("the cluster at {endpoint} has no region for the keys: {reason}")]
    NotBootstrapped {
        /// The scheduler that answered.
        endpoint: String,
        /// What it said.
        reason: String,
    },
    /// The store cannot be reached.
    #[error("store {address} does not answer: {reason}")]
    Store {
        /// Where it should be.
        address: String,
        /// The failure.
        reason: String,
    },
    /// The keys could not be read or written before the measurement.
    #[error("could not load the keys: {0}")]
    Load(String),
    /// A program that serves as target did not start (is it installed?).
    #[error("could not start {program}: {reason}")]
    Program {
        /// Which one.
        program: &'static str,
        /// What happened.
        reason: String,
    },
    /// A program that serves as target started but did not become ready.
    #[error("{program} was not ready after {seconds} s: {reason}")]
    NotReady {
        /// Which one.
        program: &'static str,
        /// How long it was given.
        seconds: u64,
        /// The last thing that it said.
        reason: String,
    },
    /// The echo server cannot listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// The machine's answer.
        source: io::Error,
    },
    /// A file or folder of the benchmark's own.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The machine's answer.
        source: io::Error,
    },
    /// The machine gives no thread, timer or pipe.
    #[error("the machine refused {what}: {source}")]
    Machine {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Somebody pressed Ctrl-C before there was anything to report. Command lines exit with 130.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        match self {
            Error::Usage(_) | Error::Program { .. } => Code::InvalidSetting,
            Error::Scheduler { .. } => Code::SchedulerUnreachable,
            Error::NotBootstrapped { .. } => Code::NotBootstrapped,
            Error::Store { .. } | Error::Load(_) => Code::StoreUnreachable,
            Error::NotReady { .. } | Error::Interrupted => Code::Timeout,
            Error::Listen { .. } => Code::AddressInUse,
            Error::File { .. } | Error::Machine { .. } => Code::DiskIo,
        }
    }

    /// What the caller does about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Usage(_) | Error::Program { .. } | Error::Listen { .. } => ErrorClass::Invalid,
            Error::Scheduler { .. }
            | Error::NotBootstrapped { .. }
            | Error::Store { .. }
            | Error::Load(_)
            | Error::NotReady { .. }
            | Error::Interrupted => ErrorClass::BackOff,
            Error::File { .. } | Error::Machine { .. } => ErrorClass::Fatal,
        }
    }

    /// Whether a person stopped it.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Error::Interrupted)
    }
}
