//! Timestamps that nobody can have.
//!
//! `max_ts` only grows, and a transaction that chooses its commit timestamp here commits above it. Who reads far in the
//! future would move all of them there, for good. So a timestamp counts only if the scheduler may have given it out: the
//! store remembers up to where that is so, and asks again when somebody comes with a later one.

use std::sync::atomic::{AtomicU64, Ordering};

use txn::KeyError;
use types::{RegionError, TimeStamp, limits, timestamp::LOGICAL_BITS};

use super::Storage;
use crate::Result;

/// Up to where timestamps are believed; zero: nobody has asked.
#[derive(Debug, Default)]
pub(super) struct TsLimit(AtomicU64);

impl TsLimit {
    /// The scheduler has given out `now`: those of the near future come soon. Returns the limit.
    pub(super) fn learn(&self, now: TimeStamp) -> TimeStamp {
        let limit = ahead_of(now);
        TimeStamp(self.0.fetch_max(limit.0, Ordering::Relaxed)).max(limit)
    }

    fn takes(&self, ts: TimeStamp) -> bool {
        ts.0 <= self.0.load(Ordering::Relaxed) || ts == TimeStamp::MAX
    }
}

impl Storage {
    /// Whether `ts` may have been given out. The largest one, "the newest", always passes: it raises nothing.
    ///
    /// # Errors
    /// The inner one: it can't have been. The outer one: the scheduler does not answer, and by this machine's clock it
    /// can't.
    pub(super) async fn check_given_out(&self, ts: TimeStamp) -> Result<Result<(), KeyError>> {
        let executor = self.inner().executor();
        let Some(timestamps) =
            executor.timestamps.as_ref().filter(|_| !executor.ts_limit.takes(ts))
        else {
            return Ok(Ok(()));
        };
        match timestamps.timestamp().await {
            Ok(now) => {
                let limit = executor.ts_limit.learn(now);
                Ok(if ts <= limit { Ok(()) } else { Err(KeyError::InTheFuture { ts, limit }) })
            }
            Err(reason) => {
                let by_clock = TimeStamp::compose(self.inner().backend().clock().wall_ms(), 0);
                if ts <= ahead_of(by_clock) {
                    return Ok(Ok(()));
                }
                let reason = format!("the scheduler gives no timestamp: {reason}");
                let retry_after = limits::RETRY_STOPPED_AFTER;
                Err(RegionError::ServerIsBusy { reason, retry_after }.into())
            }
        }
    }
}

fn ahead_of(now: TimeStamp) -> TimeStamp {
    let ahead = u64::try_from(limits::TS_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
    TimeStamp(now.0.saturating_add(ahead << LOGICAL_BITS).min(u64::MAX - 1))
}
