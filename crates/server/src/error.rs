//! Why a process did not start, or stopped by itself.

use std::io;

use types::Code;

/// Why a process did not start. Says what failed with its values; the catalogue has cause and remedy.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    code: Code,
    message: String,
    remedy: Option<String>,
}

impl StartError {
    /// A failure of the kind `code`, described by `message`.
    pub fn new(code: Code, message: impl Into<String>) -> StartError {
        StartError { code, message: message.into(), remedy: None }
    }

    /// The same with a remedy of its own instead of the catalogue's.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> StartError {
        self.remedy = Some(remedy.into());
        self
    }

    /// The row of the catalogue.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What to do about it.
    pub fn remedy(&self) -> &str {
        self.remedy.as_deref().unwrap_or(self.code.entry().remedy)
    }

    /// A socket that could not be opened.
    pub(crate) fn bind(addr: &str, error: &io::Error) -> StartError {
        let code = match error.kind() {
            io::ErrorKind::AddrInUse => Code::AddressInUse,
            _ => Code::InvalidSetting,
        };
        StartError::new(code, format!("cannot listen on {addr}: {error}"))
    }
}

impl From<engine::Error> for StartError {
    fn from(error: engine::Error) -> StartError {
        StartError::new(error.code(), error.to_string())
    }
}

impl From<scheduler::Error> for StartError {
    fn from(error: scheduler::Error) -> StartError {
        StartError::new(error.code(), error.to_string())
    }
}

impl From<raftstore::Error> for StartError {
    fn from(error: raftstore::Error) -> StartError {
        StartError::new(error.code(), error.to_string())
    }
}

impl From<storage::Error> for StartError {
    fn from(error: storage::Error) -> StartError {
        StartError::new(error.code(), error.to_string())
    }
}

impl From<crate::placement::PlacementError> for StartError {
    fn from(error: crate::placement::PlacementError) -> StartError {
        StartError::new(error.code, error.message)
    }
}

/// Why a running process stopped by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopCause {
    /// The row of the catalogue.
    pub code: Code,
    /// What failed.
    pub message: String,
}
