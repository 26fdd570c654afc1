//! What can go wrong in an embedded cluster or database.

use types::{Code, ErrorClass};

/// The result of a call into an embedded cluster or database.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Its text is one line that says what failed; [`Error::help`] says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message} [{code}]")]
pub struct Error {
    code: Code,
    message: String,
    class: Option<ErrorClass>,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), class: None }
    }

    /// The row of the catalogue (`tinykv explain CODE`).
    pub fn code(&self) -> Code {
        self.code
    }

    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        self.code.entry().retryable
    }

    /// Whether it is not known if a write took place. Repeat only what may happen twice.
    pub fn is_undetermined(&self) -> bool {
        self.class == Some(ErrorClass::Undetermined)
    }

    /// What to do about it.
    pub fn help(&self) -> &'static str {
        self.code.entry().remedy
    }
}

impl From<server::StartError> for Error {
    fn from(error: server::StartError) -> Error {
        Error::new(error.code(), error.to_string())
    }
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Error {
        Error { code: error.code(), message: error.to_string(), class: Some(error.class()) }
    }
}

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Error {
        Error::new(error.code(), error.to_string())
    }
}
