//! The key-value service: one async function per RPC, from request to answer.
//!
//! Nothing here knows tonic. Unary calls, BatchCommands and the course's family are thin callers of these functions.
//! Errors are part of the answers. On the paths of put and get.

use std::sync::Arc;

use proto::kvrpcpb::{
    ChecksumAlgorithm, RawBatchDeleteRequest, RawBatchDeleteResponse, RawBatchGetRequest,
    RawBatchGetResponse, RawBatchPutRequest, RawBatchPutResponse, RawBatchScanRequest,
    RawBatchScanResponse, RawCasRequest, RawCasResponse, RawChecksumRequest, RawChecksumResponse,
    RawCoprocessorRequest, RawCoprocessorResponse, RawDeleteRangeRequest, RawDeleteRangeResponse,
    RawDeleteRequest, RawDeleteResponse, RawGetKeyTtlRequest, RawGetKeyTtlResponse, RawGetRequest,
    RawGetResponse, RawPutRequest, RawPutResponse, RawScanRequest, RawScanResponse,
    UnsafeDestroyRangeRequest, UnsafeDestroyRangeResponse,
};
use storage::{Error, KvPair, RawBatchScan, RawScan, Storage, View};
use types::{Code, KeyRange, RegionError, RequestContext};

use super::rpc_times::RpcTimes;
use crate::{
    convert::{context, key_range, pair_to_proto},
    deadlocks::DeadlockDetector,
    errors::{self, Answer},
    placement::Placement,
    unreported::Unreported,
};

/// Scans of up to so many pairs run where the request arrived; longer ones move to the blocking pool, so that they
/// hold up nobody. A pair costs about a microsecond, a change of threads about thirty.
pub(super) const INLINE_SCAN_PAIRS: u32 = 128;

/// The key-value service of one store.
#[derive(Clone, Debug)]
pub(crate) struct KvService {
    storage: Storage,
    placement: Placement,
    unreported: Unreported,
    times: RpcTimes,
    detector: Option<DeadlockDetector>,
}

impl KvService {
    /// Serves `storage`; the ids of new regions come from `placement`. Callers count in `times` how long requests take.
    /// Answers that tell of a split wait until it is not `unreported` any more.
    pub(crate) fn new(
        storage: Storage,
        placement: Placement,
        unreported: Unreported,
        times: RpcTimes,
    ) -> KvService {
        KvService { storage, placement, unreported, times, detector: None }
    }

    /// Has requests that wait for locks refused where they would wait in a circle.
    pub(crate) fn with_detector(self, detector: DeadlockDetector) -> KvService {
        KvService { detector: Some(detector), ..self }
    }

    pub(super) fn detector(&self) -> Option<&DeadlockDetector> {
        self.detector.as_ref()
    }

    pub(super) fn placement(&self) -> &Placement {
        &self.placement
    }

    pub(super) fn unreported(&self) -> &Unreported {
        &self.unreported
    }

    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn times(&self) -> &RpcTimes {
        &self.times
    }

    /// One snapshot and one reading of the clock for a batch of point gets.
    pub(crate) fn view(&self) -> Result<View, Error> {
        self.storage.view()
    }

    /// RawGet on a view that the caller took after the request had arrived; `None`: the leader, or the scheduler, has to be
    /// asked first.
    pub(crate) fn raw_get_in(
        &self,
        view: &View,
        request: &RawGetRequest,
    ) -> Option<RawGetResponse> {
        match view.raw_get(&context(request.context.as_ref()), &request.cf, &request.key) {
            Ok(Some(value)) => Some(RawGetResponse { value, ..RawGetResponse::default() }),
            Ok(None) => Some(RawGetResponse { not_found: true, ..RawGetResponse::default() }),
            Err(Error::LeaseLapsed | Error::Region(RegionError::EpochNotMatch { .. })) => None,
            Err(error) => Some(RawGetResponse::failed(&error)),
        }
    }

    pub(crate) async fn raw_get(&self, request: RawGetRequest) -> RawGetResponse {
        let context = context(request.context.as_ref());
        let got = self
            .read(&context, true, move |view| view.raw_get(&context, &request.cf, &request.key));
        match got.await {
            Ok(Some(value)) => RawGetResponse { value, ..RawGetResponse::default() },
            Ok(None) => RawGetResponse { not_found: true, ..RawGetResponse::default() },
            Err(error) => RawGetResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_batch_get(&self, request: RawBatchGetRequest) -> RawBatchGetResponse {
        let context = context(request.context.as_ref());
        let pairs = self.read(&context, true, move |view| {
            view.raw_batch_get(&context, &request.cf, &request.keys)
        });
        match pairs.await {
            Ok(pairs) => RawBatchGetResponse {
                pairs: pairs.into_iter().map(pair_to_proto).collect(),
                ..RawBatchGetResponse::default()
            },
            Err(error) => RawBatchGetResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_put(&self, request: RawPutRequest) -> RawPutResponse {
        let context = context(request.context.as_ref());
        let put =
            self.storage.raw_put(&context, &request.cf, request.key, request.value, request.ttl);
        done(self.known(put).await)
    }

    pub(crate) async fn raw_batch_put(&self, request: RawBatchPutRequest) -> RawBatchPutResponse {
        let context = context(request.context.as_ref());
        // Older clients send one time to live for all pairs.
        let ttls = if request.ttls.is_empty() && request.ttl > 0 {
            vec![request.ttl]
        } else {
            request.ttls
        };
        let pairs = request
            .pairs
            .into_iter()
            .map(|pair| KvPair { key: pair.key, value: pair.value })
            .collect();
        done(self.known(self.storage.raw_batch_put(&context, &request.cf, pairs, &ttls)).await)
    }

    pub(crate) async fn raw_delete(&self, request: RawDeleteRequest) -> RawDeleteResponse {
        let context = context(request.context.as_ref());
        done(self.known(self.storage.raw_delete(&context, &request.cf, request.key)).await)
    }

    pub(crate) async fn raw_batch_delete(
        &self,
        request: RawBatchDeleteRequest,
    ) -> RawBatchDeleteResponse {
        let context = context(request.context.as_ref());
        done(self.known(self.storage.raw_batch_delete(&context, &request.cf, request.keys)).await)
    }

    pub(crate) async fn raw_delete_range(
        &self,
        request: RawDeleteRangeRequest,
    ) -> RawDeleteRangeResponse {
        let context = context(request.context.as_ref());
        let (start, end) = (request.start_key, request.end_key);
        done(self.known(self.storage.raw_delete_range(&context, &request.cf, start, end)).await)
    }

    pub(crate) async fn raw_scan(&self, request: RawScanRequest) -> RawScanResponse {
        let context = context(request.context.as_ref());
        let short = request.limit <= INLINE_SCAN_PAIRS;
        let scan = RawScan {
            cf: request.cf,
            start: request.start_key,
            end: request.end_key,
            limit: request.limit as usize,
            key_only: request.key_only,
            reverse: request.reverse,
        };
        let scanned = self.read(&context, short, move |view| view.raw_scan(&context, &scan)).await;
        match scanned {
            Ok(pairs) => RawScanResponse {
                kvs: pairs.into_iter().map(pair_to_proto).collect(),
                ..RawScanResponse::default()
            },
            Err(error) => RawScanResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_batch_scan(
        &self,
        request: RawBatchScanRequest,
    ) -> RawBatchScanResponse {
        let context = context(request.context.as_ref());
        let pairs = u64::from(request.each_limit) * request.ranges.len() as u64;
        let short = pairs <= u64::from(INLINE_SCAN_PAIRS);
        let scan = RawBatchScan {
            cf: request.cf,
            ranges: request.ranges.into_iter().map(key_range).collect(),
            each_limit: request.each_limit as usize,
            key_only: request.key_only,
            reverse: request.reverse,
        };
        let scanned =
            self.read(&context, short, move |view| view.raw_batch_scan(&context, &scan)).await;
        match scanned {
            Ok(pairs) => RawBatchScanResponse {
                kvs: pairs.into_iter().map(pair_to_proto).collect(),
                ..RawBatchScanResponse::default()
            },
            Err(error) => RawBatchScanResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_get_key_ttl(
        &self,
        request: RawGetKeyTtlRequest,
    ) -> RawGetKeyTtlResponse {
        let context = context(request.context.as_ref());
        let ttl = self.read(&context, true, move |view| {
            view.raw_key_ttl(&context, &request.cf, &request.key)
        });
        match ttl.await {
            Ok(Some(ttl)) => RawGetKeyTtlResponse { ttl, ..RawGetKeyTtlResponse::default() },
            Ok(None) => RawGetKeyTtlResponse { not_found: true, ..RawGetKeyTtlResponse::default() },
            Err(error) => RawGetKeyTtlResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_compare_and_swap(&self, request: RawCasRequest) -> RawCasResponse {
        let context = context(request.context.as_ref());
        let expected = (!request.previous_not_exist).then_some(request.previous_value);
        let new = (!request.delete).then_some(request.value);
        let swap = self.storage.raw_compare_and_swap(
            &context,
            &request.cf,
            request.key,
            expected,
            new,
            request.ttl,
        );
        match self.known(swap).await {
            Ok(swapped) => RawCasResponse {
                succeed: swapped.succeeded,
                previous_not_exist: swapped.previous.is_none(),
                previous_value: swapped.previous.unwrap_or_default(),
                ..RawCasResponse::default()
            },
            Err(error) => RawCasResponse::failed(&error),
        }
    }

    pub(crate) async fn raw_checksum(&self, request: RawChecksumRequest) -> RawChecksumResponse {
        if request.algorithm != i32::from(ChecksumAlgorithm::Crc64Xor) {
            let reason = format!("checksum algorithm {} is not known", request.algorithm);
            return RawChecksumResponse::failed(&Error::InvalidRequest(reason));
        }
        let context = context(request.context.as_ref());
        let ranges: Vec<KeyRange> = request.ranges.into_iter().map(key_range).collect();
        let sum =
            self.read(&context, false, move |view| view.raw_checksum(&context, &ranges)).await;
        match sum {
            Ok(sum) => RawChecksumResponse {
                checksum: sum.checksum,
                total_kvs: sum.total_kvs,
                total_bytes: sum.total_bytes,
                ..RawChecksumResponse::default()
            },
            Err(error) => RawChecksumResponse::failed(&error),
        }
    }

    /// There are no coprocessor plug-ins: the answer is an error text, which is a complete answer.
    pub(crate) async fn raw_coprocessor(
        &self,
        request: RawCoprocessorRequest,
    ) -> RawCoprocessorResponse {
        let message = format!("no coprocessor plug-in \"{}\" is loaded", request.copr_name);
        RawCoprocessorResponse {
            error: errors::with_remedy(&message, Code::Unsupported),
            ..RawCoprocessorResponse::default()
        }
    }

    pub(crate) async fn unsafe_destroy_range(
        &self,
        request: UnsafeDestroyRangeRequest,
    ) -> UnsafeDestroyRangeResponse {
        done(
            self.known(self.storage.unsafe_destroy_range(request.start_key, request.end_key)).await,
        )
    }

    /// The result of `request`, held back as long as it tells of a split that the scheduler does not know.
    pub(super) async fn known<T>(
        &self,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let result = request.await;
        if let Err(Error::Region(RegionError::EpochNotMatch { regions })) = &result {
            self.unreported.wait(regions).await;
        }
        result
    }

    /// Runs `read` on a fresh view, and if no lease covers it on one for which the leader was asked: here if it is short,
    /// else on the blocking pool.
    async fn read<T: Send + 'static>(
        &self,
        context: &RequestContext,
        short: bool,
        read: impl Fn(&View) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        self.known(self.read_view(context, short, read)).await
    }

    async fn read_view<T: Send + 'static>(
        &self,
        context: &RequestContext,
        short: bool,
        read: impl Fn(&View) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let view = self.view()?;
        if short {
            return match read(&view) {
                Err(Error::LeaseLapsed) => read(&self.storage.view_by_index(context).await?),
                result => result,
            };
        }
        let read = Arc::new(read);
        match on_pool(Arc::clone(&read), view).await {
            Err(Error::LeaseLapsed) => {
                on_pool(read, self.storage.view_by_index(context).await?).await
            }
            result => result,
        }
    }
}

/// Runs a read where it holds up nobody.
async fn on_pool<T: Send + 'static>(
    read: Arc<impl Fn(&View) -> Result<T, Error> + Send + Sync + 'static>,
    view: View,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(move || read(&view)).await {
        Ok(result) => result,
        // The pool refuses work only while the process stops.
        Err(_) => Err(Error::InvalidRequest("the store is stopping".to_owned())),
    }
}

/// The answer to a write that has nothing to say but that it was done.
fn done<A: Answer>(result: Result<(), Error>) -> A {
    match result {
        Ok(()) => A::default(),
        Err(error) => A::failed(&error),
    }
}
