//! How long requests took in this store, by method. Counted without locks, read by scrapes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use runtime::Clock;
use types::Histogram;

use crate::metrics::{self, Scale};

/// A method of the store, whichever way it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    RawGet,
    RawBatchGet,
    RawPut,
    RawBatchPut,
    RawDelete,
    RawBatchDelete,
    RawDeleteRange,
    RawScan,
    RawBatchScan,
    RawGetKeyTtl,
    RawCompareAndSwap,
    RawChecksum,
    RawCoprocessor,
    UnsafeDestroyRange,
    KvGet,
    KvScan,
    KvBatchGet,
    KvPrewrite,
    KvCommit,
    KvCleanup,
    KvBatchRollback,
    KvScanLock,
    KvResolveLock,
    KvCheckTxnStatus,
    KvTxnHeartBeat,
    KvCheckSecondaryLocks,
    KvPessimisticLock,
    KvPessimisticRollback,
    KvDeleteRange,
    SplitRegion,
    MvccGetByKey,
    MvccGetByStartTs,
    PhysicalScanLock,
}

impl Method {
    const ALL: [Method; 33] = [
        Method::RawGet,
        Method::RawBatchGet,
        Method::RawPut,
        Method::RawBatchPut,
        Method::RawDelete,
        Method::RawBatchDelete,
        Method::RawDeleteRange,
        Method::RawScan,
        Method::RawBatchScan,
        Method::RawGetKeyTtl,
        Method::RawCompareAndSwap,
        Method::RawChecksum,
        Method::RawCoprocessor,
        Method::UnsafeDestroyRange,
        Method::KvGet,
        Method::KvScan,
        Method::KvBatchGet,
        Method::KvPrewrite,
        Method::KvCommit,
        Method::KvCleanup,
        Method::KvBatchRollback,
        Method::KvScanLock,
        Method::KvResolveLock,
        Method::KvCheckTxnStatus,
        Method::KvTxnHeartBeat,
        Method::KvCheckSecondaryLocks,
        Method::KvPessimisticLock,
        Method::KvPessimisticRollback,
        Method::KvDeleteRange,
        Method::SplitRegion,
        Method::MvccGetByKey,
        Method::MvccGetByStartTs,
        Method::PhysicalScanLock,
    ];
}

/// Microseconds by powers of two, up to a minute.
const BUCKETS: usize = 27;

type Times = Histogram<BUCKETS>;

#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

/// The times of all methods. Clones share them.
#[derive(Clone)]
pub(crate) struct RpcTimes {
    clock: Arc<dyn Clock>,
    /// One for each method.
    methods: Arc<[Counts]>,
}

impl RpcTimes {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> RpcTimes {
        RpcTimes { clock, methods: Method::ALL.iter().map(|_| Counts::default()).collect() }
    }

    /// Runs a request of `method` and counts how long it took.
    pub(crate) async fn timed<F: Future>(&self, method: Method, request: F) -> F::Output {
        let began = self.now();
        let answer = request.await;
        self.record(method, began, 1);
        answer
    }

    /// When a request begins, for [`record`](RpcTimes::record).
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Counts `requests` requests that were answered together and had begun at `began`.
    pub(crate) fn record(&self, method: Method, began: Duration, requests: u64) {
        let took = self.now().saturating_sub(began);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let counts = &self.methods[method as usize];
        counts.buckets[Times::bucket(micros)].fetch_add(requests, Relaxed);
        counts.micros.fetch_add(micros.saturating_mul(requests), Relaxed);
    }

    fn times(&self, method: Method) -> Times {
        let counts = &self.methods[method as usize];
        let mut times = Times { sum: counts.micros.load(Relaxed), ..Times::default() };
        for (count, bucket) in counts.buckets.iter().zip(&mut times.buckets) {
            *bucket = count.load(Relaxed);
        }
        times
    }
}

impl Collector for RpcTimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen: Vec<_> = Method::ALL
            .into_iter()
            .map(|method| (format!("{method:?}"), self.times(method)))
            .filter(|(_, times)| times.buckets.iter().any(|count| *count > 0))
            .collect();
        metrics::histograms(
            &mut encoder,
            "tinykv_rpc_seconds",
            "Time from a request to its answer in the store, by method",
            Scale::Micros,
            seen.iter().map(|(method, times)| (vec![("method", method.as_str())], times)),
        )
    }
}

impl fmt::Debug for RpcTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RpcTimes")
    }
}

#[cfg(test)]
mod tests {
    use runtime::sim::SimClock;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn requests_are_counted_by_method_and_time() {
        let clock = Arc::new(SimClock::new(Duration::ZERO));
        let times = RpcTimes::new(clock.clone());
        let began = times.now();
        clock.advance(Duration::from_micros(3));
        times.record(Method::RawGet, began, 16);
        clock.advance(Duration::from_secs(2));
        times.record(Method::RawPut, began, 1);

        let text = Metrics::new(vec![Box::new(times)]).encode();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("rpc_seconds") && !line.contains('#'))
            .collect();
        for line in [
            "tinykv_rpc_seconds_count{method=\"RawGet\"} 16",
            "tinykv_rpc_seconds_bucket{le=\"0.000002\",method=\"RawGet\"} 0",
            "tinykv_rpc_seconds_bucket{le=\"0.000004\",method=\"RawGet\"} 16",
            "tinykv_rpc_seconds_bucket{le=\"+Inf\",method=\"RawPut\"} 1",
            "tinykv_rpc_seconds_sum{method=\"RawPut\"} 2.000003",
        ] {
            assert!(lines.contains(&line), "{line} is not in\n{}", lines.join("\n"));
        }
        assert!(!text.contains("RawScan"), "methods that nobody called are left out");
    }
}
