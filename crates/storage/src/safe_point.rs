//! Below which timestamp this store has lost versions.
//!
//! Raised before the removal of versions can be seen, and looked at after a snapshot was taken: who sees that something is
//! missing also sees that it may be. One for all regions: safe points are the cluster's, and a region in which nothing was
//! removed yet soon follows the others.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use txn::KeyError;
use types::TimeStamp;

/// The largest safe point of which anything was applied on this store. Clones are the same. It only grows.
#[derive(Clone, Debug, Default)]
pub(crate) struct SafePoint(Arc<AtomicU64>);

impl SafePoint {
    /// Versions are about to be removed that reads below `safe_point` would need.
    pub(crate) fn raise(&self, safe_point: TimeStamp) {
        self.0.fetch_max(safe_point.0, Ordering::SeqCst);
    }

    fn get(&self) -> TimeStamp {
        TimeStamp(self.0.load(Ordering::SeqCst))
    }

    /// Whether a snapshot that was taken before has everything that a read at `version` needs.
    pub(crate) fn check_read(&self, version: TimeStamp) -> Result<(), KeyError> {
        let safe_point = self.get();
        if version < safe_point {
            return Err(KeyError::BelowSafePoint { ts: version, safe_point });
        }
        Ok(())
    }

    /// Whether the transaction `start_ts` may begin on a key, as a snapshot that was taken before shows it. At the safe point
    /// itself it may not: that it was rolled back there may be forgotten.
    pub(crate) fn check_start(&self, start_ts: TimeStamp) -> Result<(), KeyError> {
        let safe_point = self.get();
        if safe_point != TimeStamp::ZERO && start_ts <= safe_point {
            return Err(KeyError::BelowSafePoint { ts: start_ts, safe_point });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_begin_at_the_safe_point_and_transactions_after_it() {
        let safe_point = SafePoint::default();
        assert_eq!(safe_point.check_read(TimeStamp::ZERO), Ok(()));
        assert_eq!(safe_point.check_start(TimeStamp::ZERO), Ok(()));
        safe_point.raise(TimeStamp(10));
        safe_point.raise(TimeStamp(7));
        assert!(safe_point.check_read(TimeStamp(9)).is_err());
        assert_eq!(safe_point.check_read(TimeStamp(10)), Ok(()));
        assert_eq!(safe_point.check_read(TimeStamp::MAX), Ok(()));
        assert!(safe_point.check_start(TimeStamp(10)).is_err());
        assert_eq!(safe_point.check_start(TimeStamp(11)), Ok(()));
    }
}
