//! The first failure of an engine, which is its answer to everything that follows (contract point 4).

use std::sync::{Arc, OnceLock};

use crate::{Error, Result};

/// Set once, never cleared: after a failed write or sync nobody knows what the disk holds, and after a failed
/// `fsync` the kernel has dropped the pages, so that a second try would succeed and mean nothing.
#[derive(Debug, Default)]
pub(crate) struct Poison {
    cause: OnceLock<Arc<Error>>,
}

impl Poison {
    /// An error if anything has failed before. One load when nothing has.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Stops the engine because of `cause`, and returns what the call that failed answers: `cause` itself, or
    /// `Poisoned` where the caller could take the error for a passing one.
    pub(crate) fn set(&self, cause: Error) -> Error {
        if matches!(cause, Error::Poisoned { .. }) {
            return cause;
        }
        let shared = Arc::new(cause);
        // A second failure is a consequence of the first, which stays the one that is reported.
        let _ = self.cause.set(shared.clone());
        match &*shared {
            // On its own this error says that nothing was written and that trying later is fine. It is not: the
            // disk filled up in the middle of a write.
            Error::DiskFull { .. } => Error::Poisoned { cause: shared },
            cause => cause.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use types::ErrorClass;

    use super::*;

    #[test]
    fn the_first_failure_stays() {
        let poison = Poison::default();
        assert!(poison.check().is_ok());
        let damaged = |detail: &str| Error::Corrupt { path: "t".into(), detail: detail.to_owned() };
        assert!(matches!(poison.set(damaged("one")), Error::Corrupt { .. }));
        assert!(
            matches!(poison.set(damaged("two")), Error::Corrupt { detail, .. } if detail == "two")
        );
        let Err(Error::Poisoned { cause }) = poison.check() else { panic!("poisoned") };
        assert!(matches!(&*cause, Error::Corrupt { detail, .. } if detail == "one"));
    }

    #[test]
    fn a_disk_that_fills_up_in_a_write_is_fatal() {
        let error = Poison::default().set(Error::DiskFull { path: "d".into() });
        assert_eq!(error.class(), ErrorClass::Fatal);
        assert!(error.to_string().contains("no space left"), "{error}");
    }
}
